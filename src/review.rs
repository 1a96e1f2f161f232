//! The Monday review, one document: changes, denials, drift, and the points to look at first.
//!
//! It reads one instant of the database and writes nothing. The same document is an HTTP answer, Markdown, and the
//! output of `holdfast review`.

mod attention;
mod blind;
mod caps;
mod document;
mod here;
pub mod http;
mod required;
mod slo;
pub mod store;
mod text;
mod values;
mod week;

pub use blind::{BlindWire, Blindness, Unwatched};
pub use document::{CharterReview, Review};
pub use here::Answering;
pub use slo::{Objective, Slo, Unit};
pub use store::{LedgerDifference, OldHolds};
pub use text::Medium;
pub use week::Week;

use crate::audit::checkpoint::Notary;
use crate::audit::{HeadRecord, Stream};
use crate::db::{self, Database};
use crate::enforcement::feed::Feed;
use crate::error::Result;
use crate::regression::measure::Reused;
use crate::regression::model::{RegressionPolicy, WireState};
use crate::trail::Trail;
use crate::types::Portion;
use blind::Blind;
use chrono::{DateTime, Datelike, Days, NaiveTime, Utc};
use document::OLD;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// The most changes that a review lists; the events have the rest.
const CHANGES_MAX: i64 = 200;
/// The most rows of any other list.
const LISTED_MAX: usize = 100;
/// The evidence from which a wire counts as near tripping, in percent of the logarithm that trips.
const NEAR_EVIDENCE_PCT: f64 = 50.0;

/// The sources of an instance's reviews.
#[derive(Debug, Clone)]
pub struct Source {
    /// The database that the review reads.
    pub db: Database,
    /// The state as this instance knows it.
    pub feed: Feed,
    /// The measurements that this instance refused.
    pub reused: Reused,
    /// The reader of the trail and its checkpoints.
    pub trail: Trail,
}

impl Source {
    /// Makes the review of this instance.
    pub async fn review(&self) -> Result<Review> {
        let answering = Answering::instance(&self.feed, &self.reused, self.db.disk(), &self.trail.archiving);
        collect(&self.db, answering, self.trail.notary()).await
    }
}

/// The last Monday, 00:00 UTC; on a Monday, the one a week ago.
#[must_use]
pub fn last_monday(now: DateTime<Utc>) -> DateTime<Utc> {
    let today = now.date_naive();
    let days = match today.weekday().num_days_from_monday() {
        0 => 7,
        days => days,
    };
    let monday = today.checked_sub_days(Days::new(days.into())).unwrap_or(today);
    monday.and_time(NaiveTime::MIN).and_utc()
}

/// Makes the review from one instant of the database.
pub async fn collect(db: &Database, answering: Answering, notary: Option<&Notary>) -> Result<Review> {
    let mut tx = db.begin_snapshot().await?;
    let clock = db::now(&mut tx).await?;
    // The books use the believed time, even while the database's clock is doubted.
    let now = db.history().believed(clock);
    let since = last_monday(now);
    let state = crate::go_live::store::read_state(&mut tx).await?;
    let policies = crate::risk::store::read_policies(&mut tx).await?;
    let engines: Vec<_> = policies.iter().map(|policy| policy.engine.clone()).collect();
    let today = crate::risk::store::business_day(&mut tx, now).await?;
    let (week, week_before) = week::weeks(&mut tx, &engines, since.date_naive(), today).await?;
    let disabled_engines: Vec<_> = policies.into_iter().filter(|policy| !policy.is_active()).collect();
    let Wires { tripped, shadow_tripped, near_tripping, blind } = wires(&mut tx, since).await?;
    let standings = crate::heimdall::charter::standings(&mut tx, now.date_naive()).await?;
    let audit = crate::audit::heads(&mut tx).await?;
    let approvals = crate::approval::waiting(&mut tx, now).await?;
    let instances = crate::enforcement::instance::list(&mut tx).await?;
    let lacking = required::lacking(&mut tx, &instances, answering.instance).await?;
    let (denials, denials_more) = week::denials(&mut tx, since.date_naive(), now.date_naive(), LISTED_MAX).await?;
    let changes = crate::audit::control_events(&mut tx, &[], Some(since), Portion::last(CHANGES_MAX)).await?;
    let changes_more = store::count_changes(&mut tx, since).await?.saturating_sub(changes.len());
    let more = [("changes", changes_more), ("denials", denials_more), ("unwatched", blind.unwatched_more)];
    let mut review = Review {
        generated_at: clock,
        since,
        open_mode: !crate::access::store::any(&mut tx).await?,
        grade_themselves: crate::access::grade_themselves(&mut tx, now).await?,
        look_first: Vec::new(),
        answering,
        not_enforcing: instances.not_enforcing(),
        instances,
        approvals,
        changes,
        ledger: crate::risk::http::ledger_today(&mut tx, now).await?,
        denials,
        old_holds: store::old_holds(&mut tx, now - OLD).await?,
        ledger_halted_at: crate::risk::store::reconciled_at(&mut tx).await?.2,
        ledger_differences: store::differences(&mut tx).await?,
        clock_behind_seconds: behind(&audit, clock),
        clock_behind_accepted: crate::audit::clock_is_accepted(&mut tx).await?,
        who: store::principals(&mut tx, &state, &disabled_engines, &blind.wires, &lacking).await?,
        lacking,
        state,
        disabled_engines,
        tripped,
        shadow_tripped,
        near_tripping,
        silent: crate::regression::store::silent(&mut tx, now).await?,
        unwatched: blind.unwatched,
        blind_wires: blind.wires,
        scorecards: crate::heimdall::store::scorecards_today(&mut tx, now.date_naive()).await?,
        charter: CharterReview::new(&standings),
        missing: crate::audit::complete::missing(&mut tx).await?,
        audit,
        checkpoint: match notary {
            Some(notary) => notary.witness(&mut tx).await?,
            None => None,
        },
        slo: slo::collect(&mut tx, since, now, week_before.counts()).await?,
        week,
        week_before,
        more: more.into_iter().filter(|(_, more)| *more > 0).collect(),
    };
    review.look_first = attention::look_first(&review);
    review.bound();
    if let Some(finding) = notary.and_then(Notary::finding) {
        review.look_first.insert(0, format!("THE AUDIT TRAIL IS DAMAGED: {finding}"));
    }
    Ok(review)
}

/// The seconds by which the clock is behind the ledger.
fn behind(heads: &[HeadRecord], now: DateTime<Utc>) -> i64 {
    let risk = heads.iter().find(|head| head.stream == Stream::Risk.as_str());
    risk.map_or(0, |head| (head.at - now).num_seconds().max(0))
}

/// The wires that need a look, by the kind of their state.
struct Wires {
    tripped: Vec<WireState>,
    shadow_tripped: Vec<WireState>,
    near_tripping: Vec<WireState>,
    blind: Blind,
}

async fn wires(conn: &mut PgConnection, since: DateTime<Utc>) -> Result<Wires> {
    let policies = crate::regression::store::read_policies(&mut *conn).await?;
    let states = crate::regression::store::read_states(&mut *conn).await?;
    let blind = blind::find(&policies, &states, &store::series(conn).await?, since);
    let near = |state: &WireState| {
        let policy = |policy: &&RegressionPolicy| {
            policy.domain == state.domain && policy.metric == state.metric && policy.enabled
        };
        let Some(policy) = policies.iter().find(policy) else {
            return false;
        };
        match state.evidence_pct {
            Some(percent) => percent >= NEAR_EVIDENCE_PCT,
            // The drop has twelve decimals, the limit six.
            None => state.drop_fraction.is_some_and(|drop| {
                drop.units().saturating_mul(2) >= policy.tolerance(true).limit.saturating_mul(1_000_000)
            }),
        }
    };
    let (latched, armed): (Vec<_>, Vec<_>) = states.into_iter().partition(|state| state.trip_id.is_some());
    let (tripped, shadow_tripped) = latched.into_iter().partition(|state| state.triggered);
    Ok(Wires { tripped, shadow_tripped, near_tripping: armed.into_iter().filter(near).collect(), blind })
}

/// Cuts a list to its limit, and notes the number of cut rows.
fn cut<T>(more: &mut BTreeMap<&'static str, usize>, name: &'static str, list: &mut Vec<T>) {
    let beyond = list.len().saturating_sub(LISTED_MAX);
    if beyond > 0 {
        list.truncate(LISTED_MAX);
        *more.entry(name).or_default() += beyond;
    }
}

impl Review {
    /// Bounds the lists. This runs after the search for points that need attention, which reads the whole lists.
    fn bound(&mut self) {
        let more = &mut self.more;
        cut(more, "instances", &mut self.instances.instances);
        cut(more, "not_enforcing", &mut self.not_enforcing);
        cut(more, "approvals", &mut self.approvals);
        cut(more, "ledger", &mut self.ledger);
        cut(more, "week.ledger", &mut self.week.ledger);
        cut(more, "week.scorecards", &mut self.week.scorecards);
        cut(more, "week_before.ledger", &mut self.week_before.ledger);
        cut(more, "week_before.scorecards", &mut self.week_before.scorecards);
        cut(more, "grade_themselves", &mut self.grade_themselves);
        cut(more, "old_holds", &mut self.old_holds);
        cut(more, "ledger_differences", &mut self.ledger_differences);
        cut(more, "disabled_engines", &mut self.disabled_engines);
        cut(more, "tripped", &mut self.tripped);
        cut(more, "shadow_tripped", &mut self.shadow_tripped);
        cut(more, "near_tripping", &mut self.near_tripping);
        cut(more, "silent", &mut self.silent);
        cut(more, "unwatched", &mut self.unwatched);
        cut(more, "blind_wires", &mut self.blind_wires);
        cut(more, "scorecards", &mut self.scorecards);
        cut(more, "charter.could_promote", &mut self.charter.could_promote);
        cut(more, "charter.should_demote", &mut self.charter.should_demote);
        cut(more, "charter.evidence_not_met", &mut self.charter.evidence_not_met);
        cut(more, "missing", &mut self.missing);
    }

    /// Renders the review as a document in Markdown.
    #[must_use]
    pub fn document(&self, medium: Medium) -> String {
        text::document(self, medium)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_begins_on_the_last_monday_and_never_today() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        // 2026-11-23 is a Monday.
        assert_eq!(last_monday(at("2026-11-23T08:00:00Z")), at("2026-11-16T00:00:00Z"));
        assert_eq!(last_monday(at("2026-11-24T00:00:00Z")), at("2026-11-23T00:00:00Z"));
        assert_eq!(last_monday(at("2026-11-22T23:59:59Z")), at("2026-11-16T00:00:00Z"));
    }
}
