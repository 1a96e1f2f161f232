//! SQL of the history of a policy.

use crate::audit::actions::{Detail, row_of};
use crate::audit::policies::{PolicyKind, PolicyVersion, Values};
use crate::error::{Error, Result};
use crate::types::Portion;
use sqlx::PgConnection;

/// The changes of one policy, newest first. Refused attempts are left out.
/// An index leads to those of each action, by their negative numbers.
pub(crate) async fn policy_versions(
    conn: &mut PgConnection,
    kind: PolicyKind,
    subject: &str,
    portion: Portion,
) -> Result<Vec<PolicyVersion>> {
    let actions: Vec<String> = kind.actions().map(|action| action.as_str().to_owned()).collect();
    let rows = sqlx::query!(
        r#"SELECT change.seq        AS "seq!",
                  change.at         AS "at!",
                  change.action     AS "action!",
                  change.principal  AS "principal!",
                  change.actor      AS "actor?",
                  change.request_id AS "request_id?",
                  change.reason     AS "reason?",
                  change.detail     AS "detail?"
           FROM unnest($1::text[]) AS wanted (action)
           CROSS JOIN LATERAL (
               SELECT seq, at, action, principal, actor, request_id, reason, detail
               FROM control_event
               WHERE ok AND subject = $2 AND control_event.action = wanted.action AND -seq > -$3::bigint AND -seq <= -$4::bigint
               ORDER BY -seq
               LIMIT $5) AS change
           ORDER BY change.seq DESC
           LIMIT $5"#,
        &actions,
        subject,
        portion.before,
        portion.first,
        portion.limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let action = kind.actions().find(|action| action.as_str() == row.action);
            let form = action.map_or(Detail::Other, |action| row_of(action).detail);
            let values = row.detail.as_deref().map(|detail| Values::read(form, detail)).transpose();
            let unreadable = |error| Error::Inconsistent(format!("the detail of control event {}: {error}", row.seq));
            let values = values.map_err(unreadable)?;
            let erased = values.is_none();
            let Values { version, changes, policy } = values.unwrap_or_default();
            Ok(PolicyVersion {
                seq: row.seq,
                at: row.at,
                action: row.action,
                version,
                principal: row.principal,
                actor: row.actor,
                request_id: row.request_id,
                reason: row.reason,
                changes,
                policy,
                erased,
            })
        })
        .collect()
}
