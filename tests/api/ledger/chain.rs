//! The chain of every stream, recomputed in SQL alone.

use crate::support::{Service, broken_links};
use serde_json::{Value, json};

/// Everything that writes an event, with every optional column filled and left out, and text beyond ASCII.
async fn busy() -> Service {
    let service = Service::live().await;
    write_control_and_risk(&service).await;
    write_heimdall_and_kpi(&service).await;
    service
}

const WORDS: &str = "größer ≥ 1 — “so” 🔒";

async fn write_control_and_risk(service: &Service) {
    let post = async |path: &str, body: Value| service.post(path, &body).await;
    // Control: changes, refusals, packs, policies of all levers.
    post("/go-live/disable", json!({"actor": WORDS, "reason": WORDS})).await.ok();
    let stale = ("if-match", "\"1\"");
    service
        .post_with("/go-live/enable", stale, &json!({"actor": "a", "reason": "r"}))
        .await
        .refused(412, "VERSION_MISMATCH");
    post("/go-live/enable", json!({"actor": "a"})).await.ok();
    post("/go-live/packs", json!({"id": "upstream", "status": "missing", "name": "Ü", "version": "2"})).await.ok();
    post("/risk/policies/upsert", json!({"engine": "CAPITAL", "max_daily_loss": "99.5", "reason": WORDS})).await.ok();
    post("/heimdall/policies/upsert", json!({"domain": "BUYER_MATCH", "min_sandbox_trials": 2, "min_confidence_prod": "0.5", "min_sandbox_success_rate": "0.5",
        "prod_use_enabled": true}))
    .await
    .ok();
    // Risk: allowed, denied on each level, settled three ways.
    let deal = json!({"engine": "WHOLESALE", "amount": "400.250000", "actor": WORDS, "reason": WORDS, "correlation_id": WORDS,
        "metadata": {"b": 1.0, "a": "ü", "n": null}});
    let id = post("/risk/check-and-reserve", deal).await.ok()["reservation_id"].clone();
    for (engine, amount) in
        [("NOBODY", "1"), ("NOTIFY", "1"), ("WHOLESALE", "1500"), ("CAPITAL", "0.000001"), ("CAPITAL", "100")]
    {
        service.reserve(engine, amount).await.ok();
    }
    post(
        "/risk/settle",
        json!({"reservation_id": id, "settled_amount": "0.1", "realized_loss": "1.5", "reason": WORDS}),
    )
    .await
    .ok();
    post("/risk/settle", json!({"engine": "CAPITAL", "reserved_amount": 1, "actor": "a"})).await.ok();
    post("/risk/settle", json!({"engine": "CAPITAL", "reserved_amount": 500, "settled_amount": 600})).await.ok();
}

async fn write_heimdall_and_kpi(service: &Service) {
    let post = async |path: &str, body: Value| service.post(path, &body).await;
    // Heimdall: trials, verdicts both ways, uses both ways.
    for (confidence, success) in [("0.123456789012345678", true), ("1", true), ("0", false), ("0.90", true)] {
        post(
            "/heimdall/sandbox/trial",
            json!({"domain": "BUYER_MATCH", "confidence": confidence, "success": success, "actor": "m", "model_version": WORDS}),
        )
        .await
        .ok();
    }
    for (domain, confidence) in [("BUYER_MATCH", "0.99"), ("BUYER_MATCH", "0.1"), ("UNKNOWN_DOMAIN", "0.5")] {
        let made = json!({"domain": domain, "confidence": confidence, "recommendation": {"do": "ü"}, "evidence": {"why": [1, 2.50]},
            "correlation_id": "t", "actor": "model"});
        let id = post("/heimdall/recommend", made).await.ok()["id"].clone();
        let used =
            post(&format!("/heimdall/recommendations/{id}/require-prod-eligible"), json!({"reason": WORDS})).await;
        assert!(used.status.as_u16() == 200 || used.status.as_u16() == 403, "{}", used.text);
        post(&format!("/heimdall/recommendations/{id}/revoke"), json!({"reason": WORDS})).await.ok();
    }
    // KPI: both kinds, a throttle, a re-arm, a kill switch.
    post(
        "/regression/kpi",
        json!({"domain": "CAPITAL", "metric": "yield", "value": "-12.500000", "detail": WORDS, "event_id": "e-1",
        "correlation_id": "t"}),
    )
    .await
    .ok();
    post("/regression/kpi", json!({"domain": "CAPITAL", "metric": "yield", "value": 0})).await.ok();
    for (metric, action) in [("contract_rate", "THROTTLE"), ("offer_accept_rate", "KILL_SWITCH")] {
        post(
            "/regression/policies/upsert",
            json!({"domain": "WHOLESALE", "metric": metric, "window_events": 2, "baseline_events": 2,
            "min_events_to_enforce": 2, "max_drop_fraction": "0.5", "action": action, "enabled": true}),
        )
        .await
        .ok();
        service.kpis("WHOLESALE", metric, 2, 0).await;
        service.kpis("WHOLESALE", metric, 2, 1).await;
    }
    service.reserve("WHOLESALE", "1").await.ok();
    post(
        "/regression/policies/upsert",
        json!({"domain": "WHOLESALE", "metric": "contract_rate", "enabled": true, "reason": WORDS}),
    )
    .await
    .ok();
    post("/go-live/kill-switch/release", json!({"reason": WORDS})).await.ok();
}

#[tokio::test]
async fn every_hash_of_every_stream_can_be_recomputed_in_sql_alone() {
    let service = busy().await;
    for (stream, sql) in [
        ("control", "SELECT count(DISTINCT action) FROM control_event"),
        ("risk", "SELECT count(DISTINCT (action, scope)) FROM risk_event"),
        ("heimdall", "SELECT count(DISTINCT (action, ok)) FROM heimdall_event"),
        ("kpi", "SELECT count(DISTINCT (success, value)) FROM kpi_event"),
    ] {
        assert!(service.count(sql).await >= 4, "{stream} was not busy");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn an_empty_chain_stands_at_its_beginning() {
    let service = Service::fresh().await;
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

/// Without this, the claim above could be true of anything.
#[tokio::test]
async fn a_changed_column_breaks_its_link() {
    let service = busy().await;
    for stream in ["control", "heimdall", "kpi", "risk"] {
        let sql = sqlx::AssertSqlSafe(format!("ALTER TABLE {stream}_event DISABLE TRIGGER guard"));
        sqlx::query(sql).execute(&service.pool).await.unwrap();
    }
    for (sql, undo, broken) in [
        (
            "UPDATE risk_event SET actor = 'x' WHERE seq = 2",
            "UPDATE risk_event SET actor = 'test' WHERE seq = 2",
            "risk 2",
        ),
        (
            "UPDATE risk_event SET detail = detail || ' ' WHERE seq = 3",
            "UPDATE risk_event SET detail = rtrim(detail) WHERE seq = 3",
            "risk 3",
        ),
        (
            "UPDATE control_event SET subject = 'x' WHERE seq = 1",
            "UPDATE control_event SET subject = NULL WHERE seq = 1",
            "control 1",
        ),
        (
            "UPDATE heimdall_event SET confidence = 0.5 WHERE seq = 2",
            "UPDATE heimdall_event SET confidence = 1 WHERE seq = 2",
            "heimdall 2",
        ),
        (
            "UPDATE kpi_event SET at = at + interval '1 us' WHERE seq = 1",
            "UPDATE kpi_event SET at = at - interval '1 us' WHERE seq = 1",
            "kpi 1",
        ),
    ] {
        sqlx::query(sql).execute(&service.pool).await.unwrap();
        assert_eq!(broken_links(&service.pool).await, [broken]);
        sqlx::query(undo).execute(&service.pool).await.unwrap();
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

#[tokio::test]
async fn the_database_refuses_rows_that_say_what_the_ledger_cannot_mean() {
    let service = Service::live().await;
    let id = service.reserve("WHOLESALE", "5").await.ok()["reservation_id"].clone();
    service.post("/risk/settle", &json!({"reservation_id": id, "realized_loss": 1})).await.ok();
    service.reserve("WHOLESALE", "5").await.ok();
    let refused = async |sql: String, by: &str| {
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&service.pool).await.unwrap_err();
        let error = error.as_database_error().unwrap();
        assert_eq!(error.constraint().unwrap_or(error.message()), by, "{sql}");
    };
    // 1 is a RESERVE of 5, 2 a SETTLE; each is put in again with something changed.
    for (seq, change) in [
        (1, r#"{"action": "NONE"}"#),
        (1, r#"{"day": "2020-01-01"}"#),
        (1, r#"{"amount": -1, "exposure_delta": -1, "open_delta": -1}"#),
        (1, r#"{"amount": 2e12, "exposure_delta": 2e12, "open_delta": 2e12}"#),
        (1, r#"{"ok": false}"#),
        (1, r#"{"denial": "x"}"#),
        (1, r#"{"scope": "GLOBAL"}"#),
        (1, r#"{"exposure_delta": 4}"#),
        (1, r#"{"open_delta": 4}"#),
        (1, r#"{"loss_delta": 1}"#),
        (1, r#"{"actions_delta": 2}"#),
        (1, r#"{"reservation_id": null}"#),
        (1, r#"{"action": "DENY", "ok": false, "denial": "x", "scope": "GLOBAL"}"#),
        (1, r#"{"action": "RELEASE", "actions_delta": 0}"#),
        (1, r#"{"action": "EXPIRE", "actions_delta": 0}"#),
        (1, r#"{"action": "ADJUST", "actions_delta": 0}"#),
        (2, r#"{"open_delta": 1}"#),
        (2, r#"{"loss_delta": -1}"#),
        (2, r#"{"loss_delta": 2e22}"#),
        (2, r#"{"exposure_delta": 2e22}"#),
        (2, r#"{"open_delta": -2e22}"#),
        (2, r#"{"actions_delta": 1}"#),
        (2, r#"{"action": "EXTEND"}"#),
        (2, r#"{"action": "DENY", "ok": false, "denial": "X", "scope": "GLOBAL", "open_delta": 0, "loss_delta": 0}"#),
        (2, r#"{"action": "DENY", "ok": false, "denial": "x", "scope": "g", "open_delta": 0, "loss_delta": 0}"#),
    ] {
        let change = format!("event, '{change}'::jsonb || '{{\"seq\": 99}}'");
        let sql = "INSERT INTO risk_event SELECT (jsonb_populate_record(".to_owned()
            + &change
            + &format!(")).* FROM risk_event AS event WHERE seq = {seq}");
        refused(sql, "risk_event_is_sound").await;
    }
    for (seq, change) in [
        (3, "amount = 0, open_amount = 0"),
        (3, "amount = 2e12"),
        (3, "open_amount = 6"),
        (3, "open_amount = 0"),
        (3, "day = '2020-01-01'"),
        (3, "expires_at = created_at"),
        (3, "expires_at = 'infinity'"),
        (3, "closed_at = now()"),
        (3, "closed_seq = 9"),
        (1, "closed_seq = 1"),
        (1, "closed_at = created_at"),
        (1, "status = 'OPEN'"),
    ] {
        let sql = format!("UPDATE risk_reservation SET {change} WHERE seq = {seq}");
        refused(sql, "risk_reservation_is_sound").await;
    }
    // A status that there is not, and an end without its event, have no place.
    for (seq, change, table) in [
        (3, "status = 'NONE'", "risk_reservation"),
        (3, "status = 'SETTLED'", "risk_reservation_closed"),
        (1, "closed_seq = NULL", "risk_reservation_closed"),
    ] {
        let sql = format!("UPDATE risk_reservation SET {change} WHERE seq = {seq}");
        refused(sql, &format!("no partition of relation \"{table}\" found for row")).await;
    }
}
