//! The Monday review: what broke, what was denied, what drifted, and what to look at first, in one document.
//!
//! Read from one instant of the database; writes nothing. The same document is an HTTP answer, Markdown, and the output of
//! `holdfast review`.

mod attention;
mod blind;
mod caps;
mod here;
pub mod http;
mod required;
mod slo;
pub mod store;
mod text;
mod values;

pub use blind::{BlindWire, Blindness, Unwatched};
pub use here::Answering;
pub use slo::{Objective, Slo};
pub use store::{Denied, LedgerDifference, OldHolds};
pub use text::Medium;

use crate::approval::model::ApprovalRecord;
use crate::audit::checkpoint::{Notary, Witness};
use crate::audit::{ControlRecord, HeadRecord, Stream};
use crate::db::{self, Database};
use crate::enforcement::feed::Feed;
use crate::enforcement::instance::Instances;
use crate::error::Result;
use crate::go_live::model::GoLiveState;
use crate::heimdall::model::{Evidence, Scorecard, Standing};
use crate::regression::measure::Reused;
use crate::regression::model::{RegressionPolicy, WireState};
use crate::regression::store::Silent;
use crate::risk::http::LedgerToday;
use crate::risk::model::RiskPolicy;
use crate::trail::Trail;
use blind::Blind;
use chrono::{DateTime, Datelike, Days, NaiveTime, TimeDelta, Utc};
use required::Lacking;
use serde::Serialize;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use store::Principals;
use utoipa::ToSchema;

/// Most changes that a review lists; more are in the events.
const CHANGES_MAX: i64 = 200;
/// Most rows of any other list.
const LISTED_MAX: usize = 100;
/// Holds that never expire are worth a look when they have been open for longer than this.
const OLD: TimeDelta = TimeDelta::days(7);
/// Evidence that is worth a look, in percent of the logarithm of what trips.
const NEAR_EVIDENCE_PCT: f64 = 50.0;

/// The review.
#[derive(Debug, Serialize, ToSchema)]
pub struct Review {
    /// When it was made, by the database clock.
    pub generated_at: DateTime<Utc>,
    /// The Monday since which changes and objectives are counted.
    pub since: DateTime<Utc>,
    /// Whether there are no tokens, so that nobody is authenticated.
    pub open_mode: bool,
    /// Valid tokens whose holder may both measure and recommend, and so grade itself.
    pub grade_themselves: Vec<String>,
    /// What to look at first; empty when nothing needs attention.
    pub look_first: Vec<String>,
    /// Who answers, and what stops it whatever the state says.
    pub answering: Answering,
    /// Who runs on this database, and in what the live ones differ.
    pub instances: Instances,
    /// Live instances that do not enforce, so that they admit everything.
    pub not_enforcing: Vec<String>,
    /// The go-live state.
    pub state: GoLiveState,
    /// What waits for a second person.
    pub approvals: Vec<ApprovalRecord>,
    /// Who changed what, and what was refused, newest first; at most 200.
    pub changes: Vec<ControlRecord>,
    /// Today's ledger with the denials by reason.
    pub ledger: Vec<LedgerToday>,
    /// Reserves that were denied since, by engine and reason: those that were denied most often.
    pub denials: Vec<Denied>,
    /// Holds that have been open for more than 7 days and never expire, by engine.
    pub old_holds: Vec<OldHolds>,
    /// Since when new reserves are halted because the book does not balance; null while it does, as far as is known.
    pub ledger_halted_at: Option<DateTime<Utc>>,
    /// The counters that did not balance then.
    pub ledger_differences: Vec<LedgerDifference>,
    /// For how many seconds the database's clock has been behind the last event of the ledger; 0 while it is not.
    pub clock_behind_seconds: i64,
    /// Whether that was accepted: reserves go on, on the day of that event.
    pub clock_behind_accepted: bool,
    /// Engines that are off.
    pub disabled_engines: Vec<RiskPolicy>,
    /// Wires that stand tripped.
    pub tripped: Vec<WireState>,
    /// Wires in SHADOW mode that would have tripped.
    pub shadow_tripped: Vec<WireState>,
    /// Watched wires whose drop is at least half of what trips them, or whose evidence is half way there on its logarithm.
    pub near_tripping: Vec<WireState>,
    /// Watched series that have gone silent.
    pub silent: Vec<Silent>,
    /// Series that were measured in the period and that no wire watches.
    pub unwatched: Vec<Unwatched>,
    /// Wires that judge nothing.
    pub blind_wires: Vec<BlindWire>,
    /// Today's scorecards.
    pub scorecards: Vec<Scorecard>,
    /// What production may act on, by what evidence.
    pub charter: CharterReview,
    /// What of the book is not there, each with the next step: guards that are not armed, policies, partitions.
    pub missing: Vec<String>,
    /// Where the audit streams stand.
    pub audit: Vec<HeadRecord>,
    /// The last checkpoint of the audit trail that this machine has, and whether the trail agrees with it; null where there is none.
    pub checkpoint: Option<Witness>,
    /// The delivery document's success metrics over the period.
    pub slo: Slo,
    /// How many more there are than a list shows, by the list's name; lists that are whole are not in it.
    pub more: BTreeMap<&'static str, usize>,
    /// Who made the changes that sentences tell of.
    #[serde(skip)]
    who: Principals,
    /// Required components that are not installed.
    #[serde(skip)]
    lacking: Vec<Lacking>,
}

/// What an instance makes its reviews of.
#[derive(Debug, Clone)]
pub struct Source {
    /// The database.
    pub db: Database,
    /// The state as this instance knows it.
    pub feed: Feed,
    /// Measurements that it refused.
    pub reused: Reused,
    /// The signer of checkpoints.
    pub trail: Trail,
}

impl Source {
    /// The review as this instance answers it.
    pub async fn review(&self) -> Result<Review> {
        let answering = Answering::instance(&self.feed, &self.reused, self.db.disk());
        collect(&self.db, answering, self.trail.notary()).await
    }
}

/// Domains whose production use does not go with their evidence.
#[derive(Debug, Serialize, ToSchema)]
pub struct CharterReview {
    /// Off, while the evidence passes now.
    pub could_promote: Vec<Standing>,
    /// On, while the evidence does not pass now.
    pub should_demote: Vec<Standing>,
    /// On, by a change at which the evidence did not pass; null there means that it is not known.
    pub evidence_not_met: Vec<Standing>,
}

impl CharterReview {
    fn new(standings: &[Standing]) -> Self {
        let those = |wanted: fn(&&Standing) -> bool| standings.iter().filter(wanted).cloned().collect();
        Self {
            could_promote: those(|domain| !domain.prod_use_enabled && domain.passes),
            should_demote: those(|domain| domain.prod_use_enabled && !domain.passes),
            evidence_not_met: those(|domain| domain.prod_use_enabled && domain.evidence != Some(Evidence::Met)),
        }
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
    // The books go by this, also where the database's clock is not believed.
    let now = db.history().believed(clock);
    let since = last_monday(now);
    let state = crate::go_live::store::read_state(&mut tx).await?;
    let policies = crate::risk::store::read_policies(&mut tx).await?;
    let disabled_engines: Vec<_> = policies.into_iter().filter(|policy| !policy.is_active()).collect();
    let Wires { tripped, shadow_tripped, near_tripping, blind } = wires(&mut tx, since).await?;
    let standings = crate::heimdall::charter::standings(&mut tx, now.date_naive()).await?;
    let audit = crate::audit::heads(&mut tx).await?;
    let approvals = crate::approval::waiting(&mut tx, now).await?;
    let instances = crate::enforcement::instance::list(&mut tx).await?;
    let lacking = required::lacking(&mut tx, &instances, answering.instance).await?;
    let (denials, denials_more) = store::denials(&mut tx, since, now, LISTED_MAX).await?;
    let changes = crate::audit::control_events(&mut tx, &[], Some(since), None, CHANGES_MAX).await?;
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
        slo: slo::collect(&mut tx, since, now).await?,
        more: more.into_iter().filter(|(_, more)| *more > 0).collect(),
    };
    review.look_first = attention::look_first(&review);
    review.bound();
    if let Some(finding) = notary.and_then(Notary::finding) {
        review.look_first.insert(0, format!("THE AUDIT TRAIL IS DAMAGED: {finding}"));
    }
    Ok(review)
}

/// How far the clock is behind the ledger, seconds.
fn behind(heads: &[HeadRecord], now: DateTime<Utc>) -> i64 {
    let risk = heads.iter().find(|head| head.stream == Stream::Risk.as_str());
    risk.map_or(0, |head| (head.at - now).num_seconds().max(0))
}

/// Where the wires stand that want a look.
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

/// With which event a change would have begun.
fn began(wire: &WireState) -> String {
    wire.began_at_event.map_or_else(String::new, |event| {
        let percent = wire.evidence_pct.unwrap_or_default();
        format!(" ({percent:.0} % of the evidence; began at event {event}, {} events ago)", wire.current_events)
    })
}

/// Cuts a list, and notes how many were cut.
fn cut<T>(more: &mut BTreeMap<&'static str, usize>, name: &'static str, list: &mut Vec<T>) {
    let beyond = list.len().saturating_sub(LISTED_MAX);
    if beyond > 0 {
        list.truncate(LISTED_MAX);
        *more.entry(name).or_default() += beyond;
    }
}

impl Review {
    /// Bounds the lists. After what needs attention was looked for: that is in all of them.
    fn bound(&mut self) {
        let more = &mut self.more;
        cut(more, "instances", &mut self.instances.instances);
        cut(more, "not_enforcing", &mut self.not_enforcing);
        cut(more, "approvals", &mut self.approvals);
        cut(more, "ledger", &mut self.ledger);
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

    /// The review as a document: Markdown, for whatever shows it.
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
