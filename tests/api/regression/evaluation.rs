//! Evaluations: their notes, exact numbers, and the drop that one finds.

use super::{EVALUATE, engine, evaluate, kpi, quiet, small_wire, state, trips, upsert, value};
use crate::support::Service;
use serde_json::{Value, json};

/// A wire that judges each event by the one before it.
async fn pair_wire(service: &Service, domain: &str, metric: &str) {
    let one = json!({"window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1});
    small_wire(service, domain, metric, one).await;
}

#[tokio::test]
async fn evaluating_what_nobody_watches_says_so_and_writes_nothing() {
    let service = Service::fresh().await;
    for (domain, metric) in [("NOBODY", "nothing"), ("WHOLESALE", "contract_rate")] {
        let state = evaluate(&service, domain, metric).await;
        assert_eq!(
            json!([state["note"], state["triggered"], state["status"], state["baseline"]]),
            json!(["policy_missing_or_disabled", false, "DISABLED", null])
        );
    }
    assert_eq!(service.count("SELECT count(*) FROM regression_state").await, 0);
    assert_eq!(service.events().await, 0);
    assert_eq!(state(&service, "NOBODY", "nothing").await, Value::Null);
    for (body, field) in
        [(json!({"domain": "D"}), "metric"), (json!({"domain": "D", "metric": "m", "reason": "x"}), "reason")]
    {
        service.post(EVALUATE, &body).await.invalid(field);
    }
}

#[tokio::test]
async fn every_note_has_the_originals_words_and_the_exact_numbers() {
    let service = Service::fresh().await;
    let note = async || evaluate(&service, "D", "m").await["note"].clone();
    small_wire(&service, "D", "m", json!({"max_drop_fraction": 0.5})).await;
    assert_eq!(note().await, "insufficient_events(recent=0, baseline=0)");
    assert_eq!(state(&service, "D", "m").await["status"], "WARMUP");
    quiet(&service, "D", "m", 3, true).await;
    assert_eq!(note().await, "insufficient_events(recent=3, baseline=0)");
    quiet(&service, "D", "m", 6, true).await;
    assert_eq!(note().await, "insufficient_events(recent=5, baseline=4)");
    quiet(&service, "D", "m", 1, true).await;
    assert_eq!(note().await, "OK drop=0.000");
    assert_eq!(state(&service, "D", "m").await["status"], "ARMED");
    quiet(&service, "D", "m", 5, true).await;
    quiet(&service, "D", "m", 1, false).await;
    let seen = evaluate(&service, "D", "m").await;
    assert_eq!(
        json!([seen["note"], seen["baseline"], seen["current"], seen["drop_fraction"]]),
        json!(["OK drop=0.200", 1, 0.8, 0.2])
    );
    quiet(&service, "D", "m", 1, false).await;
    kpi(&service, "D", "m", false).await;
    let seen = evaluate(&service, "D", "m").await;
    assert_eq!(
        json!([seen["note"], seen["baseline"], seen["current"], seen["drop_fraction"], seen["status"]]),
        json!(["TRIGGERED drop=0.600 action=THROTTLE", 1, 0.4, 0.6, "TRIPPED"])
    );
}

#[tokio::test]
async fn a_rise_is_a_negative_drop() {
    let service = Service::fresh().await;
    pair_wire(&service, "D", "m").await;
    value(&service, "D", "m", "9").await;
    value(&service, "D", "m", "10").await;
    let seen = evaluate(&service, "D", "m").await;
    assert_eq!(json!([seen["note"], seen["drop_fraction"]]), json!(["OK drop=-0.111", -0.111_111_111_111]));
}

#[tokio::test]
async fn a_baseline_that_is_not_positive_cannot_be_compared() {
    let service = Service::fresh().await;
    pair_wire(&service, "D", "rate").await;
    quiet(&service, "D", "rate", 2, false).await;
    pair_wire(&service, "D", "money").await;
    for amount in ["-5", "-500"] {
        assert_eq!(value(&service, "D", "money", amount).await["tripped"], Value::Null);
    }
    pair_wire(&service, "D", "zero").await;
    for amount in ["0", "-0.000001"] {
        assert_eq!(value(&service, "D", "zero", amount).await["tripped"], Value::Null);
    }
    for (metric, baseline, current) in
        [("rate", json!(0), json!(0)), ("money", json!(-5), json!(-500)), ("zero", json!(0), json!(-0.000_001))]
    {
        let seen = evaluate(&service, "D", metric).await;
        assert_eq!(
            json!([
                seen["note"],
                seen["status"],
                seen["baseline"],
                seen["current"],
                seen["drop_fraction"],
                seen["triggered"]
            ]),
            json!(["cannot_compute_rate", "ARMED", baseline, current, null, false]),
            "{metric}"
        );
    }
}

/// 200 events at 95 %, then 40 at 75 %, recorded while nobody watches; the evaluation finds the drop and acts.
#[tokio::test]
async fn an_evaluation_acts_when_it_finds_a_drop() {
    let service = Service::live().await;
    service.kpis("WHOLESALE", "contract_rate", 200, 20).await;
    service.kpis("WHOLESALE", "contract_rate", 40, 4).await;
    let on = json!({
        "domain": "WHOLESALE", "metric": "contract_rate", "window_events": 40, "min_events_to_enforce": 40, "enabled": true,
    });
    upsert(&service, on).await;
    assert_eq!(engine(&service, "WHOLESALE").await["enabled"], true);
    let state = evaluate(&service, "WHOLESALE", "contract_rate").await;
    assert_eq!(
        json!([state["triggered"], state["note"], state["baseline"], state["current"], state["drop_fraction"]]),
        json!([true, "TRIGGERED drop=0.211 action=THROTTLE", 0.95, 0.75, 0.210_526_315_789])
    );
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(
        json!([engine["enabled"], engine["reason"], engine["changed_by"]]),
        json!([false, "Regression tripwire: WHOLESALE.contract_rate drop=0.211", "friday"])
    );
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "policy_disabled");
}

/// The wire was enabled over a history that would trip it; the stream ends with another series' event.
#[tokio::test]
async fn a_trip_found_by_an_evaluation_names_the_last_event_of_its_own_series() {
    let service = Service::live().await;
    service.kpis("WHOLESALE", "m", 15, 0).await;
    let last = kpi(&service, "WHOLESALE", "m", false).await["id"].clone();
    kpi(&service, "CAPITAL", "other", true).await;
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    assert_eq!(evaluate(&service, "WHOLESALE", "m").await["triggered"], true);
    let trip = &trips(&service, "").await[0];
    assert_eq!((&trip["kpi_seq"], &trip["series_seq"]), (&last, &json!(16)));
}

#[tokio::test]
async fn values_are_compared_exactly_at_the_threshold() {
    // Baseline, the last value that holds, the first that trips; doubles miss the first tie: (0.3 - 0.24) / 0.3 < 0.2.
    let rows = [
        ("0.3", "0.240001", "0.24"),
        ("0.000005", "0.000005", "0.000004"),
        ("1000000000000", "800000000000.000001", "800000000000"),
        ("999999999999.999995", "799999999999.999997", "799999999999.999996"),
    ];
    let service = Service::live().await;
    for (row, (baseline, holds, trips)) in rows.into_iter().enumerate() {
        for (domain, second, acts) in [("HOLDS", holds, false), ("TRIPS", trips, true)] {
            let metric = format!("m{row}");
            pair_wire(&service, domain, &metric).await;
            value(&service, domain, &metric, baseline).await;
            let done = value(&service, domain, &metric, second).await;
            assert_eq!(done["tripped"].is_object(), acts, "row {row} {domain}: {done}");
        }
    }
}

#[tokio::test]
async fn sums_of_large_values_stay_exact() {
    let service = Service::live().await;
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    for _ in 0..15 {
        let done = value(&service, "WHOLESALE", "m", "999999999999.999999").await;
        assert_eq!(done["tripped"], Value::Null);
    }
    // One cent of a millionth above a drop of a fifth, then on it.
    value(&service, "WHOLESALE", "m", "0.000001").await;
    assert_eq!(trips(&service, "").await.len(), 0);
    let page = service.get("/regression/kpi?limit=2").await;
    assert!(
        page.text.contains(r#""value":0.000001,"#) && page.text.contains(r#""value":999999999999.999999,"#),
        "{}",
        page.text
    );
    let done = value(&service, "WHOLESALE", "m", "-1000000000000").await;
    assert!(done["tripped"].is_object());
    let text = service.get("/regression/trips").await.text;
    let sums = r#""baseline_events":10,"baseline_sum":9999999999999.99999,"current_events":5,"current_sum":1999999999999.999998,"#;
    assert!(text.contains(sums), "{text}");
}

#[tokio::test]
async fn means_of_large_values_are_shown_as_they_are() {
    let service = Service::fresh().await;
    for (metric, amount) in [("million", "9000001.5"), ("most", "1000000000000"), ("least", "-1000000000000")] {
        pair_wire(&service, "D", metric).await;
        value(&service, "D", metric, amount).await;
        value(&service, "D", metric, amount).await;
        let body = format!(r#"{{"domain":"D","metric":"{metric}"}}"#);
        let answer = service.post_text(EVALUATE, "application/json", &body).await;
        let means = format!(r#""baseline":{amount},"current":{amount},"#);
        assert!(answer.text.contains(&means), "{means} in {}", answer.text);
    }
}
