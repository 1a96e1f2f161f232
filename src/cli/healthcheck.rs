//! The command `holdfast healthcheck`, which asks a running server's probes.

use super::output::Failure;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The time that the check waits for an answer.
const HEALTHCHECK_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest part of an answer that is read.
const ANSWER_MAX: u64 = 64 * 1024;

/// Asks for a path of a server. Every answer but 200 is an error.
pub(super) async fn ask(bind_addr: SocketAddr, path: &str) -> Result<(), Failure> {
    // A server on the unspecified address is reached on loopback.
    let mut addr = bind_addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() {
            std::net::Ipv4Addr::LOCALHOST.into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(addr).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = match tokio::time::timeout(HEALTHCHECK_TIMEOUT, ask).await {
        Ok(answer) => answer.map_err(|error| format!("nothing answers on {addr}: {error}"))?,
        Err(_) => {
            return Err(format!("no answer from {addr} within {} s", HEALTHCHECK_TIMEOUT.as_secs()).into());
        }
    };
    let status = answer.split_whitespace().nth(1).unwrap_or("none");
    if status == "200" {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    Err(format!("{addr} does not answer {path} with 200 (status {status}): {body}").into())
}
