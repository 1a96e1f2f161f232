//! Databases that are older, newer or other than this server.

use crate::support::{Place, Server, free_port};
use rustix::process::Signal;

/// A migrated database of its own on the private PostgreSQL of `place`, changed by this SQL.
fn database(place: &Place, name: &str, sql: &[&str]) -> String {
    place.sql("postgres", &format!("CREATE DATABASE {name}"));
    let url = place.url(name);
    let migrated = place.run(&["migrate"], &[("DATABASE_URL", &url)]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    for sql in sql {
        place.sql(name, sql);
    }
    url
}

#[test]
fn a_schema_that_does_not_fit_is_refused() {
    let place = Place::new();
    let _owner = place.serve();
    let other = Place::new();
    let refused = |url: &str| {
        let bind = format!("127.0.0.1:{}", free_port());
        let ended = other.run(&["serve"], &[("DATABASE_URL", url), ("BIND_ADDR", &bind)]);
        let migrated = other.run(&["migrate"], &[("DATABASE_URL", url)]);
        assert_eq!(migrated.refusal(), ended.refusal());
        ended.refusal().to_owned()
    };

    let changed = database(&place, "changed", &["UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2"]);
    let sentence = refused(&changed);
    assert!(sentence.contains("migration 2 ") && sentence.contains("modified"), "{sentence}");

    let newer = database(&place, "newer", &["UPDATE setting SET value = '9999' WHERE key = 'schema_minimum'"]);
    let sentence = refused(&newer);
    assert!(sentence.contains("9999") && sentence.contains("upgrade holdfast"), "{sentence}");
}

#[test]
fn a_schema_minimum_that_cannot_be_read_is_refused_and_not_taken_for_none() {
    let place = Place::new();
    let _owner = place.serve();
    for value in ["next", "", "99999999999999999999"] {
        place.sql("holdfast", &format!("UPDATE setting SET value = '{value}' WHERE key = 'schema_minimum'"));
        let migrated = place.run(&["migrate"], &[]);
        assert!(migrated.refusal().contains("schema_minimum"), "{migrated:?}");
    }
}

#[test]
fn a_migration_that_failed_half_way_is_refused() {
    let place = Place::new();
    let _owner = place.serve();
    let dirty = database(&place, "dirty", &["UPDATE _sqlx_migrations SET success = false WHERE version = 3"]);
    let other = Place::new();
    let bind = format!("127.0.0.1:{}", free_port());
    let ended = other.run(&["serve"], &[("DATABASE_URL", &dirty), ("BIND_ADDR", &bind)]);
    assert!(ended.refusal().contains("migration 3"), "{ended:?}");
    let status = other.run(&["migrate", "--status"], &[("DATABASE_URL", &dirty)]);
    assert!(status.out.contains("PENDING"), "{status:?}");
}

#[test]
fn a_server_runs_on_a_newer_schema_that_allows_it() {
    let place = Place::new();
    let _owner = place.serve();
    let newer = database(
        &place,
        "newer",
        &["INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
           VALUES (9998, 'of a newer server', true, '\\x00', 0)"],
    );
    let other = Place::new();
    let server = other.serve_with(&[], &[("DATABASE_URL", &newer)]);
    server.go_live();
    server.try_reserve().expect("an answer").ok();
    server.stop(Signal::TERM);
    let again = other.run(&["migrate"], &[("DATABASE_URL", &newer)]);
    assert_eq!(again.code, Some(0), "{again:?}");
}

#[test]
fn the_first_event_of_a_fresh_installation_is_compact_and_one_beside_an_older_server_is_not() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    server.try_reserve().expect("an answer").ok();
    // As after an upgrade of one of two servers.
    place.sql("holdfast", "UPDATE setting SET value = '16' WHERE key = 'schema_minimum'");
    place.sql(
        "holdfast",
        "INSERT INTO instance (id, name, version, configuration, standing, started_at, seen_at)
         VALUES (gen_random_uuid(), 'the older one', '0', '{}', 'state', now(), now() + interval '1 hour')",
    );
    server.stop(Signal::TERM);
    let server = place.serve();
    server.try_reserve().expect("an answer").ok();
    let log = server.log();
    assert!(log.contains("long form, because an older instance runs") && log.contains("the older one"), "{log}");
    let compact = "SELECT (detail LIKE '{\"v\":2,%')::text FROM risk_event WHERE action = 'RESERVE' ORDER BY seq";
    assert_eq!(place.sql("holdfast", compact), ["true", "false"]);
    let minimum = "SELECT value FROM setting WHERE key = 'schema_minimum'";
    assert_eq!(place.sql("holdfast", minimum), ["16"]);
    server.stop(Signal::TERM);
}

#[test]
fn servers_that_start_at_once_on_an_empty_database_all_come_up() {
    let place = Place::new();
    let _owner = place.serve();
    place.sql("postgres", "CREATE DATABASE empty");
    let other = Place::new();
    let url = place.url("empty");
    let servers: Vec<Server> = (0..4).map(|_| other.launch(&[], &[("DATABASE_URL", &url)])).collect();
    for server in &servers {
        server.wait_until_ready();
    }
    assert_eq!(
        place.sql("empty", "SELECT count(*)::text FROM _sqlx_migrations WHERE success"),
        place.sql("holdfast", "SELECT count(*)::text FROM _sqlx_migrations WHERE success")
    );
}

/// The objects in the public schema of a database, by name.
fn relations(place: &Place, name: &str) -> Vec<String> {
    place.sql(name, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1")
}

#[test]
fn a_database_of_another_application_is_refused_before_anything_is_written() {
    let place = Place::new();
    let _owner = place.serve();
    let other = Place::new();
    for (name, sql) in [
        (
            "sqlx",
            "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL); INSERT INTO _sqlx_migrations VALUES (20240101000000, 'theirs', now(), true, '\\x00', 1)",
        ),
        ("django", "CREATE TABLE django_migrations (id int); CREATE TABLE orders (id int)"),
    ] {
        place.sql("postgres", &format!("CREATE DATABASE {name}"));
        for sql in sql.split("; ") {
            place.sql(name, sql);
        }
        let before = relations(&place, name);
        let url = place.url(name);
        let bind = format!("127.0.0.1:{}", free_port());
        for command in ["migrate", "serve"] {
            let refused = other.run(&[command], &[("DATABASE_URL", &url), ("BIND_ADDR", &bind)]);
            assert!(refused.refusal().contains("another application"), "{refused:?}");
            assert!(refused.refusal().contains("search_path"), "{refused:?}");
        }
        assert_eq!(relations(&place, name), before, "{name}");
        // A schema of its own is the way beside it.
        place.sql(name, "CREATE SCHEMA holdfast");
        let own = format!("{url}&options[search_path]=holdfast");
        let migrated = other.run(&["migrate"], &[("DATABASE_URL", &own)]);
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        assert_eq!(relations(&place, name), before, "{name}");
    }
}

#[test]
fn a_database_that_is_not_in_utf8_is_refused_before_anything_is_written() {
    let place = Place::new();
    let _owner = place.serve();
    let other = Place::new();
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = encoding.to_lowercase();
        place.sql("postgres", &format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"));
        let url = place.url(&name);
        let bind = format!("127.0.0.1:{}", free_port());
        for command in ["migrate", "serve"] {
            let refused = other.run(&[command], &[("DATABASE_URL", &url), ("BIND_ADDR", &bind)]);
            assert!(refused.refusal().contains(encoding) && refused.refusal().contains("UTF8"), "{refused:?}");
        }
        assert_eq!(relations(&place, &name), Vec::<String>::new(), "{encoding}");
    }
}

#[test]
fn a_first_migration_that_failed_leaves_an_empty_list_behind_and_is_tried_again() {
    let place = Place::new();
    let _owner = place.serve();
    place.sql("postgres", "CREATE DATABASE hindered");
    // Of the same name as one of ours.
    place.sql("hindered", "CREATE FUNCTION holdfast_now() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let env = [("DATABASE_URL", &*place.url("hindered"))];
    let failed = place.run(&["migrate"], &env);
    assert!(failed.refusal().contains("migrations cannot be applied"), "{failed:?}");
    assert_eq!(relations(&place, "hindered"), ["_sqlx_migrations", "_sqlx_migrations_pkey"]);
    assert_eq!(place.sql("hindered", "SELECT count(*)::text FROM _sqlx_migrations"), ["0"]);
    place.sql("hindered", "DROP FUNCTION holdfast_now()");
    let again = place.run(&["migrate"], &env);
    assert_eq!(again.code, Some(0), "{again:?}");
}
