//! Commands without a server: each runs the private PostgreSQL for as long as it takes, and nobody else's ends under it.

use crate::support::{Place, Running, wait_until};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

/// An export that cannot end, since nobody reads it; and what was read of it.
fn held(place: &Place) -> (Child, BufReader<ChildStdout>, String) {
    let server = place.serve();
    server.go_live();
    place.session("holdfast").sql(
        "INSERT INTO kpi_event (seq, at, principal, domain, metric, series_seq, success, series_sum, hash)
         SELECT h.seq + n, h.at + n * interval '1 us', 'x', 'D', 'n', n, true, n, h.hash
         FROM audit_head h, generate_series(1, 20000) n WHERE stream = 'kpi'",
    );
    server.stop(Signal::TERM);
    let mut export = place.command(&["audit", "export", "--stream", "kpi"]);
    let mut export = export.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let (mut out, mut first) = (BufReader::new(export.stdout.take().expect("a pipe")), String::new());
    out.read_line(&mut first).expect("it is text");
    (export, out, first)
}

/// Reads the rest; the export is whole.
fn end(mut export: Child, mut out: BufReader<ChildStdout>) {
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("it is text");
    assert!(rest.lines().last().is_some_and(|line| line.contains("\"last\"")), "it has its end");
    assert_eq!(export.wait().expect("it is our child").code(), Some(0));
}

#[test]
fn a_command_waits_for_another_one_whose_postgresql_ends_with_it_and_says_so() {
    let place = Place::new();
    let (export, out, _) = held(&place);
    let said = place.path("said");
    let mut create = place.command(&["token", "create", "--name", "x", "--scopes", "read"]);
    create.stdout(Stdio::null()).stderr(File::create(&said).expect("a file"));
    let mut create = Running(create.spawn().expect("it starts"));
    let waits = format!(" s for holdfast audit export (process {}) to end", export.id());
    wait_until("it says for whom it waits", || fs::read_to_string(&said).expect("text").contains(&waits));
    end(export, out);
    assert_eq!(create.code(), Some(0), "{}", fs::read_to_string(&said).expect("text"));
    assert_eq!(place.run(&["token", "list"], &[]).out.lines().count(), 1);
    place.check_nothing_runs();
}

#[test]
fn a_server_waits_for_a_command_within_its_patience_and_names_it_beyond() {
    let place = Place::new();
    let (export, out, _) = held(&place);
    let bind = format!("127.0.0.1:{}", crate::support::free_port());
    let refused = place.run(&["serve"], &[("BIND_ADDR", &bind)]);
    let named = format!("process {} (holdfast audit export)", export.id());
    assert!(refused.refusal().contains(&named), "{refused:?}");
    let server = place.launch(&[], &[("DATABASE_WAIT_SECONDS", "300")]);
    wait_until("it says for whom it waits", || server.log().contains("holdfast audit export uses the data directory"));
    end(export, out);
    server.wait_until_ready();
    server.stop(Signal::TERM);
    place.check_nothing_runs();
}

#[test]
fn a_kill_waits_for_no_other_command() {
    let place = Place::new();
    let (export, out, _) = held(&place);
    let killed = place.run(&["kill"], &[]);
    assert_eq!(killed.code, Some(0), "{killed:?}");
    assert!(killed.out.contains("the kill switch is engaged"), "{killed:?}");
    end(export, out);
}

#[test]
fn the_directory_of_a_socket_outside_the_data_directory_is_found_by_the_pid_file_and_gone_after_a_stop() {
    let place = Place::new();
    let data = place.path(&"long".repeat(25));
    let server = place.serve_with(&[], &[("DATA_DIR", data.to_str().expect("text"))]);
    let file = fs::read_to_string(data.join("pg/postmaster.pid")).expect("it runs");
    let socket_dir = std::path::PathBuf::from(file.lines().nth(4).expect("a fifth line"));
    assert!(socket_dir.starts_with("/tmp") && socket_dir.join(".s.PGSQL.5432").exists(), "{}", socket_dir.display());
    server.stop(Signal::TERM);
    assert!(!socket_dir.exists());
}
