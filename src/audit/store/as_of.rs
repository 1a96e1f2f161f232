//! SQL of the settings in force at an instant.

use super::events::{first_at, head_seqs};
use crate::audit::Stream;
use crate::audit::actions::row_of;
use crate::audit::as_of::{self, AsOf, Told};
use crate::db;
use crate::error::{Error, Result};
use crate::types::ControlAction;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;

/// The settings in force at an instant; now, if none is given. The connection must be in a transaction that sees one
/// instant of the database.
///
/// Statements: the time, the heads, a search for the last event, the events.
pub(crate) async fn as_of(conn: &mut PgConnection, at: Option<DateTime<Utc>>) -> Result<AsOf> {
    let now = sqlx::query_scalar!(
        r#"SELECT GREATEST(holdfast_now(), at) AS "now!" FROM audit_head WHERE stream = 'control'"#
    )
    .fetch_one(&mut *conn)
    .await?;
    // A clock that went back since does not undo the installation.
    let installed = db::installed_at(&mut *conn).await?.min(now);
    let at = at.unwrap_or(now);
    if at > now {
        let detail = format!("is in the future: it is {} now", now.format("%Y-%m-%dT%H:%M:%S%.6fZ"));
        return Err(Error::invalid("at", detail));
    }
    let head = head_seqs(&mut *conn).await?[&Stream::Control];
    let seq = first_at(&mut *conn, Stream::Control, head, at + TimeDelta::microseconds(1)).await? - 1;
    let told = told(conn, seq).await?;
    as_of::as_of(at, seq, seq > 0 || at >= installed, &told)
}

/// The events up to this one that change settings, in order. Refused attempts are left out.
async fn told(conn: &mut PgConnection, seq: i64) -> Result<Vec<Told>> {
    let (last, each) = as_of::moving();
    let rows = sqlx::query!(
        r#"SELECT seq,
                  at,
                  action,
                  subject,
                  actor,
                  reason,
                  EXISTS (SELECT FROM audit_erasure AS erased
                          WHERE erased.stream = 'control' AND erased.seq = control_event.seq AND erased.field = 'reason')
                      AS "reason_erased!",
                  detail
           FROM control_event
           WHERE seq IN (SELECT max(seq)
                         FROM control_event
                         WHERE ok AND seq <= $1 AND action = ANY($2)
                         -- The switches have no subject, and one state.
                         GROUP BY CASE WHEN subject IS NULL THEN '' ELSE action END, subject
                         UNION ALL
                         SELECT seq FROM control_event WHERE ok AND seq <= $1 AND action = ANY($3))
           ORDER BY seq"#,
        seq,
        &last as &[&str],
        &each as &[&str]
    )
    .fetch_all(conn)
    .await?;
    let told = rows.into_iter().map(|row| {
        let moves = ControlAction::read(&row.action).and_then(|action| row_of(action).moves);
        Ok(Told {
            seq: row.seq,
            at: row.at,
            moves: moves.ok_or_else(|| Error::Inconsistent(format!("{} moves no setting", row.action)))?,
            subject: row.subject,
            actor: row.actor,
            reason: row.reason,
            reason_erased: row.reason_erased,
            detail: row.detail,
        })
    });
    told.collect()
}
