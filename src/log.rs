//! The log: lines on standard error, as text or as JSON.
//!
//! Nothing waits for the reader of the log. Lines are gathered, and a separate thread writes many with one system call.
//! While [`GATHERED_MAX`] is full because the reader is too slow (a pipe that is not read, a stopped terminal, a full
//! disk), further lines are dropped and counted. When the reader continues, a line gives their number. The line of each
//! request (target `holdfast::access`) is special:
//!
//! - It waits for others, for [`LINGER`], and leaves the last quarter of the room to rarer lines. Every other line
//!   wakes the thread at once. A crash or a `SIGKILL` can lose the lines of the last [`LINGER`]; an orderly end writes
//!   them ([`Log`]).
//! - Its JSON is written field by field ([`AccessJson`]): the same line as the general formatter's, in a third of the
//!   time.

mod statement;
#[cfg(test)]
mod tests;

use crate::config::{LogConfig, LogFormat};
use statement::{StatementJson, StatementText};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// The target of the line of each request.
const ACCESS: &str = "holdfast::access";
/// The target of the line about lines that were dropped.
const NOTE: &str = "holdfast::log";
/// The time that a request's line waits for others.
const LINGER: Duration = Duration::from_millis(5);
/// The most bytes that wait: the lines of a busy service in a third of a second.
const GATHERED_MAX: usize = 2 * 1024 * 1024;
/// The most bytes that may wait when a request's line is added.
const ACCESS_MAX: usize = GATHERED_MAX / 4 * 3;
/// The time that the end waits for the reader.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The log of this process, after its start.
static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

/// The log while the program runs. Dropping it writes the gathered lines, if the reader takes them in time.
pub(crate) struct Log(Arc<Lines>);

impl Drop for Log {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// Starts the log. An error is one sentence.
pub(crate) fn start(config: &LogConfig) -> Result<Log, String> {
    let filter = EnvFilter::builder()
        .parse(&config.rust_log)
        .map_err(|error| format!("RUST_LOG={} cannot be read: {error}", config.rust_log))?;
    let json = match config.log_format {
        Some(format) => format == LogFormat::Json,
        None => !io::stderr().is_terminal(),
    };
    let lines = Arc::<Lines>::default();
    let writing = Arc::clone(&lines);
    // The thread is not one of the runtime's, since the output may block for as long as its reader does not read.
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || writing.keep_writing())
        .map_err(|error| format!("cannot start the thread that writes the log: {error}"))?;
    // The log is set only now: without the thread, a sentence goes straight to standard error.
    let _ = LINES.set(Arc::clone(&lines));
    // A log whose reader is gone must not stop the service.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Target(Arc::clone(&lines)))
        .log_internal_errors(false);
    if json {
        builder.json().flatten_event(true).map_event_format(AccessJson).map_event_format(StatementJson).init();
    } else {
        builder.with_ansi(io::stderr().is_terminal()).map_event_format(StatementText).init();
    }
    std::panic::set_hook(Box::new(say_panic));
    Ok(Log(lines))
}

/// Writes a sentence to standard error, in order with the log.
pub(crate) fn say(sentence: &str) {
    let line = format!("{sentence}\n");
    match LINES.get() {
        Some(lines) => lines.add(line.as_bytes(), Priority::Rare),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Logs a panic. The standard library's hook would wait for the reader.
fn say_panic(info: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    tracing::error!(target: "holdfast::panic", thread = std::thread::current().name(), backtrace, "{info}");
}

fn drops() -> metrics::Counter {
    metrics::counter!("holdfast_log_lines_dropped_total")
}

/// Begins the counter at 0, since a counter that begins with its first event shows no increase at that event.
pub(crate) fn begin_counting() {
    drops().increment(0);
}

/// The priority of a line, which decides how much room it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    /// The line of a request.
    Access,
    /// Every other line.
    Rare,
    /// The line about dropped lines, which the writing thread writes itself.
    Note,
}

impl Priority {
    fn of(about: &Metadata<'_>) -> Self {
        match about.target() {
            ACCESS => Self::Access,
            NOTE => Self::Note,
            _ => Self::Rare,
        }
    }
}

/// Lines on their way to standard error.
#[derive(Default)]
struct Lines {
    gathered: Mutex<Gathered>,
    some: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    /// Whether a gathered line must be written at once.
    urgent: bool,
    /// Whether the thread is writing lines that it took from here.
    writing: bool,
    /// The dropped lines that no line has reported yet.
    dropped: u64,
    /// The line that reports them.
    note: Vec<u8>,
}

impl Lines {
    /// Locks the lines, which are whole even if a holder of the lock panicked.
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a line for the writing thread, or drops it.
    fn add(&self, line: &[u8], priority: Priority) {
        let mut gathered = self.lock();
        let room = match priority {
            Priority::Access => ACCESS_MAX,
            Priority::Rare => GATHERED_MAX,
            Priority::Note => return gathered.note.extend_from_slice(line),
        };
        if gathered.bytes.len() + line.len() > room {
            gathered.dropped += 1;
            drop(gathered);
            return drops().increment(1);
        }
        let wakes = gathered.bytes.is_empty() || priority == Priority::Rare;
        gathered.bytes.extend_from_slice(line);
        gathered.urgent |= priority == Priority::Rare;
        drop(gathered);
        if wakes {
            self.some.notify_one();
        }
    }

    fn keep_writing(&self) {
        loop {
            let mut gathered = self.lock();
            gathered.writing = false;
            self.written.notify_all();
            gathered =
                self.some.wait_while(gathered, |now| now.bytes.is_empty()).unwrap_or_else(PoisonError::into_inner);
            if !gathered.urgent {
                let waited = self.some.wait_timeout_while(gathered, LINGER, |now| !now.urgent);
                gathered = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            gathered.writing = true;
            gathered.urgent = false;
            let bytes = std::mem::take(&mut gathered.bytes);
            drop(gathered);
            if self.write(&bytes) {
                self.tell_of_dropped(write_all);
            }
        }
    }

    /// Writes the bytes, however long it takes. Returns whether all lines were written; the others count as dropped.
    fn write(&self, bytes: &[u8]) -> bool {
        let lost = write_all(bytes);
        if lost > 0 {
            self.lock().dropped += lost;
            drops().increment(lost);
        }
        lost == 0
    }

    /// Writes the line about dropped lines in the place of those lines. They count as unreported until it is written.
    /// `write` returns the number of lines that it could not write.
    fn tell_of_dropped(&self, write: impl Fn(&[u8]) -> u64) {
        let mut gathered = self.lock();
        if gathered.dropped == 0 {
            return;
        }
        let (bytes, dropped) = (std::mem::take(&mut gathered.bytes), std::mem::take(&mut gathered.dropped));
        drop(gathered);
        self.write(&bytes);
        tracing::warn!(target: NOTE, dropped, "log lines were dropped here, since the reader of the log was too slow");
        let note = std::mem::take(&mut self.lock().note);
        if write(&note) > 0 {
            self.lock().dropped += dropped;
        }
    }

    /// Waits until everything is written, up to a time limit.
    fn finish(&self) {
        let mut gathered = self.lock();
        gathered.urgent = true;
        self.some.notify_one();
        let done = self.written.wait_timeout_while(gathered, END_TIMEOUT, |now| now.writing || !now.bytes.is_empty());
        drop(done);
    }
}

/// Writes to standard error. Returns the number of lines that could not be written. The cause is not reported, since
/// the log itself failed.
fn write_all(mut bytes: &[u8]) -> u64 {
    while !bytes.is_empty() {
        match io::stderr().write(bytes) {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process that shares the output has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LINGER),
            _ => return bytes.iter().fold(0, |lines, byte| lines + u64::from(*byte == b'\n')),
        }
    }
    0
}

/// Gives each line its priority.
struct Target(Arc<Lines>);

impl<'a> MakeWriter<'a> for Target {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: &self.0, priority: Priority::Rare }
    }

    fn make_writer_for(&'a self, about: &Metadata<'_>) -> Line<'a> {
        Line { lines: &self.0, priority: Priority::of(about) }
    }
}

/// Writes one line, which comes in one piece.
struct Line<'a> {
    lines: &'a Lines,
    priority: Priority,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.add(line, self.priority);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Formats access lines as JSON. The inner format writes all others.
struct AccessJson<F>(F);

impl<S, N, F> FormatEvent<S, N> for AccessJson<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if event.metadata().target() != ACCESS {
            return self.0.format_event(context, to, event);
        }
        write_json(to, event, write_member)
    }
}

/// Writes an event as a JSON line, field by field.
fn write_json(
    mut to: Writer<'_>,
    event: &Event<'_>,
    mut member: impl FnMut(&mut Writer<'_>, &str, Value<'_>) -> fmt::Result,
) -> fmt::Result {
    let about = event.metadata();
    to.write_str("{\"timestamp\":\"")?;
    SystemTime.format_time(&mut to)?;
    write!(to, "\",\"level\":\"{}\"", about.level())?;
    each_field(event, |name, value| member(&mut to, name, value))?;
    writeln!(to, ",\"target\":\"{}\"}}", about.target())
}

/// Writes one member. The names of fields come from this program and need no escapes.
fn write_member(to: &mut Writer<'_>, name: &str, value: Value<'_>) -> fmt::Result {
    write!(to, ",\"{name}\":")?;
    match value {
        Value::Text(text) => write_string(to, text),
        Value::Plain(value) => to.write_fmt(value),
    }
}

/// The value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    /// A number or a boolean, in its JSON form.
    Plain(fmt::Arguments<'a>),
}

/// Calls `each` with the name and value of each field, until one fails.
fn each_field(event: &Event<'_>, each: impl FnMut(&'static str, Value<'_>) -> fmt::Result) -> fmt::Result {
    let mut fields = Fields { each, written: Ok(()) };
    event.record(&mut fields);
    fields.written
}

struct Fields<F> {
    each: F,
    written: fmt::Result,
}

impl<F: FnMut(&'static str, Value<'_>) -> fmt::Result> Fields<F> {
    fn take(&mut self, field: &Field, value: Value<'_>) {
        if self.written.is_ok() {
            self.written = (self.each)(field.name(), value);
        }
    }
}

impl<F: FnMut(&'static str, Value<'_>) -> fmt::Result> Visit for Fields<F> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, Value::Text(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, Value::Plain(format_args!("{value}")));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, Value::Plain(format_args!("{value}")));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, Value::Plain(format_args!("{value}")));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has neither infinities nor NaN, so they become null.
        self.take(field, Value::Plain(format_args!("{}", serde_json::Value::from(value))));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Writes a JSON string. Each character that must be escaped is one byte of UTF-8, so the text can be split around it.
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
