//! Clients that are slow, silent or break off.

use crate::support::{Place, Reply};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::Shutdown;

const HEAD: &str = "POST /api/governance/risk/check-and-reserve HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";

#[test]
fn a_truncated_body_is_400_and_reserves_nothing() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let body = r#"{"engine":"WHOLESALE","amount":1}"#;
    for request in [
        format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len() + 10),
        format!("{HEAD}Content-Length: {}\r\n\r\n{}", body.len(), &body[..20]),
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len()),
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}", body.len() + 10),
    ] {
        let mut stream = server.connect().unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let reply = Reply::read(&mut stream).expect("an answer");
        assert_eq!(reply.status, 400, "{request:?}: {}", reply.text);
        assert_eq!(reply.json["error"], "MALFORMED_REQUEST", "{}", reply.text);
    }
    assert_eq!(server.reservations(), (Vec::new(), 0));
}

#[test]
fn a_body_that_never_ends_is_refused_and_holds_up_no_stop() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let silent = server.connect().unwrap();
    let mut half_a_head = server.connect().unwrap();
    half_a_head.write_all(HEAD.as_bytes()).unwrap();
    let mut idle = server.connect().unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    idle.read_exact(&mut [0; 12]).unwrap();
    let mut endless = server.connect().unwrap();
    write!(endless, "{HEAD}Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n").unwrap();
    let mut waiting = [0; 25];
    // Sent when the handler asks for the body.
    endless.read_exact(&mut waiting).unwrap();
    endless.write_all(b"{").unwrap();

    crate::support::signal(server.pid(), Signal::TERM);
    let reply = Reply::read(&mut endless).expect("an answer");
    assert_eq!((reply.status, reply.json["error"].as_str()), (400, Some("MALFORMED_REQUEST")));
    let ended = server.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    place.check_nothing_runs();
    drop((silent, half_a_head, idle));
}
