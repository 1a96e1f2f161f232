//! Values that no driver reads: they cannot be stored, and where a hand has stored one all the same, it fails what asks for it and
//! nothing else.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use crate::support::Service;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, Row};

async fn by_hand(service: &Service, sql: &str) {
    service.pool.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

#[tokio::test]
async fn a_time_that_cannot_be_read_fails_the_operations_that_need_it_and_no_writer() {
    let service = Service::live().await;
    let reserve = |engine: &str| service.post("/risk/check-and-reserve", &json!({"engine": engine, "amount": 1}));
    reserve("WHOLESALE").await.ok();
    by_hand(
        &service,
        "ALTER TABLE risk_ledger_day DROP CONSTRAINT risk_ledger_day_times;
         UPDATE risk_ledger_day SET updated_at = 'infinity' WHERE engine = 'WHOLESALE'",
    )
    .await;
    // Together, so that they may share a batch: each is decided as if it were alone.
    for _ in 0..3 {
        let (spoilt, whole) = tokio::join!(reserve("WHOLESALE"), reserve("CAPITAL"));
        spoilt.refused(500, "INTERNAL_ERROR");
        assert_eq!(whole.ok()["ok"], true);
    }
    by_hand(&service, "UPDATE risk_ledger_day SET updated_at = now() WHERE engine = 'WHOLESALE'").await;
    assert_eq!(reserve("WHOLESALE").await.ok()["ok"], true);
    assert_eq!(service.count("SELECT count(*) FROM risk_reservation").await, 5);
}

#[tokio::test]
async fn a_wire_whose_state_cannot_be_read_fails_its_measurements_and_no_writer() {
    let service = Service::live().await;
    let wire = json!({"domain": "pricing", "metric": "win", "enabled": true, "actor": "test", "reason": "a wire"});
    service.post("/regression/policies/upsert", &wire).await.ok();
    let measure =
        |domain: &str| service.post("/regression/kpi", &json!({"domain": domain, "metric": "win", "success": true}));
    measure("pricing").await.ok();
    by_hand(
        &service,
        "ALTER TABLE regression_state DROP CONSTRAINT regression_state_times;
         UPDATE regression_state SET last_checked_at = 'infinity'",
    )
    .await;
    let (spoilt, whole) = tokio::join!(measure("pricing"), measure("other"));
    spoilt.refused(500, "INTERNAL_ERROR");
    whole.ok();
    by_hand(&service, "UPDATE regression_state SET last_checked_at = now()").await;
    measure("pricing").await.ok();
}

#[tokio::test]
async fn a_measurement_whose_wire_cannot_be_judged_leaves_nothing_behind() {
    let service = Service::live().await;
    let wire = json!({"domain": "pricing", "metric": "win", "window_events": 5, "baseline_events": 10,
                      "min_events_to_enforce": 5, "enabled": true, "actor": "test", "reason": "a wire"});
    service.post("/regression/policies/upsert", &wire).await.ok();
    let measured = json!({"domain": "pricing", "metric": "win", "success": true});
    for _ in 0..15 {
        service.post("/regression/kpi", &measured).await.ok();
    }
    // The end of the next baseline is gone.
    by_hand(
        &service,
        "ALTER TABLE kpi_event DISABLE TRIGGER ALL;
         CREATE TABLE aside AS SELECT * FROM kpi_event WHERE series_seq = 11;
         DELETE FROM kpi_event WHERE series_seq = 11",
    )
    .await;
    service.post("/regression/kpi", &measured).await.refused(500, "INTERNAL_ERROR");
    assert_eq!(service.count("SELECT count(*) FROM kpi_event").await, 14);
    by_hand(&service, "INSERT INTO kpi_event SELECT * FROM aside").await;
    service.post("/regression/kpi", &measured).await.ok();
}

/// A domain with an engine, whose production use is on.
async fn promoted(service: &Service) {
    let on = json!({"domain": "ND", "engine": "WHOLESALE", "prod_use_enabled": true, "actor": "bob"});
    service.post("/heimdall/policies/upsert", &on).await.ok();
}

#[tokio::test]
async fn a_risk_policy_that_no_program_can_read_does_not_stop_a_demote() {
    let service = Service::live().await;
    promoted(&service).await;
    by_hand(
        &service,
        "ALTER TABLE risk_policy DROP CONSTRAINT risk_policy_times, DROP CONSTRAINT risk_policy_updated_at_check;
         UPDATE risk_policy SET updated_at = 'infinity' WHERE engine = 'CAPITAL'",
    )
    .await;
    let demoted = service.post("/heimdall/demote", &json!({"domain": "ND"})).await.ok();
    assert_eq!(demoted["prod_use_enabled"], false, "{demoted}");
    by_hand(&service, "UPDATE risk_policy SET updated_at = now() WHERE engine = 'CAPITAL'").await;
}

#[tokio::test]
async fn a_warning_that_cannot_be_made_does_not_stop_a_demote() {
    let service = Service::live().await;
    promoted(&service).await;
    by_hand(&service, "ALTER TABLE risk_policy RENAME TO aside").await;
    let demoted = service.post("/heimdall/demote", &json!({"domain": "ND"})).await.ok();
    assert_eq!(demoted["prod_use_enabled"], false, "{demoted}");
    by_hand(&service, "ALTER TABLE aside RENAME TO risk_policy").await;
}

#[tokio::test]
async fn a_wire_that_cannot_be_judged_keeps_no_other_from_its_trip_by_silence() {
    let service = Service::live().await;
    for metric in ["a", "b"] {
        let wire = json!({"domain": "pricing", "metric": metric, "on_stale": "TRIP", "stale_after_seconds": 60, "actor": "test",
                          "reason": "a wire"});
        service.post("/regression/policies/upsert", &wire).await.ok();
        let measured = json!({"domain": "pricing", "metric": metric, "success": true});
        service.post("/regression/kpi", &measured).await.ok();
    }
    by_hand(
        &service,
        "ALTER TABLE regression_state DROP CONSTRAINT regression_state_times;
         UPDATE regression_state SET last_checked_at = 'infinity' WHERE metric = 'a'",
    )
    .await;
    service.set_skew("61 seconds").await;
    assert_eq!(service.app.regression.trip_silent().await.unwrap(), 1);
    by_hand(&service, "UPDATE regression_state SET last_checked_at = now() WHERE metric = 'a'").await;
    assert_eq!(service.app.regression.trip_silent().await.unwrap(), 1, "the other, once it can be judged");
}

#[tokio::test]
async fn a_disable_that_fails_says_how_to_stop_everything_all_the_same() {
    let service = Service::live().await;
    by_hand(
        &service,
        "ALTER TABLE go_live_state DROP CONSTRAINT go_live_state_times, DROP CONSTRAINT go_live_state_updated_at_check;
         UPDATE go_live_state SET updated_at = 'infinity'",
    )
    .await;
    let failed = service.post("/go-live/disable", &json!({"actor": "bob"})).await.refused(500, "INTERNAL_ERROR");
    let detail = failed["detail"].as_str().unwrap();
    assert!(detail.starts_with("go-live may still be enabled: ") && detail.contains("holdfast kill"), "{detail}");
    by_hand(&service, "UPDATE go_live_state SET updated_at = now()").await;
}

/// Each time or day of a table of ours, with the conditions of its table, to be asked about a row that has nothing but that value. The
/// day of an event or a hold is that of its time.
const COLUMNS: &str = "
    SELECT c.oid::regclass::text AS name, a.attname::text AS column, format_type(a.atttypid, NULL) AS kind,
           (SELECT array_agg(pg_get_expr(k.conbin, k.conrelid)) FROM pg_constraint k
            WHERE k.conrelid = c.oid AND k.contype = 'c' AND a.attnum = ANY (k.conkey)) AS conditions,
           (SELECT array_agg(format('NULL::%s AS %I', format_type(o.atttypid, o.atttypmod), o.attname)) FROM pg_attribute o
            WHERE o.attrelid = c.oid AND o.attnum > 0 AND NOT o.attisdropped AND o.attnum <> a.attnum) AS others
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND c.relname <> '_sqlx_migrations' AND (c.relname, a.attname) NOT IN (('risk_event', 'day'), ('risk_reservation', 'day'))
      AND a.attnum > 0 AND NOT a.attisdropped
      AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)";

#[tokio::test]
async fn no_table_takes_a_time_or_a_day_that_cannot_be_read() {
    let service = Service::fresh().await;
    let columns = sqlx::query(COLUMNS).fetch_all(&service.pool).await.unwrap();
    assert!(columns.len() > 40, "{} columns", columns.len());
    let mut taken = Vec::new();
    for row in columns {
        let (table, column, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let conditions: Vec<String> = row.get::<Option<_>, _>(3).unwrap_or_default();
        let others: Vec<String> = row.get::<Option<_>, _>(4).unwrap_or_default();
        for value in ["infinity", "-infinity"] {
            let fields = [vec![format!("'{value}'::{kind} AS {column}")], others.clone()].concat().join(", ");
            let mut refused = false;
            for condition in &conditions {
                let sql = format!("SELECT {condition} FROM (SELECT {fields}) AS {table}");
                let holds: Option<bool> =
                    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&service.pool).await.unwrap();
                refused |= holds == Some(false);
            }
            if !refused {
                taken.push(format!("{table}.{column} = {value}"));
            }
        }
    }
    assert_eq!(taken, [""; 0]);
}
