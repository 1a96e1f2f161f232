//! The ledger of earlier days.

use crate::error::{Error, Result};
use crate::http::{DaysPage, Page, Query, Rows, errors};
use crate::risk::store::LedgerOfDays;
use crate::risk::{Risk, store};
use crate::types::{Day, DayPlace, DayRange, Engine, PageSize};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(risk_ledger))
}

/// The rows of a history of the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
enum LedgerBy {
    /// A row for each day: of the engine, or of GLOBAL.
    #[default]
    #[serde(rename = "day")]
    Day,
    /// A row for each engine over the whole range.
    #[serde(rename = "engine")]
    Engine,
    /// A row for each day and engine.
    #[serde(rename = "day,engine")]
    DayAndEngine,
}

impl LedgerBy {
    const fn list(self) -> &'static str {
        match self {
            Self::Day => "/risk/ledger?by=day",
            Self::Engine => "/risk/ledger?by=engine",
            Self::DayAndEngine => "/risk/ledger?by=day,engine",
        }
    }

    const fn rows(self) -> Rows {
        match self {
            Self::Day | Self::DayAndEngine => Rows::EachDay,
            Self::Engine => Rows::Whole,
        }
    }
}

/// The days, the rows, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct LedgerQuery {
    /// The first UTC day; if left out, so that the range has 30 days.
    #[param(inline)]
    from: Option<Day>,
    /// The day after the last one; if left out, tomorrow. A range has at most 366 days.
    #[param(inline)]
    to: Option<Day>,
    /// `day` (the default), `engine` or `day,engine`.
    #[param(inline)]
    by: Option<LedgerBy>,
    /// Only this engine. Without it, the rows of `by=day` are GLOBAL's.
    engine: Option<Engine>,
    /// The most rows of the page, 1 to 1000; 100 if left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The end of the last page, from `next_cursor`; only with the same `by`.
    #[param(inline)]
    cursor: Option<DayPlace>,
}

/// Shows the ledger of earlier days and of today so far: by day, newest first; by engine over the whole range; or by day
/// and engine. A day that has ended never changes.
#[utoipa::path(
    get, path = "/risk/ledger", tag = "risk", params(LedgerQuery),
    responses((status = 200, description = "A page", body = Page<LedgerOfDays>), errors::ReadOne)
)]
async fn risk_ledger(State(risk): State<Risk>, Query(query): Query<LedgerQuery>) -> Result<Json<Page<LedgerOfDays>>> {
    let db = risk.db();
    let mut tx = db.begin_snapshot().await?;
    let now = db.history().now(&mut tx).await?;
    let range = DayRange::new(query.from, query.to, store::business_day(&mut tx, now).await?)?;
    let by = query.by.unwrap_or_default();
    let mut page = DaysPage::new(by.list(), by.rows(), range, query.limit, query.cursor.as_ref())?;
    if let Some(engine) = &query.engine
        && !store::is_known(&mut tx, engine, range.first, range.last).await?
    {
        let id =
            format!("{engine} with a policy, or with a denied reserve in the range: GET /risk/policies lists them");
        return Err(Error::NotFound { what: "engine", id });
    }
    let global = (by == LedgerBy::Day).then(Engine::global);
    match query.engine.or(global) {
        Some(engine) => page.take_all_of(engine.as_str()),
        None => {
            while let Some(wanted) = page.wants() {
                let rows = store::engines_of(&mut tx, wanted).await?;
                page.take(rows);
            }
        }
    }
    let (wanted, next_cursor) = page.end();
    let rows = store::ledger_of(&mut tx, &wanted).await?;
    Ok(Json(Page::of(rows, next_cursor)))
}
