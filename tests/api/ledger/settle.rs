//! Settling by id.

use super::{hold, level, reservation, settle, snapshot};
use crate::support::Service;
use serde_json::json;

#[tokio::test]
async fn an_exact_settle_returns_the_risk_and_keeps_the_exposure() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    let answer = settle(&service, json!({"reservation_id": id})).await;
    let flat = json!([answer["ok"], answer["message"], answer["flags"], answer["released"], answer["unmatched"]]);
    assert_eq!(flat, json!([true, "Settled", [], 400, 0]));
    assert_eq!(answer["reservations"], json!([{"reservation_id": id, "released": 400, "status": "SETTLED"}]));
    assert_eq!(snapshot(&answer["ledger_engine"]), json!([400, 0, 0, 1]));
    assert_eq!(snapshot(&answer["ledger_global"]), json!([400, 0, 0, 1]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([400, 0, 0, 1]));
    let held = reservation(&service, &id).await;
    assert_eq!(
        json!([held["status"], held["amount"], held["open_amount"], held["closed_seq"]]),
        json!(["SETTLED", 400, 0, 2])
    );
    assert!(held["closed_at"].is_string());
}

#[tokio::test]
async fn settling_for_less_gives_todays_exposure_back() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    let answer = settle(&service, json!({"reservation_id": id, "settled_amount": "150.5"})).await;
    assert_eq!(json!([answer["flags"], answer["released"]]), json!([[], 400]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([150.5, 0, 0, 1]));
    assert_eq!(level(&service, "GLOBAL").await, json!([150.5, 0, 0, 1]));
}

#[tokio::test]
async fn settling_for_nothing_gives_all_of_todays_exposure_back_but_not_the_action() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    settle(&service, json!({"reservation_id": id, "settled_amount": 0})).await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 0, 0, 1]));
}

#[tokio::test]
async fn an_overrun_is_recorded_in_full_and_flagged_even_beyond_the_caps() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    let answer = settle(&service, json!({"reservation_id": id, "settled_amount": 5000})).await;
    assert_eq!(json!([answer["flags"], answer["released"]]), json!([["overrun"], 400]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([5000, 0, 0, 1]));
    assert_eq!(
        service.reserve("WHOLESALE", "1").await.ok()["message"],
        "GLOBAL hard stop: Daily exposure cap exceeded (5001 > 1500)"
    );
}

#[tokio::test]
async fn a_loss_is_booked_on_both_levels() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    let answer = settle(&service, json!({"reservation_id": id, "realized_loss": "12.25"})).await;
    assert_eq!(answer["flags"], json!([]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([400, 0, 12.25, 1]));
    assert_eq!(level(&service, "GLOBAL").await, json!([400, 0, 12.25, 1]));
    assert_eq!(level(&service, "CAPITAL").await, json!([0, 0, 0, 0]));
}

#[tokio::test]
async fn a_loss_that_reaches_a_cap_is_flagged_and_stops_later_reserves() {
    let service = Service::live().await;
    let (first, second) = (hold(&service, "WHOLESALE", "1", None).await, hold(&service, "CAPITAL", "1", None).await);
    let answer = settle(&service, json!({"reservation_id": first, "realized_loss": 200})).await;
    assert_eq!(answer["flags"], json!(["WHOLESALE daily loss cap reached"]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "daily_loss_reached");
    let third = hold(&service, "CAPITAL", "1", None).await;
    let answer = settle(&service, json!({"reservation_id": second, "realized_loss": 150, "settled_amount": 2})).await;
    assert_eq!(answer["flags"], json!(["overrun", "GLOBAL daily loss cap reached", "CAPITAL daily loss cap reached"]));
    let denied = service.reserve("CAPITAL", "1").await.ok();
    assert_eq!(
        json!([denied["scope"], denied["message"]]),
        json!(["GLOBAL", "GLOBAL hard stop: Daily loss cap already reached (350 >= 250)"])
    );
    // A position stays closable, and its loss counts, too.
    let answer = settle(&service, json!({"reservation_id": third, "realized_loss": 1})).await;
    assert_eq!(answer["ledger_global"]["realized_loss"], 351);
}

#[tokio::test]
async fn engine_and_reserved_amount_are_optional_with_an_id_and_accepted_when_they_agree() {
    let service = Service::live().await;
    for body in [
        json!({}),
        json!({"engine": "wholesale"}),
        json!({"reserved_amount": "10.00"}),
        json!({"engine": "WHOLESALE", "reserved_amount": 10}),
    ] {
        let mut body = body;
        body["reservation_id"] = json!(hold(&service, "WHOLESALE", "10", None).await);
        assert_eq!(settle(&service, body).await["released"], 10);
    }
}

#[tokio::test]
async fn a_reserved_amount_that_disagrees_is_refused_and_leaves_no_trace() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "10", None).await;
    let events = service.events().await;
    for wrong in ["9.999999", "10.000001", "0"] {
        let body = json!({"reservation_id": id, "reserved_amount": wrong});
        let sentence = service.post("/risk/settle", &body).await.invalid("reserved_amount");
        assert!(sentence.contains("10 was reserved"), "{sentence}");
    }
    assert_eq!(service.events().await, events);
    assert_eq!(reservation(&service, &id).await["status"], "OPEN");
}

#[tokio::test]
async fn an_unknown_reservation_and_another_engines_are_both_404() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "10", None).await;
    let events = service.events().await;
    for body in [
        json!({"reservation_id": "00000000-0000-7000-8000-000000000000"}),
        json!({"reservation_id": id, "engine": "CAPITAL"}),
        json!({"reservation_id": id, "engine": "GLOBAL"}),
        json!({"reservation_id": id, "engine": "NOBODY"}),
    ] {
        service.post("/risk/settle", &body).await.refused(404, "NOT_FOUND");
    }
    let _ = service.post("/risk/settle", &json!({"reservation_id": "x"})).await.invalid("reservation_id");
    assert_eq!(service.events().await, events);
    assert_eq!(reservation(&service, &id).await["status"], "OPEN");
}

#[tokio::test]
async fn settling_again_is_refused_with_the_recorded_outcome_and_has_no_effect() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    settle(&service, json!({"reservation_id": id, "settled_amount": 300, "realized_loss": 7})).await;
    let (events, before) = (service.events().await, level(&service, "WHOLESALE").await);
    for body in [
        json!({"reservation_id": id, "settled_amount": 300, "realized_loss": 7}),
        json!({"reservation_id": id, "realized_loss": 100}),
        json!({"reservation_id": id, "engine": "WHOLESALE", "reserved_amount": 400}),
    ] {
        let refused = service.post("/risk/settle", &body).await.refused(409, "ALREADY_SETTLED");
        assert_eq!(refused["reservation_id"], id.as_str());
        let outcome = &refused["settled"];
        assert_eq!(
            json!([outcome["settled_amount"], outcome["realized_loss"], outcome["released"]]),
            json!([300, 7, 400])
        );
    }
    assert_eq!(service.events().await, events);
    assert_eq!(level(&service, "WHOLESALE").await, before);
}

#[tokio::test]
async fn an_unacceptable_settle_leaves_no_trace() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "10", None).await;
    let events = service.events().await;
    for (field, value) in [
        ("settled_amount", json!(-1)),
        ("realized_loss", json!(-0.5)),
        ("realized_loss", json!("1e13")),
        ("settled_amount", json!("0.1234567")),
        ("loss", json!(1)),
    ] {
        let mut body = json!({"reservation_id": id});
        body[field] = value;
        let _ = service.post("/risk/settle", &body).await.invalid(field);
    }
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn a_settle_is_one_event_with_what_it_moved() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    let body = json!({"reservation_id": id, "settled_amount": 100, "realized_loss": 3, "actor": "bot", "reason": "done",
        "correlation_id": "c-9"});
    settle(&service, body).await;
    let page = service.get("/risk/events?action=SETTLE").await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let event = &page["items"][0];
    let flat = json!([
        event["seq"],
        event["ok"],
        event["engine"],
        event["amount"],
        event["reservation_id"],
        event["exposure_delta"],
        event["open_delta"],
        event["loss_delta"],
        event["actions_delta"],
        event["actor"],
        event["reason"],
        event["correlation_id"],
        event["detail"]["released"]
    ]);
    assert_eq!(flat, json!([2, true, "WHOLESALE", 100, id, -300, -400, 3, 0, "bot", "done", "c-9", 400]));
}

#[tokio::test]
async fn every_position_can_be_closed_whatever_the_switches_and_policies_say() {
    let service = Service::live().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(hold(&service, "WHOLESALE", "10", None).await);
    }
    let mut next = ids.into_iter();
    let mut close = async |what: &str| {
        let id = next.next().unwrap();
        let body = json!({"reservation_id": id, "realized_loss": 1});
        assert_eq!(settle(&service, body).await["released"], 10, "{what}");
        assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false, "{what}");
    };
    let off = json!({"engine": "WHOLESALE", "enabled": false});
    service.post("/risk/policies/upsert", &off).await.ok();
    close("engine disabled").await;
    let off = json!({"engine": "GLOBAL", "enabled": false});
    service.post("/risk/policies/upsert", &off).await.ok();
    close("GLOBAL disabled").await;
    service.post("/go-live/disable", &json!({"actor": "a"})).await.ok();
    close("not live").await;
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    close("killed").await;
    // By amount, too.
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 10, "settled_amount": 10});
    assert_eq!(settle(&service, body).await["released"], 10);
}

#[tokio::test]
async fn a_reservation_that_was_lowered_is_settled_by_id_for_what_is_left() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "100", None).await;
    let part = json!({"engine": "WHOLESALE", "reserved_amount": 60});
    settle(&service, part).await;
    let answer = settle(&service, json!({"reservation_id": id, "reserved_amount": 40})).await;
    assert_eq!(json!([answer["released"], answer["flags"]]), json!([40, []]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([100, 0, 0, 1]));
}
