//! The parts of a book beside its events, and which of them are missing. A copy that was restored in part has an intact
//! chain, and may still lack its guards or the rows that decisions use.
//!
//! All users ask [`missing`]: `holdfast audit verify` and its route, a starting server, and the review. `/readyz` does
//! not: if an installed row is missing, requests are denied, and a starting server logs the rest.

use super::actions::{Question, row_of};
use super::partitions;
use crate::db;
use crate::error::Result;
use crate::types::ControlAction;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fires {
    /// Always, also when replication applies a change.
    Always,
    /// Only where a change is made.
    AtOrigin,
}

impl Fires {
    /// True if PostgreSQL's `tgenabled` fits: `O` is at the origin, `A` always, `R` and `D` fit neither.
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

/// Tables whose rows are guarded, and that are guarded against truncation.
const GUARDED: [&str; 8] = [
    "access_token",
    "audit_archive",
    "audit_erasure",
    "audit_head",
    "control_event",
    "heimdall_event",
    "kpi_event",
    "risk_event",
];
/// Triggers that follow a change: `turn` moves the revision of the risk head when a fact of a reserve changes, and
/// `end_day` keeps the open risk at the end of each day.
const FOLLOWING: [(&str, &str); 6] = [
    ("risk_halt", "turn"),
    ("risk_policy", "turn"),
    ("risk_policy", "turn_truncate"),
    ("risk_throttle", "turn"),
    ("risk_throttle", "turn_truncate"),
    ("risk_open", "end_day"),
];

/// The missing parts of a book, one sentence each, with the next step; empty if the book is complete.
pub async fn missing(conn: &mut PgConnection) -> Result<Vec<String>> {
    let pending = db::pending_migrations(&mut *conn).await?;
    if pending > 0 {
        // The parts that these migrations create cannot exist yet.
        return Ok(vec![format!(
            "according to _sqlx_migrations, {pending} migrations are not applied: run holdfast migrate"
        )]);
    }
    let mut missing = triggers(&mut *conn).await?;
    missing.extend(installed(&mut *conn).await?);
    missing.extend(told(&mut *conn).await?);
    Ok(missing)
}

/// A trigger that a table needs.
struct Wanted {
    table: String,
    name: &'static str,
    fires: Fires,
    /// The table of which this one is a partition: where the table's own trigger is wrong, that is said of the table alone.
    parent: Option<&'static str>,
}

async fn triggers(conn: &mut PgConnection) -> Result<Vec<String>> {
    let mut guarded: Vec<(String, Option<&str>)> = GUARDED.map(|table| (table.to_owned(), None)).to_vec();
    for parent in partitions::ALL.iter().filter(|one| GUARDED.contains(&one.table)) {
        let found = partitions::list(&mut *conn, parent.table).await?;
        guarded.extend(found.into_iter().map(|partition| (partition.name, Some(parent.table))));
    }
    let guards = guarded.into_iter().flat_map(|(table, parent)| {
        ["guard", "guard_truncate"].map(|name| Wanted { table: table.clone(), name, fires: Fires::Always, parent })
    });
    let following =
        FOLLOWING.map(|(table, name)| Wanted { table: table.to_owned(), name, fires: Fires::AtOrigin, parent: None });
    let wanted: Vec<_> = guards.chain(following).collect();
    let tables: Vec<_> = wanted.iter().map(|one| one.table.clone()).collect();
    let names: Vec<_> = wanted.iter().map(|one| one.name.to_owned()).collect();
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
    let found = wanted.iter().zip(enabled);
    let wrong: Vec<_> = found.filter(|(one, enabled)| !enabled.as_deref().is_some_and(|is| one.fires.is(is))).collect();
    let is_said = |one: &Wanted| {
        wrong.iter().any(|(other, _)| Some(other.table.as_str()) == one.parent && other.name == one.name)
    };
    let unsaid = wrong.iter().filter(|(one, _)| !is_said(one));
    let sentence = |Wanted { table, name, fires, .. }: &Wanted, enabled: &Option<String>| {
        if enabled.is_none() {
            return format!("the trigger {name} of {table} is missing: restore the schema with its triggers");
        }
        let statement = fires.statement();
        format!("the trigger {name} of {table} is not armed: ALTER TABLE {table} {statement} {name}")
    };
    Ok(unsaid.map(|(one, enabled)| sentence(one, enabled)).collect())
}

/// The sentence about missing rows of a table.
fn lacks(relation: &str, names: &str) -> String {
    format!("{relation} lacks {names}: restore it from the source of this copy")
}

/// Rows that migrations created and nobody has removed, and the partition of keys.
async fn installed(conn: &mut PgConnection) -> Result<Vec<String>> {
    let absent = sqlx::query!(
        r#"WITH removed AS MATERIALIZED (
               SELECT action, subject FROM control_event
               WHERE ok AND subject IS NOT NULL
                 AND action IN ('HEIMDALL_POLICY_REMOVE', 'REGRESSION_POLICY_REMOVE', 'RISK_POLICY_REMOVE')
           )
           SELECT relation AS "relation!", string_agg(name, ', ' ORDER BY name) AS "names!" FROM (
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
               WHERE name NOT IN (SELECT engine FROM risk_policy UNION ALL SELECT subject FROM removed WHERE action = 'RISK_POLICY_REMOVE')
               UNION ALL
               SELECT 'heimdall_policy', name
               FROM UNNEST(ARRAY['BUYER_MATCH', 'CAPITAL_ROUTE', 'FOLLOWUP_NEXT_ACTION', 'WHOLESALE_OFFER']) AS name
               WHERE name NOT IN (SELECT domain FROM heimdall_policy
                                  UNION ALL SELECT subject FROM removed WHERE action = 'HEIMDALL_POLICY_REMOVE')
               UNION ALL
               SELECT 'regression_policy', name
               FROM UNNEST(ARRAY['BUYER_MATCH.match_success', 'CAPITAL.roi_event', 'WHOLESALE.contract_rate',
                                 'WHOLESALE.offer_accept_rate']) AS name
               WHERE name NOT IN (SELECT domain || '.' || metric FROM regression_policy
                                  UNION ALL SELECT subject FROM removed WHERE action = 'REGRESSION_POLICY_REMOVE')
               UNION ALL
               SELECT 'idempotency_key', 'the partition idempotency_key_other'
               WHERE NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = to_regclass('idempotency_key')
                                 AND inhrelid = to_regclass('idempotency_key_other'))
           ) AS absent (relation, name)
           GROUP BY relation ORDER BY relation"#
    )
    .fetch_all(conn)
    .await?;
    Ok(absent.iter().map(|row| lacks(&row.relation, &row.names)).collect())
}

/// Most names of a table in a sentence; it counts the rest.
const NAMES_MAX: usize = 20;

struct Absent {
    relation: String,
    name: String,
}

/// Missing rows that the control stream says were created and not removed again: everything that decisions use, and
/// their outcomes.
async fn told(conn: &mut PgConnection) -> Result<Vec<String>> {
    let mut absent: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Absent { relation, name } in told_of_policies(&mut *conn).await?.into_iter().chain(told_of_wires(conn).await?) {
        absent.entry(relation).or_default().insert(name);
    }
    let sentence = |(relation, names): (&String, &BTreeSet<String>)| {
        let said = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(NAMES_MAX);
        lacks(relation, &if more > 0 { format!("{said} and {more} more") } else { said })
    };
    Ok(absent.iter().map(sentence).collect())
}

/// The actions whose events answer a question.
fn answering(question: Question) -> Vec<&'static str> {
    let answers = |action: &ControlAction| row_of(*action).answers.contains(&question);
    ControlAction::ALL.into_iter().filter(answers).map(ControlAction::as_str).collect()
}

/// The rows that do not come from a wire.
async fn told_of_policies(conn: &mut PgConnection) -> Result<Vec<Absent>> {
    let absent = sqlx::query_as!(
        Absent,
        r#"WITH event AS MATERIALIZED (
               SELECT seq, action, subject FROM control_event
               WHERE ok AND action = ANY($1)
           )
           SELECT relation AS "relation!", name AS "name!" FROM (
               SELECT 'access_token', subject FROM event
               WHERE action = 'TOKEN_CREATE' AND NOT EXISTS (SELECT FROM access_token WHERE id = subject)
               UNION
               SELECT 'approval', seq::text FROM event
               WHERE action = 'APPROVAL_REQUEST' AND NOT EXISTS (SELECT FROM approval WHERE id = seq)
               UNION
               SELECT 'audit_erasure', subject FROM event
               WHERE action = 'AUDIT_ERASE'
                 AND NOT EXISTS (SELECT FROM audit_erasure AS one WHERE one.stream || '/' || one.seq || '/' || one.field = subject)
               UNION
               SELECT 'heimdall_policy', subject FROM event
               WHERE action LIKE 'HEIMDALL%' AND NOT EXISTS (SELECT FROM heimdall_policy WHERE domain = subject)
               -- The last change of a policy says whether it is there.
               GROUP BY subject HAVING max(seq) > COALESCE(max(seq) FILTER (WHERE action = 'HEIMDALL_POLICY_REMOVE'), 0)
               UNION
               SELECT 'pack', subject FROM event WHERE action = 'PACK_REPORT' AND NOT EXISTS (SELECT FROM pack WHERE id = subject)
               UNION
               SELECT 'risk_clock', 'its one row' FROM event WHERE action = 'CLOCK_ACCEPT' AND NOT EXISTS (SELECT FROM risk_clock)
               UNION
               -- The last of the two says whether reserves are halted.
               SELECT 'risk_halt', 'its one row' FROM event
               WHERE action IN ('RISK_HALT', 'RISK_REPAIR') AND NOT EXISTS (SELECT FROM risk_halt)
               HAVING max(seq) FILTER (WHERE action = 'RISK_HALT') > COALESCE(max(seq) FILTER (WHERE action = 'RISK_REPAIR'), 0)
               UNION
               SELECT 'risk_policy', subject FROM event
               WHERE action LIKE 'RISK\_POLICY%' AND NOT EXISTS (SELECT FROM risk_policy WHERE engine = subject)
               GROUP BY subject HAVING max(seq) > COALESCE(max(seq) FILTER (WHERE action = 'RISK_POLICY_REMOVE'), 0)
               UNION
               SELECT 'setting', subject FROM event
               WHERE action = 'SETTING_CHANGE' AND NOT EXISTS (SELECT FROM setting WHERE key = subject)
           ) AS absent (relation, name)
           ORDER BY relation, name"#,
        &answering(Question::Policies) as &[&str]
    )
    .fetch_all(conn)
    .await?;
    Ok(absent)
}

/// The rows of wires, with the throttles of their trips: each is active until the wire is re-armed or somebody
/// overrides it. The trip's detail names the throttled engine, or the trip's row, if the detail was erased.
async fn told_of_wires(conn: &mut PgConnection) -> Result<Vec<Absent>> {
    let absent = sqlx::query_as!(
        Absent,
        r#"WITH event AS MATERIALIZED (
               -- Only the details that are looked at below, and of engines only the changes that lifted a throttle, or whose detail was
               -- erased: of the others there may be any number.
               SELECT seq, action, subject,
                      CASE WHEN action IN ('REGRESSION_BASELINE_RESET', 'REGRESSION_TRIP') THEN detail END AS detail
               FROM control_event
               WHERE ok AND subject IS NOT NULL
                 AND action = ANY($1)
                 AND (action <> 'RISK_POLICY_UPSERT' OR COALESCE(detail LIKE '%"field":"throttled_by"%', true))
           ), throttle AS (
               SELECT trip.seq, trip.subject,
                      COALESCE(substring(trip.detail FROM '"engine":"([A-Z0-9_.-]+)"(?:,"shadow":false)?\}$'), known.engine) AS engine
               FROM event AS trip LEFT JOIN regression_trip AS known ON known.id = trip.seq
               WHERE trip.action = 'REGRESSION_TRIP'
           ), ended AS (
               SELECT action, subject, max(seq) AS seq FROM event
               WHERE action IN ('REGRESSION_POLICY_REMOVE', 'REGRESSION_REARM', 'RISK_POLICY_REMOVE', 'RISK_POLICY_UPSERT')
               GROUP BY action, subject
           )
           SELECT relation AS "relation!", name AS "name!" FROM (
               SELECT 'regression_baseline', subject || ' version ' || version
               FROM (SELECT subject, substring(detail FROM '^\{"version":([0-9]+),') AS version FROM event
                     WHERE action = 'REGRESSION_BASELINE_RESET') AS reset
               WHERE version IS NOT NULL
                 AND NOT EXISTS (SELECT FROM regression_baseline AS one
                                 WHERE one.domain || '.' || one.metric = subject AND one.version::text = reset.version)
               UNION
               SELECT 'regression_kind', subject FROM event
               WHERE action = 'REGRESSION_KIND' AND NOT EXISTS (SELECT FROM regression_kind WHERE domain || '.' || metric = subject)
                 AND NOT EXISTS (SELECT FROM ended AS removed
                                 WHERE removed.action = 'REGRESSION_POLICY_REMOVE' AND removed.subject = event.subject AND removed.seq > event.seq)
               UNION
               SELECT 'regression_policy', subject FROM event
               WHERE action = 'REGRESSION_POLICY_UPSERT'
                 AND NOT EXISTS (SELECT FROM regression_policy WHERE domain || '.' || metric = subject)
                 AND NOT EXISTS (SELECT FROM ended AS removed
                                 WHERE removed.action = 'REGRESSION_POLICY_REMOVE' AND removed.subject = event.subject AND removed.seq > event.seq)
               UNION
               SELECT 'regression_state', subject FROM event
               WHERE action IN ('REGRESSION_TRIP', 'REGRESSION_SHADOW_TRIP', 'REGRESSION_BASELINE_RESET')
                 AND NOT EXISTS (SELECT FROM regression_state WHERE domain || '.' || metric = subject)
                 AND NOT EXISTS (SELECT FROM ended AS removed
                                 WHERE removed.action = 'REGRESSION_POLICY_REMOVE' AND removed.subject = event.subject AND removed.seq > event.seq)
               UNION
               SELECT 'regression_trip', seq::text FROM event
               WHERE action IN ('REGRESSION_TRIP', 'REGRESSION_SHADOW_TRIP') AND NOT EXISTS (SELECT FROM regression_trip WHERE id = seq)
               UNION
               SELECT 'risk_policy', engine FROM throttle
               WHERE engine IS NOT NULL AND NOT EXISTS (SELECT FROM risk_policy AS one WHERE one.engine = throttle.engine)
                 AND NOT EXISTS (SELECT FROM ended AS removed
                                 WHERE removed.action = 'RISK_POLICY_REMOVE' AND removed.subject = engine AND removed.seq > throttle.seq)
               UNION
               SELECT 'risk_throttle', throttle.engine || ' (trip ' || throttle.seq || ')'
               FROM throttle
               LEFT JOIN ended AS rearmed ON rearmed.action = 'REGRESSION_REARM' AND rearmed.subject = throttle.subject
               LEFT JOIN ended AS overridden ON overridden.action = 'RISK_POLICY_UPSERT' AND overridden.subject = throttle.engine
               WHERE throttle.engine IS NOT NULL AND throttle.seq > GREATEST(rearmed.seq, overridden.seq, 0)
                 AND NOT EXISTS (SELECT FROM risk_throttle AS one WHERE one.engine = throttle.engine AND one.trip_id = throttle.seq)
           ) AS absent (relation, name)
           ORDER BY relation, name"#,
        &answering(Question::Wires) as &[&str]
    )
    .fetch_all(conn)
    .await?;
    Ok(absent)
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
