//! Every route that changes something, by a table that has to name all of them.

use super::{as_first, done, is_replay, kept_keys, keyed, named, own_headers, reserve_of, reused, trial_of};
use crate::support::{BASE, Service};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Routes that always act and ignore keys; a backtest writes nothing.
const KEYLESS: [&str; 6] = [
    "/access/tokens",
    "/approvals/{id}/approve",
    "/approvals/{id}/reject",
    "/regression/backtest",
    "/go-live/disable",
    "/go-live/kill-switch/engage",
];
const BATCH: &str = "/risk/batch";

/// One route: an input that works once, and the same with one field that differs.
struct Row {
    template: &'static str,
    /// The value for `{id}`.
    id: String,
    body: Value,
    /// The field that differs, and what it says then.
    other: (&'static str, Value),
}

impl Row {
    fn path(&self) -> String {
        self.template.replace("{id}", &self.id)
    }

    fn other_body(&self) -> Value {
        let mut body = self.body.clone();
        body[self.other.0] = self.other.1.clone();
        body
    }
}

/// A reservation that can still be ended.
async fn reservation(service: &Service) -> String {
    let mut body = reserve_of(3);
    body["ttl_seconds"] = json!(60);
    let reserved = service.post("/risk/check-and-reserve", &body).await.ok();
    reserved["reservation_id"].as_str().expect("room").to_owned()
}

/// A recommendation that production may act on.
async fn recommendation(service: &Service) -> String {
    let on = json!({"domain": "EARNED", "min_sandbox_trials": 1, "prod_use_enabled": true});
    service.post("/heimdall/policies/upsert", &on).await.ok();
    service.post("/heimdall/sandbox/trial", &trial_of("EARNED")).await.ok();
    let made = service.post("/heimdall/recommend", &json!({"domain": "EARNED", "confidence": 0.95})).await.ok();
    assert_eq!(made["prod_eligible"], true);
    made["id"].to_string()
}

/// A wire that stands tripped.
async fn tripped(service: &Service, metric: &str) -> Value {
    let wire = json!({"domain": "LAB", "metric": metric});
    let policy = json!({"domain": "LAB", "metric": metric, "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1});
    service.post("/regression/policies/upsert", &policy).await.ok();
    for success in [true, false] {
        let event = json!({"domain": "LAB", "metric": metric, "success": success});
        service.post("/regression/kpi", &event).await.ok();
    }
    wire
}

/// An input with further fields.
fn with(input: &Value, more: &Value) -> Value {
    let mut input = input.clone();
    for (name, value) in more.as_object().unwrap() {
        input[name] = value.clone();
    }
    input
}

/// The table, and the service that it works on.
async fn world() -> (Service, Vec<Row>) {
    let service = Service::live().await;
    let row = |template, body: Value, other| Row { template, id: String::new(), body, other };
    let of = |template, id, body: Value, other| Row { template, id, body, other };
    let (settled, first, second, third) = (
        reservation(&service).await,
        reservation(&service).await,
        reservation(&service).await,
        reservation(&service).await,
    );
    let why = json!({"actor": "sender", "reason": "retry"});
    let booked = service.get("/risk/events?action=RESERVE&limit=1").await.ok()["items"][0]["seq"].clone();
    let useful = recommendation(&service).await;
    let wire = json!({"domain": "CAPITAL", "metric": "roi_event", "max_drop_fraction": 0.4});
    let (first_wire, second_wire) = (tripped(&service, "one").await, tripped(&service, "two").await);
    let third_wire = json!({"domain": "WHOLESALE", "metric": "contract_rate", "source": "NEXT_N"});
    let rows = vec![
        row("/go-live/enable", why.clone(), ("reason", json!("another"))),
        row("/go-live/kill-switch/release", why.clone(), ("actor", json!("another"))),
        row("/go-live/packs", json!({"id": "crm", "status": "installed"}), ("status", json!("missing"))),
        row(
            "/risk/policies/upsert",
            json!({"engine": "CAPITAL", "max_daily_loss": 140}),
            ("max_daily_loss", json!(141)),
        ),
        row("/risk/check-and-reserve", reserve_of(5), ("amount", json!(6))),
        row("/risk/reservations", reserve_of(7), ("metadata", json!({"deal": 1}))),
        row("/risk/settle", json!({"reservation_id": settled, "realized_loss": 1}), ("realized_loss", json!(2))),
        of("/risk/reservations/{id}/settle", first, json!({"settled_amount": 3}), ("settled_amount", json!(2))),
        of("/risk/reservations/{id}/release", second, why.clone(), ("reason", json!("another"))),
        of("/risk/reservations/{id}/extend", third, json!({"ttl_seconds": 100}), ("ttl_seconds", json!(200))),
        row(
            BATCH,
            json!({"operations": [{"op": "reserve", "engine": "WHOLESALE", "amount": 9}]}),
            ("operations", json!([{"op": "reserve", "engine": "WHOLESALE", "amount": 8}])),
        ),
        row(
            "/risk/adjustments",
            json!({"corrects_seq": booked, "loss_delta": 1, "reason": "late fee"}),
            ("loss_delta", json!(2)),
        ),
        row("/heimdall/policies/upsert", json!({"domain": "NEW", "min_sandbox_trials": 4}), ("domain", json!("NEWER"))),
        row("/heimdall/sandbox/trial", trial_of("BUYER_MATCH"), ("success", json!(false))),
        row("/heimdall/recommend", json!({"domain": "EARNED", "confidence": 0.96}), ("confidence", json!(0.97))),
        of(
            "/heimdall/recommendations/{id}/require-prod-eligible",
            useful.clone(),
            why.clone(),
            ("correlation_id", json!("deal")),
        ),
        of("/heimdall/recommendations/{id}/revoke", useful, why, ("reason", json!("another"))),
        row(
            "/heimdall/promote",
            json!({"domain": "EARNED", "actor": "sender", "reason": "retry"}),
            ("reason", json!("another")),
        ),
        row("/heimdall/demote", json!({"domain": "EARNED", "reason": "retry"}), ("domain", json!("BUYER_MATCH"))),
        row("/regression/policies/upsert", wire, ("max_drop_fraction", json!(0.5))),
        row(
            "/regression/kpi",
            json!({"domain": "CAPITAL", "metric": "speed", "value": 2.5, "detail": "first"}),
            ("value", json!(2.6)),
        ),
        row(
            "/regression/kpi/batch",
            json!({"events": [{"domain": "CAPITAL", "metric": "speed", "value": 2.5}]}),
            ("actor", json!("another")),
        ),
        row("/regression/evaluate", json!({"domain": "CAPITAL", "metric": "roi_event"}), ("metric", json!("speed"))),
        row("/regression/kind", json!({"domain": "A", "metric": "new", "kind": "BOOLEAN"}), ("kind", json!("NUMERIC"))),
        row(
            "/regression/acknowledge",
            with(&first_wire, &json!({"verdict": "FALSE_ALARM"})),
            ("verdict", json!("TRUE_REGRESSION")),
        ),
        row("/regression/rearm", with(&second_wire, &json!({"reason": "repaired"})), ("reason", json!("another"))),
        row("/regression/baseline/reset", third_wire, ("metric", json!("one"))),
    ];
    (service, rows.into_iter().chain(removals()).collect())
}

/// Of a fresh install, these three are off and were never used.
fn removals() -> [Row; 3] {
    let row = |template, body, other| Row { template, id: String::new(), body, other };
    [
        row("/risk/policies/remove", json!({"engine": "NOTIFY"}), ("engine", json!("CAPITAL"))),
        row("/heimdall/policies/remove", json!({"domain": "CAPITAL_ROUTE"}), ("domain", json!("BUYER_MATCH"))),
        row(
            "/regression/policies/remove",
            json!({"domain": "BUYER_MATCH", "metric": "match_success"}),
            ("metric", json!("other")),
        ),
    ]
}

#[tokio::test]
async fn the_table_names_every_route_that_changes_something() {
    let document: Value = serde_json::from_str(&holdfast::app::document_text()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let posts = paths.iter().filter(|(_, item)| item["post"].is_object());
    // Flags are outside the base path, and asking for them changes nothing.
    let documented: BTreeSet<&str> = posts.filter_map(|(path, _)| path.strip_prefix(BASE)).collect();
    let (_, rows) = world().await;
    let named: BTreeSet<&str> = rows.iter().map(|row| row.template).chain(KEYLESS).collect();
    assert_eq!(named, documented);
}

#[tokio::test]
async fn sent_again_with_its_key_it_is_answered_alike_and_nothing_is_written() {
    let (service, rows) = world().await;
    for row in &rows {
        let (path, key) = (row.path(), format!("again {}", row.template));
        let first = keyed(&service, &path, &key, &row.body).await;
        assert!(first.status.is_success() && !is_replay(&first), "{path}: {}", first.text);
        let before = service.everything().await;
        for _ in 0..2 {
            let again = keyed(&service, &path, &key, &row.body).await;
            assert!(is_replay(&again), "{path}: {}", again.text);
            assert_eq!((again.status, own_headers(&again)), (first.status, own_headers(&first)), "{path}");
            assert_eq!(as_first(&again.json), as_first(&first.json), "{path}");
        }
        assert_eq!(service.everything().await, before, "{path}");
    }
}

#[tokio::test]
async fn another_input_under_the_key_is_refused_naming_what_differs() {
    let (service, rows) = world().await;
    for row in rows.iter().filter(|row| row.template != BATCH) {
        let (path, key) = (row.path(), format!("other {}", row.template));
        let first = keyed(&service, &path, &key, &row.body).await;
        assert!(first.status.is_success(), "{path}: {}", first.text);
        let before = service.everything().await;
        reused(keyed(&service, &path, &key, &row.other_body()).await, &[row.other.0]);
        // A field more is another input too, and so is one less.
        let mut more = row.other_body();
        more["actor"] = json!("somebody else");
        let both = keyed(&service, &path, &key, &more).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
        let expected = BTreeSet::from(["actor".to_owned(), row.other.0.to_owned()]);
        assert_eq!(named(&both["errors"]).into_iter().collect::<BTreeSet<_>>(), expected, "{path}");
        assert_eq!(service.everything().await, before, "{path}");
        // The key's answer is still there.
        assert!(is_replay(&keyed(&service, &path, &key, &row.body).await), "{path}");
    }
}

#[tokio::test]
async fn another_input_in_a_batch_is_refused_operation_by_operation() {
    let (service, rows) = world().await;
    let row = rows.iter().find(|row| row.template == BATCH).unwrap();
    done(keyed(&service, BATCH, "k", &row.body).await);
    let before = service.everything().await;
    let answer = done(keyed(&service, BATCH, "k", &row.other_body()).await);
    let result = &answer["results"][0];
    assert_eq!((&result["status"], &result["replayed"], &result["answer"]), (&json!(422), &json!(false), &Value::Null));
    assert_eq!(result["error"]["error"], "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(named(&result["error"]["errors"]), ["amount"]);
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn a_key_of_one_route_is_refused_on_every_other() {
    let (service, rows) = world().await;
    // The keys of a batch are those of its operations.
    let rows: Vec<&Row> = rows.iter().filter(|row| row.template != BATCH).collect();
    for (place, row) in rows.iter().enumerate() {
        let answer = keyed(&service, &row.path(), &format!("key {place}"), &row.body).await;
        assert!(answer.status.is_success(), "{}: {}", row.template, answer.text);
    }
    let before = service.everything().await;
    for (place, row) in rows.iter().enumerate() {
        for distance in [1, 7] {
            let of_another = format!("key {}", (place + distance) % rows.len());
            reused(keyed(&service, &row.path(), &of_another, &row.body).await, &["route"]);
        }
    }
    let operation =
        json!({"operations": [{"op": "reserve", "engine": "WHOLESALE", "amount": 5, "idempotency_key": "key 4"}]});
    let answer = service.post(BATCH, &operation).await.ok();
    assert_eq!(named(&answer["results"][0]["error"]["errors"]), ["route"], "{answer}");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn a_key_that_was_given_a_field_is_the_key_that_was_given_the_header() {
    let (service, rows) = world().await;
    for row in &rows {
        let (path, key) = (row.path(), format!("either {}", row.template));
        let mut with_field = row.body.clone();
        with_field["idempotency_key"] = json!(key);
        let first = service.post(&path, &with_field).await;
        assert!(first.status.is_success() && !is_replay(&first), "{path}: {}", first.text);
        assert!(is_replay(&keyed(&service, &path, &key, &row.body).await), "{path}");
        assert!(is_replay(&keyed(&service, &path, &key, &with_field).await), "{path}");
        assert!(is_replay(&service.post(&path, &with_field).await), "{path}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused_on_every_route_and_nothing_is_written() {
    let (service, rows) = world().await;
    let before = service.everything().await;
    // A stop of one thing works without a key that it cannot have.
    let stops = ["/heimdall/demote", "/heimdall/recommendations/{id}/revoke"];
    for row in rows.iter().filter(|row| !stops.contains(&row.template)) {
        let path = row.path();
        for header in ["", " ", "\"\"", &"k".repeat(201), "a\tb"] {
            keyed(&service, &path, header, &row.body).await.invalid("idempotency_key");
        }
        for field in [&"k".repeat(201), "a\nb", "a\u{0}b", "a\u{2028}b"] {
            let mut body = row.body.clone();
            body["idempotency_key"] = json!(field);
            service.post(&path, &body).await.invalid("idempotency_key");
            let mut body = row.body.clone();
            body["idempotency_key"] = json!("one");
            keyed(&service, &path, "another", &body).await.refused(400, "CONTRADICTORY_INPUT");
        }
    }
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn without_a_key_nothing_is_kept() {
    let (service, rows) = world().await;
    for row in &rows {
        let answer = service.post(&row.path(), &row.body).await;
        assert!(answer.status.is_success() && !is_replay(&answer), "{}: {}", row.template, answer.text);
    }
    assert_eq!(kept_keys(&service).await, 0);
}

#[test]
fn the_document_names_the_headers_of_every_keyed_route() {
    let document: Value = serde_json::from_str(&holdfast::app::document_text()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        let (Some(post), Some(template)) = (item.get("post"), path.strip_prefix(BASE)) else { continue };
        let keyed = !KEYLESS.contains(&template);
        let parameters = post["parameters"].as_array().unwrap();
        let header = parameters.iter().any(|one| one["name"] == "Idempotency-Key" && one["in"] == "header");
        assert_eq!(header, keyed, "{path}");
        for (status, response) in post["responses"].as_object().unwrap() {
            let marks = response["headers"]["Idempotent-Replayed"].is_object();
            assert_eq!(marks, keyed && status.starts_with('2'), "{path} {status}");
        }
        // The field is there, if only to be ignored; but where an answer would be a secret to keep, and where a thing is done once
        // by its own id.
        let field = parameters.iter().any(|one| one["name"] == "idempotency_key" && one["in"] == "query");
        assert_eq!(field, !KEYLESS[..4].contains(&template), "{path}");
    }
}
