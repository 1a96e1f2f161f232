//! A text goes for good, and the trail stays what it was.

use super::{after, findings};
use crate::support::{Service, broken_links};
use holdfast::audit::erase::{Erased, Remains, Target, erase};
use holdfast::audit::{Origin, Stream};
use holdfast::types::Reason;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

async fn erased(service: &Service, stream: Stream, seq: i64, field: &str) -> Erased {
    let origin = Origin::system("eve".parse().ok());
    let reason: Reason = "asked for".parse().unwrap();
    let target = Target::new(stream, seq, field).unwrap();
    erase(&service.db, target, &reason, &origin).await.unwrap()
}

/// Erases a text and whatever other event says the same; gives what remains.
async fn erase_everywhere(service: &Service, stream: Stream, seq: i64, field: &str) -> Vec<Remains> {
    let mut left = vec![Remains { column: format!("{}_event.{field}", stream.as_str()), row: seq.to_string() }];
    loop {
        let next = left.iter().find(|copy| copy.column.contains("_event.")).cloned();
        let Some(Remains { column, row }) = next else { return left };
        let (table, field) = column.split_once('.').unwrap();
        let stream = Stream::named(table.trim_end_matches("_event")).unwrap();
        match erased(service, stream, row.parse().unwrap(), field).await {
            // A text inside a detail is another text: only the texts that the first search found are searched.
            Erased::Now { copies, .. } if left.len() == 1 && left[0].row == seq.to_string() => left = copies,
            _ => left.retain(|copy| (&copy.column, &copy.row) != (&column, &row)),
        }
    }
}

/// The tables in which a word stands.
async fn tables_with(service: &Service, word: &str) -> Vec<String> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
            .fetch_all(&service.pool)
            .await
            .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let sql = format!("SELECT count(*) FROM {table} t WHERE strpos(t::text, '{word}') > 0");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&service.pool).await.unwrap();
        if count > 0 {
            found.push(table);
        }
    }
    found
}

async fn last(service: &Service, stream: &str) -> i64 {
    let sql = format!("SELECT seq FROM audit_head WHERE stream = '{stream}'");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&service.pool).await.unwrap()
}

/// Requests that each leave a text in an event of their stream, with the column.
fn texts() -> Vec<(&'static str, Value, Stream, &'static str)> {
    use Stream::{Control, Heimdall, Kpi, Risk};
    let wire = json!({"domain": "T", "metric": "m", "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1, "reason": "WORD"});
    vec![
        ("/risk/check-and-reserve", json!({"engine": "CAPITAL", "amount": 1, "reason": "WORD"}), Risk, "reason"),
        (
            "/risk/check-and-reserve",
            json!({"engine": "CAPITAL", "amount": 1, "metadata": {"of": "WORD"}}),
            Risk,
            "metadata",
        ),
        (
            "/risk/adjustments",
            json!({"corrects_seq": 1, "loss_delta": 1, "reason": "WORD", "actor": "x"}),
            Risk,
            "reason",
        ),
        (
            "/heimdall/recommend",
            json!({"domain": "D", "confidence": 1, "recommendation": {"of": "WORD"}}),
            Heimdall,
            "recommendation",
        ),
        (
            "/heimdall/recommend",
            json!({"domain": "D", "confidence": 1, "evidence": {"of": "WORD"}}),
            Heimdall,
            "evidence",
        ),
        ("/heimdall/recommendations/1/revoke", json!({"actor": "x", "reason": "WORD"}), Heimdall, "reason"),
        (
            "/regression/kpi",
            json!({"domain": "D", "metric": "m", "success": true, "detail": "about WORD"}),
            Kpi,
            "detail",
        ),
        ("/go-live/packs", json!({"id": "crm", "status": "installed", "reason": "WORD"}), Control, "reason"),
        ("/go-live/disable", json!({"actor": "x", "reason": "WORD"}), Control, "reason"),
        ("/go-live/kill-switch/engage", json!({"actor": "x", "reason": "\"WORD\" \\ said"}), Control, "reason"),
        ("/go-live/kill-switch/release", json!({"actor": "x", "reason": "WORD"}), Control, "reason"),
        ("/go-live/enable", json!({"actor": "x", "reason": "WORD"}), Control, "reason"),
        (
            "/risk/policies/upsert",
            json!({"engine": "CAPITAL", "max_daily_loss": 9, "reason": "WORD"}),
            Control,
            "reason",
        ),
        (
            "/heimdall/policies/upsert",
            json!({"domain": "D", "prod_use_enabled": true, "reason": "WORD"}),
            Control,
            "reason",
        ),
        ("/heimdall/demote", json!({"domain": "D", "actor": "x", "reason": "WORD"}), Control, "reason"),
        ("/regression/policies/upsert", wire, Control, "reason"),
    ]
}

#[tokio::test]
async fn an_erased_text_is_nowhere_and_the_trail_is_whole() {
    let service = Service::live().await;
    for (number, (path, body, stream, field)) in texts().into_iter().enumerate() {
        let word = format!("m4rker{number:03}");
        service.post_text(path, "application/json", &body.to_string().replace("WORD", &word)).await.ok();
        let seq = last(&service, stream.as_str()).await;
        assert!(!tables_with(&service, &word).await.is_empty(), "{path}");
        // Something that comes later, and tells of what was before.
        service.post("/go-live/disable", &json!({"actor": "later"})).await.ok();
        service.post("/go-live/enable", &json!({"actor": "later"})).await.ok();
        let left = erase_everywhere(&service, stream, seq, field).await;
        assert_eq!(left, [], "{path}");
        assert_eq!(tables_with(&service, &word).await, [""; 0], "{path} {field}");
        assert_eq!(findings(&service).await, [""; 0], "{path}");
        let shown = service.get(&format!("/audit/events?stream={}&limit=1000", stream.as_str())).await.ok();
        let event = shown["items"].as_array().unwrap().iter().find(|event| event["seq"] == seq).unwrap().clone();
        assert!(event[field].is_null() && event["erased"].as_array().unwrap().contains(&json!(field)), "{event}");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
    // Lists, lever by lever, go on.
    for path in [
        "/risk/events",
        "/heimdall/events",
        "/heimdall/recommendations",
        "/regression/kpi",
        "/go-live/events",
        "/review",
    ] {
        service.get(path).await.ok();
    }
}

#[tokio::test]
async fn a_rearm_loses_its_reason_on_the_trip_and_on_the_policy_too() {
    let service = Service::live().await;
    let wire = json!({"domain": "CAPITAL", "metric": "m", "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1});
    service.post("/regression/policies/upsert", &wire).await.ok();
    service.kpis("CAPITAL", "m", 2, 2).await;
    let rearm = json!({"domain": "CAPITAL", "metric": "m", "enabled": true, "reason": "m4rker"});
    service.post("/regression/policies/upsert", &rearm).await.ok();
    let seq = last(&service, "control").await;
    let Erased::Now { columns, .. } = erased(&service, Stream::Control, seq - 1, "reason").await else {
        panic!("it is there")
    };
    assert_eq!(columns, ["risk_policy.reason", "regression_trip.rearm_reason"]);
    assert_eq!(erase_everywhere(&service, Stream::Control, seq, "reason").await, []);
    assert_eq!(tables_with(&service, "m4rker").await, [""; 0]);
    assert_eq!((findings(&service).await, broken_links(&service.pool).await), (vec![], vec![]));
}

#[tokio::test]
async fn erasing_is_an_event_without_the_text_and_twice_is_safe() {
    let service = Service::live().await;
    service.post("/risk/check-and-reserve", &json!({"engine": "CAPITAL", "amount": 1, "reason": "m4rker"})).await.ok();
    let before = service.events().await;
    let Erased::Now { digest, seq, columns, copies, as_of } = erased(&service, Stream::Risk, 1, "reason").await else {
        panic!("it is there")
    };
    assert_eq!(digest, sha(&service).await);
    assert_eq!((columns, copies, as_of), (vec![], vec![], false));
    let event = service.get("/audit/events?action=AUDIT_ERASE").await.ok()["items"][0].clone();
    assert_eq!(
        json!([event["seq"], event["subject"], event["reason"], event["actor"], event["principal"]]),
        json!([seq, "risk/1/reason", "asked for", "eve", "SYSTEM"])
    );
    assert_eq!(event["detail"], json!({"digest": digest, "columns": []}));
    assert_eq!(service.events().await, before + 1);
    let everything = service.everything().await;
    let again = erased(&service, Stream::Risk, 1, "reason").await;
    assert!(matches!(again, Erased::Already { digest: same } if same == digest));
    assert_eq!(service.everything().await, everything);
}

/// The text in PostgreSQL's form.
async fn sha(service: &Service) -> String {
    let sql = "SELECT encode(sha256('m4rker'), 'hex')";
    sqlx::query_scalar(sql).fetch_one(&service.pool).await.unwrap()
}

#[tokio::test]
async fn what_is_not_there_is_not_erased_and_leaves_no_trace() {
    let service = Service::live().await;
    service.reserve("CAPITAL", "1").await.ok();
    let everything = service.everything().await;
    let origin = Origin::system(None);
    for (stream, seq, field) in [
        (Stream::Risk, 1, "reason"),
        (Stream::Risk, 2, "reason"),
        (Stream::Risk, 1, "detail"),
        (Stream::Kpi, 1, "detail"),
        (Stream::Kpi, 1, "reason"),
        (Stream::Control, 1, "metadata"),
        (Stream::Control, 1, "actor"),
    ] {
        let refused = match Target::new(stream, seq, field) {
            Ok(target) => erase(&service.db, target, &"x".parse().unwrap(), &origin).await.map(drop),
            Err(error) => Err(error),
        };
        assert!(refused.unwrap_err().to_string().starts_with("there is no"), "{stream:?} {seq} {field}");
    }
    assert_eq!(service.everything().await, everything);
}

#[tokio::test]
async fn what_is_done_to_an_event_after_an_erasure_is_still_named() {
    let service = super::busy().await;
    let reason = json!({"engine": "CAPITAL", "amount": 1, "reason": "m4rker", "metadata": {"a": 1}});
    service.post("/risk/check-and-reserve", &reason).await.ok();
    let seq = last(&service, "risk").await;
    service.reserve("CAPITAL", "1").await.ok();
    erased(&service, Stream::Risk, seq, "reason").await;
    assert_eq!(findings(&service).await, [""; 0]);
    for sql in [
        format!("UPDATE risk_event SET reason = 'another' WHERE seq = {seq}"),
        format!("UPDATE risk_event SET metadata = NULL WHERE seq = {seq}"),
        format!("UPDATE risk_event SET actor = 'x' WHERE seq = {seq}"),
        format!("UPDATE audit_erasure SET digest = repeat('0', 64) WHERE stream = 'risk' AND seq = {seq}"),
        format!("DELETE FROM audit_erasure WHERE stream = 'risk' AND seq = {seq}"),
    ] {
        assert_eq!(after(&service, &sql).await, [format!("risk {seq} edited")], "{sql}");
    }
}

#[tokio::test]
async fn what_an_erased_detail_said_is_not_guessed() {
    let service = Service::live().await;
    let risk = json!({"engine": "CAPITAL", "max_daily_loss": 9});
    service.post("/risk/policies/upsert", &risk).await.ok();
    let Erased::Now { as_of: true, .. } = erased(&service, Stream::Control, 2, "detail").await else {
        panic!("it is said that the trail cannot tell any more")
    };
    let capital = async || {
        let body = service.get("/audit/as-of").await.ok();
        let policies = body["risk_policies"].as_array().unwrap().clone();
        policies.into_iter().find(|policy| policy["name"] == "CAPITAL").unwrap()
    };
    let unknown = capital().await;
    assert_eq!(json!([unknown["seq"], unknown["erased"], unknown["value"]]), json!([2, true, null]));
    // The next change says all of it again.
    service.post("/risk/policies/upsert", &json!({"engine": "CAPITAL", "max_daily_loss": 8})).await.ok();
    let known = capital().await;
    assert_eq!(json!([known["erased"], known["value"]["max_daily_loss"]]), json!([false, 8]));
    assert_eq!(known["value"], service.get("/risk/policies").await.ok()[0]);
}

#[tokio::test]
async fn an_erasure_that_is_of_no_policy_does_not_wait_for_the_ledger() {
    let service = Service::live().await;
    service.post("/go-live/kill-switch/engage", &json!({"reason": "WORD"})).await.ok();
    let seq = last(&service, "control").await;
    let mut held = service.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM audit_head WHERE stream = 'risk' FOR UPDATE").execute(&mut *held).await.unwrap();
    // It holds the control head, which the kill switch needs.
    assert!(matches!(erased(&service, Stream::Control, seq, "reason").await, Erased::Now { .. }));
    held.rollback().await.unwrap();
}
