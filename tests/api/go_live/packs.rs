//! Packs: reported, required, counted.

use super::{ENABLE, events, require, state, switch, texts};
use crate::support::Service;
use serde_json::json;

const PACKS: &str = "/go-live/packs";

#[tokio::test]
async fn enable_waits_for_every_required_pack_to_report_itself() {
    let service = require(&["crm", "mailer"]).await;
    let by = json!({"actor": "bryan"});
    let checklist = service.get("/go-live/checklist").await.ok();
    let packs = &checklist["required"]["packs_installed"];
    assert_eq!(packs, &json!({"ok": false, "detail": {"missing_or_not_installed": ["crm", "mailer"], "total": 6}}));
    let refused = service.post(ENABLE, &by).await.refused(412, "CHECKLIST_FAILED");
    assert_eq!(refused["checklist"], checklist);
    assert_eq!(refused["blockers"][0]["id"], "packs_installed");
    let detail = refused["blockers"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("crm, mailer") && detail.contains("POST /api/governance/go-live/packs"), "{detail}");

    service.post(PACKS, &json!({"id": "crm", "status": "installed"})).await.ok();
    let refused = service.post(ENABLE, &by).await.refused(412, "CHECKLIST_FAILED");
    let missing = &refused["checklist"]["required"]["packs_installed"]["detail"]["missing_or_not_installed"];
    assert_eq!(texts(missing), ["mailer"]);

    service.post(PACKS, &json!({"id": "mailer", "status": "installed"})).await.ok();
    assert_eq!(service.post(ENABLE, &by).await.ok()["go_live_enabled"], true);
}

#[tokio::test]
async fn a_pack_that_reports_itself_missing_blocks_the_next_enable_and_disables_nothing() {
    for pack in ["crm", "risk"] {
        let service = require(&["crm"]).await;
        service.post(PACKS, &json!({"id": "crm", "status": "installed"})).await.ok();
        switch(&service, ENABLE, "bryan").await;
        service.post(PACKS, &json!({"id": pack, "status": "missing"})).await.ok();
        assert_eq!(state(&service).await["go_live_enabled"], true, "a report moves no switch");
        let refused = service.post(ENABLE, &json!({"actor": "bryan"})).await.refused(412, "CHECKLIST_FAILED");
        let missing = &refused["checklist"]["required"]["packs_installed"]["detail"]["missing_or_not_installed"];
        assert_eq!(texts(missing), [pack]);
        assert_eq!(state(&service).await["go_live_enabled"], true, "a refusal moves no switch");
    }
}

#[tokio::test]
async fn a_required_pack_that_is_a_lever_counts_once() {
    let service = require(&["risk", "RISK"]).await;
    let checklist = service.get("/go-live/checklist").await.ok();
    assert_eq!(
        (&checklist["ok"], &checklist["required"]["packs_installed"]["detail"]["total"]),
        (&json!(true), &json!(4))
    );
}

#[tokio::test]
async fn the_levers_are_installed_packs_from_the_start() {
    let service = Service::fresh().await;
    let packs = service.get(PACKS).await.ok();
    let listed: Vec<_> = packs
        .as_array()
        .unwrap()
        .iter()
        .map(|pack| (pack["id"].as_str().unwrap(), pack["status"].as_str().unwrap()))
        .collect();
    assert_eq!(listed, ["go_live", "heimdall", "regression", "risk"].map(|id| (id, "installed")));
}

#[tokio::test]
async fn a_pack_report_keeps_what_it_leaves_out() {
    let service = Service::fresh().await;
    let first = service.post(PACKS, &json!({"id": " CRM ", "status": "missing"})).await.ok();
    assert_eq!(
        (&first["id"], &first["name"], &first["version"], &first["status"], &first["changed_by"]),
        (&json!("crm"), &json!("crm"), &json!("unknown"), &json!("missing"), &json!(null))
    );
    let named = json!({"id": "crm", "status": "installed", "name": "Customers", "version": "1.2", "actor": "deploy"});
    service.post(PACKS, &named).await.ok();
    let again = service.post(PACKS, &json!({"id": "crm", "status": "missing", "actor": "probe"})).await.ok();
    assert_eq!(
        (&again["name"], &again["version"], &again["status"], &again["changed_by"]),
        (&json!("Customers"), &json!("1.2"), &json!("missing"), &json!("probe"))
    );
    let listed = service.get(PACKS).await.ok();
    assert_eq!(listed.as_array().unwrap().iter().find(|pack| pack["id"] == "crm"), Some(&again));
}

#[tokio::test]
async fn reporting_a_pack_twice_is_safe_and_each_report_is_an_event() {
    let service = Service::fresh().await;
    let report = json!({"id": "crm", "status": "installed", "actor": "deploy", "reason": "release 7"});
    for _ in 0..2 {
        service.post(PACKS, &report).await.ok();
    }
    assert_eq!(service.count("SELECT count(*) FROM pack").await, 5);
    let events = events(&service).await;
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!(
            (&event["action"], &event["subject"], &event["ok"]),
            (&json!("PACK_REPORT"), &json!("crm"), &json!(true))
        );
        assert_eq!((&event["actor"], &event["reason"]), (&json!("deploy"), &json!("release 7")));
        assert_eq!(event["detail"]["status"], "installed");
    }
    assert_eq!(state(&service).await["version"], 1, "a report is no change of the switches");
}

#[tokio::test]
async fn a_pack_report_that_is_refused_leaves_no_trace() {
    let service = Service::fresh().await;
    let before = service.everything().await;
    for (body, field) in [
        (json!({"status": "installed"}), "id"),
        (json!({"id": "crm"}), "status"),
        (json!({"id": "crm", "status": "broken"}), "status"),
        (json!({"id": "crm", "status": "INSTALLED"}), "status"),
        (json!({"id": "c r m", "status": "installed"}), "id"),
        (json!({"id": "crm/../risk", "status": "installed"}), "id"),
        (json!({"id": "crm", "status": "installed", "version": "v".repeat(65)}), "version"),
        (json!({"id": "crm", "status": "installed", "installed_at": "now"}), "installed_at"),
    ] {
        let sentence = service.post(PACKS, &body).await.invalid(field);
        assert!(!sentence.is_empty(), "{body}");
    }
    assert_eq!(service.everything().await, before);
}
