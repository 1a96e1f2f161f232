//! The second person, at every door.

use super::{ENABLE, Persons, RELEASE, approve, ask, keyed, persons, post, switch};
use crate::access::reach::{loosenings, tightenings};
use crate::access::{create, new, refresh};
use crate::support::{BASE, Service};
use axum::http::Method;
use holdfast::enforcement::routes::{Needs, ROUTES};
use serde_json::{Value, json};

/// Ann and Bob, before it is asked for a second person.
async fn alone() -> Persons {
    let service = crate::access::reach::two_engines().await;
    service.post("/heimdall/policies/upsert", &json!({"domain": "D"})).await.ok();
    service.post("/regression/policies/upsert", &json!({"domain": "D", "metric": "m", "engine": "A"})).await.ok();
    persons(service).await
}

/// Everything but the trail of control events and the requests themselves.
async fn book(persons: &Persons) -> Vec<(String, String)> {
    let everything = persons.service.everything().await;
    let kept =
        |table: &str| !["control_event", "audit_head", "approval", "idempotency_key", "instance"].contains(&table);
    everything
        .into_iter()
        .map(|(table, rows)| (table.clone(), format!("{rows:?}")))
        .filter(|(table, _)| kept(table))
        .collect()
}

/// Asks for what loosens: nothing happens until Bob agrees, and then it does.
async fn waits(persons: &Persons, path: &str, body: &Value) -> Value {
    let before = book(persons).await;
    let id = ask(persons, &persons.ann, path, body).await;
    assert_eq!(book(persons).await, before, "{path} {body}: nothing is done yet");
    approve(persons, &persons.ann_too, id).await.refused(403, "APPROVAL_REFUSED");
    let done = approve(persons, &persons.bob, id).await.ok();
    assert_ne!(book(persons).await, before, "{path} {body}: it is done");
    approve(persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    // Tokens are known for two seconds, refusals noted ten times a second.
    persons.service.clock.advance(200);
    refresh(&persons.service).await;
    done["answer"].clone()
}

#[tokio::test]
async fn every_upsert_that_loosens_waits_for_a_second_person_and_none_that_tightens_does() {
    let persons = alone().await;
    switch(&persons.service, true).await;
    for (path, body) in tightenings() {
        // The one loosening that an operator alone may ask for nowhere.
        let answer = post(&persons, &persons.ann, path, &body).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.text);
    }
    for (path, body) in loosenings() {
        waits(&persons, path, &body).await;
    }
}

/// A wire that tripped and holds the engine W off.
async fn trip(service: &Service, metric: &str) {
    let wire =
        json!({"domain": "W", "metric": metric, "window_events": 5, "baseline_events": 5, "min_events_to_enforce": 5});
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("W", metric, 5, 0).await;
    service.kpis("W", metric, 5, 1).await;
}

#[tokio::test]
async fn an_engine_that_a_trip_throttled_is_turned_on_by_no_door_alone() {
    let service = Service::live().await;
    let caps = json!({"engine": "W", "max_daily_loss": 9, "max_daily_exposure": 9, "max_open_risk": 9});
    service.post("/risk/policies/upsert", &caps).await.ok();
    for metric in ["a", "b", "c"] {
        trip(&service, metric).await;
    }
    let persons = persons(service).await;
    switch(&persons.service, true).await;
    let throttles = async || persons.service.count("SELECT count(*) FROM risk_throttle").await;
    assert_eq!(throttles().await, 3);
    let rearm = json!({"domain": "W", "metric": "a", "reason": "mended", "actor": "ann"});
    let answer = waits(&persons, "/regression/rearm", &rearm).await;
    assert_eq!((&answer["ok"], throttles().await), (&json!(true), 2), "{answer}");
    let upsert = json!({"domain": "W", "metric": "b", "enabled": true, "reason": "mended"});
    waits(&persons, "/regression/policies/upsert", &upsert).await;
    assert_eq!(throttles().await, 1);
    waits(&persons, "/risk/policies/upsert", &json!({"engine": "W", "enabled": true, "reason": "checked"})).await;
    assert_eq!(throttles().await, 0);
    let reset = json!({"domain": "W", "metric": "a", "source": "NEXT_N"});
    let answer = waits(&persons, "/regression/baseline/reset", &reset).await;
    assert_eq!(answer["ok"], true);
    // A trip since: what the first one saw is not what stands.
    let id = ask(
        &persons,
        &persons.ann,
        "/regression/policies/upsert",
        &json!({"domain": "W", "metric": "a", "enabled": false}),
    )
    .await;
    let other = ask(
        &persons,
        &persons.ann,
        "/regression/baseline/reset",
        &json!({"domain": "W", "metric": "b", "source": "NEXT_N"}),
    )
    .await;
    post(
        &persons,
        &persons.bob,
        "/regression/policies/upsert",
        &json!({"domain": "W", "metric": "a", "max_drop_fraction": 0.1}),
    )
    .await
    .ok();
    approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
    approve(&persons, &persons.bob, other).await.ok();
}

#[tokio::test]
async fn a_promotion_waits_and_is_done_by_the_evidence_of_the_approval() {
    let persons = alone().await;
    let trials = async |success: bool, count: usize| {
        let mut new = new("evidence");
        new.owner = None;
        let evidence = create(&persons.service, new).await;
        for _ in 0..count {
            let trial = json!({"domain": "D", "confidence": 0.95, "success": success});
            post(&persons, &evidence, "/heimdall/sandbox/trial", &trial).await.ok();
        }
    };
    trials(true, 50).await;
    switch(&persons.service, true).await;
    let promote = json!({"domain": "D", "actor": "ann", "reason": "earned"});
    let id = ask(&persons, &persons.ann, "/heimdall/promote", &promote).await;
    trials(false, 50).await;
    approve(&persons, &persons.bob, id).await.refused(412, "EVIDENCE_INSUFFICIENT");
    trials(true, 150).await;
    let done = approve(&persons, &persons.bob, id).await.ok();
    assert_eq!((&done["action"], &done["answer"]["prod_use_enabled"]), (&json!("HEIMDALL_PROMOTE"), &json!(true)));
    // A demotion since cancels what waits for the domain.
    post(&persons, &persons.ann, "/heimdall/demote", &json!({"domain": "D"})).await.ok();
    let id =
        ask(&persons, &persons.ann, "/heimdall/policies/upsert", &json!({"domain": "D", "prod_use_enabled": true}))
            .await;
    let other = ask(&persons, &persons.ann, "/heimdall/promote", &promote).await;
    approve(&persons, &persons.bob, id).await.ok();
    approve(&persons, &persons.bob, other).await.refused(409, "APPROVAL_CLOSED");
}

#[tokio::test]
async fn a_correction_downwards_waits_also_in_a_batch_and_one_upwards_does_not() {
    let persons = alone().await;
    let service = create(&persons.service, new("reserve")).await;
    let reserve = json!({"engine": "A", "amount": 50});
    let held = post(&persons, &service, "/risk/check-and-reserve", &reserve).await.ok()["reservation_id"].clone();
    post(&persons, &persons.ann, "/risk/settle", &json!({"reservation_id": held, "realized_loss": 40})).await.ok();
    switch(&persons.service, true).await;
    let path = "/risk/adjustments";
    let adjust = |delta: i64, reason: &str| json!({"corrects_seq": 2, "loss_delta": delta, "reason": reason, "metadata": {"a": 1}});
    post(&persons, &persons.ann, path, &adjust(5, "up")).await.ok();
    let answer = waits(&persons, path, &adjust(-15, "down")).await;
    assert_eq!((&answer["message"], &answer["loss_delta"]), (&json!("Adjusted"), &json!(-15)), "{answer}");
    waits(&persons, path, &json!({"corrects_seq": 1, "exposure_delta": -1, "reason": "down"})).await;
    // A correction that could not be booked does not wait.
    post(&persons, &persons.ann, path, &adjust(-1000, "too much")).await.refused(409, "ADJUSTMENT_OUT_OF_RANGE");
    post(&persons, &persons.ann, path, &json!({"corrects_seq": 99, "loss_delta": -1, "reason": "x"}))
        .await
        .refused(404, "NOT_FOUND");
    let loss =
        async || persons.service.count("SELECT realized_loss::bigint FROM risk_ledger_day WHERE engine = 'A'").await;
    assert_eq!(loss().await, 30);
    let batch = json!({"idempotency_key": "k", "operations": [
        {"op": "adjust", "corrects_seq": 2, "loss_delta": -3, "reason": "batch"},
        {"op": "adjust", "corrects_seq": 2, "loss_delta": 1, "reason": "batch"},
        {"op": "adjust", "corrects_seq": 2, "loss_delta": -4, "reason": "batch"},
    ]});
    let first = post(&persons, &persons.ann, "/risk/batch", &batch).await.ok()["results"].clone();
    let flat = |results: &Value, field: &str| -> Vec<Value> {
        results.as_array().unwrap().iter().map(|one| one[field].clone()).collect()
    };
    assert_eq!(flat(&first, "status"), [202, 200, 202], "{first}");
    assert_eq!(loss().await, 31);
    let again = post(&persons, &persons.ann, "/risk/batch", &batch).await.ok()["results"].clone();
    assert_eq!(flat(&again, "replayed"), [true, true, true], "{again}");
    let mut booked = first[1]["answer"].clone();
    booked["replayed"] = json!(true);
    assert_eq!(flat(&again, "answer"), [first[0]["answer"].clone(), booked, first[2]["answer"].clone()]);
    // Of two corrections of one event the second was asked for before the first was done.
    let ids: Vec<i64> = [0, 2].map(|place| first[place]["answer"]["id"].as_i64().unwrap()).into();
    approve(&persons, &persons.bob, ids[0]).await.ok();
    approve(&persons, &persons.bob, ids[1]).await.refused(409, "APPROVAL_CLOSED");
    assert_eq!(loss().await, 28);
    let one = keyed(&persons, &persons.ann, path, &adjust(-1, "one"), "own").await;
    // A standby may lack it: the answer is repeated after a commit.
    let pool = &persons.service.pool;
    let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let before: i64 = sqlx::query_scalar(next).fetch_one(pool).await.unwrap();
    assert_eq!(keyed(&persons, &persons.ann, path, &adjust(-1, "one"), "own").await.text, one.text);
    let commits =
        "SELECT count(*) FROM generate_series($1, pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1) AS id
        WHERE pg_xact_status(id::text::xid8) = 'committed'";
    let commits: i64 = sqlx::query_scalar(commits).bind(before).fetch_one(pool).await.unwrap();
    assert!(commits > 0, "it was only rolled back");
    approve(&persons, &persons.bob, one.json["id"].as_i64().unwrap()).await.ok();
    let replay = keyed(&persons, &persons.ann, path, &adjust(-1, "one"), "own").await;
    assert_eq!((replay.status, &replay.text), (one.status, &one.text));
    assert_eq!(loss().await, 27);
}

#[tokio::test]
async fn what_waits_is_rejected_by_whoever_operates_and_taken_back_by_whoever_asked() {
    let persons = alone().await;
    switch(&persons.service, true).await;
    let operator = create(&persons.service, new("operate")).await;
    let reader = create(&persons.service, new("read,reserve,evidence")).await;
    for (token, name) in
        [(&operator, "an operator"), (&persons.ann, "the one who asked"), (&persons.nobody, "nobody's token")]
    {
        post(&persons, &persons.bob, "/go-live/kill-switch/engage", &json!({})).await.ok();
        let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await;
        let path = format!("/approvals/{id}/reject");
        post(&persons, &reader, &path, &json!({})).await.refused(403, "INSUFFICIENT_SCOPE");
        let rejected = post(&persons, token, &path, &json!({"actor": "x", "reason": "not today"})).await.ok();
        assert_eq!(rejected["standing"], "REJECTED", "{name}: {rejected}");
        approve(&persons, &persons.bob, id).await.refused(409, "APPROVAL_CLOSED");
        let again = post(&persons, token, &path, &json!({})).await.refused(409, "APPROVAL_CLOSED");
        assert!(again["detail"].as_str().unwrap().contains("was rejected at 20"), "{again}");
        let url = format!("{BASE}/approvals/{id}");
        let shown =
            crate::access::call(&persons.service, Method::GET, &url, Some(&persons.ann), &Value::Null).await.ok();
        assert_eq!(shown, rejected);
        // Asked anew, it waits anew.
        assert_ne!(ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await, id);
    }
    let noted = "SELECT count(*) FROM control_event WHERE action = 'APPROVAL_REJECT' AND ok AND reason = 'not today'";
    assert_eq!(persons.service.count(noted).await, 3);
    post(&persons, &operator, "/approvals/999/reject", &json!({})).await.refused(404, "NOT_FOUND");
    // No words are a reason to let it wait.
    let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann", "reason": "once more"})).await;
    let path = format!("/approvals/{id}/reject");
    let rejected = post(&persons, &operator, &path, &json!({"reason": "\u{0}"})).await.ok();
    assert_eq!((&rejected["standing"], rejected["ignored"].is_array()), (&json!("REJECTED"), true), "{rejected}");
}

#[tokio::test]
async fn one_person_is_one_however_the_owner_is_written() {
    let persons = alone().await;
    switch(&persons.service, true).await;
    post(&persons, &persons.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
    let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await;
    for owner in ["ＡＮＮ", "a\u{200b}nn", "A\u{ad}nn", "Ann\u{fe0f}"] {
        let mut again = new("release");
        again.owner = Some(owner.parse().unwrap());
        let token = create(&persons.service, again).await;
        approve(&persons, &token, id).await.refused(403, "APPROVAL_REFUSED");
    }
    // Look-alikes are not made any more, and those that were are nobody else.
    let mut alike = new("release");
    alike.owner = Some("\u{410}nn".parse().unwrap());
    let refused =
        holdfast::access::create(&persons.service.db, &alike, None, None, &holdfast::audit::Origin::system(None)).await;
    assert!(refused.unwrap_err().to_string().contains("mixes Cyrillic and Latin letters"));
    alike.owner = Some("Other".parse().unwrap());
    let token = create(&persons.service, alike).await;
    sqlx::raw_sql("ALTER TABLE access_token DISABLE TRIGGER USER").execute(&persons.service.pool).await.unwrap();
    sqlx::query("UPDATE access_token SET owner = $1 WHERE owner = 'Other'")
        .bind("\u{410}nn")
        .execute(&persons.service.pool)
        .await
        .unwrap();
    // Tokens are read when the control stream has moved.
    create(&persons.service, new("read")).await;
    approve(&persons, &token, id).await.refused(403, "APPROVAL_REFUSED");
    approve(&persons, &persons.bob, id).await.ok();
}

/// Changes of the control plane that let nothing through that did not pass before.
const NEVER_LOOSENS: [&str; 15] = [
    "/go-live/packs",
    "/go-live/disable",
    "/go-live/kill-switch/engage",
    "/heimdall/demote",
    "/heimdall/recommendations/{id}/revoke",
    "/regression/evaluate",
    "/regression/acknowledge",
    // Of a series that has events, only while no wire that is on watches it.
    "/regression/kind",
    // Of what is off, and was never used.
    "/risk/policies/remove",
    "/heimdall/policies/remove",
    "/regression/policies/remove",
    "/access/tokens",
    "/access/tokens/{id}",
    "/approvals/{id}/approve",
    "/approvals/{id}/reject",
];

#[tokio::test]
async fn every_route_that_changes_the_control_plane_is_known_to_wait_or_never_to_loosen() {
    use holdfast::types::Scope;
    let service = Service::fresh().await;
    let document = service.get_root("/openapi.json").await.ok();
    let mut waiting = Vec::new();
    for row in ROUTES.iter().filter(|row| row.method.as_ref().is_some_and(|method| *method != Method::GET)) {
        let control = row
            .needs
            .scopes()
            .any(|scope| matches!(scope, Scope::Operate | Scope::Release | Scope::Admin | Scope::Kill));
        let closes_holds = row.needs == Needs::Either(Scope::Reserve, Scope::Operate);
        if !control || closes_holds {
            continue;
        }
        let method = row.method.as_ref().unwrap().as_str().to_lowercase();
        let documented = document["paths"][row.template][&method]["responses"]["202"].is_object();
        let path = row.template.strip_prefix(BASE).unwrap();
        assert_eq!(documented, !NEVER_LOOSENS.contains(&path), "{path}");
        if documented {
            waiting.push(path);
        }
    }
    assert_eq!(waiting.len(), 9, "{waiting:?}");
    assert!(waiting.contains(&ENABLE) && waiting.contains(&RELEASE));
}

#[tokio::test]
async fn a_token_of_one_engine_or_domain_rejects_no_request_of_another() {
    let persons = alone().await;
    switch(&persons.service, true).await;
    post(&persons, &persons.ann, "/go-live/kill-switch/engage", &json!({})).await.ok();
    let narrow = async |engine: Option<&str>, domain: Option<&str>| {
        let mut new = new("operate");
        new.engines = engine.map(|engine| vec![engine.parse().unwrap()]);
        new.domains = domain.map(|domain| vec![domain.parse().unwrap()]);
        create(&persons.service, new).await
    };
    let (of_a, of_b) = (narrow(Some("A"), None).await, narrow(Some("B"), None).await);
    let of_other_domain = narrow(None, Some("OTHER")).await;
    let caps = json!({"engine": "A", "max_open_risk": 999_999});
    let wire = json!({"domain": "D", "metric": "m", "max_drop_fraction": 0.9});
    let reset = json!({"domain": "D", "metric": "m", "source": "NEXT_N"});
    let charter = json!({"domain": "D", "engine": "A", "min_sandbox_trials": 1});
    for (path, body, by_domain) in [
        ("/risk/policies/upsert", caps, false),
        ("/regression/policies/upsert", wire, true),
        ("/regression/baseline/reset", reset, true),
        ("/heimdall/policies/upsert", charter, true),
    ] {
        let id = ask(&persons, &persons.ann, path, &body).await;
        let reject = format!("/approvals/{id}/reject");
        let before = persons.service.count("SELECT count(*) FROM approval WHERE rejected_at IS NOT NULL").await;
        post(&persons, &of_b, &reject, &json!({})).await.refused(403, "OUT_OF_REACH");
        if by_domain {
            post(&persons, &of_other_domain, &reject, &json!({})).await.refused(403, "OUT_OF_REACH");
        }
        let after = persons.service.count("SELECT count(*) FROM approval WHERE rejected_at IS NOT NULL").await;
        assert_eq!(before, after, "{path}");
        let rejected = post(&persons, &of_a, &reject, &json!({})).await.ok();
        assert_eq!(rejected["standing"], "REJECTED", "{path}");
        persons.service.clock.advance(1_000);
        refresh(&persons.service).await;
    }
    // A release is of no engine.
    let id = ask(&persons, &persons.ann, RELEASE, &json!({"actor": "ann"})).await;
    post(&persons, &of_b, &format!("/approvals/{id}/reject"), &json!({})).await.ok();
}

#[tokio::test]
async fn an_owner_of_letters_that_look_like_others_is_not_made() {
    let service = Service::live().await;
    for owner in ["ꓮꓠꓠ", "ᎪᏁᏁ", "ᴀɴɴ", "🅰nn"] {
        let body = json!({"name": "again", "scopes": "release", "owner": owner});
        let refused = service.post("/access/tokens", &body).await.invalid("owner");
        assert!(refused.starts_with("has U+"), "{refused}");
    }
}
