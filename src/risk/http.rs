//! The risk guard's routes, one file per verb.

mod adjust;
mod batch;
mod decision;
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
