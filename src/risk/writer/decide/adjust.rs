//! Corrections: an event gives back no more than it booked.

use super::{Deciding, of_engine};
use crate::error::{Error, Result};
use crate::risk::model::OutOfRange;
use crate::risk::model::adjust::{self, Adjust};
use crate::risk::operation::{AdjustRequest, Done, Item, Outcome};
use crate::risk::writer::batch::Corrections;

impl<'a> Deciding<'a> {
    pub(super) fn adjust(&mut self, item: &'a Item, request: &AdjustRequest) -> Result<Done> {
        let (seq, correction) = (request.corrects_seq, request.correction);
        let id = || of_engine(format!("of the stream risk with the number {seq}"), request.engine.as_ref());
        let not_found = || Error::NotFound { what: "event", id: id() };
        let past = self.past(seq).map_err(|_| not_found())?;
        if request.engine.as_ref().is_some_and(|engine| *engine != *past.engine)
            || !item.origin.authority.reaches_engine(past.engine)
        {
            return Err(not_found());
        }
        if past.action == "DENY" {
            let detail = format!("is the denial {seq}, which booked nothing: name the event that did");
            return Err(Error::invalid("corrects_seq", detail));
        }
        let corrected =
            self.corrected.get(&seq).or_else(|| self.known.corrected.get(&seq)).copied().unwrap_or_default();
        let left = correction.left(past.movement, corrected);
        let engine = past.engine.clone();
        if correction.is_downwards() && left.units() + correction.delta().units() < 0 {
            return Err(Error::AdjustmentBeyondEvent {
                corrects_seq: seq,
                engine,
                counter: correction.counter(),
                left,
            });
        }
        let adjust = Adjust { engine, corrects_seq: seq, reservation_id: past.reservation_id, correction };
        let stamp = self.head.next();
        let waits = item.operation.loosens() && self.known.corrections == Corrections::Wait;
        // What waits could be booked, and is not.
        let mut trial = waits.then(|| self.known.book.clone());
        let book = trial.as_mut().unwrap_or(&mut self.known.book);
        let adjusted = adjust::apply(book, &adjust, request.words.clone(), stamp);
        // What was asked is out of range, not the book.
        let refused =
            |OutOfRange { engine, counter }| Error::AdjustmentOutOfRange { engine, counter, day: stamp.day() };
        let (adjustment, event) = adjusted.map_err(refused)?;
        if waits {
            return Ok(Done {
                outcome: Outcome::Deferred(adjust.engine),
                replayed: false,
                standing: None,
                stops: Vec::new(),
            });
        }
        let corrected = corrected
            .plus(event.movement)
            .ok_or_else(|| refused(OutOfRange { engine: event.engine.clone(), counter: correction.counter() }))?;
        self.corrected.insert(seq, corrected);
        Ok(self.done(item, stamp, event, Outcome::Adjusted(adjustment)))
    }
}
