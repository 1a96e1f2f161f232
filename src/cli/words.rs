//! The words of a command line, each read by itself: an option or a variable that cannot be read is named and left out.

use crate::config::{LogConfig, LogFormat, path};
use crate::types::{ParseTextError, letters_apart};
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::iter::Peekable;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// The options of the commands that tighten, each with its variable. A test compares them with clap's.
pub(super) const OPTIONS: [(&str, Option<&str>); 8] = [
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
pub(super) const GROUPS: [&str; 5] = ["archive", "audit", "db", "risk", "token"];

/// The command of this process, by its name.
pub(super) fn command_name() -> String {
    let words = Words::read(std::env::args_os().skip(1));
    let names: Vec<_> = words.plain.iter().map(|word| word.to_string_lossy()).collect();
    let is_group = names.first().is_some_and(|name| GROUPS.contains(&name.as_ref()));
    // The value of an option is no command.
    let has_second = names.get(1).is_some_and(|name| name.starts_with(|first: char| first.is_ascii_lowercase()));
    let count = if is_group && has_second { 2 } else { 1 };
    names.into_iter().take(count).collect::<Vec<_>>().join(" ")
}

/// The arguments, read one by one.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// The options with their values.
    said: Vec<(&'static str, OsString)>,
    /// The words that are not options.
    pub(super) plain: Vec<OsString>,
    /// The unknown options.
    pub(super) unknown: Vec<String>,
    /// One sentence for each ignored word.
    pub(super) ignored: Vec<String>,
    /// The reasons why the place is not certain.
    pub(super) doubts: Vec<String>,
}

impl Words {
    pub(super) fn read(words: impl Iterator<Item = OsString>) -> Self {
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
    pub(super) fn value(&self, name: &str) -> Option<OsString> {
        let said = self.said.iter().find(|(said, _)| *said == name).map(|(_, value)| value.clone());
        let variable = OPTIONS.into_iter().find(|(option, _)| *option == name).and_then(|(_, variable)| variable);
        said.or_else(|| variable.and_then(std::env::var_os))
    }

    /// A file or directory; its name need not be UTF-8.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self.value(name)?;
        match value.to_str().map(path) {
            Some(Ok(path)) => Some(path),
            None => Some(value.into()),
        }
    }

    /// A text, as much of it as is valid.
    pub(super) fn text<T: FromStr<Err = ParseTextError>>(&mut self, name: &str) -> Option<T> {
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

    pub(super) fn log(&mut self) -> LogConfig {
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
pub(super) fn misspelt(word: &str) -> Option<String> {
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
