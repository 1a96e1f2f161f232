//! The log: lines on standard error, for people or as JSON.
//!
//! Every request writes a line, so two things are done for those lines alone (target `holdfast::access`):
//!
//! - They are gathered for [`LINGER`] and written together, one system call for many. Everything else is written at once,
//!   after what was gathered, so that the lines keep their order and a warning never waits. What a crash or a `SIGKILL` can
//!   lose is the access lines of the last [`LINGER`]; an ordinary end writes them ([`Log`]). None is dropped while the
//!   process runs: beyond [`GATHERED_MAX`] whoever logs writes, and so waits for the reader as without any of this.
//! - Their JSON is written field by field ([`AccessJson`]), the same line as the general formatter's in a third of the time.

use crate::config::{LogConfig, LogFormat};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// The target of the lines that come with every request.
const ACCESS: &str = "holdfast::access";
/// How long such a line waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// Most bytes that wait.
const GATHERED_MAX: usize = 256 * 1024;

/// The log while the program runs: what is gathered when this is dropped is written.
pub(super) struct Log(Arc<Lines>);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.write(&[]);
    }
}

/// Starts the log; an error is one sentence.
pub(super) fn start(config: &LogConfig) -> Result<Log, String> {
    let filter = EnvFilter::builder()
        .parse(&config.rust_log)
        .map_err(|error| format!("RUST_LOG={} cannot be read: {error}", config.rust_log))?;
    let json = match config.log_format {
        Some(format) => format == LogFormat::Json,
        None => !io::stderr().is_terminal(),
    };
    let lines = Arc::new(Lines::default());
    let gathering = {
        let lines = Arc::clone(&lines);
        // Not of the runtime: what it writes to may block for as long as its reader likes.
        std::thread::Builder::new().name("log".into()).spawn(move || lines.keep_writing()).is_ok()
    };
    let target = Target { lines: Arc::clone(&lines), gathering };
    // A log that nobody reads any more must not take the service with it.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(target).log_internal_errors(false);
    if json {
        builder.json().flatten_event(true).map_event_format(AccessJson).init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).init();
    }
    Ok(Log(lines))
}

/// Lines on their way to standard error. Where both locks are taken, `out` is first.
#[derive(Default)]
struct Lines {
    gathered: Mutex<Vec<u8>>,
    some: Condvar,
    /// The right to write: whoever holds it writes what was gathered before anything of its own.
    out: Mutex<()>,
}

/// What these locks guard is whole whatever happened to their holder.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lines {
    /// Keeps a line for the writing thread.
    fn gather(&self, line: &[u8]) {
        let mut gathered = held(&self.gathered);
        if gathered.len() + line.len() > GATHERED_MAX {
            drop(gathered);
            return self.write(line);
        }
        let first = gathered.is_empty();
        gathered.extend_from_slice(line);
        drop(gathered);
        if first {
            self.some.notify_one();
        }
    }

    /// Writes what was gathered, and then this. Nobody is told of a failure: there is nowhere else to say it.
    fn write(&self, line: &[u8]) {
        let _out = held(&self.out);
        let mut bytes = std::mem::take(&mut *held(&self.gathered));
        bytes.extend_from_slice(line);
        let _ = io::stderr().write_all(&bytes);
    }

    fn keep_writing(&self) {
        loop {
            let gathered = held(&self.gathered);
            drop(self.some.wait_while(gathered, |gathered| gathered.is_empty()));
            std::thread::sleep(LINGER);
            self.write(&[]);
        }
    }
}

/// Gives each line its way.
struct Target {
    lines: Arc<Lines>,
    gathering: bool,
}

impl<'a> MakeWriter<'a> for Target {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: &self.lines, gathered: false }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        Line { lines: &self.lines, gathered: self.gathering && about.target() == ACCESS }
    }
}

/// The way of one line, which comes in one piece.
struct Line<'a> {
    lines: &'a Lines,
    gathered: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.gathered {
            self.lines.gather(line);
        } else {
            self.lines.write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The JSON of access lines; of everything else, as the inner format has it.
struct AccessJson<F>(F);

impl<S, N, F> FormatEvent<S, N> for AccessJson<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        if about.target() != ACCESS {
            return self.0.format_event(context, to, event);
        }
        to.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut to)?;
        write!(to, "\",\"level\":\"{}\"", about.level())?;
        let mut members = Members { to: &mut to, written: Ok(()) };
        event.record(&mut members);
        members.written?;
        writeln!(to, ",\"target\":\"{ACCESS}\"}}")
    }
}

/// Writes each field as a member.
struct Members<'a, 'b> {
    to: &'a mut Writer<'b>,
    written: fmt::Result,
}

impl Members<'_, '_> {
    /// Names of fields are ours and need no escapes.
    fn member(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if self.written.is_ok() {
            self.written = write!(self.to, ",\"{}\":", field.name()).and_then(|()| value(self.to));
        }
    }
}

impl Visit for Members<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, |to| write_string(to, value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, |to| write!(to, "{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A JSON string. What must be escaped is one byte of UTF-8 each, so the text can be cut around it.
fn write_string(to: &mut Writer<'_>, text: &str) -> fmt::Result {
    let mut rest = text;
    to.write_char('"')?;
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        to.write_str(&rest[..at])?;
        match rest.as_bytes()[at] {
            byte @ (b'"' | b'\\') => write!(to, "\\{}", char::from(byte))?,
            control => write!(to, "\\u{control:04x}")?,
        }
        rest = &rest[at + 1..];
    }
    to.write_str(rest)?;
    to.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tracing_subscriber::Registry;
    use tracing_subscriber::fmt::format::{Format, JsonFields};

    /// What a log in this format says of one and the same request.
    fn line(format: impl FormatEvent<Registry, JsonFields> + Send + Sync + 'static) -> serde_json::Value {
        struct Sent(mpsc::Sender<Vec<u8>>);
        impl Write for Sent {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                self.0.send(line.to_vec()).map_err(io::Error::other)?;
                Ok(line.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (sender, sent) = mpsc::channel();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(format)
            .with_writer(move || Sent(sender.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                target: ACCESS,
                method = "POST",
                path = "/a\"\\\n\u{1}é\u{2028}/b",
                route = "none",
                status = 404_u16,
                error = Some("ROUTE_NOT_FOUND"),
                elapsed_ms = 12_u64,
                request_id = None::<&str>,
                "request"
            );
        });
        let text = String::from_utf8(sent.recv().unwrap()).unwrap();
        assert!(text.ends_with("}\n"), "{text}");
        let mut line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let time = line["timestamp"].take();
        assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
        line
    }

    #[test]
    fn an_access_line_says_what_the_general_format_says() {
        let general = || Format::default().json().flatten_event(true);
        let ours = line(AccessJson(general()));
        assert_eq!(ours, line(general()));
        assert_eq!(ours["path"], "/a\"\\\n\u{1}é\u{2028}/b");
        assert_eq!(ours.as_object().unwrap().len(), 10);
    }
}
