//! A book of the version before partitions, with history: after the upgrade every answer is as it was.

use crate::support::{Service, Setup, broken_links};
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::borrow::Cow;

/// The newest migration of the version before.
const BEFORE: i64 = 31;

/// The tables of the version before, in an order without meaning: no table refers to another. `audit_head` and the rows
/// that migrations make are copied apart.
const COPIED: &str = "SELECT tablename::text FROM pg_tables
                      WHERE schemaname = 'before' AND tablename NOT IN ('_sqlx_migrations', 'audit_head', 'instance')
                        AND tablename NOT LIKE 'idempotency_key_%'";

/// Copies a book into the tables of the version before, in the schema `before` of the same database.
async fn to_the_version_before(service: &Service) {
    let options = service.options.clone().options([("search_path", "before")]);
    service.pool.execute("CREATE SCHEMA before").await.unwrap();
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    let all = sqlx::migrate!("./migrations");
    let old = all.migrations.iter().filter(|migration| migration.version <= BEFORE).cloned().collect::<Vec<_>>();
    Migrator { migrations: Cow::Owned(old), ..Migrator::DEFAULT }.run(&mut conn).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(COPIED).fetch_all(&mut conn).await.unwrap();
    for table in tables {
        let columns: String = sqlx::query_scalar(
            "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        )
        .bind(&table)
        .fetch_one(&mut conn)
        .await
        .unwrap();
        let copy = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM public.{table}");
        let sql = if table.ends_with("_event") || table == "audit_erasure" || table == "access_token" {
            copy
        } else {
            format!("DELETE FROM {table}; {copy}")
        };
        conn.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
    conn.execute(sqlx::raw_sql(
        "UPDATE audit_head AS old SET seq = new.seq, hash = new.hash, at = new.at
         FROM public.audit_head AS new WHERE new.stream = old.stream AND new.seq > old.seq;
         CREATE OR REPLACE FUNCTION holdfast_now() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS 'SELECT clock_timestamp() + noon + skew FROM public.test_clock'",
    ))
    .await
    .unwrap();
    conn.close().await.unwrap();
}

/// Lifecycles of every kind: settled, released, expired, settled late, open, denied, extended, by amount, corrected.
async fn history(service: &Service, lifecycles: usize) {
    for engine in ["GLOBAL", "WHOLESALE", "CAPITAL"] {
        let caps = json!({"engine": engine, "max_daily_exposure": 0, "max_open_risk": 0, "allow_unlimited": true});
        service.post("/risk/policies/upsert", &caps).await.ok();
    }
    let id = |number: usize| format!("00000000-0000-4000-8000-{number:012}");
    let numbers: Vec<usize> = (0..lifecycles).collect();
    for (turn, part) in numbers.chunks(400).enumerate() {
        let reserve = |number: &usize| {
            let engine = ["WHOLESALE", "CAPITAL"][number / 2 % 2];
            let mut body = json!({"op": "reserve", "engine": engine, "amount": "1.5", "reservation_id": id(*number),
                                  "correlation_id": format!("deal-{}", number / 3)});
            if number % 10 == 3 {
                // Those of the first turn expire after it, the others not while the test runs.
                body["ttl_seconds"] = json!(if turn == 0 { 30 } else { 86_400 });
            }
            body
        };
        let end = |number: &usize| match number % 10 {
            3 | 7 => None,
            4 => Some(json!({"op": "release", "reservation_id": id(*number)})),
            _ => Some(json!({"op": "settle", "reservation_id": id(*number), "realized_loss": "0.001"})),
        };
        let mut operations: Vec<Value> = part.iter().map(reserve).collect();
        operations.extend(part.iter().filter_map(end));
        operations.push(json!({"op": "reserve", "engine": "NOBODY", "amount": 1, "correlation_id": "deal-0"}));
        operations.push(json!({"op": "settle", "engine": "CAPITAL", "reserved_amount": "2.25"}));
        let done = service.post("/risk/batch", &json!({"operations": operations})).await.ok();
        assert!(done["results"].as_array().unwrap().iter().all(|result| result["status"] == 200), "{done}");
        if turn == 0 {
            service.post(&format!("/risk/reservations/{}/extend", id(33)), &json!({"ttl_seconds": 600})).await.ok();
            service.set_skew("1 minute").await;
            service.app.risk.expire_due().await.unwrap();
            service.post("/risk/settle", &json!({"reservation_id": id(13), "realized_loss": 2})).await.ok();
        }
    }
    let seq = service.count("SELECT max(seq) FROM risk_event WHERE action = 'SETTLE' AND loss_delta > 0").await;
    let correction = json!({"corrects_seq": seq, "loss_delta": "-0.0005", "reason": "told wrong"});
    service.post("/risk/adjustments", &correction).await.ok();
    charter(service).await;
}

/// Trials, recommendations, uses and a revocation.
async fn charter(service: &Service) {
    let policy = json!({"domain": "D", "min_sandbox_trials": 1, "prod_use_enabled": true});
    service.post("/heimdall/policies/upsert", &policy).await.ok();
    for number in 0..9 {
        let trial = json!({"domain": "D", "confidence": "0.9", "success": number < 8, "correlation_id": "deal-0"});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
        let advice = json!({"domain": "D", "confidence": "0.99", "recommendation": {"number": number}});
        let made = service.post("/heimdall/recommend", &advice).await.ok();
        let path = |what: &str| format!("/heimdall/recommendations/{}/{what}", made["id"]);
        if number % 3 == 0 {
            service.post(&path("require-prod-eligible"), &json!({"reason": "act"})).await.ok();
        }
        if number % 4 == 0 {
            service.post(&path("revoke"), &json!({"reason": "wrong"})).await.ok();
        }
    }
}

/// Every page of a list.
async fn pages(service: &Service, path: &str) -> String {
    let (mut all, mut cursor) = (String::new(), String::new());
    loop {
        let page = service.get(&format!("{path}{cursor}")).await.ok();
        all += &page["items"].to_string();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

async fn answers(service: &Service) -> Vec<(String, String)> {
    let mut answers = Vec::new();
    for path in [
        "/risk/events?limit=1000",
        "/risk/events?limit=1000&engine=CAPITAL",
        "/risk/events?limit=1000&action=DENY",
        "/risk/events?limit=1000&correlation_id=deal-0",
        "/risk/reservations?limit=1000",
        "/risk/reservations?limit=1000&status=OPEN",
        "/risk/reservations?limit=1000&status=EXPIRED",
        "/risk/reservations?limit=1000&status=RELEASED&engine=WHOLESALE",
        "/risk/reservations?limit=1000&correlation_id=deal-1",
        "/risk/reservations?limit=1000&older_than=30",
        "/audit/events?limit=1000&stream=risk",
        "/audit/events?limit=1000&stream=heimdall",
        "/heimdall/events?limit=1000",
        "/heimdall/events?limit=1000&domain=D",
        "/heimdall/events?limit=1000&action=REQUIRE",
        "/heimdall/recommendations?limit=1000",
        "/heimdall/recommendations?limit=1000&domain=D&prod_eligible=true",
    ] {
        answers.push((path.to_owned(), pages(service, path).await));
    }
    for path in ["/risk/ledger/today", "/go-live/state", "/audit/verify?stream=risk", "/audit/verify?stream=heimdall"] {
        answers.push((path.to_owned(), service.get(path).await.ok().to_string()));
    }
    for number in [0, 3, 4, 7, 13, 17, 33] {
        let path = format!("/risk/reservations/00000000-0000-4000-8000-{number:012}");
        let found = service.get(&path).await.ok().to_string();
        answers.push((path, found));
    }
    answers
}

/// `cargo test --test api -- --ignored upgrade` has five million events.
async fn an_upgrade_changes_no_answer(lifecycles: usize) {
    let service = Service::live().await;
    history(&service, lifecycles).await;
    let before = answers(&service).await;
    to_the_version_before(&service).await;
    let upgraded = Service::on(service.options.clone().options([("search_path", "before")]), Setup::default()).await;
    for ((path, before), (_, after)) in before.iter().zip(answers(&upgraded).await) {
        assert!(
            *before == after,
            "{path} was {} and is {}",
            &before[..before.len().min(800)],
            &after[..after.len().min(800)]
        );
    }
    assert_eq!(upgraded.get("/risk/reconciliation").await.ok()["balanced"], true);
    assert_eq!(broken_links(&upgraded.pool).await, [""; 0]);
    // An open hold is closable, and the id of an ended one makes no new hold.
    let open = "00000000-0000-4000-8000-000000000017";
    upgraded.post("/risk/settle", &json!({"reservation_id": open})).await.ok();
    let again = json!({"engine": "WHOLESALE", "amount": "1.5", "reservation_id": open});
    let seq = upgraded.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await;
    let _ = upgraded.post("/risk/check-and-reserve", &again).await;
    assert_eq!(upgraded.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await, seq);
    upgraded.reserve("WHOLESALE", "1").await.ok();
    assert_eq!(upgraded.get("/audit/verify").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_book_of_the_version_before_answers_after_the_upgrade_as_it_did() {
    an_upgrade_changes_no_answer(6_000).await;
}

#[tokio::test]
#[ignore = "takes an hour: five million events"]
async fn a_book_of_five_million_events_answers_after_the_upgrade_as_it_did() {
    an_upgrade_changes_no_answer(2_500_000).await;
}

#[tokio::test]
async fn the_statements_of_the_version_before_reserve_settle_and_list_on_the_tables_after() {
    let service = Service::live().await;
    let ids = [service.reserve("WHOLESALE", "2").await.ok(), service.reserve("WHOLESALE", "3").await.ok()]
        .map(|made| made["reservation_id"].as_str().unwrap().to_owned());
    let mut tx = service.pool.begin().await.unwrap();
    let made = "INSERT INTO risk_reservation
            (id, seq, engine, amount, open_amount, status, day, correlation_id, created_at, expires_at, closed_at, closed_seq)
        SELECT gen_random_uuid(), 3, engine, 4, 4, 'OPEN', day, NULL, created_at + interval '1 s', NULL, NULL, NULL
        FROM risk_reservation WHERE id = $1::uuid";
    let settled = "UPDATE risk_reservation AS kept
        SET open_amount = r.open_amount, status = r.status, expires_at = r.expires_at, closed_at = r.closed_at,
            closed_seq = r.closed_seq
        FROM unnest(ARRAY[$1::uuid], ARRAY[0::numeric], ARRAY['SETTLED'], ARRAY[NULL::timestamptz],
                    ARRAY[holdfast_now() + interval '1 s'], ARRAY[4::bigint])
             AS r (id, open_amount, status, expires_at, closed_at, closed_seq)
        WHERE kept.id = r.id AND kept.status IN ('OPEN', 'EXPIRED')";
    for sql in [made, settled] {
        let done = sqlx::query(sql).bind(&ids[0]).execute(&mut *tx).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{sql}");
    }
    let listed: Vec<(i64, String)> = sqlx::query_as(
        "SELECT seq, status FROM risk_reservation AS held WHERE held.seq < 9 AND held.seq >= 1 ORDER BY held.seq DESC LIMIT 5",
    )
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    assert_eq!(listed, [(3, "OPEN".into()), (2, "OPEN".into()), (1, "SETTLED".into())]);
    let held = "SELECT sum(open_amount)::text FROM risk_reservation WHERE status = 'OPEN'";
    assert_eq!(sqlx::query_scalar::<_, String>(held).fetch_one(&mut *tx).await.unwrap(), "7.000000");
    tx.rollback().await.unwrap();
}
