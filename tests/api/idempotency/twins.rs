//! Two of one intent in flight at once: one effect, and both learn the same.

use super::{ENABLE, KPI, RESERVE, TRIAL, UPSERT, as_first, is_replay, kept_keys, keyed, named, reserve_of, trial_of};
use crate::support::{Answer, Service, Setup};
use serde_json::{Value, json};

/// Twins of one intent, and what they may leave behind: a count that must be 1 more than before.
fn intents() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        (ENABLE, json!({"actor": "twin"}), "SELECT count(*) FROM control_event WHERE action = 'GO_LIVE_ENABLE'"),
        (
            "/go-live/packs",
            json!({"id": "crm", "status": "installed"}),
            "SELECT count(*) FROM control_event WHERE action = 'PACK_REPORT'",
        ),
        (
            UPSERT,
            json!({"engine": "CAPITAL", "max_daily_loss": 1}),
            "SELECT count(*) FROM control_event WHERE action = 'RISK_POLICY_UPSERT'",
        ),
        (RESERVE, reserve_of(1), "SELECT count(*) FROM risk_reservation"),
        ("/risk/reservations", reserve_of(2), "SELECT count(*) FROM risk_event"),
        (TRIAL, trial_of("A"), "SELECT trials FROM heimdall_scorecard_day UNION ALL SELECT 0 LIMIT 1"),
        (
            "/heimdall/recommend",
            json!({"domain": "A", "confidence": 1}),
            "SELECT count(*) FROM heimdall_recommendation",
        ),
        (KPI, json!({"domain": "A", "metric": "m", "success": true}), "SELECT count(*) FROM kpi_event"),
    ]
}

/// Expects one answer of two, given once and repeated once.
#[track_caller]
fn one_of_two(first: &Answer, second: &Answer) {
    assert!(first.status.is_success(), "{}", first.text);
    assert_eq!((first.status, as_first(&first.json)), (second.status, as_first(&second.json)));
    assert_ne!(is_replay(first), is_replay(second), "one of them is the replay of the other");
}

async fn race(left: &Service, right: &Service) {
    for round in 0..5 {
        for (path, body, effect) in intents() {
            let key = format!("{path} {round}");
            let before = left.count(effect).await;
            let (first, second) = tokio::join!(keyed(left, path, &key, &body), keyed(right, path, &key, &body));
            one_of_two(&first, &second);
            let expected = if path == UPSERT && round > 0 { before } else { before + 1 };
            assert_eq!(left.count(effect).await, expected, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twins_through_one_service_have_one_effect_and_one_answer() {
    let service = Service::live().await;
    race(&service, &service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twins_through_two_services_have_one_effect_and_one_answer() {
    let left = Service::live().await;
    let right = Service::on(left.options.clone(), Setup::default()).await;
    race(&left, &right).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_twins_one_is_done_and_the_others_are_told() {
    let left = Service::live().await;
    let right = Service::on(left.options.clone(), Setup::default()).await;
    let mut requests = tokio::task::JoinSet::new();
    for number in 0..40 {
        let service = if number % 2 == 0 { &left } else { &right };
        requests.spawn(keyed(service, RESERVE, "k", &reserve_of(10)));
    }
    let answers = requests.join_all().await;
    assert_eq!(answers.iter().filter(|answer| !is_replay(answer)).count(), 1);
    let first = as_first(&answers[0].json);
    assert!(answers.iter().all(|answer| as_first(&answer.json) == first && answer.json["ok"] == true));
    assert_eq!(left.count("SELECT count(*) FROM risk_event").await, 1);
    assert_eq!(kept_keys(&left).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_different_inputs_at_once_one_is_done_and_the_other_refused() {
    let service = Service::live().await;
    for round in 0..5 {
        let key = format!("k{round}");
        let (one, two) = (reserve_of(1), reserve_of(2));
        let (first, second) = tokio::join!(keyed(&service, RESERVE, &key, &one), keyed(&service, RESERVE, &key, &two));
        let (done, refused) = if first.status == 200 { (first, second) } else { (second, first) };
        assert_eq!(done.ok()["ok"], true);
        let body = refused.refused(422, "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(named(&body["errors"]), ["amount"]);
    }
    assert_eq!(service.count("SELECT count(*) FROM risk_event").await, 5);
}

/// Their heads differ, so neither waits for the other: the key itself decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_routes_at_once_one_is_done_and_the_other_refused() {
    let service = Service::live().await;
    let (trial, kpi) = (trial_of("A"), json!({"domain": "A", "metric": "m", "success": true}));
    for round in 0..10 {
        let key = format!("k{round}");
        let reserve = reserve_of(1);
        let answers = tokio::join!(
            keyed(&service, TRIAL, &key, &trial),
            keyed(&service, KPI, &key, &kpi),
            keyed(&service, RESERVE, &key, &reserve)
        );
        let (done, refused): (Vec<Answer>, Vec<Answer>) =
            [answers.0, answers.1, answers.2].into_iter().partition(|answer| answer.status == 200);
        assert_eq!((done.len(), refused.len()), (1, 2));
        for answer in refused {
            assert_eq!(named(&answer.refused(422, "IDEMPOTENCY_KEY_REUSED")["errors"]), ["route"]);
        }
    }
    assert_eq!(
        service.count("SELECT count(*) FROM heimdall_event").await
            + service.count("SELECT count(*) FROM kpi_event").await
            + service.count("SELECT count(*) FROM risk_event").await,
        10
    );
    assert_eq!(kept_keys(&service).await, 10);
}
