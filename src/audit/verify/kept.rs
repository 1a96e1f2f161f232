//! Verification of the events that the database has, where others are in files: range by range, joined by the hashes of the
//! archived ones.

use super::{Asked, Finding, Point, Stream, Tampering, Verified, verify_in_parallel};
use crate::db::archived::{self, Segment};
use crate::error::Result;
use crate::types::hex;
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Transaction};

/// The result of [`super::verify`] for what the database has of a stream. Archived events count neither as verified nor as
/// missing; a known event among them is compared only if it is the last of a file.
pub async fn verify_kept(
    conn: &mut PgConnection,
    others: &mut Vec<Transaction<'static, Postgres>>,
    stream: Stream,
    asked: Asked,
) -> Result<Verified> {
    let gone = archived::absent(&mut *conn, stream).await?;
    let gone = gone.iter().filter(|one| one.last.seq > asked.from.seq && asked.to.is_none_or(|to| one.first() <= to));
    let (mut from, mut events) = (asked.from, 0);
    for segment in gone {
        // A start inside of a segment is trusted, and only the file could tell.
        if segment.before.seq >= from.seq {
            let part = within(asked, from, Some(segment.before.seq));
            let verified = if segment.before.seq > from.seq {
                verify_in_parallel(&mut *conn, others, stream, part).await?
            } else {
                Verified { events: 0, end: from, finding: None }
            };
            let finding = verified.finding.clone().or_else(|| join(stream, verified.end, segment));
            if finding.is_some() {
                return Ok(Verified { events: events + verified.events, finding, ..verified });
            }
            events += verified.events;
        }
        if let Some(finding) = unproven(&mut *conn, segment).await? {
            return Ok(Verified { events, end: from, finding: Some(finding) });
        }
        if let Some(known) = asked.known.filter(|known| known.seq == segment.last.seq && *known != segment.last) {
            let finding = rewritten(stream, known.seq, "its hash differs from the one that is known from outside");
            return Ok(Verified { events, end: from, finding: Some(finding) });
        }
        from = segment.last;
    }
    let rest = verify_in_parallel(conn, others, stream, within(asked, from, asked.to)).await?;
    Ok(Verified { events: events + rest.events, ..rest })
}

/// The part of a verification after an event and up to another.
fn within(asked: Asked, from: Point, to: Option<i64>) -> Asked {
    let is_here = |known: &Point| known.seq > from.seq && to.is_none_or(|to| asked.to == Some(to) || known.seq <= to);
    Asked { from, to, known: asked.known.filter(is_here) }
}

/// The fault where a segment does not follow the event before it.
fn join(stream: Stream, end: Point, segment: &Segment) -> Option<Finding> {
    let detail = format!("the archived events from {} on follow an event with another hash", segment.first());
    (end != segment.before).then(|| rewritten(stream, end.seq.max(1), &detail))
}

/// The fault of a segment by what the database has of it: its events must be gone, and its row is worth what the chained
/// event of the archive says.
async fn unproven(conn: &mut PgConnection, segment: &Segment) -> Result<Option<Finding>> {
    let (stream, first, last) = (segment.stream, segment.first(), segment.last.seq);
    let row = format!("SELECT seq FROM {} WHERE seq BETWEEN $1 AND $2 ORDER BY seq LIMIT 1", stream.table());
    let row: Option<i64> =
        sqlx::query_scalar(AssertSqlSafe(row)).bind(first).bind(last).fetch_optional(&mut *conn).await?;
    if let Some(seq) = row {
        let detail = format!("a row is there, and events {first} to {last} are archived");
        return Ok(Some(Finding { stream, seq, kind: Tampering::Inserted, detail }));
    }
    let is_told = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM control_event
                          WHERE action = 'AUDIT_ARCHIVE' AND ok AND subject = $1
                            AND detail::jsonb ->> 'sha256' = $2 AND detail::jsonb ->> 'last_hash' = $3) AS "told!""#,
        format!("{}/{first}-{last}", stream.as_str()),
        segment.sha256,
        hex(&segment.last.hash)
    )
    .fetch_one(conn)
    .await?;
    if is_told {
        return Ok(None);
    }
    let detail = format!(
        "audit_archive says that events {first} to {last} are archived, and no event of the control stream does"
    );
    Ok(Some(Finding { stream, seq: first, kind: Tampering::Deleted, detail }))
}

fn rewritten(stream: Stream, seq: i64, detail: &str) -> Finding {
    Finding { stream, seq, kind: Tampering::Rewritten, detail: detail.to_owned() }
}
