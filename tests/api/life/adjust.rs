//! Corrections of what was booked.

use super::{hold, leaves_no_trace, level, policy, snapshot, tell};
use crate::support::{Answer, Service};
use serde_json::{Value, json};

/// Corrects an event.
#[track_caller]
fn adjust(service: &Service, seq: i64, delta: (&str, &str), more: &Value) -> impl Future<Output = Answer> + use<> {
    let mut body = json!({"corrects_seq": seq, "reason": "told wrong"});
    body[delta.0] = json!(delta.1);
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service.post("/risk/adjustments", &body)
}

/// A reserve of 100, event 1, settled with a loss of 10, event 2.
async fn booked() -> (Service, String) {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "100").await;
    tell(&service, &id, "settle", &json!({"realized_loss": 10})).await.ok();
    (service, id)
}

#[tokio::test]
async fn loss_and_exposure_are_corrected_up_and_down_on_both_levels() {
    let (service, id) = booked().await;
    for (seq, delta, expected) in [
        (2, ("loss_delta", "5.5"), json!([100, 0, 15.5, 1])),
        (2, ("loss_delta", "-15.5"), json!([100, 0, 0, 1])),
        (1, ("exposure_delta", "0.000001"), json!([100.000_001, 0, 0, 1])),
        (1, ("exposure_delta", "-100.000001"), json!([0, 0, 0, 1])),
    ] {
        let answer = adjust(&service, seq, delta, &json!({})).await.ok();
        assert_eq!(json!([answer["ok"], answer["message"], answer["corrects_seq"]]), json!([true, "Adjusted", seq]));
        assert_eq!(answer[delta.0], serde_json::from_str::<Value>(delta.1).unwrap());
        for engine in ["WHOLESALE", "GLOBAL"] {
            assert_eq!(level(&service, engine).await, expected, "{delta:?} {engine}");
        }
        assert_eq!(snapshot(&answer["ledger_engine"]), expected);
        assert_eq!(snapshot(&answer["ledger_global"]), expected);
    }
    let events = super::events(&service, "ADJUST").await;
    let moved: Vec<_> = events
        .iter()
        .rev()
        .map(|event| json!([event["amount"], event["loss_delta"], event["exposure_delta"]]))
        .collect();
    assert_eq!(
        json!(moved),
        json!([[5.5, 5.5, 0], [15.5, -15.5, 0], [0.000_001, 0, 0.000_001], [100.000_001, 0, -100.000_001]])
    );
    assert!(events.iter().all(|event| event["reservation_id"] == id.as_str() && event["reason"] == "told wrong"));
}

#[tokio::test]
async fn nothing_is_taken_back_below_zero_and_nothing_moves() {
    let (service, _) = booked().await;
    // Another engine's share of GLOBAL is not this one's to take.
    let other = hold(&service, "CAPITAL", "500").await;
    tell(&service, &other, "settle", &json!({"realized_loss": 100})).await.ok();
    for (delta, counter) in
        [(("loss_delta", "-10.000001"), "realized_loss"), (("exposure_delta", "-100.000001"), "exposure_used")]
    {
        let answer = leaves_no_trace!(service, adjust(&service, 1, delta, &json!({})).await);
        let refused = answer.refused(409, "ADJUSTMENT_OUT_OF_RANGE");
        assert_eq!(json!([refused["engine"], refused["counter"]]), json!(["WHOLESALE", counter]));
    }
}

#[tokio::test]
async fn corrections_of_an_event_take_back_no_more_than_it_booked_together_and_in_one_batch() {
    let (service, _) = booked().await;
    // There is more on the day than this event booked.
    let other = hold(&service, "WHOLESALE", "50").await;
    tell(&service, &other, "settle", &json!({"realized_loss": 90})).await.ok();
    for (seq, delta, left) in
        [(2, ("loss_delta", "-10.000001"), 10), (1, ("loss_delta", "-1"), 0), (2, ("exposure_delta", "-1"), 0)]
    {
        let answer = leaves_no_trace!(service, adjust(&service, seq, delta, &json!({})).await);
        let refused = answer.refused(409, "ADJUSTMENT_OUT_OF_RANGE");
        assert_eq!(json!([refused["corrects_seq"], refused["left"]]), json!([seq, left]));
    }
    adjust(&service, 2, ("loss_delta", "-4"), &json!({})).await.ok();
    let correct = |delta: i64| json!({"op": "adjust", "corrects_seq": 2, "loss_delta": delta, "reason": "told wrong"});
    let batch = json!({"operations": [correct(-4), correct(-4), correct(2), correct(-4), correct(-1)]});
    let results = service.post("/risk/batch", &batch).await.ok()["results"].clone();
    let statuses: Vec<_> = results.as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!(json!(statuses), json!([200, 409, 200, 200, 409]), "{results}");
    let refused = adjust(&service, 2, ("loss_delta", "-1"), &json!({})).await.refused(409, "ADJUSTMENT_OUT_OF_RANGE");
    assert_eq!(refused["left"], 0);
    assert_eq!(level(&service, "WHOLESALE").await, json!([150, 0, 90, 2]));
}

#[tokio::test]
async fn what_a_correction_added_is_taken_back_once_whichever_event_is_named() {
    let (service, _) = booked().await;
    let other = hold(&service, "WHOLESALE", "50").await;
    tell(&service, &other, "settle", &json!({"realized_loss": 90})).await.ok();
    let correct = |seq: i64, delta: i64| json!({"op": "adjust", "corrects_seq": seq, "loss_delta": delta, "reason": "told wrong"});
    // Events 5 and 6 go back to event 2, which booked 10.
    adjust(&service, 2, ("loss_delta", "3"), &json!({})).await.ok();
    adjust(&service, 5, ("loss_delta", "-3"), &json!({})).await.ok();
    for (seq, delta, named, left) in [(2, "-11", 2, 10), (5, "-1", 5, 0), (6, "-1", 6, 0)] {
        let refused =
            adjust(&service, seq, ("loss_delta", delta), &json!({})).await.refused(409, "ADJUSTMENT_OUT_OF_RANGE");
        assert_eq!(json!([refused["corrects_seq"], refused["left"]]), json!([named, left]));
    }
    // In one batch: 7 adds 5 to 2, which gives 15 back, and 7 none then.
    let batch = json!({"operations": [correct(2, 5), correct(2, -15), correct(7, -5)]});
    let results = service.post("/risk/batch", &batch).await.ok()["results"].clone();
    let statuses: Vec<_> = results.as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!(json!(statuses), json!([200, 200, 409]), "{results}");
    assert_eq!(level(&service, "WHOLESALE").await, json!([150, 0, 90, 2]));
}

#[tokio::test]
async fn a_correction_is_of_an_event_that_booked_something() {
    let (service, _) = booked().await;
    service.reserve("NOTIFY", "1").await.ok();
    for seq in [0, 4, 1_000_000_000_000] {
        let answer = leaves_no_trace!(service, adjust(&service, seq, ("loss_delta", "1"), &json!({})).await);
        answer.refused(404, "NOT_FOUND");
    }
    let sentence =
        leaves_no_trace!(service, adjust(&service, 3, ("loss_delta", "1"), &json!({})).await).invalid("corrects_seq");
    assert!(sentence.contains("denial 3"), "{sentence}");
    for engine in ["CAPITAL", "GLOBAL"] {
        let answer =
            leaves_no_trace!(service, adjust(&service, 2, ("loss_delta", "1"), &json!({"engine": engine})).await);
        answer.refused(404, "NOT_FOUND");
    }
    adjust(&service, 2, ("loss_delta", "1"), &json!({"engine": "wholesale"})).await.ok();
    // A correction can be corrected.
    adjust(&service, 4, ("loss_delta", "-1"), &json!({})).await.ok();
    assert_eq!(level(&service, "WHOLESALE").await, json!([100, 0, 10, 1]));
}

#[tokio::test]
async fn a_correction_is_of_one_thing_not_of_nothing_and_says_why() {
    let (service, _) = booked().await;
    for (body, field) in [
        (json!({"reason": "r", "corrects_seq": 2}), "loss_delta"),
        (json!({"reason": "r", "corrects_seq": 2, "loss_delta": 0}), "loss_delta"),
        (json!({"reason": "r", "corrects_seq": 2, "exposure_delta": "0.000000"}), "loss_delta"),
        (json!({"reason": "r", "corrects_seq": 2, "loss_delta": 1, "exposure_delta": 1}), "loss_delta"),
        (json!({"reason": "r", "corrects_seq": 2, "loss_delta": "0.0000001"}), "loss_delta"),
        (json!({"reason": "r", "corrects_seq": 2, "loss_delta": "1e13"}), "loss_delta"),
        (json!({"reason": "r", "corrects_seq": -1, "loss_delta": 1}), "corrects_seq"),
        (json!({"reason": "r", "loss_delta": 1}), "corrects_seq"),
        (json!({"corrects_seq": 2, "loss_delta": 1}), "reason"),
        (json!({"reason": "", "corrects_seq": 2, "loss_delta": 1}), "reason"),
        (json!({"reason": "r", "corrects_seq": 2, "open_delta": 1}), "open_delta"),
    ] {
        let answer = leaves_no_trace!(service, service.post("/risk/adjustments", &body).await);
        let _ = answer.invalid(field);
    }
    // A zero beside a delta is none.
    adjust(&service, 2, ("loss_delta", "1"), &json!({"exposure_delta": 0})).await.ok();
}

#[tokio::test]
async fn yesterdays_event_is_corrected_today() {
    let (service, _) = booked().await;
    let before = service
        .count("SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM risk_ledger_day WHERE engine = 'GLOBAL'")
        .await;
    service.set_skew("1 day").await;
    let answer = leaves_no_trace!(service, adjust(&service, 2, ("loss_delta", "-10"), &json!({})).await);
    answer.refused(409, "ADJUSTMENT_OUT_OF_RANGE");
    let answer = adjust(&service, 2, ("loss_delta", "4"), &json!({})).await.ok();
    assert_eq!(snapshot(&answer["ledger_engine"]), json!([0, 0, 4, 0]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 0, 4, 0]));
    assert_eq!(super::events(&service, "ADJUST").await[0]["day"], answer["ledger_engine"]["day"]);
    let closed = "SELECT (extract(epoch FROM min(updated_at)) * 1000000)::bigint FROM risk_ledger_day
        WHERE engine = 'GLOBAL' AND realized_loss = 10";
    assert_eq!(service.count(closed).await, before, "the closed day is what it was");
}

#[tokio::test]
async fn a_correction_that_reaches_a_loss_cap_is_flagged_and_stops_reserves_and_one_back_lets_them_go_on() {
    let (service, _) = booked().await;
    let answer = adjust(&service, 2, ("loss_delta", "190"), &json!({})).await.ok();
    assert_eq!(answer["flags"], json!(["WHOLESALE daily loss cap reached"]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "daily_loss_reached");
    let answer = adjust(&service, 2, ("loss_delta", "50"), &json!({})).await.ok();
    assert_eq!(answer["flags"], json!(["GLOBAL daily loss cap reached", "WHOLESALE daily loss cap reached"]));
    let answer = adjust(&service, 2, ("loss_delta", "-50.000001"), &json!({})).await.ok();
    assert_eq!(answer["flags"], json!([]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_correction_goes_on_while_everything_is_off_and_beyond_every_cap() {
    let (service, _) = booked().await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    policy(&service, json!({"engine": "WHOLESALE", "enabled": false})).await;
    adjust(&service, 1, ("exposure_delta", "1000000000000"), &json!({})).await.ok();
    assert_eq!(level(&service, "GLOBAL").await, json!([1_000_000_000_100_i64, 0, 10, 1]));
}

#[tokio::test]
async fn the_same_correction_under_its_key_is_made_once() {
    let (service, _) = booked().await;
    let send = || adjust(&service, 2, ("loss_delta", "1"), &json!({"idempotency_key": "c-1"}));
    let first = send().await.ok();
    let again = leaves_no_trace!(service, send().await);
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let mut again = again.ok();
    assert_eq!(again["replayed"], true);
    again["replayed"] = json!(false);
    assert_eq!(again, first);
    let other = adjust(&service, 2, ("loss_delta", "2"), &json!({"idempotency_key": "c-1"})).await;
    let refused = other.refused(422, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(refused["errors"][0]["field"], "loss_delta");
}
