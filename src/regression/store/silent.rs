//! The SQL of the series that have gone silent.

use super::broken;
use crate::error::{Error, Result};
use crate::regression::model::{Between, EngineMove, OnStale, Throttle, engine_off, outside, switched_off};
use crate::types::{Domain, Engine, Metric};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;

/// A watched series that has been silent for longer than its wire allows.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Silent {
    /// Its domain.
    pub domain: Domain,
    /// Its metric.
    pub metric: Metric,
    /// The silence in seconds: since its last event, or since the wire was enabled or re-armed, if that was later. Only
    /// time in which production, GLOBAL and the wire's engine were on counts.
    pub silent_seconds: i64,
    /// The longest silence that the wire allows, seconds.
    pub stale_after_seconds: i64,
    /// The effect of that silence.
    pub on_stale: OnStale,
    /// Whether a trip already stands.
    pub is_latched: bool,
}

/// A series that has been silent for longer than its wire allows, by the clock alone.
struct Candidate {
    wire: Silent,
    engine: Option<Engine>,
    since: DateTime<Utc>,
}

/// The silent series of enabled wires that do not ignore silence, at this time: a head's, or the believed one without a
/// head.
pub async fn silent(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<Silent>> {
    let candidates = candidates(&mut *conn, now).await?;
    let Some(since) = candidates.iter().map(|candidate| candidate.since).min() else {
        return Ok(Vec::new());
    };
    let switches = switched_off(&crate::go_live::store::stretches(&mut *conn, since).await?);
    let named = candidates.iter().filter_map(|candidate| candidate.engine.clone()).chain([Engine::global()]);
    let engines = engines_off(conn, since, &named.collect()).await?;
    let silent = candidates.into_iter().filter_map(|candidate| {
        let Candidate { mut wire, engine, since } = candidate;
        let mut off = switches.clone();
        for level in engine.iter().chain([&Engine::global()]) {
            off.extend(engines.get(level).into_iter().flatten());
        }
        wire.silent_seconds = outside(&off, since, now).num_seconds();
        (wire.silent_seconds >= wire.stale_after_seconds).then_some(wire)
    });
    Ok(silent.collect())
}

async fn candidates(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<Candidate>> {
    let rows = sqlx::query!(
        r#"SELECT policy.domain,
                  policy.metric,
                  policy.engine,
                  policy.on_stale,
                  policy.stale_after_seconds AS "stale_after_seconds!",
                  since.at AS "since!",
                  standing.id IS NOT NULL AS "is_latched!"
           FROM regression_policy AS policy
           LEFT JOIN LATERAL (
               SELECT event.at
               FROM kpi_event AS event
               WHERE event.domain = policy.domain AND event.metric = policy.metric
               ORDER BY event.series_seq DESC
               LIMIT 1) AS last ON true
           LEFT JOIN LATERAL (
               SELECT trip.rearmed_at
               FROM regression_trip AS trip
               WHERE trip.domain = policy.domain AND trip.metric = policy.metric
               ORDER BY trip.id DESC
               LIMIT 1) AS ended ON true
           LEFT JOIN regression_trip AS standing
                  ON standing.domain = policy.domain AND standing.metric = policy.metric AND standing.rearmed_at IS NULL
           CROSS JOIN LATERAL (SELECT greatest(policy.enabled_at, last.at, ended.rearmed_at) AS at) AS since
           WHERE policy.enabled
             AND policy.on_stale <> 'IGNORE'
             AND policy.stale_after_seconds IS NOT NULL
             AND since.at + make_interval(secs => policy.stale_after_seconds) <= $1
           ORDER BY 1, 2"#,
        now
    )
    .fetch_all(conn)
    .await?;
    let read = rows.into_iter().map(|row| {
        let wire = Silent {
            domain: row.domain.parse().map_err(|_| broken("domain", &row.domain))?,
            metric: row.metric.parse().map_err(|_| broken("metric", &row.metric))?,
            silent_seconds: 0,
            stale_after_seconds: row.stale_after_seconds,
            on_stale: OnStale::of(&row.on_stale).ok_or_else(|| broken("meaning of silence", &row.on_stale))?,
            is_latched: row.is_latched,
        };
        // A wire without its own engine has the engine with its domain's name.
        let engine = row.engine.unwrap_or(row.domain).parse().ok();
        Ok::<_, Error>(Candidate { wire, engine, since: row.since })
    });
    // An unreadable wire hides no other.
    Ok(read
        .filter_map(|one| one.inspect_err(|error| tracing::error!(%error, "a wire's row cannot be read")).ok())
        .collect())
}

/// The changed fields of a risk policy, as its event holds them.
#[derive(Deserialize)]
struct Changed {
    changes: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    field: String,
    from: serde_json::Value,
}

/// The spans since a time in which these engines were off. An engine without a policy counts as on, since measurements
/// need not belong to an engine of the ledger.
async fn engines_off(
    conn: &mut PgConnection,
    since: DateTime<Utc>,
    engines: &BTreeSet<Engine>,
) -> Result<BTreeMap<Engine, Vec<Between>>> {
    let names: Vec<String> = engines.iter().map(ToString::to_string).collect();
    let mut throttles: BTreeMap<String, Vec<Throttle>> = BTreeMap::new();
    let rows = sqlx::query!(
        r#"SELECT id, engine AS "engine!", tripped_at, rearmed_at
           FROM regression_trip
           WHERE engine = ANY($1) AND NOT shadow AND (rearmed_at IS NULL OR rearmed_at > $2)"#,
        &names,
        since
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut from = since;
    for row in rows {
        from = from.min(row.tripped_at);
        let throttle = Throttle { trip_id: row.id, from: row.tripped_at, rearmed_at: row.rearmed_at };
        throttles.entry(row.engine).or_default().push(throttle);
    }
    let mut moves = moves(&mut *conn, from, &names).await?;
    // An engine whose policy only a throttle has created is off, although no one has set it.
    let rows = sqlx::query!(
        r#"SELECT engine,
                  enabled
                  OR (max_daily_loss = 0 AND max_daily_exposure = 0 AND max_open_risk = 0 AND max_actions_per_day = 0
                      AND NOT EXISTS (SELECT FROM control_event
                                      WHERE action = 'RISK_POLICY_UPSERT' AND ok AND subject = engine
                                        AND seq > COALESCE((SELECT max(seq) FROM control_event
                                                            WHERE action = 'RISK_POLICY_REMOVE' AND ok AND subject = engine), 0))) AS "enabled!"
           FROM risk_policy
           WHERE engine = ANY($1)"#,
        &names
    )
    .fetch_all(conn)
    .await?;
    let enabled: BTreeMap<String, bool> = rows.into_iter().map(|row| (row.engine, row.enabled)).collect();
    let off = engines.iter().map(|engine| {
        let name = engine.as_str();
        let moves = moves.remove(name).unwrap_or_default();
        let throttles = throttles.remove(name).unwrap_or_default();
        (engine.clone(), engine_off(enabled.get(name).copied().unwrap_or(true), &moves, &throttles))
    });
    Ok(off.collect())
}

/// The changes since a time that enabled or disabled these engines, oldest first; other changes are not read, since
/// there may be any number of them. Changes whose detail was erased are unknown. A removed policy was off, if it was
/// ever set; without it the engine counts as on.
async fn moves(
    conn: &mut PgConnection,
    since: DateTime<Utc>,
    engines: &[String],
) -> Result<BTreeMap<String, Vec<EngineMove>>> {
    let rows = sqlx::query!(
        r#"SELECT at AS "at!", subject AS "subject!", detail AS "detail!"
           FROM (SELECT seq, at, subject, detail
                 FROM control_event
                 WHERE action = 'RISK_POLICY_UPSERT' AND ok AND at > $1 AND subject = ANY($2)
                   AND (detail LIKE '%"field":"enabled"%' OR detail LIKE '%"field":"throttled_by"%')
                 UNION ALL
                 SELECT seq, at, subject, '{"changes":[{"field":"enabled","from":false}]}'
                 FROM control_event AS removed
                 WHERE action = 'RISK_POLICY_REMOVE' AND ok AND at > $1 AND subject = ANY($2)
                   AND (SELECT said.action
                        FROM control_event AS said
                        WHERE said.action IN ('RISK_POLICY_REMOVE', 'RISK_POLICY_UPSERT') AND said.ok
                          AND said.subject = removed.subject AND said.seq < removed.seq
                        ORDER BY said.seq DESC
                        LIMIT 1) = 'RISK_POLICY_UPSERT') AS moved
           ORDER BY seq"#,
        since,
        engines
    )
    .fetch_all(conn)
    .await?;
    let mut moves: BTreeMap<String, Vec<EngineMove>> = BTreeMap::new();
    for row in rows {
        let Changed { changes } =
            serde_json::from_str(&row.detail).map_err(|_| broken("change of a policy", &row.detail))?;
        let from = |name: &str| changes.iter().find(|change| change.field == name).map(|change| &change.from);
        // An engine without an earlier policy counts as on.
        let was_enabled = from("enabled").map(|from| from.as_bool().unwrap_or(true));
        let lifted = from("throttled_by").and_then(serde_json::Value::as_array);
        let lifted = lifted.into_iter().flatten().filter_map(serde_json::Value::as_i64).collect();
        moves.entry(row.subject).or_default().push(EngineMove { at: row.at, was_enabled, lifted });
    }
    Ok(moves)
}
