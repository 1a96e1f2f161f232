//! Copies of a book: by hand, by dump and restore, by logical replication.

use crate::standby::{Node, programs};
use crate::support::{Ended, Place, Server, Session, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::process::Command;

/// Something in every stream, and in most tables.
fn live(server: &Server) {
    server.go_live();
    for _ in 0..3 {
        server.try_reserve().expect("an answer").ok();
    }
    server.post("/heimdall/sandbox/trial", &json!({"domain": "BUYER_MATCH", "confidence": 0.95, "success": true})).ok();
    server.post("/regression/kpi", &json!({"domain": "WHOLESALE", "metric": "contract_rate", "success": true})).ok();
}

/// Dumps a database with these options, and restores it into another.
#[track_caller]
fn copy(place: &Place, options: &[&str], from: &str, to: &str) {
    let file = place.path("copy.sql").display().to_string();
    let run = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(programs().join(name));
        command.args(arguments).env_clear();
        let ended = place.run_to_end(command);
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
    };
    run("pg_dump", &[&["--no-publications", "--no-subscriptions", "-d", from, "-f", &file], options].concat());
    run("psql", &["-qX", "-v", "ON_ERROR_STOP=1", "-d", to, "-f", &file]);
}

fn verify(place: &Place, url: &str) -> Ended {
    place.run(&["audit", "verify"], &[("DATABASE_URL", url)])
}

/// The missing parts that a verification reports.
#[track_caller]
fn missing(place: &Place, url: &str) -> Vec<String> {
    let verified = verify(place, url);
    let missing: Vec<_> =
        verified.out.lines().filter_map(|line| line.strip_prefix("MISSING ")).map(str::to_owned).collect();
    assert_eq!(verified.code, Some(i32::from(!missing.is_empty())), "{verified:?}");
    assert_eq!(verified.out.contains("the trail is whole, in "), missing.is_empty(), "{verified:?}");
    missing
}

#[test]
fn a_hand_changes_policies_and_erases_texts_whatever_its_search_path_and_the_schema_are() {
    let place = Place::new();
    let server = place.serve();
    live(&server);
    place.sql("postgres", "CREATE DATABASE hand");
    let hand = place.url("hand");
    copy(&place, &[], &place.url("holdfast"), &hand);
    let mut session = place.session("hand");
    session.sql("SET search_path = ''");
    for (schema, rename) in [("public", None), ("book", Some("ALTER SCHEMA public RENAME TO book"))] {
        if let Some(rename) = rename {
            session.sql(rename);
        }
        let turn = format!("SELECT turn::text FROM {schema}.audit_head WHERE stream = 'risk'");
        let before: i64 = session.sql(&turn)[0].parse().expect("a number");
        session.sql(&format!("UPDATE {schema}.risk_policy SET updated_at = updated_at WHERE engine = 'GLOBAL'"));
        session.sql(&format!("DELETE FROM {schema}.risk_halt"));
        assert_eq!(session.sql(&turn), [(before + 2).to_string()], "{schema}");
        let seq = session
            .sql(&format!("SELECT min(seq)::text FROM {schema}.control_event WHERE reason IS NOT NULL"))
            .remove(0);
        session.sql(&format!(
            "INSERT INTO {schema}.audit_erasure SELECT 'control', seq, 'reason', encode(sha256(convert_to(reason, 'UTF8')), 'hex'), at
             FROM {schema}.control_event WHERE seq = {seq}"
        ));
        let erased = format!("UPDATE {schema}.control_event SET reason = NULL WHERE seq = {seq} RETURNING seq::text");
        assert_eq!(session.sql(&erased), [seq], "{schema}");
    }
    server.stop(Signal::TERM);
}

#[test]
fn a_restore_in_part_is_told_by_the_verification_the_review_and_the_start() {
    let place = Place::new();
    let server = place.serve();
    live(&server);
    let from = place.url("holdfast");
    for name in ["data_only", "disarmed"] {
        place.sql("postgres", &format!("CREATE DATABASE {name}"));
        copy(&place, &["--schema-only"], &from, &place.url(name));
    }
    // Policies are restored in spite of the empty search path of a dump, and what moves the head does.
    let data_only = place.url("data_only");
    copy(&place, &["--data-only"], &from, &data_only);
    assert_eq!(missing(&place, &data_only), Vec::<String>::new());

    // pg_restore arms every trigger again, and every guard as an ordinary one.
    let disarmed = place.url("disarmed");
    copy(&place, &["--data-only", "--disable-triggers"], &from, &disarmed);
    let told = missing(&place, &disarmed);
    // Two guards of each table; the rows of heimdall_event and risk_event are in their partitions.
    let partitions = "SELECT count(*)::text FROM pg_inherits
                      WHERE inhparent IN ('heimdall_event'::regclass, 'risk_event'::regclass)";
    let partitions: usize = place.sql("disarmed", partitions)[0].parse().expect("a number");
    assert_eq!(told.len(), 2 * (6 + partitions), "{told:?}");
    let elsewhere = Place::new();
    let server_of_copy = elsewhere.launch(&[], &[("DATABASE_URL", &disarmed)]);
    server_of_copy.wait_until_ready();
    let review = server_of_copy.get("/review").ok();
    let mut verified = None;
    // The schedule may be at it: one at a time.
    wait_until("it is verified", || {
        verified = Some(server_of_copy.get("/audit/verify")).filter(|reply| reply.status == 200);
        verified.is_some()
    });
    let verified = verified.expect("an answer").ok();
    let log = server_of_copy.stop(Signal::TERM);
    assert_eq!((&verified["ok"], &verified["missing"]), (&json!(false), &json!(told)));
    for line in &told {
        assert!(log.contains(line.as_str()), "{line}: {log}");
        let first = review["look_first"].as_array().expect("a list");
        assert!(
            first.iter().any(|told| told.as_str().is_some_and(|told| told.contains(line.as_str()))),
            "{line}: {review}"
        );
        let statement = line.split_once(": ").expect("the next step").1;
        place.sql("disarmed", statement);
    }
    assert_eq!(missing(&place, &disarmed), Vec::<String>::new());

    for (harm, what) in [
        ("DELETE FROM risk_policy WHERE engine = 'NOTIFY'", "risk_policy lacks NOTIFY"),
        ("DELETE FROM regression_policy WHERE domain = 'CAPITAL'", "regression_policy lacks CAPITAL.roi_event"),
        ("ALTER TABLE idempotency_key DETACH PARTITION idempotency_key_other", "idempotency_key lacks the partition"),
        ("ALTER TABLE risk_policy DISABLE TRIGGER turn", "ALTER TABLE risk_policy ENABLE TRIGGER turn"),
        ("DROP TRIGGER guard ON kpi_event", "the trigger guard of kpi_event is missing"),
        ("DELETE FROM _sqlx_migrations WHERE version = 1", "1 migrations are not applied"),
    ] {
        place.sql("disarmed", harm);
        let told = missing(&place, &disarmed);
        assert!(told.iter().any(|told| told.contains(what)), "{harm}: {told:?}");
    }
    server.stop(Signal::TERM);
}

/// A book in which the trail tells of rows of every kind.
fn told(place: &Place) -> Server {
    let server = place.serve();
    live(&server);
    let wire = |metric: &str, engine: &str| {
        let wire = json!({"domain": "WHOLESALE", "metric": metric, "window_events": 1, "baseline_events": 1,
                          "min_events_to_enforce": 1, "engine": engine, "actor": "ann"});
        server.post("/regression/policies/upsert", &wire).ok();
    };
    let drop = |metric: &str| {
        for success in [true, false] {
            let event = json!({"domain": "WHOLESALE", "metric": metric, "success": success, "actor": "shop"});
            server.post("/regression/kpi", &event).ok();
        }
    };
    for (metric, engine) in
        [("stands", "CAPITAL"), ("rearmed", "CAPITAL"), ("overridden", "WHOLESALE"), ("new", "MADE")]
    {
        wire(metric, engine);
        drop(metric);
    }
    let of = |metric: &str| json!({"domain": "WHOLESALE", "metric": metric, "actor": "ann", "reason": "looked at"});
    server.post("/regression/rearm", &of("rearmed")).ok();
    let enabled = json!({"engine": "WHOLESALE", "enabled": true, "actor": "ann", "reason": "looked at"});
    server.post("/risk/policies/upsert", &enabled).ok();
    let caps =
        json!({"engine": "RETAIL", "max_daily_loss": 5, "max_daily_exposure": 5, "max_open_risk": 5, "actor": "ann"});
    server.post("/risk/policies/upsert", &caps).ok();
    let domain = json!({"domain": "PRICING", "min_confidence_prod": 0.9, "actor": "ann"});
    server.post("/heimdall/policies/upsert", &domain).ok();
    server.post("/go-live/packs", &json!({"id": "extra", "status": "installed", "actor": "ann"})).ok();
    let kind = json!({"domain": "PRICING", "metric": "margin", "kind": "NUMERIC", "actor": "ann", "reason": "new"});
    server.post("/regression/kind", &kind).ok();
    let reset =
        json!({"domain": "WHOLESALE", "metric": "rearmed", "source": "NEXT_N", "actor": "ann", "reason": "new"});
    server.post("/regression/baseline/reset", &reset).ok();
    // A removed policy is not reported as missing, whether a migration or a caller created it.
    for domain in ["CAPITAL_ROUTE", "GONE"] {
        let made = json!({"domain": domain, "min_confidence_prod": 0.9, "actor": "ann"});
        server.post("/heimdall/policies/upsert", &made).ok();
        server.post("/heimdall/policies/remove", &json!({"domain": domain, "actor": "ann"})).ok();
    }
    let made = json!({"engine": "GONE", "max_daily_loss": 5, "max_daily_exposure": 5, "max_open_risk": 5, "enabled": false, "actor": "ann"});
    server.post("/risk/policies/upsert", &made).ok();
    for engine in ["NOTIFY", "GONE"] {
        server.post("/risk/policies/remove", &json!({"engine": engine, "actor": "ann"})).ok();
    }
    let kind = json!({"domain": "PRICING", "metric": "gone", "kind": "NUMERIC", "actor": "ann"});
    server.post("/regression/kind", &kind).ok();
    for (domain, metric) in [("PRICING", "gone"), ("BUYER_MATCH", "match_success")] {
        let wire = json!({"domain": domain, "metric": metric, "actor": "ann"});
        server.post("/regression/policies/remove", &wire).ok();
    }
    server
}

#[test]
fn a_copy_without_a_row_of_which_the_trail_tells_is_not_called_whole() {
    let place = Place::new();
    let server = told(&place);
    let url = place.url("holdfast");
    let erased = place.run(
        &["audit", "erase", "--stream", "control", "--seq", "2", "--field", "reason", "--reason", "a request"],
        &[("DATABASE_URL", &url)],
    );
    assert_eq!(erased.code, Some(0), "{erased:?}");
    // A re-arm and an override leave no throttle, and a removal no policy.
    assert_eq!(missing(&place, &url), Vec::<String>::new());
    let mut session = place.session("holdfast");
    let trip = |session: &mut Session, metric: &str| {
        session.sql(&format!("SELECT id::text FROM regression_trip WHERE metric = '{metric}'")).remove(0)
    };
    let (stands, new) = (trip(&mut session, "stands"), trip(&mut session, "new"));
    place.sql("postgres", "CREATE DATABASE part");
    copy(&place, &[], &url, &place.url("part"));
    let mut part = place.session("part");
    // Rows that refer to missing rows are missing as well, or the copy was made without checks.
    part.sql("SET session_replication_role = replica");
    let harms = [
        (
            "risk_throttle",
            "engine = 'CAPITAL'",
            format!("risk_throttle lacks CAPITAL (trip {stands}), MADE (trip {new}):"),
        ),
        ("risk_throttle", "engine = 'MADE'", "risk_throttle".to_owned()),
        ("regression_trip", "metric = 'stands'", format!("regression_trip lacks {stands}")),
        ("regression_state", "metric = 'stands'", "regression_state lacks WHOLESALE.stands".to_owned()),
        ("regression_policy", "metric = 'stands'", "regression_policy lacks WHOLESALE.stands".to_owned()),
        ("regression_kind", "metric = 'margin'", "regression_kind lacks PRICING.margin".to_owned()),
        ("regression_baseline", "metric = 'rearmed'", "regression_baseline lacks WHOLESALE.rearmed version".to_owned()),
        ("risk_policy", "engine = 'RETAIL'", "risk_policy lacks MADE, RETAIL:".to_owned()),
        ("risk_policy", "engine = 'MADE'", "risk_policy".to_owned()),
        ("heimdall_policy", "domain = 'PRICING'", "heimdall_policy lacks PRICING".to_owned()),
        ("pack", "id = 'extra'", "pack lacks extra".to_owned()),
    ];
    for (table, row, what) in &harms {
        let gone = part.sql(&format!("DELETE FROM {table} WHERE {row} RETURNING 'gone'"));
        assert!(!gone.is_empty(), "{what}");
    }
    let told = missing(&place, &place.url("part"));
    for (.., what) in &harms {
        assert!(told.iter().any(|told| told.starts_with(what)), "{what}: {told:?}");
    }
    assert_eq!(told.len(), 9, "{told:?}");
    // An erasure is named as well where its absence is damage.
    part.sql("ALTER TABLE audit_erasure DISABLE TRIGGER guard");
    part.sql("DELETE FROM audit_erasure");
    let verified = verify(&place, &place.url("part"));
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.out.contains("MISSING audit_erasure lacks control/2/reason:"), "{verified:?}");
    server.stop(Signal::TERM);
}

/// Every table with a digest of its rows; partitions are in their parents.
fn tables(session: &mut Session) -> Vec<(String, String)> {
    let names = session.sql(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
         ORDER BY 1",
    );
    let digest = |name: &String| {
        let rows = session
            .sql(&format!("SELECT COALESCE(md5(string_agg(t::text, '' ORDER BY t::text)), '') FROM {name} AS t"));
        (name.clone(), rows.into_iter().next().expect("a digest"))
    };
    names.iter().map(digest).collect()
}

#[test]
fn a_book_that_is_replicated_logically_arrives_whole_and_goes_on_there() {
    let place = Place::new();
    let (mut from, mut to) = (Node::alone(&place, "from"), Node::alone(&place, "to"));
    for node in [&mut from, &mut to] {
        node.session("postgres").sql("ALTER SYSTEM SET wal_level = 'logical'");
        node.kill();
        node.start();
    }
    let server = place.serve_with(&[], &[("DATABASE_URL", &from.url())]);
    live(&server);
    copy(&place, &["--schema-only"], &from.url(), &to.url());
    let (mut publisher, mut subscriber) = (from.session("holdfast"), to.session("holdfast"));
    publisher.sql("CREATE PUBLICATION book FOR ALL TABLES WITH (publish_via_partition_root = true)");
    let connection = format!("host={} port=5432 user=holdfast dbname=holdfast", from.sockets.display());
    subscriber.sql(&format!("CREATE SUBSCRIPTION book CONNECTION '{connection}' PUBLICATION book"));
    wait_until("every table was copied", || {
        subscriber.sql("SELECT count(*)::text FROM pg_subscription_rel WHERE srsubstate <> 'r'") == ["0"]
    });

    // The moves of heads, direct and by triggers, the exceptions of the guards, and their look-ups elsewhere.
    live(&server);
    let keyed = json!({"engine": "WHOLESALE", "amount": 1, "actor": "test", "idempotency_key": "moved"});
    server.post("/risk/check-and-reserve", &keyed).ok();
    // A reservation moves to another partition when it ends.
    let hold = json!({"engine": "WHOLESALE", "amount": 1, "actor": "test", "ttl_seconds": 600});
    let held = server.post("/risk/check-and-reserve", &hold).ok();
    let id = held["reservation_id"].as_str().expect("an id");
    server.post(&format!("/risk/reservations/{id}/extend"), &json!({"ttl_seconds": 900})).ok();
    server.post("/risk/settle", &json!({"reservation_id": id, "actor": "test"})).ok();
    publisher.sql("UPDATE risk_policy SET updated_at = updated_at");
    let url = from.url();
    let shell = |arguments: &[&str]| {
        let ended = place.run(arguments, &[("DATABASE_URL", &url)]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };
    shell(&["audit", "erase", "--stream", "control", "--seq", "2", "--field", "reason", "--reason", "a request"]);
    shell(&["token", "create", "--name", "moved", "--scopes", "read"]);
    server.stop(Signal::TERM);
    wait_until("the heads are the same", || {
        let heads = "SELECT concat_ws(' ', stream, seq, hash, at, turn) FROM audit_head ORDER BY stream";
        publisher.sql(heads) == subscriber.sql(heads)
    });
    wait_until("the rows are the same", || tables(&mut publisher) == tables(&mut subscriber));
    assert_eq!(missing(&place, &to.url()), Vec::<String>::new());

    // The move: the copy goes on as the book.
    subscriber.sql("DROP SUBSCRIPTION book");
    let elsewhere = Place::new();
    let moved = elsewhere.launch(&[], &[("DATABASE_URL", &to.url())]);
    wait_until("it serves", || moved.try_get("/readyz").is_ok_and(|reply| reply.status == 200));
    moved.stop(Signal::TERM);
    assert_eq!(verify(&elsewhere, &to.url()).code, Some(0));
}
