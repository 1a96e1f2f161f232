//! Starts that take long, or are in an odd environment, and what can be done with them meanwhile.

use crate::support::Place;
use rustix::process::Signal;
use serde_json::json;

/// What a shell may say to libpq that is wrong for a private PostgreSQL.
const OF_ANOTHER: [(&str, &str); 8] = [
    ("PGHOST", "127.0.0.1"),
    ("PGPORT", "1"),
    ("PGUSER", "nobody"),
    ("PGDATABASE", "nobodys"),
    ("PGSSLMODE", "verify-full"),
    ("PGSSLROOTCERT", "/nonexistent"),
    ("PGSERVICE", "nobodys"),
    ("PGAPPNAME", "nobody"),
];

#[test]
fn nothing_of_libpqs_environment_reaches_the_private_postgresql() {
    for options in [
        "-c search_path=pg_temp -c session_replication_role=replica -c default_transaction_read_only=on",
        "--no_such_setting=1",
    ] {
        let place = Place::new();
        let mut env = OF_ANOTHER.to_vec();
        env.push(("PGOPTIONS", options));
        let migrated = place.run(&["migrate"], &env);
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let server = place.serve_with(&[], &env);
        server.go_live();
        let schema =
            place.sql("holdfast", "SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'audit_head'");
        assert_eq!(schema, ["public"]);
        let verified = place.run(&["audit", "verify"], &env);
        assert_eq!(verified.code, Some(0), "{verified:?}");
        server.post("/go-live/kill-switch/engage", &json!({"actor": "bob"})).ok();
        server.stop(Signal::TERM);
        place.check_nothing_runs();
    }
}

#[test]
fn what_a_database_url_leaves_out_comes_from_libpqs_environment_and_is_verified() {
    let place = Place::new();
    let owner = place.serve();
    place.sql("postgres", "CREATE DATABASE another");
    let url = format!("postgres:///?host={}", place.data().join("run").display());
    let of_url = [("DATABASE_URL", url.as_str()), ("PGUSER", "holdfast"), ("PGDATABASE", "another")];
    let migrated = place.run(&["migrate"], &of_url);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert_eq!(place.sql("another", "SELECT 'here' FROM pg_class WHERE relname = 'audit_head'"), ["here"]);
    let mut env = of_url.to_vec();
    env.push(("PGOPTIONS", "-c session_replication_role=replica"));
    let refused = place.run(&["migrate"], &env);
    let sentence = refused.refusal();
    assert!(sentence.contains("session_replication_role is replica") && sentence.contains("PGOPTIONS"), "{sentence}");
    owner.stop(Signal::TERM);
}
