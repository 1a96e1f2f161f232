//! The keys of a batch: one for all of them with its place, or one of its own for each.

use super::{RESERVE, as_first, done, is_replay, kept_keys, keyed, named, replayed, reserve_of};
use crate::support::Service;
use serde_json::{Value, json};
use std::time::Duration;

const BATCH: &str = "/risk/batch";

fn reserve(amount: i64) -> Value {
    json!({"op": "reserve", "engine": "WHOLESALE", "amount": amount})
}

fn with_key(mut operation: Value, key: &str) -> Value {
    operation["idempotency_key"] = json!(key);
    operation
}

async fn run(service: &Service, key: &str, operations: Vec<Value>) -> (bool, Vec<Value>) {
    let answer = keyed(service, BATCH, key, &json!({"operations": operations})).await;
    let all_replayed = is_replay(&answer);
    (all_replayed, answer.ok()["results"].as_array().unwrap().clone())
}

/// The status of each result, and whether it is an earlier one.
fn told(results: &[Value]) -> Vec<(u64, bool)> {
    let told = |result: &Value| (result["status"].as_u64().unwrap(), result["replayed"].as_bool().unwrap());
    results.iter().map(told).collect()
}

#[tokio::test]
async fn operations_without_a_key_get_that_of_the_batch_with_their_place() {
    let service = Service::live().await;
    let operations = vec![reserve(1), reserve(1), with_key(reserve(2), "own"), reserve(5_000)];
    let (all, first) = run(&service, "b", operations.clone()).await;
    assert_eq!((all, told(&first)), (false, vec![(200, false); 4]));
    let keys: Vec<String> =
        sqlx::query_scalar("SELECT key FROM idempotency_key ORDER BY risk_seq").fetch_all(&service.pool).await.unwrap();
    assert_eq!(keys, ["b/0", "b/1", "own", "b/3"]);
    let before = service.everything().await;
    let (all, again) = run(&service, "b", operations).await;
    assert_eq!((all, told(&again)), (true, vec![(200, true); 4]));
    let answers = |results: &[Value]| results.iter().map(|result| as_first(&result["answer"])).collect::<Vec<_>>();
    assert_eq!(answers(&again), answers(&first));
    assert_eq!(again[3]["answer"]["ok"], false);
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn an_operation_that_is_changed_is_refused_alone() {
    let service = Service::live().await;
    run(&service, "b", vec![reserve(1), reserve(2), reserve(3)]).await;
    let before = service.everything().await;
    let (all, results) = run(
        &service,
        "b",
        vec![reserve(1), reserve(9), json!({"op": "settle", "reservation_id": "0190163d-8694-739b-aea5-966c26f8ad91"})],
    )
    .await;
    assert_eq!((all, told(&results)), (false, vec![(200, true), (422, false), (422, false)]));
    for (result, field) in [(&results[1], "amount"), (&results[2], "route")] {
        assert_eq!(result["error"]["error"], "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(named(&result["error"]["errors"]), [field]);
    }
    assert_eq!(service.everything().await, before);
    // A shorter batch is a part of it, a longer one goes on.
    let (all, results) = run(&service, "b", vec![reserve(1), reserve(2)]).await;
    assert_eq!((all, told(&results)), (true, vec![(200, true); 2]));
    let (all, results) = run(&service, "b", vec![reserve(1), reserve(2), reserve(3), reserve(4)]).await;
    assert_eq!((all, told(&results)), (false, vec![(200, true), (200, true), (200, true), (200, false)]));
}

#[tokio::test]
async fn a_key_of_its_own_goes_with_the_operation_wherever_it_stands() {
    let service = Service::live().await;
    let (_, first) = run(&service, "b", vec![reserve(1), with_key(reserve(2), "own")]).await;
    let (all, again) = run(&service, "c", vec![with_key(reserve(2), "own"), reserve(1)]).await;
    assert_eq!((all, told(&again)), (false, vec![(200, true), (200, false)]));
    assert_eq!(as_first(&again[0]["answer"]), as_first(&first[1]["answer"]));
    // Twice in one batch is once.
    let (_, twins) =
        run(&service, "d", vec![with_key(reserve(3), "e"), with_key(reserve(3), "e"), with_key(reserve(4), "e")]).await;
    assert_eq!(told(&twins), [(200, false), (200, true), (422, false)]);
    assert_eq!(as_first(&twins[1]["answer"]), as_first(&twins[0]["answer"]));
    assert_eq!(named(&twins[2]["error"]["errors"]), ["amount"]);
}

#[tokio::test]
async fn an_operation_of_a_batch_is_not_the_route_of_its_own() {
    let service = Service::live().await;
    let alone = json!({"engine": "WHOLESALE", "amount": 1});
    done(keyed(&service, RESERVE, "k", &alone).await);
    let (_, results) = run(&service, "b", vec![with_key(reserve(1), "k"), reserve(2)]).await;
    assert_eq!(told(&results), [(422, false), (200, false)]);
    assert_eq!(named(&results[0]["error"]["errors"]), ["route"]);
    keyed(&service, RESERVE, "b/1", &json!({"engine": "WHOLESALE", "amount": 2}))
        .await
        .refused(422, "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test]
async fn operations_that_are_refused_are_tried_again() {
    let service = Service::live().await;
    let later = json!({"op": "settle", "engine": "LATER", "reserved_amount": 1});
    let malformed = json!({"op": "reserve", "engine": "WHOLESALE"});
    let bad_key = with_key(reserve(1), "a\nb");
    let (all, results) = run(&service, "b", vec![reserve(1), later.clone(), malformed, bad_key]).await;
    assert_eq!((all, told(&results)), (false, vec![(200, false), (404, false), (422, false), (422, false)]));
    assert_eq!(kept_keys(&service).await, 1);
    let caps = json!({"engine": "LATER", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
    service.post("/risk/policies/upsert", &caps).await.ok();
    let (_, results) = run(&service, "b", vec![reserve(1), later, reserve(3), reserve(4)]).await;
    assert_eq!(told(&results), [(200, true), (200, false), (200, false), (200, false)]);
}

#[tokio::test]
async fn every_kind_of_operation_is_replayed() {
    let service = Service::live().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut body = reserve_of(2);
        body["ttl_seconds"] = json!(60);
        held.push(service.post(RESERVE, &body).await.ok()["reservation_id"].clone());
    }
    let operations = [
        reserve(1),
        json!({"op": "settle", "reservation_id": held[0], "realized_loss": 1}),
        json!({"op": "settle", "engine": "WHOLESALE", "reserved_amount": 50}),
        json!({"op": "extend", "reservation_id": held[1], "ttl_seconds": 100}),
        json!({"op": "release", "reservation_id": held[2]}),
        json!({"op": "adjust", "corrects_seq": 5, "loss_delta": -0.5, "reason": "rebate"}),
    ];
    // The second settle's amount would leave nothing for those behind it.
    let operations = [&operations[..2], &operations[3..], &operations[2..3]].concat();
    let (_, first) = run(&service, "b", operations.clone()).await;
    assert_eq!(told(&first), [(200, false); 6]);
    let before = service.everything().await;
    let (all, again) = run(&service, "b", operations).await;
    // The first hold and the extended one were settled by the last of them.
    let expected = [200, 200, 409, 200, 200, 200].map(|status| (status, true));
    assert_eq!((all, told(&again)), (true, expected.to_vec()));
    assert_eq!(
        (&again[0]["answer"]["reason"], &again[2]["error"]["reason"]),
        (&json!("hold_ended"), &json!("hold_ended"))
    );
    for (again, first) in again.iter().zip(&first).skip(1).filter(|(again, _)| again["status"] == 200) {
        assert_eq!(as_first(&again["answer"]), as_first(&first["answer"]));
    }
    assert_eq!(service.everything().await, before);
}

/// Two routes take different heads, so a key can be taken after the writer looked for it.
#[tokio::test]
async fn a_key_that_another_route_takes_meanwhile_refuses_its_operation_alone() {
    let service = Service::live().await;
    let mut other = service.pool.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO idempotency_key (day, principal, key, route, fields, answer, at)
         SELECT (holdfast_now() AT TIME ZONE 'UTC')::date, 'UNAUTHENTICATED', 'b/1', '/heimdall/sandbox/trial', '{}', '{}',
                holdfast_now()",
    )
    .execute(&mut *other)
    .await
    .unwrap();
    let sent = tokio::spawn(keyed(&service, BATCH, "b", &json!({"operations": [reserve(1), reserve(2), reserve(3)]})));
    // It waits for the key's row.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while service.count(waiting).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    other.commit().await.unwrap();
    let results = done(sent.await.unwrap());
    let results = results["results"].as_array().unwrap();
    assert_eq!(told(results), [(200, false), (422, false), (200, false)]);
    assert_eq!(named(&results[1]["error"]["errors"]), ["route"]);
    assert_eq!(service.count("SELECT count(*) FROM risk_event").await, 2);
}

#[tokio::test]
async fn a_batch_without_a_key_is_done_again() {
    let service = Service::live().await;
    let body = json!({"operations": [reserve(1), with_key(reserve(2), "own")]});
    let first = done(service.post(BATCH, &body).await);
    let again = done(service.post(BATCH, &body).await);
    assert_ne!(again["results"][0]["answer"]["reservation_id"], first["results"][0]["answer"]["reservation_id"]);
    assert_eq!(as_first(&again["results"][1]["answer"]), as_first(&first["results"][1]["answer"]));
    let only = json!({"operations": [with_key(reserve(2), "own")]});
    let mut alone = first.clone();
    alone["results"] = json!([first["results"][1]]);
    alone["results"][0]["replayed"] = json!(true);
    replayed(service.post(BATCH, &only).await, &alone);
}
