//! The settings of every session, for every purpose and whatever the database's defaults.

use crate::support::Service;
use holdfast::db::Database;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

/// Settings of a database, and what a session has instead.
const SETTINGS: [(&str, &str, &str); 12] = [
    ("bytea_output", "escape", "hex"),
    ("quote_all_identifiers", "on", "off"),
    ("datestyle", "German", "ISO, MDY"),
    ("default_transaction_read_only", "on", "off"),
    ("default_transaction_isolation", "serializable", "read committed"),
    ("client_min_messages", "error", "notice"),
    ("synchronous_commit", "remote_write", "on"),
    ("statement_timeout", "1h", "5s"),
    ("idle_session_timeout", "1h", "0"),
    ("extra_float_digits", "-15", "1"),
    ("standard_conforming_strings", "off", "on"),
    ("jit", "on", "off"),
];

/// The settings of a session.
async fn settings(conn: &mut PgConnection) -> Vec<String> {
    let list = SETTINGS.map(|(name, ..)| format!("current_setting('{name}')")).join(", ");
    let row = conn.fetch_one(AssertSqlSafe(format!("SELECT ARRAY[{list}]::text[]"))).await.unwrap();
    row.get(0)
}

#[tokio::test]
async fn every_session_is_as_it_was_set_whatever_the_database_says() {
    let service = Service::fresh().await;
    let name = service.options.get_database().unwrap();
    // One session, from before: a later one could only read.
    let mut hand = service.pool.acquire().await.unwrap();
    for (setting, value, _) in SETTINGS {
        let alter = format!("ALTER DATABASE {name} SET {setting} = '{value}'");
        hand.execute(AssertSqlSafe(alter)).await.unwrap();
    }
    let db = Database::open(service.options.clone()).await.unwrap();
    let expected = SETTINGS.map(|(.., has)| has.to_owned()).to_vec();
    assert_eq!(settings(&mut db.read().await.unwrap()).await, expected);
    assert_eq!(settings(&mut db.begin().await.unwrap()).await, expected);
    assert_eq!(settings(&mut db.begin_switch().await.unwrap()).await, expected);
    assert_eq!(settings(&mut db.begin_snapshot().await.unwrap()).await, expected);
    assert_eq!(settings(&mut db.connect_feed().await.unwrap()).await, expected);
    assert_eq!(settings(&mut db.connect_writer().await.unwrap()).await, expected);
    assert_eq!(settings(&mut db.listener_pool().unwrap().acquire().await.unwrap()).await, expected);
    let mut snapshot = db.connect_snapshot().await.unwrap();
    assert_eq!(settings(&mut snapshot).await[..7], expected[..7]);
    // A stricter one than ours stays.
    let stricter = format!("ALTER DATABASE {name} SET synchronous_commit = 'remote_apply'");
    hand.execute(AssertSqlSafe(stricter)).await.unwrap();
    assert_eq!(settings(&mut db.connect_writer().await.unwrap()).await[6], "remote_apply");
}

#[tokio::test]
async fn a_schema_of_the_roles_name_that_is_made_later_does_not_take_the_tables_over() {
    let service = Service::live().await;
    let user = service.options.get_username();
    service.pool.execute(AssertSqlSafe(format!("CREATE SCHEMA {user}"))).await.unwrap();
    let db = Database::open(service.options.clone()).await.unwrap();
    let row = db.read().await.unwrap().fetch_one("SELECT current_schema()::text").await.unwrap();
    assert_eq!(row.get::<String, _>(0), "public");
    db.migrate().await.unwrap();
    let row = db.read().await.unwrap().fetch_one("SELECT count(*) FROM pg_class WHERE relname = 'audit_head'").await;
    assert_eq!(row.unwrap().get::<i64, _>(0), 1);
}

#[tokio::test]
async fn closing_does_not_wait_for_a_connection_that_is_never_given_back() {
    let service = Service::fresh().await;
    let db = Database::open(service.options.clone()).await.unwrap();
    let held = db.begin().await.unwrap();
    // This ends, or the test does not.
    db.close().await;
    assert!(db.is_closed());
    drop(held);
}
