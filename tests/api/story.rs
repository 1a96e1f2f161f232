//! The delivery document's two weeks, end to end, as an operator lives them.

use crate::support::Service;
use serde_json::{Value, json};

const ENGINE: &str = "WHOLESALE";
const PAIR: &str = "domain=WHOLESALE&metric=contract_rate";

/// The row of a list with these members; null when there is none.
fn find(list: &Value, members: &Value) -> Value {
    let rows = list.as_array().expect("a list");
    let wanted = members.as_object().expect("an object");
    let fits = |row: &&Value| wanted.iter().all(|(name, value)| row[name] == *value);
    rows.iter().find(fits).cloned().unwrap_or_default()
}

async fn wire_state(service: &Service) -> Value {
    let states = service.get("/regression/state").await.ok();
    find(&states, &json!({"domain": ENGINE, "metric": "contract_rate"}))
}

async fn engine(service: &Service) -> Value {
    find(&service.get("/risk/policies").await.ok(), &json!({"engine": ENGINE}))
}

/// Week 1, steps 3 and 4: everything is there, off, and enforced.
async fn a_fresh_install_is_verified(service: &Service) {
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(
        json!([state["go_live_enabled"], state["kill_switch_engaged"], state["version"]]),
        json!([false, false, 1])
    );
    for (path, seeded) in [("/risk/policies", 4), ("/heimdall/policies", 4), ("/regression/policies", 4)] {
        let rows = service.get(path).await.ok();
        assert_eq!(rows.as_array().expect("a list").len(), seeded, "{path}");
    }
    for path in ["/go-live/checklist", "/risk/ledger/today", "/heimdall/scorecard/today", "/regression/state"] {
        service.get(path).await.ok();
    }
    // The document's own commands: curl -d, a form.
    let off = service.post_form("/go-live/disable", "actor=test&reason=verify_enforcement").await.ok();
    assert_eq!(json!([off["go_live_enabled"], off["changed_by"]]), json!([false, "test"]));
    service.get_root("/api/deals").await.refused(403, "GO_LIVE_DISABLED");
    for exempt in ["/health", "/docs/", "/api/governance/go-live/state"] {
        service.get_root(exempt).await.ok();
    }
    let denied = service.reserve(ENGINE, "100").await.ok();
    assert_eq!(json!([denied["ok"], denied["reason"]]), json!([false, "go_live_disabled"]));
    let on = service.post_form("/go-live/enable", "actor=test").await.ok();
    assert_eq!(on["go_live_enabled"], true);
    // Nothing is mounted there, but the switch no longer stands in the way.
    service.get_root("/api/deals").await.refused(404, "ROUTE_NOT_FOUND");
}

/// Tuesday to Thursday: reserve, act, settle.
async fn the_engine_works(service: &Service) {
    let reserved = service.reserve(ENGINE, "400").await.ok();
    assert_eq!(json!([reserved["ok"], reserved["reserved"]]), json!([true, 400]));
    let form = "engine=WHOLESALE&reserved_amount=400&realized_loss=25&actor=deal_engine&reason=settled";
    let settled = service.post_form("/risk/settle", form).await.ok();
    assert_eq!(
        json!([
            settled["ok"],
            settled["ledger_engine"]["open_risk_reserved"],
            settled["ledger_global"]["realized_loss"]
        ]),
        json!([true, 0, 25])
    );
}

/// Week 2, steps 8 and 9: 200 measurements at 95 %, the wire enabled, the evaluation finds nothing.
async fn the_baseline_is_recorded_and_watched(service: &Service) {
    service.kpis(ENGINE, "contract_rate", 200, 20).await;
    assert_eq!(wire_state(service).await["note"], "policy_missing_or_disabled");
    let on = format!("{PAIR}&enabled=true&changed_by=bryan&reason=week+2");
    let wire = service.post_query("/regression/policies/upsert", &on).await.ok();
    assert_eq!(
        json!([
            wire["ok"],
            wire["policy"]["enabled"],
            wire["policy"]["window_events"],
            wire["policy"]["max_drop_fraction"]
        ]),
        json!([true, true, 50, 0.2])
    );
    let evaluated = service.post_query("/regression/evaluate", PAIR).await.ok();
    let state = &evaluated["state"];
    // 143 of 150 before, 47 of the last 50.
    assert_eq!(
        json!([evaluated["ok"], state["triggered"], state["note"], state["status"]]),
        json!([true, false, "OK drop=0.014", "ARMED"])
    );
    assert_eq!(service.reserve(ENGINE, "100").await.ok()["ok"], true);
}

/// Steps 10 and 11: 50 measurements at 75 %; the 44th throttles, once, and everything says so.
async fn the_degradation_throttles_the_engine(service: &Service) -> Value {
    let mut acted = Vec::new();
    for number in 1..=50 {
        let body =
            json!({"domain": ENGINE, "metric": "contract_rate", "success": number % 4 != 0, "actor": "experiment"});
        let done = service.post("/regression/kpi", &body).await.ok();
        assert_eq!(done["watched"], true);
        if done["tripped"].is_object() {
            acted.push((number, done["tripped"].clone()));
            // Denied from the very next reserve on.
            let denied = service.reserve(ENGINE, "100").await.ok();
            assert_eq!(
                json!([denied["ok"], denied["reason"], denied["scope"]]),
                json!([false, "policy_disabled", ENGINE])
            );
        }
    }
    assert_eq!(acted.len(), 1, "{acted:?}");
    let (number, trip) = acted.remove(0);
    assert_eq!((number, &trip["note"]), (44, &json!("TRIGGERED drop=0.203 action=THROTTLE")));
    let evaluated = service.post_query("/regression/evaluate", PAIR).await.ok();
    assert_eq!(
        json!([evaluated["state"]["triggered"], evaluated["state"]["note"], evaluated["state"]["trip_id"]]),
        json!([true, trip["note"], trip["trip_id"]])
    );
    let engine = engine(service).await;
    assert_eq!(
        json!([engine["enabled"], engine["throttled_by"], engine["reason"], engine["changed_by"]]),
        json!([false, [trip["trip_id"]], "Regression tripwire: WHOLESALE.contract_rate drop=0.203", "experiment"])
    );
    // The others go on: the switch stays on, the other engine too.
    assert_eq!(service.reserve("CAPITAL", "100").await.ok()["ok"], true);
    let state = service.get("/go-live/state").await.ok();
    assert_eq!(json!([state["go_live_enabled"], state["kill_switch_engaged"]]), json!([true, false]));
    trip
}

/// Monday: what broke, what was denied, what drifted.
async fn the_monday_review_shows_it(service: &Service, trip: &Value) {
    let ledger = service.get("/risk/ledger/today").await.ok();
    let row = find(&ledger, &json!({"engine": ENGINE}));
    assert_eq!(row["denials_by_reason"], json!({"go_live_disabled": 1, "policy_disabled": 1}));
    let review = service.get("/review").await.ok();
    let first: Vec<&str> = review["look_first"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let wire = "WHOLESALE.contract_rate has tripped and is not re-armed: TRIGGERED drop=0.203 action=THROTTLE";
    let engine = "WHOLESALE is off, by trip 4: Regression tripwire: WHOLESALE.contract_rate drop=0.203";
    assert_eq!(first.get(..2), Some(&[wire, engine][..]), "{first:?}");
    assert_eq!(review["tripped"][0]["trip_id"], trip["trip_id"]);
    let change = find(&review["changes"], &json!({"action": "REGRESSION_TRIP"}));
    assert_eq!(json!([change["seq"], change["subject"]]), json!([trip["trip_id"], "WHOLESALE.contract_rate"]));
}

/// Fixed: the wire is re-armed with a reason, the engine is on again, and the old events stay forgotten.
async fn the_engine_is_re_enabled(service: &Service, trip: &Value) {
    let bare = format!("{PAIR}&enabled=true");
    service.post_form("/regression/policies/upsert", &bare).await.refused(409, "WIRE_TRIPPED");
    assert_eq!(service.reserve(ENGINE, "100").await.ok()["ok"], false);
    let fixed = format!("{bare}&actor=bryan&reason=offer+logic+rolled+back");
    let done = service.post_form("/regression/policies/upsert", &fixed).await.ok();
    assert_eq!(done["rearmed"], trip["trip_id"]);
    let engine = engine(service).await;
    assert_eq!(
        json!([engine["enabled"], engine["throttled_by"], engine["reason"]]),
        json!([true, [], "offer logic rolled back"])
    );
    assert_eq!(service.reserve(ENGINE, "100").await.ok()["ok"], true);
    service.kpis(ENGINE, "contract_rate", 60, 20).await;
    let state = wire_state(service).await;
    // 48 of the last 50 against the 185 of 194 of the trip.
    assert_eq!(json!([state["triggered"], state["status"], state["watermark"]]), json!([false, "ARMED", 250]));
    assert!(state["note"].as_str().expect("a text").starts_with("OK drop="), "{state}");
    let trips = service.get("/regression/trips").await.ok();
    assert_eq!(trips["items"].as_array().expect("a list").len(), 1);
    assert_eq!(trips["items"][0]["rearm_reason"], "offer logic rolled back");
}

/// Friday: a domain that earned it is promoted.
async fn an_ai_domain_earns_production(service: &Service) {
    let recommendation =
        json!({"domain": "BUYER_MATCH", "confidence": 0.93, "recommendation": {"buyer": 7}, "actor": "heimdall"});
    let early = service.post("/heimdall/recommend", &recommendation).await.ok();
    assert_eq!(early["gate_reason"], "prod_use_disabled");
    for number in 0..50 {
        let trial = json!({"domain": "BUYER_MATCH", "confidence": 0.91, "success": number % 10 != 0});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
    }
    let on = "domain=BUYER_MATCH&prod_use_enabled=true&changed_by=bryan&reason=90+percent+of+50";
    service.post_form("/heimdall/policies/upsert", on).await.ok();
    let made = service.post("/heimdall/recommend", &recommendation).await.ok();
    assert_eq!(json!([made["prod_eligible"], made["gate_reason"]]), json!([true, "gate_pass"]));
    let guard = |id: &Value| format!("/heimdall/recommendations/{id}/require-prod-eligible");
    service.post_form(&guard(&made["id"]), "actor=sender").await.ok();
    let refusal = service.post_form(&guard(&early["id"]), "actor=sender").await.refused(403, "NOT_PROD_ELIGIBLE");
    assert_eq!(refusal["gate_reason"], "prod_use_disabled");
}

#[tokio::test]
async fn the_two_weeks_of_the_delivery_document_happen_as_written() {
    let service = Service::fresh().await;
    a_fresh_install_is_verified(&service).await;
    the_engine_works(&service).await;
    the_baseline_is_recorded_and_watched(&service).await;
    let trip = the_degradation_throttles_the_engine(&service).await;
    the_monday_review_shows_it(&service, &trip).await;
    the_engine_is_re_enabled(&service, &trip).await;
    an_ai_domain_earns_production(&service).await;
    let review = service.get("/review").await.ok();
    assert_eq!(json!([review["tripped"], review["slo"]["sandbox_success_rate"]["value"]]), json!([[], 0.9]));
}
