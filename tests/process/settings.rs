//! Settings of a role or a database that were made for other programs.

use crate::standby::programs;
use crate::storm::as_done;
use crate::support::{Place, Server, free_port};
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};

/// What changes how values look, what statements mean, and how long they may take.
const HOSTILE: [&str; 21] = [
    "bytea_output = 'escape'",
    "quote_all_identifiers = on",
    "datestyle = 'German, DMY'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'Asia/Kathmandu'",
    "extra_float_digits = -15",
    "standard_conforming_strings = off",
    "escape_string_warning = off",
    "transform_null_equals = on",
    "array_nulls = off",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_read_only = on",
    "default_transaction_deferrable = on",
    "idle_session_timeout = '1h'",
    "lock_timeout = '1h'",
    "statement_timeout = '1h'",
    "idle_in_transaction_session_timeout = '1h'",
    "synchronous_commit = 'local'",
    "plan_cache_mode = 'force_generic_plan'",
    "client_min_messages = 'error'",
    "search_path = 'nobodys', 'public'",
];

/// A database with such settings, in the private PostgreSQL of a server.
fn hostile(place: &Place, settings: &[&str]) -> (Server, String) {
    let owner = place.serve();
    place.sql("postgres", "CREATE DATABASE hostile");
    for setting in settings {
        place.sql("postgres", &format!("ALTER DATABASE hostile SET {setting}"));
    }
    (owner, place.url("hostile"))
}

/// As `docs/audit-chain.sql`: whether the events and the head of every stream hold.
const HOLDS: &str = "
WITH event AS (
  SELECT 'control' AS stream, * FROM control_bytes
  UNION ALL SELECT 'heimdall', * FROM heimdall_bytes
  UNION ALL SELECT 'kpi', * FROM kpi_bytes
  UNION ALL SELECT 'risk', * FROM risk_bytes
), link AS (
  SELECT stream, seq, hash, seq = row_number() OVER this AND hash = sha256(
           COALESCE(lag(hash) OVER this, decode(repeat('00', 32), 'hex')) || canonical) AS holds
  FROM event WINDOW this AS (PARTITION BY stream ORDER BY seq)
)
SELECT stream, bool_and(holds), bool_or(link.hash = head.hash)
FROM audit_head AS head JOIN link USING (stream)
GROUP BY stream ORDER BY stream;
";

/// What `docs/audit-bytes.sql` makes of the trail, by psql.
fn recomputed(place: &Place, url: &str) -> String {
    let bytes = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/audit-bytes.sql")).expect("the script");
    let script = place.path("recompute.sql");
    fs::write(&script, format!("{bytes}\n{HOLDS}")).expect("a file");
    let mut psql = Command::new(programs().join("psql"));
    psql.args(["-X", "-A", "-t", "-f"]).arg(script).arg(url).stdin(Stdio::null());
    let ended = place.run_to_end(psql);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    ended.out
}

#[test]
fn settings_of_the_database_change_nothing_of_what_is_decided_recorded_and_verified() {
    let place = Place::new();
    let (_owner, url) = hostile(&place, &HOSTILE);
    let env = [("DATABASE_URL", url.as_str())];
    let migrated = place.run(&["migrate"], &env);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");

    let server = place.serve_with(&[], &env);
    server.go_live();
    let reserve = json!({"engine": "WHOLESALE", "amount": 7, "actor": "Zoë", "reason": "\\ '€'", "metadata": {"a": 0.1},
                         "idempotency_key": "one"});
    let reserved = server.post("/risk/check-and-reserve", &reserve).ok();
    let again = server.post("/risk/check-and-reserve", &reserve).ok();
    assert_eq!(as_done(&again, &reserved), as_done(&reserved, &again), "the same key");
    let id = reserved["reservation_id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("/risk/reservations/{id}")).ok()["status"], "OPEN");
    let denied = json!({"engine": "WHOLESALE", "amount": 100_000_000, "actor": "test", "idempotency_key": "two"});
    assert_eq!(server.post("/risk/check-and-reserve", &denied).ok()["ok"], false);
    server.post("/risk/settle", &json!({"reservation_id": id, "realized_loss": "0.5", "actor": "test"})).ok();
    server.post("/regression/kpi", &json!({"domain": "D", "metric": "m", "value": "-1.5", "event_id": "e"})).ok();
    server.post("/heimdall/sandbox/trial", &json!({"domain": "D", "confidence": "0.25", "success": true})).ok();
    server.post("/heimdall/recommend", &json!({"domain": "D", "confidence": "0.9", "evidence": {"x": null}})).ok();
    server.get("/risk/ledger/today").ok();
    server.get("/review").ok();
    assert_eq!(server.get("/audit/verify").ok()["ok"], true);

    let verified = place.run(&["audit", "verify"], &env);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let balanced = place.run(&["risk", "reconcile"], &env);
    assert_eq!(balanced.code, Some(0), "{balanced:?}");
    let exported = place.run(&["audit", "export"], &env);
    let (code, said) = crate::audit::verified(&exported.out);
    assert_eq!(code, Some(0), "{said:?}");
    assert_eq!(recomputed(&place, &url), "control|t|t\nheimdall|t|t\nkpi|t|t\nrisk|t|t\n");
}

#[test]
fn a_start_is_refused_for_settings_that_it_cannot_mend() {
    for (setting, said) in [
        ("search_path = ''", "search_path"),
        ("session_replication_role = 'replica'", "session_replication_role is replica"),
    ] {
        let place = Place::new();
        let (_owner, url) = hostile(&place, &[setting]);
        let bind = format!("127.0.0.1:{}", free_port());
        let refused = place.run(&["serve"], &[("DATABASE_URL", &url), ("BIND_ADDR", &bind)]);
        let sentence = refused.refusal();
        assert!(sentence.contains(said) && sentence.contains("ALTER ROLE"), "{sentence}");
    }
}
