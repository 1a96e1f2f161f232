//! Caps and amounts are exact decimals: compared as text, never as floats.

use super::{Step, run, uncapped, upsert};
use crate::support::Service;
use serde_json::json;

#[tokio::test]
async fn equality_passes_at_every_cap_and_one_millionth_more_does_not() {
    let service = Service::live().await;
    uncapped(&service, "GLOBAL").await;
    for (cap, reason, text) in [
        ("max_daily_exposure", "daily_exposure_exceeded", "Daily exposure cap exceeded (10.000001 > 10)"),
        ("max_open_risk", "open_risk_exceeded", "Open risk cap exceeded (10.000001 > 10)"),
    ] {
        for level in ["engine", "GLOBAL"] {
            let service = Service::live().await;
            uncapped(&service, "CAPITAL").await;
            let name = if level == "engine" { "CAPITAL" } else { "GLOBAL" };
            upsert(&service, json!({"engine": name, cap: 10})).await;
            let over = service.reserve("CAPITAL", "10.000001").await.ok();
            assert_eq!(json!([over["reason"], over["message"]]), json!([reason, format!("{name} hard stop: {text}")]));
            assert_eq!(service.reserve("CAPITAL", "10").await.ok()["ok"], true);
            let over = service.reserve("CAPITAL", "0.000001").await.ok();
            assert_eq!(json!([over["reason"], over["message"]]), json!([reason, format!("{name} hard stop: {text}")]));
        }
    }
}

#[tokio::test]
async fn one_millionth_below_the_loss_cap_still_passes_and_reaching_it_does_not() {
    let service = Service::live().await;
    run(&service, &Step::Lose("WHOLESALE", "199.999999")).await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    run(&service, &Step::Lose("WHOLESALE", "0.000001")).await;
    assert_eq!(
        service.reserve("WHOLESALE", "1").await.ok()["message"],
        "WHOLESALE hard stop: Daily loss cap already reached (200 >= 200)"
    );
}

#[tokio::test]
async fn a_tenth_and_two_tenths_are_three_tenths() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "0.1").await.ok();
    let answer = service.reserve("WHOLESALE", "\"0.2\"").await;
    assert!(answer.text.contains(r#""exposure_used":0.3,"#), "{}", answer.text);
    assert!(answer.text.contains(r#""open_risk_reserved":0.3,"#));
    let ledger = service.get("/risk/ledger/today").await.text;
    assert_eq!(ledger.matches(r#""open_risk_reserved":0.3,"#).count(), 2);
    assert_eq!(ledger.matches(r#""exposure":999.7,"#).count(), 1);
}

#[tokio::test]
async fn the_sum_of_two_floats_is_told_how_to_be_sent() {
    let service = Service::live().await;
    let sentence = service.reserve("WHOLESALE", "0.30000000000000004").await.invalid("amount");
    assert_eq!(sentence, r#"has 17 decimals, at most 6: round it, or send "0.3""#);
}

#[tokio::test]
async fn amounts_come_back_digit_by_digit_however_they_are_spelt() {
    let service = Service::live().await;
    uncapped(&service, "EXACT").await;
    for (sent, shown) in [
        ("12345678901.123456", "12345678901.123456"),
        (r#""12345678901.123456""#, "12345678901.123456"),
        ("999999999999.999999", "999999999999.999999"),
        ("1000000000000", "1000000000000"),
        ("0.000001", "0.000001"),
        ("1e-6", "0.000001"),
        ("1.50", "1.5"),
        (r#""100.000000""#, "100"),
        ("4.35", "4.35"),
        ("9007199254.740993", "9007199254.740993"),
        ("1.1e3", "1100"),
    ] {
        let answer = service.reserve("EXACT", sent).await;
        assert!(answer.text.contains(&format!(r#""reserved":{shown},"#)), "{sent}: {}", answer.text);
        let id = answer.ok()["reservation_id"].as_str().unwrap().to_owned();
        let held = service.get(&format!("/risk/reservations/{id}")).await.text;
        assert!(held.contains(&format!(r#""amount":{shown},"open_amount":{shown},"#)), "{held}");
    }
}

#[tokio::test]
async fn totals_beyond_the_precision_of_a_double_stay_exact() {
    let service = Service::live().await;
    uncapped(&service, "EXACT").await;
    for _ in 0..3 {
        service.reserve("EXACT", "999999999999.999999").await.ok();
    }
    let ledger = service.get("/risk/ledger/today").await.text;
    assert_eq!(
        ledger.matches(r#""exposure_used":2999999999999.999997,"open_risk_reserved":2999999999999.999997,"#).count(),
        2,
        "{ledger}"
    );
}

#[tokio::test]
async fn a_cap_is_compared_exactly_where_a_double_would_not_tell() {
    let service = Service::live().await;
    uncapped(&service, "EXACT").await;
    upsert(&service, json!({"engine": "EXACT", "max_open_risk": "900719925474.099301"})).await;
    assert_eq!(
        service.reserve("EXACT", "900719925474.099302").await.ok()["message"],
        "EXACT hard stop: Open risk cap exceeded (900719925474.099302 > 900719925474.099301)"
    );
    assert_eq!(service.reserve("EXACT", "900719925474.099301").await.ok()["ok"], true);
}
