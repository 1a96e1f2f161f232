//! The versions of a policy: who, when, why, and each value before and after.

use super::all;
use crate::review::at;
use crate::support::Service;
use serde_json::{Value, json};

async fn upsert(service: &Service, lever: &str, body: Value) -> Value {
    service.post(&format!("/{lever}/policies/upsert"), &body).await.ok()
}

const ENGINE: &str = "/risk/policies/history?engine=CAPITAL";

#[tokio::test]
async fn each_change_of_caps_has_who_when_why_and_the_values_before_and_after() {
    let service = Service::live().await;
    at(&service, "2040-01-02T12:00:00Z").await;
    assert_eq!(all(&service, ENGINE, 100).await, Vec::<Value>::new(), "installed, and never changed");
    let raised = json!({"engine": "CAPITAL", "max_daily_loss": 175, "max_actions_per_day": 9, "actor": "ann", "reason": "a calm week"});
    let policy = upsert(&service, "risk", raised).await;
    at(&service, "2040-01-03T12:00:00Z").await;
    upsert(&service, "risk", json!({"engine": "CAPITAL", "enabled": false, "actor": "bob"})).await;
    upsert(&service, "risk", json!({"engine": "WHOLESALE", "enabled": false, "actor": "bob"})).await;
    let rows = all(&service, ENGINE, 100).await;
    assert_eq!(rows.len(), 2);
    let (off, first) = (&rows[0], &rows[1]);
    assert_eq!(
        json!([off["actor"], off["reason"], off["version"], off["action"]]),
        json!(["bob", null, 3, "RISK_POLICY_UPSERT"])
    );
    assert_eq!(off["changes"], json!([{"field": "enabled", "from": true, "to": false}]));
    assert_eq!(json!([first["actor"], first["reason"], first["version"]]), json!(["ann", "a calm week", 2]));
    assert_eq!(first["principal"], "UNAUTHENTICATED");
    assert!(first["at"].as_str().unwrap().starts_with("2040-01-02T12:00"), "{first}");
    assert_eq!(
        first["changes"],
        json!([{"field": "max_daily_loss", "from": 150, "to": 175}, {"field": "max_actions_per_day", "from": 0, "to": 9}])
    );
    for (name, value) in first["policy"].as_object().unwrap() {
        assert_eq!(policy[name], *value, "{name}");
    }
    assert_eq!(first["erased"], false);
}

#[tokio::test]
async fn a_removal_is_a_version_and_ends_nothing() {
    let service = Service::live().await;
    let new = json!({"engine": "LAB", "max_daily_loss": 1, "max_daily_exposure": 2, "max_open_risk": 3, "enabled": false, "actor": "ann"});
    upsert(&service, "risk", new.clone()).await;
    service.post("/risk/policies/remove", &json!({"engine": "LAB", "actor": "bob", "reason": "not needed"})).await.ok();
    let path = "/risk/policies/history?engine=lab";
    let rows = all(&service, path, 100).await;
    assert_eq!(
        rows.iter().map(|row| row["action"].clone()).collect::<Vec<_>>(),
        ["RISK_POLICY_REMOVE", "RISK_POLICY_UPSERT"]
    );
    let removed = &rows[0];
    assert_eq!(
        json!([removed["changes"], removed["policy"]["max_open_risk"], removed["reason"]]),
        json!([[], 3, "not needed"])
    );
    let created =
        rows[1]["changes"].as_array().unwrap().iter().find(|change| change["field"] == "max_open_risk").unwrap();
    assert_eq!(*created, json!({"field": "max_open_risk", "from": null, "to": 3}));
    upsert(&service, "risk", new).await;
    assert_eq!(all(&service, path, 1).await.len(), 3);
}

#[tokio::test]
async fn only_changes_of_that_policy_are_its_history() {
    let service = Service::live().await;
    upsert(&service, "heimdall", json!({"domain": "CAPITAL", "min_sandbox_trials": 5, "actor": "ann"})).await;
    upsert(
        &service,
        "regression",
        json!({"domain": "CAPITAL", "metric": "roi_event", "window_events": 60, "actor": "ann"}),
    )
    .await;
    upsert(&service, "regression", json!({"domain": "CAPITAL", "metric": "other", "actor": "ann"})).await;
    let refused = json!({"domain": "CAPITAL", "actor": "ann", "reason": "now"});
    service.post("/heimdall/promote", &refused).await.refused(412, "EVIDENCE_INSUFFICIENT");
    assert_eq!(all(&service, ENGINE, 100).await.len(), 0);
    let domain = all(&service, "/heimdall/policies/history?domain=capital", 100).await;
    assert_eq!(domain.len(), 1, "a refused promotion changes nothing");
    assert_eq!(
        json!([domain[0]["action"], domain[0]["policy"]["min_sandbox_trials"]]),
        json!(["HEIMDALL_POLICY_UPSERT", 5])
    );
    let wire = all(&service, "/regression/policies/history?domain=capital&metric=ROI_EVENT", 100).await;
    assert_eq!(wire.len(), 1);
    let changed = wire[0]["changes"].as_array().unwrap();
    assert!(changed.contains(&json!({"field": "window_events", "from": 50, "to": 60})), "{changed:?}");
}

#[tokio::test]
async fn promotions_and_demotions_are_versions_of_a_charter() {
    let service = Service::live().await;
    let easy = json!({"domain": "LAB", "min_sandbox_trials": 1, "min_sandbox_success_rate": 0.1, "actor": "ann"});
    upsert(&service, "heimdall", easy).await;
    service.post("/heimdall/sandbox/trial", &json!({"domain": "LAB", "confidence": 0.9, "success": true})).await.ok();
    service.post("/heimdall/promote", &json!({"domain": "LAB", "actor": "ann", "reason": "earned"})).await.ok();
    service.post("/heimdall/demote", &json!({"domain": "LAB", "actor": "bob", "reason": "enough"})).await.ok();
    let rows = all(&service, "/heimdall/policies/history?domain=LAB", 1).await;
    let told: Vec<_> = rows.iter().map(|row| json!([row["action"], row["version"], row["reason"]])).collect();
    assert_eq!(
        told,
        [
            json!(["HEIMDALL_DEMOTE", 3, "enough"]),
            json!(["HEIMDALL_PROMOTE", 2, "earned"]),
            json!(["HEIMDALL_POLICY_UPSERT", 1, null])
        ]
    );
    assert_eq!(rows[1]["changes"], json!([{"field": "prod_use_enabled", "from": false, "to": true}]));
}

#[tokio::test]
async fn a_removed_wire_and_a_removed_kind_are_shown() {
    let service = Service::live().await;
    let wire = json!({"domain": "LAB", "metric": "m", "enabled": false, "actor": "ann"});
    upsert(&service, "regression", wire).await;
    service.post("/regression/policies/remove", &json!({"domain": "LAB", "metric": "m", "actor": "ann"})).await.ok();
    service
        .post("/regression/kind", &json!({"domain": "LAB", "metric": "m", "kind": "NUMERIC", "actor": "ann"}))
        .await
        .ok();
    service.post("/regression/policies/remove", &json!({"domain": "LAB", "metric": "m", "actor": "ann"})).await.ok();
    let rows = all(&service, "/regression/policies/history?domain=LAB&metric=m", 100).await;
    let told: Vec<_> = rows.iter().map(|row| json!([row["action"], row["policy"]["metric"], row["erased"]])).collect();
    assert_eq!(
        told,
        [
            json!(["REGRESSION_POLICY_REMOVE", null, false]),
            json!(["REGRESSION_POLICY_REMOVE", "m", false]),
            json!(["REGRESSION_POLICY_UPSERT", "m", false])
        ]
    );
}

#[tokio::test]
async fn an_erased_detail_is_said_and_not_guessed() {
    let service = Service::live().await;
    upsert(&service, "risk", json!({"engine": "CAPITAL", "max_daily_loss": 175, "actor": "ann"})).await;
    upsert(&service, "risk", json!({"engine": "CAPITAL", "max_daily_loss": 176, "actor": "ann"})).await;
    let sql = "ALTER TABLE control_event DISABLE TRIGGER guard;
               UPDATE control_event SET detail = NULL WHERE action = 'RISK_POLICY_UPSERT' AND detail LIKE '%175,%';
               ALTER TABLE control_event ENABLE ALWAYS TRIGGER guard";
    sqlx::raw_sql(sql).execute(&service.pool).await.unwrap();
    let rows = all(&service, ENGINE, 100).await;
    let told: Vec<_> = rows.iter().map(|row| row["erased"].clone()).collect();
    assert!(told.contains(&json!(true)), "{rows:#?}");
    let erased = rows.iter().find(|row| row["erased"] == true).unwrap();
    assert_eq!(json!([erased["version"], erased["policy"], erased["changes"]]), json!([null, null, []]));
    assert_eq!(erased["actor"], "ann");
}

#[tokio::test]
async fn many_versions_are_paged_and_each_is_shown_once() {
    let service = Service::live().await;
    for cap in 1..=23 {
        upsert(&service, "risk", json!({"engine": "CAPITAL", "max_daily_loss": cap, "actor": "ann"})).await;
    }
    let rows = all(&service, ENGINE, 100).await;
    let versions: Vec<_> = rows.iter().map(|row| row["version"].as_i64().unwrap()).collect();
    assert_eq!(versions, (2..=24).rev().collect::<Vec<_>>());
    for limit in [1, 5, 23] {
        assert_eq!(all(&service, ENGINE, limit).await, rows, "{limit}");
    }
}

#[tokio::test]
async fn a_policy_that_never_was_is_not_found() {
    let service = Service::live().await;
    for (path, says) in [
        ("/risk/policies/history?engine=LAB", "there is no engine LAB"),
        ("/heimdall/policies/history?domain=LAB", "there is no charter policy of LAB"),
        ("/regression/policies/history?domain=LAB&metric=m", "there is no wire LAB.m"),
    ] {
        let refused = service.get(path).await.refused(404, "NOT_FOUND");
        assert!(refused["detail"].as_str().unwrap().starts_with(says), "{refused}");
    }
    for (path, field) in [
        ("/risk/policies/history", "engine"),
        ("/heimdall/policies/history", "domain"),
        ("/regression/policies/history?domain=LAB", "metric"),
        ("/risk/policies/history?engine=%00", "engine"),
        ("/risk/policies/history?engine=GLOBAL&from=2040-01-01", "from"),
        ("/risk/policies/history?engine=GLOBAL&limit=0", "limit"),
        ("/risk/policies/history?engine=GLOBAL&cursor=1.00000000", "cursor"),
    ] {
        service.get(path).await.invalid(field);
    }
}
