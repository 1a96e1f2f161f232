//! Settling by engine and amount, as the original did: oldest first, within a correlation if one matches.

use super::{hold, level, reservation, settle, snapshot};
use crate::support::Service;
use serde_json::{Value, json};
use sqlx::Executor;

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
    // The hold is settled now, but it carried the id: nobody else's reservation is taken in its place.
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
        assert!(refused.text.contains("leave the field out"), "{}", refused.text);
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
    // The same holds for an id that a settle carried: the second settle continues where the first one ended.
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
