//! The state, and the rules that all switches share.

use super::{DISABLE, ENABLE, ENGAGE, RELEASE, events, require, state, switch};
use crate::support::{Service, Setup};
use serde_json::json;

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
