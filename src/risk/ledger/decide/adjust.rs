//! Corrections: an event gives back no more than it booked.

use super::{Deciding, of_engine};
use crate::error::{Error, Result};
use crate::risk::ledger::Corrections;
use crate::risk::model::OutOfRange;
use crate::risk::model::adjust::{self, Adjust, Correction};
use crate::risk::operation::{AdjustRequest, Answered, Outcome, Submission};
use crate::risk::store::Corrected;
use crate::types::{RiskAction, Total};
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Deciding<'a> {
    pub(super) fn adjust(&mut self, item: &'a Submission, request: &AdjustRequest) -> Result<Answered> {
        let (seq, correction) = (request.corrects_seq, request.correction);
        let id = || of_engine(format!("of the stream risk with the number {seq}"), request.engine.as_ref());
        let not_found = || Error::NotFound { what: "event", id: id() };
        let past = self.past(seq).map_err(|error| match error {
            Error::Archived { .. } => error,
            _ => not_found(),
        })?;
        if request.engine.as_ref().is_some_and(|engine| *engine != *past.engine)
            || !item.origin.authority.reaches_engine(past.engine)
        {
            return Err(not_found());
        }
        if past.action == RiskAction::Deny {
            let detail = format!("is the denial {seq}, which booked nothing: name the event that did");
            return Err(Error::invalid("corrects_seq", detail));
        }
        let engine = past.engine.clone();
        let reservation_id = past.reservation_id;
        let moved = self.correct(seq, correction)?;
        let adjust = Adjust { engine, corrects_seq: seq, reservation_id, correction };
        let stamp = self.head.next();
        let waits = item.operation.loosens() && self.known.corrections == Corrections::Wait;
        // A correction that will wait is tried on a copy of the book, and not booked.
        let mut trial = waits.then(|| self.known.book.clone());
        let book = trial.as_mut().unwrap_or(&mut self.known.book);
        let adjusted = adjust::apply(book, &adjust, request.annotations.clone(), stamp);
        // The request is out of range, not the book.
        let refused =
            |OutOfRange { engine, counter }| Error::AdjustmentOutOfRange { engine, counter, day: stamp.day() };
        let (adjustment, event) = adjusted.map_err(refused)?;
        if waits {
            return Ok(Answered {
                outcome: Outcome::Deferred(adjust.engine),
                replayed: false,
                standing: None,
                stops: Vec::new(),
            });
        }
        self.corrected.extend(moved);
        let root = self.root(seq);
        self.corrected.insert(stamp.seq, Corrected { root: Some(root), ..Corrected::default() });
        Ok(self.done(item, stamp, event, Outcome::Adjusted(adjustment)))
    }

    /// The named event and its root, each with the correction added. Neither gives back more than it has left;
    /// otherwise a corrected amount could be taken back from both.
    fn correct(&self, seq: i64, correction: Correction) -> Result<BTreeMap<i64, Corrected>> {
        let mut moved = BTreeMap::new();
        for one in BTreeSet::from([seq, self.root(seq)]) {
            let past = self.past(one)?;
            let corrected = self.corrected(one);
            let (engine, counter) = (past.engine.clone(), correction.counter());
            let left = correction.left(past.movement, corrected.added);
            if correction.is_downwards() && left.units() + correction.delta().units() < 0 {
                let left = left.max(Total::ZERO);
                return Err(Error::AdjustmentBeyondEvent { corrects_seq: one, engine, counter, left });
            }
            let day = self.head.next().day();
            let added = corrected.added.plus(correction.movement());
            let added = added.ok_or(Error::AdjustmentOutOfRange { engine, counter, day })?;
            moved.insert(one, Corrected { added, ..corrected });
        }
        Ok(moved)
    }

    fn corrected(&self, seq: i64) -> Corrected {
        self.corrected.get(&seq).or_else(|| self.known.corrected.get(&seq)).copied().unwrap_or_default()
    }

    /// The root of a correction, which is the event that it goes back to; any other event is its own root.
    fn root(&self, seq: i64) -> i64 {
        self.corrected(seq).root.unwrap_or(seq)
    }
}
