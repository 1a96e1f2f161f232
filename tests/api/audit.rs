//! The trail guards itself, and whatever is done to it as the owner of the database is named exactly.

mod as_of;
mod erase;
mod events;
mod parallel;

use crate::support::{Service, broken_links};
use holdfast::audit::Stream;
use holdfast::audit::verify::{Asked, verify};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

const STREAMS: [&str; 4] = ["control", "heimdall", "kpi", "risk"];

/// A service with at least eight events in each stream.
async fn busy() -> Service {
    let service = Service::live().await;
    for number in 0..8 {
        assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
        let recommend = json!({"domain": "D", "confidence": 0.5, "evidence": {"number": number}});
        service.post("/heimdall/recommend", &recommend).await.ok();
        let pack = json!({"id": format!("pack{number}"), "status": "installed", "actor": "bryan"});
        service.post("/go-live/packs", &pack).await.ok();
    }
    service
        .post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 2, "realized_loss": 1.25}))
        .await
        .ok();
    service.reserve("WHOLESALE", "1000000").await.ok();
    service.kpis("WHOLESALE", "contract_rate", 8, 3).await;
    service
}

/// The findings of a verification: stream, number and kind.
async fn findings(service: &Service) -> Vec<String> {
    let body = service.get("/audit/verify").await.ok();
    let found: Vec<_> = body["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {} {}", one["stream"].as_str().unwrap(), one["seq"], one["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(body["ok"], found.is_empty(), "{body}");
    found
}

/// The findings of a verification after a change of the trail that its guards would not allow; then the change is
/// undone.
async fn after(service: &Service, sql: &str) -> Vec<String> {
    let guards = |verb: &str| -> String {
        let tables = ["control_event", "heimdall_event", "kpi_event", "risk_event", "audit_head", "audit_erasure"];
        tables.map(|table| format!("ALTER TABLE {table} {verb} TRIGGER guard;")).concat()
    };
    let mut tx = service.pool.begin().await.unwrap();
    let sql = format!("{} {sql}; {}", guards("DISABLE"), guards("ENABLE ALWAYS"));
    tx.execute(AssertSqlSafe(sql)).await.unwrap();
    let mut found = Vec::new();
    for stream in Stream::ALL {
        let verified = verify(&mut tx, stream, Asked::ALL).await.unwrap();
        found.extend(verified.finding.map(|one| format!("{} {} {}", stream.as_str(), one.seq, one.kind.as_str())));
    }
    tx.rollback().await.unwrap();
    found
}

#[tokio::test]
async fn a_trail_that_nobody_touched_is_whole_and_both_implementations_agree() {
    for service in [Service::fresh().await, busy().await] {
        assert_eq!(findings(&service).await, [""; 0]);
        assert_eq!(broken_links(&service.pool).await, [""; 0]);
        for stream in STREAMS {
            let body = service.get(&format!("/audit/verify?stream={stream}")).await.ok();
            let of_stream =
                AssertSqlSafe(format!("SELECT seq, encode(hash, 'hex') FROM audit_head WHERE stream = '{stream}'"));
            let head: (i64, String) = sqlx::query_as(of_stream).fetch_one(&service.pool).await.unwrap();
            let shown = &body["streams"][0];
            assert_eq!(
                (&shown["seq"], &shown["hash"], &shown["events"]),
                (&json!(head.0), &json!(head.1), &json!(head.0))
            );
        }
    }
}

#[tokio::test]
async fn what_was_done_to_a_row_is_named_with_its_place() {
    let service = busy().await;
    for stream in STREAMS {
        let table = format!("{stream}_event");
        // The order of updates of a unique column is nobody's: by way of numbers that nobody has.
        let renumber = |from: i64, by: i64| {
            let (check, column) = (format!("{table}_seq_check"), "seq");
            format!(
                "ALTER TABLE {table} DROP CONSTRAINT {check};
                 UPDATE {table} SET {column} = -seq WHERE seq >= {from};
                 UPDATE {table} SET {column} = -seq + {by} WHERE seq < 0;"
            )
        };
        let copied = |seq: &str, at: &str, of: &str| {
            format!(
                "CREATE TEMP TABLE copied AS SELECT * FROM {table} WHERE seq = {of};
                 UPDATE copied SET seq = {seq}, at = {at};
                 INSERT INTO {table} SELECT * FROM copied;"
            )
        };
        // The unique indexes of some tables stand in the way of a copy, and an owner can drop them.
        let free = if stream == "kpi" {
            "ALTER TABLE kpi_event DROP CONSTRAINT kpi_event_domain_metric_series_seq_key;"
        } else {
            ""
        };
        for (sql, found) in [
            (format!("UPDATE {table} SET principal = 'x' WHERE seq = 3"), "3 edited"),
            (format!("UPDATE {table} SET hash = sha256('x') WHERE seq = 3"), "3 edited"),
            (
                format!("UPDATE {table} SET correlation_id = '' || 'x' WHERE seq = (SELECT max(seq) FROM {table})"),
                "last edited",
            ),
            (format!("DELETE FROM {table} WHERE seq = 3"), "3 deleted"),
            (format!("DELETE FROM {table} WHERE seq = 1"), "1 deleted"),
            (format!("DELETE FROM {table} WHERE seq = 3; {}", renumber(4, -1)), "3 deleted"),
            (format!("{free} {} {}", renumber(3, 1), copied("3", "at + interval '1 us'", "2")), "3 inserted"),
            (
                format!(
                    "{free} {}",
                    copied(&format!("(SELECT max(seq) + 1 FROM {table})"), "at + interval '1 hour'", "2")
                ),
                "behind inserted",
            ),
            (
                format!(
                    "ALTER TABLE {table} DROP CONSTRAINT {table}_seq_check;
                     UPDATE {table} SET seq = -4 WHERE seq = 3; UPDATE {table} SET seq = 3 WHERE seq = 4;
                     UPDATE {table} SET seq = 4 WHERE seq = -4"
                ),
                "3 reordered",
            ),
            (format!("DELETE FROM {table} WHERE seq > (SELECT max(seq) - 2 FROM {table})"), "last two truncated"),
        ] {
            let max = AssertSqlSafe(format!("SELECT max(seq) FROM {table}"));
            let last: i64 = sqlx::query_scalar(max).fetch_one(&service.pool).await.unwrap();
            let found = found
                .replace("last two", &(last - 1).to_string())
                .replace("last", &last.to_string())
                .replace("behind", &(last + 1).to_string());
            assert_eq!(after(&service, &sql).await, [format!("{stream} {found}")], "{sql}");
        }
    }
}

#[tokio::test]
async fn a_head_that_was_moved_is_named() {
    let service = busy().await;
    for (sql, found) in [
        ("UPDATE audit_head SET seq = seq + 1 WHERE stream = 'risk'", "risk 10 head_moved"),
        ("UPDATE audit_head SET seq = seq - 1 WHERE stream = 'risk'", "risk 10 head_moved"),
        ("UPDATE audit_head SET hash = sha256('x') WHERE stream = 'risk'", "risk 10 head_moved"),
        ("UPDATE audit_head SET at = at + interval '1 us' WHERE stream = 'risk'", "risk 10 head_moved"),
        (
            "ALTER TABLE audit_head DROP CONSTRAINT audit_head_hash_check;
             UPDATE audit_head SET hash = hash || '\\x00' WHERE stream = 'risk'",
            "risk 10 head_moved",
        ),
        ("DELETE FROM audit_head WHERE stream = 'risk'", "risk 0 head_moved"),
    ] {
        assert_eq!(after(&service, sql).await, [found], "{sql}");
    }
}

#[tokio::test]
async fn each_damaged_stream_has_its_own_finding() {
    let service = busy().await;
    let both = "UPDATE risk_event SET actor = 'x' WHERE seq = 2; UPDATE kpi_event SET actor = 'x' WHERE seq = 5";
    assert_eq!(after(&service, both).await, ["kpi 5 edited", "risk 2 edited"]);
}

#[tokio::test]
async fn a_part_can_be_verified_and_what_is_damaged_is_told_through_http() {
    let service = busy().await;
    let guard = |verb: &str| AssertSqlSafe(format!("ALTER TABLE risk_event {verb} TRIGGER guard"));
    service.pool.execute(guard("DISABLE")).await.unwrap();
    service.pool.execute("UPDATE risk_event SET actor = 'x' WHERE seq = 3").await.unwrap();
    service.pool.execute(guard("ENABLE ALWAYS")).await.unwrap();
    assert_eq!(findings(&service).await, ["risk 3 edited"]);
    let part = async |from: i64, to: i64| {
        service.get(&format!("/audit/verify?stream=risk&from={from}&to={to}")).await.ok()["ok"] == true
    };
    assert!(part(4, 6).await && !part(1, 4).await && part(1, 2).await && !part(3, 3).await);
    service.get("/audit/verify?from=2").await.invalid("stream");
    service.get("/audit/verify?stream=nope").await.invalid("stream");
    let last = service.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await;
    for (query, seq) in [("from=1000".to_owned(), 1000), (format!("from={}", last + 1), last + 1)] {
        let refused = service.get(&format!("/audit/verify?stream=risk&{query}")).await.refused(404, "NOT_FOUND");
        assert_eq!(refused["detail"], format!("there is no event risk {seq}: the last is {last}"));
    }
    service.get("/audit/verify?stream=risk&from=5&to=2").await.invalid("to");
    service.get("/audit/verify?stream=risk&to=0").await.invalid("to");
    service.get("/audit/verify?stream=risk&from=0").await.invalid("from");
    service.pool.execute(guard("DISABLE")).await.unwrap();
    service.pool.execute("UPDATE risk_event SET actor = 'test' WHERE seq = 3").await.unwrap();
    // Whole, and not everything that belongs to it is there.
    let disarmed = service.get("/audit/verify").await.ok();
    assert_eq!((&disarmed["ok"], &disarmed["findings"]), (&json!(false), &json!([])), "{disarmed}");
    let step = "the trigger guard of risk_event is not armed: ALTER TABLE risk_event ENABLE ALWAYS TRIGGER guard";
    assert_eq!(disarmed["missing"], json!([step]));
    service.pool.execute(guard("ENABLE ALWAYS")).await.unwrap();
    assert_eq!(findings(&service).await, [""; 0]);
}

#[tokio::test]
async fn the_database_refuses_to_change_delete_or_truncate_events_and_to_move_heads_back() {
    let service = busy().await;
    let mut conn = service.pool.acquire().await.unwrap();
    for role in ["origin", "replica", "local"] {
        sqlx::query(AssertSqlSafe(format!("SET session_replication_role = {role}"))).execute(&mut *conn).await.unwrap();
        for stream in STREAMS {
            for sql in [
                format!("UPDATE {stream}_event SET actor = 'x' WHERE seq = 1"),
                format!("UPDATE {stream}_event SET hash = hash, reason = NULL, detail = 'y' WHERE seq = 1"),
                format!("DELETE FROM {stream}_event WHERE seq = 1"),
                format!("TRUNCATE {stream}_event CASCADE"),
                format!("UPDATE audit_head SET seq = seq - 1 WHERE stream = '{stream}'"),
                format!("DELETE FROM audit_head WHERE stream = '{stream}'"),
                "TRUNCATE audit_head".to_owned(),
                "TRUNCATE audit_erasure".to_owned(),
            ] {
                if stream == "kpi" && sql.contains("reason") {
                    continue;
                }
                let refused = sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut *conn).await.unwrap_err();
                let code = refused.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
                assert_eq!(code.as_deref(), Some("42501"), "{role}: {sql}: {refused}");
            }
        }
    }
    drop(conn);
    assert_eq!(findings(&service).await, [""; 0]);
}

#[tokio::test]
async fn a_text_that_is_gone_without_its_event_is_an_edit() {
    let service = busy().await;
    let taken = "INSERT INTO audit_erasure
                 SELECT 'control', seq, 'detail', encode(sha256(convert_to(detail, 'UTF8')), 'hex'), now()
                 FROM control_event WHERE seq = 3;
                 UPDATE control_event SET detail = NULL WHERE seq = 3";
    assert_eq!(after(&service, taken).await, ["control 3 edited"]);
}

#[tokio::test]
async fn what_no_event_can_hold_and_what_stands_out_of_place_is_named() {
    let service = busy().await;
    for (sql, found) in [
        (
            "ALTER TABLE control_event DROP CONSTRAINT control_event_times; UPDATE control_event SET at = 'infinity' WHERE seq = 3",
            "control 3 edited",
        ),
        (
            "ALTER TABLE control_event DROP CONSTRAINT control_event_hash_check; UPDATE control_event SET hash = 'x' WHERE seq = 3",
            "control 3 edited",
        ),
        ("UPDATE control_event SET at = at + interval '1 hour' WHERE seq = 3", "control 3 edited"),
        (
            "ALTER TABLE control_event DROP CONSTRAINT control_event_seq_check;
             CREATE TEMP TABLE copied AS SELECT * FROM control_event WHERE seq = 2; UPDATE copied SET seq = -5;
             INSERT INTO control_event SELECT * FROM copied",
            "control -5 inserted",
        ),
        (
            "CREATE TEMP TABLE copied AS SELECT * FROM control_event WHERE seq = 2; UPDATE copied SET seq = 1000;
             INSERT INTO control_event SELECT * FROM copied",
            "control 1000 inserted",
        ),
    ] {
        assert_eq!(after(&service, sql).await, [found], "{sql}");
    }
    let empty = Service::fresh().await;
    let moved = "UPDATE audit_head SET at = '2999-01-01' WHERE stream = 'kpi'";
    assert_eq!(after(&empty, moved).await, ["kpi 0 head_moved"]);
}
