//! Shortens the driver's log lines about statements, such as slow ones: each shows only the beginning of its statement,
//! since a whole statement fills a page.

use super::{Value, each_field, write_json, write_member};
use std::fmt;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The target of these lines.
const STATEMENT: &str = "sqlx::query";
/// The field with the text of the statement.
const TEXT: &str = "db.statement";
/// Characters of the text that are shown.
const SHOWN_MAX: usize = 200;

/// Formats these lines as JSON. The inner format writes all others.
pub(super) struct StatementJson<F>(pub(super) F);

/// Formats these lines as text. The inner format writes all others.
pub(super) struct StatementText<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for StatementJson<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if event.metadata().target() != STATEMENT {
            return self.0.format_event(context, to, event);
        }
        write_json(to, event, |to, name, value| shortened(name, value, |value| write_member(to, name, value)))
    }
}

impl<S, N, F> FormatEvent<S, N> for StatementText<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let about = event.metadata();
        if about.target() != STATEMENT {
            return self.0.format_event(context, to, event);
        }
        SystemTime.format_time(&mut to)?;
        write!(to, " {:>5} {STATEMENT}:", about.level())?;
        each_field(event, |name, value| {
            shortened(name, value, |value| match value {
                Value::Text(text) if name == "message" => write!(to, " {text}"),
                Value::Text(text) => write!(to, " {name}={text:?}"),
                Value::Plain(value) => write!(to, " {name}={value}"),
            })
        })?;
        writeln!(to)
    }
}

/// Writes a field; of a statement, only the beginning.
fn shortened(name: &str, value: Value<'_>, write: impl FnOnce(Value<'_>) -> fmt::Result) -> fmt::Result {
    match value {
        // A statement that is its own summary has an empty text beside it.
        Value::Text("") => Ok(()),
        Value::Text(text) if name == TEXT => match beginning(text) {
            line if line.is_empty() => Ok(()),
            line => write(Value::Text(&line)),
        },
        value => write(value),
    }
}

/// The beginning of a statement on one line, and the length of the whole.
fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_MAX) {
        None => line,
        Some((end, _)) => format!("{}… ({} bytes)", &line[..end], text.trim().len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::format::{DefaultFields, Format, JsonFields};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A line of the driver about a slow statement that fills a page.
    fn slow() {
        let sql = format!("\n\nSELECT now.at,\n       {}\nFROM now\n", "a_column_of_many,\n       ".repeat(500));
        tracing::warn!(
            target: STATEMENT,
            summary = "SELECT now.at, …",
            db.statement = sql,
            rows_affected = 0_u64,
            elapsed_secs = 2.5,
            "slow statement: execution time exceeded alert threshold"
        );
        tracing::info!("another");
    }

    fn said<F>(format: F, is_json: bool) -> String
    where
        F: FormatEvent<tracing_subscriber::Registry, JsonFields>
            + FormatEvent<tracing_subscriber::Registry, DefaultFields>
            + Send
            + Sync
            + 'static,
    {
        let kept = Kept::default();
        let writer = kept.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        if is_json {
            let subscriber = builder.fmt_fields(JsonFields::new()).event_format(format).finish();
            tracing::subscriber::with_default(subscriber, slow);
        } else {
            tracing::subscriber::with_default(builder.event_format(format).finish(), slow);
        }
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_slow_statement_is_one_short_line_with_its_beginning_and_its_length() {
        let text = said(StatementText(Format::default().with_ansi(false)), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].len() < 600, "{}", lines[0]);
        for part in
            [" WARN sqlx::query: ", "SELECT now.at, a_column_of_many", "bytes)", "slow statement:", "elapsed_secs=2.5"]
        {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        let text = said(StatementJson(Format::default().json().flatten_event(true)), true);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(text.lines().next().unwrap().len() < 600, "{text}");
        assert_eq!((&line["elapsed_secs"], &line["rows_affected"]), (&2.5.into(), &0.into()));
        assert!(line["db.statement"].as_str().unwrap().starts_with("SELECT now.at, a_column_of_many"), "{line}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}
