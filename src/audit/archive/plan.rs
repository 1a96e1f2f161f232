//! Which partitions may be archived, and what forbids it.

use super::{ArchiveError, DAYS_MIN, Result, file_name, refused, store};
use crate::audit::partitions::{self, Partition};
use crate::audit::verify::{Finding, Tampering, point};
use crate::audit::{Stream, head_seq};
use crate::db::Database;
use crate::db::archived::{self, Segment};
use crate::types::Point;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, Utc};
use sqlx::PgConnection;

/// The partitions that are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Selection {
    /// Those whose every event is before this day.
    pub before: NaiveDate,
    /// Restored ones, too.
    pub with_restored: bool,
}

/// A partition to archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The stream of its events.
    pub stream: Stream,
    /// Its table.
    pub table: String,
    /// The event before its first one.
    pub before: Point,
    /// The number of its last event.
    pub last: i64,
    /// The time of its last event.
    pub last_at: DateTime<Utc>,
    /// The segment that it was restored from; none if it was never archived.
    pub restored: Option<Segment>,
}

impl Part {
    /// The number of its first event.
    #[must_use]
    pub const fn first(&self) -> i64 {
        self.before.seq + 1
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        file_name(self.stream, self.first(), self.last)
    }
}

/// A partition that stays, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staying {
    /// The stream of its events.
    pub stream: Stream,
    /// Its first event.
    pub first: i64,
    /// The head of its stream.
    pub head: i64,
    /// The reason, after "events … to … stay: ".
    pub why: String,
}

/// The partitions to archive, oldest first, and the first one that stays.
#[derive(Debug, Default)]
pub struct Plan {
    /// The partitions to archive, oldest first.
    pub parts: Vec<Part>,
    /// The partitions that stay.
    pub staying: Vec<Staying>,
}

/// Finds the partitions of a selection that may be archived.
pub async fn plan(db: &Database, selection: Selection) -> Result<Plan> {
    let Selection { before, .. } = selection;
    let mut conn = db.connect_snapshot().await?;
    // A clock that jumped ahead would archive what is new.
    let today = db.history().now(&mut conn).await?.date_naive();
    let newest = today.checked_sub_days(Days::new(DAYS_MIN)).unwrap_or(NaiveDate::MIN);
    if before > today {
        return refused(format!("{before} is in the future: it is {today}; name {newest} or an earlier day"));
    }
    if before > newest {
        return refused(format!(
            "{before} is less than {DAYS_MIN} days ago, and keys point to events for seven days: name {newest} or an \
             earlier day"
        ));
    }
    let mut plan = Plan::default();
    for table in partitions::ALL.iter().filter(|one| one.table == one.stream.table()) {
        let found = partitions::list(&mut conn, table.table).await?;
        of_stream(&mut conn, table.stream, &found, (selection, today), &mut plan).await?;
    }
    Ok(plan)
}

async fn of_stream(
    conn: &mut PgConnection,
    stream: Stream,
    found: &[Partition],
    (Selection { before, with_restored }, today): (Selection, NaiveDate),
    plan: &mut Plan,
) -> Result<()> {
    let head = head_seq(&mut *conn, stream).await?;
    let name = stream.as_str();
    let beyond = store::last_row(&mut *conn, stream).await?;
    if beyond > head {
        return refused(format!(
            "{name} has event {beyond} beyond its head at {head}: the trail is damaged; run holdfast audit verify"
        ));
    }
    let segments = archived::all(&mut *conn).await?;
    for (place, partition) in found.iter().enumerate() {
        let (first, last) = (partition.from, partition.to - 1);
        let restored = segments.iter().find(|one| one.stream == stream && one.first() == first).cloned();
        if restored.is_some() && !with_restored {
            continue;
        }
        let mut stays = |why: String| plan.staying.push(Staying { stream, first, head, why });
        if head < last || place + 1 == found.len() {
            // An empty partition for later events says nothing to anybody.
            if first <= head {
                stays(format!("their partition has room for events up to {last}"));
            }
            return Ok(());
        }
        let last_at = store::at(&mut *conn, stream, last).await?.ok_or_else(|| {
            let detail = format!("event {last} is missing, and the head is beyond it");
            ArchiveError::Damaged(Box::new(Finding { stream, seq: last, kind: Tampering::Deleted, detail }))
        })?;
        if last_at >= before.and_time(NaiveTime::MIN).and_utc() {
            let shown = last_at.to_rfc3339_opts(SecondsFormat::Secs, true);
            stays(format!("their partition ends with event {last}, which is of {shown}"));
            return Ok(());
        }
        if let Some(seq) = store::keyed(&mut *conn, stream, (first, last), today).await? {
            return refused(format!(
                "an idempotency key that has not expired points to event {seq} of {name}: try again when it has, seven days \
                 after the request"
            ));
        }
        let before = if first == 1 { Point::BEGINNING } else { point(&mut *conn, stream, first - 1).await? };
        plan.parts.push(Part { stream, table: partition.name.clone(), before, last, last_at, restored });
    }
    Ok(())
}
