//! Today's ledger.

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

/// Room left under each cap of a policy; null where there is no cap, 0 where it is used up.
#[derive(Debug, Serialize, ToSchema)]
pub struct Headroom {
    /// Under `max_daily_exposure`.
    pub exposure: Option<Total>,
    /// Under `max_open_risk`.
    pub open_risk: Option<Total>,
    /// Under `max_daily_loss`.
    pub loss: Option<Total>,
    /// Under `max_actions_per_day`.
    pub actions: Option<i64>,
}

/// A level of today's ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerToday {
    /// The business day: the UTC day of the database clock.
    pub day: NaiveDate,
    /// The engine, or `GLOBAL`.
    pub engine: Engine,
    /// Reserved today, less what was settled for less today.
    pub exposure_used: Total,
    /// Outstanding now, whatever day it was reserved on.
    pub open_risk_reserved: Total,
    /// Lost today.
    pub realized_loss: Total,
    /// Reserves accepted today.
    pub actions_count: i64,
    /// When one of them last moved; null when nothing has yet.
    pub updated_at: Option<DateTime<Utc>>,
    /// Reserves for this engine that were denied today, at whatever level; on GLOBAL, all of them.
    pub denied_count: i64,
    /// The same by first reason.
    pub denials_by_reason: BTreeMap<String, i64>,
    /// Room left under each cap.
    pub headroom: Headroom,
}

/// Today's ledger: a row for every policy.
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

/// Today's ledger, from one instant of the database, by the time that is believed.
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
