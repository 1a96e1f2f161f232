//! The second person.

mod doors;

use crate::access::{call, create, new, refresh};
use crate::support::{Answer, BASE, Service, Setup};
use axum::http::Method;
use holdfast::access;
use holdfast::access::token::Token;
use holdfast::approval::{Policy, require_second_person};
use holdfast::audit::Origin;
use serde_json::{Value, json};

const ENABLE: &str = "/go-live/enable";
const RELEASE: &str = "/go-live/kill-switch/release";
const CAPS: &str = "/risk/policies/upsert";

struct Persons {
    service: Service,
    ann: String,
    /// Ann again, under another token and another spelling.
    ann_too: String,
    bob: String,
    /// Nobody stands behind it.
    nobody: String,
}

async fn persons(service: Service) -> Persons {
    let with_owner = |owner: Option<&str>| {
        let mut new = new("read,operate,release");
        new.owner = owner.map(|owner| owner.parse().unwrap());
        new
    };
    let ann = create(&service, with_owner(Some("Ann"))).await;
    let ann_too = create(&service, with_owner(Some(" ann "))).await;
    let bob = create(&service, with_owner(Some("Bob"))).await;
    let nobody = create(&service, with_owner(None)).await;
    Persons { service, ann, ann_too, bob, nobody }
}

async fn two_person() -> Persons {
    let service = Service::live().await;
    let policy = json!({"engine": "A", "max_daily_loss": 100, "max_daily_exposure": 1000, "max_open_risk": 1000});
    service.post(CAPS, &policy).await.ok();
    switch(&service, true).await;
    persons(service).await
}

async fn switch(service: &Service, on: bool) {
    assert!(require_second_person(&service.db, on, None, &Origin::system(None)).await.unwrap());
    assert!(!require_second_person(&service.db, on, None, &Origin::system(None)).await.unwrap(), "twice is once");
}

#[track_caller]
fn post(persons: &Persons, token: &str, path: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
    call(&persons.service, Method::POST, &format!("{BASE}{path}"), Some(token), body)
}

/// Asks for something that has to wait; gives its id.
async fn ask(persons: &Persons, token: &str, path: &str, body: &Value) -> i64 {
    let answer = post(persons, token, path, body).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json["standing"], "WAITING");
    let id = answer.json["id"].as_i64().unwrap();
    assert_eq!(answer.headers["location"].to_str().unwrap(), format!("{BASE}/approvals/{id}/approve"));
    id
}

#[track_caller]
fn approve(persons: &Persons, token: &str, id: i64) -> impl Future<Output = Answer> + use<> {
    post(persons, token, &format!("/approvals/{id}/approve"), &json!({"actor": "the second"}))
}

async fn state(persons: &Persons) -> Value {
    call(&persons.service, Method::GET, &format!("{BASE}/go-live/state"), Some(&persons.ann), &Value::Null).await.ok()
}

#[tokio::test]
async fn a_release_waits_for_another_person_and_names_both() {
    let persons = two_person().await;
    post(&persons, &persons.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
    let body = json!({"actor": "ann", "reason": "mended"});
    let id = ask(&persons, &persons.ann, RELEASE, &body).await;
    assert_eq!(state(&persons).await["kill_switch_engaged"], true, "nothing is done yet");
    assert_eq!(ask(&persons, &persons.ann, RELEASE, &body).await, id, "the same request is the one that waits");
    for (token, who) in [(&persons.ann, "herself"), (&persons.ann_too, "herself again"), (&persons.nobody, "nobody")] {
        approve(&persons, token, id).await.refused(403, "APPROVAL_REFUSED");
        assert_eq!(state(&persons).await["kill_switch_engaged"], true, "{who}");
    }
    let done = approve(&persons, &persons.bob, id).await.ok();
    assert_eq!(
        (&done["action"], &done["answer"]["kill_switch_engaged"]),
        (&json!("KILL_SWITCH_RELEASE"), &json!(false))
    );
    let rows: Vec<(String, String, Option<String>, Option<String>)> =
        sqlx::query_as("SELECT action, principal, actor, reason FROM control_event WHERE ok ORDER BY seq DESC LIMIT 2")
            .fetch_all(&persons.service.pool)
            .await
            .unwrap();
    assert_eq!(
        (rows[0].0.as_str(), rows[0].2.as_deref(), rows[0].3.as_deref()),
        ("KILL_SWITCH_RELEASE", Some("ann"), Some("mended"))
    );
    assert_eq!((rows[1].0.as_str(), rows[1].2.as_deref()), ("APPROVAL_APPROVE", Some("the second")));
    assert_ne!(rows[0].1, rows[1].1, "two principals");
    // Once, and whoever lost the answer is told what came of it.
    let reject = || post(&persons, &persons.bob, &format!("/approvals/{id}/reject"), &json!({}));
    for answer in [approve(&persons, &persons.bob, id).await, reject().await] {
        let refused = answer.refused(409, "APPROVAL_CLOSED");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("approval {id} was approved at 20")), "{detail}");
        assert!(detail.ends_with("its change is done: there is nothing left to do"), "{detail}");
    }
    approve(&persons, &persons.bob, 999).await.refused(404, "NOT_FOUND");
}

/// Asks under a key.
async fn keyed(persons: &Persons, token: &str, path: &str, body: &Value, key: &str) -> Answer {
    let mut body = body.clone();
    body["idempotency_key"] = json!(key);
    post(persons, token, path, &body).await
}

#[tokio::test]
async fn a_202_is_kept_under_its_key_whatever_becomes_of_the_request() {
    let persons = two_person().await;
    let requests = async || persons.service.count("SELECT count(*) FROM approval").await;
    let engage = async || post(&persons, &persons.bob, "/go-live/kill-switch/engage", &json!({})).await.ok();
    for (path, body) in [
        (RELEASE, json!({"actor": "ann"})),
        (ENABLE, json!({"actor": "ann"})),
        (CAPS, json!({"engine": "A", "max_open_risk": 2000})),
    ] {
        for becomes in ["waiting", "approved", "cancelled", "expired"] {
            let key = format!("{path}/{becomes}");
            let body = if path == CAPS {
                json!({"engine": "A", "max_open_risk": 2000 + requests().await})
            } else {
                body.clone()
            };
            let first = keyed(&persons, &persons.ann, path, &body, &key).await;
            assert_eq!(first.status, 202, "{}", first.text);
            assert!(!first.headers.contains_key("idempotent-replayed"));
            let id = first.json["id"].as_i64().unwrap();
            match becomes {
                "approved" => drop(approve(&persons, &persons.bob, id).await.ok()),
                "cancelled" => drop(engage().await),
                "expired" => persons.service.set_skew(&format!("{} minutes", 16 * requests().await)).await,
                _ => {}
            }
            refresh(&persons.service).await;
            let before = persons.service.everything().await;
            let again = keyed(&persons, &persons.ann, path, &body, &key).await;
            assert_eq!((again.status, &again.text), (first.status, &first.text), "{key}");
            assert_eq!(again.headers["idempotent-replayed"], "true", "{key}");
            assert_eq!(again.headers["location"], first.headers["location"], "{key}");
            let mut other = body.clone();
            other["reason"] = json!("another");
            keyed(&persons, &persons.ann, path, &other, &key).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
            assert_eq!(persons.service.everything().await, before, "{key}");
        }
    }
}

#[tokio::test]
async fn enable_waits_and_its_checklist_is_judged_when_it_is_done() {
    let service = Service::with(Setup { required_packs: vec!["crm"], ..Setup::default() }).await;
    switch(&service, true).await;
    let persons = persons(service).await;
    let pack = async |status: &str| {
        post(&persons, &persons.ann, "/go-live/packs", &json!({"id": "crm", "status": status})).await.ok();
    };
    pack("installed").await;
    let id = ask(&persons, &persons.ann, ENABLE, &json!({"actor": "ann"})).await;
    pack("missing").await;
    approve(&persons, &persons.bob, id).await.refused(412, "CHECKLIST_FAILED");
    pack("installed").await;
    approve(&persons, &persons.bob, id).await.ok();
    assert_eq!(state(&persons).await["go_live_enabled"], true);
}

#[tokio::test]
async fn a_higher_cap_waits_and_a_lower_one_does_not() {
    let persons = two_person().await;
    let engine = async || {
        let path = format!("{BASE}/risk/policies");
        let list = call(&persons.service, Method::GET, &path, Some(&persons.ann), &Value::Null).await.ok();
        list.as_array().unwrap().iter().find(|one| one["engine"] == "A").unwrap()["max_open_risk"].clone()
    };
    post(&persons, &persons.ann, CAPS, &json!({"engine": "A", "max_open_risk": 900})).await.ok();
    let raise = json!({"engine": "A", "max_open_risk": 950.5, "max_daily_loss": 50, "reason": "quarter's end"});
    let id = ask(&persons, &persons.ann, CAPS, &raise).await;
    assert_eq!(engine().await, json!(900));
    // The input of the approval does not change the request.
    let more = json!({"actor": "bob", "max_open_risk": 5000});
    post(&persons, &persons.bob, &format!("/approvals/{id}/approve"), &more).await.invalid("max_open_risk");
    approve(&persons, &persons.bob, id).await.ok();
    assert_eq!(engine().await.to_string(), "950.5");
    let gone = json!({"engine": "A", "max_open_risk": 0, "allow_unlimited": true});
    ask(&persons, &persons.ann, CAPS, &gone).await;
    assert_eq!(engine().await.to_string(), "950.5");
}

#[tokio::test]
async fn what_waits_shows_what_was_sent_and_from_what_to_what_it_moves() {
    let persons = two_person().await;
    let shown = async |path: &str, body: &Value| {
        let id = ask(&persons, &persons.ann, path, body).await;
        let url = format!("{BASE}/approvals/{id}");
        let shown = call(&persons.service, Method::GET, &url, Some(&persons.bob), &Value::Null).await.ok();
        (id, shown["input"].clone(), shown["changes"].clone())
    };
    let raise = json!({"engine": "A", "max_open_risk": 5000});
    let change = |field: &str, from: Value, to: Value| json!({"field": field, "from": from, "to": to});
    let moves = json!([change("max_open_risk", json!(1000), json!(5000))]);
    let (id, input, changes) = shown(CAPS, &raise).await;
    assert_eq!((input, changes), (raise.clone(), moves));
    assert_eq!(ask(&persons, &persons.ann, CAPS, &raise).await, id, "the same request is the one that waits");
    approve(&persons, &persons.bob, id).await.ok();
    let charter = json!({"domain": "D", "engine": "CAPITAL", "prod_use_enabled": true});
    let (id, input, changes) = shown("/heimdall/policies/upsert", &charter).await;
    assert_eq!(input, charter);
    assert!(changes.as_array().unwrap().contains(&change("engine", Value::Null, json!("CAPITAL"))), "{changes}");
    approve(&persons, &persons.bob, id).await.ok();
    post(&persons, &persons.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
    assert_eq!(shown(RELEASE, &json!({})).await.1, json!({}));
    // As a version before would have stored it: without what it moves.
    let (id, ..) = shown(CAPS, &json!({"engine": "A", "max_open_risk": 6000})).await;
    let old = r#"{"engine":"A","max_daily_loss":null,"max_daily_exposure":null,"max_open_risk":6000,"max_actions_per_day":null,"default_ttl_seconds":null,"enabled":null,"zero_cap":"Refused"}"#;
    let stored = sqlx::query("UPDATE approval SET input = $1 WHERE id = $2").bind(old).bind(id);
    stored.execute(&persons.service.pool).await.unwrap();
    let done = approve(&persons, &persons.bob, id).await.ok();
    assert_eq!(done["answer"]["max_open_risk"], 6000, "{done}");
}

#[tokio::test]
async fn a_newer_engage_or_disable_cancels_what_waits_and_so_does_time() {
    let persons = two_person().await;
    for tighten in ["/go-live/kill-switch/engage", "/go-live/disable"] {
        post(&persons, &persons.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
        let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await;
        post(&persons, &persons.bob, tighten, &json!({"actor": "bob"})).await.ok();
        approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
        assert_eq!(state(&persons).await["kill_switch_engaged"], true);
    }
    let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await;
    persons.service.set_skew("15 minutes").await;
    approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    let path = format!("{BASE}/approvals");
    let list = call(&persons.service, Method::GET, &path, Some(&persons.ann), &Value::Null).await.ok();
    assert_eq!(list["two_person_release"], true);
    let standings: Vec<_> = list["items"].as_array().unwrap().iter().map(|one| one["standing"].clone()).collect();
    assert_eq!(standings, [json!("EXPIRED"), json!("CANCELLED"), json!("CANCELLED")]);
    // Asked anew, it waits anew.
    assert_ne!(ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await, id);
}

#[tokio::test]
async fn what_a_token_asked_for_ends_with_it() {
    let persons = two_person().await;
    post(&persons, &persons.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
    let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await;
    let token = Token::read(&persons.ann).unwrap();
    access::revoke(&persons.service.db, token.id(), None, &Origin::system(None)).await.unwrap();
    let refused = approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    assert!(refused["detail"].as_str().unwrap().contains("by the end of the token that made the request"), "{refused}");
    let by_bob =
        || call(&persons.service, Method::GET, &format!("{BASE}/go-live/state"), Some(&persons.bob), &Value::Null);
    assert_eq!(by_bob().await.ok()["kill_switch_engaged"], true);
    let noted = "SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND error = 'APPROVAL_CLOSED'";
    assert_eq!(persons.service.count(noted).await, 1);
}

#[tokio::test]
async fn of_two_approvals_at_once_one_is_done() {
    let persons = two_person().await;
    post(&persons, &persons.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
    let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await;
    let (one, other) = tokio::join!(approve(&persons, &persons.bob, id), approve(&persons, &persons.bob, id));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let released = "SELECT count(*) FROM control_event WHERE action = 'KILL_SWITCH_RELEASE' AND ok";
    assert_eq!(persons.service.count(released).await, 1);
}

#[tokio::test]
async fn whoever_has_no_owner_cannot_ask_and_tightening_never_waits() {
    let persons = two_person().await;
    post(&persons, &persons.nobody, "/go-live/kill-switch/engage", &json!({})).await.ok();
    post(&persons, &persons.nobody, "/go-live/disable", &json!({"actor": "x"})).await.ok();
    post(&persons, &persons.nobody, RELEASE, &json!({})).await.refused(403, "APPROVAL_REFUSED");
    let noted = "SELECT count(*) FROM control_event WHERE action = 'ACCESS_REFUSED' AND error = 'APPROVAL_REFUSED'";
    assert_eq!(persons.service.count(noted).await, 1);
}

#[tokio::test]
async fn an_instance_may_ask_for_a_second_person_by_itself_and_never_waive_it() {
    let strict = Service::with(Setup { two_person: Policy::Always, ..Setup::default() }).await;
    strict.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    // In open mode there are no persons.
    strict.post(RELEASE, &json!({})).await.refused(403, "APPROVAL_REFUSED");
    let lenient = persons(Service::on(strict.options.clone(), Setup::default()).await).await;
    post(&lenient, &lenient.ann, RELEASE, &json!({})).await.ok();
    switch(&lenient.service, true).await;
    post(&lenient, &lenient.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
    ask(&lenient, &lenient.ann, RELEASE, &json!({})).await;
    // A setting that nobody can read asks for a second person.
    sqlx::query("UPDATE setting SET value = 'maybe' WHERE key = 'two_person_release'")
        .execute(&strict.pool)
        .await
        .unwrap();
    refresh(&lenient.service).await;
    ask(&lenient, &lenient.ann, RELEASE, &json!({"reason": "another"})).await;
    let events: Vec<String> =
        sqlx::query_scalar("SELECT detail FROM control_event WHERE action = 'SETTING_CHANGE' ORDER BY seq")
            .fetch_all(&strict.pool)
            .await
            .unwrap();
    assert_eq!(events, [r#"{"from":false,"to":true}"#]);
}

#[tokio::test]
async fn a_newer_policy_or_trip_cancels_what_waits_for_a_policy() {
    let persons = two_person().await;
    let raise = json!({"engine": "A", "max_daily_loss": 200, "enabled": true, "reason": "more"});
    let id = ask(&persons, &persons.ann, CAPS, &raise).await;
    post(&persons, &persons.ann, CAPS, &json!({"engine": "A", "enabled": false, "max_daily_loss": 1})).await.ok();
    approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    // So does one that changes nothing, since it says that the engine shall be off.
    let id = ask(&persons, &persons.ann, CAPS, &raise).await;
    post(&persons, &persons.ann, CAPS, &json!({"engine": "A", "enabled": false})).await.ok();
    approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    // If nothing waits any more, it is not an event.
    let events = persons.service.events().await;
    post(&persons, &persons.ann, CAPS, &json!({"engine": "A", "enabled": false})).await.ok();
    assert_eq!(persons.service.events().await, events);
    let use_it = json!({"domain": "BUYER_MATCH", "prod_use_enabled": true, "reason": "go"});
    let id = ask(&persons, &persons.ann, "/heimdall/policies/upsert", &use_it).await;
    post(&persons, &persons.ann, "/heimdall/demote", &json!({"domain": "BUYER_MATCH", "reason": "stop"})).await.ok();
    approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    // Another engine's policy is no reason.
    let id = ask(&persons, &persons.ann, CAPS, &raise).await;
    post(&persons, &persons.ann, CAPS, &json!({"engine": "WHOLESALE", "max_open_risk": 5})).await.ok();
    approve(&persons, &persons.bob, id).await.ok();
    let id = ask(&persons, &persons.ann, CAPS, &json!({"engine": "A", "max_daily_loss": 300})).await;
    let wire =
        json!({"domain": "A", "metric": "m", "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5});
    post(&persons, &persons.ann, "/regression/policies/upsert", &wire).await.ok();
    let evidence = super::access::token(&persons.service, "evidence").await;
    for number in 0..10 {
        let kpi = json!({"domain": "A", "metric": "m", "success": number < 5});
        post(&persons, &evidence, "/regression/kpi", &kpi).await.ok();
    }
    approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    // A new engine is new room, and waits as well.
    let new = json!({"engine": "NEW", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
    ask(&persons, &persons.ann, CAPS, &new).await;
}

#[tokio::test]
async fn a_token_asks_for_a_hundred_changes_within_the_time_of_one_and_keeps_no_other_from_asking() {
    let persons = two_person().await;
    let raise = |cap: usize| json!({"engine": "A", "max_daily_loss": 200 + cap});
    for cap in 0..100 {
        assert_eq!(post(&persons, &persons.ann, CAPS, &raise(cap)).await.status, 202);
        if cap == 50 {
            // Cancelled ones count too: each is judged anew with every request.
            post(&persons, &persons.ann, CAPS, &json!({"engine": "A", "max_open_risk": 900})).await.ok();
        }
    }
    // The same again is the one that waits.
    assert_eq!(post(&persons, &persons.ann, CAPS, &raise(77)).await.status, 202);
    let refused = post(&persons, &persons.ann, CAPS, &raise(100)).await.refused(409, "LIMIT_REACHED");
    assert_eq!(refused["limit"], 100, "{refused}");
    let id = ask(&persons, &persons.bob, CAPS, &raise(100)).await;
    approve(&persons, &persons.ann, id).await.ok();
}

#[tokio::test]
async fn a_request_that_expired_is_cancelled_by_nothing_that_came_later() {
    let persons = two_person().await;
    let id = ask(&persons, &persons.ann, CAPS, &json!({"engine": "A", "max_daily_loss": 200})).await;
    persons.service.set_skew("16 minutes").await;
    post(&persons, &persons.bob, CAPS, &json!({"engine": "A", "max_daily_loss": 90})).await.ok();
    let answer = approve(&persons, &persons.bob, id).await;
    let refused = answer.refused(409, "APPROVAL_CLOSED");
    assert!(refused["detail"].as_str().unwrap().contains("expired at"), "{refused}");
}
