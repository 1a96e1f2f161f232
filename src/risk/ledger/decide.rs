//! The decisions of a batch, one after the other on one book. Each decision is an event; a refusal is not.

mod adjust;
mod past;
mod told;

use super::read::{Halt, Loaded, correlation_id_of};
use crate::audit::{Head, Origin, Stamp, Stream};
use crate::db::{archived, stored_json};
use crate::error::{Error, Result};
use crate::group_commit::Proof;
use crate::idempotency::store::NewKeys;
use crate::idempotency::{Answer, Kept};
use crate::risk::model::reserve::{self, Reserve};
use crate::risk::model::settle::{self, Beyond, MATCHES_MAX, Settle, Target};
use crate::risk::model::{Book, Level, Reservation, ReservationStatus, RiskEvent, expire, extend, release};
use crate::risk::operation::{
    Answered, ExtendRequest, HoldState, Operation, Outcome, ReleaseRequest, ReserveRequest, Reserved, SettleRequest,
    Submission,
};
use crate::risk::store::{Batch, Corrected, Correlation, Denials, Recorded};
use crate::types::{Engine, Point};
use chrono::{DateTime, Utc};
use past::{Past, replay};
use std::borrow::Cow;
use std::collections::BTreeMap;
use told::Told;
use uuid::Uuid;

/// The state of a batch while it is decided.
pub(super) struct Deciding<'a> {
    pub(super) known: Loaded,
    before: Book,
    /// The last event before the batch.
    pub(super) began: Point,
    pub(super) head: Head,
    pub(super) recorded: Vec<Recorded<'a>>,
    new_keys: NewKeys,
    denials: Denials,
    corrected: BTreeMap<i64, Corrected>,
    told: Told,
}

impl<'a> Deciding<'a> {
    pub(super) fn new(known: Loaded, head: Head) -> Self {
        let (before, began) = (known.book.clone(), head.point());
        let (new_keys, told) = (NewKeys::default(), Told::default());
        Self {
            known,
            before,
            began,
            head,
            recorded: Vec::new(),
            new_keys,
            denials: Denials::new(),
            corrected: BTreeMap::new(),
            told,
        }
    }

    /// The first event; none if there is no event.
    pub(super) fn proof(&self) -> Option<Proof> {
        self.recorded.first().map(|first| Proof { seq: first.stamp.seq, hash: first.hash.clone() })
    }

    /// The engines whose levels the batch moves.
    pub(super) fn moved(&self) -> impl Iterator<Item = &Engine> {
        self.moved_levels().map(|(engine, _)| engine)
    }

    fn moved_levels(&self) -> impl Iterator<Item = (&Engine, &Level)> {
        let before = &self.before.levels;
        self.known.book.levels.iter().filter(|(engine, level)| before.get(*engine) != Some(*level))
    }

    pub(super) fn changes(&self) -> Batch<'_> {
        let book = &self.known.book;
        let (old, new): (Vec<_>, Vec<_>) =
            book.reservations.values().partition(|one| self.before.reservations.contains_key(&one.id));
        let before = &self.before.reservations;
        let changed = old.into_iter().filter(|one| before.get(&one.id) != Some(*one));
        let (changed, late) = changed.partition(|one| before[&one.id].status == ReservationStatus::Open);
        Batch {
            recorded: &self.recorded,
            levels: self.moved_levels().collect(),
            usage_before: self.moved().map(|engine| self.before.level(engine).usage).collect(),
            before: self.began,
            new,
            changed,
            late,
            keys: &self.new_keys,
            denials: &self.denials,
            corrected: &self.corrected,
        }
    }

    /// Expires the due holds, oldest first. A hold that cannot expire stays open, which is conservative; the
    /// reconciliation reports it.
    pub(super) fn expire_due(&mut self) {
        for id in std::mem::take(&mut self.known.due) {
            if let Err(error) = self.expire(id) {
                tracing::error!(%error, reservation_id = %id, "a due hold cannot expire");
            }
        }
    }

    /// Expires a hold if it is due at the believed time.
    fn expire(&mut self, id: Uuid) -> Result<()> {
        let stamp = self.head.next();
        if let Some(event) = expire::apply(&mut self.known.book, id, stamp)? {
            let reserved = self.known.book.reservations.get(&id);
            let correlation_id = reserved.and_then(|one| one.correlation_id.as_deref()?.parse().ok());
            let origin = Origin { correlation_id, ..Origin::system(None) };
            self.record(stamp, Cow::Owned(origin), event);
        }
        Ok(())
    }

    fn record(&mut self, stamp: Stamp, origin: Cow<'a, Origin>, event: RiskEvent) {
        let hash = self.head.seal(stamp, event.canonical(stamp, &origin).bytes());
        self.recorded.push(Recorded { stamp, origin, event, hash });
    }

    /// An event that an operation refers to: one of this batch, or one that was read.
    fn past(&self, seq: i64) -> Result<Past<'_>> {
        let first = self.recorded.first().map_or(i64::MAX, |one| one.stamp.seq);
        let own = usize::try_from(seq - first.min(seq)).ok().filter(|_| seq >= first);
        if let Some(recorded) = own.and_then(|place| self.recorded.get(place)) {
            return Ok(Past::of(recorded));
        }
        let read = self.known.past.get(&seq);
        read.map(Past::read).ok_or_else(|| {
            let archived = self.known.archived.iter().find(|one| one.has(Stream::Risk, seq));
            archived.map_or_else(
                || Error::Inconsistent(format!("event {seq} cannot be read")),
                |one| one.refusal(format!("event {seq}")),
            )
        })
    }

    /// Decides one operation and notes its event, unless it was decided before; the answer includes the hold's status
    /// now. A refusal leaves no event and moves nothing.
    pub(super) fn decide(&mut self, item: &'a Submission) -> Result<Answered> {
        let now = self.head.next().at;
        let mut done = self.decide_once(item)?;
        let holds = done.outcome.holds();
        done.standing = if let [id] = *holds { self.standing(id, now) } else { None };
        if done.replayed {
            self.tell_now(&mut done, now)?;
        }
        Ok(done)
    }

    fn standing(&self, id: Uuid, now: DateTime<Utc>) -> Option<HoldState> {
        let held = self.known.book.reservations.get(&id)?;
        let due = held.expires_at.filter(|_| held.is_live(now));
        Some(HoldState { status: held.status_at(now), expires_in_seconds: due.map(|due| (due - now).num_seconds()) })
    }

    /// Updates the parts of an earlier answer that describe the present.
    fn tell_now(&self, done: &mut Answered, now: DateTime<Utc>) -> Result<()> {
        let book = &self.known.book;
        let allowed = match &mut done.outcome {
            Outcome::Reserved(reserved) if reserved.decision.is_allowed() => reserved.reservation_id,
            Outcome::Extended(extension) if extension.failures.is_empty() => Some(extension.reservation_id),
            Outcome::Settled(settlement) => {
                for settled in &mut settlement.reservations {
                    let held = book.reservations.get(&settled.reservation_id);
                    settled.status = held.map_or(settled.status, |held| held.status_at(now));
                }
                None
            }
            _ => None,
        };
        let Some(id) = allowed else {
            return Ok(());
        };
        // After a rewind, the switches that were read may be outdated.
        if let Some(halt @ Halt::Rewound) = &self.known.halt {
            return Err(halt.error());
        }
        let held = book.reservations.get(&id);
        let engine = held.map_or_else(Engine::global, |held| held.engine.clone());
        done.stops = reserve::stops_of(book, held, &engine, now);
        Ok(())
    }

    fn decide_once(&mut self, item: &'a Submission) -> Result<Answered> {
        let key = item.intent.as_ref().map(|intent| (intent.principal.as_str().to_owned(), intent.key.clone()));
        if let (Some(key), Some(intent)) = (&key, &item.intent)
            && let Some(kept) = self.known.keys.get(key)
        {
            kept.check(intent)?;
            return match kept.answer {
                Answer::RiskEvent(seq) => {
                    let past = self.past(seq)?;
                    self.told.again(item, seq, || Ok(past.long()?.len()))?;
                    replay(item, &past)
                }
                Answer::Waiting(ref request) => Ok(Answered {
                    outcome: Outcome::Waiting(stored_json(request.clone())?),
                    replayed: true,
                    standing: None,
                    stops: Vec::new(),
                }),
                Answer::Text(_) => Err(Error::Inconsistent(format!("key {} has no event", intent.key))),
            };
        }
        let done = match &item.operation {
            Operation::Reserve { request, id } => self.reserve(item, request, *id)?,
            Operation::Settle(request) => self.settle(item, request)?,
            Operation::Release(request) => self.release(item, request)?,
            Operation::Extend(request) => self.extend(item, request)?,
            Operation::Adjust(request) => self.adjust(item, request)?,
        };
        // A replay by reservation id and a waiting correction have no event to point to.
        let is_recorded = !done.replayed && !matches!(done.outcome, Outcome::Deferred(_));
        if let (Some(key), Some(intent), true) = (key, &item.intent, is_recorded)
            && let Some(last) = self.recorded.last()
        {
            self.new_keys.push(intent, last.stamp);
            let answer = Answer::RiskEvent(last.stamp.seq);
            let day = last.stamp.day();
            let kept = Kept { day, route: intent.route.clone(), fields: intent.fields.clone(), answer };
            self.known.keys.insert(key, kept);
        }
        Ok(done)
    }

    fn done(&mut self, item: &'a Submission, stamp: Stamp, event: RiskEvent, outcome: Outcome) -> Answered {
        if let Some((reason, scope)) = &event.denial {
            *self.denials.entry((event.engine.clone(), scope.clone(), *reason)).or_default() += 1;
        }
        self.record(stamp, Cow::Borrowed(&item.origin), event);
        Answered { outcome, replayed: false, standing: None, stops: Vec::new() }
    }

    fn reserve(&mut self, item: &'a Submission, request: &ReserveRequest, id: Uuid) -> Result<Answered> {
        if let Some(made) = self.known.book.reservations.get(&id) {
            if !item.origin.authority.reaches_engine(&made.engine) {
                // The answer confirms only that the id cannot be used, not that a reservation has it.
                return Err(Error::NotFound { what: "reservation", id: id.to_string() });
            }
            let past = self.past(made.seq)?;
            past.refuse_other(item, request, made)?;
            return replay(item, &past);
        }
        if request.reservation_id.is_some()
            && let Some(segment) = archived::of_id(&self.known.archived, id)
        {
            return Err(segment.refusal(format!("reservation {id}")));
        }
        if let Some(halt) = &self.known.halt {
            return Err(halt.error());
        }
        let correlation_id = correlation_id_of(item).map(str::to_owned);
        let reserve =
            Reserve { engine: request.engine.clone(), amount: request.amount, id, ttl: request.ttl, correlation_id };
        let stamp = self.head.next();
        let (decision, event) = reserve::apply(&mut self.known.book, &reserve, request.annotations.clone(), stamp)?;
        // A denied caller that settles all the same belongs to the same correlation id.
        if let Some(correlation) = Correlation::of(item, &request.engine) {
            self.known.correlations.add(correlation);
        }
        let reservation_id = decision.is_allowed().then_some(id);
        Ok(self.done(
            item,
            stamp,
            event,
            Outcome::Reserved(Reserved {
                engine: request.engine.clone(),
                amount: request.amount,
                decision,
                reservation_id,
            }),
        ))
    }

    fn settle(&mut self, item: &'a Submission, request: &SettleRequest) -> Result<Answered> {
        let (engine, target) = match request.reservation_id {
            Some(id) => self.named_target(item, request, id)?,
            None => self.matching_target(item, request)?,
        };
        let (settled_amount, realized_loss) = (request.settled_amount, request.realized_loss);
        let settle = Settle { engine, target, settled_amount, realized_loss };
        item.origin.authority.require_loss("exposure that was not reserved", settle.overrun(&self.known.book))?;
        let stamp = self.head.next();
        let (settlement, event) = settle::apply(&mut self.known.book, &settle, request.annotations.clone(), stamp)?;
        Ok(self.done(item, stamp, event, Outcome::Settled(settlement)))
    }

    /// The reservation that an operation names, expired if it is due. Another engine's reservation is reported as
    /// unknown.
    fn named(&mut self, item: &Submission, id: Uuid, engine: Option<&Engine>) -> Result<&Reservation> {
        self.expire(id)?;
        let named = self.known.book.reservations.get(&id);
        named
            .filter(|one| engine.is_none_or(|engine| *engine == one.engine))
            .filter(|one| item.origin.authority.reaches_engine(&one.engine))
            .ok_or_else(|| match archived::of_id(&self.known.archived, id) {
                Some(segment) if named.is_none() => segment.refusal(format!("reservation {id}")),
                _ => Error::NotFound { what: "reservation", id: of_engine(id, engine) },
            })
    }

    /// The reservation that a settle names: open, or already expired.
    fn named_target(&mut self, item: &Submission, request: &SettleRequest, id: Uuid) -> Result<(Engine, Target)> {
        let named = self.named(item, id, request.engine.as_ref())?;
        let (engine, amount, status, closed) = (named.engine.clone(), named.amount, named.status, named.closed);
        let (target, outstanding) = match (status, closed) {
            (ReservationStatus::Open, _) => (Target::Reservation(id), named.open_amount),
            (ReservationStatus::Expired, Some(stamp)) => {
                let outstanding = self.past(stamp.seq)?.amount;
                (Target::Late(id, outstanding), outstanding)
            }
            _ => return Err(self.closed(id)?),
        };
        if let Some(claimed) = request.reserved_amount
            && claimed != amount
            && claimed != outstanding
        {
            let detail = format!("is {claimed}, but {amount} was reserved: send that or leave it out");
            return Err(Error::invalid("reserved_amount", detail));
        }
        Ok((engine, target))
    }

    /// The open reservations that an original settle matches.
    fn matching_target(&self, item: &Submission, request: &SettleRequest) -> Result<(Engine, Target)> {
        let required = |field| Error::invalid(field, "is required without a reservation_id");
        let engine = request.engine.clone().ok_or_else(|| required("engine"))?;
        let reserved_amount = request.reserved_amount.ok_or_else(|| required("reserved_amount"))?;
        let book = &self.known.book;
        // A policy is removed only if nothing was ever reserved on its engine, so an engine without one has no
        // reservation: this is a mistake.
        if book.level(&engine).policy.is_none() {
            return Err(Error::NotFound { what: "engine", id: engine.to_string() });
        }
        let correlation_id = correlation_id_of(item);
        let carried =
            |one: &Reservation| one.correlation_id.is_some() && one.correlation_id.as_deref() == correlation_id;
        let now = self.head.next().at;
        let mine = |one: &&Reservation| one.engine == engine && one.is_live(now);
        let is_used = Correlation::of(item, &engine).is_some_and(|one| self.known.correlations.contains(&one));
        // Reservations of this batch count as well, in the order in which they were made.
        let mut open: Vec<_> = book.reservations.values().filter(mine).filter(|one| !is_used || carried(one)).collect();
        open.sort_by_key(|one| one.seq);
        let beyond = if open.len() > MATCHES_MAX { Beyond::MoreOpen } else { Beyond::Nothing };
        let candidates = open.into_iter().take(MATCHES_MAX).map(|one| one.id).collect();
        Ok((engine, Target::Matching { reserved_amount, candidates, beyond }))
    }

    /// The refusal to end an ended reservation, with its recorded outcome.
    fn closed(&self, id: Uuid) -> Result<Error> {
        let closed = self.known.book.reservations.get(&id).and_then(|one| Some((one.status, one.closed?)));
        let (status, stamp) = closed.ok_or_else(|| Error::Inconsistent(format!("reservation {id} is open")))?;
        let past = self.past(stamp.seq)?;
        let outcome = self.told.refusal(stamp.seq, || past.long(), id)?;
        let closed_at = stamp.at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        Ok(Error::AlreadyClosed { reservation_id: id, status, closed_at, outcome })
    }

    fn release(&mut self, item: &'a Submission, request: &ReleaseRequest) -> Result<Answered> {
        let id = request.reservation_id;
        if self.named(item, id, request.engine.as_ref())?.status != ReservationStatus::Open {
            return Err(self.closed(id)?);
        }
        let stamp = self.head.next();
        let (released, event) = release::apply(&mut self.known.book, id, request.annotations.clone(), stamp)?;
        Ok(self.done(item, stamp, event, Outcome::Released(released)))
    }

    fn extend(&mut self, item: &'a Submission, request: &ExtendRequest) -> Result<Answered> {
        let id = request.reservation_id;
        let named = self.named(item, id, request.engine.as_ref())?;
        if named.status != ReservationStatus::Open {
            return Err(self.closed(id)?);
        }
        if named.expires_at.is_none() {
            return Err(Error::NeverExpires { reservation_id: id });
        }
        if let Some(halt) = &self.known.halt {
            return Err(halt.error());
        }
        let stamp = self.head.next();
        let (extension, event) =
            extend::apply(&mut self.known.book, id, request.ttl, request.annotations.clone(), stamp)?;
        Ok(self.done(item, stamp, event, Outcome::Extended(extension)))
    }
}

/// The name of a missing thing, with the engine if the caller named one.
fn of_engine(what: impl std::fmt::Display, engine: Option<&Engine>) -> String {
    engine.map_or_else(|| what.to_string(), |engine| format!("{what} of the engine {engine}"))
}
