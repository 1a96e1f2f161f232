//! One HTTP/1.1 connection that is kept open: prebuilt bytes out, and the least that has to be read of an answer in. The
//! generator shares the machine with what it measures, so it neither builds requests nor parses JSON while it measures.

use super::Result;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Where every governance route lives.
pub(crate) const BASE: &str = "/api/governance";

/// Larger than any answer but a batch's, so that a read is rarely a second one.
const BUFFER_BYTES: usize = 16 * 1024;

/// A `POST` of JSON below the base path, as bytes. `headers` are whole lines.
pub(crate) fn post(path: &str, headers: &str, body: &str) -> Vec<u8> {
    post_of("json", path, headers, body)
}

/// The same of another kind of `application`.
pub(crate) fn post_of(kind: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {BASE}{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/{kind}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A `GET` of an absolute path, as bytes.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    addr: SocketAddr,
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self { addr, stream, buffer: Vec::with_capacity(BUFFER_BYTES) })
    }

    /// A new connection in place of a broken one.
    pub(crate) async fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(self.addr).await?;
        Ok(())
    }

    /// Sends a request as it is and reads the answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head_bytes = loop {
            let from = self.buffer.len().saturating_sub(3);
            self.read_more().await?;
            if let Some(at) = find(&self.buffer[from..], b"\r\n\r\n") {
                break from + at + 4;
            }
        };
        let (status, body_bytes) = head(&self.buffer[..head_bytes])?;
        let whole = head_bytes + body_bytes;
        self.buffer.reserve(whole.saturating_sub(self.buffer.len()));
        while self.buffer.len() < whole {
            self.read_more().await?;
        }
        Ok(Answer { status, body: &self.buffer[head_bytes..whole] })
    }

    /// The same, where anything but 200 is an error.
    pub(crate) async fn succeed(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        let answer = self.exchange(request).await?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
        Err(format!("{} was answered {}", String::from_utf8_lossy(line), answer.excerpt()).into())
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Status and length of the body. The service writes the names of headers in lower case.
fn head(bytes: &[u8]) -> io::Result<(u16, usize)> {
    let broken = || io::Error::other(format!("not an answer with a length: {:?}", String::from_utf8_lossy(bytes)));
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| text.trim().parse::<usize>().ok());
    let status = bytes.get(9..12).and_then(number).and_then(|status| u16::try_from(status).ok());
    let name = b"\r\ncontent-length:";
    let value = find(bytes, name).map(|at| &bytes[at + name.len()..]);
    let length = value.and_then(|rest| number(&rest[..find(rest, b"\r")?]));
    Ok((status.ok_or_else(broken)?, length.ok_or_else(broken)?))
}

/// Where the bytes first stand.
pub(crate) fn find<const N: usize>(bytes: &[u8], wanted: &[u8; N]) -> Option<usize> {
    bytes.windows(N).position(|window| window == wanted)
}

impl Answer<'_> {
    /// The body for a message, cut short.
    pub(crate) fn excerpt(self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(400)]);
        format!("{}: {text}", self.status)
    }
}
