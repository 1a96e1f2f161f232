//! Lever 4 through HTTP: wires, measurements, the trip, the latch, the re-arm.

use crate::support::Service;
use serde_json::{Value, json};

const UPSERT: &str = "/regression/policies/upsert";
const KPI: &str = "/regression/kpi";
const EVALUATE: &str = "/regression/evaluate";

/// The row of a pair in a list; null when there is none.
fn of(list: &Value, domain: &str, metric: &str) -> Value {
    let rows = list.as_array().expect("a list");
    let found = rows.iter().find(|row| row["domain"] == domain && row["metric"] == metric);
    found.cloned().unwrap_or_default()
}

async fn policy(service: &Service, domain: &str, metric: &str) -> Value {
    of(&service.get("/regression/policies").await.ok(), domain, metric)
}

async fn state(service: &Service, domain: &str, metric: &str) -> Value {
    of(&service.get("/regression/state").await.ok(), domain, metric)
}

async fn engine(service: &Service, name: &str) -> Value {
    let policies = service.get("/risk/policies").await.ok();
    let found = policies.as_array().expect("a list").iter().find(|row| row["engine"] == name);
    found.cloned().unwrap_or_default()
}

async fn trips(service: &Service, filter: &str) -> Vec<Value> {
    let page = service.get(&format!("/regression/trips?limit=1000{filter}")).await.ok();
    page["items"].as_array().expect("a page").clone()
}

async fn upsert(service: &Service, body: Value) -> Value {
    service.post(UPSERT, &body).await.ok()
}

/// A wire that judges 5 recent events by the 10 before them, with whatever else is given.
async fn small_wire(service: &Service, domain: &str, metric: &str, more: Value) -> Value {
    let mut body = json!({
        "domain": domain, "metric": metric, "window_events": 5, "baseline_events": 10, "min_events_to_enforce": 5,
        "enabled": true, "actor": "setup",
    });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    upsert(service, body).await
}

/// A wire that judges each event by the one before it.
async fn pair_wire(service: &Service, domain: &str, metric: &str) {
    let one = json!({"window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1});
    small_wire(service, domain, metric, one).await;
}

async fn kpi(service: &Service, domain: &str, metric: &str, success: bool) -> Value {
    let body = json!({"domain": domain, "metric": metric, "success": success, "actor": "shop"});
    service.post(KPI, &body).await.ok()
}

/// Records this many measurements and expects that none of them trips.
async fn quiet(service: &Service, domain: &str, metric: &str, count: usize, success: bool) {
    for number in 1..=count {
        let done = kpi(service, domain, metric, success).await;
        assert_eq!(done["tripped"], Value::Null, "event {number} of {count}: {done}");
    }
}

async fn value(service: &Service, domain: &str, metric: &str, value: &str) -> Value {
    let body = format!(r#"{{"domain":"{domain}","metric":"{metric}","value":{value},"actor":"shop"}}"#);
    service.post_text(KPI, "application/json", &body).await.ok()
}

async fn evaluate(service: &Service, domain: &str, metric: &str) -> Value {
    let body = json!({"domain": domain, "metric": metric, "actor": "friday"});
    let done = service.post(EVALUATE, &body).await.ok();
    assert_eq!(done["ok"], true);
    done["state"].clone()
}

/// A small wire that has just tripped: 15 successes, then one failure. Gives the trip.
async fn tripped(service: &Service, domain: &str, metric: &str, more: Value) -> Value {
    small_wire(service, domain, metric, more).await;
    quiet(service, domain, metric, 15, true).await;
    let done = kpi(service, domain, metric, false).await;
    assert!(done["tripped"].is_object(), "{done}");
    done["tripped"].clone()
}

async fn rearm(service: &Service, domain: &str, metric: &str) -> Value {
    let body = json!({"domain": domain, "metric": metric, "enabled": true, "actor": "fixer", "reason": "fixed"});
    upsert(service, body).await
}

#[tokio::test]
async fn policies_are_seeded_and_all_off() {
    let service = Service::fresh().await;
    let policies = service.get("/regression/policies").await.ok();
    let rows: Vec<Value> = policies
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            json!([
                row["domain"],
                row["metric"],
                row["window_events"],
                row["baseline_events"],
                row["min_events_to_enforce"],
                row["max_drop_fraction"],
                row["action"],
                row["engine"],
                row["enabled"]
            ])
        })
        .collect();
    assert_eq!(
        json!(rows),
        json!([
            ["BUYER_MATCH", "match_success", 50, 200, 50, 0.25, "THROTTLE", null, false],
            ["CAPITAL", "roi_event", 50, 200, 50, 0.3, "KILL_SWITCH", null, false],
            ["WHOLESALE", "contract_rate", 50, 200, 50, 0.2, "THROTTLE", null, false],
            ["WHOLESALE", "offer_accept_rate", 50, 200, 50, 0.15, "THROTTLE", null, false],
        ])
    );
}

#[tokio::test]
async fn every_policy_has_a_state_from_the_start() {
    let service = Service::fresh().await;
    let states = service.get("/regression/state").await.ok();
    assert_eq!(states.as_array().unwrap().len(), 4);
    assert_eq!(
        of(&states, "WHOLESALE", "contract_rate"),
        json!({
            "domain": "WHOLESALE", "metric": "contract_rate", "triggered": false, "status": "DISABLED", "baseline": null,
            "current": null, "drop_fraction": null, "last_checked_at": null, "last_triggered_at": null,
            "note": "policy_missing_or_disabled", "trip_id": null, "watermark": 0, "baseline_events": 0,
            "current_events": 0, "evidence": null, "evidence_pct": null, "began_at_event": null, "guarantee": null,
            "baseline_version": 0,
        })
    );
}

#[tokio::test]
async fn a_new_wire_starts_at_the_originals_defaults_and_enabled() {
    let service = Service::fresh().await;
    let made = upsert(&service, json!({"domain": "new", "metric": "Rate"})).await;
    let policy = &made["policy"];
    assert_eq!(
        *policy,
        json!({
            "domain": "NEW", "metric": "rate", "window_events": 50, "baseline_events": 200, "min_events_to_enforce": 50,
            "max_drop_fraction": 0.2, "action": "THROTTLE", "engine": null, "enabled": true, "changed_by": null,
            "reason": null, "updated_at": policy["updated_at"], "version": 1, "detector": "PLAIN",
            "direction": "HIGHER_IS_BETTER", "effect": "RELATIVE", "max_drop_value": null, "mode": "ENFORCE",
            "on_stale": "WARN", "stale_after_seconds": null, "false_trip_arl": null, "tolerance_fraction": null,
        })
    );
    assert_eq!((&made["ok"], &made["rearmed"]), (&json!(true), &Value::Null));
    assert_eq!(made["changes"].as_array().unwrap().len(), 11);
}

#[tokio::test]
async fn an_upsert_changes_what_it_names_and_keeps_the_rest() {
    let service = Service::fresh().await;
    let body = json!({"domain": "CAPITAL", "metric": "roi_event", "max_drop_fraction": "0.25", "changed_by": "bryan"});
    let done = upsert(&service, body).await;
    assert_eq!(done["changes"], json!([{"field": "max_drop_fraction", "from": 0.3, "to": 0.25}]));
    let now = policy(&service, "CAPITAL", "roi_event").await;
    assert_eq!(
        json!([
            now["window_events"],
            now["max_drop_fraction"],
            now["action"],
            now["enabled"],
            now["changed_by"],
            now["version"]
        ]),
        json!([50, 0.25, "KILL_SWITCH", false, "bryan", 2])
    );
}

#[tokio::test]
async fn the_same_upsert_twice_is_one_change() {
    let service = Service::fresh().await;
    let body =
        json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": true, "actor": "bryan", "reason": "watch"});
    upsert(&service, body.clone()).await;
    let before = (service.events().await, policy(&service, "WHOLESALE", "contract_rate").await);
    assert_eq!(upsert(&service, body).await["changes"], json!([]));
    let after = (service.events().await, policy(&service, "WHOLESALE", "contract_rate").await);
    assert_eq!(after, before);
}

#[tokio::test]
async fn an_impossible_wire_is_refused_with_its_field_and_leaves_no_trace() {
    let service = Service::fresh().await;
    let cases = [
        (json!({"metric": "m"}), "domain"),
        (json!({"domain": "D"}), "metric"),
        (json!({"domain": "A B", "metric": "m"}), "domain"),
        (json!({"domain": "D", "metric": "m".repeat(65)}), "metric"),
        (json!({"domain": "D", "metric": "m", "window_events": 0}), "window_events"),
        (json!({"domain": "D", "metric": "m", "window_events": 10_001}), "window_events"),
        (json!({"domain": "D", "metric": "m", "baseline_events": 10_001}), "baseline_events"),
        (json!({"domain": "D", "metric": "m", "baseline_events": "2.5"}), "baseline_events"),
        (json!({"domain": "D", "metric": "m", "min_events_to_enforce": 0}), "min_events_to_enforce"),
        (json!({"domain": "D", "metric": "m", "min_events_to_enforce": 51}), "min_events_to_enforce"),
        (json!({"domain": "D", "metric": "m", "window_events": 20}), "min_events_to_enforce"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": 0}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": 1.1}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": "-0.2"}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "max_drop_fraction": "0.1234567"}), "max_drop_fraction"),
        (json!({"domain": "D", "metric": "m", "action": "STOP"}), "action"),
        (json!({"domain": "D", "metric": "m", "engine": "A B"}), "engine"),
        (json!({"domain": "D".repeat(51), "metric": "m"}), "engine"),
        (json!({"domain": "D", "metric": "m", "enabled": "perhaps"}), "enabled"),
        (json!({"domain": "D", "metric": "m", "window": 5}), "window"),
    ];
    let before = (service.events().await, service.get("/regression/policies").await.ok());
    for (body, field) in cases {
        service.post(UPSERT, &body).await.invalid(field);
    }
    assert_eq!((service.events().await, service.get("/regression/policies").await.ok()), before);
    // A long domain needs an engine only for a throttle.
    let kill = json!({"domain": "D".repeat(80), "metric": "m".repeat(64), "action": "KILL_SWITCH"});
    upsert(&service, kill).await;
}

#[tokio::test]
async fn a_measurement_is_recorded_in_its_series() {
    let service = Service::fresh().await;
    let body = json!({
        "domain": "wholesale", "metric": "Contract_Rate", "success": true, "actor": "shop", "correlation_id": "deal-1",
        "detail": "first", "event_id": "e-1",
    });
    let done = service.post(KPI, &body).await.ok();
    assert_eq!(done, json!({"ok": true, "id": 1, "tripped": null, "watched": false, "duplicate": false}));
    value(&service, "CAPITAL", "roi", "-12.345678").await;
    let page = service.get(KPI).await.ok();
    let (newest, oldest) = (&page["items"][0], &page["items"][1]);
    assert_eq!(
        *oldest,
        json!({
            "id": 1, "domain": "WHOLESALE", "metric": "contract_rate", "series_seq": 1, "success": true, "value": null,
            "event_id": "e-1", "actor": "shop", "correlation_id": "deal-1", "detail": "first",
            "created_at": oldest["created_at"], "hash": oldest["hash"],
        })
    );
    assert_eq!(oldest["hash"].as_str().unwrap().len(), 64);
    assert_eq!(
        json!([newest["id"], newest["series_seq"], newest["success"], newest["value"]]),
        json!([2, 1, null, -12.345_678])
    );
}

#[tokio::test]
async fn measurements_without_an_event_id_count_each_time() {
    let service = Service::fresh().await;
    for number in 1..=3 {
        let done = kpi(&service, "D", "m", true).await;
        assert_eq!((&done["id"], &done["duplicate"]), (&json!(number), &json!(false)));
    }
}

#[tokio::test]
async fn a_measurement_means_the_same_as_json_form_and_query() {
    let service = Service::fresh().await;
    service.post_form(KPI, "domain=d&metric=m&value=1.5&changed_by=shop").await.ok();
    service.post_query(KPI, "domain=d&metric=m&value=1.5&actor=shop").await.ok();
    service.post(KPI, &json!({"domain": "d", "metric": "m", "value": "1.5", "actor": "shop"})).await.ok();
    let page = service.get("/regression/kpi?domain=D").await.ok();
    for row in page["items"].as_array().unwrap() {
        assert_eq!(json!([row["value"], row["actor"]]), json!([1.5, "shop"]));
    }
}

#[tokio::test]
async fn a_bad_measurement_is_refused_and_leaves_no_trace() {
    let service = Service::fresh().await;
    kpi(&service, "D", "m", true).await;
    let cases = [
        (json!({"metric": "m", "success": true}), "domain"),
        (json!({"domain": "D", "success": true}), "metric"),
        (json!({"domain": "D", "metric": "m"}), "success"),
        (json!({"domain": "D", "metric": "m", "success": null}), "success"),
        (json!({"domain": "D", "metric": "m", "success": true, "value": 1}), "success"),
        (json!({"domain": "D", "metric": "m", "success": 2}), "success"),
        (json!({"domain": "D", "metric": "x", "value": "1.0000001"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "1000000000000.000001"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "-1000000000000.000001"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "NaN"}), "value"),
        (json!({"domain": "D", "metric": "x", "value": "-0"}), "value"),
        (json!({"domain": "D", "metric": "m", "success": true, "event_id": "e".repeat(201)}), "event_id"),
        (json!({"domain": "D", "metric": "m", "success": true, "detail": "d".repeat(4097)}), "detail"),
        (json!({"domain": "D", "metric": "m", "success": true, "id": 7}), "id"),
    ];
    for (body, field) in cases {
        service.post(KPI, &body).await.invalid(field);
    }
    assert_eq!(service.events().await, 1);
}

#[tokio::test]
async fn a_series_keeps_the_kind_of_its_first_event() {
    let service = Service::fresh().await;
    kpi(&service, "D", "rate", true).await;
    value(&service, "D", "money", "5").await;
    let cases = [
        (json!({"domain": "D", "metric": "rate", "value": 1}), "success", "BOOLEAN"),
        (json!({"domain": "D", "metric": "money", "success": true}), "value", "NUMERIC"),
    ];
    for (body, wanted, kind) in cases {
        let refusal = service.post(KPI, &body).await.refused(422, "SERIES_KIND_MISMATCH");
        assert_eq!(refusal["errors"][0]["field"], wanted);
        assert!(refusal["detail"].as_str().unwrap().contains(kind), "{refusal}");
    }
    assert_eq!(service.events().await, 2);
    // Another pair is another series.
    value(&service, "E", "rate", "1").await;
}

#[tokio::test]
async fn the_same_event_id_again_is_one_event() {
    let service = Service::fresh().await;
    let body = json!({"domain": "D", "metric": "m", "success": false, "event_id": "e-1", "detail": "x"});
    let first = service.post(KPI, &body).await.ok();
    let again = service.post(KPI, &body).await.ok();
    assert_eq!((&again["id"], &again["duplicate"]), (&first["id"], &json!(true)));
    assert_eq!(first["duplicate"], false);
    assert_eq!(service.events().await, 1);
    // The id is the series' own.
    let other = json!({"domain": "D", "metric": "n", "success": false, "event_id": "e-1"});
    assert_eq!(service.post(KPI, &other).await.ok()["duplicate"], false);
}

#[tokio::test]
async fn an_event_id_with_another_content_is_refused_and_leaves_no_trace() {
    let service = Service::fresh().await;
    let first = json!({"domain": "D", "metric": "m", "success": true, "event_id": "e-1", "detail": "x"});
    service.post(KPI, &first).await.ok();
    let cases = [
        (json!({"success": false, "detail": "x"}), json!(["success"])),
        (json!({"success": true, "detail": "y"}), json!(["detail"])),
        (json!({"success": true}), json!(["detail"])),
        (json!({"success": false}), json!(["success", "detail"])),
        (json!({"value": 1, "detail": "x"}), json!(["value"])),
    ];
    for (mut body, fields) in cases {
        (body["domain"], body["metric"], body["event_id"]) = (json!("D"), json!("m"), json!("e-1"));
        let refusal = service.post(KPI, &body).await.refused(409, "EVENT_ID_REUSED");
        assert_eq!(refusal["fields"], fields, "{body}");
    }
    assert_eq!(service.events().await, 1);
}

#[tokio::test]
async fn an_event_id_sent_again_does_not_trip_twice() {
    let service = Service::live().await;
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    let bad = json!({"domain": "WHOLESALE", "metric": "m", "success": false, "event_id": "bad"});
    assert!(service.post(KPI, &bad).await.ok()["tripped"].is_object());
    let events = service.events().await;
    assert_eq!(service.post(KPI, &bad).await.ok()["duplicate"], true);
    assert_eq!(service.events().await, events);
    assert_eq!(trips(&service, "").await.len(), 1);
}

#[tokio::test]
async fn watched_says_whether_an_enabled_wire_looks_at_the_event() {
    let service = Service::fresh().await;
    let watched = async |metric: &str| kpi(&service, "WHOLESALE", metric, true).await["watched"].clone();
    assert_eq!(watched("nobody_watches").await, false);
    assert_eq!(watched("contract_rate").await, false);
    upsert(&service, json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": true})).await;
    assert_eq!(watched("contract_rate").await, true);
    upsert(&service, json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": false})).await;
    assert_eq!(watched("contract_rate").await, false);
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

/// tripwire.md 5.1, the column PLAIN: 250 events with a failure at every m-th, then the pattern. All eight meet an exact tie
/// at 20 %; the sixth is the one that `(b - c) / b >= d` in doubles reaches an event late.
#[tokio::test]
async fn golden_streams_trip_at_exactly_their_event() {
    const ALL: &[bool] = &[false];
    const ALTERNATE: &[bool] = &[false, true];
    const TWO_OF_THREE: &[bool] = &[false, true, true];
    let rows = [
        (5, ALL, 9, 160),
        (5, ALTERNATE, 23, 160),
        (5, TWO_OF_THREE, 49, 160),
        (10, ALL, 9, 180),
        (10, ALTERNATE, 19, 180),
        (20, ALL, 10, 190),
        (20, ALTERNATE, 19, 190),
        (20, TWO_OF_THREE, 31, 190),
    ];
    let service = Service::live().await;
    for (row, (every, pattern, trips_at, successes)) in rows.into_iter().enumerate() {
        let domain = format!("GOLDEN_{row}");
        upsert(&service, json!({"domain": domain, "metric": "m"})).await;
        service.kpis(&domain, "m", 250, every).await;
        assert_eq!(trips(&service, &format!("&domain={domain}")).await.len(), 0, "row {row}");
        for number in 1..trips_at {
            let done = kpi(&service, &domain, "m", pattern[(number - 1) % pattern.len()]).await;
            assert_eq!(done["tripped"], Value::Null, "row {row}, bad event {number}");
        }
        let done = kpi(&service, &domain, "m", pattern[(trips_at - 1) % pattern.len()]).await;
        assert_eq!(done["tripped"]["drop_fraction"], json!(0.2), "row {row}: {done}");
        let trip = &trips(&service, &format!("&domain={domain}")).await[0];
        assert_eq!(
            json!([
                trip["series_seq"],
                trip["baseline_events"],
                trip["baseline_sum"],
                trip["current_events"],
                trip["current_sum"]
            ]),
            json!([250 + trips_at, 200, successes, 50, successes / 5]),
            "row {row}"
        );
    }
}

#[tokio::test]
async fn the_tripping_event_says_so_and_the_next_reserve_is_denied() {
    let service = Service::live().await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    let done = kpi(&service, "WHOLESALE", "m", false).await;
    let trip_id = done["tripped"]["trip_id"].clone();
    assert_eq!(
        done["tripped"],
        json!({
            "trip_id": trip_id, "action": "THROTTLE", "engine": "WHOLESALE", "drop_fraction": 0.2,
            "note": "TRIGGERED drop=0.200 action=THROTTLE", "shadow": false,
        })
    );
    assert_eq!(done["watched"], true);
    let denied = service.reserve("WHOLESALE", "1").await.ok();
    assert_eq!(
        json!([denied["ok"], denied["reason"], denied["scope"], denied["message"]]),
        json!([false, "policy_disabled", "WHOLESALE", "WHOLESALE hard stop: Policy disabled"])
    );
    // Only that engine.
    assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], true);
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(
        json!([
            engine["enabled"],
            engine["throttled_by"],
            engine["reason"],
            engine["changed_by"],
            engine["max_daily_exposure"]
        ]),
        json!([false, [trip_id], "Regression tripwire: WHOLESALE.m drop=0.200", "shop", 1000])
    );
    let checklist = service.get("/go-live/checklist").await.ok();
    assert!(checklist["warnings"].to_string().contains("WHOLESALE.m"), "{checklist}");
}

#[tokio::test]
async fn a_trip_is_kept_with_its_numbers() {
    let service = Service::live().await;
    let made = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let trip = trips(&service, "").await[0].clone();
    assert_eq!(
        trip,
        json!({
            "id": made["trip_id"], "domain": "WHOLESALE", "metric": "m", "kpi_seq": 16, "series_seq": 16,
            "baseline_events": 10, "baseline_sum": 10, "current_events": 5, "current_sum": 4, "drop_fraction": 0.2,
            "action": "THROTTLE", "engine": "WHOLESALE", "actor": "shop", "tripped_at": trip["tripped_at"],
            "rearmed_at": null, "rearmed_by": null, "rearm_reason": null, "rearm_baseline": null, "detector": "PLAIN",
            "cause": "DROP", "shadow": false, "evidence": null, "began_at_event": null, "acknowledged_at": null,
            "acknowledged_by": null, "verdict": null,
        })
    );
    let state = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([state["triggered"], state["status"], state["trip_id"], state["last_triggered_at"], state["note"]]),
        json!([true, "TRIPPED", made["trip_id"], trip["tripped_at"], "TRIGGERED drop=0.200 action=THROTTLE"])
    );
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
async fn a_trip_by_an_event_that_names_nobody_is_the_systems() {
    let service = Service::live().await;
    small_wire(&service, "WHOLESALE", "m", json!({})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    let done = service.post(KPI, &json!({"domain": "WHOLESALE", "metric": "m", "success": false})).await.ok();
    assert!(done["tripped"].is_object());
    assert_eq!(engine(&service, "WHOLESALE").await["changed_by"], "system");
}

#[tokio::test]
async fn a_tripped_wire_acts_once_and_its_numbers_go_on() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let before = (
        trips(&service, "").await,
        engine(&service, "WHOLESALE").await,
        service.get("/go-live/state").await.ok(),
        service.count("SELECT count(*) FROM control_event").await,
    );
    for (failures, drop) in [(2, 0.4), (3, 0.6), (4, 0.8)] {
        let done = kpi(&service, "WHOLESALE", "m", false).await;
        assert_eq!((&done["tripped"], &done["watched"]), (&Value::Null, &json!(true)));
        let state = evaluate(&service, "WHOLESALE", "m").await;
        assert_eq!(
            json!([state["triggered"], state["note"], state["trip_id"], state["status"], state["drop_fraction"]]),
            json!([true, "TRIGGERED drop=0.200 action=THROTTLE", trip["trip_id"], "TRIPPED", drop]),
            "{failures} failures"
        );
    }
    // It stays tripped when all is well again.
    quiet(&service, "WHOLESALE", "m", 20, true).await;
    let calm = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([calm["triggered"], calm["note"], calm["current"]]),
        json!([true, "TRIGGERED drop=0.200 action=THROTTLE", 1])
    );
    let after = (
        trips(&service, "").await,
        engine(&service, "WHOLESALE").await,
        service.get("/go-live/state").await.ok(),
        service.count("SELECT count(*) FROM control_event").await,
    );
    assert_eq!(after, before);
}

#[tokio::test]
async fn disabling_a_tripped_wire_keeps_its_latch_and_its_throttle() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let off = upsert(&service, json!({"domain": "WHOLESALE", "metric": "m", "enabled": false})).await;
    assert_eq!((&off["policy"]["enabled"], &off["rearmed"]), (&json!(false), &Value::Null));
    for state in [state(&service, "WHOLESALE", "m").await, evaluate(&service, "WHOLESALE", "m").await] {
        assert_eq!(
            json!([state["triggered"], state["status"], state["trip_id"], state["note"]]),
            json!([true, "TRIPPED", trip["trip_id"], "TRIGGERED drop=0.200 action=THROTTLE"])
        );
    }
    assert_eq!(kpi(&service, "WHOLESALE", "m", true).await["watched"], false);
    assert_eq!(engine(&service, "WHOLESALE").await["throttled_by"], json!([trip["trip_id"]]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false);
    // Enabling it again is a re-arm like any other.
    let on = json!({"domain": "WHOLESALE", "metric": "m", "enabled": true});
    service.post(UPSERT, &on).await.refused(409, "WIRE_TRIPPED");
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn another_setting_of_a_tripped_wire_does_not_rearm_it() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let body = json!({"domain": "WHOLESALE", "metric": "m", "max_drop_fraction": 0.9, "reason": "tuning"});
    assert_eq!(upsert(&service, body).await["rearmed"], Value::Null);
    assert_eq!(state(&service, "WHOLESALE", "m").await["trip_id"], trip["trip_id"]);
    assert_eq!(engine(&service, "WHOLESALE").await["enabled"], false);
}

#[tokio::test]
async fn a_rearm_without_a_reason_is_refused_and_leaves_no_trace() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let snapshot = async || {
        (
            service.events().await,
            policy(&service, "WHOLESALE", "m").await,
            state(&service, "WHOLESALE", "m").await,
            engine(&service, "WHOLESALE").await,
        )
    };
    let before = snapshot().await;
    for reason in [Value::Null, json!("  ")] {
        let body =
            json!({"domain": "WHOLESALE", "metric": "m", "enabled": true, "max_drop_fraction": 0.5, "reason": reason});
        let refusal = service.post(UPSERT, &body).await.refused(409, "WIRE_TRIPPED");
        assert_eq!(refusal["trip_id"], trip["trip_id"]);
    }
    assert_eq!(snapshot().await, before);
}

#[tokio::test]
async fn a_rearm_ends_the_trip_and_lifts_its_throttle() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    let done = rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(done["rearmed"], trip["trip_id"]);
    let ended = trips(&service, "").await[0].clone();
    assert_eq!(json!([ended["rearmed_by"], ended["rearm_reason"]]), json!(["fixer", "fixed"]));
    assert!(ended["rearmed_at"].is_string());
    let state = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([
            state["triggered"],
            state["status"],
            state["trip_id"],
            state["watermark"],
            state["note"],
            state["last_triggered_at"]
        ]),
        json!([false, "WARMUP", null, 16, "insufficient_events(recent=0, baseline=10)", ended["tripped_at"]])
    );
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(
        json!([engine["enabled"], engine["throttled_by"], engine["reason"], engine["changed_by"]]),
        json!([true, [], "fixed", "fixer"])
    );
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    // Twice is safe: there is nothing left to re-arm.
    let events = service.events().await;
    let again = rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([again["rearmed"], again["changes"]]), json!([null, []]));
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn two_wires_hold_one_engine_and_each_lifts_only_its_own_throttle() {
    let service = Service::live().await;
    let shared = json!({"engine": "wholesale"});
    let first = tripped(&service, "LEADS", "m", shared.clone()).await;
    let second = tripped(&service, "OFFERS", "m", shared).await;
    assert_eq!(first["engine"], "WHOLESALE");
    assert_eq!(engine(&service, "WHOLESALE").await["throttled_by"], json!([first["trip_id"], second["trip_id"]]));
    rearm(&service, "LEADS", "m").await;
    let held = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([held["enabled"], held["throttled_by"]]), json!([false, [second["trip_id"]]]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "policy_disabled");
    rearm(&service, "OFFERS", "m").await;
    assert_eq!(engine(&service, "WHOLESALE").await["enabled"], true);
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    // Neither of the domains became an engine.
    assert_eq!(engine(&service, "LEADS").await, Value::Null);
}

#[tokio::test]
async fn a_rearm_does_not_switch_on_what_a_person_switched_off() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    let off = json!({"engine": "WHOLESALE", "enabled": false, "actor": "ops", "reason": "by hand"});
    service.post("/risk/policies/upsert", &off).await.ok();
    rearm(&service, "WHOLESALE", "m").await;
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([engine["enabled"], engine["throttled_by"]]), json!([false, []]));
}

#[tokio::test]
async fn a_rearm_after_the_throttle_was_overridden_by_hand_still_ends_the_trip() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    let on = json!({"engine": "WHOLESALE", "enabled": true, "actor": "ops", "reason": "override"});
    service.post("/risk/policies/upsert", &on).await.ok();
    assert_eq!(state(&service, "WHOLESALE", "m").await["triggered"], true);
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(state(&service, "WHOLESALE", "m").await["triggered"], false);
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([engine["enabled"], engine["reason"]]), json!([true, "override"]));
}

/// With 50 bad events in its history; then the baseline of the trip judges the next 50.
#[tokio::test]
async fn a_rearmed_wire_forgets_the_bad_events_and_remembers_its_baseline() {
    let service = Service::live().await;
    upsert(&service, json!({"domain": "WHOLESALE", "metric": "m"})).await;
    service.kpis("WHOLESALE", "m", 250, 20).await;
    quiet(&service, "WHOLESALE", "m", 9, false).await;
    assert!(kpi(&service, "WHOLESALE", "m", false).await["tripped"].is_object());
    quiet(&service, "WHOLESALE", "m", 40, false).await;
    rearm(&service, "WHOLESALE", "m").await;
    let state_now = evaluate(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([state_now["note"], state_now["triggered"], state_now["watermark"]]),
        json!(["insufficient_events(recent=0, baseline=200)", false, 300])
    );
    quiet(&service, "WHOLESALE", "m", 49, false).await;
    assert_eq!(state(&service, "WHOLESALE", "m").await["note"], "insufficient_events(recent=49, baseline=200)");
    let done = kpi(&service, "WHOLESALE", "m", false).await;
    assert_eq!(done["tripped"]["drop_fraction"], 1, "{done}");
    let trip = &trips(&service, "").await[0];
    assert_eq!(
        json!([
            trip["series_seq"],
            trip["baseline_events"],
            trip["baseline_sum"],
            trip["current_events"],
            trip["current_sum"]
        ]),
        json!([350, 200, 190, 50, 0])
    );
}

#[tokio::test]
async fn a_rearmed_wire_stays_quiet_while_the_new_events_are_good() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    rearm(&service, "WHOLESALE", "m").await;
    quiet(&service, "WHOLESALE", "m", 5, true).await;
    let state = state(&service, "WHOLESALE", "m").await;
    assert_eq!(
        json!([state["note"], state["status"], state["baseline"], state["current"]]),
        json!(["OK drop=0.000", "ARMED", 1, 1])
    );
}

#[tokio::test]
async fn the_baseline_of_the_trip_judges_until_a_whole_window_and_baseline_are_new() {
    let service = Service::live().await;
    small_wire(&service, "WHOLESALE", "m", json!({"max_drop_fraction": 0.5})).await;
    quiet(&service, "WHOLESALE", "m", 15, true).await;
    quiet(&service, "WHOLESALE", "m", 2, false).await;
    assert!(kpi(&service, "WHOLESALE", "m", false).await["tripped"].is_object());
    rearm(&service, "WHOLESALE", "m").await;
    // 3 of every 5 from here on: a drop of 0.4 from the old baseline, none from the new one.
    let pattern = [true, true, true, false, false];
    for number in 0..14 {
        let done = kpi(&service, "WHOLESALE", "m", pattern[number % 5]).await;
        assert_eq!(done["tripped"], Value::Null);
    }
    let pinned = state(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([pinned["baseline"], pinned["current"], pinned["note"]]), json!([1, 0.6, "OK drop=0.400"]));
    kpi(&service, "WHOLESALE", "m", pattern[14 % 5]).await;
    let rolled = state(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([rolled["baseline"], rolled["current"], rolled["note"]]), json!([0.6, 0.6, "OK drop=0.000"]));
    kpi(&service, "WHOLESALE", "m", true).await;
    let on = state(&service, "WHOLESALE", "m").await;
    assert_eq!(json!([on["baseline"], on["current"]]), json!([0.6, 0.6]));
}

#[tokio::test]
async fn a_kill_switch_wire_stops_everything_at_once() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({"action": "KILL_SWITCH"})).await;
    assert_eq!(
        json!([trip["action"], trip["engine"], trip["note"]]),
        json!(["KILL_SWITCH", null, "TRIGGERED drop=0.200 action=KILL_SWITCH"])
    );
    // This instance's gate knows without reading the state again.
    service.get_root("/api/deals").await.refused(403, "KILL_SWITCH_ENGAGED");
    let denied = service.reserve("CAPITAL", "1").await.ok();
    assert_eq!(json!([denied["reason"], denied["scope"]]), json!(["kill_switch_engaged", "SYSTEM"]));
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(
        json!([state["kill_switch_engaged"], state["kill_switch"]["by"], state["kill_switch"]["reason"]]),
        json!([true, "shop", "Regression tripwire: WHOLESALE.m drop=0.200"])
    );
    // No engine is throttled.
    let engine = engine(&service, "WHOLESALE").await;
    assert_eq!(json!([engine["enabled"], engine["throttled_by"]]), json!([true, []]));
}

#[tokio::test]
async fn a_trip_keeps_the_first_engagement_of_the_kill_switch() {
    let service = Service::live().await;
    let engage = json!({"actor": "ops", "reason": "by hand"});
    let first = service.post("/go-live/kill-switch/engage", &engage).await.ok();
    tripped(&service, "WHOLESALE", "m", json!({"action": "KILL_SWITCH"})).await;
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(state["kill_switch"], first["kill_switch"]);
    // A release that has not seen the trip loses.
    assert_eq!(state["version"].as_i64().unwrap(), first["version"].as_i64().unwrap() + 1);
    assert_eq!(state["reason"], "Regression tripwire: WHOLESALE.m drop=0.200");
}

#[tokio::test]
async fn a_rearm_does_not_release_the_kill_switch() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({"action": "KILL_SWITCH"})).await;
    let before = service.get("/go-live/state").await.ok();
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(service.get("/go-live/state").await.ok(), before);
    service.post("/go-live/kill-switch/release", &json!({"actor": "ops"})).await.ok();
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_throttle_on_an_engine_without_a_policy_makes_a_disabled_one() {
    let service = Service::live().await;
    assert_eq!(engine(&service, "NEWCOMER").await, Value::Null);
    let trip = tripped(&service, "NEWCOMER", "m", json!({})).await;
    let made = engine(&service, "NEWCOMER").await;
    assert_eq!(
        json!([made["enabled"], made["throttled_by"], made["reason"], made["max_daily_exposure"]]),
        json!([false, [trip["trip_id"]], "Regression tripwire: NEWCOMER.m drop=0.200", 0])
    );
    // A policy that nobody set up does not come on by itself.
    rearm(&service, "NEWCOMER", "m").await;
    let lifted = engine(&service, "NEWCOMER").await;
    assert_eq!(json!([lifted["enabled"], lifted["throttled_by"]]), json!([false, []]));
    assert_eq!(service.reserve("NEWCOMER", "1").await.ok()["reason"], "policy_disabled");
}

#[tokio::test]
async fn a_wire_can_throttle_everything_through_global() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({"engine": "GLOBAL"})).await;
    let denied = service.reserve("CAPITAL", "1").await.ok();
    assert_eq!(json!([denied["reason"], denied["scope"]]), json!(["policy_disabled", "GLOBAL"]));
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

#[tokio::test]
async fn a_trip_of_one_pair_leaves_the_others_alone() {
    let service = Service::live().await;
    for (domain, metric) in [("WHOLESALE", "n"), ("CAPITAL", "m")] {
        small_wire(&service, domain, metric, json!({})).await;
        quiet(&service, domain, metric, 15, true).await;
    }
    let others = async || {
        (
            state(&service, "WHOLESALE", "n").await,
            state(&service, "CAPITAL", "m").await,
            policy(&service, "WHOLESALE", "n").await,
            engine(&service, "CAPITAL").await,
        )
    };
    let before = others().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    assert_eq!(others().await, before);
    // The other wire of the same engine still acts by itself.
    assert!(kpi(&service, "WHOLESALE", "n", false).await["tripped"].is_object());
    assert_eq!(engine(&service, "WHOLESALE").await["throttled_by"].as_array().unwrap().len(), 2);
    rearm(&service, "WHOLESALE", "m").await;
    assert_eq!(state(&service, "WHOLESALE", "n").await["triggered"], true);
}

#[tokio::test]
async fn measurements_and_trips_are_listed_by_pair_newest_first() {
    let service = Service::live().await;
    tripped(&service, "WHOLESALE", "m", json!({})).await;
    tripped(&service, "CAPITAL", "m", json!({})).await;
    kpi(&service, "CAPITAL", "n", true).await;
    for (filter, measured, tripped) in [
        ("", 33, 2),
        ("&domain=wholesale", 16, 1),
        ("&domain=CAPITAL", 17, 1),
        ("&domain=CAPITAL&metric=M", 16, 1),
        ("&metric=n", 1, 0),
        ("&domain=NOBODY", 0, 0),
    ] {
        let page = service.get(&format!("{KPI}?limit=1000{filter}")).await.ok();
        let ids: Vec<i64> = page["items"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), measured, "{filter}");
        assert!(ids.is_sorted_by(|a, b| a > b), "{filter}: {ids:?}");
        assert_eq!(trips(&service, filter).await.len(), tripped, "{filter}");
    }
    for path in [KPI, "/regression/trips"] {
        service.get(&format!("{path}?domain=A+B")).await.invalid("domain");
        service.get(&format!("{path}?pair=x")).await.invalid("pair");
    }
}

#[tokio::test]
async fn a_trip_and_its_end_are_changes_of_the_control_plane() {
    let service = Service::live().await;
    let trip = tripped(&service, "WHOLESALE", "m", json!({})).await;
    rearm(&service, "WHOLESALE", "m").await;
    let review = service.get("/review").await.ok();
    let actions: Vec<Value> = review["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| json!([change["action"], change["subject"], change["actor"]]))
        .collect();
    assert_eq!(
        json!(actions),
        json!([
            ["REGRESSION_POLICY_UPSERT", "WHOLESALE.m", "fixer"],
            ["REGRESSION_REARM", "WHOLESALE.m", "fixer"],
            ["REGRESSION_TRIP", "WHOLESALE.m", "shop"],
            ["REGRESSION_POLICY_UPSERT", "WHOLESALE.m", "setup"],
            ["GO_LIVE_ENABLE", null, "test"],
        ])
    );
    assert_eq!(review["changes"][2]["seq"], trip["trip_id"]);
    assert_eq!(
        review["changes"][1]["detail"],
        json!({"trip_id": trip["trip_id"], "watermark": 16, "baseline": "KEEP", "shadow": false})
    );
}
