//! Adjust: a signed correction of a booked loss or exposure. It names the event that it corrects and a reason, and is
//! booked today, because a closed day never changes. An outstanding amount is corrected by a settle or a release, not
//! here.

use super::{Annotations, Book, Floor, LedgerSnapshot, Movement, OutOfRange, RiskAction, RiskEvent};
use crate::approval::model::ApprovalAction;
use crate::audit::Stamp;
use crate::types::{Amount, Engine, Measured, Total};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The corrected counter and the amount; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    /// A change of the day's realised loss.
    Loss(Measured),
    /// A change of the day's exposure.
    Exposure(Measured),
}

impl Correction {
    /// True if it makes room under a cap.
    #[must_use]
    pub fn is_downwards(self) -> bool {
        self.delta().units() < 0
    }

    /// The kind of loosening, for approval; none for an upward correction.
    #[must_use]
    pub fn loosening(self) -> Option<ApprovalAction> {
        self.is_downwards().then_some(ApprovalAction::Correct)
    }

    /// The signed amount.
    #[must_use]
    pub const fn delta(self) -> Measured {
        let (Self::Loss(by) | Self::Exposure(by)) = self;
        by
    }

    /// The counter's name, as refusals use it.
    #[must_use]
    pub fn counter(self) -> &'static str {
        match self {
            Self::Loss(_) => "realized_loss",
            Self::Exposure(_) => "exposure_used",
        }
    }

    /// The changes to the day's counters.
    #[must_use]
    pub fn movement(self) -> Movement {
        match self {
            Self::Loss(delta) => Movement { loss: delta.into(), ..Movement::default() },
            Self::Exposure(delta) => Movement { exposure: delta.into(), ..Movement::default() },
        }
    }

    /// The most that can still be taken back from an event: its booking, plus later corrections.
    #[must_use]
    pub fn left(self, booked: Movement, corrected: Movement) -> Total {
        let counter = |movement: Movement| match self {
            Self::Loss(_) => movement.loss,
            Self::Exposure(_) => movement.exposure,
        };
        // A sum beyond the largest total exceeds any correction.
        counter(booked).max(Total::ZERO).plus(counter(corrected)).unwrap_or(Total::MAX)
    }
}

/// A requested correction.
#[derive(Debug, Clone)]
pub struct Adjust {
    /// The engine of the corrected event.
    pub engine: Engine,
    /// The number of the corrected event.
    pub corrects_seq: i64,
    /// The reservation of the corrected event, if it has one.
    pub reservation_id: Option<Uuid>,
    /// The counter and the amount.
    pub correction: Correction,
}

/// The outcome of a correction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adjustment {
    /// The number of the corrected event.
    pub corrects_seq: i64,
    /// The addition to the day's loss.
    pub loss_delta: Total,
    /// The addition to the day's exposure.
    pub exposure_delta: Total,
    /// Remarks: `… daily loss cap reached`.
    pub flags: Vec<String>,
    /// The engine's counters after the correction.
    pub ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after the correction.
    pub ledger_global: LedgerSnapshot,
    /// The counters of GLOBAL that it brought to their caps. Only for the log; no event has it.
    #[serde(skip)]
    pub filled: Vec<&'static str>,
}

/// Books a correction, moving the book. Nothing falls below zero: at most the amount that was booked today can be taken
/// back today.
pub fn apply(
    book: &mut Book,
    adjust: &Adjust,
    annotations: Annotations,
    stamp: Stamp,
) -> Result<(Adjustment, RiskEvent), OutOfRange> {
    let movement = adjust.correction.movement();
    book.post(&adjust.engine, movement, Floor::Refuses, stamp.at)?;
    let (ledger_engine, ledger_global) = book.ledgers(&adjust.engine, stamp.day());
    let adjustment = Adjustment {
        corrects_seq: adjust.corrects_seq,
        loss_delta: movement.loss,
        exposure_delta: movement.exposure,
        flags: book.loss_flags(&adjust.engine),
        ledger_engine,
        ledger_global,
        filled: book.filled(movement),
    };
    let event = RiskEvent {
        engine: adjust.engine.clone(),
        action: RiskAction::Adjust,
        // The magnitude of a value fits an amount.
        amount: Amount::from_units(adjust.correction.delta().units().abs()).unwrap_or_default(),
        denial: None,
        reservation_id: adjust.reservation_id,
        movement,
        annotations,
        detail: String::new(),
    }
    .telling(&adjustment, book.form, stamp);
    Ok((adjustment, event))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{held, stamp};
    use super::*;

    fn value(text: &str) -> Measured {
        text.parse().unwrap()
    }

    fn total(text: &str) -> Total {
        text.parse().unwrap()
    }

    /// An exposure of 40 and a loss of 10 on A; GLOBAL has the same again from another engine.
    fn booked() -> Book {
        let mut book = held(Uuid::from_u128(1), "40", None);
        for (engine, exposure, loss) in [("A", "40", "10"), ("GLOBAL", "80", "20")] {
            let usage = &mut book.levels.get_mut(&engine.parse().unwrap()).unwrap().usage;
            (usage.exposure_used, usage.realized_loss) = (total(exposure), total(loss));
        }
        book
    }

    fn run(book: &mut Book, correction: Correction) -> Result<(Adjustment, RiskEvent), OutOfRange> {
        let adjust = Adjust { engine: "A".parse().unwrap(), corrects_seq: 1, reservation_id: None, correction };
        apply(book, &adjust, Annotations::default(), stamp(9))
    }

    #[test]
    fn a_correction_moves_its_counter_on_both_levels_and_no_other() {
        for (text, amount) in [("0.000001", "0.000001"), ("-0.000001", "0.000001"), ("5", "5"), ("-10", "10")] {
            for (correction, of_loss) in
                [(Correction::Loss(value(text)), true), (Correction::Exposure(value(text)), false)]
            {
                let mut book = booked();
                let (adjustment, event) = run(&mut book, correction).unwrap();
                let (loss, exposure) = if of_loss { (total(text), Total::ZERO) } else { (Total::ZERO, total(text)) };
                assert_eq!((adjustment.loss_delta, adjustment.exposure_delta), (loss, exposure));
                assert_eq!(event.movement, Movement { exposure, loss, ..Movement::default() });
                assert_eq!((event.action, event.amount), (RiskAction::Adjust, amount.parse().unwrap()));
                for (engine, before) in [("A", ("40", "10")), ("GLOBAL", ("80", "20"))] {
                    let usage = book.level(&engine.parse().unwrap()).usage;
                    assert_eq!(usage.exposure_used, total(before.0).plus(exposure).unwrap());
                    assert_eq!(usage.realized_loss, total(before.1).plus(loss).unwrap());
                    assert_eq!((usage.open_risk_reserved, usage.actions_count), (total("40"), 1));
                }
                let told: Adjustment = serde_json::from_str(&event.detail).unwrap();
                assert_eq!(told, adjustment);
            }
        }
    }

    #[test]
    fn an_event_gives_back_what_it_booked_and_what_was_added_and_no_more() {
        let of = |loss: &str| Movement { loss: total(loss), exposure: total("1"), ..Movement::default() };
        for (booked, corrected, left) in [
            ("10", "0", "10"),
            ("10", "-4", "6"),
            ("10", "-10", "0"),
            ("10", "3", "13"),
            ("0", "0", "0"),
            ("-5", "0", "0"),
        ] {
            assert_eq!(
                Correction::Loss(value("-1")).left(of(booked), of(corrected)),
                total(left),
                "{booked} {corrected}"
            );
        }
        assert_eq!(Correction::Exposure(value("-1")).left(of("9"), of("9")), total("2"));
    }

    #[test]
    fn down_to_zero_and_no_further_on_either_level() {
        for (correction, counter) in [
            (Correction::Loss as fn(Measured) -> Correction, "realized_loss"),
            (Correction::Exposure as fn(Measured) -> Correction, "exposure_used"),
        ] {
            let all = if counter == "realized_loss" { "-10" } else { "-40" };
            assert!(run(&mut booked(), correction(value(all))).is_ok());
            let mut book = booked();
            let before = book.levels.clone();
            let refused = run(&mut book, correction(value(&format!("{all}.000001")))).unwrap_err();
            assert_eq!((refused.engine.as_str(), refused.counter), ("A", counter));
            assert_eq!(book.levels, before);
            // Damaged from outside: GLOBAL has less than its engine.
            let global = &mut book.levels.get_mut(&Engine::global()).unwrap().usage;
            (global.exposure_used, global.realized_loss) = (total("1"), total("1"));
            let before = book.levels.clone();
            let refused = run(&mut book, correction(value("-2"))).unwrap_err();
            assert_eq!((refused.engine.as_str(), refused.counter), ("GLOBAL", counter));
            assert_eq!(book.levels, before);
        }
    }

    #[test]
    fn a_loss_that_reaches_a_cap_is_flagged_and_a_cap_of_zero_is_none() {
        // The caps of A and of GLOBAL, a loss that brings them to 15 and 25, and the flags.
        for (own, global, flags) in [
            ("15", "25", &["GLOBAL daily loss cap reached", "A daily loss cap reached"][..]),
            ("15.000001", "25", &["GLOBAL daily loss cap reached"]),
            ("14.999999", "25.000001", &["A daily loss cap reached"]),
            ("0", "0", &[]),
        ] {
            let mut book = booked();
            for (engine, cap) in [("A", own), ("GLOBAL", global)] {
                let level = book.levels.get_mut(&engine.parse().unwrap()).unwrap();
                level.policy.as_mut().unwrap().max_daily_loss = cap.parse().unwrap();
            }
            let (adjustment, _) = run(&mut book, Correction::Loss(value("5"))).unwrap();
            assert_eq!(adjustment.flags, flags, "{own} {global}");
        }
    }

    #[test]
    fn a_sum_beyond_the_largest_total_is_refused_and_moves_nothing() {
        let mut book = booked();
        let most = Total::from_units(10_i128.pow(28) - 1).unwrap();
        for level in book.levels.values_mut() {
            level.usage.realized_loss = most;
        }
        let before = book.levels.clone();
        assert!(run(&mut book, Correction::Loss(value("1000000000000"))).is_err());
        assert_eq!(book.levels, before);
    }
}
