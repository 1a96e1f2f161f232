//! The scorecards of earlier days.

use crate::error::{Error, Result};
use crate::heimdall::model::{Scorecard, Span};
use crate::heimdall::{Heimdall, store};
use crate::http::{DaysPage, Page, Query, Rows, errors};
use crate::types::{Day, DayPlace, DayRange, Domain, PageSize};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<Heimdall> {
    OpenApiRouter::new().routes(routes!(scorecards))
}

/// The rows of a history of scorecards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ScorecardsBy {
    /// A row for each domain over the whole range.
    #[default]
    Domain,
    /// A row for each day and domain.
    Day,
}

/// The days, the rows, and the page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ScorecardsQuery {
    /// The first UTC day; when left out, so that the range has 30 days.
    #[param(inline)]
    from: Option<Day>,
    /// The day after the last one; when left out, tomorrow. A range has at most 366 days.
    #[param(inline)]
    to: Option<Day>,
    /// `domain` (the default): a row for each domain over the whole range; `day`: one for each day and domain.
    #[param(inline)]
    by: Option<ScorecardsBy>,
    /// Only this domain.
    domain: Option<Domain>,
    /// The largest number of items, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The place where the last page ended, from `next_cursor`; only with the same `by`.
    #[param(inline)]
    cursor: Option<DayPlace>,
}

/// Shows the sandbox trials of earlier days and of today so far: by domain over the whole range, or by day, newest first,
/// and domain. A day that has ended never changes.
#[utoipa::path(
    get, path = "/heimdall/scorecards", tag = "heimdall", params(ScorecardsQuery),
    responses((status = 200, description = "A page of scorecards", body = Page<Scorecard>), errors::ReadOne)
)]
async fn scorecards(
    State(heimdall): State<Heimdall>,
    Query(query): Query<ScorecardsQuery>,
) -> Result<Json<Page<Scorecard>>> {
    let db = heimdall.db();
    let mut tx = db.begin_snapshot().await?;
    let range = DayRange::new(query.from, query.to, db.history().now(&mut tx).await?.date_naive())?;
    let (list, rows) = match query.by.unwrap_or_default() {
        ScorecardsBy::Domain => ("/heimdall/scorecards?by=domain", Rows::Whole),
        ScorecardsBy::Day => ("/heimdall/scorecards?by=day", Rows::EachDay),
    };
    let mut page = DaysPage::new(list, rows, range, query.limit, query.cursor.as_ref())?;
    match &query.domain {
        Some(domain) if !store::is_known(&mut tx, domain).await? => {
            let id = format!("{domain} with a policy or a trial: GET /heimdall/policies lists the policies");
            return Err(Error::NotFound { what: "domain", id });
        }
        Some(domain) => page.take_all_of(domain.as_str()),
        None => {
            while let Some(wanted) = page.wants() {
                let rows = store::domains_of(&mut tx, wanted).await?;
                page.take(rows);
            }
        }
    }
    let (wanted, next_cursor) = page.end();
    let spans: Vec<Span> = wanted.iter().map(store::trials_of).collect::<Result<_>>()?;
    Ok(Json(Page::of(store::scorecards_of(&mut tx, spans).await?, next_cursor)))
}
