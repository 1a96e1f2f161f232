//! The output of the commands, and the reason of a failure.

use std::io::Write;

/// The reason of a failure, in one sentence.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Prints the reason of a failure, or a warning, on standard error.
pub(super) fn fail(sentence: &str) {
    crate::log::say(&format!("holdfast: {sentence}"));
}

/// Prints the answer of a command on standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that closed the pipe has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}
