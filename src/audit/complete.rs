//! What a book consists of beside its events, and which of that is not there: a copy that was restored in part looks whole by its
//! chain, and has lost what guards it, or what decisions go by.
//!
//! Everybody who says whether a book is sound asks [`missing`]: `holdfast audit verify` and its route, a server that starts, and the
//! review. No decision depends on it: what is not there denies, so `/readyz` does not either.

use crate::db;
use crate::error::Result;
use sqlx::PgConnection;

/// When a trigger fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fires {
    /// Always: also where replication applies a change.
    Always,
    /// Where a change is made.
    AtOrigin,
}

impl Fires {
    /// Whether PostgreSQL says so: `O` is at the origin, `A` always, `R` and `D` are neither.
    fn is(self, enabled: &str) -> bool {
        enabled == "A" || enabled == "O" && self == Self::AtOrigin
    }

    const fn statement(self) -> &'static str {
        match self {
            Self::Always => "ENABLE ALWAYS TRIGGER",
            Self::AtOrigin => "ENABLE TRIGGER",
        }
    }
}

/// Tables whose rows are guarded, and themselves against being emptied.
const GUARDED: [&str; 7] =
    ["access_token", "audit_erasure", "audit_head", "control_event", "heimdall_event", "kpi_event", "risk_event"];
/// Triggers by which a change of what a reserve rests on moves the risk head.
const TURNS: [(&str, &str); 5] = [
    ("risk_halt", "turn"),
    ("risk_policy", "turn"),
    ("risk_policy", "turn_truncate"),
    ("risk_throttle", "turn"),
    ("risk_throttle", "turn_truncate"),
];

/// What of a book is not there, a sentence each, with the next step; empty where it is complete.
pub async fn missing(conn: &mut PgConnection) -> Result<Vec<String>> {
    let pending = db::pending_migrations(&mut *conn).await?;
    if pending > 0 {
        // What they bring cannot be there.
        return Ok(vec![format!(
            "{pending} migrations are not applied, as far as _sqlx_migrations tells: run holdfast migrate"
        )]);
    }
    let mut missing = triggers(&mut *conn).await?;
    missing.extend(rows(&mut *conn).await?);
    Ok(missing)
}

async fn triggers(conn: &mut PgConnection) -> Result<Vec<String>> {
    let guards = GUARDED.into_iter().flat_map(|table| [(table, "guard"), (table, "guard_truncate")]);
    let wanted = guards.map(|(table, name)| (table, name, Fires::Always));
    let wanted: Vec<_> = wanted.chain(TURNS.map(|(table, name)| (table, name, Fires::AtOrigin))).collect();
    let tables: Vec<_> = wanted.iter().map(|(table, ..)| (*table).to_owned()).collect();
    let names: Vec<_> = wanted.iter().map(|(_, name, _)| (*name).to_owned()).collect();
    let enabled = sqlx::query_scalar!(
        r#"SELECT (SELECT tgenabled::text FROM pg_trigger
                   WHERE tgrelid = to_regclass(wanted.relation) AND tgname = wanted.name AND NOT tgisinternal) AS enabled
           FROM UNNEST($1::text[], $2::text[]) WITH ORDINALITY AS wanted (relation, name, place)
           ORDER BY place"#,
        &tables,
        &names
    )
    .fetch_all(conn)
    .await?;
    let sentence = |((table, name, fires), enabled): ((&str, &str, Fires), Option<String>)| match enabled {
        None => Some(format!("the trigger {name} of {table} is gone: restore the schema with its triggers")),
        Some(enabled) if fires.is(&enabled) => None,
        Some(_) => {
            let statement = fires.statement();
            Some(format!("the trigger {name} of {table} is not armed: ALTER TABLE {table} {statement} {name}"))
        }
    };
    Ok(wanted.into_iter().zip(enabled).filter_map(sentence).collect())
}

/// Rows that migrations made and nothing takes away, the tokens that the trail tells of, and the place of keys.
async fn rows(conn: &mut PgConnection) -> Result<Vec<String>> {
    let absent = sqlx::query!(
        r#"SELECT relation AS "relation!", string_agg(name, ', ' ORDER BY name) AS "names!" FROM (
               SELECT 'audit_head', name FROM UNNEST(ARRAY['control', 'heimdall', 'kpi', 'risk']) AS name
               WHERE name NOT IN (SELECT stream FROM audit_head)
               UNION ALL
               SELECT 'go_live_state', 'its one row' WHERE NOT EXISTS (SELECT FROM go_live_state)
               UNION ALL
               SELECT 'setting', name FROM UNNEST(ARRAY['schema_minimum', 'two_person_release']) AS name
               WHERE name NOT IN (SELECT key FROM setting)
               UNION ALL
               SELECT 'pack', name FROM UNNEST(ARRAY['go_live', 'heimdall', 'regression', 'risk']) AS name
               WHERE name NOT IN (SELECT id FROM pack)
               UNION ALL
               SELECT 'risk_policy', name FROM UNNEST(ARRAY['CAPITAL', 'GLOBAL', 'NOTIFY', 'WHOLESALE']) AS name
               WHERE name NOT IN (SELECT engine FROM risk_policy)
               UNION ALL
               SELECT 'heimdall_policy', name
               FROM UNNEST(ARRAY['BUYER_MATCH', 'CAPITAL_ROUTE', 'FOLLOWUP_NEXT_ACTION', 'WHOLESALE_OFFER']) AS name
               WHERE name NOT IN (SELECT domain FROM heimdall_policy)
               UNION ALL
               SELECT 'regression_policy', name
               FROM UNNEST(ARRAY['BUYER_MATCH.match_success', 'CAPITAL.roi_event', 'WHOLESALE.contract_rate',
                                 'WHOLESALE.offer_accept_rate']) AS name
               WHERE name NOT IN (SELECT domain || '.' || metric FROM regression_policy)
               UNION ALL
               SELECT 'access_token', made.subject FROM control_event AS made
               WHERE made.action = 'TOKEN_CREATE' AND made.ok AND NOT EXISTS (SELECT FROM access_token WHERE id = made.subject)
               UNION ALL
               SELECT 'idempotency_key', 'the partition idempotency_key_other'
               WHERE NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('idempotency_key')
                                 AND inhrelid = to_regclass('idempotency_key_other'))
           ) AS absent (relation, name)
           GROUP BY relation ORDER BY relation"#
    )
    .fetch_all(conn)
    .await?;
    let sentence =
        |relation: &str, names: &str| format!("{relation} lacks {names}: restore it from where this copy came from");
    Ok(absent.iter().map(|row| sentence(&row.relation, &row.names)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_armed_only_where_it_always_fires() {
        for (enabled, guard, turn) in [("A", true, true), ("O", false, true), ("R", false, false), ("D", false, false)]
        {
            assert_eq!((Fires::Always.is(enabled), Fires::AtOrigin.is(enabled)), (guard, turn), "{enabled}");
        }
    }
}
