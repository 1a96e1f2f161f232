//! The ledger of today.

use crate::error::Result;
use crate::http::{Nothing, Query, errors};
use crate::risk::{Risk, store};
use crate::types::{Engine, Total};
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(risk_ledger_today))
}

/// The room under each cap of a policy; null if there is no cap, 0 if it is used up.
#[derive(Debug, Serialize, ToSchema)]
pub struct Headroom {
    /// The room under `max_daily_exposure`.
    pub exposure: Option<Total>,
    /// The room under `max_open_risk`.
    pub open_risk: Option<Total>,
    /// The room under `max_daily_loss`.
    pub loss: Option<Total>,
    /// The room under `max_actions_per_day`.
    pub actions: Option<i64>,
}

/// A level of today's ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerToday {
    /// The business day: the UTC day of the database clock.
    pub day: NaiveDate,
    /// The engine, or `GLOBAL`.
    pub engine: Engine,
    /// The amount reserved today, less the amounts that today's settles and releases gave back.
    pub exposure_used: Total,
    /// The outstanding amount now, from any day.
    pub open_risk_reserved: Total,
    /// The loss of today.
    pub realized_loss: Total,
    /// The accepted reserves of today.
    pub actions_count: i64,
    /// The time of the last movement; null if there is none yet.
    pub updated_at: Option<DateTime<Utc>>,
    /// Today's denied reserves of this engine, at any level; for GLOBAL, of all engines.
    pub denied_count: i64,
    /// Today's denied reserves by first reason.
    pub denials_by_reason: BTreeMap<String, i64>,
    /// The room under each cap.
    pub headroom: Headroom,
}

/// Shows today's ledger, one row per policy.
#[utoipa::path(
    get, path = "/risk/ledger/today", tag = "risk",
    responses((status = 200, description = "Ordered by engine", body = Vec<LedgerToday>), errors::Read)
)]
async fn risk_ledger_today(State(risk): State<Risk>, _: Query<Nothing>) -> Result<Json<Vec<LedgerToday>>> {
    let db = risk.db();
    let mut tx = db.begin_snapshot().await?;
    let now = db.history().now(&mut tx).await?;
    Ok(Json(ledger_today(&mut tx, now).await?))
}

/// Today's ledger at one instant of the database, for the believed time.
pub async fn ledger_today(conn: &mut sqlx::PgConnection, now: DateTime<Utc>) -> Result<Vec<LedgerToday>> {
    let (day, rows) = store::today(&mut *conn, now).await?;
    let engines: Vec<_> = rows.iter().map(|row| row.policy.engine.to_string()).collect();
    let mut denials: BTreeMap<String, BTreeMap<String, i64>> = BTreeMap::new();
    for (engine, reason, denied) in store::read_denials(conn, day, &engines).await? {
        denials.entry(engine).or_default().insert(reason, denied);
    }
    let room =
        |cap: Total, used: Total| (cap > Total::ZERO).then(|| cap.minus(used).unwrap_or_default().max(Total::ZERO));
    Ok(rows
        .into_iter()
        .map(|store::TodayRow { policy, usage }| {
            let denials_by_reason = denials.remove(policy.engine.as_str()).unwrap_or_default();
            let max_actions = policy.max_actions_per_day.get();
            LedgerToday {
                day,
                exposure_used: usage.exposure_used,
                open_risk_reserved: usage.open_risk_reserved,
                realized_loss: usage.realized_loss,
                actions_count: usage.actions_count,
                updated_at: usage.updated_at,
                denied_count: denials_by_reason.values().sum(),
                denials_by_reason,
                headroom: Headroom {
                    exposure: room(policy.max_daily_exposure.into(), usage.exposure_used),
                    open_risk: room(policy.max_open_risk.into(), usage.open_risk_reserved),
                    loss: room(policy.max_daily_loss.into(), usage.realized_loss),
                    actions: (max_actions > 0).then(|| (max_actions - usage.actions_count).max(0)),
                },
                engine: policy.engine,
            }
        })
        .collect())
}
