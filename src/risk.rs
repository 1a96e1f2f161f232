//! Lever 2, the risk guard: is there room for this action today, under GLOBAL and under its engine?
//!
//! Invariants, after every commit:
//! - open(engine) is the sum of `open_amount` of its open reservations; open(GLOBAL) is the sum over the engines.
//! - The flows of a day are the sums of that day's events; a closed day's row never changes again.
//! - Nothing is below zero; after an accepted reserve no cap is exceeded, on either level.
//! - A reservation ends once. A decision is one event; a denial moves no counter.
//!
//! The [`ledger`] decides everything that moves the book, in one transaction for all waiting requests that holds the
//! risk head: lock, read the book, decide purely ([`model`]), write, commit, and only then answer. Policies are read
//! inside it, so an upsert or a throttle applies to the very next decision.

mod alarm;
pub mod clock;
pub mod form;
pub mod http;
pub mod ledger;
pub mod model;
pub mod operation;
pub mod reconcile;
pub mod remove;
pub mod store;

use crate::approval::model::ApprovalAction;
use crate::approval::{self, Gated, Loosened, Wanted, WithChanges};
use crate::audit::{self, Changes, ControlEvent, FieldChange, Origin, Stream};
use crate::budget::turns::Turns;
use crate::clock::Clock;
use crate::config::EnforcementConfig;
use crate::db::{self, Database, to_json};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result, require_room};
use crate::idempotency::{self, Asked, Earlier, Once};
use crate::identity::Authority;
use crate::types::{Actor, ControlAction, Engine, Reason};
use ledger::FormInUse;
use ledger::Ledger;
use model::adjust::Adjustment;
use model::policy::{self, PolicyUpsert};
use model::{OutOfRange, RiskPolicy};
use operation::{Answered, Ask, CorrectionAsked, Operation, Outcome, ReserveRequest, Reserved, Submission};
use reconcile::Reconciler;
use serde::Serialize;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// How often an idle process checks for holds that are due.
const TICK: Duration = Duration::from_millis(500);

/// The service of the risk guard. Cheap to clone, as each request does; all clones share one state.
#[derive(Debug, Clone)]
pub struct Risk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Database,
    two_person: approval::Policy,
    ledger: Ledger,
    engines_max: usize,
    alarms: alarm::Alarms,
    reconciler: Reconciler,
    form: FormInUse,
    reconciling: Turns,
}

/// The policy after an upsert, and the changes.
#[derive(Debug, Serialize, ToSchema)]
pub struct RiskPolicyUpserted {
    /// The policy after the upsert.
    #[serde(flatten)]
    pub policy: RiskPolicy,
    /// The changed fields; empty if nothing changed.
    pub changes: Vec<FieldChange>,
}

impl From<OutOfRange> for Error {
    fn from(error: OutOfRange) -> Self {
        Self::Inconsistent(error.to_string())
    }
}

impl Risk {
    /// The lever on this database. In a development environment, a reserve does not need go-live.
    #[must_use]
    pub fn new(
        db: Database,
        clock: Clock,
        feed: Feed,
        config: &EnforcementConfig,
        two_person: approval::Policy,
        engines_max: usize,
    ) -> Self {
        let form = FormInUse::default();
        let ledger = Ledger::start(db.clone(), clock, feed, !config.is_development(), two_person, form.clone());
        let (alarms, reconciling) = (alarm::Alarms::default(), Turns::default());
        let reconciler = Reconciler::new(db.clone());
        Self(Arc::new(Inner { db, two_person, ledger, engines_max, alarms, reconciler, form, reconciling }))
    }

    /// Decides a request and records the outcome. A settle and a release are always allowed, whatever the switches are:
    /// positions must be closable.
    pub async fn decide<A: Ask>(&self, request: A, asked: Asked) -> Result<Answered<A::Outcome>> {
        let item = Submission { operation: request.operation(), origin: asked.origin, intent: asked.intent };
        let answers = self.batch(vec![Ok(item)]).await?;
        let only = answers.into_iter().next();
        only.ok_or_else(|| Error::Inconsistent("an operation was not answered".into()))??.of::<A>()
    }

    /// Decides a reserve without the lock, without a record, and without regard to a key.
    pub async fn dry_run(&self, request: ReserveRequest, asked: Asked) -> Result<Answered<Reserved>> {
        let operation = request.operation();
        operation.check(&asked.origin.authority)?;
        let done = self.0.ledger.dry_run(&Submission { operation, origin: asked.origin, intent: None }).await?;
        done.of::<ReserveRequest>()
    }

    /// Books a correction that a second person approved: the approval and the event commit together.
    pub(crate) async fn correct(
        &self,
        correction: &CorrectionAsked,
        reason: &Reason,
        asked: &Asked,
    ) -> Result<Adjustment> {
        let request = correction.request(reason.clone());
        let request = request.ok_or_else(|| Error::Inconsistent("a waiting correction has no value".into()))?;
        let loosening = request.correction.loosening();
        let origin = Origin { correlation_id: correction.correlation_id.clone(), ..asked.origin.clone() };
        let item = Submission { operation: Operation::Adjust(request), origin, intent: None };
        let mut tx = self.0.db.begin().await?;
        // Lock order: risk, control.
        self.0.db.history().lock(&mut tx, Stream::Risk).await?;
        let mut control_head = self.0.db.history().lock(&mut tx, Stream::Control).await?;
        let wanted = Wanted { subject: None, input: "{}", reason: None };
        approval::gate(&mut tx, &mut control_head, self.0.two_person, asked, loosening, wanted).await?;
        let done = self.0.ledger.correct(&mut tx, &item).await?;
        db::commit(tx).await?;
        match done.outcome {
            Outcome::Adjusted(adjustment) => Ok(adjustment),
            _ => Err(Error::Inconsistent("a correction that was approved was not booked".into())),
        }
    }

    /// Requests approval for a correction that needs one; returns any other outcome unchanged.
    async fn settled(&self, item: Option<Submission>, done: Answered) -> Result<Answered> {
        let Outcome::Deferred(engine) = done.outcome else {
            return Ok(done);
        };
        let item = item.ok_or_else(|| Error::Inconsistent("the waiting operation is not a correction".into()))?;
        let Operation::Adjust(request) = &item.operation else {
            return Err(Error::Inconsistent("the waiting operation is not a correction".into()));
        };
        let mut tx = self.0.db.begin().await?;
        let mut head = self.0.db.history().lock(&mut tx, Stream::Control).await?;
        if let Some(answer) = idempotency::recall(&mut tx, item.intent.as_ref(), head.next()).await? {
            return match answer.confirm::<()>(tx).await? {
                Once::Replayed(Earlier::Waiting(request)) => Ok(Answered {
                    outcome: Outcome::Waiting(request),
                    replayed: true,
                    standing: None,
                    stops: Vec::new(),
                }),
                _ => Err(Error::Inconsistent("a correction was kept elsewhere".into())),
            };
        }
        let input = to_json(&CorrectionAsked::of(request, engine, &item.origin));
        let (loosening, subject) = (request.correction.loosening(), request.corrects_seq.to_string());
        let wanted =
            Wanted { subject: Some(&subject), input: input.get(), reason: request.annotations.reason.as_ref() };
        let asked = Asked::new(item.origin.clone(), item.intent.clone());
        // The batcher has read that approval is required.
        match approval::gate(&mut tx, &mut head, approval::Policy::Always, &asked, loosening, wanted).await? {
            Gated::Wait(record) => {
                db::commit(tx).await?;
                Ok(Answered {
                    outcome: Outcome::Waiting(to_json(&record)),
                    replayed: false,
                    standing: None,
                    stops: Vec::new(),
                })
            }
            Gated::Pass => Err(Error::Inconsistent("a correction that loosens did not wait".into())),
        }
    }

    /// Decides independent operations in one commit. Returns an answer for each, in order; unreadable ones keep their
    /// error.
    pub async fn batch(&self, items: Vec<Result<Submission>>) -> Result<Vec<Result<Answered>>> {
        let mut read = Vec::with_capacity(items.len());
        let mut errors = Vec::with_capacity(items.len());
        for item in items {
            match item.and_then(|item| item.operation.check(&item.origin.authority).map(|()| item)) {
                Ok(item) => {
                    read.push(item);
                    errors.push(None);
                }
                Err(error) => errors.push(Some(error)),
            }
        }
        // A correction that may have to wait is needed again.
        let loosening: Vec<_> = read.iter().map(|item| item.operation.loosens().then(|| item.clone())).collect();
        let answers = if read.is_empty() { Vec::new() } else { self.0.ledger.submit(read).await? };
        let mut answers = loosening.into_iter().zip(answers);
        let mut all = Vec::with_capacity(errors.len());
        for error in errors {
            let answer = match error {
                Some(error) => Err(error),
                None => match answers.next() {
                    Some((item, Ok(done))) => {
                        self.0.alarms.raise(&done);
                        self.settled(item, done).await
                    }
                    Some((_, Err(error))) => Err(error),
                    None => Err(Error::Inconsistent("an operation was not answered".into())),
                },
            };
            if let Err(error) = &answer {
                alarm::refused(error);
            }
            all.push(answer);
        }
        Ok(all)
    }

    /// Expires the due holds, until none is left or the oldest cannot expire: under a clock that is not believed, or in
    /// a book that does not balance.
    pub async fn expire_due(&self) -> Result<()> {
        let mut tried = None;
        loop {
            let oldest = store::oldest_due(&mut *self.0.db.work().await?).await?;
            if oldest.is_none() || oldest == tried {
                return Ok(());
            }
            // An empty batch: like every batch, it expires the due holds.
            self.0.ledger.submit(Vec::new()).await?;
            tried = oldest;
        }
    }

    /// Expires due holds when nothing else happens, until the task is cancelled. Nothing depends on it: every batch
    /// does the same, and a due hold that has not expired still counts.
    pub async fn tick(self) {
        let mut turns = tokio::time::interval(TICK);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            metrics::gauge!("holdfast_writer_queue").set(self.queue_depth());
            if let Err(error) = self.expire_due().await {
                tracing::debug!(%error, "due holds cannot expire now");
            }
        }
    }

    /// True while the ledger's thread runs.
    #[must_use]
    pub fn writer_runs(&self) -> bool {
        self.0.ledger.runs()
    }

    /// Resolves when the ledger's thread ends, which it never should.
    pub async fn writer_ended(&self) {
        self.0.ledger.ended().await;
    }

    #[expect(clippy::cast_precision_loss, reason = "the queue holds a few thousand")]
    fn queue_depth(&self) -> f64 {
        self.0.ledger.waiting() as f64
    }

    /// Sets caps. If nothing changes, nothing is written.
    pub async fn upsert_policy(
        &self,
        request: &PolicyUpsert,
        reason: Option<&Reason>,
        asked: &Asked,
    ) -> Result<Loosened<RiskPolicyUpserted>> {
        let (origin, intent) = (&asked.origin, asked.intent.as_ref());
        origin.authority.require_engine(&request.engine)?;
        let mut tx = self.0.db.begin().await?;
        // Lock order: risk, control. Under the risk head, the upsert applies to the very next decision.
        let risk_head = self.0.db.history().lock(&mut tx, Stream::Risk).await?;
        if let Some(answer) = idempotency::recall(&mut tx, intent, risk_head.next()).await? {
            return Ok(Loosened::Done(answer.confirm(tx).await?));
        }
        let policies = store::read_policies(&mut tx).await?;
        let count = policies.len();
        let existing = policies.into_iter().find(|policy| policy.engine == request.engine);
        if existing.is_none() && request.engine.is_system() {
            return Err(Error::invalid(
                "engine",
                "is SYSTEM, the name of Holdfast itself in events: choose another name",
            ));
        }
        if existing.is_none() {
            require_room("engines", count, self.0.engines_max, "ENGINES_MAX")?;
        }
        let (policy, changes) =
            policy::upsert(existing.as_ref(), request, origin.actor.as_ref(), reason, risk_head.next().at)?;
        let cancels = request.enabled == Some(false)
            && approval::waits_for(&mut tx, &[ApprovalAction::RaiseCap], request.engine.as_str(), risk_head.next().at)
                .await?;
        if let (true, Some(existing)) = (changes.is_empty() && asked.approves.is_none() && !cancels, &existing) {
            let unchanged = RiskPolicyUpserted { policy: existing.clone(), changes: Vec::new() };
            idempotency::keep(&mut tx, intent, risk_head.next(), &unchanged).await?;
            db::commit(tx).await?;
            return Ok(Loosened::Done(Once::Done(unchanged)));
        }
        // Lock order: risk, control.
        let mut control_head = self.0.db.history().lock(&mut tx, Stream::Control).await?;
        let subject = policy.engine.as_str();
        // The caps of a removed policy are no longer known, so its renewal counts as a loosening.
        let renews = existing.is_none() && audit::was_done(&mut tx, ControlAction::RiskPolicyRemove, subject).await?;
        let loosening = (renews || policy::loosens(existing.as_ref(), &policy)).then_some(ApprovalAction::RaiseCap);
        let input = to_json(&WithChanges { request, changes: &changes });
        let wanted = Wanted { subject: Some(subject), input: input.get(), reason };
        let verdict = approval::gate(&mut tx, &mut control_head, self.0.two_person, asked, loosening, wanted).await?;
        if let Gated::Wait(record) = verdict {
            db::commit(tx).await?;
            return Ok(Loosened::Waiting(record));
        }
        if changes.0.iter().any(|change| change.field == "throttled_by") {
            store::lift_throttles(&mut tx, &policy.engine).await?;
        }
        audit::revise(&mut tx, Stream::Risk).await?;
        store::upsert_policy(&mut tx, &policy).await?;
        let event = ControlEvent::new(ControlAction::RiskPolicyUpsert)
            .about(subject)
            .because(reason)
            .detail(&PolicyDetail { changes: &changes, policy: &policy });
        event.append(&mut tx, &mut control_head, origin).await?;
        let upserted = RiskPolicyUpserted { policy, changes: changes.0 };
        idempotency::keep(&mut tx, intent, risk_head.next(), &upserted).await?;
        db::commit(tx).await?;
        Ok(Loosened::Done(Once::Done(upserted)))
    }

    /// The turns for comparing the whole book, one at a time.
    #[must_use]
    pub fn reconciling(&self) -> &Turns {
        &self.0.reconciling
    }

    /// The comparison of the counters with their rows.
    #[must_use]
    pub fn reconciler(&self) -> &Reconciler {
        &self.0.reconciler
    }

    /// All policies, by engine.
    pub async fn policies(&self) -> Result<Vec<RiskPolicy>> {
        store::read_policies(&mut *self.0.db.read().await?).await
    }

    /// The database, for the lever's reads.
    #[must_use]
    pub fn db(&self) -> &Database {
        &self.0.db
    }
}

#[derive(Serialize)]
struct PolicyDetail<'a> {
    changes: &'a Changes,
    policy: &'a RiskPolicy,
}

/// Sets a trip's throttle on an engine, inside a transaction that holds the risk head.
pub async fn throttle_in_tx(
    conn: &mut PgConnection,
    engine: &Engine,
    trip_id: i64,
    why: &str,
    by: Option<&Actor>,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<()> {
    audit::revise(&mut *conn, Stream::Risk).await?;
    store::note_policy(&mut *conn, engine, by.map(Actor::as_str), why, at).await?;
    store::add_throttle(conn, engine, trip_id, at).await
}

/// Lifts a trip's throttle, inside a transaction that holds the risk head. The engine is on again if no other throttle
/// or operator holds it.
pub async fn lift_throttle_in_tx(
    conn: &mut PgConnection,
    trip_id: i64,
    authority: &Authority,
    why: &str,
    by: Option<&Actor>,
    at: chrono::DateTime<chrono::Utc>,
) -> Result<()> {
    let Some(engine) = store::lift_throttle(&mut *conn, trip_id).await? else {
        return Ok(());
    };
    let engine = engine.parse().map_err(|_| Error::Inconsistent(format!("{engine} is not an engine")))?;
    // The engine of the trip, which the wire may no longer name.
    authority.require_engine(&engine)?;
    audit::revise(&mut *conn, Stream::Risk).await?;
    store::note_policy(conn, &engine, by.map(Actor::as_str), why, at).await
}
