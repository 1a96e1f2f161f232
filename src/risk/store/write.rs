//! What a decision writes. Lists are `UNNEST`ed, so that one is the shortest of many.

use crate::audit::{Origin, Stamp};
use crate::error::{Error, Result};
use crate::risk::model::{Level, Reservation, RiskEvent, RiskPolicy};
use crate::types::{Actor, Amount, CorrelationId, Engine, JsonObject, Reason, RequestId};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;

/// Appends a decision to the stream; the caller has sealed it.
pub async fn insert_event(
    conn: &mut PgConnection,
    stamp: Stamp,
    origin: &Origin,
    event: &RiskEvent,
    hash: &[u8],
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_event
             (seq, at, principal, actor, request_id, correlation_id, engine, action, ok, amount, denial, scope, reservation_id,
              day, exposure_delta, open_delta, loss_delta, actions_delta, reason, metadata, detail, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
        stamp.seq,
        stamp.at,
        origin.principal.as_str(),
        origin.actor.as_ref().map(Actor::as_str),
        origin.request_id.as_ref().map(RequestId::as_str),
        origin.correlation_id.as_ref().map(CorrelationId::as_str),
        event.engine.as_str(),
        event.action,
        event.denial.is_none(),
        event.amount.to_decimal(),
        event.denial.as_ref().map(|(reason, _)| *reason),
        event.denial.as_ref().map(|(_, scope)| scope.as_str()),
        event.reservation_id,
        stamp.day(),
        event.movement.exposure.to_decimal(),
        event.movement.open.to_decimal(),
        event.movement.loss.to_decimal(),
        event.movement.actions,
        event.words.reason.as_ref().map(Reason::as_str),
        event.words.metadata.as_ref().map(JsonObject::as_str),
        event.detail,
        hash
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes the counters of levels that a decision has moved.
pub async fn upsert_levels(
    conn: &mut PgConnection,
    levels: &[(&Engine, &Level)],
    day: NaiveDate,
    at: DateTime<Utc>,
) -> Result<()> {
    let engines: Vec<String> = levels.iter().map(|(engine, _)| engine.to_string()).collect();
    let of = |counter: fn(&Level) -> Decimal| levels.iter().map(|(_, level)| counter(level)).collect::<Vec<_>>();
    let actions: Vec<i64> = levels.iter().map(|(_, level)| level.usage.actions_count).collect();
    sqlx::query!(
        "INSERT INTO risk_ledger_day (day, engine, exposure_used, realized_loss, actions_count, updated_at)
         SELECT $1, moved.engine, moved.exposure_used, moved.realized_loss, moved.actions_count, $2
         FROM unnest($3::text[], $4::numeric[], $5::numeric[], $6::bigint[])
              AS moved (engine, exposure_used, realized_loss, actions_count)
         ON CONFLICT (day, engine) DO UPDATE
         SET exposure_used = excluded.exposure_used,
             realized_loss = excluded.realized_loss,
             actions_count = excluded.actions_count,
             updated_at = excluded.updated_at",
        day,
        at,
        &engines,
        &of(|level| level.usage.exposure_used.to_decimal()),
        &of(|level| level.usage.realized_loss.to_decimal()),
        &actions
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO risk_open (engine, open_amount, updated_at)
         SELECT moved.engine, moved.open_amount, $1
         FROM unnest($2::text[], $3::numeric[]) AS moved (engine, open_amount)
         ON CONFLICT (engine) DO UPDATE
         SET open_amount = excluded.open_amount,
             updated_at = excluded.updated_at",
        at,
        &engines,
        &of(|level| level.usage.open_risk_reserved.to_decimal())
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Adds a denial to the day's tally.
pub async fn count_denial(
    conn: &mut PgConnection,
    day: NaiveDate,
    engine: &Engine,
    scope: &str,
    reason: &str,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_denial_day (day, engine, scope, reason, denied)
         VALUES ($1, $2, $3, $4, 1)
         ON CONFLICT (day, engine, scope, reason) DO UPDATE
         SET denied = risk_denial_day.denied + 1",
        day,
        engine.as_str(),
        scope,
        reason
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Inserts a new reservation.
pub async fn insert_reservation(conn: &mut PgConnection, reservation: &Reservation) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_reservation (id, seq, engine, amount, open_amount, status, day, correlation_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        reservation.id,
        reservation.seq,
        reservation.engine.as_str(),
        reservation.amount.to_decimal(),
        reservation.open_amount.to_decimal(),
        reservation.status().as_str(),
        reservation.day,
        reservation.correlation_id,
        reservation.created_at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what is left of reservations that were open.
pub async fn update_reservations(conn: &mut PgConnection, reservations: &[&Reservation]) -> Result<()> {
    let ids: Vec<_> = reservations.iter().map(|one| one.id).collect();
    let open: Vec<_> = reservations.iter().map(|one| one.open_amount.to_decimal()).collect();
    let status: Vec<_> = reservations.iter().map(|one| one.status().as_str().to_owned()).collect();
    let closed_at: Vec<_> = reservations.iter().map(|one| one.closed.map(|stamp| stamp.at)).collect();
    let closed_seq: Vec<_> = reservations.iter().map(|one| one.closed.map(|stamp| stamp.seq)).collect();
    let updated = sqlx::query!(
        "UPDATE risk_reservation AS kept
         SET open_amount = now.open_amount,
             status = now.status,
             closed_at = now.closed_at,
             closed_seq = now.closed_seq
         FROM unnest($1::uuid[], $2::numeric[], $3::text[], $4::timestamptz[], $5::bigint[])
              AS now (id, open_amount, status, closed_at, closed_seq)
         WHERE kept.id = now.id AND kept.status = 'OPEN'",
        &ids,
        &open,
        &status,
        &closed_at as &[Option<DateTime<Utc>>],
        &closed_seq as &[Option<i64>]
    )
    .execute(conn)
    .await?;
    if updated.rows_affected() == reservations.len() as u64 {
        Ok(())
    } else {
        Err(Error::Inconsistent(format!(
            "{} of {} reservations were open",
            updated.rows_affected(),
            reservations.len()
        )))
    }
}

/// Writes a policy: the human flag and the caps. Throttles are rows of their own.
pub async fn upsert_policy(conn: &mut PgConnection, policy: &RiskPolicy) -> Result<()> {
    let cap = |amount: Amount| amount.to_decimal();
    sqlx::query!(
        "INSERT INTO risk_policy
             (engine, max_daily_loss, max_daily_exposure, max_open_risk, max_actions_per_day, enabled, changed_by, reason,
              updated_at, version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (engine) DO UPDATE
         SET max_daily_loss = excluded.max_daily_loss,
             max_daily_exposure = excluded.max_daily_exposure,
             max_open_risk = excluded.max_open_risk,
             max_actions_per_day = excluded.max_actions_per_day,
             enabled = excluded.enabled,
             changed_by = excluded.changed_by,
             reason = excluded.reason,
             updated_at = excluded.updated_at,
             version = excluded.version",
        policy.engine.as_str(),
        cap(policy.max_daily_loss),
        cap(policy.max_daily_exposure),
        cap(policy.max_open_risk),
        policy.max_actions_per_day.get(),
        policy.enabled_by_hand,
        policy.changed_by,
        policy.reason,
        policy.updated_at,
        policy.version
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says on a policy who changed it last and why, without touching caps or the human flag. An engine without a policy gets a
/// disabled one without caps, as in the original: a throttle must hold something.
pub async fn note_policy(
    conn: &mut PgConnection,
    engine: &Engine,
    by: Option<&str>,
    reason: &str,
    at: DateTime<Utc>,
) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_policy (engine, max_daily_loss, max_daily_exposure, max_open_risk, enabled, changed_by, reason, updated_at)
         VALUES ($1, 0, 0, 0, false, $2, $3, $4)
         ON CONFLICT (engine) DO UPDATE
         SET changed_by = excluded.changed_by,
             reason = excluded.reason,
             updated_at = excluded.updated_at,
             version = risk_policy.version + 1",
        engine.as_str(),
        by,
        reason,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Puts a trip's throttle on an engine.
pub async fn add_throttle(conn: &mut PgConnection, engine: &Engine, trip_id: i64, at: DateTime<Utc>) -> Result<()> {
    sqlx::query!(
        "INSERT INTO risk_throttle (engine, trip_id, created_at) VALUES ($1, $2, $3)",
        engine.as_str(),
        trip_id,
        at
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lifts one trip's throttle; says which engine it held, if it still stood.
pub async fn lift_throttle(conn: &mut PgConnection, trip_id: i64) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!("DELETE FROM risk_throttle WHERE trip_id = $1 RETURNING engine", trip_id)
        .fetch_optional(conn)
        .await?)
}

/// Lifts every throttle of an engine: the human override.
pub async fn lift_throttles(conn: &mut PgConnection, engine: &Engine) -> Result<()> {
    sqlx::query!("DELETE FROM risk_throttle WHERE engine = $1", engine.as_str()).execute(conn).await?;
    Ok(())
}
