//! Enabling: the checklist blocks it, and warnings stop nothing.

use super::{ENABLE, ENGAGE, delete_from, events, require, state, switch};
use crate::support::{Service, Setup};
use serde_json::json;
use sqlx::Executor;

#[tokio::test]
async fn an_enable_without_an_actor_is_refused_and_leaves_no_trace() {
    let service = Service::fresh().await;
    let before = service.everything().await;
    for body in [json!({}), json!({"actor": null}), json!({"actor": "  "}), json!({"reason": "why"})] {
        assert_eq!(service.post(ENABLE, &body).await.invalid("actor"), "is required");
    }
    assert_eq!(service.post_form(ENABLE, "").await.invalid("actor"), "is required");
    assert_eq!(service.post_query(ENABLE, "reason=x").await.invalid("actor"), "is required");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn the_checklist_of_a_fresh_install_passes() {
    let service = Service::fresh().await;
    assert_eq!(
        service.get("/go-live/checklist").await.ok(),
        json!({
            "ok": true,
            "required": {
                "backend_complete": {
                    "ok": true,
                    "detail": {"pending_migrations": 0, "policies": {"heimdall": 4, "regression": 4, "risk": 4}},
                },
                "packs_installed": {"ok": true, "detail": {"missing_or_not_installed": [], "total": 4}},
            },
            "warnings": {},
        })
    );
}

#[tokio::test]
async fn enable_is_refused_while_a_lever_has_no_policy() {
    for (table, lever) in
        [("risk_policy", "risk"), ("heimdall_policy", "heimdall"), ("regression_policy", "regression")]
    {
        let service = Service::fresh().await;
        delete_from(&service, table).await;
        let checklist = service.get("/go-live/checklist").await.ok();
        assert_eq!(checklist["ok"], false, "{table}");
        assert_eq!(checklist["required"]["backend_complete"]["detail"]["policies"][lever], 0, "{table}");
        let before = state(&service).await;
        let refused = service.post(ENABLE, &json!({"actor": "bryan"})).await.refused(412, "CHECKLIST_FAILED");
        assert_eq!(refused["checklist"], checklist, "{table}");
        let blockers = refused["blockers"].as_array().unwrap();
        assert_eq!((blockers.len(), &blockers[0]["id"]), (1, &json!("backend_complete")), "{table}");
        assert!(blockers[0]["detail"].as_str().unwrap().contains(lever), "{table}: {refused}");
        assert_eq!(state(&service).await, before, "{table}");
    }
}

#[tokio::test]
async fn enable_is_refused_while_a_migration_is_not_recorded_as_applied() {
    let service = Service::fresh().await;
    service.pool.execute("UPDATE _sqlx_migrations SET success = false WHERE version = 5").await.unwrap();
    let refused = service.post(ENABLE, &json!({"actor": "bryan"})).await.refused(412, "CHECKLIST_FAILED");
    assert_eq!(refused["checklist"]["required"]["backend_complete"]["detail"]["pending_migrations"], 1);
}

#[tokio::test]
async fn all_blockers_are_named_at_once() {
    let service = require(&["crm"]).await;
    delete_from(&service, "regression_policy").await;
    let refused = service.post(ENABLE, &json!({"actor": "bryan"})).await.refused(412, "CHECKLIST_FAILED");
    let ids: Vec<_> = refused["blockers"].as_array().unwrap().iter().map(|blocker| &blocker["id"]).collect();
    assert_eq!(ids, ["backend_complete", "packs_installed"]);
}

#[tokio::test]
async fn a_refused_enable_is_an_event_and_changes_nothing_else() {
    let service = require(&["crm"]).await;
    let before = service.everything().await;
    service.post(ENABLE, &json!({"actor": "bryan", "reason": "launch"})).await.refused(412, "CHECKLIST_FAILED");
    let mut after = service.everything().await;
    for table in ["control_event", "audit_head"] {
        assert_ne!(after[table], before[table], "{table}");
        after.insert(table.into(), before[table].clone());
    }
    assert_eq!(after, before);

    let events = events(&service).await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!(event["action"], "GO_LIVE_ENABLE");
    assert_eq!((&event["ok"], &event["error"]), (&json!(false), &json!("CHECKLIST_FAILED")));
    assert_eq!((&event["actor"], &event["reason"]), (&json!("bryan"), &json!("launch")));
    assert!(event["detail"]["refused"].as_str().unwrap().contains("crm"), "{event}");
}

#[tokio::test]
async fn warnings_name_what_an_operator_should_know_and_stop_nothing() {
    let service = Service::with(Setup { env: Some("development"), ..Setup::default() }).await;
    switch(&service, ENGAGE, "bryan").await;
    let off = json!({"engine": "GLOBAL", "enabled": false, "actor": "bryan", "reason": "maintenance"});
    service.post("/risk/policies/upsert", &off).await.ok();
    let wire = json!({
        "domain": "WHOLESALE", "metric": "contract_rate", "actor": "bryan", "enabled": true,
        "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5,
    });
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("WHOLESALE", "contract_rate", 5, 0).await;
    service.kpis("WHOLESALE", "contract_rate", 5, 1).await;

    let checklist = service.get("/go-live/checklist").await.ok();
    let warnings = checklist["warnings"].as_object().unwrap();
    let names: Vec<_> = warnings.keys().map(String::as_str).collect();
    assert_eq!(names, ["enforcement_off", "global_policy_disabled", "kill_switch_engaged", "tripped_wires"]);
    for (name, word) in [("enforcement_off", "ENV=development"), ("tripped_wires", "WHOLESALE.contract_rate")] {
        assert!(warnings[name].as_str().unwrap().contains(word), "{warnings:?}");
    }
    assert_eq!(checklist["ok"], true);
    assert_eq!(switch(&service, ENABLE, "bryan").await["go_live_enabled"], true);
}

#[tokio::test]
async fn a_switched_off_gate_and_a_missing_global_policy_are_warnings() {
    let service = Service::with(Setup { enforce: false, ..Setup::default() }).await;
    delete_from(&service, "risk_policy WHERE engine = 'GLOBAL'").await;
    let warnings = service.get("/go-live/checklist").await.ok()["warnings"].clone();
    assert!(warnings["enforcement_off"].as_str().unwrap().contains("GO_LIVE_ENFORCE=0"));
    assert!(warnings["global_policy_missing"].is_string(), "{warnings}");
}
