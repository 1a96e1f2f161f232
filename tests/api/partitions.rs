//! Events and reservations keep their place, whichever partition it is in, and there always is one.

use crate::support::{Answer, Service};
use holdfast::audit::Stream;
use holdfast::audit::partitions::{self, make_ahead};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

/// The streams whose events are in partitions.
pub const STREAMS: [Stream; 2] = [Stream::Heimdall, Stream::Risk];

/// A live service whose first partitions of this stream end with this event.
pub async fn ending_with(stream: Stream, last: i64) -> Service {
    let service = Service::live().await;
    let mut conn = service.pool.acquire().await.unwrap();
    for table in partitions::ALL.iter().filter(|one| one.stream == stream) {
        let (first, table) = (partitions::list(&mut conn, table.table).await.unwrap().remove(0).name, table.table);
        let sql = format!(
            "ALTER TABLE {table} DETACH PARTITION {first};
             ALTER TABLE {table} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ({})",
            last + 1
        );
        conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
    let guard = format!("ALTER TABLE {}_1 ENABLE ALWAYS TRIGGER guard", stream.table());
    conn.execute(AssertSqlSafe(guard)).await.unwrap();
    service
}

/// The request of one more event.
pub async fn append(service: &Service, stream: Stream) -> Answer {
    match stream {
        Stream::Risk => service.reserve("WHOLESALE", "1").await,
        Stream::Heimdall => {
            let trial = json!({"domain": "D", "confidence": 0.9, "success": true, "actor": "a"});
            service.post("/heimdall/sandbox/trial", &trial).await
        }
        Stream::Control | Stream::Kpi => panic!("{stream:?} has no partitions"),
    }
}

async fn bounds(service: &Service, stream: Stream) -> Vec<Vec<(i64, i64)>> {
    let (mut conn, mut bounds) = (service.pool.acquire().await.unwrap(), Vec::new());
    for table in partitions::ALL.iter().filter(|one| one.stream == stream) {
        let found = partitions::list(&mut conn, table.table).await.unwrap();
        bounds.push(found.iter().map(|one| (one.from, one.to)).collect());
    }
    bounds
}

#[tokio::test]
async fn an_event_without_a_partition_gets_one_and_its_request_is_answered() {
    let service = ending_with(Stream::Risk, 2).await;
    for _ in 0..4 {
        service.reserve("WHOLESALE", "1").await.ok();
    }
    assert_eq!(bounds(&service, Stream::Risk).await, [[(1, 3), (3, 10_000_003)]; 2]);
    assert_eq!(service.get("/audit/verify").await.ok()["ok"], true);
}

#[tokio::test]
async fn an_event_of_the_charter_without_a_partition_leaves_nothing_and_is_taken_once_there_is_one() {
    let service = ending_with(Stream::Heimdall, 2).await;
    for _ in 0..2 {
        append(&service, Stream::Heimdall).await.ok();
    }
    append(&service, Stream::Heimdall).await.refused(503, "DATABASE_UNAVAILABLE");
    assert_eq!(service.count("SELECT sum(trials)::bigint FROM heimdall_scorecard_day").await, 2);
    assert_eq!(make_ahead(&service.db).await.unwrap(), 1);
    assert_eq!(bounds(&service, Stream::Heimdall).await, [[(1, 3), (3, 10_000_003)]]);
    append(&service, Stream::Heimdall).await.ok();
    assert_eq!(service.get("/audit/verify").await.ok()["ok"], true);
}

#[tokio::test]
async fn partitions_are_made_once_by_instances_that_make_them_at_the_same_time() {
    for (stream, tables) in [(Stream::Risk, 2), (Stream::Heimdall, 1)] {
        let service = ending_with(stream, 9).await;
        let makers: Vec<_> = (0..8)
            .map(|_| {
                let db = service.db.clone();
                tokio::spawn(async move { make_ahead(&db).await })
            })
            .collect();
        let mut made = 0;
        for maker in makers {
            // One that waited too long for another leaves the work to it.
            made += maker.await.unwrap().unwrap_or(0);
        }
        assert_eq!(made, tables);
        assert_eq!(make_ahead(&service.db).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_table_whose_partition_cannot_be_made_does_not_keep_others_from_theirs() {
    let service = ending_with(Stream::Heimdall, 2).await;
    let before = bounds(&service, Stream::Heimdall).await[0].len();
    for table in partitions::ALL.iter().filter(|one| one.stream == Stream::Risk) {
        let mut conn = service.pool.acquire().await.unwrap();
        let first = partitions::list(&mut conn, table.table).await.unwrap().remove(0).name;
        let sql = format!(
            "ALTER TABLE {0} DETACH PARTITION {first}; ALTER TABLE {0} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO (9)",
            table.table
        );
        conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
    let mut tx = service.pool.begin().await.unwrap();
    tx.execute("LOCK TABLE ONLY risk_event IN SHARE UPDATE EXCLUSIVE MODE").await.unwrap();
    assert!(make_ahead(&service.db).await.is_err());
    assert_eq!(bounds(&service, Stream::Heimdall).await[0].len(), before + 1);
    tx.rollback().await.unwrap();
}

/// A drop waits for them, so the rows of the archive and the events that they read fit together.
#[tokio::test]
async fn every_list_of_events_holds_the_partitions_before_it_reads() {
    let service = Service::live().await;
    append(&service, Stream::Risk).await.ok();
    append(&service, Stream::Heimdall).await.ok();
    for path in [
        "/audit/events",
        "/audit/verify",
        "/risk/events",
        "/risk/reservations",
        "/risk/reservations/00000000-0000-0000-0000-000000000001",
        "/heimdall/events",
        "/heimdall/recommendations",
    ] {
        let mut tx = service.pool.begin().await.unwrap();
        tx.execute("LOCK TABLE heimdall_event, risk_event IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let listed = tokio::spawn(service.get(path));
        let waits = "SELECT query FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'holdfast' AND wait_event_type = 'Lock'";
        let first = loop {
            let waiting: Option<String> = sqlx::query_scalar(waits).fetch_optional(&service.pool).await.unwrap();
            if let Some(query) = waiting {
                break query;
            }
            tokio::task::yield_now().await;
        };
        assert!(first.starts_with("LOCK TABLE"), "{path}: {first}");
        tx.rollback().await.unwrap();
        assert!(listed.await.unwrap().status.as_u16() < 500, "{path}");
    }
}

#[tokio::test]
async fn a_partition_that_was_made_later_is_guarded_like_the_first() {
    for stream in STREAMS {
        let service = ending_with(stream, 1).await;
        append(&service, stream).await.ok();
        make_ahead(&service.db).await.unwrap();
        append(&service, stream).await.ok();
        let table = stream.table();
        for sql in [
            "UPDATE risk_event SET actor = 'x' WHERE seq = 2",
            "DELETE FROM risk_event_2",
            "TRUNCATE risk_event_2",
            "TRUNCATE risk_event",
            "SET session_replication_role = replica; DELETE FROM risk_event_2",
            "SET session_replication_role = replica; TRUNCATE risk_event_2",
        ] {
            let sql = sql.replace("risk_event", table);
            let mut conn = service.pool.acquire().await.unwrap().detach();
            let error = conn.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await.unwrap_err();
            assert!(error.to_string().contains("the audit trail"), "{sql}: {error}");
        }
        let disarmed = format!("ALTER TABLE {table}_2 DISABLE TRIGGER guard; DROP TRIGGER guard_truncate ON {table}_2");
        service.pool.execute(sqlx::raw_sql(AssertSqlSafe(disarmed))).await.unwrap();
        let mut conn = service.pool.acquire().await.unwrap();
        let missing = holdfast::audit::complete::missing(&mut conn).await.unwrap();
        assert_eq!(
            missing,
            [
                format!(
                    "the trigger guard of {table}_2 is not armed: ALTER TABLE {table}_2 ENABLE ALWAYS TRIGGER guard"
                ),
                format!("the trigger guard_truncate of {table}_2 is missing: restore the schema with its triggers"),
            ]
        );
    }
}

#[tokio::test]
async fn a_hold_that_ends_leaves_the_open_ones_and_is_shown_as_before() {
    let service = ending_with(Stream::Risk, 4).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        let hold = json!({"engine": "WHOLESALE", "amount": 1, "ttl_seconds": 60, "actor": format!("a{number}"), "correlation_id": "c"});
        let made = service.post("/risk/check-and-reserve", &hold).await.ok();
        ids.push(made["reservation_id"].as_str().unwrap().to_owned());
    }
    service.post("/risk/settle", &json!({"reservation_id": ids[0]})).await.ok();
    service.post(&format!("/risk/reservations/{}/release", ids[4]), &json!({})).await.ok();
    service.set_skew("2 minutes").await;
    // Everything else is due; one is settled late all the same.
    service.post("/risk/settle", &json!({"reservation_id": ids[1], "realized_loss": 1})).await.ok();
    assert_eq!(service.count("SELECT count(*) FROM ONLY risk_reservation_open").await, 0);
    let all = service.get("/risk/reservations").await.ok();
    let shown: Vec<_> =
        all["items"].as_array().unwrap().iter().map(|row| (row["seq"].clone(), row["status"].clone())).collect();
    let expected = [(6, "EXPIRED"), (5, "RELEASED"), (4, "EXPIRED"), (3, "EXPIRED"), (2, "SETTLED"), (1, "SETTLED")];
    assert_eq!(shown, expected.map(|(seq, status)| (json!(seq), json!(status))));
    for (id, row) in ids.iter().rev().zip(all["items"].as_array().unwrap()) {
        assert_eq!(service.get(&format!("/risk/reservations/{id}")).await.ok(), *row);
    }
    let filtered = service.get("/risk/reservations?correlation_id=c&status=EXPIRED&engine=WHOLESALE").await.ok();
    assert_eq!(filtered["items"].as_array().unwrap().len(), 3);
    let again = service.post("/risk/settle", &json!({"reservation_id": ids[1]})).await;
    assert_eq!(again.status, 409, "{}", again.text);
}

#[tokio::test]
async fn an_id_that_was_ever_reserved_makes_no_second_reservation_in_a_later_partition() {
    let service = ending_with(Stream::Risk, 2).await;
    let id = "00000000-0000-4000-8000-000000000001";
    let hold = json!({"engine": "WHOLESALE", "amount": 1, "reservation_id": id});
    let first = service.post("/risk/check-and-reserve", &hold).await.ok();
    service.post("/risk/settle", &json!({"reservation_id": id})).await.ok();
    service.reserve("WHOLESALE", "1").await.ok();
    let second = service.post("/risk/check-and-reserve", &hold).await.ok();
    assert_eq!(first["reservation_id"], second["reservation_id"]);
    assert_eq!(service.count("SELECT count(*) FROM risk_event WHERE action = 'RESERVE'").await, 2);
}
