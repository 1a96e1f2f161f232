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

/// A book with reservations of these amounts, with ids 1, 2, 3 …
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
            reserve::apply(&mut book, &request, Annotations::default(), stamp(i64::try_from(seq).unwrap())).unwrap();
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
            beyond: Beyond::Nothing,
        },
        settled_amount: settled.map(amount),
        realized_loss: Amount::ZERO,
    }
}

fn run(book: &mut Book, settle: &Settle, stamp: Stamp) -> Settlement {
    apply(book, settle, Annotations::default(), stamp).unwrap().0
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
    // Midnight: the flows are new, the outstanding amount stays.
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
fn a_hold_that_is_left_open_with_dust_is_named_and_one_with_a_real_part_is_not() {
    for (reserved, settled, left) in [
        ("9999999999.999999", "9999999999.999998", Some("0.000001")),
        ("400", "399.990001", Some("0.009999")),
        ("1", "0.999999", Some("0.000001")),
        ("400", "399.99", None),
        ("400", "400", None),
        ("0.0001", "0.00009", None),
        ("0.5", "0.495", None),
    ] {
        let mut book = with(&[reserved]);
        let flags = run(&mut book, &matching(settled, &[1], None), stamp(9)).flags;
        let id = Uuid::from_u128(1);
        let wanted = left.map(|left| format!("dust_left: reservation {id} stays open with {left}"));
        assert_eq!(flags, wanted.into_iter().collect::<Vec<_>>(), "{settled} of {reserved}");
    }
}

#[test]
fn what_finds_no_match_is_reported_and_nothing_goes_below_zero() {
    let mut book = with(&["100"]);
    let settlement = run(&mut book, &matching("250", &[1], None), stamp(9));
    assert_eq!((settlement.released, settlement.unmatched), (total("100"), total("150")));
    assert_eq!(settlement.flags, ["over_release"]);
    assert_eq!(settlement.ledger_engine.open_risk_reserved, Total::ZERO);
    let nothing = run(&mut book, &matching("10", &[], Some("0")), stamp(10));
    assert_eq!(
        nothing.ledger_engine.exposure_used,
        total("100"),
        "an amount that was never reserved is not given back"
    );
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
    // Reserved today or not, the used part of 400, the exposure after it, and the flag.
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
