//! Many operations in one request: decided in order, on one book, in one commit, each for itself.

use super::{by_hand, hold, hold_for, leaves_no_trace, level, policy, reservation, status, uncapped};
use crate::support::{Service, as_first};
use serde_json::{Value, json};

const FIRST: &str = "7e57ab1e-0000-4000-8000-000000000001";
const SECOND: &str = "7e57ab1e-0000-4000-8000-000000000002";

/// The results of these operations.
async fn batch(service: &Service, operations: Value) -> Vec<Value> {
    let sent = operations.as_array().unwrap().len();
    let answer = service.post("/risk/batch", &json!({"operations": operations})).await.ok();
    let results = answer["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), sent);
    for result in &results {
        // Either an answer or an error, and the status is its own.
        assert_eq!(result["answer"].is_null(), !result["error"].is_null(), "{result}");
        assert_eq!(result["answer"].is_null(), result["status"] != 200, "{result}");
        if !result["error"].is_null() {
            assert_eq!(result["error"]["status"], result["status"], "{result}");
        }
    }
    results
}

/// Statuses, and the codes of errors.
fn flat(results: &[Value]) -> Value {
    results
        .iter()
        .map(|result| match result["error"]["error"].as_str() {
            Some(code) => json!(code),
            None => result["status"].clone(),
        })
        .collect()
}

/// In how many transactions the events after this one were written.
const COMMITS: &str = "SELECT count(DISTINCT xmin::text) FROM risk_event";

#[tokio::test]
async fn a_batch_is_answered_in_order_and_is_one_commit_of_contiguous_events() {
    let service = Service::live().await;
    uncapped(&service, &["WHOLESALE", "CAPITAL"]).await;
    let operations: Vec<_> = (0..300)
        .map(|n| json!({"op": "reserve", "engine": if n % 2 == 0 { "WHOLESALE" } else { "CAPITAL" }, "amount": n + 1, "actor": format!("a-{n}")}))
        .collect();
    let results = batch(&service, json!(operations)).await;
    for (n, result) in results.iter().enumerate() {
        let answer = &result["answer"];
        assert_eq!(json!([result["op"], result["status"], result["replayed"]]), json!(["reserve", 200, false]));
        assert_eq!(json!([answer["ok"], answer["reserved"]]), json!([true, n + 1]));
        assert_eq!(reservation(&service, answer["reservation_id"].as_str().unwrap()).await["seq"], n + 1);
    }
    assert_eq!(service.count(COMMITS).await, 1);
    let in_order = "SELECT count(*) FROM risk_event WHERE actor = 'a-' || (seq - 1)";
    assert_eq!(service.count(in_order).await, 300);
    assert_eq!(level(&service, "GLOBAL").await, json!([45_150, 45_150, 0, 300]));
}

#[tokio::test]
async fn operations_of_a_batch_build_on_each_other() {
    let service = Service::live().await;
    let reserve = |id: &str| json!({"op": "reserve", "engine": "WHOLESALE", "amount": 100, "ttl_seconds": 60, "reservation_id": id});
    let results = batch(
        &service,
        json!([
            reserve(FIRST),
            reserve(SECOND),
            {"op": "extend", "reservation_id": FIRST, "ttl_seconds": 600},
            {"op": "settle", "reservation_id": FIRST, "settled_amount": 60, "realized_loss": 5},
            {"op": "release", "reservation_id": SECOND},
            {"op": "adjust", "corrects_seq": 4, "loss_delta": -2, "reason": "told wrong"},
            {"op": "settle", "reservation_id": FIRST},
            {"op": "settle", "reservation_id": SECOND},
            {"op": "release", "reservation_id": FIRST},
            reserve(FIRST),
            {"op": "reserve", "engine": "WHOLESALE", "amount": 1, "reservation_id": FIRST}
        ]),
    )
    .await;
    assert_eq!(
        flat(&results),
        json!([
            200,
            200,
            200,
            200,
            200,
            200,
            "ALREADY_SETTLED",
            "ALREADY_RELEASED",
            "ALREADY_SETTLED",
            200,
            "RESERVATION_EXISTS"
        ])
    );
    let ops: Vec<_> = results.iter().map(|result| result["op"].clone()).collect();
    assert_eq!(
        json!(ops),
        json!([
            "reserve", "reserve", "extend", "settle", "release", "adjust", "settle", "settle", "release", "reserve",
            "reserve"
        ])
    );
    assert_eq!(results[6]["error"]["settled"]["realized_loss"], 5);
    assert_eq!(results[7]["error"]["released"]["released"], 100);
    assert_eq!(results[9]["replayed"], true);
    let told = &results[9]["answer"];
    assert_eq!(told["ledger_snapshot"], results[0]["answer"]["ledger_snapshot"]);
    assert_eq!(json!([told["ok"], told["reason"], told["status"]]), json!([false, "hold_ended", "SETTLED"]));
    assert_eq!(results[10]["error"]["fields"], json!(["amount"]));
    assert_eq!(results[4]["answer"]["exposure_returned"], 100);
    assert_eq!(level(&service, "WHOLESALE").await, json!([60, 0, 3, 2]));
    assert_eq!(json!([status(&service, FIRST).await, status(&service, SECOND).await]), json!(["SETTLED", "RELEASED"]));
    assert_eq!((service.count(COMMITS).await, service.count("SELECT count(*) FROM risk_event").await), (1, 6));
}

#[tokio::test]
async fn errors_stand_beside_successes_and_leave_nothing_of_their_own() {
    let service = Service::live().await;
    let held = hold(&service, "WHOLESALE", "10").await;
    let results = batch(
        &service,
        json!([
            {"op": "reserve", "engine": "WHOLESALE", "amount": 1},
            {"op": "reserve", "engine": "GLOBAL", "amount": 1},
            {"op": "reserve", "engine": "WHOLESALE", "amount": 0},
            {"op": "reserve", "engine": "WHOLESALE", "amount": "0.0000001"},
            {"op": "reserve", "engine": "WHOLESALE", "amount": 1, "dry_run": true},
            {"op": "reserve", "engine": "WHOLESALE", "amount": 1, "colour": "red"},
            {"op": "settle", "reservation_id": SECOND},
            {"op": "settle", "engine": "WHOLESALE"},
            {"op": "settle", "engine": "NOBODY", "reserved_amount": 1},
            {"op": "release"},
            {"op": "release", "reservation_id": "x"},
            {"op": "extend", "reservation_id": held, "ttl_seconds": 60},
            {"op": "extend", "reservation_id": held},
            {"op": "adjust", "corrects_seq": 99, "loss_delta": 1, "reason": "r"},
            {"op": "adjust", "corrects_seq": 1, "loss_delta": -1, "reason": "r"},
            {"op": "delete", "reservation_id": held},
            {"reservation_id": held},
            {"op": null},
            {"op": 5},
            {},
            {"op": "release", "reservation_id": held}
        ]),
    )
    .await;
    let invalid = "VALIDATION_FAILED";
    assert_eq!(
        flat(&results),
        json!([
            200,
            invalid,
            invalid,
            invalid,
            invalid,
            invalid,
            "NOT_FOUND",
            invalid,
            "NOT_FOUND",
            invalid,
            invalid,
            "NEVER_EXPIRES",
            invalid,
            "NOT_FOUND",
            "ADJUSTMENT_OUT_OF_RANGE",
            invalid,
            invalid,
            invalid,
            invalid,
            invalid,
            200
        ])
    );
    for (place, field) in
        [(1, "engine"), (2, "amount"), (4, "dry_run"), (5, "colour"), (9, "reservation_id"), (15, "op"), (19, "op")]
    {
        assert_eq!(results[place]["error"]["errors"][0]["field"], field, "{}", results[place]);
    }
    assert!(results[15..20].iter().all(|result| result["op"].is_null()));
    assert_eq!(level(&service, "WHOLESALE").await, json!([1, 1, 0, 2]));
    assert_eq!((service.count(COMMITS).await, service.count("SELECT count(*) FROM risk_event").await), (2, 3));
}

#[tokio::test]
async fn a_denied_reserve_of_a_batch_is_an_answer_and_caps_hold_between_operations() {
    let service = Service::live().await;
    policy(&service, json!({"engine": "WHOLESALE", "max_open_risk": 25})).await;
    let reserve = json!({"op": "reserve", "engine": "WHOLESALE", "amount": 10});
    let release = json!({"op": "settle", "engine": "WHOLESALE", "reserved_amount": 10});
    let results = batch(&service, json!([reserve, reserve, reserve, release, reserve, reserve])).await;
    let allowed: Vec<_> = results.iter().map(|result| result["answer"]["ok"].clone()).collect();
    assert_eq!(json!(allowed), json!([true, true, false, true, true, false]));
    assert_eq!(results[2]["answer"]["reason"], "open_risk_exceeded");
    assert_eq!(results[2]["answer"]["reservation_id"], Value::Null);
    assert_eq!(level(&service, "WHOLESALE").await, json!([30, 20, 0, 3]));
    assert_eq!(service.count("SELECT denied FROM risk_denial_day").await, 2);
}

#[tokio::test]
async fn a_batch_expires_what_it_names_and_what_is_due() {
    let service = Service::live().await;
    let (named, due) =
        (hold_for(&service, "WHOLESALE", "10", 60).await, hold_for(&service, "WHOLESALE", "20", 60).await);
    let late = hold_for(&service, "WHOLESALE", "30", 60).await;
    service.set_skew("61 seconds").await;
    let results = batch(
        &service,
        json!([
            {"op": "extend", "reservation_id": named, "ttl_seconds": 60},
            {"op": "release", "reservation_id": named},
            {"op": "settle", "reservation_id": late, "realized_loss": 1},
            {"op": "settle", "engine": "WHOLESALE", "reserved_amount": 5}
        ]),
    )
    .await;
    assert_eq!(flat(&results), json!(["ALREADY_EXPIRED", "ALREADY_EXPIRED", 200, 200]));
    assert_eq!(json!([results[2]["answer"]["late"], results[3]["answer"]["unmatched"]]), json!([true, 5]));
    assert_eq!(status(&service, &due).await, "EXPIRED");
    assert_eq!(level(&service, "WHOLESALE").await, json!([60, 0, 1, 3]));
    // Three reserves, and this.
    assert_eq!(service.count(COMMITS).await, 4);
}

#[tokio::test]
async fn an_extension_that_is_denied_in_a_batch_is_its_409() {
    let service = Service::live().await;
    let id = hold_for(&service, "WHOLESALE", "10", 60).await;
    policy(&service, json!({"engine": "WHOLESALE", "enabled": false})).await;
    let results = batch(
        &service,
        json!([{"op": "extend", "reservation_id": id, "ttl_seconds": 600}, {"op": "release", "reservation_id": id}]),
    )
    .await;
    assert_eq!(flat(&results), json!(["EXTENSION_DENIED", 200]));
    assert_eq!(results[0]["error"]["reason"], "policy_disabled");
}

/// A batch never finds less for a settle than the settle alone, after the others, would have found.
#[tokio::test]
async fn original_settles_with_and_without_a_thread_do_not_take_each_others_reach() {
    let settle = |amount: u32, thread: Value| json!({"op": "settle", "engine": "WHOLESALE", "reserved_amount": amount, "correlation_id": thread});
    for operations in [
        json!([settle(5, json!("t")), settle(5, Value::Null)]),
        json!([settle(5, Value::Null), settle(5, json!("t"))]),
        json!([settle(5, json!("t")), settle(5, json!("u")), settle(10, Value::Null)]),
        json!([settle(3, json!("t")), settle(3, Value::Null), settle(3, json!("t")), settle(3, Value::Null)]),
    ] {
        let mut told = Vec::new();
        for together in [true, false] {
            let service = Service::live().await;
            for thread in ["t", "u", "t", "u"] {
                super::hold_with(&service, "WHOLESALE", "5", json!({"correlation_id": thread})).await;
            }
            let results = if together {
                batch(&service, operations.clone()).await
            } else {
                let mut results = Vec::new();
                for operation in operations.as_array().unwrap() {
                    results.extend(batch(&service, json!([operation])).await);
                }
                results
            };
            told.push(
                results
                    .iter()
                    .map(|result| json!([result["answer"]["released"], result["answer"]["unmatched"]]))
                    .collect::<Vec<_>>(),
            );
        }
        assert_eq!(told[0], told[1], "{operations}");
    }
}

#[tokio::test]
async fn a_poisonous_operation_fails_its_batch_whole_and_nothing_beside_it() {
    let service = Service::live().await;
    by_hand(&service, "ALTER TABLE risk_event ADD CHECK (actor IS DISTINCT FROM 'poison')").await;
    let reserve = |actor: &str| json!({"op": "reserve", "engine": "WHOLESALE", "amount": 1, "actor": actor});
    let poisoned = json!({"operations": [reserve("good"), reserve("poison"), reserve("good")]});
    let good = json!({"operations": [reserve("good"), reserve("good")]});
    // Together in the queue, so that they share a transaction at first.
    let (before, bad, after) = tokio::join!(
        service.post("/risk/batch", &good),
        service.post("/risk/batch", &poisoned),
        service.post("/risk/batch", &good)
    );
    bad.refused(500, "INTERNAL_ERROR");
    for answer in [before, after] {
        let answer = answer.ok();
        assert!(answer["results"].as_array().unwrap().iter().all(|result| result["answer"]["ok"] == true), "{answer}");
    }
    assert_eq!(level(&service, "WHOLESALE").await, json!([4, 4, 0, 4]));
    assert_eq!(batch(&service, json!([reserve("good")])).await[0]["status"], 200);
}

#[tokio::test]
async fn a_batch_again_under_its_key_is_answered_alike_and_done_once() {
    let service = Service::live().await;
    let own = json!({"op": "reserve", "engine": "WHOLESALE", "amount": 3, "idempotency_key": "own"});
    let body = json!({"operations": [
        {"op": "reserve", "engine": "WHOLESALE", "amount": 1},
        {"op": "reserve", "engine": "WHOLESALE", "amount": 5000},
        {"op": "reserve", "engine": "WHOLESALE", "amount": 0},
        own
    ]});
    let send = || service.post_with("/risk/batch", ("idempotency-key", "night-1"), &body);
    let first = send().await.ok();
    let again = leaves_no_trace!(service, send().await).ok();
    for (place, replayed) in [(0, true), (1, true), (2, false), (3, true)] {
        let (one, other) = (&first["results"][place], &again["results"][place]);
        assert_eq!(json!([one["replayed"], other["replayed"]]), json!([false, replayed]), "{place}");
        assert_eq!(as_first(&one["answer"]), as_first(&other["answer"]), "{place}");
    }
    // The own key is the operation's wherever its batch goes.
    let alone = batch(&service, json!([own])).await;
    assert_eq!(alone[0]["replayed"], true);
    // Other input at the same place is refused, and the rest is done.
    let other = json!({"idempotency_key": "night-1", "operations": [
        {"op": "reserve", "engine": "WHOLESALE", "amount": 2},
        {"op": "settle", "engine": "WHOLESALE", "reserved_amount": 1},
        {"op": "reserve", "engine": "WHOLESALE", "amount": 7},
    ]});
    let answer = service.post("/risk/batch", &other).await.ok();
    let results = answer["results"].as_array().unwrap();
    assert_eq!(flat(results), json!(["IDEMPOTENCY_KEY_REUSED", "IDEMPOTENCY_KEY_REUSED", 200]));
    assert_eq!(results[0]["error"]["errors"][0]["field"], "amount");
}

#[tokio::test]
async fn one_key_twice_in_a_batch_is_one_intent() {
    let service = Service::live().await;
    let reserve =
        |amount: u32| json!({"op": "reserve", "engine": "WHOLESALE", "amount": amount, "idempotency_key": "k"});
    let results = batch(&service, json!([reserve(1), reserve(1), reserve(2)])).await;
    assert_eq!(flat(&results), json!([200, 200, "IDEMPOTENCY_KEY_REUSED"]));
    assert_eq!(json!([results[0]["replayed"], results[1]["replayed"]]), json!([false, true]));
    assert_eq!(as_first(&results[0]["answer"]), as_first(&results[1]["answer"]));
    assert_eq!(level(&service, "WHOLESALE").await, json!([1, 1, 0, 1]));
}
