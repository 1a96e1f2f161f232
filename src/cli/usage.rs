//! Turns a fault in the arguments of a command into one sentence.

use super::command::Cli;
use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue};

/// The fault in one sentence, with the name of the variable as well as the flag.
pub(super) fn sentence(error: &clap::Error) -> String {
    let text = |kind| error.get(kind).map(ToString::to_string);
    let (Some(flag), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        // Clap lists missing arguments below the sentence, and the usage after an empty line.
        let whole = error.to_string();
        let first = whole.lines().take_while(|line| !line.is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
        return format!("{} (see holdfast --help)", first.trim_start_matches("error: "));
    };
    let command = Cli::command();
    let flags = command.get_arguments().chain(command.get_subcommands().flat_map(clap::Command::get_arguments));
    let variable = flags
        .filter(|known| known.get_long().is_some_and(|long| flag.starts_with(&format!("--{long}"))))
        .max_by_key(|known| known.get_long().map_or(0, str::len))
        .and_then(|known| known.get_env())
        .map(|name| format!("{} ({flag})", name.to_string_lossy()));
    let expected = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => format!("it must be one of {}", values.join(", ")),
        _ => std::error::Error::source(error).map_or_else(|| "it cannot be read".to_owned(), ToString::to_string),
    };
    // The user may have given a whole token instead of its id.
    let value = if value.contains(crate::types::TOKEN_PREFIX) { "hf_…".to_owned() } else { value };
    format!("{}={value:?} is not acceptable: {expected}", variable.unwrap_or(flag))
}
