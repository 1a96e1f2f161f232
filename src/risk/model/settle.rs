//! Settle: the action is done, with this outcome. The risk is returned, the loss is booked, and a fact is never refused for
//! being large: an overrun is recorded in full and flagged.
//!
//! A settle names its reservation, or, as the original did, only an engine and an amount; then the caller's open
//! reservations are matched, oldest first, and what finds no match is reported instead of driving a counter below zero.

use super::{Book, Floor, LedgerSnapshot, Movement, OutOfRange, Reservation, ReservationStatus, RiskEvent, Words};
use crate::audit::Stamp;
use crate::db::to_json;
use crate::types::{Amount, Engine, Total};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most open reservations that one original settle looks at.
pub const MATCHES_MAX: usize = 1_000;

/// What is settled.
#[derive(Debug, Clone)]
pub enum Target {
    /// This reservation, which is open.
    Reservation(Uuid),
    /// This one, which expired with so much outstanding: the action was done, and is told late.
    Late(Uuid, Amount),
    /// Up to `reserved_amount` of these open reservations, in this order.
    Matching {
        /// What the caller believes to have reserved.
        reserved_amount: Amount,
        /// The candidates, oldest first.
        candidates: Vec<Uuid>,
    },
}

/// A settle that is asked for.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The engine.
    pub engine: Engine,
    /// What is settled.
    pub target: Target,
    /// What was really used; none means exactly what was reserved.
    pub settled_amount: Option<Amount>,
    /// What was lost.
    pub realized_loss: Amount,
}

/// What a settle did to one reservation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettledReservation {
    /// The reservation.
    pub reservation_id: Uuid,
    /// Open risk returned from it.
    pub released: Amount,
    /// Where it stands now.
    pub status: ReservationStatus,
}

/// What came of a settle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// `overrun`, `over_release`, and the caps that the day's loss has reached.
    pub flags: Vec<String>,
    /// Open risk returned.
    pub released: Total,
    /// What found no open reservation.
    pub unmatched: Total,
    /// What was really used.
    pub settled_amount: Amount,
    /// What was lost.
    pub realized_loss: Amount,
    /// Whether the reservation had expired before.
    #[serde(default)]
    pub late: bool,
    /// The reservations it touched, in order.
    pub reservations: Vec<SettledReservation>,
    /// The engine's counters after it.
    pub ledger_engine: LedgerSnapshot,
    /// GLOBAL's counters after it.
    pub ledger_global: LedgerSnapshot,
}

/// What a settle takes out of reservations.
#[derive(Default)]
struct Taken {
    touched: Vec<SettledReservation>,
    /// Open risk returned.
    released: i128,
    /// How much of what is settled was reserved today: only that can come back to today's exposure.
    today: i128,
}

/// Takes up to `wanted` out of the candidates that are live, in order.
fn take(book: &mut Book, candidates: &[Uuid], wanted: Amount, stamp: Stamp) -> Taken {
    let mut taken = Taken::default();
    for id in candidates {
        let rest = wanted.units() - taken.released;
        let Some(reservation) = book.reservations.get_mut(id).filter(|reservation| reservation.is_live(stamp.at))
        else {
            continue;
        };
        if rest <= 0 {
            break;
        }
        let units = rest.min(reservation.open_amount.units());
        // Both are amounts, and neither difference can be negative.
        let released = Amount::from_units(units).unwrap_or_default();
        reservation.open_amount = Amount::from_units(reservation.open_amount.units() - units).unwrap_or_default();
        if reservation.open_amount.is_zero() {
            reservation.close(ReservationStatus::Settled, stamp);
        }
        taken.released += units;
        if reservation.day == stamp.day() {
            taken.today += units;
        }
        taken.touched.push(SettledReservation { reservation_id: *id, released, status: reservation.status });
    }
    taken
}

/// Settles an expired reservation: its risk came back when it expired.
fn take_late(reservation: &mut Reservation, outstanding: Amount, stamp: Stamp) -> Taken {
    reservation.close(ReservationStatus::Settled, stamp);
    let touched = SettledReservation {
        reservation_id: reservation.id,
        released: Amount::ZERO,
        status: ReservationStatus::Settled,
    };
    let today = if reservation.day == stamp.day() { outstanding.units() } else { 0 };
    Taken { touched: vec![touched], released: 0, today }
}

/// Settles, moving the book.
pub fn apply(
    book: &mut Book,
    settle: &Settle,
    words: Words,
    stamp: Stamp,
) -> Result<(Settlement, RiskEvent), OutOfRange> {
    let out_of_range = || OutOfRange { engine: settle.engine.clone(), counter: "released" };
    let total = |units: i128| Total::from_units(units).ok_or_else(out_of_range);
    let (reservation_id, candidates, reserved) = match &settle.target {
        Target::Reservation(id) => {
            let open = book.reservations.get(id).map(|reservation| reservation.open_amount).unwrap_or_default();
            (Some(*id), vec![*id], open)
        }
        Target::Late(id, outstanding) => (Some(*id), vec![*id], *outstanding),
        Target::Matching { reserved_amount, candidates } => (None, candidates.clone(), *reserved_amount),
    };
    let late = matches!(settle.target, Target::Late(..));
    let before: Vec<_> = candidates.iter().filter_map(|id| book.reservations.get(id).cloned()).collect();
    let taken = match book.reservations.get_mut(&candidates.first().copied().unwrap_or_default()) {
        Some(reservation) if late => take_late(reservation, reserved, stamp),
        _ => take(book, &candidates, reserved, stamp),
    };
    let settled_amount = settle.settled_amount.unwrap_or(reserved);
    let over = settled_amount.units() - reserved.units();
    // Less than reserved gives exposure back, but only what today's exposure contains; more is used today in full.
    // What was claimed beyond what was found was never in it.
    let found = if late { reserved.units() } else { taken.released };
    let unused = (found - settled_amount.units()).max(0);
    let back = taken.today.min(unused).min(book.exposure_left(&settle.engine));
    let exposure = if over < 0 { -back } else { over };
    let posted = (|| {
        let movement = Movement {
            exposure: total(exposure)?,
            open: total(-taken.released)?,
            loss: settle.realized_loss.into(),
            actions: 0,
        };
        book.post(&settle.engine, movement, Floor::Holds, stamp.at).map(|()| movement)
    })();
    if posted.is_err() {
        // Others share the book: a refusal leaves it as it was.
        book.reservations.extend(before.into_iter().map(|one| (one.id, one)));
    }
    let movement = posted?;

    let unmatched = reserved.units() - found;
    let mut flags = Vec::new();
    if over > 0 {
        flags.push("overrun".to_owned());
    }
    if unmatched > 0 {
        flags.push("over_release".to_owned());
    }
    flags.extend(book.loss_flags(&settle.engine));
    let (ledger_engine, ledger_global) = book.ledgers(&settle.engine, stamp.day());
    let settlement = Settlement {
        flags,
        released: total(taken.released)?,
        unmatched: total(unmatched)?,
        settled_amount,
        realized_loss: settle.realized_loss,
        late,
        reservations: taken.touched,
        ledger_engine,
        ledger_global,
    };
    let event = RiskEvent {
        engine: settle.engine.clone(),
        action: "SETTLE",
        amount: settled_amount,
        denial: None,
        reservation_id,
        movement,
        words,
        detail: to_json(&settlement).get().to_owned(),
    };
    Ok((settlement, event))
}

#[cfg(test)]
mod tests {
    use super::super::reserve::{self, Reserve};
    use super::super::tests::{book, policy, stamp};
    use super::*;
    use chrono::Duration;
    use proptest::prelude::*;

    fn engine() -> Engine {
        "A".parse().unwrap()
    }

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    fn total(text: &str) -> Total {
        text.parse().unwrap()
    }

    /// A book with reservations of these amounts, ids 1, 2, 3 …
    fn with(amounts: &[&str]) -> Book {
        let mut book = book(vec![policy("GLOBAL", "250", "0", "0", "0"), policy("A", "200", "0", "0", "0")]);
        for (seq, text) in (1..).zip(amounts) {
            let request = Reserve {
                engine: engine(),
                amount: amount(text),
                id: Uuid::from_u128(seq),
                ttl: None,
                correlation_id: None,
            };
            let (decision, _) =
                reserve::apply(&mut book, &request, Words::default(), stamp(i64::try_from(seq).unwrap())).unwrap();
            assert!(decision.is_allowed());
        }
        book
    }

    fn by_id(id: u128, settled: Option<&str>, loss: &str) -> Settle {
        Settle {
            engine: engine(),
            target: Target::Reservation(Uuid::from_u128(id)),
            settled_amount: settled.map(amount),
            realized_loss: amount(loss),
        }
    }

    fn matching(wanted: &str, candidates: &[u128], settled: Option<&str>) -> Settle {
        Settle {
            engine: engine(),
            target: Target::Matching {
                reserved_amount: amount(wanted),
                candidates: candidates.iter().map(|&id| Uuid::from_u128(id)).collect(),
            },
            settled_amount: settled.map(amount),
            realized_loss: Amount::ZERO,
        }
    }

    fn run(book: &mut Book, settle: &Settle, stamp: Stamp) -> Settlement {
        apply(book, settle, Words::default(), stamp).unwrap().0
    }

    #[test]
    fn exact_settle_returns_the_risk_and_keeps_the_exposure() {
        let mut book = with(&["400"]);
        let settlement = run(&mut book, &by_id(1, None, "25"), stamp(9));
        assert_eq!(settlement.released, total("400"));
        assert_eq!(settlement.ledger_engine.exposure_used, total("400"));
        assert_eq!(settlement.ledger_engine.open_risk_reserved, Total::ZERO);
        assert_eq!(settlement.ledger_global.realized_loss, total("25"));
        assert!(settlement.flags.is_empty());
        assert_eq!(book.reservations[&Uuid::from_u128(1)].status, ReservationStatus::Settled);
    }

    #[test]
    fn less_gives_exposure_back_and_more_is_recorded_in_full() {
        let mut book = with(&["400", "100"]);
        assert_eq!(run(&mut book, &by_id(1, Some("150"), "0"), stamp(9)).ledger_engine.exposure_used, total("250"));
        let over = run(&mut book, &by_id(2, Some("1000000"), "0"), stamp(10));
        assert_eq!(over.ledger_engine.exposure_used, total("1000150"));
        assert_eq!(over.flags, ["overrun"]);
        assert_eq!(over.ledger_engine.open_risk_reserved, Total::ZERO);
    }

    #[test]
    fn a_hold_from_yesterday_returns_risk_and_no_exposure_of_today() {
        let mut book = with(&["400"]);
        // Midnight: the flows are new, the stock is not.
        for level in book.levels.values_mut() {
            level.usage.exposure_used = total("10");
        }
        let tomorrow = Stamp { seq: 9, at: stamp(9).at + Duration::days(1) };
        let settlement = run(&mut book, &by_id(1, Some("150"), "5"), tomorrow);
        assert_eq!(settlement.ledger_engine.exposure_used, total("10"));
        assert_eq!(settlement.ledger_engine.open_risk_reserved, Total::ZERO);
        assert_eq!(settlement.ledger_engine.day, tomorrow.day());
    }

    #[test]
    fn the_original_settle_takes_the_oldest_first_and_lowers_the_last() {
        let mut book = with(&["100", "100", "100"]);
        let settlement = run(&mut book, &matching("250", &[1, 2, 3], None), stamp(9));
        assert_eq!(settlement.unmatched, Total::ZERO);
        let taken: Vec<_> = settlement.reservations.iter().map(|one| (one.released.to_string(), one.status)).collect();
        assert_eq!(
            taken,
            [
                ("100".into(), ReservationStatus::Settled),
                ("100".into(), ReservationStatus::Settled),
                ("50".into(), ReservationStatus::Open)
            ]
        );
        assert_eq!(book.reservations[&Uuid::from_u128(3)].open_amount, amount("50"));
        assert_eq!(settlement.ledger_engine.open_risk_reserved, total("50"));
        assert_eq!(settlement.ledger_engine.exposure_used, total("300"));
    }

    #[test]
    fn what_finds_no_match_is_reported_and_nothing_goes_below_zero() {
        let mut book = with(&["100"]);
        let settlement = run(&mut book, &matching("250", &[1], None), stamp(9));
        assert_eq!((settlement.released, settlement.unmatched), (total("100"), total("150")));
        assert_eq!(settlement.flags, ["over_release"]);
        assert_eq!(settlement.ledger_engine.open_risk_reserved, Total::ZERO);
        let nothing = run(&mut book, &matching("10", &[], Some("0")), stamp(10));
        assert_eq!(nothing.ledger_engine.exposure_used, total("100"), "what was never reserved is not given back");
    }

    #[test]
    fn a_loss_that_reaches_a_cap_is_flagged_and_recorded() {
        let mut book = with(&["100", "100"]);
        assert_eq!(run(&mut book, &by_id(1, None, "200"), stamp(9)).flags, ["A daily loss cap reached"]);
        let both = ["GLOBAL daily loss cap reached", "A daily loss cap reached"];
        assert_eq!(run(&mut book, &by_id(2, None, "50"), stamp(10)).flags, both);
        assert_eq!(reserve::check(&book, &engine(), amount("1")).len(), 2);
    }

    #[test]
    fn a_late_settle_moves_exposure_of_today_alone_and_never_the_stock() {
        // Reserved today, what was really used of 400, the exposure after it, the flag.
        for (today, settled, exposure, flags) in [
            (true, None, "400", &[][..]),
            (true, Some("150"), "150", &[]),
            (true, Some("400.000001"), "400.000001", &["overrun"]),
            (false, None, "400", &[]),
            (false, Some("0"), "400", &[]),
            (false, Some("401"), "401", &["overrun"]),
        ] {
            let mut book = with(&["400"]);
            let (id, at) = (Uuid::from_u128(1), stamp(9).at + Duration::days(i64::from(!today)));
            book.reservations.get_mut(&id).unwrap().close(ReservationStatus::Expired, stamp(5));
            for level in book.levels.values_mut() {
                level.usage.open_risk_reserved = total("7");
            }
            let mut late = by_id(1, settled, "3");
            late.target = Target::Late(id, amount("400"));
            let settlement = run(&mut book, &late, Stamp { seq: 9, at });
            assert!(settlement.late);
            assert_eq!((settlement.released, settlement.unmatched), (Total::ZERO, Total::ZERO));
            assert_eq!(settlement.flags, flags, "{settled:?}");
            let ledger = settlement.ledger_global;
            let seen = (ledger.exposure_used, ledger.open_risk_reserved, ledger.realized_loss);
            assert_eq!(seen, (total(exposure), total("7"), total("3")), "{today} {settled:?}");
        }
    }

    proptest! {
        #[test]
        fn the_stock_is_always_the_sum_of_what_is_open(
            amounts in proptest::collection::vec(1_i128..1_000_000_000, 1..8),
            settles in proptest::collection::vec((0_i128..3_000_000_000, proptest::option::of(0_i128..3_000_000_000)), 1..8),
        ) {
            let texts: Vec<String> = amounts.iter().map(|&units| Amount::from_units(units).unwrap().to_string()).collect();
            let mut book = with(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let ids: Vec<u128> = (1..=texts.len() as u128).collect();
            for (seq, (wanted, settled)) in (100..).zip(settles) {
                let mut settle = matching(&Amount::from_units(wanted).unwrap().to_string(), &ids, None);
                settle.settled_amount = settled.and_then(Amount::from_units);
                let settlement = run(&mut book, &settle, stamp(seq));
                prop_assert_eq!(settlement.released.units() + settlement.unmatched.units(), wanted);
                let open: i128 = book.reservations.values().map(|one| one.open_amount.units()).sum();
                prop_assert_eq!(settlement.ledger_engine.open_risk_reserved.units(), open);
                prop_assert_eq!(settlement.ledger_global.open_risk_reserved.units(), open);
                prop_assert!(settlement.ledger_engine.exposure_used >= Total::ZERO);
            }
        }
    }
}
