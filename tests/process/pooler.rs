//! Poolers between the service and its database, which a service cannot see: what they drop, and what they share.

use crate::storm::as_done;
use crate::support::{Place, Server, wait_until};
use serde_json::json;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

/// The owner of a session of PostgreSQL, and its duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A client, until it goes; of its start-up only the user and the database arrive.
    Session,
    /// A client, until its transaction ends. The next one gets the session that was given back last.
    TransactionNewest,
    /// The same, and the session that was given back first.
    TransactionOldest,
}

/// Sessions that no client has.
type Idle = Arc<Mutex<Vec<UnixStream>>>;

/// Starts a pooler, whose threads end with their connections, and gives its port.
fn pooler(mode: Mode, socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let idle = Idle::default();
        for client in listener.incoming().flatten() {
            let (socket, idle) = (socket.clone(), Arc::clone(&idle));
            // One that breaks is the client's to notice.
            thread::spawn(move || serve(mode, client, &socket, &idle));
        }
    });
    port
}

fn serve(mode: Mode, mut client: TcpStream, socket: &Path, idle: &Idle) -> io::Result<()> {
    let mut startup = packet(&mut client)?;
    // A request for TLS is shorter than a start-up.
    if startup.len() == 8 {
        client.write_all(b"N")?;
        startup = packet(&mut client)?;
    }
    if mode == Mode::Session {
        startup = without_options(&startup);
    }
    let mut server = UnixStream::connect(socket)?;
    server.write_all(&startup)?;
    match mode {
        Mode::Session => {
            let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            io::copy(&mut client, &mut server)?;
            server.shutdown(Shutdown::Both)
        }
        Mode::TransactionNewest | Mode::TransactionOldest => {
            answers(&mut server, &mut client)?;
            idle.lock().expect("nobody panics").push(server);
            loop {
                let mut asked = message(&mut client)?;
                let kept = {
                    let mut idle = idle.lock().expect("nobody panics");
                    let next = if mode == Mode::TransactionNewest { idle.len().saturating_sub(1) } else { 0 };
                    (next < idle.len()).then(|| idle.remove(next))
                };
                let mut server = if let Some(server) = kept {
                    server
                } else {
                    let mut server = UnixStream::connect(socket)?;
                    server.write_all(&startup)?;
                    answers(&mut server, &mut io::sink())?;
                    server
                };
                loop {
                    server.write_all(&asked)?;
                    // A request ends with a query or a sync.
                    if matches!(asked[0], b'Q' | b'S') && answers(&mut server, &mut client)? == b'I' {
                        break;
                    }
                    asked = message(&mut client)?;
                }
                idle.lock().expect("nobody panics").push(server);
            }
        }
    }
}

/// A message without a type: what a client begins with.
fn packet(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    from.read_exact(&mut bytes)?;
    let length = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
    bytes.resize(length, 0);
    from.read_exact(&mut bytes[4..])?;
    Ok(bytes)
}

/// A message with its type.
fn message(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    let mut whole = kind.to_vec();
    whole.extend(packet(from)?);
    Ok(whole)
}

/// Passes on what a server says until it is ready, and gives where its transaction stands.
fn answers(from: &mut impl Read, to: &mut impl Write) -> io::Result<u8> {
    loop {
        let said = message(from)?;
        to.write_all(&said)?;
        if said[0] == b'Z' {
            return Ok(said[5]);
        }
    }
}

/// A start-up with nothing but who and where.
fn without_options(startup: &[u8]) -> Vec<u8> {
    let words: Vec<&[u8]> = startup[8..].split(|byte| *byte == 0).collect();
    let kept = words.chunks(2).filter(|pair| [&b"user"[..], b"database"].contains(&pair[0]));
    let mut body = startup[4..8].to_vec();
    for word in kept.flatten() {
        body.extend_from_slice(word);
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("it is short");
    [&length.to_be_bytes()[..], &body].concat()
}

/// A private PostgreSQL, by the server that started it, and a pooler before it.
fn behind(place: &Place, mode: Mode) -> (Server, String) {
    let owner = place.serve();
    place.sql("postgres", "CREATE DATABASE pooled");
    let socket = place.data().join("run/.s.PGSQL.5432");
    (owner, format!("postgres://holdfast@127.0.0.1:{}/pooled", pooler(mode, socket)))
}

#[test]
fn behind_a_pooler_that_drops_options_every_session_has_its_limits() {
    let place = Place::new();
    let (_owner, url) = behind(&place, Mode::Session);
    for setting in ["lock_timeout = '1h'", "statement_timeout = '1h'", "client_encoding = 'LATIN1'"] {
        place.sql("postgres", &format!("ALTER ROLE holdfast SET {setting}"));
    }
    let server = place.serve_with(&[], &[("DATABASE_URL", &url)]);
    server.go_live();
    let reserve = json!({"engine": "WHOLESALE", "amount": 1, "actor": "Zoë", "reason": "€", "idempotency_key": "one"});
    let reserved = server.post("/risk/check-and-reserve", &reserve).ok();
    let again = server.post("/risk/check-and-reserve", &reserve).ok();
    assert_eq!(as_done(&again, &reserved), as_done(&reserved, &again), "the same key");
    // A session that waits for a lock for ever would keep this request for as long.
    let mut holder = place.session("pooled");
    holder.sql("BEGIN");
    holder.sql("SELECT stream FROM audit_head WHERE stream = 'control' FOR UPDATE");
    let refused = server.post("/go-live/disable", &json!({"actor": "test"}));
    assert_eq!(refused.unavailable(), "DATABASE_UNAVAILABLE");
    let detail = refused.json["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("another operation held"), "{detail}");
    holder.sql("ROLLBACK");
    server.post("/go-live/disable", &json!({"actor": "test"})).ok();
    wait_until("notifications arrive", || server.get_root("/readyz").text.contains(r#""notified":true"#));
}

#[test]
fn a_pooler_in_transaction_mode_is_refused_at_the_start() {
    for mode in [Mode::TransactionNewest, Mode::TransactionOldest] {
        let place = Place::new();
        let (_owner, url) = behind(&place, mode);
        let refused = place.run(&["serve"], &[("DATABASE_URL", &url), ("BIND_ADDR", "127.0.0.1:0")]);
        let sentence = refused.refusal();
        assert!(sentence.contains("to session mode") && sentence.contains("each transaction"), "{mode:?}: {sentence}");
    }
}
