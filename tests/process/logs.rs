//! The output on the terminal, and the readers that it could harm.

use crate::support::{Place, Running, Server, free_port, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::process::{ChildStderr, Command, Stdio};

const FORGED: &str = "FORGED";

/// Requests that try to write a line of their own into the log.
fn forgeries() -> Vec<String> {
    let close = "Host: localhost\r\nConnection: close";
    vec![
        format!("GET /%0aFORGED HTTP/1.1\r\n{close}\r\n\r\n"),
        format!("GET /%0d%0aFORGED%1b[2K HTTP/1.1\r\n{close}\r\n\r\n"),
        format!("GET /\x1b[2K\x08FORGED HTTP/1.1\r\n{close}\r\n\r\n"),
        format!("GET /\"}}{{\"FORGED\":1 HTTP/1.1\r\n{close}\r\n\r\n"),
        format!("GET /\u{2028}FORGED HTTP/1.1\r\n{close}\r\n\r\n"),
        format!("GET /?q=\nFORGED HTTP/1.1\r\n{close}\r\n\r\n"),
        format!("FORGED /health HTTP/1.1\r\n{close}\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\n{close}\r\nUser-Agent: a\tb\x1b[2K\r\n FORGED\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\n{close}\r\nUser-Agent: \u{85}\nFORGED\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\n{close}\r\nX-Request-Id: a\"\\\u{2028}FORGED\r\n\r\n"),
        format!(
            "POST /api/governance/go-live/disable?actor=%0aFORGED&reason=%1bFORGED HTTP/1.1\r\n{close}\r\nContent-Length: 0\r\n\r\n"
        ),
        format!("POST /api/governance/go-live/disable?%0aFORGED=1 HTTP/1.1\r\n{close}\r\nContent-Length: 0\r\n\r\n"),
    ]
}

#[test]
fn logs_are_json_beside_a_terminal_and_no_request_can_forge_a_line() {
    let place = Place::new();
    let server = place.serve_with(&[], &[("RUST_LOG", "debug")]);
    for request in forgeries() {
        // The HTTP parser decides whether it is answered or cut.
        let _ = server.exchange(request.as_bytes());
    }
    let log = server.stop(Signal::TERM);
    let mut requests = 0;
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}"));
        assert!(entry["timestamp"].is_string(), "{line}");
        assert!(entry["level"].is_string(), "{line}");
        assert!(entry.get(FORGED).is_none(), "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
        requests += usize::from(entry["message"] == "request");
    }
    assert!(requests > 5, "the access log is missing: {log}");
}

#[test]
fn every_committed_change_is_a_line_of_the_log_and_a_trip_says_its_numbers() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let wire = json!({"domain": "WHOLESALE", "metric": "m", "window_events": 1, "baseline_events": 1,
                      "min_events_to_enforce": 1, "engine": "CAPITAL", "actor": "ann"});
    server.post("/regression/policies/upsert", &wire).ok();
    for success in [true, false] {
        let event = json!({"domain": "WHOLESALE", "metric": "m", "success": success, "actor": "shop"});
        server.post("/regression/kpi", &event).ok();
    }
    // Refused, and so no change.
    server.post("/go-live/packs", &json!({"id": "risk", "status": "missing"})).ok();
    assert_eq!(server.post("/go-live/enable", &json!({"actor": "bob"})).status, 412);
    let rearm = json!({"domain": "WHOLESALE", "metric": "m", "actor": "ann", "reason": "a secret of somebody"});
    server.post("/regression/rearm", &rearm).ok();
    server.post("/go-live/kill-switch/engage", &json!({"actor": "bob"})).ok();
    let log = server.stop(Signal::TERM);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let said = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let actions: Vec<_> = said("the control plane changed").iter().map(|line| line["action"].clone()).collect();
    assert_eq!(
        actions,
        [
            "GO_LIVE_ENABLE",
            "RISK_POLICY_UPSERT",
            "RISK_POLICY_UPSERT",
            "REGRESSION_POLICY_UPSERT",
            "PACK_REPORT",
            "REGRESSION_REARM",
            "KILL_SWITCH_ENGAGE"
        ],
        "{log}"
    );
    assert!(!log.contains("a secret of somebody"), "{log}");
    let trips = said("a wire has tripped");
    let [trip] = trips[..] else { panic!("{log}") };
    for (field, value) in [
        ("level", json!("WARN")),
        ("wire", json!("WHOLESALE.m")),
        ("does", json!("THROTTLE")),
        ("engine", json!("CAPITAL")),
        ("shadow", json!(false)),
        ("drop_fraction", json!("1")),
        ("baseline_events", json!("1")),
        ("current_sum", json!("0")),
        ("actor", json!("shop")),
    ] {
        assert_eq!(trip[field], value, "{field}: {trip}");
    }
    let engaged = said("the control plane changed").into_iter().find(|line| line["action"] == "KILL_SWITCH_ENGAGE");
    assert_eq!(engaged.map(|line| line["level"].clone()), Some(json!("WARN")));
}

#[test]
fn no_request_can_forge_a_line_of_the_log_for_people() {
    let place = Place::new();
    let server = place.serve_with(&[], &[("LOG_FORMAT", "text"), ("RUST_LOG", "debug")]);
    for request in forgeries() {
        let _ = server.exchange(request.as_bytes());
    }
    let log = server.stop(Signal::TERM);
    for line in log.lines() {
        assert!(line.starts_with("20") && line.contains("Z "), "a line does not begin with a time: {line:?}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn closed_pipes_do_not_end_the_server_or_its_answers() {
    let place = Place::new();
    let port = free_port();
    let mut command = place.command(&[]);
    let running = Running(
        command
            .env("BIND_ADDR", format!("127.0.0.1:{port}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut server = crate::support::Server::of(running, port, place.path("none"));
    server.wait_until_ready();
    server.close_pipes();
    for _ in 0..3 {
        server.get_root("/health").ok();
        server.get("/go-live/state").ok();
        assert_eq!(server.get_root("/nowhere").status, 403, "the gate is closed");
    }
    assert_eq!(server.exit_code_after(Signal::TERM), Some(0));
    place.check_nothing_runs();
}

#[test]
fn a_server_without_standard_streams_works() {
    let place = Place::new();
    let port = free_port();
    let ours = place.command(&[]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec \"$0\" <&- >&- 2>&-"]).arg(ours.get_program());
    shell.env_clear();
    for (name, value) in ours.get_envs() {
        shell.env(name, value.expect("nothing is unset"));
    }
    shell.env("BIND_ADDR", format!("127.0.0.1:{port}"));
    let server = place.launch_as(shell, port);
    server.wait_until_ready();
    server.get("/go-live/state").ok();
    assert_eq!(server.stop(Signal::TERM), "");
    place.check_nothing_runs();
}

#[test]
fn a_reader_who_leaves_early_is_no_failure() {
    let place = Place::new();
    for arguments in [&["openapi"][..], &["--help"], &["--version"]] {
        let mut running =
            Running(place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        drop(running.0.stdout.take());
        assert_eq!(running.code(), Some(0), "{arguments:?}");
        let mut said = String::new();
        running.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{arguments:?}");
    }
}

/// A server whose log is a pipe, and the end of that which nobody reads yet.
fn unread(place: &Place) -> (Server, ChildStderr) {
    let port = free_port();
    let mut command = place.command(&[]);
    command.env("BIND_ADDR", format!("127.0.0.1:{port}")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("the program starts"));
    let log = running.0.stderr.take().expect("it is a pipe");
    let server = Server::of(running, port, place.path("none"));
    server.wait_until_ready();
    (server, log)
}

/// How many lines were dropped.
fn dropped(server: &Server) -> u64 {
    let text = server.get_root("/metrics").text;
    let line = text.lines().find_map(|line| line.strip_prefix("holdfast_log_lines_dropped_total "));
    line.expect("the counter").parse().expect("a number")
}

/// Asks until lines of the log are dropped.
fn fill(server: &Server) {
    let path = "a".repeat(500);
    let request = format!("GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(50);
    wait_until("lines are dropped", || {
        let mut stream = server.connect().expect("a connection");
        stream.write_all(request.as_bytes()).expect("it goes on");
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it goes on");
        let mut answers = String::new();
        stream.read_to_string(&mut answers).expect("it goes on");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 51, "{answers}");
        dropped(server) > 0
    });
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_says_how_many_lines_are_missing() {
    let place = Place::new();
    let (server, mut log) = unread(&place);
    server.go_live();
    assert_eq!(dropped(&server), 0);
    fill(&server);
    server.get_root("/livez").ok();
    server.try_reserve().expect("an answer").ok();
    server.post("/go-live/kill-switch/engage", &json!({"actor": "bob"})).ok();
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });
    // From here on the reader reads, so that dropping ends.
    wait_until("it flows again", || {
        let before = dropped(&server);
        fill_a_little(&server);
        dropped(&server) == before
    });
    let all = dropped(&server);
    assert_eq!(server.exit_code_after(Signal::TERM), Some(0));
    let text = reading.join().unwrap().expect("UTF-8");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let told =
        lines.iter().filter(|line| line["message"].as_str().is_some_and(|said| said.contains("were dropped here")));
    assert_eq!(told.map(|line| line["dropped"].as_u64().expect("a number")).sum::<u64>(), all, "{text}");
    // Lines that are rarer than requests have room of their own.
    assert!(text.contains("KILL_SWITCH_ENGAGE"), "{text}");
    assert!(lines.last().is_some_and(|line| line["message"] == "stopped"), "{text}");
    place.check_nothing_runs();
}

fn fill_a_little(server: &Server) {
    for _ in 0..50 {
        server.get_root("/health").ok();
    }
}

#[test]
fn a_stop_does_not_wait_for_a_log_that_nobody_reads() {
    let place = Place::new();
    let (server, _log) = unread(&place);
    fill(&server);
    assert_eq!(server.exit_code_after(Signal::TERM), Some(0));
    place.check_nothing_runs();
}
