//! The words of a command that only tightens: none is a reason not to stop, nor is a variable that such a command does not need.
//!
//! Every command is read strictly first. Where that fails, one that tightens is read here: a text is cut, cleaned or left out, as a
//! route that tightens does it, and what was ignored is named. What says *which* thing is to be stopped is read as strictly as ever.

use super::kill::KillArgs;
use super::token::{RevokeArgs, Switch, TokenCommand, TwoPersonArgs};
use super::{Command, Task};
use crate::config::{DatabaseConfig, LogConfig, LogFormat, path};
use crate::types::{ParseTextError, TOKEN_PREFIX};
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// The options that such a command knows, each with its variable.
const OPTIONS: [(&str, Option<&str>); 8] = [
    ("actor", None),
    ("reason", None),
    ("kill-file", Some("KILL_FILE")),
    ("database-url", Some("DATABASE_URL")),
    ("data-dir", Some("DATA_DIR")),
    ("pg-bin-dir", Some("PG_BIN_DIR")),
    ("log-format", Some("LOG_FORMAT")),
    ("rust-log", Some("RUST_LOG")),
];

/// The commands that have commands.
const GROUPS: [&str; 4] = ["audit", "db", "risk", "token"];
/// The words that ask for an explanation, and for nothing else.
const QUESTIONS: [&str; 5] = ["--help", "-h", "help", "--version", "-V"];

/// The command of this process, by its name.
pub(super) fn command_name() -> String {
    let words = Words::read(std::env::args_os().skip(1));
    let names: Vec<_> = words.plain.iter().map(|word| word.to_string_lossy()).collect();
    let count = if names.first().is_some_and(|name| GROUPS.contains(&name.as_ref())) { 2 } else { 1 };
    names.into_iter().take(count).collect::<Vec<_>>().join(" ")
}

/// A command that only tightens, out of words that could not be read, and what of them is ignored; none where they are no such
/// command. `why` says what could not be read.
pub(super) fn tightening(words: impl Iterator<Item = OsString>, why: &str) -> Option<(Task, Vec<String>)> {
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
        // One more word may be another token, which would not be revoked.
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
    let database = DatabaseConfig {
        database_url: words.value("database-url").map(|url| url.to_string_lossy().into_owned()),
        data_dir: words.path("data-dir"),
        pg_bin_dir: words.path("pg-bin-dir"),
    };
    let log = words.log();
    // Somebody may have given a whole token.
    let shown = |word: &String| if word.contains(TOKEN_PREFIX) { "hf_…".to_owned() } else { word.clone() };
    let unknown = rest.iter().chain(&words.unknown).map(|word| format!("{:?} is unknown: ignored", shown(word)));
    let mut ignored: Vec<_> = unknown.chain(words.ignored).collect();
    if ignored.is_empty() {
        ignored.push(format!("{why}: ignored"));
    }
    Some((Task { command, database, log }, ignored))
}

/// Words, read one by one.
#[derive(Debug, Default)]
struct Words {
    /// Options with their values.
    said: Vec<(&'static str, OsString)>,
    /// What is no option.
    plain: Vec<OsString>,
    /// Options that are not known.
    unknown: Vec<String>,
    /// What was ignored, each in a sentence.
    ignored: Vec<String>,
}

impl Words {
    fn read(words: impl Iterator<Item = OsString>) -> Self {
        let (mut read, mut words) = (Self::default(), words.peekable());
        while let Some(word) = words.next() {
            match option(&word) {
                Some((name, value)) => read.take(name, value.map(OsStr::to_owned), &mut words),
                None if word.as_bytes().starts_with(b"-") => read.unknown.push(word.to_string_lossy().into_owned()),
                None => read.plain.push(word),
            }
        }
        read
    }

    /// Takes an option, whose value is behind its `=`, or the next word.
    fn take(
        &mut self,
        name: &'static str,
        value: Option<OsString>,
        words: &mut Peekable<impl Iterator<Item = OsString>>,
    ) {
        match value.or_else(|| words.next_if(|next| option(next).is_none())) {
            None => self.ignored.push(format!("--{name} is without a value: ignored")),
            Some(_) if self.said.iter().any(|(said, _)| *said == name) => {
                self.ignored.push(format!("--{name} is given twice: the first is taken"));
            }
            Some(value) => self.said.push((name, value)),
        }
    }

    /// The value of an option, or of its variable.
    #[expect(clippy::disallowed_methods, reason = "what this reads is the configuration")]
    fn value(&self, name: &str) -> Option<OsString> {
        let said = self.said.iter().find(|(said, _)| *said == name).map(|(_, value)| value.clone());
        let variable = OPTIONS.into_iter().find(|(option, _)| *option == name).and_then(|(_, variable)| variable);
        said.or_else(|| variable.and_then(std::env::var_os))
    }

    /// A file or directory, also of a name that is no text.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.value(name)?;
        match value.to_str().map(path) {
            Some(Ok(path)) => Some(path),
            None => Some(value.into()),
        }
    }

    /// A text, as much of it as can be taken.
    fn text<T: FromStr<Err = ParseTextError>>(&mut self, name: &str) -> Option<T> {
        let value = self.value(name)?;
        let mut text = value.to_string_lossy().into_owned();
        let mut why = value.to_str().is_none().then(|| "is not UTF-8".to_owned());
        loop {
            let error = match text.parse() {
                Ok(taken) => {
                    self.ignored.extend(why.map(|why| format!("--{name} {why}: it is taken without that")));
                    return Some(taken);
                }
                Err(error) => error,
            };
            why.get_or_insert_with(|| error.to_string());
            match error {
                ParseTextError::ControlCharacter(bad) => text = text.replace(bad, " "),
                ParseTextError::TooLong(_, most, _) => text = text.chars().take(most).collect(),
                _ => break,
            }
        }
        self.ignored.extend(why.map(|why| format!("--{name} {why}: ignored")));
        None
    }

    fn log(&mut self) -> LogConfig {
        let mut log = LogConfig::default();
        if let Some(filter) = self.value("rust-log") {
            log.rust_log = filter.to_string_lossy().into_owned();
        }
        if let Some(format) = self.value("log-format") {
            log.log_format = LogFormat::from_str(&format.to_string_lossy(), false).ok();
            if log.log_format.is_none() {
                self.ignored.push(format!("LOG_FORMAT (--log-format) {} is no format: ignored", format.display()));
            }
        }
        log
    }
}

/// The option that a word is, and the value behind its `=`.
fn option(word: &OsStr) -> Option<(&'static str, Option<&OsStr>)> {
    let word = word.as_bytes().strip_prefix(b"--")?;
    let (name, value) = match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(OsStr::from_bytes(&word[at + 1..]))),
        None => (word, None),
    };
    let known = OPTIONS.into_iter().map(|(known, _)| known).find(|known| known.as_bytes() == name)?;
    Some((known, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn read(words: &[&str]) -> Option<(Task, Vec<String>)> {
        tightening(words.iter().map(OsString::from), "BIND_ADDR=foo is not acceptable")
    }

    fn killed(words: &[&str]) -> (Option<String>, Option<String>, Vec<String>) {
        let (task, ignored) = read(words).expect("it stops");
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
        let (task, ignored) = tightening(bytes.into_iter(), "").expect("it stops");
        let Command::Kill(KillArgs { reason, .. }) = task.command else { panic!("not a kill") };
        assert_eq!(reason.expect("most of it").as_str(), "caf\u{fffd}");
        assert_eq!(ignored, ["--reason is not UTF-8: it is taken without that"]);
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
