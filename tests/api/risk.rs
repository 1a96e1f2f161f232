//! The risk guard: policies, decisions with every reason and its text, exact amounts, and the lists.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use crate::support::{Answer, Service, Setup};
use serde_json::{Value, json};

/// The policy of an engine, as the list shows it.
async fn policy(service: &Service, engine: &str) -> Value {
    let policies = service.get("/risk/policies").await.ok();
    let found = policies.as_array().unwrap().iter();
    found.clone().find(|policy| policy["engine"] == engine).unwrap_or(&Value::Null).clone()
}

/// Today's ledger of an engine; null where there is no policy.
async fn today(service: &Service, engine: &str) -> Value {
    let rows = service.get("/risk/ledger/today").await.ok();
    let found = rows.as_array().unwrap().iter();
    found.clone().find(|row| row["engine"] == engine).unwrap_or(&Value::Null).clone()
}

/// Upserts a policy and gives the answer.
async fn upsert(service: &Service, body: Value) -> Value {
    service.post("/risk/policies/upsert", &body).await.ok()
}

/// GLOBAL without caps, and an engine without caps.
async fn uncapped(service: &Service, engine: &str) {
    for engine in ["GLOBAL", engine] {
        upsert(
            service,
            json!({"engine": engine, "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
            "allow_unlimited": true}),
        )
        .await;
    }
}

/// Trips a wire of four events, which throttles the engine named; gives the trip's id.
async fn trip(service: &Service, domain: &str, metric: &str, engine: &str) -> i64 {
    let wire = json!({"domain": domain, "metric": metric, "window_events": 2, "baseline_events": 2,
        "min_events_to_enforce": 2, "max_drop_fraction": 0.5, "action": "THROTTLE", "engine": engine, "enabled": true});
    service.post("/regression/policies/upsert", &wire).await.ok();
    let mut last = Value::Null;
    for success in [true, true, false, false] {
        let event = json!({"domain": domain, "metric": metric, "success": success, "actor": "probe"});
        last = service.post("/regression/kpi", &event).await.ok();
    }
    last["tripped"]["trip_id"].as_i64().unwrap_or_else(|| panic!("did not trip: {last}"))
}

async fn rearm(service: &Service, domain: &str, metric: &str) {
    let body = json!({"domain": domain, "metric": metric, "enabled": true, "reason": "checked"});
    service.post("/regression/policies/upsert", &body).await.ok();
}

/// The counters that a denial must leave alone.
async fn counters(service: &Service) -> Vec<String> {
    let sql = "SELECT (day, engine, exposure_used, realized_loss, actions_count, updated_at)::text FROM risk_ledger_day
               UNION ALL SELECT (engine, open_amount, updated_at)::text FROM risk_open
               UNION ALL SELECT (r.*)::text FROM risk_reservation AS r ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap()
}

fn decision(answer: &Answer) -> &str {
    answer.headers["holdfast-decision"].to_str().unwrap()
}

// Policies.

#[tokio::test]
async fn policies_are_seeded_and_ordered_by_engine() {
    let service = Service::fresh().await;
    let policies = service.get("/risk/policies").await.ok();
    let seen: Vec<_> = policies
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| {
            json!([
                policy["engine"],
                policy["max_daily_loss"],
                policy["max_daily_exposure"],
                policy["max_open_risk"],
                policy["max_actions_per_day"],
                policy["enabled"],
                policy["version"],
                policy["throttled_by"]
            ])
        })
        .collect();
    let expected = [
        json!(["CAPITAL", 150, 750, 750, 0, true, 1, []]),
        json!(["GLOBAL", 250, 1500, 1500, 0, true, 1, []]),
        json!(["NOTIFY", 0, 0, 0, 0, false, 1, []]),
        json!(["WHOLESALE", 200, 1000, 1000, 0, true, 1, []]),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn policies_show_exactly_the_contracts_fields() {
    let service = Service::fresh().await;
    let policy = policy(&service, "GLOBAL").await;
    let mut fields: Vec<_> = policy.as_object().unwrap().keys().cloned().collect();
    fields.sort();
    let expected = "changed_by default_ttl_seconds enabled engine max_actions_per_day max_daily_exposure max_daily_loss max_open_risk \
                    reason throttled_by updated_at version";
    assert_eq!(fields.join(" "), expected);
}

#[tokio::test]
async fn an_upsert_keeps_what_is_left_out_and_names_exactly_what_moved() {
    let service = Service::fresh().await;
    let body = json!({"engine": "wholesale ", "max_open_risk": "900.5", "max_daily_loss": 200, "actor": "ann",
        "reason": "tighter"});
    let answer = upsert(&service, body).await;
    assert_eq!(answer["changes"], json!([{"field": "max_open_risk", "from": 1000, "to": 900.5}]));
    let policy = policy(&service, "WHOLESALE").await;
    let kept =
        json!([policy["max_daily_loss"], policy["max_daily_exposure"], policy["max_open_risk"], policy["enabled"]]);
    assert_eq!(kept, json!([200, 1000, 900.5, true]));
    assert_eq!(json!([policy["changed_by"], policy["reason"], policy["version"]]), json!(["ann", "tighter", 2]));
    for (field, value) in policy.as_object().unwrap() {
        assert_eq!(&answer[field], value, "the answer is the policy: {field}");
    }
}

#[tokio::test]
async fn changes_of_every_field_are_listed_in_order_with_before_and_after() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "enabled": false, "max_actions_per_day": 9, "max_open_risk": 3,
        "max_daily_exposure": 2, "max_daily_loss": 1});
    let changes = upsert(&service, body).await["changes"].clone();
    let expected = json!([
        {"field": "max_daily_loss", "from": 150, "to": 1},
        {"field": "max_daily_exposure", "from": 750, "to": 2},
        {"field": "max_open_risk", "from": 750, "to": 3},
        {"field": "max_actions_per_day", "from": 0, "to": 9},
        {"field": "enabled", "from": true, "to": false},
    ]);
    assert_eq!(changes, expected);
}

#[tokio::test]
async fn a_new_engine_needs_its_three_caps_and_each_missing_one_is_named() {
    let service = Service::fresh().await;
    let caps = ["max_daily_loss", "max_daily_exposure", "max_open_risk"];
    // Every subset of the three but the whole.
    for given in 0_usize..7 {
        let mut body = json!({"engine": "FRESH"});
        for (bit, cap) in caps.iter().enumerate() {
            if given & (1 << bit) != 0 {
                body[cap] = json!(5);
            }
        }
        let refused = service.post("/risk/policies/upsert", &body).await.refused(422, "VALIDATION_FAILED");
        let named: Vec<_> =
            refused["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
        let missing: Vec<_> = caps.iter().filter(|cap| body.get(cap).is_none()).copied().collect();
        assert_eq!(named, missing);
    }
    assert_eq!(policy(&service, "FRESH").await, Value::Null);
    assert_eq!(service.events().await, 0);
}

#[tokio::test]
async fn a_new_engine_starts_enabled_at_version_one_and_can_reserve() {
    let service = Service::live().await;
    let body = json!({"engine": "fresh", "max_daily_loss": 1, "max_daily_exposure": 10, "max_open_risk": 0});
    let made = upsert(&service, body).await;
    assert_eq!(json!([made["engine"], made["enabled"], made["version"]]), json!(["FRESH", true, 1]));
    assert_eq!(made["changes"][0], json!({"field": "max_daily_loss", "from": null, "to": 1}));
    assert_eq!(service.reserve("FRESH", "10").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_new_engine_can_be_made_disabled() {
    let service = Service::live().await;
    let body =
        json!({"engine": "F", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1, "enabled": "no"});
    assert_eq!(upsert(&service, body).await["enabled"], false);
}

#[tokio::test]
async fn a_positive_cap_does_not_become_unlimited_by_accident() {
    let service = Service::fresh().await;
    upsert(&service, json!({"engine": "CAPITAL", "max_actions_per_day": 7})).await;
    let events = service.events().await;
    for cap in ["max_daily_loss", "max_daily_exposure", "max_open_risk", "max_actions_per_day"] {
        for spelling in [json!(0), json!("0.000"), json!("0")] {
            if cap == "max_actions_per_day" && spelling == "0.000" {
                continue;
            }
            let body = json!({"engine": "CAPITAL", cap: spelling});
            let refused = service.post("/risk/policies/upsert", &body).await.refused(422, "ZERO_MEANS_UNLIMITED");
            assert_eq!(refused["errors"][0]["field"], cap);
            assert!(refused["detail"].as_str().unwrap().contains("allow_unlimited=true"));
        }
    }
    assert_eq!(service.events().await, events);
    assert_eq!(policy(&service, "CAPITAL").await["version"], 2);
}

#[tokio::test]
async fn allow_unlimited_removes_a_cap_on_purpose() {
    let service = Service::live().await;
    uncapped(&service, "CAPITAL").await;
    assert_eq!(policy(&service, "CAPITAL").await["max_open_risk"], 0);
    assert_eq!(service.reserve("CAPITAL", "1000000000000").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_cap_that_is_zero_already_may_be_sent_as_zero() {
    let service = Service::fresh().await;
    let body = json!({"engine": "NOTIFY", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0});
    assert_eq!(upsert(&service, body).await["changes"], json!([]));
}

#[tokio::test]
async fn an_upsert_that_changes_nothing_writes_nothing() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": "150.000000", "max_daily_exposure": 750, "enabled": true,
        "actor": "nightly", "reason": "again"});
    let before = policy(&service, "CAPITAL").await;
    let answer = upsert(&service, body).await;
    assert_eq!(answer["changes"], json!([]));
    assert_eq!(policy(&service, "CAPITAL").await, before);
    assert_eq!(service.events().await, 0);
}

#[tokio::test]
async fn the_same_upsert_twice_is_one_change() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": 99});
    assert_eq!(upsert(&service, body.clone()).await["version"], 2);
    let again = upsert(&service, body).await;
    assert_eq!(json!([again["version"], again["changes"]]), json!([2, []]));
    assert_eq!(service.events().await, 1);
}

#[tokio::test]
async fn version_counts_every_change() {
    let service = Service::fresh().await;
    for (step, version) in (1..=5).zip(2..) {
        let body = json!({"engine": "CAPITAL", "max_daily_loss": step});
        assert_eq!(upsert(&service, body).await["version"], version);
    }
}

#[tokio::test]
async fn an_upsert_is_an_event_with_who_why_and_what_moved() {
    let service = Service::fresh().await;
    let body = json!({"engine": "CAPITAL", "max_daily_loss": 99, "changed_by": "ann", "reason": "why"});
    upsert(&service, body).await;
    let row: (String, String, String, String, String) =
        sqlx::query_as("SELECT action, subject, actor, reason, detail FROM control_event")
            .fetch_one(&service.pool)
            .await
            .unwrap();
    assert_eq!(
        (row.0.as_str(), row.1.as_str(), row.2.as_str(), row.3.as_str()),
        ("RISK_POLICY_UPSERT", "CAPITAL", "ann", "why")
    );
    let detail: Value = serde_json::from_str(&row.4).unwrap();
    assert_eq!(detail["changes"], json!([{"field": "max_daily_loss", "from": 150, "to": 99}]));
}

#[tokio::test]
async fn an_upsert_that_is_not_acceptable_leaves_no_trace() {
    let service = Service::fresh().await;
    let before = service.get("/risk/policies").await.text;
    for (field, body) in [
        ("engine", json!({"max_daily_loss": 1})),
        ("engine", json!({"engine": "no spaces", "max_daily_loss": 1})),
        ("max_daily_loss", json!({"engine": "CAPITAL", "max_daily_loss": -1})),
        ("max_open_risk", json!({"engine": "CAPITAL", "max_open_risk": "1000000000000.000001"})),
        ("max_daily_exposure", json!({"engine": "CAPITAL", "max_daily_exposure": "1.0000001"})),
        ("max_actions_per_day", json!({"engine": "CAPITAL", "max_actions_per_day": 1.5})),
        ("enabled", json!({"engine": "CAPITAL", "enabled": "maybe"})),
        ("max_loss", json!({"engine": "CAPITAL", "max_loss": 1})),
    ] {
        let _ = service.post("/risk/policies/upsert", &body).await.invalid(field);
    }
    assert_eq!(service.get("/risk/policies").await.text, before);
    assert_eq!(service.events().await, 0);
}

#[tokio::test]
async fn an_upsert_binds_the_very_next_decision() {
    let service = Service::live().await;
    assert_eq!(service.reserve("WHOLESALE", "400").await.ok()["ok"], true);
    upsert(&service, json!({"engine": "WHOLESALE", "max_open_risk": 500})).await;
    let denied = service.reserve("WHOLESALE", "101").await.ok();
    assert_eq!(denied["reason"], "open_risk_exceeded");
    assert_eq!(denied["policy_snapshot"]["version"], 2);
    upsert(&service, json!({"engine": "WHOLESALE", "max_open_risk": 501})).await;
    assert_eq!(service.reserve("WHOLESALE", "101").await.ok()["ok"], true);
    upsert(&service, json!({"engine": "WHOLESALE", "enabled": false})).await;
    assert_eq!(service.reserve("WHOLESALE", "0.000001").await.ok()["reason"], "policy_disabled");
}

// Throttles.

#[tokio::test]
async fn a_throttle_turns_the_engine_off_and_says_so_on_its_policy() {
    let service = Service::live().await;
    let id = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let policy = policy(&service, "WHOLESALE").await;
    assert_eq!(
        json!([policy["enabled"], policy["throttled_by"], policy["changed_by"], policy["reason"]]),
        json!([false, [id], "probe", "Regression tripwire: WHOLESALE.contract_rate drop=1.000"])
    );
    let denied = service.reserve("WHOLESALE", "1").await.ok();
    assert_eq!(denied["message"], "WHOLESALE hard stop: Policy disabled");
    assert_eq!(denied["policy_snapshot"]["enabled"], false);
    assert_eq!(service.reserve("CAPITAL", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_throttle_of_an_engine_without_a_policy_makes_a_disabled_one() {
    let service = Service::live().await;
    let id = trip(&service, "BUYER_MATCH", "match_success", "NEWCOMER").await;
    let policy = policy(&service, "NEWCOMER").await;
    assert_eq!(json!([policy["enabled"], policy["throttled_by"]]), json!([false, [id]]));
    rearm(&service, "BUYER_MATCH", "match_success").await;
    assert_eq!(service.reserve("NEWCOMER", "1").await.ok()["reason"], "policy_disabled", "nobody has given it caps");
}

#[tokio::test]
async fn enabling_a_throttled_engine_without_a_reason_is_refused_and_names_the_trips() {
    let service = Service::live().await;
    let first = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let second = trip(&service, "WHOLESALE", "offer_accept_rate", "WHOLESALE").await;
    let (before, events) = (policy(&service, "WHOLESALE").await, service.events().await);
    for reason in [json!(null), json!(""), json!("  ")] {
        let body = json!({"engine": "WHOLESALE", "enabled": true, "max_daily_loss": 1, "reason": reason});
        let refused = service.post("/risk/policies/upsert", &body).await.refused(409, "ENGINE_THROTTLED");
        assert_eq!(refused["throttled_by"], json!([first, second]));
    }
    assert_eq!(policy(&service, "WHOLESALE").await, before);
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn an_override_with_a_reason_lifts_the_throttle_and_leaves_the_wire_tripped() {
    let service = Service::live().await;
    let id = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let body = json!({"engine": "WHOLESALE", "enabled": true, "actor": "ann", "reason": "checked by hand"});
    let answer = upsert(&service, body).await;
    assert_eq!(answer["changes"], json!([{"field": "throttled_by", "from": [id], "to": []}]));
    assert_eq!(
        json!([answer["enabled"], answer["throttled_by"], answer["reason"]]),
        json!([true, [], "checked by hand"])
    );
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    let states = service.get("/regression/state").await.ok();
    let wire = states.as_array().unwrap().iter().find(|state| state["metric"] == "contract_rate").unwrap();
    assert_eq!(json!([wire["triggered"], wire["trip_id"]]), json!([true, id]));
}

#[tokio::test]
async fn other_upserts_of_a_throttled_engine_need_no_reason_and_keep_the_throttle() {
    let service = Service::live().await;
    let id = trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let answer = upsert(&service, json!({"engine": "WHOLESALE", "max_daily_loss": 10})).await;
    assert_eq!(json!([answer["enabled"], answer["throttled_by"], answer["max_daily_loss"]]), json!([false, [id], 10]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "policy_disabled");
}

#[tokio::test]
async fn disabled_by_hand_survives_a_rearm() {
    let service = Service::live().await;
    trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    upsert(&service, json!({"engine": "WHOLESALE", "enabled": false})).await;
    rearm(&service, "WHOLESALE", "contract_rate").await;
    let policy = policy(&service, "WHOLESALE").await;
    assert_eq!(json!([policy["enabled"], policy["throttled_by"]]), json!([false, []]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "policy_disabled");
}

#[tokio::test]
async fn a_rearm_lifts_only_its_own_throttle() {
    let service = Service::live().await;
    trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    let other = trip(&service, "WHOLESALE", "offer_accept_rate", "WHOLESALE").await;
    rearm(&service, "WHOLESALE", "contract_rate").await;
    assert_eq!(policy(&service, "WHOLESALE").await["throttled_by"], json!([other]));
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], false);
    rearm(&service, "WHOLESALE", "offer_accept_rate").await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_rearm_after_an_override_by_hand_changes_nothing_on_the_engine() {
    let service = Service::live().await;
    trip(&service, "WHOLESALE", "contract_rate", "WHOLESALE").await;
    upsert(&service, json!({"engine": "WHOLESALE", "enabled": true, "reason": "by hand"})).await;
    let before = policy(&service, "WHOLESALE").await;
    rearm(&service, "WHOLESALE", "contract_rate").await;
    assert_eq!(policy(&service, "WHOLESALE").await, before);
}

// Decisions.

#[tokio::test]
async fn an_allowed_reserve_answers_the_contract_and_moves_both_levels() {
    let service = Service::live().await;
    let body = json!({"engine": " wholesale", "amount": 400, "actor": "bot", "reason": "offer", "correlation_id": "c-1",
        "metadata": {"deal": 7}});
    let answer = service.post("/risk/check-and-reserve", &body).await;
    assert_eq!(decision(&answer), "allow");
    let body = answer.ok();
    let flat = json!([
        body["ok"],
        body["engine"],
        body["reserved"],
        body["message"],
        body["reason"],
        body["scope"],
        body["failures"],
        body["dry_run"],
        body["policy_snapshot"]["engine"],
        body["ledger_snapshot"]["engine"]
    ]);
    assert_eq!(flat, json!([true, "WHOLESALE", 400, "Reserved", null, null, [], false, "WHOLESALE", "WHOLESALE"]));
    for row in [today(&service, "WHOLESALE").await, today(&service, "GLOBAL").await] {
        assert_eq!(
            json!([row["exposure_used"], row["open_risk_reserved"], row["realized_loss"], row["actions_count"]]),
            json!([400, 400, 0, 1])
        );
    }
    assert_eq!(today(&service, "CAPITAL").await["actions_count"], 0);
    assert_eq!(body["ledger_snapshot"]["open_risk_reserved"], 400, "the snapshot is the one after the decision");
    let id = body["reservation_id"].as_str().unwrap();
    let held = service.get(&format!("/risk/reservations/{id}")).await.ok();
    let flat = json!([
        held["engine"],
        held["amount"],
        held["open_amount"],
        held["status"],
        held["actor"],
        held["reason"],
        held["correlation_id"],
        held["metadata"],
        held["closed_at"],
        held["closed_seq"]
    ]);
    assert_eq!(flat, json!(["WHOLESALE", 400, 400, "OPEN", "bot", "offer", "c-1", {"deal": 7}, null, null]));
}

#[tokio::test]
async fn the_same_reserve_twice_is_two_reservations() {
    let service = Service::live().await;
    let first = service.reserve("WHOLESALE", "1").await.ok();
    let second = service.reserve("WHOLESALE", "1").await.ok();
    assert_ne!(first["reservation_id"], second["reservation_id"]);
    assert_eq!(service.count("SELECT count(*) FROM risk_reservation").await, 2);
}

/// What is done before a reserve that is denied.
enum Step {
    Post(&'static str, &'static str),
    /// Reserves and settles, losing this.
    Lose(&'static str, &'static str),
    Reserve(&'static str, &'static str),
    Sql(&'static str),
}

struct Denied {
    setup: &'static [Step],
    engine: &'static str,
    amount: &'static str,
    reason: &'static str,
    scope: &'static str,
    message: &'static str,
}

const UPSERT: &str = "/risk/policies/upsert";

const DENIED: &[Denied] = &[
    Denied {
        setup: &[Step::Post("/go-live/kill-switch/engage", "{}")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "kill_switch_engaged",
        scope: "SYSTEM",
        message: "SYSTEM hard stop: Kill switch engaged",
    },
    Denied {
        setup: &[Step::Post("/go-live/disable", r#"{"actor":"test"}"#)],
        engine: "WHOLESALE",
        amount: "1",
        reason: "go_live_disabled",
        scope: "SYSTEM",
        message: "SYSTEM hard stop: Go-live disabled",
    },
    Denied {
        setup: &[Step::Sql("DELETE FROM risk_policy WHERE engine = 'GLOBAL'")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "policy_missing",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Policy missing",
    },
    Denied {
        setup: &[],
        engine: "NOBODY",
        amount: "1",
        reason: "policy_missing",
        scope: "NOBODY",
        message: "NOBODY hard stop: Policy missing",
    },
    Denied {
        setup: &[Step::Post(UPSERT, r#"{"engine":"GLOBAL","enabled":false}"#)],
        engine: "WHOLESALE",
        amount: "1",
        reason: "policy_disabled",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Policy disabled",
    },
    Denied {
        setup: &[],
        engine: "NOTIFY",
        amount: "1",
        reason: "policy_disabled",
        scope: "NOTIFY",
        message: "NOTIFY hard stop: Policy disabled",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"GLOBAL","max_actions_per_day":3}"#),
            Step::Reserve("WHOLESALE", "1"),
            Step::Reserve("CAPITAL", "1"),
            Step::Reserve("WHOLESALE", "1"),
        ],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_actions_exceeded",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Actions/day cap exceeded (4 > 3)",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"WHOLESALE","max_actions_per_day":3}"#),
            Step::Reserve("WHOLESALE", "1"),
            Step::Reserve("WHOLESALE", "1"),
            Step::Lose("WHOLESALE", "0"),
        ],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_actions_exceeded",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Actions/day cap exceeded (4 > 3)",
    },
    Denied {
        setup: &[Step::Reserve("WHOLESALE", "1000")],
        engine: "CAPITAL",
        amount: "600",
        reason: "daily_exposure_exceeded",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Daily exposure cap exceeded (1600 > 1500)",
    },
    Denied {
        setup: &[Step::Reserve("WHOLESALE", "600.5")],
        engine: "WHOLESALE",
        amount: "500",
        reason: "daily_exposure_exceeded",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Daily exposure cap exceeded (1100.5 > 1000)",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"GLOBAL","max_daily_exposure":0,"allow_unlimited":true}"#),
            Step::Reserve("WHOLESALE", "1000"),
        ],
        engine: "CAPITAL",
        amount: "600",
        reason: "open_risk_exceeded",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Open risk cap exceeded (1600 > 1500)",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"WHOLESALE","max_daily_exposure":5000}"#),
            Step::Reserve("WHOLESALE", "1000"),
        ],
        engine: "WHOLESALE",
        amount: "100",
        reason: "open_risk_exceeded",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Open risk cap exceeded (1100 > 1000)",
    },
    Denied {
        setup: &[Step::Lose("WHOLESALE", "100"), Step::Lose("CAPITAL", "150")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_loss_reached",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Daily loss cap already reached (250 >= 250)",
    },
    Denied {
        setup: &[Step::Lose("WHOLESALE", "200.25")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_loss_reached",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Daily loss cap already reached (200.25 >= 200)",
    },
];

async fn run(service: &Service, step: &Step) {
    match step {
        Step::Post(path, body) => {
            service.post_text(path, "application/json", body).await.ok();
        }
        Step::Reserve(engine, amount) => {
            assert_eq!(service.reserve(engine, amount).await.ok()["ok"], true);
        }
        Step::Lose(engine, loss) => {
            let id = service.reserve(engine, "1").await.ok()["reservation_id"].clone();
            let body = json!({"reservation_id": id, "realized_loss": loss});
            service.post("/risk/settle", &body).await.ok();
        }
        Step::Sql(sql) => {
            sqlx::query(*sql).execute(&service.pool).await.unwrap();
        }
    }
}

#[tokio::test]
async fn every_denial_has_its_reason_scope_and_text_and_moves_no_counter() {
    for case in DENIED {
        let service = Service::live().await;
        for step in case.setup {
            run(&service, step).await;
        }
        let (counters_before, policies) = (counters(&service).await, service.get("/risk/policies").await.text);
        let answer = service.reserve(case.engine, case.amount).await;
        assert_eq!(decision(&answer), "deny");
        let body = answer.ok();
        let flat = json!([
            body["ok"],
            body["engine"],
            body["reserved"],
            body["reservation_id"],
            body["reason"],
            body["scope"],
            body["message"],
            body["failures"][0]["reason"],
            body["failures"][0]["scope"]
        ]);
        assert_eq!(
            flat,
            json!([false, case.engine, 0, null, case.reason, case.scope, case.message, case.reason, case.scope])
        );
        assert_eq!(counters(&service).await, counters_before, "{}", case.message);
        assert_eq!(service.get("/risk/policies").await.text, policies, "{}", case.message);
        let tally: (String, String, String, i64) =
            sqlx::query_as("SELECT engine, scope, reason, denied FROM risk_denial_day")
                .fetch_one(&service.pool)
                .await
                .unwrap();
        assert_eq!(tally, (case.engine.into(), case.scope.into(), case.reason.into(), 1));
        for engine in ["GLOBAL", case.engine] {
            let row = today(&service, engine).await;
            if !row.is_null() {
                assert_eq!(json!([row["denied_count"], row["denials_by_reason"]]), json!([1, {case.reason: 1}]));
            }
        }
        assert!(today(&service, "NOBODY").await.is_null());
    }
}

#[tokio::test]
async fn the_snapshots_of_a_denial_are_those_of_the_level_that_failed() {
    for case in DENIED {
        let service = Service::live().await;
        for step in case.setup {
            run(&service, step).await;
        }
        let body = service.reserve(case.engine, case.amount).await.ok();
        let shown = if case.scope == "GLOBAL" { "GLOBAL" } else { case.engine };
        assert_eq!(body["ledger_snapshot"]["engine"], shown, "{}", case.message);
        let policy = if case.reason == "policy_missing" { Value::Null } else { json!(shown) };
        assert_eq!(body["policy_snapshot"].get("engine").cloned().unwrap_or_default(), policy, "{}", case.message);
    }
}

#[tokio::test]
async fn all_failures_are_listed_in_order_with_their_numbers() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "900").await.ok();
    upsert(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 1, "enabled": false})).await;
    let id = service.reserve("CAPITAL", "1").await.ok()["reservation_id"].clone();
    service.post("/risk/settle", &json!({"reservation_id": id, "realized_loss": 251.5})).await.ok();
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    service.post("/go-live/disable", &json!({"actor": "test"})).await.ok();
    let body = service.reserve("WHOLESALE", "700.25").await.ok();
    let seen: Vec<_> = body["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!([one["reason"], one["scope"], one["limit"], one["used"], one["requested"]]))
        .collect();
    let expected = [
        json!(["kill_switch_engaged", "SYSTEM", null, null, null]),
        json!(["go_live_disabled", "SYSTEM", null, null, null]),
        json!(["daily_exposure_exceeded", "GLOBAL", 1500, 901, 700.25]),
        json!(["open_risk_exceeded", "GLOBAL", 1500, 900, 700.25]),
        json!(["daily_loss_reached", "GLOBAL", 250, 251.5, null]),
        json!(["policy_disabled", "WHOLESALE", null, null, null]),
        json!(["daily_actions_exceeded", "WHOLESALE", 1, 1, 1]),
        json!(["daily_exposure_exceeded", "WHOLESALE", 1000, 900, 700.25]),
        json!(["open_risk_exceeded", "WHOLESALE", 1000, 900, 700.25]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(
        json!([body["reason"], body["scope"], body["message"]]),
        json!(["kill_switch_engaged", "SYSTEM", "SYSTEM hard stop: Kill switch engaged"])
    );
}

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
async fn denials_are_counted_by_engine_and_first_reason_and_all_of_them_on_global() {
    let service = Service::live().await;
    for (engine, amount) in [
        ("WHOLESALE", "1001"),
        ("WHOLESALE", "1600"),
        ("CAPITAL", "751"),
        ("CAPITAL", "752"),
        ("NOTIFY", "1"),
        ("NOBODY", "1"),
    ] {
        assert_eq!(service.reserve(engine, amount).await.ok()["ok"], false);
    }
    let seen = |row: Value| json!([row["denied_count"], row["denials_by_reason"]]);
    assert_eq!(seen(today(&service, "WHOLESALE").await), json!([2, {"daily_exposure_exceeded": 2}]));
    assert_eq!(seen(today(&service, "CAPITAL").await), json!([2, {"daily_exposure_exceeded": 2}]));
    assert_eq!(seen(today(&service, "NOTIFY").await), json!([1, {"policy_disabled": 1}]));
    assert_eq!(
        seen(today(&service, "GLOBAL").await),
        json!([6, {"daily_exposure_exceeded": 4, "policy_disabled": 1, "policy_missing": 1}])
    );
}

#[tokio::test]
async fn a_denial_is_one_event_with_its_reason_and_moves_nothing() {
    let service = Service::live().await;
    let body = json!({"engine": "NOTIFY", "amount": 5, "actor": "bot", "reason": "try", "correlation_id": "c"});
    service.post("/risk/check-and-reserve", &body).await.ok();
    let page = service.get("/risk/events").await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let event = &page["items"][0];
    let flat = json!([
        event["action"],
        event["ok"],
        event["engine"],
        event["amount"],
        event["denial"],
        event["scope"],
        event["reason"],
        event["actor"],
        event["correlation_id"],
        event["reservation_id"],
        event["exposure_delta"],
        event["open_delta"],
        event["actions_delta"]
    ]);
    assert_eq!(
        flat,
        json!(["DENY", false, "NOTIFY", 5, "policy_disabled", "NOTIFY", "try", "bot", "c", null, 0, 0, 0])
    );
}

#[tokio::test]
async fn the_ledger_decides_alike_where_the_gate_is_off() {
    // GO_LIVE_ENFORCE=0 switches the gate off; reserve still tells the truth.
    let setup = Setup { enforce: false, ..Setup::default() };
    let service = Service::with(setup).await;
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["reason"], "go_live_disabled");
}

#[tokio::test]
async fn development_needs_no_go_live_but_heeds_the_kill_switch() {
    for env in ["development", "dev", "TEST"] {
        let setup = Setup { env: Some(env), ..Setup::default() };
        let service = Service::with(setup).await;
        assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
        service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
        let denied = service.reserve("WHOLESALE", "1").await.ok();
        assert_eq!(denied["reason"], "kill_switch_engaged");
        assert_eq!(denied["failures"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_dry_run_decides_the_same_and_writes_nothing() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "600").await.ok();
    for (engine, amount) in [("WHOLESALE", "400"), ("WHOLESALE", "400.000001"), ("NOTIFY", "1"), ("NOBODY", "1")] {
        let (events, before) = (service.events().await, counters(&service).await);
        let body = json!({"engine": engine, "amount": amount, "dry_run": true});
        let answer = service.post("/risk/check-and-reserve", &body).await;
        let header = decision(&answer).to_owned();
        let dry = answer.ok();
        assert_eq!(json!([dry["dry_run"], dry["reservation_id"]]), json!([true, null]));
        assert_eq!(service.events().await, events);
        assert_eq!(counters(&service).await, before);
        assert_eq!(
            service.count("SELECT COALESCE(sum(denied), 0)::bigint FROM risk_denial_day").await,
            service.count("SELECT count(*) FROM risk_event WHERE action = 'DENY'").await
        );
        let answer = service.reserve(engine, amount).await;
        assert_eq!(decision(&answer), header);
        let real = answer.ok();
        for field in ["ok", "engine", "reserved", "message", "reason", "scope", "failures", "policy_snapshot"] {
            assert_eq!(dry[field], real[field], "{field} of {engine} {amount}");
        }
        for counter in ["exposure_used", "open_risk_reserved", "actions_count"] {
            assert_eq!(dry["ledger_snapshot"][counter], real["ledger_snapshot"][counter]);
        }
    }
}

#[tokio::test]
async fn an_unacceptable_reserve_is_refused_and_leaves_no_trace() {
    let service = Service::live().await;
    let events = service.events().await;
    for (field, body) in [
        ("engine", r#"{"engine":"GLOBAL","amount":1}"#),
        ("engine", r#"{"engine":"global","amount":1}"#),
        ("engine", r#"{"engine":"GLOBAL","amount":1,"dry_run":true}"#),
        ("engine", r#"{"amount":1}"#),
        ("amount", r#"{"engine":"WHOLESALE"}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":0}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":"0.000000"}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":0,"dry_run":true}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":-1}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":1000000000000.000001}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":0.0000001}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":"NaN"}"#),
        ("amount", r#"{"engine":"WHOLESALE","amount":true}"#),
        ("metadata", r#"{"engine":"WHOLESALE","amount":1,"metadata":[1]}"#),
        ("dry_run", r#"{"engine":"WHOLESALE","amount":1,"dry_run":"perhaps"}"#),
        ("ttl", r#"{"engine":"WHOLESALE","amount":1,"ttl":1}"#),
    ] {
        let _ = service.post_text("/risk/check-and-reserve", "application/json", body).await.invalid(field);
    }
    assert_eq!(service.events().await, events);
    assert!(counters(&service).await.is_empty());
}

// Exact decimals: compared as text, never as floats.

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

// Headroom.

#[tokio::test]
async fn headroom_is_what_is_left_under_each_cap() {
    let service = Service::live().await;
    upsert(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 5})).await;
    service.reserve("WHOLESALE", "250.5").await.ok();
    run(&service, &Step::Lose("WHOLESALE", "30")).await;
    assert_eq!(
        today(&service, "WHOLESALE").await["headroom"],
        json!({"exposure": 748.5, "open_risk": 749.5, "loss": 170, "actions": 3})
    );
}

#[tokio::test]
async fn headroom_is_null_where_there_is_no_cap() {
    let service = Service::fresh().await;
    assert_eq!(
        today(&service, "NOTIFY").await["headroom"],
        json!({"exposure": null, "open_risk": null, "loss": null, "actions": null})
    );
    assert_eq!(today(&service, "WHOLESALE").await["headroom"]["actions"], Value::Null);
}

#[tokio::test]
async fn headroom_is_never_below_zero_after_a_cap_is_lowered_below_what_is_used() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "500").await.ok();
    service.reserve("WHOLESALE", "1").await.ok();
    run(&service, &Step::Lose("WHOLESALE", "50")).await;
    upsert(
        &service,
        json!({"engine": "WHOLESALE", "max_daily_exposure": 400, "max_open_risk": 300, "max_daily_loss": 20,
        "max_actions_per_day": 2}),
    )
    .await;
    let row = today(&service, "WHOLESALE").await;
    assert_eq!(row["headroom"], json!({"exposure": 0, "open_risk": 0, "loss": 0, "actions": 0}));
    assert_eq!(row["open_risk_reserved"], 501, "holds stay");
}

#[tokio::test]
async fn the_ledger_has_a_row_for_every_policy_even_unused() {
    let service = Service::fresh().await;
    let rows = service.get("/risk/ledger/today").await.ok();
    let engines: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["engine"].as_str().unwrap()).collect();
    assert_eq!(engines, ["CAPITAL", "GLOBAL", "NOTIFY", "WHOLESALE"]);
    for row in rows.as_array().unwrap() {
        assert_eq!(
            json!([
                row["exposure_used"],
                row["open_risk_reserved"],
                row["realized_loss"],
                row["actions_count"],
                row["denied_count"],
                row["denials_by_reason"],
                row["updated_at"]
            ]),
            json!([0, 0, 0, 0, 0, {}, null])
        );
    }
}

// Lists.

fn column<'a>(page: &'a Value, field: &str) -> Vec<&'a Value> {
    page["items"].as_array().unwrap().iter().map(|item| &item[field]).collect()
}

/// Four reservations, one of them settled, and two denials.
async fn busy() -> Service {
    let service = Service::live().await;
    for (engine, amount, thread) in [
        ("WHOLESALE", 1, "a"),
        ("CAPITAL", 2, "a"),
        ("WHOLESALE", 3, "b"),
        ("CAPITAL", 4, "c"),
        ("NOTIFY", 5, "a"),
        ("WHOLESALE", 6000, "b"),
    ] {
        let body = json!({"engine": engine, "amount": amount, "correlation_id": thread});
        service.post("/risk/check-and-reserve", &body).await.ok();
    }
    let body = json!({"engine": "CAPITAL", "reserved_amount": 4, "correlation_id": "c"});
    service.post("/risk/settle", &body).await.ok();
    service
}

#[tokio::test]
async fn reservations_are_listed_newest_first_and_filtered() {
    let service = busy().await;
    for (query, amounts) in [
        ("", json!([4, 3, 2, 1])),
        ("?engine=capital", json!([4, 2])),
        ("?status=OPEN", json!([3, 2, 1])),
        ("?status=SETTLED", json!([4])),
        ("?correlation_id=a", json!([2, 1])),
        ("?engine=WHOLESALE&correlation_id=a", json!([1])),
        ("?engine=CAPITAL&status=OPEN&correlation_id=c", json!([])),
        ("?engine=NOBODY", json!([])),
        ("?correlation_id=A", json!([])),
    ] {
        let page = service.get(&format!("/risk/reservations{query}")).await.ok();
        assert_eq!(json!(column(&page, "amount")), amounts, "{query}");
        assert_eq!(page["next_cursor"], Value::Null);
    }
}

#[tokio::test]
async fn a_reservation_that_does_not_exist_is_404_and_a_bad_id_is_422() {
    let service = Service::fresh().await;
    service.get("/risk/reservations/00000000-0000-7000-8000-000000000000").await.refused(404, "NOT_FOUND");
    for bad in ["1", "not-a-uuid", "00000000-0000-7000-8000-00000000000g"] {
        let _ = service.get(&format!("/risk/reservations/{bad}")).await.invalid("id");
    }
}

#[tokio::test]
async fn filters_that_mean_nothing_are_422() {
    let service = Service::fresh().await;
    for (path, field) in [
        ("/risk/reservations?status=CLOSED", "status"),
        ("/risk/reservations?engine=no%20spaces", "engine"),
        ("/risk/reservations?actor=me", "actor"),
        ("/risk/events?action=SHRUG", "action"),
        ("/risk/events?ok=perhaps", "ok"),
        ("/risk/events?from=yesterday", "from"),
        ("/risk/events?reason=x", "reason"),
        ("/risk/policies?engine=CAPITAL", "engine"),
        ("/risk/ledger/today?day=2026-01-01", "day"),
    ] {
        let _ = service.get(path).await.invalid(field);
    }
}

#[tokio::test]
async fn events_are_listed_newest_first_and_filtered() {
    let service = busy().await;
    for (query, seqs) in [
        ("", json!([7, 6, 5, 4, 3, 2, 1])),
        ("?engine=wholesale", json!([6, 3, 1])),
        ("?action=RESERVE", json!([4, 3, 2, 1])),
        ("?action=DENY", json!([6, 5])),
        ("?action=SETTLE", json!([7])),
        ("?ok=false", json!([6, 5])),
        ("?ok=1", json!([7, 4, 3, 2, 1])),
        ("?correlation_id=a", json!([5, 2, 1])),
        ("?engine=WHOLESALE&ok=no&correlation_id=b", json!([6])),
        ("?action=DENY&ok=true", json!([])),
    ] {
        let page = service.get(&format!("/risk/events{query}")).await.ok();
        assert_eq!(json!(column(&page, "seq")), seqs, "{query}");
    }
}

#[tokio::test]
async fn events_are_filtered_by_time_from_inclusive_to_exclusive() {
    let service = busy().await;
    let all = service.get("/risk/events").await.ok();
    // Newest first: index 7 - seq.
    let at = |seq: usize| all["items"][7 - seq]["created_at"].as_str().unwrap().to_owned();
    for (query, seqs) in [
        (format!("?from={}", at(5)), json!([7, 6, 5])),
        (format!("?to={}", at(3)), json!([2, 1])),
        (format!("?from={}&to={}", at(3), at(5)), json!([4, 3])),
        (format!("?from={}&to={}", at(4), at(4)), json!([])),
    ] {
        let page = service.get(&format!("/risk/events{query}")).await.ok();
        assert_eq!(json!(column(&page, "seq")), seqs, "{query}");
    }
}
