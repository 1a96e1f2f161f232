//! Tokens as an operator meets them, and who is served while everything is taken.

use crate::support::{Place, Reply, Running, Server, Session, free_port, post, wait_until};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const STATE: &str = "/api/governance/go-live/state";

fn create(place: &Place, arguments: &[&str]) -> String {
    let ended = place.run(&[&["token", "create", "--name", "test"], arguments].concat(), &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let token = ended.out.trim().to_owned();
    assert!(token.starts_with("hf_") && token.len() == 84, "only the token is printed: {ended:?}");
    assert!(!ended.err.contains(&token[20..]), "{ended:?}");
    token
}

fn get(server: &Server, path: &str, token: Option<&str>) -> Reply {
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n");
    server.exchange(head.as_bytes()).expect("an answer")
}

#[test]
fn the_first_token_is_made_beside_a_server_and_ends_its_open_mode() {
    let place = Place::new();
    let server = place.serve();
    assert!(server.log().contains("OPEN MODE"));
    assert_eq!(get(&server, STATE, None).status, 200);
    let token = create(&place, &["--scopes", "read", "--expires", "1h"]);
    wait_until("the open mode is over", || get(&server, STATE, None).status == 401);
    // The first token ends the open mode before it is read.
    wait_until("the token opens", || get(&server, STATE, Some(&token)).status == 200);
    let list = place.run(&["token", "list"], &[]);
    assert!(list.out.contains(" test read created=") && list.out.contains(" expires="), "{list:?}");
    assert!(!list.out.contains(&token[20..]) && !server.log().contains(&token[20..]));
    let id = &token[3..19];
    let revoked = place.run(&["token", "revoke", id, "--reason", "lost"], &[]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    wait_until("it is revoked", || get(&server, STATE, Some(&token)).status == 401);
    assert!(place.run(&["token", "list"], &[]).out.contains(" REVOKED="));
    let unknown = place.run(&["token", "revoke", "0123456789abcdef"], &[]);
    assert!(unknown.refusal().contains("0123456789abcdef"), "{unknown:?}");
    let whole = place.run(&["token", "revoke", &token], &[]);
    assert!(whole.refusal().contains("16 hex digits") && !whole.err.contains(&token[20..]), "{whole:?}");
    let admin = create(&place, &["--scopes", "admin"]);
    let head = format!(
        "DELETE /api/governance/access/tokens/{token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {admin}\r\n\r\n"
    );
    // The server hears of a token that the shell makes within half a second.
    wait_until("the token is known", || server.exchange(head.as_bytes()).expect("an answer").status == 422);
    let reply = server.exchange(head.as_bytes()).expect("an answer");
    assert!(!reply.text.contains(&token[20..]), "{}", reply.text);
    assert!(!server.log().contains(&token[20..]) && !server.log().contains(&admin[20..]));
}

#[test]
fn with_a_token_that_was_made_before_the_first_start_every_address_is_listened_on() {
    let place = Place::new();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    let token = create(&place, &["--scopes", "read"]);
    place.check_nothing_runs();
    let (port, counters) = (free_port(), free_port());
    let mut command = place.command(&["serve"]);
    command.env("BIND_ADDR", format!("0.0.0.0:{port}")).env("METRICS_ADDR", format!("127.0.0.1:{counters}"));
    let server = place.launch_as(command, port);
    server.wait_until_ready();
    assert!(!server.log().contains("OPEN MODE"));
    assert_eq!(get(&server, STATE, None).status, 401);
    assert_eq!(get(&server, STATE, Some(&token)).status, 200);
    // The counters have an address of their own, and nothing else is there.
    assert_eq!(get(&server, "/metrics", None).status, 401);
    let there: SocketAddr = ([127, 0, 0, 1], counters).into();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(there).expect("it listens");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
        Reply::read(&mut stream).expect("an answer").status
    };
    assert_eq!((ask("/metrics"), ask(STATE), ask("/livez")), (200, 404, 200));
}

#[test]
fn only_serve_and_migrate_make_a_database() {
    let place = Place::new();
    for command in [
        &["token", "create", "--name", "a", "--scopes", "read"][..],
        &["token", "list"],
        &["review"],
        &["migrate", "--status"],
        &["audit", "verify"],
        &["risk", "reconcile"],
        &["two-person-release", "on"],
        &["db", "psql"],
    ] {
        let ended = place.run(command, &[]);
        assert_ne!(ended.code, Some(0), "{command:?}: {ended:?}");
        assert!(ended.out.is_empty(), "{command:?}: {ended:?}");
        // psql says it in words of its own, since it asks for a server that runs.
        if command[0] != "db" {
            let said = ended.sentences();
            assert!(
                matches!(said[..], [one] if one.contains("holds no database") && one.contains("holdfast migrate")),
                "{command:?}: {said:?}"
            );
        }
    }
    place.check_nothing_runs();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    create(&place, &["--scopes", "read"]);
}

#[test]
fn a_new_token_is_printed_before_the_database_of_its_command_is_stopped() {
    let place = Place::new();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    // A reader that is slow: its pipe is full.
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("a pipe");
    while writer.write(&[b' '; 4_096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).expect("a pipe");
    let mut command = place.command(&["token", "create", "--name", "slow", "--scopes", "read"]);
    let mut creating = Running(command.stdout(writer).stderr(Stdio::null()).spawn().expect("it starts"));
    drop(command);
    let is_made = || {
        let session = Session::open(&place.url("holdfast"));
        session.is_ok_and(|mut session| session.sql("SELECT name FROM access_token") == ["slow"])
    };
    wait_until("the token is recorded", is_made);
    let mut looks = 0;
    wait_until("the database stays for a while", || {
        assert!(is_made(), "it is stopped before the token is printed");
        looks += 1;
        looks == 25
    });
    let mut printed = String::new();
    reader.read_to_string(&mut printed).expect("text");
    assert!(printed.trim().starts_with("hf_"), "{printed:?}");
    assert_eq!(creating.code(), Some(0));
    place.check_nothing_runs();
}

#[test]
fn the_monday_review_tells_curl_nothing_but_a_token() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monday-review.sh");
    let written = std::env::temp_dir().join(format!("monday-review-{}", std::process::id()));
    let file = format!("file://{script}");
    for token in [
        format!("hf_a\"\noutput = \"{}\"\nurl = \"{file}", written.display()),
        "hf_a b".to_owned(),
        "hf_a\\".to_owned(),
        "a".to_owned(),
    ] {
        let ended = std::process::Command::new("sh")
            .arg(script)
            .env("BASE", "http://127.0.0.1:1")
            .env("TOKEN", &token)
            .output()
            .expect("sh runs");
        assert_eq!(ended.status.code(), Some(2), "{token:?}");
        assert!(String::from_utf8_lossy(&ended.stderr).contains("monday-review: TOKEN"), "{token:?}");
        assert!(!written.exists(), "{token:?}");
    }
}

/// This number of connections, each of which reserves again and again until it is told to stop.
fn flood(server: &Server, connections: usize, stop: &AtomicBool, answered: &AtomicUsize) {
    let (head, body) = post("/risk/check-and-reserve", &json!({"engine": "WHOLESALE", "amount": 1, "actor": "flood"}));
    let request = format!("{}\r\n{body}", head.replace("Connection: close\r\n", ""));
    std::thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut stream = server.connect().expect("a connection");
                stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
                let mut buffer = [0; 8_192];
                while !stop.load(Ordering::Relaxed) {
                    let sent = stream.write_all(request.as_bytes()).and_then(|()| stream.read(&mut buffer));
                    if sent.is_ok_and(|count| count > 0) {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

#[test]
fn engage_is_recorded_while_512_connections_flood_reserve() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&server, 512, &stop, &answered));
        wait_until("the flood is there", || answered.load(Ordering::Relaxed) > 2_000);
        for _ in 0..5 {
            // Recorded in the database: had it taken 5 s, this instance alone would be stopped, and it would say so.
            let engaged = server.post("/go-live/kill-switch/engage", &json!({"actor": "operator"})).ok();
            assert_eq!(engaged["kill_switch_engaged"], true);
            server.post("/go-live/kill-switch/release", &json!({"actor": "operator"})).ok();
        }
        stop.store(true, Ordering::Relaxed);
        flooding.join().expect("the flood ends");
    });
}

#[test]
fn an_engage_finds_a_place_among_connections_that_do_nothing() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    // The most connections whose both ends a test process may have; each holds a place and sends half a request.
    let idle: Vec<_> = (0..1_500)
        .map_while(|_| {
            let mut stream = server.connect().ok()?;
            stream.write_all(b"POST /api/governance/risk/check-and-reserve HTTP/1.1\r\nHost: local").ok()?;
            Some(stream)
        })
        .collect();
    assert!(idle.len() > 500, "only {}", idle.len());
    let engaged = server.post("/go-live/kill-switch/engage", &json!({"actor": "operator"})).ok();
    assert_eq!(engaged["kill_switch_engaged"], true);
}

#[test]
fn a_head_that_is_too_large_is_refused_and_the_server_goes_on() {
    let place = Place::new();
    let server = place.serve();
    let head = format!("GET {STATE} HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(128 * 1024));
    // It may be refused before all of it was sent.
    if let Ok(reply) = server.exchange(head.as_bytes()) {
        assert_eq!(reply.status, 431);
    }
    assert_eq!(get(&server, STATE, None).status, 200);
}

#[test]
fn a_token_that_nobody_could_be_shown_is_named_with_the_way_to_revoke_it() {
    let place = Place::new();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
    let mut command = place.command(&["token", "create", "--name", "lost", "--scopes", "read"]);
    let ended = command.stdout(full).stderr(std::process::Stdio::piped()).output().expect("it runs");
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).expect("a sentence");
    let listed = place.run(&["token", "list"], &[]).out;
    let id = listed.split(' ').next().expect("an id").to_owned();
    assert!(said.contains(&format!("holdfast token revoke {id}")), "{said}");
    assert!(said.contains("the token is lost"), "{said}");
    assert_eq!(place.run(&["token", "revoke", &id], &[]).code, Some(0));
}

#[test]
fn a_body_that_is_refused_unread_does_not_cost_its_sender_the_answer() {
    let place = Place::new();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    create(&place, &["--scopes", "read"]);
    let server = place.serve();
    // Larger than what the two sockets hold: it is still on its way when the answer is there.
    let body = vec![b'x'; 12 * 1024 * 1024];
    for path in ["/api/governance/risk/check-and-reserve", "/api/governance/nothing"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = server.connect().expect("it listens");
        stream.write_all(head.as_bytes()).expect("it reads");
        stream.write_all(&body).expect("it reads on after its answer");
        assert!(matches!(Reply::read(&mut stream).expect("an answer").status, 401 | 404), "{path}");
    }
}
