//! More connections than there is room for: whoever waits makes room, and the switches are within reach.

use crate::support::{Place, Reply, Server, signal};
use rustix::process::Signal;
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

/// Files that the server may open: room for 56 connections that stay, and 8 for the switches.
const FILES: u32 = 256;
/// More than both.
const CROWD: usize = 120;
const RESERVE: &str = "/risk/check-and-reserve";

/// A server that may open so few files.
fn serve_with_few_files(place: &Place) -> Server {
    let port = crate::support::free_port();
    let mut plain = place.command(&[]);
    plain.env("BIND_ADDR", format!("127.0.0.1:{port}"));
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!("ulimit -n {FILES} && exec \"$0\"")).arg(plain.get_program()).env_clear();
    limited.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let server = place.launch_as(limited, port);
    server.wait_until_ready();
    server
}

/// A connection from one address of this machine.
fn connect_from(server: &Server, from: [u8; 4]) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from((from, 0))).expect("an address of this machine");
        socket.connect(SocketAddr::from(([127, 0, 0, 1], server.port))).await.expect("a connection")
    });
    let stream = stream.into_std().expect("a socket");
    stream.set_nonblocking(false).expect("a socket");
    stream.set_read_timeout(Some(std::time::Duration::from_mins(1))).expect("a socket");
    stream
}

/// A request on a new connection whose body does not come.
fn begin(server: &Server, path: &str) -> TcpStream {
    let mut stream = server.connect().expect("a connection");
    let head = format!("POST /api/governance{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("it is open");
    stream
}

/// Asks on a connection that stays.
#[track_caller]
fn is_served(stream: &mut TcpStream) {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is open");
    let mut answer = [0; 4_096];
    let read = stream.read(&mut answer).expect("an answer, in one piece");
    assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"), "{:?}", answer[..read].escape_ascii().to_string());
}

/// Whether the other end closes it before it answers anything.
fn is_ended(stream: &mut TcpStream) -> bool {
    // A reset is an end, too.
    stream.read(&mut [0; 1]).map_or(true, |read| read == 0)
}

#[track_caller]
fn engage(server: &Server) -> Reply {
    let reply = server.post("/go-live/kill-switch/engage", &json!({"actor": "test", "reason": "a crowd"}));
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply
}

#[test]
fn the_longest_idle_of_the_address_with_the_most_makes_room_and_the_switch_gets_in() {
    let place = Place::new();
    let server = serve_with_few_files(&place);
    let mut other = connect_from(&server, [127, 0, 0, 2]);
    is_served(&mut other);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| connect_from(&server, [127, 0, 0, 1])).collect();
    engage(&server);
    assert!(is_ended(&mut crowd[0]));
    is_served(crowd.last_mut().expect("a crowd"));
    // Idle for longer than all of them, and alone at its address.
    is_served(&mut other);
}

#[test]
fn connections_whose_bodies_stall_make_room_and_a_stop_acts_without_its_body() {
    let place = Place::new();
    let server = serve_with_few_files(&place);
    let mut crowd: Vec<_> = (0..CROWD).map(|_| begin(&server, RESERVE)).collect();
    assert!(is_ended(&mut crowd[0]));
    engage(&server);
    let stops: Vec<_> = (0..CROWD).map(|_| begin(&server, "/go-live/kill-switch/engage")).collect();
    engage(&server);
    for mut stop in stops {
        let mut start = [0; 12];
        // If even the kept places were taken, it was turned away; every admitted request was done.
        if stop.read_exact(&mut start).is_ok() {
            assert_eq!(&start, b"HTTP/1.1 200");
        }
    }
}

#[test]
fn bodies_that_stall_make_room_before_connections_that_come_all_at_once() {
    let place = Place::new();
    let server = serve_with_few_files(&place);
    let mut stalled: Vec<_> = (0..CROWD / 4).map(|_| begin(&server, RESERVE)).collect();
    // The last of them has been read when this is answered, since each is served in turn.
    is_served(&mut server.connect().expect("a connection"));
    signal(server.pid(), Signal::STOP);
    let new: Vec<_> = (0..CROWD / 2).map(|_| begin(&server, RESERVE)).collect();
    signal(server.pid(), Signal::CONT);
    assert!(is_ended(&mut stalled[0]), "it waited longest");
    drop(new);
}

#[test]
fn few_open_files_are_told_at_the_start_and_never_run_out() {
    let place = Place::new();
    let server = serve_with_few_files(&place);
    let crowd: Vec<_> = (0..2 * FILES).map(|_| server.connect().expect("a connection")).collect();
    engage(&server);
    server.post("/go-live/disable", &json!({"actor": "test"})).ok();
    drop(crowd);
    let log = server.stop(rustix::process::Signal::TERM);
    assert!(log.contains("this process may open 256 files: 56 connections stay at most, and 8 more"), "{log}");
    assert!(!log.contains("no file is left"), "{log}");
}
