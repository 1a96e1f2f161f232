//! Lever 1: the switches, their checklist, and the trail they leave.

use crate::support::{BASE, Service, Setup, request};
use axum::body::Body;
use axum::http::Method;
use http_body_util::{BodyExt, Full, Limited};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor};

const ENABLE: &str = "/go-live/enable";
const DISABLE: &str = "/go-live/disable";
const ENGAGE: &str = "/go-live/kill-switch/engage";
const RELEASE: &str = "/go-live/kill-switch/release";
const PACKS: &str = "/go-live/packs";

async fn state(service: &Service) -> Value {
    service.get("/go-live/state").await.ok()
}

/// The lever's events, newest first.
async fn events(service: &Service) -> Vec<Value> {
    let page = service.get("/go-live/events").await.ok();
    page["items"].as_array().unwrap().clone()
}

/// Engages, enables, disables or releases as an operator who gives no reason.
async fn switch(service: &Service, path: &str, actor: &str) -> Value {
    service.post(path, &json!({"actor": actor})).await.ok()
}

async fn require(packs: &[&'static str]) -> Service {
    Service::with(Setup { required_packs: packs.to_vec(), ..Setup::default() }).await
}

async fn delete_from(service: &Service, table: &str) {
    service.pool.execute(AssertSqlSafe(format!("DELETE FROM {table}"))).await.unwrap();
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

// The state

#[tokio::test]
async fn a_fresh_install_is_off_and_not_killed() {
    let service = Service::fresh().await;
    let state = state(&service).await;
    let none = json!({"at": null, "by": null, "reason": null});
    let updated_at = state["updated_at"].as_str().unwrap();
    assert!(updated_at.ends_with('Z'), "{updated_at}");
    assert_eq!(
        state,
        json!({
            "go_live_enabled": false,
            "kill_switch_engaged": false,
            "changed_by": null,
            "reason": null,
            "updated_at": updated_at,
            "version": 1,
            "go_live": none,
            "kill_switch": none,
        })
    );
    assert!(events(&service).await.is_empty());
}

#[tokio::test]
async fn the_etag_is_the_version_on_every_answer_that_shows_the_state() {
    let service = Service::fresh().await;
    let by = json!({"actor": "bryan"});
    for path in [ENABLE, DISABLE, ENGAGE, RELEASE] {
        let answer = service.post(path, &by).await;
        let tag = answer.headers["etag"].to_str().unwrap().to_owned();
        let version = answer.ok()["version"].clone();
        assert_eq!(tag, format!("\"{version}\""), "{path}");
        let read = service.get("/go-live/state").await;
        assert_eq!(read.headers["etag"], tag.as_str(), "{path}");
        assert_eq!(read.ok()["version"], version, "{path}");
    }
    assert_eq!(state(&service).await["version"], 5);
}

#[tokio::test]
async fn the_answer_to_a_change_is_the_state_that_is_read_afterwards() {
    let service = Service::fresh().await;
    for path in [ENABLE, DISABLE, ENGAGE, RELEASE] {
        let mut answer = switch(&service, path, "bryan").await;
        for beside in ["warnings", "guaranteed_by", "not_enforcing"] {
            answer.as_object_mut().unwrap().remove(beside);
        }
        assert_eq!(answer, state(&service).await, "{path}");
    }
}

#[tokio::test]
async fn the_state_survives_a_restart() {
    let service = Service::live().await;
    switch(&service, ENGAGE, "bryan").await;
    let restarted = Service::on(service.options.clone(), Setup::default()).await;
    assert_eq!(state(&restarted).await, state(&service).await);
}

#[tokio::test]
async fn each_switch_remembers_who_moved_it_last() {
    let service = Service::fresh().await;
    let (ann, bob) = (json!({"actor": "ann", "reason": "launch"}), json!({"actor": "bob", "reason": "smoke"}));
    service.post(ENABLE, &ann).await.ok();
    let state = service.post(ENGAGE, &bob).await.ok();
    assert_eq!((&state["go_live"]["by"], &state["go_live"]["reason"]), (&json!("ann"), &json!("launch")));
    assert_eq!((&state["kill_switch"]["by"], &state["kill_switch"]["reason"]), (&json!("bob"), &json!("smoke")));
    assert_eq!((&state["changed_by"], &state["reason"]), (&json!("bob"), &json!("smoke")));
    assert_eq!(state["updated_at"], state["kill_switch"]["at"]);
}

// Enable and disable

#[tokio::test]
async fn enable_and_disable_take_json_form_and_query() {
    let service = Service::fresh().await;
    for (path, enabled) in [(ENABLE, true), (DISABLE, false)] {
        let answers = [
            service.post(path, &json!({"actor": "Bryan & co", "reason": "a+b"})).await,
            service.post_form(path, "actor=Bryan+%26+co&reason=a%2Bb").await,
            service.post_form(path, r#"{"actor":"Bryan & co","reason":"a+b"}"#).await,
            service.post_query(path, "actor=Bryan%20%26%20co&reason=a%2bb").await,
        ];
        for answer in answers {
            let state = answer.ok();
            assert_eq!(state["go_live_enabled"], enabled);
            assert_eq!((&state["changed_by"], &state["reason"]), (&json!("Bryan & co"), &json!("a+b")));
        }
    }
    assert_eq!(state(&service).await["version"], 9);
}

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
async fn a_disable_without_an_actor_stops_and_says_that_nobody_is_recorded() {
    let service = Service::live().await;
    for body in [json!({}), json!({"actor": null}), json!({"actor": "  "}), json!({"actor": "a\u{7}b"})] {
        switch(&service, ENABLE, "bryan").await;
        let answer = service.post(DISABLE, &body).await.ok();
        assert_eq!((&answer["go_live_enabled"], &answer["changed_by"]), (&json!(false), &json!(null)), "{body}");
        let warnings = texts(&answer["warnings"]);
        assert!(warnings.iter().any(|warning| warning.contains("no actor")), "{warnings:?}");
    }
}

#[tokio::test]
async fn a_stop_keeps_every_field_that_can_be_read_beside_one_that_cannot() {
    let service = Service::live().await;
    let json = "application/json";
    for path in [DISABLE, ENGAGE] {
        for (answer, reason) in [
            (service.post_form(path, "actor=ann&reason=50% done").await, json!("50% done")),
            (service.post_form(path, "actor=ann&reason=50%+done").await, json!("50% done")),
            (service.post_query(path, "actor=ann&reason=50%25%zz").await, json!("50%%zz")),
            (service.post_form(path, "actor=ann&reason=A&B").await, json!("A")),
            (service.post_form(path, "reason=A&B=C&actor=ann").await, json!("A")),
            (service.post_form(path, "reason=%ff&actor=ann").await, json!(null)),
            (service.post_bytes(path, Some(FORM), b"reason=\xe9t\xe9&actor=ann".to_vec()).await, json!(null)),
            (service.post_bytes(path, None, "actor=ann&reason=x").await, json!("x")),
            (service.post_text(path, json, r#"{"actor":"ann","reason":50% done}"#).await, json!("50")),
            (service.post_text(path, json, r#"{"actor":"ann","reason":"a "quoted" word"}"#).await, json!("a ")),
            (service.post(path, &json!({"actor": "ann", "reason": "x".repeat(1001)})).await, json!(null)),
        ] {
            let answer = answer.ok();
            assert_eq!((&answer["changed_by"], &answer["reason"]), (&json!("ann"), &reason), "{path} {answer}");
            assert_ne!(answer["warnings"], json!([]), "{path} {answer}");
        }
    }
}

#[tokio::test]
async fn no_text_makes_a_disable_fail() {
    let service = Service::fresh().await;
    for (content_type, body, word) in garbage() {
        switch(&service, ENABLE, "bryan").await;
        let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
        let answer = service.post_bytes(DISABLE, content_type, body).await.ok();
        assert_eq!(answer["go_live_enabled"], false, "{shown}");
        let warnings = texts(&answer["warnings"]);
        assert!(warnings.iter().any(|warning| warning.contains(word)), "{shown}: no {word} in {warnings:?}");
    }
}

#[tokio::test]
async fn a_stop_of_one_thing_is_never_refused_for_its_words() {
    const DEMOTE: &str = "/heimdall/demote";
    const CHARTER: &str = "/heimdall/policies/upsert";
    const RISK: &str = "/risk/policies/upsert";
    let service = Service::live().await;
    let on = |path: &'static str| {
        let service = &service;
        async move {
            let (path, body) = match path {
                RISK => (RISK, json!({"engine": "WHOLESALE", "enabled": true, "reason": "on", "actor": "bob"})),
                _ => (CHARTER, json!({"domain": "BUYER_MATCH", "prod_use_enabled": true, "actor": "bob"})),
            };
            service.post(path, &body).await.ok();
        }
    };
    for (path, fields, switch) in [
        (DEMOTE, "domain=BUYER_MATCH", "prod_use_enabled"),
        (CHARTER, "domain=BUYER_MATCH&prod_use_enabled=false", "prod_use_enabled"),
        (RISK, "engine=WHOLESALE&enabled=false", "enabled"),
    ] {
        for (words, kept, reason) in [
            ("reason=50% done", "ann", json!("50% done")),
            ("reason=A&B", "ann", json!("A")),
            ("reason=%ff", "ann", json!(null)),
            ("reason=a%07b", "ann", json!(null)),
        ] {
            on(path).await;
            let answer = service.post_form(path, &format!("{fields}&actor=ann&{words}")).await.ok();
            let flat = json!([answer[switch], answer["changed_by"], answer["reason"]]);
            assert_eq!(flat, json!([false, kept, reason]), "{path} {words}: {answer}");
            assert_ne!(texts(&answer["ignored"]).len(), 0, "{path} {words}");
        }
    }
    // What does not only stop is read strictly, and what is stopped must be clear.
    let before = service.everything().await;
    service.post_form(RISK, "engine=WHOLESALE&enabled=true&reason=50% done").await.refused(400, "MALFORMED_REQUEST");
    service.post_form(RISK, "engine=WHOLESALE&max_open_risk=5&reason=50%").await.refused(400, "MALFORMED_REQUEST");
    service.post_form(RISK, "engine=WHOLESALE&enabled=false&max_open_risk=x&reason=50%").await.invalid("max_open_risk");
    service.post_form(RISK, "engine=WHOLESALE&enabled=false&enabled=true").await.refused(400, "CONTRADICTORY_INPUT");
    service.post_form(DEMOTE, "domain=CAPITAL_ROUTE&domain=BUYER_MATCH").await.refused(400, "CONTRADICTORY_INPUT");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn changed_by_is_another_name_of_actor() {
    let service = Service::fresh().await;
    for path in [ENABLE, DISABLE, ENGAGE, RELEASE] {
        let state = service.post(path, &json!({"changed_by": "bryan"})).await.ok();
        assert_eq!(state["changed_by"], "bryan", "{path}");
        let both = json!({"changed_by": "ann", "actor": "ann"});
        assert_eq!(service.post(path, &both).await.ok()["changed_by"], "ann", "{path}");
    }
    let before = service.everything().await;
    for path in [ENABLE, RELEASE] {
        let two = json!({"changed_by": "ann", "actor": "bob"});
        service.post(path, &two).await.refused(400, "CONTRADICTORY_INPUT");
    }
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn enabling_and_disabling_twice_is_safe_and_counts() {
    let service = Service::fresh().await;
    for (path, enabled, version) in [(ENABLE, true, 2), (ENABLE, true, 3), (DISABLE, false, 4), (DISABLE, false, 5)] {
        let state = switch(&service, path, "bryan").await;
        assert_eq!((&state["go_live_enabled"], &state["version"]), (&json!(enabled), &json!(version)));
    }
    assert_eq!(events(&service).await.len(), 4);
}

#[tokio::test]
async fn a_switch_that_is_asked_to_skip_its_checks_refuses_the_unknown_field() {
    let service = require(&["crm"]).await;
    let before = service.everything().await;
    for field in ["force", "skip_checklist", "autoPublish", "approved_by", "version"] {
        for path in [ENABLE, RELEASE] {
            let sentence = service.post(path, &json!({"actor": "a", field: true})).await.invalid(field);
            assert_eq!(sentence, "is unknown: allowed are actor, reason, idempotency_key", "{path} {field}");
        }
    }
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn disable_works_whatever_stands_in_the_way_of_an_enable() {
    let service = require(&["crm"]).await;
    delete_from(&service, "heimdall_policy").await;
    switch(&service, ENGAGE, "bryan").await;
    let answer = service.post_with(DISABLE, ("if-match", "\"1\""), &json!({"actor": "bryan"})).await;
    let state = answer.ok();
    assert_eq!((&state["go_live_enabled"], &state["kill_switch_engaged"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn engage_works_where_nobody_can_connect_to_the_database_any_more() {
    let service = Service::live().await;
    // As where other clients have taken every place of the server. No switch was pulled before.
    let name = service.options.get_database().unwrap().to_owned();
    let mut elsewhere = sqlx::PgConnection::connect_with(&service.options.clone().database("postgres")).await.unwrap();
    let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
    elsewhere.execute(AssertSqlSafe(sql)).await.unwrap();
    let answer = switch(&service, ENGAGE, "bryan").await;
    assert_eq!(answer["kill_switch_engaged"], true);
    let sql = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true");
    elsewhere.execute(AssertSqlSafe(sql)).await.unwrap();
}

// The checklist

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

// Packs

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

// The kill switch

#[tokio::test]
async fn engage_needs_nothing_and_answers_with_the_state() {
    let service = Service::fresh().await;
    let answer = service.send(request(Method::POST, &format!("{BASE}{ENGAGE}"), None, "")).await.ok();
    assert_eq!(
        (&answer["kill_switch_engaged"], &answer["version"], &answer["warnings"]),
        (&json!(true), &json!(2), &json!([]))
    );
    assert_eq!(answer["kill_switch"]["by"], json!(null));
    assert!(answer["kill_switch"]["at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn engage_takes_json_form_and_query() {
    let service = Service::fresh().await;
    let answers = [
        service.post(ENGAGE, &json!({"actor": "Bryan & co", "reason": "a+b"})).await,
        service.post_form(ENGAGE, "actor=Bryan+%26+co&reason=a%2Bb").await,
        service.post_form(ENGAGE, r#"{"actor":"Bryan & co","reason":"a+b"}"#).await,
        service.post_query(ENGAGE, "actor=Bryan%20%26%20co&reason=a%2Bb").await,
    ];
    for answer in answers {
        let state = answer.ok();
        assert_eq!(
            (&state["changed_by"], &state["reason"], &state["warnings"]),
            (&json!("Bryan & co"), &json!("a+b"), &json!([]))
        );
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

/// Bodies that no other route would take, and a word of the warning that each earns.
fn garbage() -> Vec<(Option<&'static str>, Vec<u8>, &'static str)> {
    const JSON: Option<&str> = Some("application/json");
    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");
    let many: Vec<String> = (0..100).map(|number| format!("\"f{number}\":1")).collect();
    vec![
        (JSON, b"{\"actor\":".to_vec(), "not a JSON object"),
        (JSON, b"}{".to_vec(), "not a JSON object"),
        (JSON, b"[]".to_vec(), "not a JSON object"),
        (JSON, b"\"kill\"".to_vec(), "not a JSON object"),
        (JSON, b"null".to_vec(), "not a JSON object"),
        (JSON, b"{\"actor\":NaN}".to_vec(), "not a JSON object"),
        (JSON, b"{\"actor\":\"\xff\"}".to_vec(), "not a JSON object"),
        (JSON, b"\x00\x01\x02".to_vec(), "not a JSON object"),
        (JSON, [b"{\"actor\":", "[".repeat(10_000).as_bytes()].concat(), "not a JSON object"),
        (JSON, b"{\"actor\":{\"name\":\"x\"}}".to_vec(), "actor"),
        (JSON, b"{\"actor\":[1,2]}".to_vec(), "actor"),
        (JSON, b"{\"actor\":\"a\\u0007b\"}".to_vec(), "actor"),
        (JSON, b"{\"actor\":\"a\\u0000b\"}".to_vec(), "actor"),
        (JSON, b"{\"reason\":\"a\\nb\"}".to_vec(), "reason"),
        (JSON, b"{\"reason\":\"\\ud800\"}".to_vec(), "reason"),
        (JSON, format!("{{\"actor\":\"{}\"}}", "a".repeat(201)).into_bytes(), "actor"),
        (JSON, format!("{{\"reason\":\"{}\"}}", "a".repeat(1001)).into_bytes(), "reason"),
        (JSON, b"{\"force\":true}".to_vec(), "force"),
        (JSON, format!("{{{}}}", many.join(",")).into_bytes(), "64"),
        (JSON, format!("{{\"reason\":\"{}\"}}", "a".repeat(65 * 1024)).into_bytes(), "65536 bytes"),
        (JSON, vec![b' '; 65 * 1024], "65536 bytes"),
        (FORM, b"actor=%zz".to_vec(), "percent-encoding"),
        (FORM, b"actor=%ff".to_vec(), "percent-encoding"),
        (FORM, b"actor=\xff".to_vec(), "UTF-8"),
        (FORM, b"actor=a%00b".to_vec(), "actor"),
        (FORM, b"actor=a&actor=b".to_vec(), "actor"),
        (None, b"actor=bryan".to_vec(), "content type"),
        (Some("text/plain"), b"stop!".to_vec(), "text/plain"),
        (Some("application/xml"), b"<stop/>".to_vec(), "application/xml"),
        (Some("application/json; charset=utf-16"), b"{}".to_vec(), "utf-16"),
        (Some("multipart/form-data; boundary=x"), b"--x--".to_vec(), "multipart"),
    ]
}

#[tokio::test]
async fn engage_works_whatever_the_body_and_names_what_it_dropped() {
    let service = Service::live().await;
    for (content_type, body, word) in garbage() {
        let shown: String = String::from_utf8_lossy(&body).chars().take(60).collect();
        let answer = service.post_bytes(ENGAGE, content_type, body).await.ok();
        assert_eq!(answer["kill_switch_engaged"], true, "{shown}");
        let warnings = texts(&answer["warnings"]);
        assert!(warnings.iter().any(|warning| warning.contains(word)), "{shown}: no {word} in {warnings:?}");
        assert_eq!(state(&service).await["kill_switch_engaged"], true, "{shown}");
        switch(&service, RELEASE, "bryan").await;
    }
}

#[tokio::test]
async fn engage_drops_a_bad_field_and_keeps_the_good_ones() {
    let service = Service::fresh().await;
    let body = json!({"actor": "bryan", "reason": "a\u{7}b", "force": true});
    let answer = service.post(ENGAGE, &body).await.ok();
    assert_eq!((&answer["kill_switch"]["by"], &answer["kill_switch"]["reason"]), (&json!("bryan"), &json!(null)));
    let warnings = texts(&answer["warnings"]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("reason "), "{warnings:?}");
    assert!(warnings[1].contains("force") && warnings[1].contains("actor, reason"), "{warnings:?}");
}

#[tokio::test]
async fn engage_reads_a_good_query_beside_a_bad_body() {
    let service = Service::fresh().await;
    let answer = service.post_bytes(&format!("{ENGAGE}?actor=bryan"), Some("application/json"), "{").await.ok();
    assert_eq!(answer["kill_switch"]["by"], "bryan");
    let other =
        service.post_bytes(&format!("{ENGAGE}?reason=%zz"), Some("application/json"), r#"{"actor":"ann"}"#).await.ok();
    assert_eq!((&other["changed_by"], texts(&other["warnings"]).len()), (&json!("ann"), 1));
}

#[tokio::test]
async fn engage_takes_null_and_blank_as_left_out_without_a_warning() {
    let service = Service::fresh().await;
    let body = json!({"actor": null, "reason": "  "});
    let answer = service.post(ENGAGE, &body).await.ok();
    assert_eq!((&answer["kill_switch"]["by"], &answer["warnings"]), (&json!(null), &json!([])));
}

#[tokio::test]
async fn engage_keeps_the_reason_when_another_field_is_given_twice() {
    let service = Service::fresh().await;
    let body = r#"{"actor":"ann","actor":"bob","reason":"smoke"}"#;
    let answer = service.post_text(ENGAGE, "application/json", body).await.ok();
    assert_eq!(answer["kill_switch"]["reason"], "smoke");
    assert!(texts(&answer["warnings"]).iter().any(|warning| warning.contains("actor")));
}

#[tokio::test]
async fn engage_works_when_the_body_breaks_off() {
    let service = Service::fresh().await;
    // A body that fails while it is read, as when the peer goes away in the middle of it.
    let broken = Body::new(Limited::new(Full::from("{\"actor\":\"bryan\"}"), 5));
    let answer = service.post_bytes(ENGAGE, Some("application/json"), broken).await.ok();
    assert_eq!(answer["kill_switch_engaged"], true);
    assert_eq!(texts(&answer["warnings"]).len(), 1);
}

#[tokio::test]
async fn engage_works_when_the_body_never_ends() {
    let service = Service::fresh().await;
    let endless = Full::from("{\"actor\":\"bryan\"}").with_trailers(std::future::pending());
    let answer = service.post_bytes(ENGAGE, Some("application/json"), Body::new(endless)).await.ok();
    assert_eq!(answer["kill_switch_engaged"], true);
}

#[tokio::test]
async fn engage_ignores_if_match_and_the_checklist() {
    let service = require(&["crm"]).await;
    for header in ["\"999\"", "nonsense", ""] {
        let answer = service.post_with(ENGAGE, ("if-match", header), &json!({"actor": "bryan"})).await.ok();
        assert_eq!(answer["kill_switch_engaged"], true, "{header}");
    }
}

#[tokio::test]
async fn engage_does_not_wait_for_the_ledger() {
    let service = Service::live().await;
    // Every connection of the ledger is taken, and one of them holds its lock.
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(service.db.begin().await.unwrap());
    }
    held[0].execute("SELECT seq FROM audit_head WHERE stream = 'risk' FOR UPDATE").await.unwrap();
    assert_eq!(switch(&service, ENGAGE, "bryan").await["kill_switch_engaged"], true);
}

#[tokio::test]
async fn a_repeated_engage_keeps_the_first_engagement_and_is_an_event() {
    let service = Service::fresh().await;
    let first = service.post(ENGAGE, &json!({"actor": "ann", "reason": "smoke"})).await.ok();
    let second = service.post(ENGAGE, &json!({"actor": "bob", "reason": "fire"})).await.ok();
    assert_eq!(second["kill_switch"], first["kill_switch"]);
    assert_eq!(second["kill_switch"]["by"], "ann");
    assert_eq!((&first["version"], &second["version"]), (&json!(2), &json!(3)));
    assert_eq!((&second["changed_by"], &second["reason"]), (&json!("bob"), &json!("fire")));
    let events = events(&service).await;
    let engages: Vec<_> =
        events.iter().map(|event| (event["action"].as_str().unwrap(), event["actor"].as_str())).collect();
    assert_eq!(engages, [("KILL_SWITCH_ENGAGE", Some("bob")), ("KILL_SWITCH_ENGAGE", Some("ann"))]);
}

#[tokio::test]
async fn release_lifts_the_stop_and_a_second_engage_starts_anew() {
    let service = Service::live().await;
    let first = switch(&service, ENGAGE, "ann").await;
    let released = service.post(RELEASE, &json!({"reason": "checked"})).await.ok();
    assert_eq!((&released["kill_switch_engaged"], &released["go_live_enabled"]), (&json!(false), &json!(true)));
    assert_eq!(released["kill_switch"]["reason"], "checked");
    let second = switch(&service, ENGAGE, "bob").await;
    assert_eq!(second["kill_switch"]["by"], "bob");
    assert_ne!(second["kill_switch"]["at"], first["kill_switch"]["at"]);
}

#[tokio::test]
async fn releasing_twice_is_safe() {
    let service = Service::fresh().await;
    for version in [2, 3] {
        let state = switch(&service, RELEASE, "bryan").await;
        assert_eq!((&state["kill_switch_engaged"], &state["version"]), (&json!(false), &json!(version)));
    }
}

#[tokio::test]
async fn a_refused_release_leaves_no_trace() {
    let service = Service::fresh().await;
    switch(&service, ENGAGE, "bryan").await;
    let before = service.everything().await;
    let bad = [json!({"actor": "a\u{7}b"}), json!({"force": true}), json!({"reason": "r".repeat(1001)})];
    for body in bad {
        let answer = service.post(RELEASE, &body).await;
        answer.refused(422, "VALIDATION_FAILED");
    }
    assert_eq!(service.everything().await, before);
}

// If-Match

#[tokio::test]
async fn a_loosening_with_the_version_it_saw_works() {
    let service = Service::fresh().await;
    let mut version = 1;
    for path in [ENABLE, RELEASE] {
        for form in ["\"V\"", "W/\"V\"", "*", "\"77\", \"V\"", "\"V\" , \"77\""] {
            let header = form.replace('V', &version.to_string());
            let answer = service.post_with(path, ("if-match", &header), &json!({"actor": "bryan"})).await;
            version += 1;
            assert_eq!(answer.ok()["version"], version, "{path} {header}");
        }
    }
}

#[tokio::test]
async fn a_loosening_with_another_version_is_refused_and_recorded() {
    let service = Service::fresh().await;
    switch(&service, ENGAGE, "ann").await;
    let before = state(&service).await;
    let mut attempts = 0;
    for (path, action) in [(ENABLE, "GO_LIVE_ENABLE"), (RELEASE, "KILL_SWITCH_RELEASE")] {
        for header in ["\"1\"", "\"3\"", "W/\"1\"", "\"1\", \"3\"", "\"22\"", "\"-2\"", "\"2.0\"", "", "latest"] {
            let refused = service
                .post_with(path, ("if-match", header), &json!({"actor": "bob"}))
                .await
                .refused(412, "VERSION_MISMATCH");
            attempts += 1;
            assert_eq!(refused["version"], 2, "{path} {header}");
            assert_eq!(refused["blockers"][0]["id"], "version", "{path} {header}");
            assert_eq!(state(&service).await, before, "{path} {header}");
            let events = events(&service).await;
            assert_eq!(events.len(), 1 + attempts, "{path} {header}");
            let event = &events[0];
            assert_eq!(
                (&event["action"], &event["ok"], &event["error"], &event["actor"]),
                (&json!(action), &json!(false), &json!("VERSION_MISMATCH"), &json!("bob"))
            );
        }
    }
}

#[tokio::test]
async fn an_if_match_that_is_not_text_matches_nothing() {
    let service = Service::fresh().await;
    let mut request = request(Method::POST, &format!("{BASE}{RELEASE}"), Some("application/json"), "{}");
    let header = axum::http::HeaderValue::from_bytes(b"\"1\xff\"").unwrap();
    request.headers_mut().insert("if-match", header);
    service.send(request).await.refused(412, "VERSION_MISMATCH");
}

#[tokio::test]
async fn a_late_release_loses_against_a_newer_engage() {
    let service = Service::fresh().await;
    let seen = switch(&service, ENGAGE, "ann").await["version"].clone();
    switch(&service, ENGAGE, "bob").await;
    let header = format!("\"{seen}\"");
    service.post_with(RELEASE, ("if-match", &header), &json!({"actor": "ann"})).await.refused(412, "VERSION_MISMATCH");
    assert_eq!(state(&service).await["kill_switch_engaged"], true);
}

// The trail

#[tokio::test]
async fn events_are_newest_first_with_what_was_before_and_after() {
    let service = Service::fresh().await;
    let mut states = vec![state(&service).await];
    for path in [ENABLE, ENGAGE, RELEASE, DISABLE] {
        service.post_with(path, ("x-request-id", "monday-7"), &json!({"actor": "bryan", "reason": "drill"})).await.ok();
        states.push(state(&service).await);
    }
    let events = events(&service).await;
    let actions: Vec<_> = events.iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["GO_LIVE_DISABLE", "KILL_SWITCH_RELEASE", "KILL_SWITCH_ENGAGE", "GO_LIVE_ENABLE"]);
    for (event, (before, after)) in events.iter().rev().zip(states.iter().zip(states.iter().skip(1))) {
        assert_eq!(event["detail"], json!({"before": before, "after": after}));
        assert_eq!(event["at"], after["updated_at"]);
        assert_eq!((&event["ok"], &event["error"], &event["subject"]), (&json!(true), &json!(null), &json!(null)));
        assert_eq!((&event["actor"], &event["reason"]), (&json!("bryan"), &json!("drill")));
        assert_eq!((&event["request_id"], &event["principal"]), (&json!("monday-7"), &json!("UNAUTHENTICATED")));
        assert_eq!(event["hash"].as_str().unwrap().len(), 64);
    }
}

#[tokio::test]
async fn the_events_of_this_lever_are_its_own() {
    let service = Service::live().await;
    let policy = json!({"engine": "GLOBAL", "max_daily_loss": 100, "actor": "bryan"});
    service.post("/risk/policies/upsert", &policy).await.ok();
    let events = events(&service).await;
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn times_of_changes_strictly_increase_even_if_the_clock_goes_back() {
    let service = Service::fresh().await;
    let first = switch(&service, ENGAGE, "ann").await;
    service.set_skew("-30 minutes").await;
    let second = switch(&service, RELEASE, "ann").await;
    service.set_skew("-3 days").await;
    let third = switch(&service, ENGAGE, "ann").await;
    let times = [&first, &second, &third]
        .map(|state| chrono::DateTime::parse_from_rfc3339(state["updated_at"].as_str().unwrap()).unwrap());
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
}

#[tokio::test]
async fn unknown_switches_are_404() {
    let service = Service::fresh().await;
    let before = service.everything().await;
    for path in
        ["/go-live/pause", "/go-live/kill-switch", "/go-live/kill-switch/toggle", "/go-live/enable/", "/go-live/Enable"]
    {
        service.post(path, &json!({"actor": "bryan"})).await.refused(404, "ROUTE_NOT_FOUND");
    }
    assert_eq!(service.everything().await, before);
}
