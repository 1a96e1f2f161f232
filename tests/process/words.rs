//! Commands that only tighten: neither their words nor the variables of other commands keep them from it.

use crate::support::Place;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

#[test]
fn a_kill_stops_whatever_its_words_and_the_variables_of_other_commands_say() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let file = place.data().join("KILL");
    let long = "x".repeat(1_001);
    let words: [&[&str]; 6] = [
        &["--actor", "", "--reason", "stop"],
        &["--reason", "two\nlines"],
        &["--reason", "a\ttab"],
        &["--reason", &long],
        &["--reason", "not", "quoted"],
        &["--nonsense"],
    ];
    let variables = [
        ("BIND_ADDR", "foo"),
        ("LOG_FORMAT", "pretty"),
        ("CHECKPOINT_EVERY", "5"),
        ("DRAIN_SECONDS", ""),
        ("RUST_LOG", "a=b=c"),
        ("ENGINES_MAX", "1"),
        ("GO_LIVE_ENFORCE", "maybe"),
    ];
    let stops = |words: &[&str], variable: Option<(&str, &str)>| {
        let killed = place.run(&[&["kill"], words].concat(), variable.as_slice());
        assert_eq!(killed.code, Some(0), "{killed:?}");
        assert!(killed.out.contains("the kill switch is engaged (version "), "{killed:?}");
        assert!(
            killed.sentences().iter().any(|sentence| sentence.contains("ignored") || sentence.contains("taken")),
            "{killed:?}"
        );
        fs::remove_file(&file).expect("it was written");
    };
    for words in words {
        stops(words, None);
    }
    for variable in variables {
        stops(&[], Some(variable));
    }
    let mut command = place.command(&["kill", "--reason"]);
    command.arg(OsStr::from_bytes(b"caf\xe9"));
    let killed = place.run_to_end(command);
    assert_eq!(killed.code, Some(0), "{killed:?}");
    assert!(fs::read_to_string(&file).expect("it was written").contains("caf\u{fffd}"));
    assert_eq!(server.get("/go-live/state").ok()["kill_switch_engaged"], true);
    server.stop(Signal::TERM);
    // Without a server, too; and a question is none of these.
    fs::remove_file(&file).expect("it was written");
    assert_eq!(place.run(&["kill", "--help"], &[]).code, Some(0));
    assert!(!file.exists());
    stops(&["--actor", ""], Some(("BIND_ADDR", "foo")));
}

#[test]
fn a_token_is_revoked_and_a_second_person_asked_for_whatever_the_words_say() {
    let place = Place::new();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    for words in [&["--reason", ""][..], &["--actor", ""], &["--actor", "a\nb"], &[]] {
        let token = place.run(&["token", "create", "--name", "x", "--scopes", "read"], &[]).out;
        let id = token.split('_').nth(1).expect("an id").to_owned();
        let revoked = place.run(&[&["token", "revoke", &id], words].concat(), &[("BIND_ADDR", "foo")]);
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
        assert!(revoked.out.contains("is revoked"), "{revoked:?}");
    }
    let on = place.run(&["two-person-release", "on", "--reason", ""], &[("RUST_LOG", "a=b=c")]);
    assert!(on.code == Some(0) && on.out.contains("two_person_release is on"), "{on:?}");
    let off = place.run(&["two-person-release", "off", "--reason", ""], &[]);
    assert!(off.refusal().contains("--reason"), "{off:?}");
}

#[test]
fn a_bound_that_is_given_and_empty_makes_no_token() {
    let place = Place::new();
    assert_eq!(place.run(&["migrate"], &[]).code, Some(0));
    for (bound, empty) in [
        ("--engines", ""),
        ("--engines", ","),
        ("--domains", " "),
        ("--max-loss", ""),
        ("--expires", ""),
        ("--rate", ""),
    ] {
        let refused = place.run(&["token", "create", "--name", "svc", "--scopes", "reserve", bound, empty], &[]);
        let name = bound.trim_start_matches('-').replace('-', "_");
        let sentence = refused.refusal();
        assert!(sentence.contains(bound) || sentence.contains(&format!("{name} is empty")), "{refused:?}");
    }
    assert_eq!(place.run(&["token", "list"], &[]).out, "");
}

#[test]
fn a_misspelt_place_fails_a_kill_after_it_stopped_and_lets_nothing_else_act() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let file = place.data().join("KILL");
    for words in [&["kill", "--data-dri", "/elsewhere"][..], &["kill", "--data-dir"], &["--data-dri", "/x", "kill"]] {
        let killed = place.run(words, &[]);
        assert_eq!(killed.code, Some(1), "{killed:?}");
        assert!(killed.out.contains("the kill switch is engaged (version "), "{killed:?}");
        let [sentence] = killed.sentences()[..] else { panic!("not one sentence: {killed:?}") };
        assert!(sentence.contains("--data-dir") && sentence.contains("may not be stopped"), "{killed:?}");
        fs::remove_file(&file).expect("it was written");
    }
    let token = place.run(&["token", "create", "--name", "x", "--scopes", "read"], &[]).out;
    let id = token.split('_').nth(1).expect("an id").to_owned();
    for words in [&["token", "revoke", &id, "--data-dri", "/x"][..], &["two-person-release", "on", "--data-dir"]] {
        let refused = place.run(words, &[]);
        let sentence = refused.refusal();
        assert!(sentence.contains("--data-dir") && sentence.contains("the command did nothing"), "{refused:?}");
    }
    assert!(!place.run(&["token", "list"], &[]).out.contains("REVOKED"));
    let on = place.run(&["two-person-release", "on"], &[]);
    assert!(!on.out.contains("as it was before"), "{on:?}");
    server.stop(Signal::TERM);
}
