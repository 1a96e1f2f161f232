//! Answers that nobody takes, over real sockets.

use crate::support::{Place, Server, wait_until};
use serde_json::json;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

/// The largest answer that a fresh service has.
const LARGE: &str = "/openapi.json";
/// Requests on one connection: their answers are more than all buffers of the system hold.
const REQUESTS: usize = 64;
/// Connections, each with one answer that the service has to keep: more than the budget has room for.
const READERS: usize = 48;

/// Asks over and over on one connection, and takes nothing.
fn stall(server: &Server) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4_096).expect("a small buffer");
        socket.connect(SocketAddr::from(([127, 0, 0, 1], server.port))).await.expect("a connection")
    });
    let mut stream = stream.into_std().expect("a socket");
    stream.set_nonblocking(false).expect("a socket");
    let request = format!("GET {LARGE} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.repeat(REQUESTS).as_bytes()).expect("it takes them");
    stream
}

#[test]
fn answers_that_nobody_takes_use_up_their_budget_and_no_switch_needs_it() {
    let place = Place::new();
    let server = place.serve_with(&[], &[("ANSWER_BUDGET_MIB", "16")]);
    let large = server.get_root(LARGE);
    assert!(large.status == 200 && READERS * large.text.len() > 8 * 1024 * 1024, "{}", large.text.len());
    let stalled: Vec<_> = (0..READERS).map(|_| stall(&server)).collect();
    wait_until("there is no room for another large answer", || {
        let refused = server.get_root(LARGE);
        refused.status != 200 && refused.unavailable() == "OVERLOADED"
    });
    let engaged = server.post("/go-live/kill-switch/engage", &json!({"actor": "test", "reason": "readers stall"}));
    engaged.ok();
    assert_eq!(server.get("/go-live/state").ok()["kill_switch_engaged"], true);
    drop(stalled);
    wait_until("what nobody will take any more is free again", || server.get_root(LARGE).status == 200);
}
