//! Lever 1, the go-live state: the go-live switch and the kill switch, their checklist and the reported components.
//!
//! Invariants:
//! - One row, one version, which every change increments. Change, event and head commit together under the control
//!   head.
//! - Tightening (`disable`, `engage`) always works at once: no checklist, no version, no lock but the control head, and
//!   its own connection, so that it never waits for the ledger. Loosening (`enable`, `release`) is checked, and a
//!   refused attempt is an event, too.
//! - The checklist is judged inside the transaction of the enable.
//! - A tightening answers with the instant from which no instance admits anything. An engage that cannot be recorded
//!   still stops this instance.
//!
//! Statements of a change: lock, time, state, (checklist: six,) state, event, head.

pub mod http;
pub mod model;
pub mod store;

use crate::approval::{self, Gated, Loosened, Wanted};
use crate::audit::{self, ControlEvent, Head, Origin, Stream};
use crate::clock::Clock;
use crate::config::ChecklistConfig;
use crate::db::history::{self, Heads, Lost};
use crate::db::{self, Database};
use crate::enforcement::feed::Feed;
use crate::enforcement::feed::renewal::{self, News};
use crate::enforcement::instance;
use crate::enforcement::instance::LEASE_MAX;
use crate::error::database::is_of_the_connection;
use crate::error::{Error, Result, require_room};
use crate::idempotency::{self, Asked, Once};
use crate::panics;
use crate::types::{Actor, ControlAction, Reason};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use model::{Checklist, Facts, GoLiveState, Pack, PackReport, Switch};
use serde::Serialize;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The time that a change that loosens waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that an engage may take in the database before this instance is stopped without it.
const ENGAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of attempts. Connecting has its own limit; these attempts are for connections that break in use.
const TIGHTEN_ATTEMPTS: u32 = 3;

/// A tighter state, and the instant from which every instance follows it.
#[derive(Debug)]
pub struct Tightened {
    /// The state after the change.
    pub state: GoLiveState,
    /// From this instant on, by the database's clock, no instance admits anything that the state forbids: the commit
    /// plus the longest lease.
    pub guaranteed_by: DateTime<Utc>,
    /// Live instances whose gate is off, so that they ignore the state; none if the list could not be read.
    pub not_enforcing: Option<Vec<String>>,
}

/// The service of the go-live state.
#[derive(Debug, Clone)]
pub struct GoLive {
    db: Database,
    clock: Clock,
    feed: Feed,
    config: Arc<ChecklistConfig>,
    two_person: approval::Policy,
    /// Changes that loosen take turns before they request the head, so that a tightening waits for at most one of them.
    permits: Arc<Semaphore>,
    packs_max: usize,
}

impl GoLive {
    /// The lever on this database. `feed` passes its own changes to this instance's gate at once.
    #[must_use]
    pub fn new(
        db: Database,
        clock: Clock,
        feed: Feed,
        config: Arc<ChecklistConfig>,
        two_person: approval::Policy,
        packs_max: usize,
    ) -> Self {
        Self { db, clock, feed, config, two_person, permits: Arc::new(Semaphore::new(1)), packs_max }
    }

    /// The current state.
    pub async fn state(&self) -> Result<GoLiveState> {
        store::read_state(&mut *self.db.read().await?).await
    }

    /// The checklist, judged now.
    pub async fn checklist(&self) -> Result<Checklist> {
        let mut conn = self.db.read().await?;
        Ok(Checklist::judge(&self.facts(&mut conn).await?))
    }

    /// Every component that has reported itself.
    pub async fn packs(&self) -> Result<Vec<Pack>> {
        store::read_packs(&mut *self.db.read().await?).await
    }

    /// Engages the kill switch. If the database does not record it, this instance is stopped by its kill file.
    pub async fn engage(&self, reason: Option<&Reason>, origin: &Origin) -> Result<Tightened> {
        // An unreadable row must not prevent a stop: a panic over it is only another kind of failure.
        let recorded = panics::caught(Box::pin(self.tighten(Switch::Engage, reason, origin)));
        let cause = match tokio::time::timeout(ENGAGE_TIMEOUT, recorded).await {
            Ok(Ok(Ok(tightened))) => return Ok(tightened),
            // The cause is the part of the error that the caller may read.
            Ok(Ok(Err(error))) => error.problem().detail,
            Ok(Err(panics::Panicked)) => Error::Panicked.problem().detail,
            Err(_) => format!("no answer within {} s", ENGAGE_TIMEOUT.as_secs()),
        };
        let actor = origin.actor.as_ref().map_or("somebody", Actor::as_str);
        let why = reason.map_or("no reason given", Reason::as_str);
        let text = format!("engaged by {actor} ({why}) while it could not be recorded: {cause}\n");
        let until = match (self.feed.kill_locally(&text).await, self.feed.kill_file()) {
            (Ok(()), Some(file)) => {
                tracing::error!(cause, file = %file.path().display(), "the kill switch is engaged on this instance alone");
                "until its kill file is removed"
            }
            (Err(error), _) => {
                tracing::error!(cause, %error, "the kill switch is engaged on this instance alone, without a kill file");
                "until it is restarted: its kill file cannot be written"
            }
            (Ok(()), None) => "until it is restarted",
        };
        Err(Error::EngagedLocally { cause, until })
    }

    /// Switches go-live off. If that fails, the error says how to stop everything anyway.
    pub async fn disable(&self, reason: Option<&Reason>, origin: &Origin) -> Result<Tightened> {
        let done = panics::caught(Box::pin(self.tighten(Switch::Disable, reason, origin))).await;
        let done = done.unwrap_or(Err(Error::Panicked));
        done.map_err(|error| if error.row().status >= 500 { Error::NotDisabled(Box::new(error)) } else { error })
    }

    /// Disables or engages. No precondition and no key can prevent it: it acts on every request.
    async fn tighten(&self, change: Switch, reason: Option<&Reason>, origin: &Origin) -> Result<Tightened> {
        let lane = self.db.switch_lane(&origin.principal).await?;
        let begun_ns = self.clock.now_ns();
        let (read_at, state) = tighten(&self.db, change, reason, origin).await?;
        // The remaining statements only read, on another connection.
        drop(lane);
        // The database read its time after `begun`, so the commit was at most this much later.
        let elapsed = Duration::from_nanos(self.clock.now_ns().saturating_sub(begun_ns));
        self.feed.publish(&self.db, change.news(), state.for_gate());
        // The instant is never before the change itself, even if the database's clock went back.
        let read_at = read_at.max(state.updated_at);
        let after = TimeDelta::from_std(elapsed + LEASE_MAX).unwrap_or(TimeDelta::MAX);
        let guaranteed_by = read_at.checked_add_signed(after).map_or(DateTime::<Utc>::MAX_UTC, up_to_microseconds);
        Ok(Tightened { state, guaranteed_by, not_enforcing: instance::not_enforcing(&self.db).await })
    }

    /// Enables or releases. A refusal is recorded before it is answered, but not kept under the key: a later attempt
    /// may succeed.
    pub async fn loosen(
        &self,
        change: Switch,
        if_match: Option<&str>,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Loosened<GoLiveState>> {
        debug_assert!(change.loosens(), "a tightening always works");
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let _permit = self.permit().await?;
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Control).await?;
        // This precedes `If-Match`, since the first attempt has moved the version that it named.
        if let Some(answer) = idempotency::recall(&mut tx, intent, head.next()).await? {
            return Ok(Loosened::Done(answer.confirm(tx).await?));
        }
        if let Some(refusal) = self.refusal(&mut tx, change, if_match).await? {
            record_refusal(&mut tx, &mut head, change, &refusal, reason, origin).await?;
            db::commit(tx).await?;
            return Err(refusal);
        }
        let wanted = Wanted { subject: None, input: "{}", reason };
        let verdict = approval::gate(&mut tx, &mut head, self.two_person, asked, change.loosening(), wanted).await?;
        if let Gated::Wait(record) = verdict {
            db::commit(tx).await?;
            return Ok(Loosened::Waiting(record));
        }
        let state = change_in_tx(&mut tx, &mut head, change, reason, origin).await?;
        idempotency::keep(&mut tx, intent, head.next(), &state).await?;
        db::commit(tx).await?;
        self.feed.publish(&self.db, change.news(), state.for_gate());
        Ok(Loosened::Done(Once::Done(state)))
    }

    /// The permit to contend for the control head, held until the change is over.
    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(Error::Overloaded)
    }

    /// The reason why a loosening may not happen now; none if it may.
    async fn refusal(&self, conn: &mut PgConnection, change: Switch, if_match: Option<&str>) -> Result<Option<Error>> {
        let actual = store::read_state(conn).await?.version;
        if !model::if_match_allows(if_match, actual) {
            let expected = if_match.unwrap_or_default().to_owned();
            return Ok(Some(Error::VersionMismatch { expected, actual }));
        }
        if change != Switch::Enable {
            return Ok(None);
        }
        let checklist = Checklist::judge(&self.facts(conn).await?);
        Ok((!checklist.ok)
            .then(|| Error::ChecklistFailed { blockers: checklist.blockers(), checklist: db::to_json(&checklist) }))
    }

    /// Records a component's report of itself.
    pub async fn report_pack(&self, report: &PackReport, reason: Option<&Reason>, asked: &Asked) -> Result<Once<Pack>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        let _permit = self.permit().await?;
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Control).await?;
        if let Some(answer) = idempotency::recall(&mut tx, intent, head.next()).await? {
            return answer.confirm(tx).await;
        }
        if !store::has_pack(&mut tx, &report.id).await? {
            require_room("components", store::count_packs(&mut tx).await?, self.packs_max, "PACKS_MAX")?;
        }
        let pack = store::upsert_pack(&mut tx, report, origin, head.next()).await?;
        let event =
            ControlEvent::new(ControlAction::PackReport).about(report.id.as_str()).because(reason).detail(&pack);
        event.append(&mut tx, &mut head, origin).await?;
        idempotency::keep(&mut tx, intent, head.next(), &pack).await?;
        db::commit(tx).await?;
        Ok(Once::Done(pack))
    }

    /// The database, for reads of the lever.
    #[must_use]
    pub const fn db(&self) -> &Database {
        &self.db
    }

    async fn facts(&self, conn: &mut PgConnection) -> Result<Facts> {
        let state = store::read_state(conn).await?;
        Ok(Facts {
            pending_migrations: db::pending_migrations(conn).await?,
            policies: store::count_policies(conn).await?,
            packs: store::read_packs(conn).await?,
            required_packs: self.config.required_packs.clone(),
            kill_switch_engaged: state.kill_switch_engaged,
            kill_file: self.feed.is_killed_locally(),
            global_policy_active: store::is_global_active(conn).await?,
            enforcement_off: self.config.enforcement_off,
            tripped_wires: store::standing_trips(conn).await?,
        })
    }
}

/// Rounds up to whole microseconds, the resolution of the database's times.
fn up_to_microseconds(at: DateTime<Utc>) -> DateTime<Utc> {
    let whole = at.trunc_subsecs(6);
    if whole < at { whole.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(at) } else { whole }
}

/// The state before and after, for the audit trail.
#[derive(Serialize)]
struct ChangeDetail<'a> {
    before: &'a GoLiveState,
    after: &'a GoLiveState,
}

/// Moves a switch inside a transaction that holds the control head.
pub async fn change_in_tx(
    conn: &mut PgConnection,
    head: &mut Head,
    change: Switch,
    reason: Option<&Reason>,
    origin: &Origin,
) -> Result<GoLiveState> {
    let before = store::read_state(conn).await?;
    let by = origin.actor.as_ref().map(Actor::as_str);
    let after = model::apply(&before, change, by, reason.map(Reason::as_str), head.next().at);
    store::write_state(conn, &after).await?;
    let event =
        ControlEvent::new(change.action()).because(reason).detail(&ChangeDetail { before: &before, after: &after });
    event.append(conn, head, origin).await?;
    Ok(after)
}

/// The reason of a refused attempt, for the audit trail.
#[derive(Serialize)]
struct RefusalDetail {
    refused: String,
}

async fn record_refusal(
    conn: &mut PgConnection,
    head: &mut Head,
    change: Switch,
    refusal: &Error,
    reason: Option<&Reason>,
    origin: &Origin,
) -> Result<()> {
    let event = ControlEvent::new(change.action())
        .refused(refusal.row().code)
        .because(reason)
        .detail(&RefusalDetail { refused: refusal.to_string() });
    event.append(conn, head, origin).await?;
    Ok(())
}

/// Engages the kill switch without a service, for the shell.
pub async fn engage_from_shell(db: &Database, reason: Option<&Reason>, origin: &Origin) -> Result<GoLiveState> {
    let (_, state) = tighten(db, Switch::Engage, reason, origin).await?;
    renewal::announce(db, News::Engaged, state.version).await;
    Ok(state)
}

/// Records a tightening on the connections that are reserved for it, and returns the state and the database's time. If
/// its connection broke, or its server has become a standby, it tries a new one: a second stop does no harm, a missing
/// one does.
async fn tighten(
    db: &Database,
    change: Switch,
    reason: Option<&Reason>,
    origin: &Origin,
) -> Result<(DateTime<Utc>, GoLiveState)> {
    for _ in 1..TIGHTEN_ATTEMPTS {
        match tighten_once(db, change, reason, origin).await {
            Err(Error::Unavailable(error) | Error::OutcomeUnknown(error)) if is_of_the_connection(&error) => {
                tracing::warn!(%error, "the connection of a switch broke: trying a new one");
            }
            done => return done,
        }
    }
    tighten_once(db, change, reason, origin).await
}

async fn tighten_once(
    db: &Database,
    change: Switch,
    reason: Option<&Reason>,
    origin: &Origin,
) -> Result<(DateTime<Utc>, GoLiveState)> {
    let mut tx = db.begin_switch().await?;
    let mut head = audit::lock(&mut tx, Stream::Control).await?;
    let read_at = head.now();
    head.set_now(db.history().believed(read_at));
    let state = change_in_tx(&mut tx, &mut head, change, reason, origin).await?;
    db::commit(tx).await?;
    Ok((read_at, state))
}

/// The effect of an acceptance, and, for the audit trail, the history that it ended.
#[derive(Debug, Serialize)]
pub struct Accepted {
    /// The version of the state after the acceptance.
    pub version: i64,
    /// The new history.
    pub generation: uuid::Uuid,
    /// Known events that are missing in the database.
    pub lost: Vec<Lost>,
}

/// Accepts a database that went back, as far as this process knows the old history.
pub async fn accept_rewind(db: &Database, reason: &Reason, origin: &Origin) -> Result<Accepted> {
    accept_rewind_knowing(db, &[db.history().asked().heads], reason, origin).await
}

/// The same, with what is known from elsewhere, so that the lost events can be named. It gives the database a new
/// history, which every instance that noticed the loss adopts.
pub async fn accept_rewind_knowing(
    db: &Database,
    known: &[Heads],
    reason: &Reason,
    origin: &Origin,
) -> Result<Accepted> {
    let mut tx = db.begin_switch().await?;
    let mut head = db.history().lock_to_tighten(&mut tx, Stream::Control).await?;
    let lost = history::losses(&mut tx, known).await?;
    let (version, generation) = store::begin_generation(&mut tx).await?;
    let accepted = Accepted { version, generation, lost };
    let event = ControlEvent::new(ControlAction::GoLiveRewindAccept).because(reason).detail(&accepted);
    event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    Ok(accepted)
}
