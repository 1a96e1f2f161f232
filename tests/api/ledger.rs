//! The ledger over its life: settling, midnight, restarts, a clock that goes wrong, and the chain, recomputed in SQL alone.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use crate::support::{Service, Setup, broken_links};
use serde_json::{Value, json};
use sqlx::Executor;

/// Today's ledger of an engine: exposure, open risk, loss, actions.
async fn level(service: &Service, engine: &str) -> Value {
    let rows = service.get("/risk/ledger/today").await.ok();
    let row = rows.as_array().unwrap().iter().find(|row| row["engine"] == engine).unwrap();
    json!([row["exposure_used"], row["open_risk_reserved"], row["realized_loss"], row["actions_count"]])
}

/// The same out of a settle's answer.
fn snapshot(ledger: &Value) -> Value {
    json!([ledger["exposure_used"], ledger["open_risk_reserved"], ledger["realized_loss"], ledger["actions_count"]])
}

/// Reserves on a thread of the caller's; gives the id.
async fn hold(service: &Service, engine: &str, amount: &str, thread: Option<&str>) -> String {
    let body = json!({"engine": engine, "amount": amount, "actor": "bot", "correlation_id": thread});
    let answer = service.post("/risk/check-and-reserve", &body).await.ok();
    answer["reservation_id"].as_str().unwrap_or_else(|| panic!("denied: {answer}")).to_owned()
}

async fn settle(service: &Service, body: Value) -> Value {
    service.post("/risk/settle", &body).await.ok()
}

async fn reservation(service: &Service, id: &str) -> Value {
    service.get(&format!("/risk/reservations/{id}")).await.ok()
}

// Settle by id.

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

// Settle as the original did.

#[tokio::test]
async fn an_original_settle_matches_oldest_first_and_lowers_the_last() {
    let service = Service::live().await;
    let (a, b, c) = (
        hold(&service, "WHOLESALE", "100", None).await,
        hold(&service, "WHOLESALE", "50", None).await,
        hold(&service, "WHOLESALE", "70", None).await,
    );
    let other = hold(&service, "CAPITAL", "10", None).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 120});
    let answer = settle(&service, body).await;
    assert_eq!(json!([answer["flags"], answer["released"], answer["unmatched"]]), json!([[], 120, 0]));
    assert_eq!(
        answer["reservations"],
        json!([
            {"reservation_id": a, "released": 100, "status": "SETTLED"},
            {"reservation_id": b, "released": 20, "status": "OPEN"}
        ])
    );
    let lowered = reservation(&service, &b).await;
    assert_eq!(json!([lowered["amount"], lowered["open_amount"], lowered["closed_at"]]), json!([50, 30, null]));
    assert_eq!(reservation(&service, &c).await["open_amount"], 70);
    assert_eq!(reservation(&service, &other).await["open_amount"], 10);
    assert_eq!(level(&service, "WHOLESALE").await, json!([220, 100, 0, 3]));
    assert_eq!(level(&service, "GLOBAL").await, json!([230, 110, 0, 4]));
}

#[tokio::test]
async fn an_original_settle_again_takes_the_next_reservations() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "100", None).await;
    hold(&service, "WHOLESALE", "100", None).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 100});
    assert_eq!(settle(&service, body.clone()).await["released"], 100);
    assert_eq!(settle(&service, body.clone()).await["released"], 100);
    let third = settle(&service, body).await;
    assert_eq!(json!([third["released"], third["unmatched"]]), json!([0, 100]));
}

#[tokio::test]
async fn what_finds_no_reservation_is_unmatched_and_nothing_goes_below_zero() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "30", None).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 100, "realized_loss": 5});
    let answer = settle(&service, body).await;
    assert_eq!(json!([answer["flags"], answer["released"], answer["unmatched"]]), json!([["over_release"], 30, 70]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([30, 0, 5, 1]));
    // Nothing open at all, and nothing used of it: exposure of others is not given away.
    let body = json!({"engine": "CAPITAL", "reserved_amount": 100, "settled_amount": 0});
    let answer = settle(&service, body).await;
    assert_eq!(
        json!([answer["flags"], answer["released"], answer["unmatched"], answer["reservations"]]),
        json!([["over_release"], 0, 100, []])
    );
    assert_eq!(level(&service, "CAPITAL").await, json!([0, 0, 0, 0]));
    assert_eq!(level(&service, "GLOBAL").await, json!([30, 0, 5, 1]));
}

/// 100 was reserved, the caller says 200 and used 150: of what was reserved, everything was used.
#[tokio::test]
async fn exposure_that_was_used_is_not_given_back_because_the_claim_was_larger_than_the_reservations() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "100", None).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 200, "settled_amount": 150});
    let answer = settle(&service, body).await;
    assert_eq!(json!([answer["released"], answer["unmatched"]]), json!([100, 100]));
    let exposure = answer["ledger_engine"]["exposure_used"].as_u64().unwrap();
    assert!(exposure >= 100, "150 were used, exposure shows {exposure}");
}

#[tokio::test]
async fn a_correlation_restricts_the_match_when_any_reservation_ever_carried_it() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "100", Some("a")).await;
    let mine = hold(&service, "WHOLESALE", "100", Some("b")).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 100, "correlation_id": "b"});
    let answer = settle(&service, body.clone()).await;
    assert_eq!(answer["reservations"][0]["reservation_id"], mine.as_str());
    // It is settled now, but it did carry it: nobody else's reservation is taken in its place.
    let again = settle(&service, body).await;
    assert_eq!(json!([again["released"], again["unmatched"], again["flags"]]), json!([0, 100, ["over_release"]]));
    assert_eq!(reservation(&service, &old).await["status"], "OPEN");
}

#[tokio::test]
async fn a_correlation_that_no_reservation_ever_carried_falls_back_to_the_oldest() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "100", Some("a")).await;
    hold(&service, "WHOLESALE", "100", None).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 100, "correlation_id": "of-nobody"});
    let answer = settle(&service, body).await;
    assert_eq!(answer["reservations"][0]["reservation_id"], old.as_str());
}

#[tokio::test]
async fn a_denied_callers_settle_closes_nobody_elses_hold() {
    let service = Service::live().await;
    let cap = json!({"engine": "WHOLESALE", "max_open_risk": 500});
    service.post("/risk/policies/upsert", &cap).await.ok();
    let old = hold(&service, "WHOLESALE", "400", Some("a")).await;
    // Denied on this engine, and on another one.
    for (engine, thread) in [("WHOLESALE", "b"), ("NOTIFY", "of-another-engine")] {
        let body = json!({"engine": engine, "amount": 400, "correlation_id": thread});
        assert_eq!(service.post("/risk/check-and-reserve", &body).await.ok()["ok"], false);
        let body = json!({"engine": "WHOLESALE", "reserved_amount": 400, "realized_loss": 1, "correlation_id": thread});
        let answer = settle(&service, body).await;
        assert_eq!(
            json!([answer["released"], answer["unmatched"], answer["flags"]]),
            json!([0, 400, ["over_release"]])
        );
    }
    // The loss is a fact all the same.
    assert_eq!(level(&service, "WHOLESALE").await[2], 2);
    assert_eq!(reservation(&service, &old).await["status"], "OPEN");
}

#[tokio::test]
async fn a_settle_with_the_null_id_of_a_denial_is_refused_and_closes_nobody_elses_hold() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "400", Some("a")).await;
    let denied = service.post("/risk/check-and-reserve", &json!({"engine": "WHOLESALE", "amount": 4000})).await.ok();
    assert_eq!(denied["reservation_id"], Value::Null);
    for id in [&denied["reservation_id"], &json!(""), &json!("  ")] {
        let body = json!({"reservation_id": id, "engine": "WHOLESALE", "reserved_amount": 400});
        let refused = service.post("/risk/settle", &body).await;
        assert!(refused.text.contains("leave it out"), "{}", refused.text);
        refused.refused(422, "VALIDATION_FAILED");
    }
    let in_a_batch = json!({"operations": [
        {"op": "settle", "reservation_id": null, "engine": "WHOLESALE", "reserved_amount": 400},
    ]});
    let results = service.post("/risk/batch", &in_a_batch).await.ok()["results"].clone();
    assert_eq!(results[0]["status"], 422, "{results}");
    assert_eq!(reservation(&service, &old).await["status"], "OPEN");
}

#[tokio::test]
async fn a_thread_denied_in_the_same_batch_matches_only_its_own() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "400", Some("a")).await;
    let operations = json!({"operations": [
        {"op": "reserve", "engine": "WHOLESALE", "amount": 4000, "correlation_id": "b"},
        {"op": "settle", "engine": "WHOLESALE", "reserved_amount": 400, "correlation_id": "b"},
        // A denial before a reserve of the same thread: the settle finds what it reserved.
        {"op": "reserve", "engine": "WHOLESALE", "amount": 7, "correlation_id": "b"},
        {"op": "settle", "engine": "WHOLESALE", "reserved_amount": 400, "correlation_id": "b"},
    ]});
    let results = service.post("/risk/batch", &operations).await.ok()["results"].clone();
    assert_eq!(json!([results[0]["answer"]["ok"], results[1]["answer"]["released"]]), json!([false, 0]), "{results}");
    assert_eq!(results[3]["answer"]["released"], 7, "{results}");
    assert_eq!(reservation(&service, &old).await["status"], "OPEN");
}

#[tokio::test]
async fn a_correlation_that_was_only_asked_about_is_not_used() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "400", Some("a")).await;
    let body = json!({"engine": "WHOLESALE", "amount": 4000, "correlation_id": "b", "dry_run": true});
    assert_eq!(service.post("/risk/check-and-reserve", &body).await.ok()["ok"], false);
    // Nor is one that a settle carried: the second one goes on where the first one ended.
    for _ in 0..2 {
        let body = json!({"engine": "WHOLESALE", "reserved_amount": 200, "correlation_id": "b"});
        assert_eq!(settle(&service, body).await["reservations"][0]["reservation_id"], old.as_str());
    }
}

#[tokio::test]
async fn a_correlation_of_another_engine_releases_nothing_of_this_one() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "100", Some("a")).await;
    hold(&service, "CAPITAL", "100", Some("of-another-engine")).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 100, "correlation_id": "of-another-engine"});
    let answer = settle(&service, body).await;
    assert_eq!(json!([answer["released"], answer["unmatched"]]), json!([0, 100]));
    assert_eq!(reservation(&service, &old).await["status"], "OPEN");
}

#[tokio::test]
async fn a_settle_without_a_correlation_matches_correlated_reservations_too() {
    let service = Service::live().await;
    let old = hold(&service, "WHOLESALE", "100", Some("a")).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 100});
    let answer = settle(&service, body).await;
    assert_eq!(answer["reservations"][0]["reservation_id"], old.as_str());
}

#[tokio::test]
async fn an_original_settle_for_less_and_for_more_moves_the_exposure() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "100", None).await;
    hold(&service, "WHOLESALE", "100", None).await;
    let less = json!({"engine": "WHOLESALE", "reserved_amount": 100, "settled_amount": 40});
    let answer = settle(&service, less).await;
    assert_eq!(snapshot(&answer["ledger_engine"]), json!([140, 100, 0, 2]));
    let more = json!({"engine": "WHOLESALE", "reserved_amount": 100, "settled_amount": 160.5});
    let answer = settle(&service, more).await;
    assert_eq!(answer["flags"], json!(["overrun"]));
    assert_eq!(snapshot(&answer["ledger_engine"]), json!([200.5, 0, 0, 2]));
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

#[tokio::test]
async fn an_original_settle_matches_no_more_than_a_thousand_reservations() {
    let service = Service::live().await;
    let wide = json!({"engine": "GLOBAL", "max_daily_exposure": 0, "max_open_risk": 0, "allow_unlimited": true});
    service.post("/risk/policies/upsert", &wide).await.ok();
    // 1001 reservations, made behind the service's back, with their events and counters.
    let seed = "
        INSERT INTO risk_event (seq, at, principal, engine, action, ok, amount, reservation_id, day, exposure_delta,
                                open_delta, loss_delta, actions_delta, hash)
        SELECT n, holdfast_now(), 'seed', 'WHOLESALE', 'RESERVE', true, 0.5, md5(n::text)::uuid,
               (holdfast_now() AT TIME ZONE 'UTC')::date, 0.5, 0.5, 0, 1, sha256(n::text::bytea)
        FROM generate_series(1, 1001) AS n;
        INSERT INTO risk_reservation (id, seq, engine, amount, open_amount, status, day, created_at)
        SELECT reservation_id, seq, engine, amount, amount, 'OPEN', day, at FROM risk_event;
        INSERT INTO risk_open SELECT engine, 500.5, holdfast_now() FROM unnest(ARRAY['GLOBAL', 'WHOLESALE']) AS engine;
        INSERT INTO risk_ledger_day
        SELECT (holdfast_now() AT TIME ZONE 'UTC')::date, engine, 500.5, 0, 1001, holdfast_now()
        FROM unnest(ARRAY['GLOBAL', 'WHOLESALE']) AS engine;
        UPDATE audit_head SET seq = 1001, at = (SELECT max(at) FROM risk_event) WHERE stream = 'risk'";
    service.pool.execute(seed).await.unwrap();
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 500.5});
    let answer = settle(&service, body.clone()).await;
    let more_open = "more_open: settle again with the unmatched amount";
    assert_eq!(json!([answer["released"], answer["unmatched"], answer["flags"]]), json!([500, 0.5, [more_open]]));
    assert_eq!(answer["reservations"].as_array().unwrap().len(), 1000);
    assert_eq!(settle(&service, body).await["released"], 0.5);
}

#[tokio::test]
async fn an_original_settle_of_an_unknown_engine_is_404_and_of_global_422() {
    let service = Service::live().await;
    let events = service.events().await;
    let body = json!({"engine": "NOBODY", "reserved_amount": 1});
    service.post("/risk/settle", &body).await.refused(404, "NOT_FOUND");
    let body = json!({"engine": "GLOBAL", "reserved_amount": 1});
    let _ = service.post("/risk/settle", &body).await.invalid("engine");
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn a_settle_that_names_neither_id_nor_engine_and_amount_is_422() {
    let service = Service::live().await;
    let events = service.events().await;
    for (field, body) in [
        ("engine", json!({"reserved_amount": 1})),
        ("reserved_amount", json!({"engine": "WHOLESALE"})),
        ("reserved_amount", json!({"engine": "WHOLESALE", "settled_amount": 1})),
        ("engine", json!({})),
    ] {
        let _ = service.post("/risk/settle", &body).await.invalid(field);
    }
    assert_eq!(service.events().await, events);
}

// Midnight.

#[tokio::test]
async fn after_midnight_the_stock_is_carried_and_the_flows_start_at_zero() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    hold(&service, "CAPITAL", "50", None).await;
    settle(&service, json!({"engine": "CAPITAL", "reserved_amount": 50, "realized_loss": 149})).await;
    service.reserve("NOTIFY", "1").await.ok();
    service.set_skew("1 day").await;
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 400, 0, 0]));
    assert_eq!(level(&service, "GLOBAL").await, json!([0, 400, 0, 0]));
    let rows = service.get("/risk/ledger/today").await.ok();
    for row in rows.as_array().unwrap() {
        assert_eq!(row["denied_count"], 0, "denials are the day's");
    }
    // Yesterday's exposure does not count today, yesterday's open risk does.
    let denied = service.reserve("WHOLESALE", "601").await.ok();
    assert_eq!(denied["reason"], "open_risk_exceeded");
    assert_eq!(service.reserve("WHOLESALE", "600").await.ok()["ok"], true);
    let held = reservation(&service, &id).await;
    assert_ne!(held["day"], service.get("/risk/ledger/today").await.ok()[0]["day"]);
}

#[tokio::test]
async fn a_loss_cap_that_was_reached_yesterday_does_not_stop_today() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "1", None).await;
    settle(&service, json!({"reservation_id": id, "realized_loss": 300})).await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false);
    service.set_skew("1 day").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_closed_days_row_never_changes_again() {
    let service = Service::live().await;
    let (first, second) =
        (hold(&service, "WHOLESALE", "400", None).await, hold(&service, "WHOLESALE", "100", None).await);
    let yesterday = async || -> Vec<String> {
        let sql = "SELECT d::text FROM risk_ledger_day AS d
                   WHERE day = (SELECT min(day) FROM risk_ledger_day) ORDER BY engine";
        sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap()
    };
    let before = yesterday().await;
    service.set_skew("1 day").await;
    settle(&service, json!({"reservation_id": first, "settled_amount": 1, "realized_loss": 9})).await;
    settle(&service, json!({"engine": "WHOLESALE", "reserved_amount": 100})).await;
    service.reserve("WHOLESALE", "5").await.ok();
    assert_eq!(yesterday().await, before);
    assert_eq!(reservation(&service, &second).await["status"], "SETTLED");
}

#[tokio::test]
async fn the_exposure_of_a_hold_from_yesterday_is_not_given_back_today() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    service.set_skew("1 day").await;
    hold(&service, "WHOLESALE", "30", None).await;
    let answer = settle(&service, json!({"reservation_id": id, "settled_amount": 100, "realized_loss": 5})).await;
    assert_eq!(answer["released"], 400);
    assert_eq!(level(&service, "WHOLESALE").await, json!([30, 30, 5, 1]));
    assert_eq!(level(&service, "GLOBAL").await, json!([30, 30, 5, 1]));
}

#[tokio::test]
async fn an_overrun_of_a_hold_from_yesterday_books_to_today() {
    let service = Service::live().await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    service.set_skew("1 day").await;
    let answer = settle(&service, json!({"reservation_id": id, "settled_amount": 450})).await;
    assert_eq!(answer["flags"], json!(["overrun"]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([50, 0, 0, 0]));
}

#[tokio::test]
async fn an_original_settle_across_midnight_gives_back_only_what_was_reserved_today() {
    let service = Service::live().await;
    hold(&service, "WHOLESALE", "100", None).await;
    service.set_skew("1 day").await;
    hold(&service, "WHOLESALE", "70", None).await;
    let body = json!({"engine": "WHOLESALE", "reserved_amount": 170, "settled_amount": 0});
    assert_eq!(settle(&service, body).await["released"], 170);
    assert_eq!(level(&service, "WHOLESALE").await, json!([0, 0, 0, 1]));
}

// Restart.

#[tokio::test]
async fn a_restart_keeps_policies_ledger_reservations_and_events_and_continues_the_sequence() {
    let first = Service::live().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": 42, "actor": "ann", "reason": "kept"});
    first.post("/risk/policies/upsert", &body).await.ok();
    let open = hold(&first, "WHOLESALE", "400", Some("thread")).await;
    hold(&first, "CAPITAL", "0.000001", None).await;
    settle(&first, json!({"engine": "CAPITAL", "reserved_amount": "0.000001", "realized_loss": 1})).await;
    first.reserve("NOTIFY", "1").await.ok();
    let paths = ["/risk/policies", "/risk/ledger/today", "/risk/reservations", "/risk/events", "/go-live/state"];
    let mut before = Vec::new();
    for path in paths {
        before.push(first.get(path).await.text);
    }
    let options = first.options.clone();
    first.db.close().await;
    first.pool.close().await;
    drop(first);

    let second = Service::on(options, Setup::default()).await;
    for (path, text) in paths.iter().zip(before) {
        assert_eq!(second.get(path).await.text, text, "{path}");
    }
    settle(&second, json!({"reservation_id": open})).await;
    second.reserve("WHOLESALE", "1").await.ok();
    let page = second.get("/risk/events").await.ok();
    let seqs: Vec<_> = page["items"].as_array().unwrap().iter().map(|event| event["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, [6, 5, 4, 3, 2, 1]);
    assert_eq!(broken_links(&second.pool).await, [""; 0]);
}

#[tokio::test]
async fn two_instances_on_one_database_are_one_book() {
    let first = Service::live().await;
    let second = Service::on(first.options.clone(), Setup::default()).await;
    let id = hold(&first, "WHOLESALE", "600", None).await;
    assert_eq!(
        second.reserve("WHOLESALE", "401").await.ok()["message"],
        "WHOLESALE hard stop: Daily exposure cap exceeded (1001 > 1000)"
    );
    settle(&second, json!({"reservation_id": id})).await;
    first.post("/risk/settle", &json!({"reservation_id": id})).await.refused(409, "ALREADY_SETTLED");
    second.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    assert_eq!(first.reserve("WHOLESALE", "1").await.ok()["reason"], "kill_switch_engaged");
}

// A clock that goes wrong.

#[tokio::test]
async fn a_clock_that_went_back_more_than_an_hour_halts_reserves_and_nothing_else() {
    let service = Service::live().await;
    service.set_skew("2 hours").await;
    let id = hold(&service, "WHOLESALE", "400", None).await;
    service.set_skew("0").await;
    let events = service.events().await;
    let answer = service.reserve("WHOLESALE", "1").await;
    assert!(answer.headers.contains_key("retry-after"));
    let refused = answer.refused(503, "CLOCK_WENT_BACK");
    assert_eq!(refused["retry_same_key"], true);
    assert_eq!(service.events().await, events);
    let answer = settle(&service, json!({"reservation_id": id, "realized_loss": 3})).await;
    assert_eq!(snapshot(&answer["ledger_engine"]), json!([400, 0, 3, 1]));
    let body = json!({"engine": "WHOLESALE", "max_daily_loss": 1});
    service.post("/risk/policies/upsert", &body).await.ok();
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    service.set_skew("2 hours").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false, "decided again, once the clock is right");
}

#[tokio::test]
async fn a_dry_run_is_halted_by_a_clock_that_went_back_as_the_reserve_would_be() {
    let service = Service::live().await;
    service.set_skew("2 hours").await;
    hold(&service, "WHOLESALE", "1", None).await;
    service.set_skew("0").await;
    let body = json!({"engine": "WHOLESALE", "amount": 1, "dry_run": true});
    service.post("/risk/check-and-reserve", &body).await.refused(503, "CLOCK_WENT_BACK");
}

#[tokio::test]
async fn times_strictly_increase_in_every_stream_though_the_clock_went_back_a_minute() {
    let service = Service::live().await;
    for skew in ["1 minute", "0", "59 minutes", "0", "30 seconds"] {
        service.set_skew(skew).await;
        hold(&service, "WHOLESALE", "1", None).await;
        settle(&service, json!({"engine": "WHOLESALE", "reserved_amount": 1})).await;
        service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
        service.post("/go-live/kill-switch/release", &json!({})).await.ok();
        service.kpis("WHOLESALE", "contract_rate", 2, 0).await;
        let trial = json!({"domain": "BUYER_MATCH", "confidence": 0.5, "success": true});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
    }
    for (stream, sql) in [
        (
            "risk",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM risk_event) s WHERE step <= '0'",
        ),
        (
            "control",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM control_event) s WHERE step <= '0'",
        ),
        (
            "kpi",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM kpi_event) s WHERE step <= '0'",
        ),
        (
            "heimdall",
            "SELECT count(*) FROM (SELECT at - lag(at) OVER (ORDER BY seq) AS step FROM heimdall_event) s WHERE step <= '0'",
        ),
    ] {
        assert_eq!(service.count(sql).await, 0, "{stream}");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn a_clock_that_went_back_over_midnight_keeps_booking_to_the_later_day() {
    let service = Service::live().await;
    // Half an hour past the next midnight, then half an hour before it.
    let skew = async |minutes: i64| {
        let sql = "UPDATE test_clock SET skew = date_trunc('day', test_now() AT TIME ZONE 'UTC') + interval '1 day'
                   + make_interval(mins => $1::int) - (test_now() AT TIME ZONE 'UTC')";
        sqlx::query(sql).bind(minutes).execute(&service.pool).await.unwrap();
    };
    // Time that passed: a day at most.
    service.clock.advance(86_400_000);
    skew(20).await;
    hold(&service, "WHOLESALE", "10", None).await;
    skew(-20).await;
    hold(&service, "WHOLESALE", "10", None).await;
    assert_eq!(service.count("SELECT count(DISTINCT day) FROM risk_event").await, 1);
}

// The chain.

/// Everything that writes an event, with every optional column filled and left out, and text beyond ASCII.
async fn busy() -> Service {
    let service = Service::live().await;
    write_control_and_risk(&service).await;
    write_heimdall_and_kpi(&service).await;
    service
}

const WORDS: &str = "größer ≥ 1 — “so” 🔒";

async fn write_control_and_risk(service: &Service) {
    let post = async |path: &str, body: Value| service.post(path, &body).await;
    // Control: changes, refusals, packs, policies of all levers.
    post("/go-live/disable", json!({"actor": WORDS, "reason": WORDS})).await.ok();
    let stale = ("if-match", "\"1\"");
    service
        .post_with("/go-live/enable", stale, &json!({"actor": "a", "reason": "r"}))
        .await
        .refused(412, "VERSION_MISMATCH");
    post("/go-live/enable", json!({"actor": "a"})).await.ok();
    post("/go-live/packs", json!({"id": "upstream", "status": "missing", "name": "Ü", "version": "2"})).await.ok();
    post("/risk/policies/upsert", json!({"engine": "CAPITAL", "max_daily_loss": "99.5", "reason": WORDS})).await.ok();
    post("/heimdall/policies/upsert", json!({"domain": "BUYER_MATCH", "min_sandbox_trials": 2, "min_confidence_prod": "0.5", "min_sandbox_success_rate": "0.5",
        "prod_use_enabled": true}))
    .await
    .ok();
    // Risk: allowed, denied on each level, settled three ways.
    let deal = json!({"engine": "WHOLESALE", "amount": "400.250000", "actor": WORDS, "reason": WORDS, "correlation_id": WORDS,
        "metadata": {"b": 1.0, "a": "ü", "n": null}});
    let id = post("/risk/check-and-reserve", deal).await.ok()["reservation_id"].clone();
    for (engine, amount) in
        [("NOBODY", "1"), ("NOTIFY", "1"), ("WHOLESALE", "1500"), ("CAPITAL", "0.000001"), ("CAPITAL", "100")]
    {
        service.reserve(engine, amount).await.ok();
    }
    post(
        "/risk/settle",
        json!({"reservation_id": id, "settled_amount": "0.1", "realized_loss": "1.5", "reason": WORDS}),
    )
    .await
    .ok();
    post("/risk/settle", json!({"engine": "CAPITAL", "reserved_amount": 1, "actor": "a"})).await.ok();
    post("/risk/settle", json!({"engine": "CAPITAL", "reserved_amount": 500, "settled_amount": 600})).await.ok();
}

async fn write_heimdall_and_kpi(service: &Service) {
    let post = async |path: &str, body: Value| service.post(path, &body).await;
    // Heimdall: trials, verdicts both ways, uses both ways.
    for (confidence, success) in [("0.123456789012345678", true), ("1", true), ("0", false), ("0.90", true)] {
        post(
            "/heimdall/sandbox/trial",
            json!({"domain": "BUYER_MATCH", "confidence": confidence, "success": success, "actor": "m", "model_version": WORDS}),
        )
        .await
        .ok();
    }
    for (domain, confidence) in [("BUYER_MATCH", "0.99"), ("BUYER_MATCH", "0.1"), ("UNKNOWN_DOMAIN", "0.5")] {
        let made = json!({"domain": domain, "confidence": confidence, "recommendation": {"do": "ü"}, "evidence": {"why": [1, 2.50]},
            "correlation_id": "t", "actor": "model"});
        let id = post("/heimdall/recommend", made).await.ok()["id"].clone();
        let used =
            post(&format!("/heimdall/recommendations/{id}/require-prod-eligible"), json!({"reason": WORDS})).await;
        assert!(used.status.as_u16() == 200 || used.status.as_u16() == 403, "{}", used.text);
        post(&format!("/heimdall/recommendations/{id}/revoke"), json!({"reason": WORDS})).await.ok();
    }
    // KPI: both kinds, a throttle, a re-arm, a kill switch.
    post(
        "/regression/kpi",
        json!({"domain": "CAPITAL", "metric": "yield", "value": "-12.500000", "detail": WORDS, "event_id": "e-1",
        "correlation_id": "t"}),
    )
    .await
    .ok();
    post("/regression/kpi", json!({"domain": "CAPITAL", "metric": "yield", "value": 0})).await.ok();
    for (metric, action) in [("contract_rate", "THROTTLE"), ("offer_accept_rate", "KILL_SWITCH")] {
        post(
            "/regression/policies/upsert",
            json!({"domain": "WHOLESALE", "metric": metric, "window_events": 2, "baseline_events": 2,
            "min_events_to_enforce": 2, "max_drop_fraction": "0.5", "action": action, "enabled": true}),
        )
        .await
        .ok();
        service.kpis("WHOLESALE", metric, 2, 0).await;
        service.kpis("WHOLESALE", metric, 2, 1).await;
    }
    service.reserve("WHOLESALE", "1").await.ok();
    post(
        "/regression/policies/upsert",
        json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": true, "reason": WORDS}),
    )
    .await
    .ok();
    post("/go-live/kill-switch/release", json!({"reason": WORDS})).await.ok();
}

#[tokio::test]
async fn every_hash_of_every_stream_can_be_recomputed_in_sql_alone() {
    let service = busy().await;
    for (stream, sql) in [
        ("control", "SELECT count(DISTINCT action) FROM control_event"),
        ("risk", "SELECT count(DISTINCT (action, scope)) FROM risk_event"),
        ("heimdall", "SELECT count(DISTINCT (action, ok)) FROM heimdall_event"),
        ("kpi", "SELECT count(DISTINCT (success, value)) FROM kpi_event"),
    ] {
        assert!(service.count(sql).await >= 4, "{stream} was not busy");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn an_empty_chain_stands_at_its_beginning() {
    let service = Service::fresh().await;
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

/// Without this, the claim above could be true of anything.
#[tokio::test]
async fn a_changed_column_breaks_its_link() {
    let service = busy().await;
    for stream in ["control", "heimdall", "kpi", "risk"] {
        let sql = sqlx::AssertSqlSafe(format!("ALTER TABLE {stream}_event DISABLE TRIGGER guard"));
        sqlx::query(sql).execute(&service.pool).await.unwrap();
    }
    for (sql, undo, broken) in [
        (
            "UPDATE risk_event SET actor = 'x' WHERE seq = 2",
            "UPDATE risk_event SET actor = 'test' WHERE seq = 2",
            "risk 2",
        ),
        (
            "UPDATE risk_event SET detail = detail || ' ' WHERE seq = 3",
            "UPDATE risk_event SET detail = rtrim(detail) WHERE seq = 3",
            "risk 3",
        ),
        (
            "UPDATE control_event SET subject = 'x' WHERE seq = 1",
            "UPDATE control_event SET subject = NULL WHERE seq = 1",
            "control 1",
        ),
        (
            "UPDATE heimdall_event SET confidence = 0.5 WHERE seq = 2",
            "UPDATE heimdall_event SET confidence = 1 WHERE seq = 2",
            "heimdall 2",
        ),
        (
            "UPDATE kpi_event SET at = at + interval '1 us' WHERE seq = 1",
            "UPDATE kpi_event SET at = at - interval '1 us' WHERE seq = 1",
            "kpi 1",
        ),
    ] {
        sqlx::query(sql).execute(&service.pool).await.unwrap();
        assert_eq!(broken_links(&service.pool).await, [broken]);
        sqlx::query(undo).execute(&service.pool).await.unwrap();
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn the_database_refuses_rows_that_say_what_the_ledger_cannot_mean() {
    let service = Service::live().await;
    let id = service.reserve("WHOLESALE", "5").await.ok()["reservation_id"].clone();
    service.post("/risk/settle", &json!({"reservation_id": id, "realized_loss": 1})).await.ok();
    service.reserve("WHOLESALE", "5").await.ok();
    let refused = async |sql: String, by: &str| {
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&service.pool).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().constraint(), Some(by), "{sql}");
    };
    // 1 is a RESERVE of 5, 2 a SETTLE; each is put in again with something changed.
    for (seq, change) in [
        (1, r#"{"action": "NONE"}"#),
        (1, r#"{"day": "2020-01-01"}"#),
        (1, r#"{"amount": -1, "exposure_delta": -1, "open_delta": -1}"#),
        (1, r#"{"amount": 2e12, "exposure_delta": 2e12, "open_delta": 2e12}"#),
        (1, r#"{"ok": false}"#),
        (1, r#"{"denial": "x"}"#),
        (1, r#"{"scope": "GLOBAL"}"#),
        (1, r#"{"exposure_delta": 4}"#),
        (1, r#"{"open_delta": 4}"#),
        (1, r#"{"loss_delta": 1}"#),
        (1, r#"{"actions_delta": 2}"#),
        (1, r#"{"reservation_id": null}"#),
        (1, r#"{"action": "DENY", "ok": false, "denial": "x", "scope": "GLOBAL"}"#),
        (1, r#"{"action": "RELEASE", "actions_delta": 0}"#),
        (1, r#"{"action": "EXPIRE", "actions_delta": 0}"#),
        (1, r#"{"action": "ADJUST", "actions_delta": 0}"#),
        (2, r#"{"open_delta": 1}"#),
        (2, r#"{"loss_delta": -1}"#),
        (2, r#"{"loss_delta": 2e22}"#),
        (2, r#"{"exposure_delta": 2e22}"#),
        (2, r#"{"open_delta": -2e22}"#),
        (2, r#"{"actions_delta": 1}"#),
        (2, r#"{"action": "EXTEND"}"#),
        (2, r#"{"action": "DENY", "ok": false, "denial": "X", "scope": "GLOBAL", "open_delta": 0, "loss_delta": 0}"#),
        (2, r#"{"action": "DENY", "ok": false, "denial": "x", "scope": "g", "open_delta": 0, "loss_delta": 0}"#),
    ] {
        let change = format!("event, '{change}'::jsonb || '{{\"seq\": 99}}'");
        let sql = "INSERT INTO risk_event SELECT (jsonb_populate_record(".to_owned()
            + &change
            + &format!(")).* FROM risk_event AS event WHERE seq = {seq}");
        refused(sql, "risk_event_is_sound").await;
    }
    for (seq, change) in [
        (3, "amount = 0, open_amount = 0"),
        (3, "amount = 2e12"),
        (3, "open_amount = 6"),
        (3, "open_amount = 0"),
        (3, "status = 'NONE'"),
        (3, "status = 'SETTLED'"),
        (3, "day = '2020-01-01'"),
        (3, "expires_at = created_at"),
        (3, "expires_at = 'infinity'"),
        (3, "closed_at = now()"),
        (3, "closed_seq = 9"),
        (1, "closed_seq = 1"),
        (1, "closed_at = created_at"),
        (1, "closed_seq = NULL"),
        (1, "status = 'OPEN'"),
    ] {
        let sql = format!("UPDATE risk_reservation SET {change} WHERE seq = {seq}");
        refused(sql, "risk_reservation_is_sound").await;
    }
}
