//! The risk guard's routes, one file per verb.

mod adjust;
mod batch;
mod extend;
mod history;
mod lists;
mod policies;
mod release;
mod reserve;
mod settle;
mod today;

pub(crate) use adjust::AdjustAnswer;
pub(crate) use reserve::begin_counting;
pub use today::{Headroom, LedgerToday, ledger_today};

use super::Risk;
use super::operation::Answered;
use crate::http::marked;
use axum::Json;
use axum::response::Response;
use serde::Serialize;
use utoipa_axum::router::OpenApiRouter;

/// The routes of the lever, relative to the base path.
#[must_use]
pub fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new()
        .merge(policies::router())
        .merge(today::router())
        .merge(history::router())
        .merge(reserve::router())
        .merge(settle::router())
        .merge(release::router())
        .merge(extend::router())
        .merge(adjust::router())
        .merge(batch::router())
        .merge(lists::router())
}

/// An outcome as its answer, marked if it is a replay.
fn answered<T, A: From<Answered<T>> + Serialize>(done: Answered<T>) -> Response {
    marked(done.replayed, Json(A::from(done)))
}
