//! Alarms that operators must see at once: a day's loss at a cap, which stops one engine or all; a used-up cap of
//! GLOBAL, which stops all engines; and a token that tries to book more than it may.

use super::model::CAP_REACHED;
use super::operation::{Answered, Outcome};
use crate::error::Error;
use crate::types::Total;
use chrono::NaiveDate;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

fn settles_at_a_cap() -> metrics::Counter {
    metrics::counter!("holdfast_settles_at_loss_cap_total")
}

fn losses_refused() -> metrics::Counter {
    metrics::counter!("holdfast_losses_refused_total")
}

/// Creates the counters at the start: otherwise a counter's first event would show no increase.
pub(super) fn begin_counting() {
    settles_at_a_cap().increment(0);
    losses_refused().increment(0);
}

/// The alarms of a ledger, and those that were raised today.
#[derive(Debug, Clone, Default)]
pub(super) struct Alarms(Arc<Mutex<(NaiveDate, BTreeSet<&'static str>)>>);

impl Alarms {
    /// Raises the alarm of a new booking; a replay raises none.
    pub(super) fn raise(&self, done: &Answered) {
        let (day, filled) = match &done.outcome {
            _ if done.replayed => return,
            Outcome::Reserved(reserved) => (reserved.decision.ledger.day, &reserved.decision.filled),
            Outcome::Settled(settlement) => {
                lost(&settlement.flags);
                (settlement.ledger_global.day, &settlement.filled)
            }
            Outcome::Adjusted(adjustment) => {
                if adjustment.loss_delta > Total::ZERO {
                    lost(&adjustment.flags);
                }
                (adjustment.ledger_global.day, &adjustment.filled)
            }
            _ => return,
        };
        for cap in filled.iter().filter(|cap| self.is_first(day, cap)) {
            tracing::warn!(cap, "GLOBAL has reached its cap, which stops every engine: see GET /review");
        }
    }

    /// True if this alarm was not raised today. The outstanding amount can reach its cap after every settle.
    fn is_first(&self, day: NaiveDate, cap: &'static str) -> bool {
        let mut had = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if had.0 != day {
            *had = (day, BTreeSet::new());
        }
        had.1.insert(cap)
    }
}

/// Raises the alarm for a booking that exceeds its token's limit.
pub(super) fn refused(error: &Error) {
    if let Error::BeyondMaxLoss { what, amount, .. } = error {
        losses_refused().increment(1);
        tracing::error!(%amount, what, "a booking above its token's limit was refused and is not recorded");
    }
}

fn lost(flags: &[String]) {
    let caps: Vec<_> = flags.iter().filter(|flag| flag.ends_with(CAP_REACHED)).map(String::as_str).collect();
    if !caps.is_empty() {
        settles_at_a_cap().increment(1);
        tracing::error!(
            caps = caps.join(", "),
            "the day's loss has reached a cap: reserves are denied until midnight UTC"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_of_global_is_said_once_a_day() {
        let (alarms, day) = (Alarms::default(), |day| NaiveDate::from_ymd_opt(2040, 1, day).unwrap());
        let said = [(1, "max_open_risk"), (1, "max_open_risk"), (1, "max_daily_exposure"), (2, "max_open_risk")];
        assert_eq!(said.map(|(on, cap)| alarms.is_first(day(on), cap)), [true, false, true, true]);
    }
}
