//! The first sentences of a review, which every form of it repeats.

use super::{at, kpi, look_first, markdown, review, wire};
use crate::access::{call, create, new, token};
use crate::support::{BASE, Service, Setup};
use axum::http::Method;
use holdfast::audit::Origin;
use holdfast::review::{Answering, Medium, collect};
use serde_json::{Value, json};
use std::path::PathBuf;

/// A kill file that is gone with the test.
struct KillFile(PathBuf);

impl Drop for KillFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// As `holdfast review` prints it.
async fn terminal(service: &Service) -> String {
    collect(&service.db, Answering::default(), None).await.expect("it can be made").document(Medium::Terminal)
}

#[tokio::test]
async fn a_kill_file_on_the_answering_instance_is_said_before_the_switches() {
    let file = KillFile(std::env::temp_dir().join(format!("holdfast-review-{}", std::process::id())));
    let service = Service::with(Setup { kill_file: Some(file.0.clone()), ..Setup::default() }).await;
    service.post("/go-live/enable", &json!({"actor": "test"})).await.ok();
    assert_eq!(look_first(&service).await, Vec::<String>::new());
    std::fs::write(&file.0, "by hand").expect("it can be written");
    service.app.feed.refresh(&service.db).await.expect("it can be read");
    let document = review(&service).await;
    let said = document["look_first"][0].as_str().expect("a sentence").to_owned();
    assert!(said.starts_with("This instance is STOPPED by its kill file, whatever the switches say: /"), "{said}");
    assert_eq!(document["answering"]["kill_file"], true);
    let (_, text) = markdown(&service, "/review?format=markdown", None).await;
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
    assert!(place("- STOPPED, this instance: by its kill file") < place("- Go-live: on"));
    // Another instance says it of this one, and the shell of its machine.
    let other = Service::on(service.options.clone(), Setup { name: "other", ..Setup::default() }).await;
    assert_eq!(look_first(&other).await, ["The instance test is STOPPED by its kill file"]);
    let machine = Answering::machine(Some(holdfast::enforcement::kill_file::KillFile::new(file.0.clone()))).await;
    let shown = collect(&service.db, machine, None).await.expect("it can be made");
    assert!(
        shown.look_first[0].starts_with("This machine's instance is STOPPED by its kill file"),
        "{:?}",
        shown.look_first
    );
}

#[tokio::test]
async fn a_state_that_went_backwards_is_said_first() {
    let service = Service::live().await;
    service.post("/go-live/kill-switch/engage", &json!({"actor": "ops"})).await.ok();
    service.clock.advance(1);
    service.app.feed.refresh(&service.db).await.expect("it can be read");
    sqlx::query("UPDATE go_live_state SET version = 2, kill_switch_engaged = false")
        .execute(&service.pool)
        .await
        .expect("it can be done");
    service.clock.advance(1);
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    let first = look_first(&service).await;
    assert!(first[0].starts_with("This instance is STOPPED: the database went back"), "{first:?}");
}

#[tokio::test]
async fn a_book_that_does_not_balance_says_what_differs() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "50").await.ok();
    let damage = "UPDATE risk_open SET open_amount = 51 WHERE engine = 'WHOLESALE'";
    sqlx::query(damage).execute(&service.pool).await.expect("it can be done");
    assert_eq!(service.get("/risk/reconciliation").await.ok()["balanced"], false);
    let first = look_first(&service).await;
    assert!(first[0].starts_with("The book does not balance, new reserves are halted since"), "{first:?}");
    assert_eq!(first[1], "WHOLESALE open_risk_reserved is 51 in the ledger, and its rows say 50");
    let reason = "counted".parse().expect("a reason");
    holdfast::risk::reconcile::repair(&service.db, &reason, &Origin::system(None)).await.expect("it can be done");
    assert_eq!(look_first(&service).await, Vec::<String>::new());
}

#[tokio::test]
async fn holds_that_are_old_and_never_expire_are_said_and_no_others() {
    let service = Service::live().await;
    at(&service, "2040-01-03T12:00:00Z").await;
    service.reserve("WHOLESALE", "20").await.ok();
    service.reserve("WHOLESALE", "30.5").await.ok();
    let dated = json!({"engine": "WHOLESALE", "amount": 7, "ttl_seconds": 2_592_000});
    service.post("/risk/check-and-reserve", &dated).await.ok();
    at(&service, "2040-01-10T11:59:00Z").await;
    assert_eq!(look_first(&service).await, Vec::<String>::new());
    at(&service, "2040-01-10T12:01:00Z").await;
    let first = look_first(&service).await;
    let old = "WHOLESALE has 2 holds of 50.5 together that never expire and have been open for more than 7 days, the oldest since \
               2040-01-03T12:00:0";
    assert!(first.len() == 1 && first[0].starts_with(old), "{first:?}");
}

#[tokio::test]
async fn what_waits_for_a_second_person_is_said_until_it_does_not() {
    let service = Service::live().await;
    let on = holdfast::approval::require_second_person(&service.db, true, None, &Origin::system(None)).await;
    assert!(on.expect("it can be done"));
    let ann = create(&service, {
        let mut token = new("read,operate,release");
        token.owner = Some("Ann".parse().expect("a name"));
        token
    })
    .await;
    let look = async || {
        let got = call(&service, Method::GET, &format!("{BASE}/review"), Some(&ann), &Value::Null).await.ok();
        got["look_first"].as_array().expect("a list").clone()
    };
    let path = format!("{BASE}/risk/policies/upsert");
    let raise = json!({"engine": "CAPITAL", "max_open_risk": 999_999, "actor": "ann", "reason": "more | room"});
    assert_eq!(call(&service, Method::POST, &path, Some(&ann), &raise).await.status, 202);
    let first = look().await;
    let said = first[0].as_str().expect("a sentence");
    assert!(said.starts_with("RISK_POLICY_UPSERT waits for a second person until "), "{said}");
    assert!(said.contains("asked for by test-token:") && said.contains(" (says ann): more | room (id "), "{said}");
    at(&service, "2040-01-10T12:00:00Z").await;
    assert_eq!(look().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_clock_behind_the_ledger_is_said() {
    let service = Service::live().await;
    service.set_skew("3 hours").await;
    service.reserve("WHOLESALE", "1").await.ok();
    service.jump("1 hour").await;
    let first = look_first(&service).await;
    assert!(first[0].starts_with("The database's clock went back: it is 7"), "{first:?}");
    service.reserve("WHOLESALE", "1").await.refused(503, "CLOCK_WENT_BACK");
}

#[tokio::test]
async fn who_is_the_principal_and_whom_it_names_stands_beside_it() {
    let service = Service::live().await;
    let ann = token(&service, "read,kill,operate").await;
    let post = async |path: &str, body: Value| {
        call(&service, Method::POST, &format!("{BASE}{path}"), Some(&ann), &body).await.ok();
    };
    post("/go-live/kill-switch/engage", json!({"actor": "bob", "reason": "drill"})).await;
    post("/risk/policies/upsert", json!({"engine": "GLOBAL", "enabled": false, "actor": "test-token"})).await;
    let shown = collect(&service.db, Answering::default(), None).await.expect("it can be made");
    let first = &shown.look_first;
    assert!(first[0].starts_with("The kill switch is engaged, by test-token:"), "{first:?}");
    assert!(first[0].ends_with(" (says bob): drill"), "{first:?}");
    let global = first.iter().find(|said| said.starts_with("GLOBAL is off")).expect("it is said");
    assert!(global.starts_with("GLOBAL is off, by test-token:") && !global.contains("says"), "{global}");
    let text = shown.document(Medium::Terminal);
    let row = text.lines().find(|line| line.contains("KILL_SWITCH_ENGAGE")).expect("a row");
    assert!(row.contains("| test-token:") && row.contains("(says bob) |"), "{row}");
}

#[tokio::test]
async fn a_change_of_a_policy_shows_from_what_to_what() {
    let service = Service::live().await;
    let caps = json!({"engine": "CAPITAL", "max_daily_loss": 77, "max_open_risk": 88, "actor": "ops"});
    service.post("/risk/policies/upsert", &caps).await.ok();
    wire(&service, "LAB", json!({})).await;
    wire(&service, "LAB", json!({"max_drop_fraction": 0.3, "on_stale": "TRIP", "stale_after_seconds": 60})).await;
    let old: Vec<Value> = review(&service).await["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|change| change["subject"] == "CAPITAL")
        .expect("it is there")["detail"]["changes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|change| change["from"].clone())
        .collect();
    for text in
        [markdown(&service, "/review?format=markdown", None).await.1.replace('\\', ""), terminal(&service).await]
    {
        let capital = format!("| max_daily_loss {} → 77, max_open_risk {} → 88 |", old[0], old[1]);
        let lab = "| max_drop_fraction 0.2 → 0.3, on_stale WARN → TRIP, stale_after_seconds none → 60 |";
        assert!(text.contains(&capital) && text.contains(lab), "{text}");
    }
}

#[tokio::test]
async fn denials_of_the_period_are_listed_by_engine_and_reason() {
    let service = Service::fresh().await;
    at(&service, "2040-01-01T12:00:00Z").await;
    service.reserve("CAPITAL", "1").await.ok();
    at(&service, "2040-01-02T12:00:00Z").await;
    service.reserve("WHOLESALE", "1").await.ok();
    service.post("/go-live/enable", &json!({"actor": "ops"})).await.ok();
    service.reserve("NOTIFY", "1").await.ok();
    at(&service, "2040-01-04T12:00:00Z").await;
    service.reserve("NOTIFY", "1").await.ok();
    let denied = |engine: &str, reason: &str, denied| json!({"engine": engine, "reason": reason, "denied": denied, "denied_week_before": 0});
    assert_eq!(
        review(&service).await["denials"],
        json!([denied("NOTIFY", "policy_disabled", 2), denied("WHOLESALE", "go_live_disabled", 1)])
    );
    let text = terminal(&service).await;
    assert!(
        text.contains("## Denied since 2040-01-02")
            && text.contains("| NOTIFY | policy_disabled | 2 (week before: 0) |"),
        "{text}"
    );
}

#[tokio::test]
async fn an_objective_of_three_events_is_too_few_to_say() {
    let service = Service::live().await;
    for _ in 0..3 {
        assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
        let trial = json!({"domain": "BUYER_MATCH", "confidence": 0.9, "success": false});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
    }
    let slo = review(&service).await["slo"].take();
    for name in ["denial_rate", "sandbox_success_rate"] {
        let one = &slo[name];
        assert_eq!(json!([one["met"], one["sample"], one["sample_min"]]), json!([null, 3, 20]), "{name}");
        assert!(one["value"].is_number(), "{name}");
    }
    assert_eq!(look_first(&service).await, Vec::<String>::new());
    let text = terminal(&service).await;
    assert!(text.contains("| Denial rate | < 5 % | 100.000 % | 3 of at least 20 | too few to say |"), "{text}");
}

#[tokio::test]
async fn words_of_callers_are_escaped_for_what_shows_them() {
    let service = Service::live().await;
    let reason = "<b>a & b</b> [x](http://y) *z*";
    service.post("/go-live/kill-switch/engage", &json!({"actor": "o'ps", "reason": reason})).await.ok();
    let said = look_first(&service).await[0].clone();
    assert!(said.ends_with(reason), "{said}");
    let (_, rendered) = markdown(&service, "/review?format=markdown", None).await;
    assert!(rendered.contains(r"\<b\>a \& b\</b\> \[x\](http://y) \*z\*"), "{rendered}");
    let shown = terminal(&service).await;
    assert!(shown.contains(&format!("- {said}\n")), "{shown}");
    for text in [rendered, shown] {
        assert!(!text.contains("&lt;") && !text.contains("&amp;"), "{text}");
    }
}

#[tokio::test]
async fn every_form_of_the_review_says_the_same_first() {
    let service = Service::live().await;
    kpi(&service, "LONELY", true).await;
    wire(&service, "WAITING", json!({})).await;
    service.post("/go-live/disable", &json!({"actor": "ops"})).await.ok();
    let first = look_first(&service).await;
    assert_eq!(first.len(), 3, "{first:?}");
    let rendered = markdown(&service, "/review?format=markdown", None).await.1.replace('\\', "");
    for text in [rendered, terminal(&service).await] {
        let section = text.split("## ").nth(1).expect("a section");
        let said: Vec<_> = section.lines().filter_map(|line| line.strip_prefix("- ")).collect();
        assert_eq!(said, first);
    }
}

#[tokio::test]
async fn a_required_component_that_reports_missing_is_said_and_its_row_shows_the_report() {
    let service = Service::with(Setup { required_packs: vec!["crm", "mail"], ..Setup::default() }).await;
    let report = async |id: &str, status: &str| {
        let body = json!({"id": id, "status": status, "version": "7", "actor": "ci"});
        service.post("/go-live/packs", &body).await.ok();
    };
    report("crm", "installed").await;
    let first = look_first(&service).await;
    let never = "The required component mail has never reported itself: the checklist fails, and production cannot be switched on";
    assert!(first.contains(&never.to_owned()), "{first:?}");
    report("mail", "installed").await;
    service.post("/go-live/enable", &json!({"actor": "test"})).await.ok();
    assert_eq!(look_first(&service).await, Vec::<String>::new());
    report("crm", "missing").await;
    report("other", "missing").await;
    let first = look_first(&service).await;
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].starts_with("The required component crm reports missing since 20"), "{first:?}");
    assert!(
        first[0].ends_with("by UNAUTHENTICATED (says ci): the checklist fails, while production is on"),
        "{first:?}"
    );
    let (_, text) = markdown(&service, "/review?format=markdown", None).await;
    assert!(text.contains(&first[0]), "{text}");
    let row = text.lines().find(|line| line.contains("PACK_REPORT | crm")).expect("a row");
    assert!(row.contains("| status missing, version 7 |"), "{row}");
}

#[tokio::test]
async fn a_cap_of_global_that_is_used_up_is_said_with_the_engine_that_used_most_of_it() {
    let service = Service::live().await;
    let cap = json!({"engine": "GLOBAL", "max_daily_exposure": 100, "max_open_risk": 90, "max_actions_per_day": 3});
    service.post("/risk/policies/upsert", &cap).await.ok();
    service.reserve("WHOLESALE", "30").await.ok();
    service.reserve("CAPITAL", "50").await.ok();
    assert_eq!(look_first(&service).await, Vec::<String>::new());
    service.reserve("WHOLESALE", "10").await.ok();
    let denied = service.reserve("CAPITAL", "1").await.ok();
    assert_eq!(denied["scope"], "GLOBAL", "{denied}");
    assert_eq!(
        look_first(&service).await,
        [
            "Every engine is stopped by GLOBAL until something is settled or released: its open risk is used up (90); CAPITAL holds the \
             most (50)",
            "Every engine is stopped by GLOBAL until midnight UTC: its count of reserves of the day is used up (3); WHOLESALE made the \
             most today (2)",
        ]
    );
}

#[tokio::test]
async fn a_policy_that_was_removed_shows_what_it_was() {
    let service = Service::live().await;
    let caps = json!({"engine": "SPARE", "max_daily_loss": 77, "max_daily_exposure": 99, "max_open_risk": 88, "enabled": false});
    service.post("/risk/policies/upsert", &caps).await.ok();
    let charter = json!({"domain": "SPARE", "min_confidence_prod": 0.7, "actor": "ops"});
    service.post("/heimdall/policies/upsert", &charter).await.ok();
    wire(&service, "SPARE", json!({"enabled": false, "max_drop_fraction": 0.3})).await;
    for (lever, name) in [
        ("risk", json!({"engine": "SPARE"})),
        ("heimdall", json!({"domain": "SPARE"})),
        ("regression", json!({"domain": "SPARE", "metric": "m"})),
    ] {
        service.post(&format!("/{lever}/policies/remove"), &name).await.ok();
    }
    let text = terminal(&service).await;
    for (action, value) in [
        ("RISK", "max_daily_loss 77 → none"),
        ("RISK", "max_open_risk 88 → none"),
        ("HEIMDALL", "min_confidence_prod 0.7 → none"),
        ("REGRESSION", "enabled false → none"),
    ] {
        let removed = format!("| {action}_POLICY_REMOVE |");
        let row = text.lines().find(|line| line.contains(&removed)).expect("a row");
        assert!(row.contains(value), "{value}: {row}");
    }
    let document = service.get("/audit/as-of").await.ok();
    for list in ["risk_policies", "heimdall_policies", "regression_policies"] {
        let names: Vec<_> = document[list].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
        assert!(!names.is_empty() && !names.iter().any(|name| name.to_string().contains("SPARE")), "{list}: {names:?}");
    }
}
