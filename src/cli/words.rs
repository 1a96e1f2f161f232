//! Reads the arguments of a command that only tightens, leniently: a faulty argument or variable must not prevent a
//! stop.
//!
//! Every command is read strictly first. If that fails, a command that tightens is read here: a text is cut, cleaned or
//! left out, as a route that tightens does it, and each ignored word is named. The id of a token is still read
//! strictly. An option that names a *place* (`--data-dir`) is never ignored, even if it is misspelt: a kill then stops
//! as far as it can and fails, other commands refuse.

use super::kill::KillArgs;
use super::token::{RevokeArgs, Switch, TokenCommand, TwoPersonArgs};
use super::{Command, Task};
use crate::config::{DatabaseConfig, LogConfig, LogFormat, path};
use crate::types::{ParseTextError, TOKEN_PREFIX, letters_apart};
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// The options of the commands that tighten, each with its variable. A test compares them with clap's.
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

/// The options that name a place.
const PLACES: [&str; 3] = ["database-url", "data-dir", "kill-file"];
/// The number of letters by which a misspelt option may differ.
const MISSPELT_MAX: usize = 2;
/// The shortest part of such a name that counts as a misspelling of it.
const PART_MIN: usize = 3;

/// The commands that have subcommands.
const GROUPS: [&str; 4] = ["audit", "db", "risk", "token"];
/// The words that only ask for help or for the version.
const QUESTIONS: [&str; 5] = ["--help", "-h", "help", "--version", "-V"];

/// The command of this process, by its name.
pub(super) fn command_name() -> String {
    let words = Words::read(std::env::args_os().skip(1));
    let names: Vec<_> = words.plain.iter().map(|word| word.to_string_lossy()).collect();
    let count = if names.first().is_some_and(|name| GROUPS.contains(&name.as_ref())) { 2 } else { 1 };
    names.into_iter().take(count).collect::<Vec<_>>().join(" ")
}

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

/// The arguments, read one by one.
#[derive(Debug, Default)]
struct Words {
    /// The options with their values.
    said: Vec<(&'static str, OsString)>,
    /// The words that are not options.
    plain: Vec<OsString>,
    /// The unknown options.
    unknown: Vec<String>,
    /// One sentence for each ignored word.
    ignored: Vec<String>,
    /// The reasons why the place is not certain.
    doubts: Vec<String>,
}

impl Words {
    fn read(words: impl Iterator<Item = OsString>) -> Self {
        let (mut read, mut words) = (Self::default(), words.peekable());
        while let Some(word) = words.next() {
            if let Some((name, value)) = option(&word) {
                read.take(name, value.map(OsStr::to_owned), &mut words);
            } else if !is_dashed(&word) {
                read.plain.push(word);
            } else {
                let word = word.to_string_lossy().into_owned();
                match misspelt(&word) {
                    Some(doubt) => {
                        read.doubts.push(doubt);
                        // The value of an unknown option is not a word of the command.
                        let _ = words.next_if(|next| !word.contains('=') && !is_dashed(next));
                    }
                    None => read.unknown.push(word),
                }
            }
        }
        read
    }

    /// Takes an option. Its value follows its `=`, or is the next word.
    fn take(
        &mut self,
        name: &'static str,
        value: Option<OsString>,
        words: &mut Peekable<impl Iterator<Item = OsString>>,
    ) {
        let is_place = PLACES.contains(&name);
        match value.or_else(|| words.next_if(|next| !is_dashed(next))) {
            None if is_place => self.doubts.push(format!("--{name} is without a value")),
            None => self.ignored.push(format!("--{name} is without a value: ignored")),
            Some(_) if self.said.iter().any(|(said, _)| *said == name) => {
                let twice = format!("--{name} is given twice: the first is taken");
                if is_place { &mut self.doubts } else { &mut self.ignored }.push(twice);
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

    /// A file or directory; its name need not be UTF-8.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.value(name)?;
        match value.to_str().map(path) {
            Some(Ok(path)) => Some(path),
            None => Some(value.into()),
        }
    }

    /// A text, as much of it as is valid.
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

/// The option that a word names, and the value after its `=`.
fn option(word: &OsStr) -> Option<(&'static str, Option<&OsStr>)> {
    let word = word.as_bytes().strip_prefix(b"--")?;
    let (name, value) = match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(OsStr::from_bytes(&word[at + 1..]))),
        None => (word, None),
    };
    let known = OPTIONS.into_iter().map(|(known, _)| known).find(|known| known.as_bytes() == name)?;
    Some((known, value))
}

fn is_dashed(word: &OsStr) -> bool {
    word.as_bytes().starts_with(b"-")
}

/// The doubt about a word that may be a misspelt option for a place. Its value may hold a password, and is not shown.
fn misspelt(word: &str) -> Option<String> {
    let name = word.split('=').next().unwrap_or_default();
    let bare = |name: &str| name.to_ascii_lowercase().replace(['-', '_'], "");
    let said = bare(name);
    let is_meant = |place: &&&str| {
        let place = bare(place);
        letters_apart(&said, &place, MISSPELT_MAX).is_some()
            || (said.len() >= PART_MIN && place.contains(&said))
            || said.contains(&place)
    };
    let place = PLACES.iter().find(is_meant)?;
    Some(format!("{name:?} is unknown; it may be a misspelt --{place}"))
}

#[cfg(test)]
mod tests {
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
        let mut cli = super::super::Cli::command();
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
