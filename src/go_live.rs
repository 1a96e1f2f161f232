//! Lever 1, the go-live state: is production switched on, and is the kill switch out?
//!
//! Invariants:
//! - One row, one version, counted up by every change; change, event and head commit together under the control head.
//! - Tightening (`disable`, `engage`) always works at once: no checklist, no version, no lock but the control head, and a
//!   connection of its own, so that it never waits for the ledger. Loosening (`enable`, `release`) is checked, and a refused
//!   attempt is an event too.
//! - The checklist is judged inside the transaction that enables.
//! - A tightening answers from which instant on no instance admits anything; an engage that cannot be recorded stops this
//!   instance all the same.
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
use crate::enforcement::feed::renewal::{self, News};
use crate::enforcement::feed::{Feed, LEASE_MAX};
use crate::enforcement::instance;
use crate::error::database::is_of_the_connection;
use crate::error::{Error, Result, require_room};
use crate::idempotency::{self, Asked, Once};
use crate::panics;
use crate::types::{Actor, Reason};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use model::{Checklist, Facts, GoLiveState, Pack, PackReport, Switch};
use serde::Serialize;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a change that loosens waits for its permit.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an engage may take in the database before this instance is stopped without it.
const ENGAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it tries. Connecting has its own time; this is for connections that break once they are used.
const TIGHTEN_ATTEMPTS: u32 = 3;

/// A state that lets less happen, and when everybody goes by it.
#[derive(Debug)]
pub struct Tightened {
    /// The state.
    pub state: GoLiveState,
    /// From this instant on, by the database's clock, no instance admits anything that it forbids: the commit and the longest
    /// lease.
    pub guaranteed_by: DateTime<Utc>,
    /// Live instances whose gate is off, so that nothing of this holds for them; none if that could not be read.
    pub not_enforcing: Option<Vec<String>>,
}

/// The lever's service.
#[derive(Debug, Clone)]
pub struct GoLive {
    db: Database,
    clock: Clock,
    feed: Feed,
    config: Arc<ChecklistConfig>,
    two_person: approval::Policy,
    /// Changes that loosen take turns before they ask for the head, so that one that tightens waits for one of them at most.
    permits: Arc<Semaphore>,
    packs_max: usize,
}

impl GoLive {
    /// The lever on this database; its own changes reach this instance's gate through `feed` at once.
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

    /// The state as it stands.
    pub async fn state(&self) -> Result<GoLiveState> {
        store::read_state(&mut *self.db.read().await?).await
    }

    /// The checklist as it would be judged now.
    pub async fn checklist(&self) -> Result<Checklist> {
        let mut conn = self.db.read().await?;
        Ok(Checklist::judge(&self.facts(&mut conn).await?))
    }

    /// Every reported component.
    pub async fn packs(&self) -> Result<Vec<Pack>> {
        store::read_packs(&mut *self.db.read().await?).await
    }

    /// Pulls the kill switch. Where the database does not take it, this instance is stopped by its kill file.
    pub async fn engage(&self, reason: Option<&Reason>, origin: &Origin) -> Result<Tightened> {
        // A row that no program can read is no reason not to stop: what panics over it is only another way to fail.
        let recorded = panics::caught(Box::pin(self.tighten(Switch::Engage, reason, origin)));
        let cause = match tokio::time::timeout(ENGAGE_TIMEOUT, recorded).await {
            Ok(Ok(Ok(tightened))) => return Ok(tightened),
            // As much as the caller would have been told of it.
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

    /// Switches go-live off. Where that fails, the error says how to stop everything all the same.
    pub async fn disable(&self, reason: Option<&Reason>, origin: &Origin) -> Result<Tightened> {
        let done = panics::caught(Box::pin(self.tighten(Switch::Disable, reason, origin))).await;
        let done = done.unwrap_or(Err(Error::Panicked));
        done.map_err(|error| if error.row().status >= 500 { Error::NotDisabled(Box::new(error)) } else { error })
    }

    /// Disables or engages. Nothing is a reason not to, and no key either: it acts whenever it is asked.
    async fn tighten(&self, change: Switch, reason: Option<&Reason>, origin: &Origin) -> Result<Tightened> {
        let lane = self.db.switch_lane(&origin.principal).await?;
        let begun_ns = self.clock.now_ns();
        let (read_at, state) = tighten(&self.db, change, reason, origin).await?;
        // The rest only reads, on another connection.
        drop(lane);
        // The database read its time after `begun`, so at the commit it was no later than this.
        let elapsed = Duration::from_nanos(self.clock.now_ns().saturating_sub(begun_ns));
        self.feed.publish(&self.db, change.news(), state.for_gate());
        // Not before the change itself, also where the database's clock went back.
        let read_at = read_at.max(state.updated_at);
        let after = TimeDelta::from_std(elapsed + LEASE_MAX).unwrap_or(TimeDelta::MAX);
        let guaranteed_by = read_at.checked_add_signed(after).map_or(DateTime::<Utc>::MAX_UTC, up_to_microseconds);
        Ok(Tightened { state, guaranteed_by, not_enforcing: instance::not_enforcing(&self.db).await })
    }

    /// Enables or releases. A refusal is recorded before it is answered, and not kept: the key may succeed later.
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
        // Before `If-Match`: the first attempt has moved the version that it named.
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

    /// The right to contend for the control head, held until the change is over.
    async fn permit(&self) -> Result<OwnedSemaphorePermit> {
        let permit = tokio::time::timeout(PERMIT_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(Error::Overloaded)
    }

    /// Why a loosening may not happen now.
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

    /// Records what a component reports of itself.
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
        let event = ControlEvent::new("PACK_REPORT").about(report.id.as_str()).because(reason).detail(&pack);
        event.append(&mut tx, &mut head, origin).await?;
        idempotency::keep(&mut tx, intent, head.next(), &pack).await?;
        db::commit(tx).await?;
        Ok(Once::Done(pack))
    }

    /// The database, for the lever's reads.
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

/// The first whole microsecond, which is as fine as the database's times are, that is not before.
fn up_to_microseconds(at: DateTime<Utc>) -> DateTime<Utc> {
    let whole = at.trunc_subsecs(6);
    if whole < at { whole.checked_add_signed(TimeDelta::microseconds(1)).unwrap_or(at) } else { whole }
}

/// Before and after, for the audit trail.
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

/// Why an attempt was refused, for the audit trail.
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

/// Pulls the kill switch without a service around it: for the shell.
pub async fn engage_from_shell(db: &Database, reason: Option<&Reason>, origin: &Origin) -> Result<GoLiveState> {
    let (_, state) = tighten(db, Switch::Engage, reason, origin).await?;
    renewal::announce(db, News::Engaged, state.version).await;
    Ok(state)
}

/// Records a tightening, and says what time the database showed, on the connections that are kept for it: from the head that it took to the commit. Where its connection
/// broke, or its server has become a standby, on a new one: to stop twice is safe, and to stop nobody is not.
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

/// The effect of an acceptance, and for the audit trail, which history it ended.
#[derive(Debug, Serialize)]
pub struct Accepted {
    /// The state's version.
    pub version: i64,
    /// The history that began.
    pub generation: uuid::Uuid,
    /// Events that were known and are not there.
    pub lost: Vec<Lost>,
}

/// Says that a database that went back is meant, as far as this process knows it.
pub async fn accept_rewind(db: &Database, reason: &Reason, origin: &Origin) -> Result<Accepted> {
    accept_rewind_knowing(db, &[db.history().asked().heads], reason, origin).await
}

/// The same, naming what is lost of what is known from elsewhere: gives the database a history of its own, which every instance that
/// noticed takes over.
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
    let event = ControlEvent::new("GO_LIVE_REWIND_ACCEPT").because(reason).detail(&accepted);
    event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    Ok(accepted)
}
