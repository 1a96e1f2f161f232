//! The answers that are kept under a key, and those that are not.

use super::{
    ENABLE, KPI, RESERVE, TRIAL, UPSERT, as_first, done, is_replay, kept_keys, keyed, own_headers, replayed,
    reserve_of, trial_of,
};
use crate::support::{Service, Setup};
use serde_json::{Value, json};

/// Raises the caps that stand in the way of a reserve on WHOLESALE.
async fn raise_caps(service: &Service) {
    for engine in ["GLOBAL", "WHOLESALE"] {
        let caps = json!({"engine": engine, "max_daily_exposure": 100_000, "max_open_risk": 100_000});
        service.post(UPSERT, &caps).await.ok();
    }
}

#[tokio::test]
async fn a_denied_reserve_stays_denied_under_its_key_after_the_cap_was_raised() {
    let service = Service::live().await;
    let large = reserve_of(1_001);
    let denied = done(keyed(&service, RESERVE, "k", &large).await);
    assert_eq!((&denied["ok"], &denied["reason"]), (&json!(false), &json!("daily_exposure_exceeded")));
    raise_caps(&service).await;
    let before = service.everything().await;
    let again = keyed(&service, RESERVE, "k", &large).await;
    assert_eq!(again.headers["holdfast-decision"], "deny");
    replayed(again, &denied);
    assert_eq!(service.everything().await, before);
    let allowed = done(keyed(&service, RESERVE, "another", &large).await);
    assert_eq!(allowed["ok"], true);
}

#[tokio::test]
async fn a_denial_as_a_409_stays_one_with_its_members() {
    let service = Service::live().await;
    let first = keyed(&service, "/risk/reservations", "k", &reserve_of(1_001)).await;
    raise_caps(&service).await;
    let again = keyed(&service, "/risk/reservations", "k", &reserve_of(1_001)).await;
    assert!(!is_replay(&first) && is_replay(&again));
    assert_eq!(own_headers(&again), own_headers(&first));
    let (mut first, mut again) = (first.refused(409, "RESERVATION_DENIED"), again.refused(409, "RESERVATION_DENIED"));
    for body in [&mut first, &mut again] {
        body["request_id"] = Value::Null;
    }
    assert_eq!(as_first(&again), as_first(&first));
    let made = keyed(&service, "/risk/reservations", "another", &reserve_of(1_001)).await;
    assert_eq!((made.status.as_u16(), is_replay(&made)), (201, false));
}

#[tokio::test]
async fn a_denied_extension_stays_denied() {
    let service = Service::live().await;
    let mut held = reserve_of(1);
    held["ttl_seconds"] = json!(600);
    let id = service.post(RESERVE, &held).await.ok()["reservation_id"].as_str().unwrap().to_owned();
    let path = format!("/risk/reservations/{id}/extend");
    service.post(UPSERT, &json!({"engine": "WHOLESALE", "enabled": false})).await.ok();
    keyed(&service, &path, "k", &json!({"ttl_seconds": 900})).await.refused(409, "EXTENSION_DENIED");
    service.post(UPSERT, &json!({"engine": "WHOLESALE", "enabled": true})).await.ok();
    let again = keyed(&service, &path, "k", &json!({"ttl_seconds": 900})).await;
    assert!(is_replay(&again));
    again.refused(409, "EXTENSION_DENIED");
    done(keyed(&service, &path, "another", &json!({"ttl_seconds": 900})).await);
}

#[tokio::test]
async fn an_answer_that_was_kept_is_given_whatever_became_of_the_thing() {
    let service = Service::live().await;
    let reserved = done(keyed(&service, RESERVE, "reserve", &reserve_of(5)).await);
    let settle = json!({"reservation_id": reserved["reservation_id"], "realized_loss": 1});
    let settled = done(keyed(&service, "/risk/settle", "settle", &settle).await);
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    // The decision of then, and that it may not be acted on any more.
    let again = keyed(&service, RESERVE, "reserve", &reserve_of(5)).await;
    assert!(is_replay(&again));
    let again = again.ok();
    for same in ["reservation_id", "ledger_snapshot", "policy_snapshot", "expires_at"] {
        assert_eq!(again[same], reserved[same], "{same}");
    }
    assert_eq!(json!([again["ok"], again["reason"]]), json!([false, "hold_ended"]));
    replayed(keyed(&service, "/risk/settle", "settle", &settle).await, &settled);
    // Without the key, or with another, it is what it is now.
    service.post("/risk/settle", &settle).await.refused(409, "ALREADY_SETTLED");
    keyed(&service, "/risk/settle", "another", &settle).await.refused(409, "ALREADY_SETTLED");
}

#[tokio::test]
async fn refused_input_is_not_kept() {
    let service = Service::live().await;
    let both = json!({"domain": "A", "metric": "m", "success": true, "value": 1});
    keyed(&service, KPI, "kpi", &both).await.invalid("success");
    keyed(&service, TRIAL, "trial", &json!({"domain": "A", "confidence": 2, "success": true}))
        .await
        .invalid("confidence");
    keyed(&service, RESERVE, "reserve", &json!({"engine": "GLOBAL", "amount": 1})).await.invalid("engine");
    let zero = json!({"engine": "WHOLESALE", "max_daily_loss": 0});
    keyed(&service, UPSERT, "upsert", &zero).await.refused(422, "ZERO_MEANS_UNLIMITED");
    assert_eq!(kept_keys(&service).await, 0);
    done(keyed(&service, KPI, "kpi", &json!({"domain": "A", "metric": "m", "value": 1})).await);
    done(keyed(&service, TRIAL, "trial", &trial_of("A")).await);
    done(keyed(&service, RESERVE, "reserve", &reserve_of(1)).await);
    done(keyed(&service, UPSERT, "upsert", &json!({"engine": "WHOLESALE", "max_daily_loss": 3})).await);
}

#[tokio::test]
async fn an_enable_that_was_refused_may_succeed_under_its_key() {
    let service = Service::with(Setup { required_packs: vec!["crm"], ..Setup::default() }).await;
    let who = json!({"actor": "bryan"});
    for _ in 0..2 {
        let refused = keyed(&service, ENABLE, "k", &who).await;
        assert!(!is_replay(&refused));
        refused.refused(412, "CHECKLIST_FAILED");
    }
    service.post("/go-live/packs", &json!({"id": "crm", "status": "installed"})).await.ok();
    let enabled = done(keyed(&service, ENABLE, "k", &who).await);
    assert_eq!(enabled["go_live_enabled"], true);
    replayed(keyed(&service, ENABLE, "k", &who).await, &enabled);
}

#[tokio::test]
async fn a_not_found_is_not_kept() {
    let service = Service::live().await;
    let settle = json!({"engine": "LATER", "reserved_amount": 1});
    keyed(&service, "/risk/settle", "k", &settle).await.refused(404, "NOT_FOUND");
    let caps = json!({"engine": "LATER", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
    service.post(UPSERT, &caps).await.ok();
    let settled = done(keyed(&service, "/risk/settle", "k", &settle).await);
    assert_eq!(settled["unmatched"], 1);
}

#[tokio::test]
async fn a_conflict_is_not_kept() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "10").await.ok();
    let correction = json!({"corrects_seq": 1, "exposure_delta": -15, "reason": "wrong deal"});
    keyed(&service, "/risk/adjustments", "k", &correction).await.refused(409, "ADJUSTMENT_OUT_OF_RANGE");
    let more = json!({"corrects_seq": 1, "exposure_delta": 5, "reason": "wrong deal"});
    service.post("/risk/adjustments", &more).await.ok();
    done(keyed(&service, "/risk/adjustments", "k", &correction).await);
}

#[tokio::test]
async fn a_use_that_was_refused_is_judged_anew_under_its_key() {
    let service = Service::live().await;
    let on = json!({"domain": "A", "min_sandbox_trials": 1, "prod_use_enabled": true});
    service.post("/heimdall/policies/upsert", &on).await.ok();
    service.post(TRIAL, &trial_of("A")).await.ok();
    let made = service.post("/heimdall/recommend", &json!({"domain": "A", "confidence": 0.95})).await.ok();
    let path = format!("/heimdall/recommendations/{}/require-prod-eligible", made["id"]);
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    keyed(&service, &path, "k", &json!({})).await.refused(403, "NOT_PROD_ELIGIBLE");
    service.post("/go-live/kill-switch/release", &json!({})).await.ok();
    let allowed = done(keyed(&service, &path, "k", &json!({})).await);
    replayed(keyed(&service, &path, "k", &json!({})).await, &allowed);
    // Each decision is an event, the replay is none.
    assert_eq!(service.count("SELECT count(*) FROM heimdall_event WHERE action = 'REQUIRE'").await, 2);
}

#[tokio::test]
async fn a_503_is_not_kept() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "1").await.ok();
    service.jump("3 hours").await;
    let halted = keyed(&service, RESERVE, "k", &reserve_of(2)).await.refused(503, "CLOCK_JUMPED");
    assert_eq!(halted["retry_same_key"], true);
    service.jump("0").await;
    let allowed = done(keyed(&service, RESERVE, "k", &reserve_of(2)).await);
    // Kept answers are returned even while no new reserve is possible.
    service.jump("3 hours").await;
    replayed(keyed(&service, RESERVE, "k", &reserve_of(2)).await, &allowed);
    service.jump("0").await;
}

#[tokio::test]
async fn a_dry_run_neither_keeps_nor_looks() {
    let service = Service::live().await;
    let before = service.everything().await;
    for path in [RESERVE, "/risk/reservations"] {
        let mut dry = reserve_of(3);
        dry["dry_run"] = json!(true);
        let asked = done(keyed(&service, path, path, &dry).await);
        assert_eq!((&asked["ok"], &asked["dry_run"]), (&json!(true), &json!(true)));
    }
    assert_eq!(service.everything().await, before);
    let real = done(keyed(&service, RESERVE, RESERVE, &reserve_of(4)).await);
    for amount in [4, 5] {
        let mut dry = reserve_of(amount);
        dry["dry_run"] = json!(true);
        assert_eq!(done(keyed(&service, RESERVE, RESERVE, &dry).await)["reservation_id"], Value::Null);
    }
    replayed(keyed(&service, RESERVE, RESERVE, &reserve_of(4)).await, &real);
}

#[tokio::test]
async fn an_upsert_that_changes_nothing_is_kept() {
    let service = Service::live().await;
    for (path, same, other) in [
        (UPSERT, json!({"engine": "CAPITAL"}), json!({"engine": "CAPITAL", "max_daily_loss": 1})),
        (
            "/heimdall/policies/upsert",
            json!({"domain": "BUYER_MATCH"}),
            json!({"domain": "BUYER_MATCH", "min_sandbox_trials": 1}),
        ),
        (
            "/regression/policies/upsert",
            json!({"domain": "CAPITAL", "metric": "roi_event"}),
            json!({"domain": "CAPITAL", "metric": "roi_event", "window_events": 60}),
        ),
    ] {
        let before = service.everything().await;
        let unchanged = done(keyed(&service, path, path, &same).await);
        assert_eq!(unchanged["changes"], json!([]), "{path}");
        let mut after = service.everything().await;
        for table in ["idempotency_key", "idempotency_key_other"] {
            assert_ne!(after[table], before[table], "{path}");
            after.insert(table.to_owned(), before[table].clone());
        }
        assert_eq!(after, before, "{path}");
        service.post(path, &other).await.ok();
        replayed(keyed(&service, path, path, &same).await, &unchanged);
    }
}

#[tokio::test]
async fn an_evaluation_that_writes_nothing_is_kept() {
    let service = Service::live().await;
    let wire = json!({"domain": "NOBODY", "metric": "looks"});
    let unwatched = done(keyed(&service, "/regression/evaluate", "k", &wire).await);
    assert_eq!(unwatched["state"]["status"], "DISABLED");
    assert_eq!(service.count("SELECT count(*) FROM regression_state WHERE domain = 'NOBODY'").await, 0);
    service.post("/regression/policies/upsert", &wire).await.ok();
    replayed(keyed(&service, "/regression/evaluate", "k", &wire).await, &unwatched);
    let watched = done(keyed(&service, "/regression/evaluate", "another", &wire).await);
    assert_eq!(watched["state"]["status"], "WARMUP");
}

#[tokio::test]
async fn a_key_comes_before_an_event_id() {
    let service = Service::live().await;
    let kpi = json!({"domain": "A", "metric": "m", "success": true, "event_id": "e"});
    let first = done(keyed(&service, KPI, "one", &kpi).await);
    assert_eq!(first["duplicate"], false);
    let known = done(keyed(&service, KPI, "two", &kpi).await);
    assert_eq!((&known["duplicate"], &known["id"]), (&json!(true), &first["id"]));
    replayed(keyed(&service, KPI, "one", &kpi).await, &first);
    replayed(keyed(&service, KPI, "two", &kpi).await, &known);
    let other = json!({"domain": "A", "metric": "m", "success": false, "event_id": "e"});
    keyed(&service, KPI, "one", &other).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
    keyed(&service, KPI, "three", &other).await.refused(409, "EVENT_ID_REUSED");
    assert_eq!(service.count("SELECT count(*) FROM kpi_event").await, 1);
}

#[tokio::test]
async fn a_key_comes_before_a_chosen_reservation_id() {
    let service = Service::live().await;
    let mut chosen = reserve_of(1);
    chosen["reservation_id"] = json!("0190163d-8694-739b-aea5-966c26f8ad91");
    let first = done(keyed(&service, RESERVE, "k", &chosen).await);
    replayed(keyed(&service, RESERVE, "k", &chosen).await, &first);
    replayed(service.post(RESERVE, &chosen).await, &first);
    chosen["amount"] = json!(2);
    keyed(&service, RESERVE, "k", &chosen).await.refused(422, "IDEMPOTENCY_KEY_REUSED");
    service.post(RESERVE, &chosen).await.refused(409, "RESERVATION_EXISTS");
}
