//! Several connections, range by range, find the same as one pass over the whole.

use crate::support::Service;
use holdfast::audit::Stream;
use holdfast::audit::verify::{Asked, Verified, point, verify, verify_in_parallel};
use holdfast::types::Point;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

const EVENTS: i64 = 10_000;
/// Five ranges of 2,000 events: the last of the first, and the one that the first and the second both look at.
const SEAM: [i64; 2] = [2_000, 2_001];

/// A service with so many measurements that they are verified in parallel.
async fn long() -> Service {
    let service = Service::live().await;
    let line = "{\"domain\":\"LAB\",\"metric\":\"rate\",\"success\":true}\n";
    let lines = line.repeat(usize::try_from(EVENTS).unwrap());
    service.post_text("/regression/kpi/batch", "application/x-ndjson", &lines).await.ok();
    service
}

/// The findings of both ways, which are equal.
async fn found(service: &Service, asked: Asked) -> Verified {
    let mut tx = service.db.begin_unlimited_snapshot().await.unwrap();
    let mut others = service.db.begin_beside(&mut tx, 3).await.unwrap();
    assert_eq!(others.len(), 3);
    let in_parallel = verify_in_parallel(&mut tx, &mut others, Stream::Kpi, asked).await.unwrap();
    assert_eq!(others.len(), 3, "they can be used for the next stream");
    assert_eq!(in_parallel, verify(&mut tx, Stream::Kpi, asked).await.unwrap());
    in_parallel
}

/// Does something to a row that the guards would not allow.
async fn tamper(service: &Service, sql: String) {
    let sql = format!(
        "BEGIN; ALTER TABLE kpi_event DISABLE TRIGGER guard; {sql}; ALTER TABLE kpi_event ENABLE ALWAYS TRIGGER guard; COMMIT"
    );
    service.pool.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test]
async fn a_long_stream_is_whole_from_wherever_it_is_looked_at() {
    let service = long().await;
    let mut tx = service.db.begin_snapshot().await.unwrap();
    let middle = point(&mut tx, Stream::Kpi, EVENTS / 2).await.unwrap();
    for (asked, events) in [
        (Asked::ALL, EVENTS),
        (Asked { to: Some(EVENTS - 1), ..Asked::ALL }, EVENTS - 1),
        (Asked { from: middle, ..Asked::ALL }, EVENTS / 2),
        (Asked { from: middle, to: Some(EVENTS - 700), known: Some(middle) }, EVENTS / 2 - 700),
        (Asked { known: Some(middle), ..Asked::ALL }, EVENTS),
    ] {
        let verified = found(&service, asked).await;
        assert_eq!((verified.finding, verified.events), (None, events));
    }
}

/// A `COPY` that nobody reads to its end must not be the answer to what somebody else asks next.
#[tokio::test]
async fn a_verification_whose_client_hung_up_leaves_nothing_to_those_who_come_after() {
    let service = long().await;
    for path in ["/audit/verify", "/audit/verify?stream=kpi"] {
        for waited in 0..20 {
            let verifying = tokio::spawn(service.get(path));
            tokio::time::sleep(std::time::Duration::from_millis(2 * waited)).await;
            verifying.abort();
            let _ = verifying.await;
        }
    }
    for cap in 1..=30 {
        let policy = json!({"engine": "CAPITAL", "max_daily_loss": cap});
        let upserted = service.post("/risk/policies/upsert", &policy).await.ok();
        assert_eq!(upserted["max_daily_loss"], cap);
        let policies = service.get("/risk/policies").await.ok();
        let shown = policies.as_array().unwrap().iter().find(|policy| policy["engine"] == "CAPITAL").unwrap();
        assert_eq!(shown["max_daily_loss"], cap);
    }
    let verified = loop {
        let answer = service.get("/audit/verify").await;
        // The last one that was left may still hold its turn.
        if answer.status != 503 {
            break answer.ok();
        }
    };
    assert_eq!(verified["ok"], true, "{verified}");
}

#[tokio::test]
async fn what_was_done_to_a_long_stream_is_named_at_the_seams_of_its_ranges_too() {
    let service = long().await;
    // An owner can remove the constraints on a hash's length and place.
    let free = "CREATE TABLE kept AS TABLE kpi_event;
                ALTER TABLE kpi_event DROP CONSTRAINT kpi_event_hash_check, ALTER hash DROP NOT NULL";
    service.pool.execute(free).await.unwrap();
    for seq in [1, SEAM[0], SEAM[1], SEAM[1] + 1, 5_000, EVENTS] {
        let gone = if seq == EVENTS { "truncated" } else { "deleted" };
        for (sql, kind) in [
            (format!("UPDATE kpi_event SET principal = 'x' WHERE seq = {seq}"), "edited"),
            (format!("UPDATE kpi_event SET hash = sha256('x') WHERE seq = {seq}"), "edited"),
            (format!("UPDATE kpi_event SET hash = hash || '\\x00' WHERE seq = {seq}"), "edited"),
            (format!("UPDATE kpi_event SET hash = NULL WHERE seq = {seq}"), "edited"),
            (format!("DELETE FROM kpi_event WHERE seq = {seq}"), gone),
        ] {
            tamper(&service, sql).await;
            let finding = found(&service, Asked::ALL).await.finding.unwrap();
            assert_eq!((finding.seq, finding.kind.as_str()), (seq, kind));
            let restore = format!(
                "DELETE FROM kpi_event WHERE seq = {seq}; INSERT INTO kpi_event SELECT * FROM kept WHERE seq = {seq}"
            );
            tamper(&service, restore).await;
        }
        let known = Some(Point { seq, hash: [7; 32] });
        let finding = found(&service, Asked { known, ..Asked::ALL }).await.finding.unwrap();
        assert_eq!((finding.seq, finding.kind.as_str()), (seq, "rewritten"));
    }
    assert_eq!(found(&service, Asked::ALL).await.finding, None);
}
