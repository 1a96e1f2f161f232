//! The trail outside the database: what is exported is verified with nothing but Python, and what was done to it is named.

use crate::support::{Ended, Place, Server};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// The script, beside the sources.
fn script() -> String {
    format!("{}/docs/audit-verify.py", env!("CARGO_MANIFEST_DIR"))
}

/// The script's result for an export: its exit code and its lines.
pub(crate) fn verified(export: &str) -> (Option<i32>, Vec<String>) {
    let mut python = Command::new("python3");
    let python = python.arg(script()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut python = python.expect("python3");
    python.stdin.take().expect("a pipe").write_all(export.as_bytes()).expect("it is read");
    let said = python.wait_with_output().expect("it ends");
    let out = String::from_utf8(said.stdout).expect("text");
    (said.status.code(), out.lines().map(str::to_owned).collect())
}

/// Something that is done to the lines of an export.
type Damage<'a> = &'a dyn Fn(&mut Vec<String>);

fn export(place: &Place, arguments: &[&str]) -> String {
    let ended: Ended = place.run(&[&["audit", "export"], arguments].concat(), &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.out
}

/// A server with events of every stream, in which every kind of column holds something.
fn busy(place: &Place) -> Server {
    let server = place.serve();
    server.go_live();
    let reserve = json!({
        "engine": "CAPITAL", "amount": "120.500000", "reason": "\"grün\" \\ 7", "metadata": {"b": 1.50, "a": [1e2, "\u{e9}"]},
        "actor": "Zoë", "correlation_id": "t/1",
    });
    let reserved = server.post("/risk/check-and-reserve", &reserve).ok();
    server
        .post("/risk/settle", &json!({"reservation_id": reserved["reservation_id"], "realized_loss": "0.000001"}))
        .ok();
    server.post("/risk/check-and-reserve", &json!({"engine": "CAPITAL", "amount": 100_000})).ok();
    for value in ["-1.5", "0", "1000000000000"] {
        server.post("/regression/kpi", &json!({"domain": "D", "metric": "m", "value": value, "detail": "\"x\""})).ok();
    }
    server
        .post("/heimdall/recommend", &json!({"domain": "D", "confidence": "0.123456789012345678", "evidence": {}}))
        .ok();
    server.post("/heimdall/sandbox/trial", &json!({"domain": "D", "confidence": 1, "success": false})).ok();
    server
}

#[test]
fn an_export_is_verified_without_holdfast_and_ends_in_the_heads_that_verify_prints() {
    let place = Place::new();
    let server = busy(&place);
    let whole = export(&place, &[]);
    let (code, said) = verified(&whole);
    assert_eq!(code, Some(0), "{said:?}");
    let heads = place.run(&["audit", "verify"], &[]);
    assert_eq!(said[..4], heads.out.lines().take(4).collect::<Vec<_>>(), "{heads:?}");
    // Each line is JSON, and says what was stored.
    let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let reserve = lines.iter().find(|line| line["action"] == "RESERVE").unwrap();
    assert_eq!((&reserve["amount"], &reserve["actor"]), (&json!("120.5"), &json!("Zoë")));
    assert_eq!(reserve["metadata"], r#"{"a":[100.0,"é"],"b":1.5}"#);
    server.stop(Signal::TERM);
    assert_eq!(export(&place, &[]), whole, "the same where nothing runs");
    place.check_nothing_runs();
}

#[test]
fn a_part_is_verified_from_the_hash_before_it() {
    let place = Place::new();
    let server = busy(&place);
    let all = export(&place, &["--stream", "kpi"]);
    let times: Vec<String> = all
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["time"].as_str().map(str::to_owned))
        .collect();
    let part = export(&place, &["--stream", "kpi", "--from", &times[1], "--to", &times[2]]);
    assert_eq!(part.lines().count(), 3, "{part}");
    assert!(all.contains(part.lines().nth(1).unwrap()));
    let (code, said) = verified(&part);
    assert_eq!((code, said.len()), (Some(0), 2), "{said:?}");
    assert!(said[0].starts_with("kpi 2 "), "{said:?}");
    let (code, _) = verified(&export(&place, &["--from", "9999-01-01T00:00:00Z"]));
    assert_eq!(code, Some(0), "nothing, and every stream has its head");
    let (code, _) = verified(&export(&place, &["--to", "0001-01-01T00:00:00Z"]));
    assert_eq!(code, Some(0), "nothing before the first event");
    let refused = place.run(&["audit", "export", "--from", "yesterday"], &[]);
    assert!(refused.refusal().contains("RFC 3339"), "{refused:?}");
    let refused =
        place.run(&["audit", "export", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"], &[]);
    assert!(refused.refusal().contains("earlier than from"), "{refused:?}");
    server.stop(Signal::TERM);
    let nothing = Place::new();
    assert_eq!(nothing.run(&["audit", "export"], &[]).code, Some(1));
}

#[test]
fn whatever_is_done_to_an_export_is_named_with_its_stream_and_number() {
    let place = Place::new();
    let _server = busy(&place);
    let whole = export(&place, &[]);
    let at = |stream: &str, seq: &str| {
        let found = whole.lines().position(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["stream"] == stream && line["seq"] == seq
        });
        found.unwrap()
    };
    let edited = |change: Damage<'_>| {
        let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    let (first, second) = (at("risk", "1"), at("risk", "2"));
    let damages: [(&str, Damage<'_>); 8] = [
        ("risk 1: its content", &|lines| lines[first] = lines[first].replace("120.5", "121.5")),
        ("risk 1: its content", &|lines| lines[first] = lines[first].replace("grün", "rot")),
        ("risk 1: its time", &|lines| lines[first] = lines[first].replace(r#""time":"20"#, r#""time":"19"#)),
        ("risk 1: it has other columns", &|lines| lines[first] = lines[first].replace(r#""actor""#, r#""author""#)),
        ("risk 2: event 1 is expected", &|lines| drop(lines.remove(first))),
        ("risk 2: event 1 is expected", &|lines| lines.swap(first, second)),
        ("risk 2: its content", &|lines| lines[second] = lines[second].replace(r#""hash":""#, r#""hash":"0"#)),
        // Without the last event, the head says that there was one.
        ("risk 2: the last line names", &|lines| drop(lines.remove(at("risk", "3")))),
    ];
    for (named, change) in damages {
        let (code, said) = verified(&edited(change));
        let damaged: Vec<_> = said.iter().filter(|line| line.starts_with("DAMAGED")).collect();
        assert_eq!((code, damaged.len()), (Some(1), 1), "{named}: {said:?}");
        assert!(damaged[0].contains(named), "{named}: {said:?}");
    }
    for nonsense in ["x\n", "{}\n", "[1]\n", "{\"stream\":\"risk\",\"seq\":\"1\"}\n"] {
        assert_eq!(verified(nonsense).0, Some(1), "{nonsense:?}");
    }
}

#[test]
fn an_export_that_was_cut_off_is_told_from_a_damaged_one_and_is_no_whole_one() {
    let place = Place::new();
    let _server = busy(&place);
    let whole = export(&place, &[]);
    let lines: Vec<&str> = whole.lines().collect();
    let first_of =
        |stream: &str| lines.iter().position(|line| line.contains(&format!(r#"{{"stream":"{stream}","#))).unwrap();
    let up_to = |line: usize| lines[..line].join("\n") + "\n";
    for (cut, named) in [
        (String::new(), "nothing is there"),
        (up_to(lines.len() - 1), "risk 3: the export ends here"),
        (whole[..whole.len() - 10].to_owned(), "ends in its middle"),
        (up_to(first_of("kpi")), "risk: the whole stream is missing"),
        (up_to(2), "control 1: the export ends here"),
        (whole[..20].to_owned(), "line 1: the export ends in its middle"),
    ] {
        let (code, said) = verified(&cut);
        assert!(code == Some(2) && !said.iter().any(|line| line.contains("DAMAGED")), "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("CUT OFF") && line.contains(named)), "{named}: {said:?}");
    }
    // An event that is missing before an existing one was not cut off.
    let without = lines.iter().filter(|line| !line.starts_with(r#"{"stream":"kpi","#)).map(|line| format!("{line}\n"));
    let (code, said) = verified(&without.collect::<String>());
    assert!(code == Some(1) && said.iter().any(|line| line == "DAMAGED kpi: the whole stream is missing"), "{said:?}");
    // A part says what it is a part of.
    let (code, said) = verified(&export(&place, &["--stream", "kpi"]));
    assert_eq!(
        (code, said[1].as_str()),
        (Some(0), "every stream of this export is whole; not in it: control, heimdall, risk")
    );
}

/// The documentation's way to get the key from the line of `holdfast audit key`.
#[test]
fn the_documented_check_of_a_checkpoint_finds_the_key_also_where_its_base64_holds_a_plus() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/AUDIT.md")).unwrap();
    let line = text.lines().find(|line| line.contains("key.txt | base64 -d")).expect("it is documented");
    let begin = line.find("sed '").expect("a sed");
    let found = line[begin..].split(';').next().unwrap().replace("key.txt", "-");
    let key = "AZ++/".to_owned() + &"+a".repeat(19) + "A";
    assert_eq!(key.len(), 44);
    let run = |script: &str, text: &str| {
        let sh = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut sh = sh.expect("a shell");
        sh.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        sh.wait_with_output().unwrap().stdout
    };
    let wanted = run("base64 -d | tail -c 32", &key);
    assert_eq!((run(&found, &format!("holdfast/vm+6d26bd40+{key}\n")), wanted.len()), (wanted, 32));
}

#[test]
fn an_export_whose_reader_has_gone_is_no_success() {
    let place = Place::new();
    let _server = busy(&place);
    let mut session = place.session("holdfast");
    session.sql(
        "INSERT INTO kpi_event (seq, at, principal, domain, metric, series_seq, success, series_sum, hash)
         SELECT h.seq + n, h.at + n * interval '1 us', 'x', 'D', 'n', n, true, n, h.hash
         FROM audit_head h, generate_series(1, 200000) n WHERE stream = 'kpi'",
    );
    let mut export = place.command(&["audit", "export"]);
    let mut export = export.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    // The reader is gone after a line.
    BufReader::new(export.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains(r#""before""#), "{first}");
    let ended = export.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("the export cannot be written"), "{said}");
}

#[test]
fn a_text_is_erased_and_the_export_is_verified_as_before() {
    let place = Place::new();
    let server = busy(&place);
    let erase = |seq: &str, field: &str| {
        let stream = ["audit", "erase", "--stream", "risk", "--seq", seq, "--field", field, "--reason", "asked for"];
        place.run(&stream, &[])
    };
    let erased = erase("1", "metadata");
    assert_eq!(erased.code, Some(0), "{erased:?}");
    assert!(erased.out.starts_with("risk/1/metadata is erased in "), "{erased:?}");
    let again = erase("1", "metadata");
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.out.contains("was erased before"), "{again:?}");
    for (seq, field) in [("2", "metadata"), ("99", "reason"), ("1", "detail"), ("1", "actor")] {
        let nothing = erase(seq, field);
        assert_eq!(nothing.code, Some(1), "{nothing:?}");
        assert_eq!(nothing.sentences().len(), 1, "{nothing:?}");
    }
    assert_eq!(place.run(&["audit", "verify"], &[]).code, Some(0));
    let exported = export(&place, &[]);
    assert!(!exported.contains(r#"{\"b\":1.5"#) && exported.contains(r#""erased":{"metadata":""#), "{exported}");
    assert_eq!(verified(&exported).0, Some(0));
    // The digest is what is hashed.
    let lines = exported.replace(r#""erased":{"metadata":""#, r#""erased":{"metadata":"0"#);
    let (code, said) = verified(&lines);
    assert!(code == Some(1) && said.iter().any(|line| line.contains("DAMAGED risk 1: its content")), "{said:?}");
    // A control event's reason stands in what comes after it, too, and that is told.
    server.post("/go-live/disable", &json!({"actor": "test", "reason": "m4rker"})).ok();
    let seq = exported.lines().filter(|line| line.starts_with(r#"{"stream":"control","seq""#)).count() + 1;
    let seq = seq.to_string();
    let told = place.run(
        &[
            "audit", "erase", "--stream", "control", "--seq", &seq, "--field", "reason", "--reason", "x", "--actor",
            "eve",
        ],
        &[],
    );
    assert!(told.out.contains("erased with it: go_live_state.go_live_reason"), "{told:?}");
    assert!(told.out.contains(&format!("STILL THERE: control_event.detail of {seq}: erase it, too")), "{told:?}");
}
