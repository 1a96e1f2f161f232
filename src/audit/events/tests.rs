//! The cursor: walks over streams that grow.

use super::*;
use chrono::DateTime;
use proptest::prelude::*;

#[test]
fn cursors_are_read_as_they_are_written_and_nothing_else_is() {
    for place in ["d.12.4.0.99", "a.0.0.0.999999999999999999"] {
        let text = sealed(LIST, place);
        assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        assert_eq!(place.parse::<Cursor>(), Err(ParseCursorError), "without its checksum");
    }
    for text in [
        "",
        "d",
        "d.1.2.3",
        "d.1.2.3.4.5",
        "x.1.2.3.4",
        "d.1.2.3.-4",
        "d.1.2.3.+4",
        "d.1.2.3.",
        "D.1.2.3.4",
        "d 1.2.3.4",
    ] {
        assert_eq!(sealed(LIST, text).parse::<Cursor>(), Err(ParseCursorError), "{text}");
    }
    assert!(sealed(LIST, "d.1.2.3.1000000000000000000").parse::<Cursor>().is_err());
}

#[test]
fn a_filter_leaves_out_the_streams_that_have_no_such_column() {
    let asked = |name: &'static str| {
        let filter = Filter { equal: vec![(name, "X".into())], ..Filter::default() };
        Stream::ALL.into_iter().filter(|stream| filter.of(*stream).is_some()).map(Stream::as_str).collect::<Vec<_>>()
    };
    assert_eq!(asked("actor"), ["control", "heimdall", "kpi", "risk"]);
    assert_eq!(asked("engine"), ["control", "risk"]);
    assert_eq!(asked("domain"), ["heimdall", "kpi"]);
    assert_eq!(asked("action"), ["control", "heimdall", "risk"]);
    assert_eq!(asked("reservation_id"), ["risk"]);
}

fn event(stream: Stream, seq: i64, at: i64) -> EventRecord {
    let at = DateTime::from_timestamp_micros(at).unwrap();
    EventRecord { stream, seq, at, columns: Vec::new(), hash: String::new(), erased: Vec::new() }
}

/// Streams in memory: the times of their events, and whether each is wanted.
type Streams = [Vec<(i64, bool)>; 4];

/// The store's page, on streams in memory.
fn page(streams: &Streams, cursor: Cursor, limit: usize, length: i64) -> Merged {
    let mut at = 0;
    let found = Stream::ALL.map(|stream| {
        let (rows, place) = (&streams[at], cursor.places[at]);
        at += 1;
        let head = i64::try_from(rows.len()).unwrap();
        let stretch = Stretch::new(cursor.order, place, (1, head), Some(length));
        let time = |seq: i64| rows[usize::try_from(seq - 1).unwrap()].0;
        let asked = |seq: &i64| rows[usize::try_from(*seq - 1).unwrap()].1;
        let mut seen: Vec<i64> = (stretch.low..=stretch.high).filter(asked).collect();
        if cursor.order == Order::Desc {
            seen.reverse();
        }
        let cut = seen.len() > limit;
        seen.truncate(limit + 1);
        let edge = if cursor.order == Order::Desc { stretch.low } else { stretch.high };
        let rest = match (cut, stretch.last) {
            (true, _) => Rest::Rows,
            (false, true) => Rest::Nothing,
            (false, false) => Rest::Unseen(DateTime::from_timestamp_micros(time(edge)).unwrap()),
        };
        let rows = seen.into_iter().map(|seq| event(stream, seq, time(seq))).collect();
        Some(Found { rows, reached: stretch.reached(cursor.order, place), rest })
    });
    merge(cursor, found, limit)
}

/// Appends events of any stream. The times of each stream rise; across streams they are arbitrary.
fn append(streams: &mut Streams, appended: &[(usize, i64, bool)]) {
    for (stream, later, asked) in appended {
        let last = streams[*stream].last().map_or(0, |last| last.0);
        streams[*stream].push((last + later, *asked));
    }
}

fn asked_for(streams: &Streams) -> Vec<(i64, &'static str, i64)> {
    let rows = Stream::ALL.into_iter().zip(streams).flat_map(|(stream, rows)| {
        (1..).zip(rows).filter(|(_, row)| row.1).map(move |(seq, row)| (row.0, stream.as_str(), seq))
    });
    rows.collect()
}

fn key(row: &EventRecord) -> (i64, &'static str, i64) {
    (row.at.timestamp_micros(), row.stream.as_str(), row.seq)
}

fn appends(count: usize) -> impl Strategy<Value = Vec<(usize, i64, bool)>> {
    proptest::collection::vec((0..4_usize, 1..5_i64, any::<bool>()), 0..count)
}

proptest! {
    #[test]
    fn newest_first_is_what_stood_at_the_first_page_in_order(
        before in appends(60), between in proptest::collection::vec(appends(6), 1..4), limit in 1..6_usize, length in 1..9_i64,
    ) {
        let mut streams = Streams::default();
        append(&mut streams, &before);
        let mut expected = asked_for(&streams);
        expected.sort_unstable_by(|a, b| b.cmp(a));
        let places = std::array::from_fn(|at| i64::try_from(streams[at].len()).unwrap() + 1);
        let (mut cursor, mut seen) = (Cursor { order: Order::Desc, places }, Vec::new());
        for turn in 0.. {
            prop_assert!(turn < 400, "the list does not end");
            let merged = page(&streams, cursor, limit, length);
            prop_assert!(merged.rows.len() <= limit);
            seen.extend(merged.rows.iter().map(key));
            cursor = merged.cursor.to_string().parse().unwrap();
            append(&mut streams, &between[turn % between.len()]);
            if !merged.more {
                break;
            }
        }
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn oldest_first_follows_what_is_appended_and_each_stream_is_in_order(
        before in appends(60), between in proptest::collection::vec(appends(6), 1..9), limit in 1..6_usize, length in 1..9_i64,
    ) {
        let mut streams = Streams::default();
        append(&mut streams, &before);
        let (mut cursor, mut seen) = (Cursor { order: Order::Asc, places: [0; 4] }, Vec::new());
        let mut appended = between.iter();
        for turn in 0.. {
            prop_assert!(turn < 400, "the list does not end");
            let merged = page(&streams, cursor, limit, length);
            prop_assert!(merged.rows.is_sorted_by_key(key));
            seen.extend(merged.rows.iter().map(key));
            cursor = merged.cursor;
            match appended.next() {
                Some(more) => append(&mut streams, more),
                None if merged.more => {}
                None => break,
            }
        }
        // The last event is on the last page.
        let last = page(&streams, cursor, 1_000, 1_000);
        seen.extend(last.rows.iter().map(key));
        for stream in Stream::ALL {
            let of = |rows: &[(i64, &'static str, i64)]| {
                rows.iter().filter(|row| row.1 == stream.as_str()).map(|row| row.2).collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&seen), of(&asked_for(&streams)));
        }
        prop_assert!(!page(&streams, last.cursor, 1, 1_000).more);
    }
}
