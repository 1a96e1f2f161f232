//! The order in which a transaction takes what it needs: the heads of kpi, heimdall, risk and control, and only then rows. So
//! there is no deadlock, and nobody holds a row while it waits for a head.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use crate::support::{Service, Setup};
use holdfast::audit::Origin;
use holdfast::risk::reconcile;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use std::collections::{BTreeMap, BTreeSet};

/// The streams, in the order of their locks.
const STREAMS: [&str; 4] = ["kpi", "heimdall", "risk", "control"];

/// The steps of a transaction so far.
#[derive(Default)]
struct Transaction {
    locked: Vec<usize>,
    wrote: Option<String>,
}

/// The log of the cluster, where the harness makes it.
fn log() -> String {
    let path = std::env::temp_dir().join(format!("holdfast-test-{}", std::process::id())).join("postgres.log");
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// The entries of the log by session, each with its continuation lines.
fn entries(log: &str) -> Vec<(String, String)> {
    let mut entries: Vec<(String, String)> = Vec::new();
    for line in log.lines() {
        match (line.strip_prefix('\t'), entries.last_mut()) {
            (Some(more), Some((_, text))) => {
                text.push(' ');
                text.push_str(more);
            }
            // "2026-01-13 00:00:00.000 UTC [123] LOG:  statement: …"
            _ => {
                if let Some((pid, text)) = line.split_once(" [").and_then(|(_, rest)| rest.split_once("] ")) {
                    entries.push((pid.to_owned(), text.to_owned()));
                }
            }
        }
    }
    entries
}

/// The statement of an entry.
fn statement(text: &str) -> Option<&str> {
    let said = text.strip_prefix("LOG:  ")?;
    said.strip_prefix("statement: ").or_else(|| said.strip_prefix("execute ")?.split_once(": ").map(|(_, sql)| sql))
}

/// The heads that a statement locks alone; that of a parameter is in the entry after it.
fn locks(sql: &str, parameters: Option<&str>) -> Vec<usize> {
    let by_name = |stream: &str| sql.contains(&format!("EXECUTE lock_{stream}_head"));
    let by_parameter = |stream: &str| {
        sql.starts_with("SELECT")
            && sql.contains("FROM audit_head")
            && sql.contains("FOR UPDATE")
            && parameters.is_some_and(|given| given.contains(&format!("'{stream}'")))
    };
    (0..STREAMS.len()).filter(|place| by_name(STREAMS[*place]) || by_parameter(STREAMS[*place])).collect()
}

fn writes(sql: &str) -> bool {
    let first = sql.split_whitespace().next().unwrap_or_default();
    ["INSERT", "UPDATE", "DELETE"].contains(&first)
        || first == "WITH" && ["INSERT INTO", "UPDATE ", "DELETE FROM"].iter().any(|verb| sql.contains(verb))
}

/// The violations of the order, and the number of transactions that locked more than one head.
fn judge(log: &str) -> (Vec<String>, usize) {
    let (mut broken, mut several) = (Vec::new(), 0);
    let mut sessions: BTreeMap<String, Transaction> = BTreeMap::new();
    let entries = entries(log);
    for (place, (pid, text)) in entries.iter().enumerate() {
        let Some(sql) = statement(text) else { continue };
        if sql.starts_with("BEGIN") {
            sessions.insert(pid.clone(), Transaction::default());
        }
        let parameters = entries[place + 1..].iter().find(|(other, _)| other == pid);
        let parameters = parameters.and_then(|(_, text)| text.strip_prefix("DETAIL:  "));
        if let Some(tx) = sessions.get_mut(pid) {
            for head in locks(sql, parameters) {
                if let Some(wrote) = &tx.wrote {
                    broken.push(format!("the head of {} was locked after: {wrote}", STREAMS[head]));
                }
                if let Some(last) = tx.locked.last().filter(|last| **last >= head) {
                    broken.push(format!("the head of {} was locked after that of {}", STREAMS[head], STREAMS[*last]));
                }
                tx.locked.push(head);
                several += usize::from(tx.locked.len() == 2);
            }
            if tx.wrote.is_none() && writes(sql) {
                tx.wrote = Some(sql.chars().take(120).collect());
            }
        }
        if sql.starts_with("COMMIT") || sql.starts_with("ROLLBACK") {
            sessions.remove(pid);
        }
    }
    (broken, several)
}

async fn post(service: &Service, path: &str, body: Value) -> Value {
    service.post(path, &body).await.ok()
}

async fn measure(service: &Service, successes: usize, failures: usize) {
    for number in 0..successes + failures {
        let body = json!({"domain": "D", "metric": "m", "success": number < successes, "actor": "shop"});
        post(service, "/regression/kpi", body).await;
    }
}

/// Moves everything that can be moved, each lever in its ways.
async fn move_everything(service: &Service) {
    post(service, "/go-live/packs", json!({"id": "tests", "status": "installed", "actor": "ci"})).await;
    post(service, "/go-live/kill-switch/engage", json!({"actor": "a", "reason": "drill"})).await;
    post(service, "/go-live/kill-switch/release", json!({"actor": "a", "reason": "drill"})).await;
    post(service, "/go-live/disable", json!({"actor": "a"})).await;
    post(service, "/go-live/enable", json!({"actor": "a"})).await;

    // The ledger, with keys and without.
    for key in ["k1", "k2"] {
        let asked = json!({"engine": "WHOLESALE", "amount": 10, "ttl_seconds": 600, "idempotency_key": key});
        let held = post(service, "/risk/check-and-reserve", asked).await;
        let held = format!("/risk/reservations/{}", held["reservation_id"].as_str().unwrap());
        post(service, &format!("{held}/extend"), json!({"ttl_seconds": 900})).await;
        post(service, &format!("{held}/release"), json!({"reason": "not done"})).await;
    }
    let held = post(service, "/risk/check-and-reserve", json!({"engine": "WHOLESALE", "amount": 10})).await;
    post(service, "/risk/settle", json!({"reservation_id": held["reservation_id"], "realized_loss": 1})).await;
    post(service, "/risk/check-and-reserve", json!({"engine": "WHOLESALE", "amount": 1})).await;
    post(service, "/risk/adjustments", json!({"corrects_seq": 1, "exposure_delta": "1", "reason": "told wrong"})).await;
    post(service, "/risk/policies/upsert", json!({"engine": "CAPITAL", "max_open_risk": 5, "actor": "a"})).await;

    // Policies that were never used, taken away again.
    for (lever, unused) in [
        (
            "risk",
            json!({"engine": "UNUSED", "enabled": false, "max_daily_loss": 1, "max_daily_exposure": 1,
                      "max_open_risk": 1}),
        ),
        ("heimdall", json!({"domain": "UNUSED"})),
        ("regression", json!({"domain": "UNUSED", "metric": "m", "enabled": false})),
    ] {
        post(service, &format!("/{lever}/policies/upsert"), unused.clone()).await;
        let mut name = unused;
        name.as_object_mut().unwrap().retain(|field, _| ["engine", "domain", "metric"].contains(&field.as_str()));
        post(service, &format!("/{lever}/policies/remove"), name).await;
    }

    // The charter.
    for prod_use_enabled in [true, false] {
        let policy = json!({"domain": "D", "min_sandbox_trials": 2, "prod_use_enabled": prod_use_enabled});
        post(service, "/heimdall/policies/upsert", policy).await;
    }
    for _ in 0..2 {
        post(service, "/heimdall/sandbox/trial", json!({"domain": "D", "confidence": 0.9, "success": true})).await;
    }
    let promotion = json!({"domain": "D", "actor": "a", "reason": "Friday"});
    service.post("/heimdall/promote", &promotion).await.ok();
    let made = post(service, "/heimdall/recommend", json!({"domain": "D", "confidence": 0.95})).await["id"].clone();
    post(service, &format!("/heimdall/recommendations/{made}/require-prod-eligible"), json!({"actor": "a"})).await;
    post(service, &format!("/heimdall/recommendations/{made}/revoke"), json!({"reason": "stale"})).await;
    service.post("/heimdall/demote", &promotion).await.ok();

    // The tripwire: a trip that throttles, its end, and another baseline.
    let wire = json!({"domain": "D", "metric": "m", "window_events": 5, "baseline_events": 10, "min_events_to_enforce": 5,
                      "action": "THROTTLE", "engine": "WHOLESALE", "enabled": true, "actor": "a", "reason": "set up"});
    post(service, "/regression/policies/upsert", wire.clone()).await;
    let of = |more: Value| {
        let mut body = json!({"domain": "D", "metric": "m", "actor": "a", "reason": "looked at"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    measure(service, 15, 1).await;
    post(service, "/regression/acknowledge", of(json!({"verdict": "FALSE_ALARM"}))).await;
    post(service, "/regression/evaluate", json!({"domain": "D", "metric": "m", "actor": "a"})).await;
    post(service, "/regression/rearm", of(json!({}))).await;
    measure(service, 15, 1).await;
    // The other way to end one.
    post(service, "/regression/policies/upsert", wire).await;
    measure(service, 10, 0).await;
    post(service, "/regression/baseline/reset", of(json!({"source": "LAST_N", "force": true}))).await;
}

#[tokio::test]
async fn every_change_locks_its_heads_in_order_and_before_it_writes_a_row() {
    let first = Service::fresh().await;
    let name = first.options.get_database().unwrap().to_owned();
    // Of this database alone: whatever the log has as a statement is of this test.
    first.pool.execute(AssertSqlSafe(format!("ALTER DATABASE {name} SET log_statement = 'all'"))).await.unwrap();
    let service = Service::on(first.options.clone(), Setup::default()).await;
    move_everything(&service).await;

    let origin = Origin::system(None);
    let reason = "a drill".parse().unwrap();
    first.pool.execute("UPDATE risk_open SET open_amount = 777 WHERE engine = 'WHOLESALE'").await.unwrap();
    assert!(!reconcile::reconcile(&service.db).await.unwrap().differences.is_empty());
    reconcile::repair(&service.db, &reason, &origin).await.unwrap();

    let (broken, several) = judge(&log());
    assert_eq!(broken, [""; 0]);
    assert!(several > 10, "{several} transactions were seen that lock more than one head");
    let done: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT action FROM control_event").fetch_all(&first.pool).await.unwrap();
    let done: BTreeSet<_> = done.iter().map(String::as_str).collect();
    let wanted = [
        "HEIMDALL_DEMOTE",
        "HEIMDALL_POLICY_REMOVE",
        "HEIMDALL_POLICY_UPSERT",
        "HEIMDALL_PROMOTE",
        "REGRESSION_BASELINE_RESET",
        "REGRESSION_POLICY_UPSERT",
        "REGRESSION_REARM",
        "REGRESSION_TRIP",
        "RISK_HALT",
        "RISK_POLICY_UPSERT",
        "RISK_REPAIR",
    ];
    assert!(done.is_superset(&BTreeSet::from(wanted)), "{done:?}");
}
