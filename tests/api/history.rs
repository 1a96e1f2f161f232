//! A database that lost events: an older dump restored in place under a live process, and what the process remembers of it.

use crate::access::{call, new, token};
use crate::support::{Answer, Service, Setup};
use axum::http::Method;
use holdfast::access;
use holdfast::audit::Origin;
use holdfast::audit::checkpoint::Notary;
use holdfast::audit::note::Signer;
use holdfast::go_live;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row};
use std::fmt::Write as _;

const ENGAGE: &str = "/go-live/kill-switch/engage";
const DISABLE: &str = "/go-live/disable";
const STATE: &str = "/api/governance/go-live/state";

/// Tables that a dump holds, with the columns that are not made by others.
const TABLES: &str = "
    SELECT c.oid::regclass::text, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum)
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND c.relname NOT IN ('test_clock', 'instance', '_sqlx_migrations')
    GROUP BY c.oid ORDER BY 1";

/// Triggers that are armed, with how.
const TRIGGERS: &str = "
    SELECT tgrelid::regclass::text, tgname::text, tgenabled::text
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    WHERE NOT tgisinternal AND tgparentid = 0 AND tgenabled <> 'D' AND relnamespace = 'public'::regnamespace";

/// A dump of the whole database, beside it.
struct Dump(&'static str);

impl Dump {
    async fn of(service: &Service, name: &'static str) -> Self {
        let mut sql = format!("CREATE SCHEMA {name}");
        for table in sqlx::query(TABLES).fetch_all(&service.pool).await.unwrap() {
            let (table, columns): (String, String) = (table.get(0), table.get(1));
            write!(sql, "; CREATE TABLE {name}.{table} AS SELECT {columns} FROM public.{table}").unwrap();
        }
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&service.pool).await.unwrap();
        Self(name)
    }

    /// Puts it in the place of what is there, as `pg_restore --disable-triggers` does: every connection stays.
    async fn restore(&self, service: &Service) {
        let tables = sqlx::query(TABLES).fetch_all(&service.pool).await.unwrap();
        let triggers = sqlx::query(TRIGGERS).fetch_all(&service.pool).await.unwrap();
        let names = tables.iter().map(|table| table.get::<String, _>(0)).collect::<Vec<_>>();
        let mut sql = "BEGIN; SET LOCAL session_replication_role = replica".to_owned();
        for trigger in &triggers {
            let (table, name): (String, String) = (trigger.get(0), trigger.get(1));
            write!(sql, "; ALTER TABLE {table} DISABLE TRIGGER {name}").unwrap();
        }
        write!(sql, "; TRUNCATE {}", names.join(", ")).unwrap();
        for table in &tables {
            let (table, columns): (String, String) = (table.get(0), table.get(1));
            write!(
                sql,
                "; INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {}.{table}",
                self.0
            )
            .unwrap();
        }
        for trigger in triggers {
            let (table, name, armed): (String, String, String) = (trigger.get(0), trigger.get(1), trigger.get(2));
            let how = if armed == "A" { "ENABLE ALWAYS" } else { "ENABLE" };
            write!(sql, "; ALTER TABLE {table} {how} TRIGGER {name}").unwrap();
        }
        sql.push_str("; COMMIT");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&service.pool).await.unwrap();
    }
}

/// A read that nothing of this instance's own overtakes.
async fn refresh(service: &Service) {
    service.clock.advance(1);
    service.app.feed.refresh(&service.db).await.unwrap();
}

async fn accept(service: &Service) -> Vec<String> {
    let origin = Origin::system(Some("bryan".parse().unwrap()));
    let accepted = go_live::accept_rewind(&service.db, &"restored".parse().unwrap(), &origin).await.unwrap();
    refresh(service).await;
    accepted.lost.iter().map(ToString::to_string).collect()
}

async fn measure(service: &Service, success: bool) -> Answer {
    service.post("/regression/kpi", &json!({"domain": "D", "metric": "m", "success": success, "actor": "test"})).await
}

async fn trial(service: &Service) -> Answer {
    let body = json!({"domain": "D", "confidence": 0.9, "success": true, "actor": "test"});
    service.post("/heimdall/sandbox/trial", &body).await
}

#[tokio::test]
async fn an_older_dump_restored_in_place_stops_what_appends_until_it_is_accepted() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "1").await.ok();
    measure(&service, true).await.ok();
    let made = service.post("/heimdall/recommend", &json!({"domain": "D", "confidence": 0.5})).await.ok();
    let dump = Dump::of(&service, "dump").await;
    service.reserve("WHOLESALE", "2").await.ok();
    service.reserve("WHOLESALE", "3").await.ok();
    measure(&service, true).await.ok();
    trial(&service).await.ok();
    refresh(&service).await;
    // No switch has moved, and every connection stays.
    dump.restore(&service).await;
    let before = service.everything().await;

    // The very first that asks is refused, before anything is read by the feed.
    let refused = service.reserve("WHOLESALE", "9").await;
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.text.contains("accept-rewind"), "{}", refused.text);
    refused.refused(503, "STATE_REWOUND");
    let require = format!("/heimdall/recommendations/{}/require-prod-eligible", made["id"]);
    let caps = json!({"engine": "WHOLESALE", "max_open_risk": 5, "actor": "test", "reason": "less"});
    for (path, body) in [
        ("/risk/check-and-reserve", json!({"engine": "WHOLESALE", "amount": 9, "dry_run": true})),
        ("/risk/settle", json!({"engine": "WHOLESALE", "reserved_amount": 1})),
        ("/regression/kpi", json!({"domain": "D", "metric": "m", "success": true})),
        ("/heimdall/sandbox/trial", json!({"domain": "D", "confidence": 0.9, "success": true})),
        ("/heimdall/recommend", json!({"domain": "D", "confidence": 0.5})),
        (&*require, json!({})),
        ("/risk/policies/upsert", caps),
        ("/go-live/enable", json!({"actor": "test"})),
        ("/go-live/packs", json!({"id": "x", "status": "installed"})),
    ] {
        service.post(path, &body).await.refused(503, "STATE_REWOUND");
    }
    service.get_root("/api/deals").await.refused(503, "STATE_REWOUND");
    let ready = service.get_root("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json["reason"].as_str().unwrap().contains("accept-rewind"), "{}", ready.text);
    assert!(service.get_root("/metrics").await.text.contains("holdfast_state_rewound 1"));
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    assert_eq!(service.everything().await, before, "nothing was written");
    assert_eq!(service.get("/instances").await.ok()["instances"][0]["standing"], "rewound");
    let review = service.get("/review").await.ok();
    let first = review["look_first"][0].as_str().unwrap();
    assert!(first.contains("the database went back (risk: events 2 to 3 lost"), "{first}");
    // Changes that tighten always work.
    service.post(ENGAGE, &json!({"actor": "bryan"})).await.ok();
    service.post(DISABLE, &json!({"actor": "bryan"})).await.ok();
    service.post("/go-live/kill-switch/release", &json!({})).await.refused(503, "STATE_REWOUND");

    let lost = accept(&service).await;
    assert_eq!(
        lost,
        [
            "heimdall: event 2 lost (event 1 may be another than the one that was answered)",
            "kpi: event 2 lost (event 1 may be another than the one that was answered)",
            "risk: events 2 to 3 lost (event 1 may be another than the one that was answered)"
        ]
    );
    let event = service.get("/go-live/events?limit=1").await.ok()["items"][0].clone();
    assert_eq!(event["detail"]["lost"][2], json!({"stream": "risk", "kept": 0, "head": 1, "known": 3}), "{event}");
    service.post("/go-live/kill-switch/release", &json!({"actor": "bryan"})).await.ok();
    service.post("/go-live/enable", &json!({"actor": "bryan"})).await.ok();
    service.reserve("WHOLESALE", "4").await.ok();
    measure(&service, true).await.ok();
    trial(&service).await.ok();
    assert_eq!(service.count("SELECT max(seq) FROM risk_event").await, 2);
    refresh(&service).await;
    assert_eq!(service.get_root("/readyz").await.status, 200);
}

#[tokio::test]
async fn no_stream_gets_another_event_at_a_number_that_is_known() {
    let service = Service::live().await;
    let dump = Dump::of(&service, "dump").await;
    service.reserve("WHOLESALE", "1").await.ok();
    measure(&service, true).await.ok();
    trial(&service).await.ok();
    refresh(&service).await;
    dump.restore(&service).await;
    // Somebody who knew nothing writes other events at these numbers.
    let other = Service::on(service.options.clone(), Setup::default()).await;
    other.reserve("WHOLESALE", "2").await.ok();
    measure(&other, false).await.ok();
    trial(&other).await.ok();
    measure(&service, true).await.refused(503, "STATE_REWOUND");
    assert_eq!(service.count("SELECT count(*) FROM kpi_event").await, 1);
    service.reserve("WHOLESALE", "1").await.refused(503, "STATE_REWOUND");
    let lost = accept(&service).await;
    assert_eq!(
        lost,
        [
            "heimdall: event 1 is another one; event 1 may be lost",
            "kpi: event 1 is another one; event 1 may be lost",
            "risk: event 1 is another one; event 1 may be lost"
        ]
    );
    service.reserve("WHOLESALE", "1").await.ok();
    refresh(&other).await;
    other.reserve("WHOLESALE", "1").await.ok();
}

#[tokio::test]
async fn a_trail_that_has_grown_past_what_was_known_is_noticed_by_the_next_read() {
    let service = Service::live().await;
    let dump = Dump::of(&service, "dump").await;
    measure(&service, true).await.ok();
    refresh(&service).await;
    dump.restore(&service).await;
    let other = Service::on(service.options.clone(), Setup::default()).await;
    for _ in 0..3 {
        measure(&other, true).await.ok();
    }
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    service.get_root("/api/deals").await.refused(503, "STATE_REWOUND");
    accept(&service).await;
    refresh(&other).await;
}

#[tokio::test]
async fn nothing_is_appended_to_a_trail_that_has_grown_past_what_was_known() {
    let service = Service::live().await;
    let dump = Dump::of(&service, "dump").await;
    service.reserve("WHOLESALE", "1").await.ok();
    measure(&service, true).await.ok();
    trial(&service).await.ok();
    refresh(&service).await;
    dump.restore(&service).await;
    // As where this process was stopped meanwhile: its connections stand, and it has read nothing since.
    let other = Service::on(service.options.clone(), Setup::default()).await;
    for _ in 0..3 {
        other.reserve("WHOLESALE", "2").await.ok();
        measure(&other, true).await.ok();
        trial(&other).await.ok();
    }
    let events = service.events().await;
    service.reserve("WHOLESALE", "1").await.refused(503, "STATE_REWOUND");
    measure(&service, true).await.refused(503, "STATE_REWOUND");
    trial(&service).await.refused(503, "STATE_REWOUND");
    assert_eq!(service.events().await, events);
    accept(&service).await;
    service.reserve("WHOLESALE", "1").await.ok();
    refresh(&other).await;
}

#[tokio::test]
async fn a_new_connection_that_leads_to_an_older_database_is_noticed_before_it_is_used() {
    let service = Service::live().await;
    let dump = Dump::of(&service, "dump").await;
    service.reserve("WHOLESALE", "1").await.ok();
    refresh(&service).await;
    dump.restore(&service).await;
    assert!(!service.app.feed.is_rewound());
    drop(service.db.connect_feed().await.unwrap());
    assert!(service.app.feed.is_rewound());
    service.get_root("/api/deals").await.refused(503, "STATE_REWOUND");
    accept(&service).await;
}

#[tokio::test]
async fn events_that_another_instance_adds_are_no_contradiction() {
    let service = Service::live().await;
    let other = Service::on(service.options.clone(), Setup::default()).await;
    for _ in 0..5 {
        for one in [&service, &other] {
            one.reserve("WHOLESALE", "1").await.ok();
            measure(one, true).await.ok();
            trial(one).await.ok();
            refresh(one).await;
        }
    }
    assert!(!service.app.feed.is_rewound() && !other.app.feed.is_rewound());
}

#[tokio::test]
async fn a_trail_that_lost_events_is_signed_by_nobody_who_knew_them() {
    let notary = Notary::new(Signer::new("holdfast/test", [7; 32]).unwrap(), None, None);
    let service = Service::with(Setup { notary: Some(notary.clone()), ..Setup::default() }).await;
    let dump = Dump::of(&service, "dump").await;
    measure(&service, true).await.ok();
    refresh(&service).await;
    dump.restore(&service).await;
    // Another event stands where the known one was, and a later one at the head.
    let other = Service::on(service.options.clone(), Setup::default()).await;
    for _ in 0..2 {
        measure(&other, false).await.ok();
    }
    service.get("/audit/checkpoint").await.refused(503, "STATE_REWOUND");
    assert_eq!(notary.last(), None);
    accept(&service).await;
    assert_eq!(service.get("/audit/checkpoint").await.status, 200);
}

// The memory of a process

#[tokio::test]
async fn a_token_that_was_revoked_opens_nothing_after_one_restore_or_two() {
    let service = Service::live().await;
    let without = Dump::of(&service, "dump_without").await;
    let admin = token(&service, "admin,read").await;
    let created = access::create(&service.db, &new("read"), None, None, &Origin::system(None)).await.unwrap();
    refresh(&service).await;
    let reads = async || call(&service, Method::GET, STATE, Some(&created.token), &Value::Null).await.status.as_u16();
    assert_eq!(reads().await, 200);
    let with = Dump::of(&service, "dump_with").await;
    let id = created.record.id;
    let path = format!("/api/governance/access/tokens/{id}");
    call(&service, Method::DELETE, &path, Some(&admin), &Value::Null).await.ok();
    assert_eq!(reads().await, 401);
    for dump in [&with, &without, &with] {
        dump.restore(&service).await;
        assert!(service.app.feed.refresh(&service.db).await.is_err());
        assert_eq!(reads().await, 401, "{}", dump.0);
    }
    accept(&service).await;
    assert_eq!(reads().await, 401, "accepted");
    assert_eq!(call(&service, Method::GET, STATE, Some(&admin), &Value::Null).await.status, 200);
    // A revocation is a change that only tightens: it works also while events are lost.
    with.restore(&service).await;
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    call(&service, Method::DELETE, &path, Some(&admin), &Value::Null).await.ok();
    accept(&service).await;
}

#[tokio::test]
async fn tokens_and_flags_are_those_of_the_event_that_stands_not_of_one_with_its_number() {
    let service = Service::live().await;
    let dump = Dump::of(&service, "dump").await;
    let upsert = json!({"engine": "WHOLESALE", "enabled": false, "actor": "test", "reason": "off"});
    service.post("/risk/policies/upsert", &upsert).await.ok();
    refresh(&service).await;
    let flag = async || {
        let metrics = service.get_root("/metrics").await.text;
        metrics
            .lines()
            .find(|line| line.starts_with("holdfast_engine_enabled{engine=\"WHOLESALE\"}"))
            .unwrap()
            .to_owned()
    };
    assert!(flag().await.ends_with(" 0"));
    // Another event at the same number.
    dump.restore(&service).await;
    let other = Service::on(service.options.clone(), Setup::default()).await;
    other.post("/go-live/packs", &json!({"id": "x", "status": "installed"})).await.ok();
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    assert!(flag().await.ends_with(" 1"));
    accept(&service).await;
    refresh(&other).await;
}

#[tokio::test]
async fn a_baseline_of_the_history_before_judges_no_measurement_of_the_next() {
    let service = Service::live().await;
    let wire = json!({"domain": "D", "metric": "m", "detector": "SEQUENTIAL", "window_events": 50, "baseline_events": 200,
                      "min_events_to_enforce": 50, "engine": "WHOLESALE", "enabled": true, "actor": "test", "reason": "watch"});
    service.post("/regression/policies/upsert", &wire).await.ok();
    let dump = Dump::of(&service, "dump").await;
    // One history has a baseline of failures, the next one of successes.
    let events = |success: bool, count: usize| {
        let one = json!({"domain": "D", "metric": "m", "success": success, "actor": "test"});
        json!({"events": vec![one; count]})
    };
    let batch = "/regression/kpi/batch";
    service.post(batch, &events(false, 201)).await.ok();
    dump.restore(&service).await;
    service.post(batch, &events(true, 1)).await.refused(503, "STATE_REWOUND");
    accept(&service).await;
    service.post(batch, &events(true, 201)).await.ok();
    service.post(batch, &events(false, 60)).await.ok();
    assert_eq!(service.count("SELECT count(*) FROM regression_trip").await, 1, "60 bad events in a row");
}

#[tokio::test]
async fn a_wire_is_armed_by_nobody_where_events_of_the_control_stream_are_lost() {
    let service = Service::live().await;
    let wire =
        json!({"domain": "D", "metric": "m", "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1});
    service.post("/regression/policies/upsert", &wire).await.ok();
    measure(&service, true).await.ok();
    measure(&service, false).await.ok();
    assert_eq!(service.count("SELECT count(*) FROM regression_trip WHERE rearmed_at IS NULL").await, 1);
    let dump = Dump::of(&service, "dump").await;
    service.post("/go-live/packs", &json!({"id": "x", "status": "installed"})).await.ok();
    refresh(&service).await;
    dump.restore(&service).await;
    let rearm = json!({"domain": "D", "metric": "m", "reason": "mended", "actor": "bryan"});
    service.post("/regression/rearm", &rearm).await.refused(503, "STATE_REWOUND");
    assert_eq!(service.count("SELECT count(*) FROM regression_trip WHERE rearmed_at IS NULL").await, 1);
    accept(&service).await;
}

#[tokio::test]
async fn a_wire_is_set_up_by_nobody_where_events_of_the_control_stream_are_lost() {
    let service = Service::live().await;
    let dump = Dump::of(&service, "dump").await;
    service.post("/go-live/packs", &json!({"id": "x", "status": "installed"})).await.ok();
    refresh(&service).await;
    dump.restore(&service).await;
    let wire = json!({"domain": "D", "metric": "m", "enabled": false});
    service.post("/regression/policies/upsert", &wire).await.refused(503, "STATE_REWOUND");
    accept(&service).await;
}

#[tokio::test]
async fn a_new_connection_of_the_feed_waits_for_no_lock_on_the_events() {
    let service = Service::live().await;
    measure(&service, true).await.ok();
    refresh(&service).await;
    let other = Service::on(service.options.clone(), Setup::default()).await;
    measure(&other, true).await.ok();
    // A report, a migration: the stream has moved on, and its events cannot be looked at.
    let mut tx = service.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE kpi_event IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
    drop(service.db.connect_feed().await.expect("it leads to the database that is known"));
    tx.rollback().await.unwrap();
}
