//! The caps of policies by their version, for the events that they decided.

use super::columns::{amount, count};
use crate::error::Result;
use crate::risk::model::stored::Caps;
use crate::types::Engine;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The caps that decided events, by the event's number: of a policy and a version, the last ones before the event. A
/// policy that was removed and set up anew begins with version 1 again. Events whose caps are not kept are left out.
pub(super) async fn caps_of(
    conn: &mut PgConnection,
    policies: &BTreeMap<i64, (Engine, i64)>,
) -> Result<BTreeMap<i64, Caps>> {
    if policies.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = sqlx::query!(
        r#"SELECT asked.seq AS "seq!",
                  kept.max_daily_loss AS "max_daily_loss!",
                  kept.max_daily_exposure AS "max_daily_exposure!",
                  kept.max_open_risk AS "max_open_risk!",
                  kept.max_actions_per_day AS "max_actions_per_day!"
           FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS asked (seq, engine, version)
           CROSS JOIN LATERAL (
               SELECT *
               FROM risk_policy_version
               WHERE engine = asked.engine AND version = asked.version AND since <= asked.seq
               ORDER BY since DESC
               LIMIT 1) AS kept"#,
        &policies.keys().copied().collect::<Vec<_>>(),
        &policies.values().map(|(engine, _)| engine.to_string()).collect::<Vec<_>>(),
        &policies.values().map(|(_, version)| *version).collect::<Vec<_>>()
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let caps = Caps {
                max_daily_loss: amount(row.max_daily_loss)?,
                max_daily_exposure: amount(row.max_daily_exposure)?,
                max_open_risk: amount(row.max_open_risk)?,
                max_actions_per_day: count(row.max_actions_per_day)?,
            };
            Ok((row.seq, caps))
        })
        .collect()
}

/// Whether the caps of every policy are kept under its version, so that an event may leave them out.
pub async fn policies_are_kept(conn: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (
               SELECT FROM risk_policy AS policy
               LEFT JOIN LATERAL (
                   SELECT *
                   FROM risk_policy_version
                   WHERE engine = policy.engine AND version = policy.version
                   ORDER BY since DESC
                   LIMIT 1) AS kept ON true
               WHERE (kept.max_daily_loss, kept.max_daily_exposure, kept.max_open_risk, kept.max_actions_per_day)
                     IS DISTINCT FROM
                     (policy.max_daily_loss, policy.max_daily_exposure, policy.max_open_risk, policy.max_actions_per_day)
           ) AS "kept!""#
    )
    .fetch_one(conn)
    .await?)
}
