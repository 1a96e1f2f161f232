//! Reads the arguments of a command that only tightens, leniently: a faulty argument or variable must not prevent a
//! stop.
//!
//! Every command is read strictly first. If that fails, a command that tightens is read here: a text is cut, cleaned or
//! left out, as a route that tightens does it, and each ignored word is named. The id of a token is still read
//! strictly. An option that names a *place* (`--data-dir`) is never ignored, even if it is misspelt: a kill then stops
//! as far as it can and fails, other commands refuse.

use super::command::{Command, Task};
use super::kill::KillArgs;
use super::token::{RevokeArgs, Switch, TokenCommand, TwoPersonArgs};
use super::words::{Words, misspelt};
use crate::config::DatabaseConfig;
use crate::types::TOKEN_PREFIX;
use std::ffi::OsString;

/// The words that only ask for help or for the version.
const QUESTIONS: [&str; 5] = ["--help", "-h", "help", "--version", "-V"];

/// A command that only tightens, read from arguments that could not be parsed strictly.
#[derive(Debug)]
pub(super) struct Tolerated {
    pub(super) task: Task,
    /// One sentence for each ignored word.
    pub(super) ignored: Vec<String>,
    /// The reasons why the place may not be the intended one; empty where it is certain.
    pub(super) doubts: Vec<String>,
}

/// Reads such a command; none where the words are not such a command. `why` says why strict parsing failed.
pub(super) fn tightening(words: impl Iterator<Item = OsString>, why: &str) -> Option<Tolerated> {
    let mut words = Words::read(words);
    let plain: Vec<String> = words.plain.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let is_question = |word: &String| QUESTIONS.contains(&word.as_str());
    if plain.iter().chain(&words.unknown).any(is_question) {
        return None;
    }
    let (command, rest): (_, &[String]) = match plain.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["kill", ..] => {
            let (actor, reason, kill_file) = (words.text("actor"), words.text("reason"), words.path("kill-file"));
            (Command::Kill(KillArgs { actor, reason, kill_file }), &plain[1..])
        }
        // One more word may be another token, which would then not be revoked.
        ["token", "revoke", id] => {
            let (actor, reason) = (words.text("actor"), words.text("reason"));
            let revoke = RevokeArgs { id: id.parse().ok()?, actor, reason };
            (Command::Token { command: TokenCommand::Revoke(revoke) }, &[])
        }
        ["two-person-release", "on"] => {
            let (actor, reason) = (words.text("actor"), words.text("reason"));
            (Command::TwoPersonRelease(TwoPersonArgs { setting: Switch::On, actor, reason }), &[])
        }
        _ => return None,
    };
    let url = words.value("database-url");
    if url.as_ref().is_some_and(|url| url.to_str().is_none()) {
        words.doubts.push("DATABASE_URL (--database-url) is not UTF-8".to_owned());
    }
    let database = DatabaseConfig {
        database_url: url.map(|url| url.to_string_lossy().into_owned()),
        data_dir: words.path("data-dir"),
        pg_bin_dir: words.path("pg-bin-dir"),
    };
    let log = words.log();
    for word in rest.iter().chain(&words.unknown) {
        // `DATA_DIR=/d` after a command sets no variable.
        match misspelt(word).filter(|_| word.contains('=')) {
            Some(doubt) => words.doubts.push(doubt),
            // The user may have given a whole token.
            None if word.contains(TOKEN_PREFIX) => words.ignored.push("\"hf_…\" is unknown: ignored".to_owned()),
            None => words.ignored.push(format!("{word:?} is unknown: ignored")),
        }
    }
    let Words { mut ignored, doubts, .. } = words;
    if ignored.is_empty() && doubts.is_empty() {
        ignored.push(format!("{why}: ignored"));
    }
    Some(Tolerated { task: Task { command, database, log }, ignored, doubts })
}

#[cfg(test)]
mod tests {
    use super::super::words::{GROUPS, OPTIONS};
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn read(words: &[&str]) -> Option<Tolerated> {
        tightening(words.iter().map(OsString::from), "BIND_ADDR=foo is not acceptable")
    }

    fn killed(words: &[&str]) -> (Option<String>, Option<String>, Vec<String>) {
        let Tolerated { task, ignored, doubts } = read(words).expect("it stops");
        assert_eq!(doubts, Vec::<String>::new(), "{words:?}");
        let Command::Kill(KillArgs { actor, reason, .. }) = task.command else { panic!("not a kill: {task:?}") };
        (actor.map(|actor| actor.to_string()), reason.map(|reason| reason.to_string()), ignored)
    }

    #[test]
    fn no_words_are_a_reason_not_to_stop_and_each_that_is_ignored_is_named() {
        let long = "x".repeat(1_001);
        for (words, actor, reason, named) in [
            (&["kill", "--actor", "", "--reason", "r"][..], None, Some("r"), "--actor is empty"),
            (
                &["kill", "--reason", "one\ntwo\tthree"],
                None,
                Some("one two three"),
                "--reason has the control character",
            ),
            (&["kill", "--reason", &long], None, Some(&long[1..]), "--reason has 1001 characters"),
            (&["kill", "--reason=r", "--nonsense", "--actor=a"], Some("a"), Some("r"), "\"--nonsense\" is unknown"),
            (&["kill", "--reason", "stop", "it"], None, Some("stop"), "\"it\" is unknown"),
            (&["kill", "--actor", "--reason", "r"], None, Some("r"), "--actor is without a value"),
            (&["--data-dir", "/d", "kill", "--actor", "a", "--actor", "b"], Some("a"), None, "--actor is given twice"),
            (&["kill"], None, None, "BIND_ADDR=foo"),
        ] {
            let (found_actor, found_reason, ignored) = killed(words);
            assert_eq!((found_actor.as_deref(), found_reason.as_deref()), (actor, reason), "{words:?}");
            assert!(ignored.len() == 1 && ignored[0].contains(named), "{words:?}: {ignored:?}");
        }
        let bytes = [OsString::from("kill"), OsString::from("--reason"), OsString::from_vec(b"caf\xe9".to_vec())];
        let Tolerated { task, ignored, .. } = tightening(bytes.into_iter(), "").expect("it stops");
        let Command::Kill(KillArgs { reason, .. }) = task.command else { panic!("not a kill") };
        assert_eq!(reason.expect("most of it").as_str(), "caf\u{fffd}");
        assert_eq!(ignored, ["--reason is not UTF-8: it is taken without that"]);
    }

    #[test]
    fn an_option_that_says_where_is_never_ignored_and_its_value_is_not_shown() {
        for (words, named) in [
            (&["kill", "--data-dri", "/d"][..], "\"--data-dri\" is unknown; it may be a misspelt --data-dir"),
            (&["--data-dri", "/d", "kill"], "--data-dir"),
            (&["kill", "--data_dir=/d"], "--data-dir"),
            (&["kill", "-data-dir", "/d"], "--data-dir"),
            (&["kill", "--datadir", "/d", "--reason", "r"], "--data-dir"),
            (&["kill", "DATA_DIR=/d"], "--data-dir"),
            (&["kill", "--data-dir"], "--data-dir is without a value"),
            (&["kill", "--data-dir", "--reason", "r"], "--data-dir is without a value"),
            (&["kill", "--data-dir", "-x"], "--data-dir is without a value"),
            (&["kill", "--data-dir", "/a", "--data-dir", "/b"], "--data-dir is given twice"),
            (&["kill", "--url", "secret"], "--database-url"),
            (&["kill", "--database", "secret"], "--database-url"),
            (&["kill", "--database-ulr=secret"], "--database-url"),
            (&["kill", "--killfile", "/k"], "--kill-file"),
            (&["token", "revoke", "0123456789abcdef", "--data-dri", "/d"], "--data-dir"),
            (&["two-person-release", "on", "--data-dri=/d"], "--data-dir"),
        ] {
            let Tolerated { doubts, .. } = read(words).expect("it is read");
            assert!(doubts.len() == 1 && doubts[0].contains(named), "{words:?}: {doubts:?}");
            assert!(!doubts[0].contains("secret"), "{doubts:?}");
        }
        let url =
            [OsString::from("kill"), OsString::from("--database-url"), OsString::from_vec(b"postgres://\xe9".to_vec())];
        let Tolerated { doubts, .. } = tightening(url.into_iter(), "").expect("it is read");
        assert_eq!(doubts, ["DATABASE_URL (--database-url) is not UTF-8"]);
    }

    #[test]
    fn a_word_that_begins_with_a_dash_is_never_the_value_of_an_option() {
        let (actor, reason, ignored) = killed(&["kill", "--actor", "-x", "--reason", "-y"]);
        assert_eq!((actor, reason), (None, None));
        assert_eq!(ignored.len(), 4, "{ignored:?}");
    }

    #[test]
    fn the_options_and_groups_here_are_those_of_the_command_line() {
        use clap::CommandFactory;
        use std::collections::BTreeSet;
        let mut cli = crate::cli::command::Cli::command();
        cli.build();
        let of = |names: &[&str]| {
            let command = names.iter().fold(&cli, |command, name| command.find_subcommand(name).expect(name));
            let options = command.get_opts().filter(|option| option.get_action().takes_values());
            options
                .map(|option| {
                    let variable = option.get_env().map(|name| name.to_string_lossy().into_owned());
                    (option.get_long().expect("a long name").to_owned(), variable)
                })
                .collect::<BTreeSet<_>>()
        };
        let known: BTreeSet<_> =
            OPTIONS.map(|(name, variable)| (name.to_owned(), variable.map(ToOwned::to_owned))).into();
        assert_eq!(of(&["kill"]), known);
        assert!(of(&["token", "revoke"]).is_subset(&known));
        assert!(of(&["two-person-release"]).is_subset(&known));
        let is_group = |command: &&clap::Command| command.get_name() != "help" && command.has_subcommands();
        let groups: BTreeSet<_> = cli.get_subcommands().filter(is_group).map(clap::Command::get_name).collect();
        assert_eq!(groups, BTreeSet::from(GROUPS));
    }

    #[test]
    fn what_does_not_say_which_thing_is_stopped_or_only_asks_is_refused_as_ever() {
        assert!(read(&["token", "revoke", "0123456789abcdef", "--reason", ""]).is_some());
        assert!(read(&["two-person-release", "on", "--actor", "a\nb"]).is_some());
        for words in [
            &["kill", "--help"][..],
            &["kill", "help"],
            &["token", "revoke", "0123456789abcdef", "fedcba9876543210"],
            &["token", "revoke", "x"],
            &["token", "revoke"],
            &["two-person-release", "off", "--actor", ""],
            &["two-person-release"],
            &["serve", "kill"],
            &["--bind-addr", "x", "kill"],
            &["--version", "kill"],
            &[],
        ] {
            assert!(read(words).is_none(), "{words:?}");
        }
    }
}
