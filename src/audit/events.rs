//! Events of all streams in one list, and the cursor through it.
//!
//! Within a stream, times rise with the sequence numbers; across streams they do not: an event with an earlier time may
//! be committed later. So a cursor is a place in each stream, never a time, and a page merges the events after each
//! place. It neither skips nor repeats events, whatever arrives.
//!
//! A page reads a bounded range of each stream. If a range ends before its stream does, the page holds back later
//! events of the other streams, so that the order holds. Such a page has fewer rows than asked for, and a `next_cursor`
//! all the same.

use super::Stream;
use super::layout::{Column, Kind};
use crate::db::archived::ArchivedEvents;
use crate::types::{ControlAction, ParseCursorError, sealed, unsealed};
use chrono::{DateTime, Utc};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{RefOr, schema::SchemaType};

/// The direction of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Newest first.
    #[default]
    Desc,
    /// Oldest first. The cursor then follows new events.
    Asc,
}

/// The name of the list that its cursors belong to.
const LIST: &str = "/audit/events";

/// A place in each stream, in the order of [`Stream::ALL`]: the next page is before it, or after it if the oldest come
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The direction of the list.
    pub order: Order,
    /// The sequence number in each stream.
    pub places: [i64; 4],
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.order == Order::Desc { "d" } else { "a" };
        let places = self.places.map(|place| place.to_string()).join(".");
        f.write_str(&sealed(LIST, &format!("{order}.{places}")))
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = unsealed(LIST, text)?.split('.');
        let order = match parts.next() {
            Some("d") => Order::Desc,
            Some("a") => Order::Asc,
            _ => return Err(ParseCursorError),
        };
        let place = |part: &str| {
            let digits = (1..=18).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits).ok_or(ParseCursorError)
        };
        let places = parts.map(place).collect::<Result<Vec<i64>, _>>()?;
        Ok(Self { order, places: places.try_into().map_err(|_| ParseCursorError)? })
    }
}

crate::types::scalar!(
    Cursor,
    "AuditCursor",
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^[da](\.[0-9]{1,18}){4}\.[0-9a-f]{8}$"))
        .description(Some("The end of the last page, from next_cursor. Opaque."))
);

/// The conditions of the wanted events; all of them must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only events of this stream; none for all streams.
    pub stream: Option<Stream>,
    /// Columns and their exact values.
    pub equal: Vec<(&'static str, String)>,
    /// The earliest time, inclusive.
    pub from: Option<DateTime<Utc>>,
    /// The latest time, exclusive.
    pub to: Option<DateTime<Utc>>,
}

impl Filter {
    /// The columns of a stream that must each hold one of these values; none if the stream lacks such a column, and so
    /// has no such event.
    #[must_use]
    pub fn of(&self, stream: Stream) -> Option<Vec<(Column, Vec<&str>)>> {
        if self.stream.is_some_and(|only| only != stream) {
            return None;
        }
        let mut wanted = Vec::new();
        let known = |name: &str| stream.columns().iter().find(|column| column.name == name).copied();
        for (name, value) in &self.equal {
            if let Some(column) = known(name) {
                wanted.push((column, vec![value.as_str()]));
            } else if (*name, stream) == ("engine", Stream::Control) {
                // The control stream names an engine as the subject of its policy's change.
                let changes = [ControlAction::RiskPolicyUpsert, ControlAction::RiskPolicyRemove]
                    .map(ControlAction::as_str)
                    .to_vec();
                wanted.extend([(known("action")?, changes), (known("subject")?, vec![value.as_str()])]);
            } else {
                return None;
            }
        }
        Some(wanted)
    }
}

/// An event as it is stored: every column of its stream, in order.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// The stream of the event.
    pub stream: Stream,
    /// The sequence number in that stream.
    pub seq: i64,
    /// The time of the event.
    pub at: DateTime<Utc>,
    /// The other columns with their values as JSON.
    pub columns: Vec<(&'static str, Option<Box<RawValue>>)>,
    /// The event's hash, lower-case hex.
    pub hash: String,
    /// Columns whose text was erased.
    pub erased: Vec<String>,
}

/// The JSON of a column's text. A text that does not fit its column is shown as a text, so that a row that was tampered
/// with can be inspected.
#[must_use]
pub fn json_of(stream: Stream, column: Column, text: &str) -> Box<RawValue> {
    let is_text = match column.kind {
        Kind::Text | Kind::Uuid | Kind::Day | Kind::Time => true,
        Kind::Free => column.name == "reason" || (stream, column.name) == (Stream::Kpi, "detail"),
        Kind::Integer | Kind::Boolean | Kind::Decimal => false,
    };
    let raw = if is_text { None } else { serde_json::from_str::<Box<RawValue>>(text).ok() };
    raw.unwrap_or_else(|| crate::db::to_json(text))
}

impl Serialize for EventRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("stream", &self.stream)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("at", &self.at)?;
        for (name, value) in &self.columns {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("hash", &self.hash)?;
        map.serialize_entry("erased", &self.erased)?;
        map.end()
    }
}

impl utoipa::PartialSchema for EventRecord {
    fn schema() -> RefOr<Schema> {
        let nullable = |kind: Type| SchemaType::Array(vec![kind, Type::Null]);
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let mut object = ObjectBuilder::new()
            .description(Some("An event as it is stored: the columns of its stream, and of no other."))
            .property("stream", Stream::schema());
        for column in Stream::ALL.into_iter().flat_map(Stream::columns) {
            let schema = match column.kind {
                Kind::Integer => ObjectBuilder::new().schema_type(nullable(Type::Integer)),
                Kind::Boolean => ObjectBuilder::new().schema_type(nullable(Type::Boolean)),
                Kind::Decimal => ObjectBuilder::new().schema_type(nullable(Type::Number)),
                Kind::Time => text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))),
                Kind::Text | Kind::Uuid | Kind::Day => ObjectBuilder::new().schema_type(nullable(Type::String)),
                Kind::Free if column.name == "reason" => ObjectBuilder::new().schema_type(nullable(Type::String)),
                Kind::Free => {
                    let said =
                        "JSON as it was written; a text in the stream kpi; null if there is none, or it was erased.";
                    ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(said))
                }
            };
            object = object.property(column.name, schema);
        }
        let erased = ArrayBuilder::new().items(text()).description(Some("Columns whose text was erased."));
        object = object.property("hash", text().description(Some("Lower-case hex."))).property("erased", erased);
        let all = ["stream", "seq", "at", "principal", "actor", "request_id", "correlation_id", "hash", "erased"];
        all.into_iter().fold(object, ObjectBuilder::required).into()
    }
}

impl ToSchema for EventRecord {
    fn name() -> Cow<'static, str> {
        "AuditEvent".into()
    }
}

/// The sequence numbers of a stream that a page reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first number.
    pub low: i64,
    /// The last number; less than the first if the range is empty.
    pub high: i64,
    /// True if no wanted event lies beyond the range.
    pub last: bool,
}

impl Stretch {
    /// The range that a page reads from this place on, within the wanted events; all of them if no length is given.
    #[must_use]
    pub fn new(order: Order, place: i64, (first, last): (i64, i64), length: Option<i64>) -> Self {
        let (low, high) = match order {
            Order::Desc => (first, last.min(place.saturating_sub(1))),
            Order::Asc => (first.max(place.saturating_add(1)), last),
        };
        match length.filter(|length| high - low >= *length) {
            None => Self { low, high, last: true },
            Some(length) if order == Order::Desc => Self { low: high - length + 1, high, last: false },
            Some(length) => Self { low, high: low + length - 1, last: false },
        }
    }

    /// The start of the next page once the whole range was seen.
    #[must_use]
    pub fn reached(&self, order: Order, place: i64) -> i64 {
        match order {
            Order::Desc => self.low.min(place),
            Order::Asc => self.high.max(place),
        }
    }
}

/// The wanted events in a range of one stream.
#[derive(Debug)]
pub struct Found {
    /// The events, in the order of the list.
    pub rows: VecDeque<EventRecord>,
    /// The start of the next page if all of them are taken.
    pub reached: i64,
    /// The rest of the stream.
    pub rest: Rest,
}

/// The rest of a stream after a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// No more wanted events.
    Nothing,
    /// More rows than fit on a page.
    Rows,
    /// Events that were not read, all of them beyond this time.
    Unseen(DateTime<Utc>),
}

/// A page of all streams.
#[derive(Debug)]
pub struct Merged {
    /// The rows, in the order of the list.
    pub rows: Vec<EventRecord>,
    /// The start of the next page in each stream.
    pub cursor: Cursor,
    /// True if there are more events.
    pub more: bool,
    /// The archived events in the asked time, which the list lacks.
    pub archived: Vec<ArchivedEvents>,
}

/// Merges ranges by time, then by the name of the stream. `found` is in the order of [`Stream::ALL`], with none for a
/// stream that is not asked for.
#[must_use]
pub fn merge(cursor: Cursor, mut found: [Option<Found>; 4], limit: usize) -> Merged {
    let Cursor { order, mut places } = cursor;
    let way = |ordering: Ordering| if order == Order::Desc { ordering.reverse() } else { ordering };
    let before = |a: &EventRecord, b: &EventRecord| way((a.at, a.stream.as_str()).cmp(&(b.at, b.stream.as_str())));
    // An event beyond this time must wait: an event that was not read may come before it.
    let unseen = found.iter().flatten().filter_map(|found| match found.rest {
        Rest::Unseen(at) => Some(at),
        Rest::Nothing | Rest::Rows => None,
    });
    let end = unseen.min_by(|a, b| way(a.cmp(b)));
    let mut rows = Vec::new();
    while rows.len() < limit {
        let heads = found.iter().enumerate().filter_map(|(at, found)| Some((at, found.as_ref()?.rows.front()?)));
        let Some((stream, next)) = heads.min_by(|(_, a), (_, b)| before(a, b)) else { break };
        if end.is_some_and(|end| way(next.at.cmp(&end)) == Ordering::Greater) {
            break;
        }
        places[stream] = next.seq;
        rows.extend(found[stream].as_mut().and_then(|found| found.rows.pop_front()));
    }
    let mut more = false;
    for (place, found) in places.iter_mut().zip(&found) {
        let Some(found) = found else { continue };
        if found.rows.is_empty() && found.rest != Rest::Rows {
            *place = found.reached;
        }
        more |= !found.rows.is_empty() || found.rest != Rest::Nothing;
    }
    Merged { rows, cursor: Cursor { order, places }, more, archived: Vec::new() }
}

#[cfg(test)]
mod tests;
