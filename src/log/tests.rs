use super::*;
use std::sync::mpsc;
use tracing_subscriber::Registry;
use tracing_subscriber::fmt::format::{Format, JsonFields};

/// The line of a log in this format, always for the same request.
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
            early = true,
            behind = -7_i64,
            share = 0.25,
            none = f64::NAN,
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
    assert_eq!(ours.as_object().unwrap().len(), 14);
    assert_eq!(ours["early"], true);
    assert_eq!((&ours["behind"], &ours["share"]), (&(-7).into(), &0.25.into()));
}

#[test]
fn lines_that_were_dropped_stay_counted_until_the_line_that_says_so_was_taken() {
    let lines = Arc::new(Lines::default());
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Target(Arc::clone(&lines))).finish();
    let said = |text: &[u8]| String::from_utf8(text.to_vec()).unwrap();
    tracing::subscriber::with_default(subscriber, || {
        lines.lock().bytes = vec![b'x'; GATHERED_MAX];
        for line in 1..=3 {
            tracing::warn!("line {line}");
        }
        assert_eq!(lines.lock().dropped, 3);
        // No thread writes the gathered lines here.
        lines.lock().bytes.clear();
        lines.tell_of_dropped(|note| {
            assert!(said(note).contains("dropped=3"), "{}", said(note));
            // Other lines fill the room again, and no thread takes them.
            lines.lock().bytes = vec![b'x'; GATHERED_MAX];
            1
        });
        assert_eq!(lines.lock().dropped, 3);
        tracing::warn!("line 4");
        lines.lock().bytes.clear();
        lines.tell_of_dropped(|note| {
            assert!(said(note).contains("dropped=4"), "{}", said(note));
            0
        });
        let left = lines.lock();
        assert_eq!((left.dropped, left.note.len()), (0, 0));
    });
}
