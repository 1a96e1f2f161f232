//! SQL of erasure. The name of an event's column comes from [`crate::audit::layout`], so those statements cannot be
//! checked at compile time.

use crate::audit::Stream;
use crate::audit::erase::target::{Remains, Target};
use crate::error::{Error, Result};
use crate::types::ControlAction;
use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection};

/// The action of a control event; none in another stream.
pub(crate) async fn action(conn: &mut PgConnection, target: Target) -> Result<Option<ControlAction>> {
    if target.stream != Stream::Control {
        return Ok(None);
    }
    let action = sqlx::query_scalar!("SELECT action FROM control_event WHERE seq = $1", target.seq);
    Ok(action.fetch_optional(conn).await?.as_deref().and_then(ControlAction::read))
}

/// The digest of a text that was erased before.
pub(crate) async fn digest(conn: &mut PgConnection, target: Target) -> Result<Option<String>> {
    let found = sqlx::query_scalar!(
        "SELECT digest FROM audit_erasure WHERE stream = $1 AND seq = $2 AND field = $3",
        target.stream.as_str(),
        target.seq,
        target.field
    );
    Ok(found.fetch_optional(conn).await?)
}

/// The text; none if there is none, or no such event.
pub(crate) async fn text(conn: &mut PgConnection, target: Target) -> Result<Option<String>> {
    let sql = format!("SELECT {} FROM {} WHERE seq = $1", target.field, target.stream.table());
    let found: Option<Option<String>> =
        sqlx::query_scalar(AssertSqlSafe(sql)).bind(target.seq).fetch_optional(conn).await?;
    Ok(found.flatten())
}

/// Keeps a text's digest before the text is removed: the database allows no other order.
pub(crate) async fn keep_digest(
    conn: &mut PgConnection,
    target: Target,
    digest: &str,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO audit_erasure (stream, seq, field, digest, at) VALUES ($1, $2, $3, $4, $5)",
        target.stream.as_str(),
        target.seq,
        target.field,
        digest,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Sets the event's column to null.
pub(crate) async fn erase_text(conn: &mut PgConnection, target: Target) -> Result<()> {
    let sql = format!("UPDATE {} SET {} = NULL WHERE seq = $1", target.stream.table(), target.field);
    let erased = sqlx::query(AssertSqlSafe(sql)).bind(target.seq).execute(conn).await?;
    if erased.rows_affected() == 1 { Ok(()) } else { Err(Error::Inconsistent(format!("{} vanished", target.name()))) }
}

/// Erases a control event's reason in a lever's own columns and returns their names. The subject identifies a policy's
/// row; the event's own time identifies any other row.
pub(crate) async fn erase_lever_reasons(conn: &mut PgConnection, seq: i64, text: &str) -> Result<Vec<&'static str>> {
    let mut erased = Vec::new();
    for (column, sql) in [
        (
            "go_live_state.reason",
            "UPDATE go_live_state SET reason = NULL FROM control_event AS e WHERE e.seq = $1 AND updated_at = e.at AND go_live_state.reason = $2",
        ),
        (
            "go_live_state.go_live_reason",
            "UPDATE go_live_state SET go_live_reason = NULL FROM control_event AS e WHERE e.seq = $1 AND go_live_at = e.at AND go_live_reason = $2",
        ),
        (
            "go_live_state.kill_switch_reason",
            "UPDATE go_live_state SET kill_switch_reason = NULL FROM control_event AS e
             WHERE e.seq = $1 AND kill_switch_at = e.at AND kill_switch_reason = $2",
        ),
        (
            "risk_policy.reason",
            "UPDATE risk_policy SET reason = NULL FROM control_event AS e
             WHERE e.seq = $1 AND risk_policy.reason = $2
               AND ((e.action = 'RISK_POLICY_UPSERT' AND engine = e.subject) OR (e.action = 'REGRESSION_REARM' AND updated_at = e.at))",
        ),
        (
            "heimdall_policy.reason",
            "UPDATE heimdall_policy SET reason = NULL FROM control_event AS e
             WHERE e.seq = $1 AND heimdall_policy.reason = $2
               AND e.action IN ('HEIMDALL_POLICY_UPSERT', 'HEIMDALL_PROMOTE', 'HEIMDALL_DEMOTE') AND domain = e.subject",
        ),
        (
            "regression_policy.reason",
            "UPDATE regression_policy SET reason = NULL FROM control_event AS e
             WHERE e.seq = $1 AND regression_policy.reason = $2
               AND e.action = 'REGRESSION_POLICY_UPSERT' AND domain || '.' || metric = e.subject",
        ),
        (
            "regression_trip.rearm_reason",
            "UPDATE regression_trip SET rearm_reason = NULL FROM control_event AS e
             WHERE e.seq = $1 AND e.action = 'REGRESSION_REARM' AND rearmed_at = e.at AND rearm_reason = $2",
        ),
    ] {
        let done = sqlx::query(sql).bind(seq).bind(text).execute(&mut *conn).await?;
        if done.rows_affected() > 0 {
            erased.push(column);
        }
    }
    Ok(erased)
}

/// The remaining copies of a text: inside the JSON of other things, or in other reasons.
pub(crate) async fn copies(conn: &mut PgConnection, text: &str) -> Result<Vec<Remains>> {
    let quoted = crate::db::to_json(text);
    let inside = &quoted.get()[1..quoted.get().len() - 1];
    let rows = sqlx::query!(
        r#"SELECT place AS "place!",
                  name AS "name!"
           FROM (SELECT 'control_event.detail', seq::text, detail FROM control_event
                 UNION ALL SELECT 'control_event.reason', seq::text, reason FROM control_event
                 UNION ALL SELECT 'risk_event.reason', seq::text, reason FROM risk_event
                 UNION ALL SELECT 'risk_event.metadata', seq::text, metadata FROM risk_event
                 UNION ALL SELECT 'heimdall_event.reason', seq::text, reason FROM heimdall_event
                 UNION ALL SELECT 'heimdall_event.recommendation', seq::text, recommendation FROM heimdall_event
                 UNION ALL SELECT 'heimdall_event.evidence', seq::text, evidence FROM heimdall_event
                 UNION ALL SELECT 'kpi_event.detail', seq::text, detail FROM kpi_event
                 UNION ALL SELECT 'heimdall_recommendation.policy_snapshot', id::text, policy_snapshot
                           FROM heimdall_recommendation
                 UNION ALL SELECT 'idempotency_key.answer', route || ' of ' || day, answer FROM idempotency_key
                 UNION ALL SELECT 'approval.input', id::text, input FROM approval
                 UNION ALL SELECT 'approval.reason', id::text, reason FROM approval
                 UNION ALL SELECT 'risk_policy.reason', engine, reason FROM risk_policy
                 UNION ALL SELECT 'heimdall_policy.reason', domain, reason FROM heimdall_policy
                 UNION ALL SELECT 'regression_policy.reason', domain || '.' || metric, reason FROM regression_policy
                 UNION ALL SELECT 'regression_trip.rearm_reason', id::text, rearm_reason FROM regression_trip
                 UNION ALL SELECT 'go_live_state.reason', 'it', concat_ws(' ', reason, go_live_reason, kill_switch_reason)
                           FROM go_live_state) AS kept (place, name, words)
           WHERE strpos(words, $1) > 0 OR strpos(words, $2) > 0
           LIMIT 1000"#,
        text,
        inside
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| Remains { column: row.place, row: row.name }).collect())
}
