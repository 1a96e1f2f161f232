//! How fresh the state is: receipts, notifications, kill files, states that go backwards, and who else runs.

use crate::support::{Service, Setup};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ENABLE: &str = "/go-live/enable";
const DISABLE: &str = "/go-live/disable";
const ENGAGE: &str = "/go-live/kill-switch/engage";
const RELEASE: &str = "/go-live/kill-switch/release";

/// A path that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("holdfast-api-{}-{number}", std::process::id())))
    }

    fn file(&self) -> PathBuf {
        self.0.join("deep/KILL")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn with_kill_file(scratch: &Scratch) -> Service {
    let service = Service::with(Setup { kill_file: Some(scratch.file()), ..Setup::default() }).await;
    service.post(ENABLE, &json!({"actor": "test"})).await.ok();
    service
}

/// The gate's answer for production work; 404 comes from behind it.
async fn gate(service: &Service) -> (u16, String) {
    let answer = service.get_root("/api/deals").await;
    (answer.status.as_u16(), answer.json["error"].as_str().unwrap().to_owned())
}

fn open() -> (u16, String) {
    (404, "ROUTE_NOT_FOUND".to_owned())
}

fn closed(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn refresh(service: &Service) {
    service.clock.advance(1);
    service.app.feed.refresh(&service.db).await.unwrap();
}

// The receipt

#[tokio::test]
async fn engage_and_disable_answer_from_when_on_nobody_admits_anything() {
    let service = Service::live().await;
    for path in [ENGAGE, DISABLE, ENGAGE] {
        let body = service.post(path, &json!({"actor": "bryan"})).await.ok();
        let time = |field: &str| body[field].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
        let (committed, guaranteed) = (time("updated_at"), time("guaranteed_by"));
        // The service's own clock stands still here, so the commit took no time.
        assert!(guaranteed >= committed + TimeDelta::milliseconds(1_999), "{body}");
        assert!(guaranteed < committed + TimeDelta::seconds(4), "{body}");
    }
    for path in [RELEASE, ENABLE] {
        let body = service.post(path, &json!({"actor": "bryan"})).await.ok();
        assert!(body.get("guaranteed_by").is_none(), "{path}: a loosening is seen when it is seen");
    }
}

// Notifications

#[tokio::test]
async fn a_change_of_another_instance_is_heard_of_without_waiting_for_the_poll() {
    let here = Service::live().await;
    let there = Service::on(here.options.clone(), Setup::default()).await;
    let listening = tokio::spawn(here.app.feed.clone().listen(here.db.clone()));
    while !here.app.feed.is_listening() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(gate(&here).await, open());
    // Nobody polls here: the clock stands still, and what is heard is all that is known.
    for (path, code) in [(ENGAGE, "KILL_SWITCH_ENGAGED"), (DISABLE, "KILL_SWITCH_ENGAGED")] {
        there.post(path, &json!({"actor": "bryan"})).await.ok();
        while gate(&here).await != closed(403, code) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    there.post(RELEASE, &json!({"actor": "bryan"})).await.ok();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(gate(&here).await, closed(403, "KILL_SWITCH_ENGAGED"), "a loosening is believed of a read alone");
    refresh(&here).await;
    assert_eq!(gate(&here).await, closed(403, "GO_LIVE_DISABLED"));
    listening.abort();
}

#[tokio::test]
async fn a_forged_notification_blocks_until_the_next_read_and_garbage_does_nothing() {
    let service = Service::live().await;
    let listening = tokio::spawn(service.app.feed.clone().listen(service.db.clone()));
    while !service.app.feed.is_listening() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let forge = async |payload: &str| {
        let sql = "SELECT pg_notify('holdfast_' || md5(current_schema()), $1)";
        sqlx::query(sql).bind(payload).execute(&service.pool).await.unwrap();
    };
    for garbage in ["", "go_live_enabled", "kill_switch_released", "{", "\u{1F525}", &"x".repeat(7_000)] {
        forge(garbage).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(gate(&service).await, open());
    forge("kill_switch_engaged").await;
    while gate(&service).await != closed(403, "KILL_SWITCH_ENGAGED") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    refresh(&service).await;
    assert_eq!(gate(&service).await, open());
    listening.abort();
}

#[tokio::test]
async fn a_listener_whose_connection_is_ended_comes_back() {
    let service = Service::live().await;
    let listening = tokio::spawn(service.app.feed.clone().listen(service.db.clone()));
    for _ in 0..2 {
        while !service.app.feed.is_listening() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ended = service
            .count(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()
                   AND (query LIKE 'LISTEN%' OR query = 'SELECT 1')",
            )
            .await;
        assert!(ended >= 1);
        while service.app.feed.is_listening() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        service.app.feed.refresh(&service.db).await.unwrap();
    }
    listening.abort();
}

// The heartbeat

#[tokio::test]
async fn a_database_that_cannot_commit_renews_nothing() {
    let service = Service::live().await;
    sqlx::query("ALTER TABLE instance ADD CONSTRAINT deposed CHECK (seen_at < '2000-01-01') NOT VALID")
        .execute(&service.pool)
        .await
        .unwrap();
    service.clock.advance(2_001);
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    assert_eq!(gate(&service).await, closed(503, "STATE_STALE"));
}

// The kill file

#[tokio::test]
async fn a_kill_file_blocks_whatever_the_database_says_until_it_is_gone() {
    let scratch = Scratch::new();
    let service = with_kill_file(&scratch).await;
    refresh(&service).await;
    assert_eq!(gate(&service).await, open(), "there is none, and not even a directory");
    std::fs::create_dir_all(scratch.file().parent().unwrap()).unwrap();
    std::fs::write(scratch.file(), "").unwrap();
    refresh(&service).await;
    assert_eq!(gate(&service).await, closed(403, "KILL_SWITCH_ENGAGED"));
    let reserve = service.reserve("WHOLESALE", "1").await.ok();
    assert_eq!((&reserve["ok"], &reserve["reason"]), (&json!(false), &json!("kill_switch_engaged")));
    let ready = service.get_root("/readyz").await.ok();
    assert_eq!(ready["kill_file"], true);
    let message = service.get_root("/api/deals").await.json["message"].clone();
    assert!(message.as_str().unwrap().contains("kill file"), "{message}");
    let instances = service.get("/instances").await.ok();
    refresh(&service).await;
    let standing = service.get("/instances").await.ok()["instances"][0]["standing"].clone();
    assert_eq!(standing, "kill_file", "{instances}");
    service.post(RELEASE, &json!({"actor": "bryan"})).await.ok();
    refresh(&service).await;
    assert_eq!(gate(&service).await, closed(403, "KILL_SWITCH_ENGAGED"), "a release does not remove it");
    std::fs::remove_file(scratch.file()).unwrap();
    refresh(&service).await;
    assert_eq!(gate(&service).await, open());
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn a_dangling_link_is_a_kill_file_too() {
    let scratch = Scratch::new();
    let service = with_kill_file(&scratch).await;
    std::fs::create_dir_all(scratch.file().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", scratch.file()).unwrap();
    refresh(&service).await;
    assert_eq!(gate(&service).await, closed(403, "KILL_SWITCH_ENGAGED"));
}

#[tokio::test]
async fn an_engage_that_cannot_be_recorded_stops_this_instance_by_its_kill_file() {
    let scratch = Scratch::new();
    let service = with_kill_file(&scratch).await;
    service.db.close().await;
    let body = service.post(ENGAGE, &json!({"actor": "bryan", "reason": "smoke"})).await;
    assert_eq!(body.headers["retry-after"], "1");
    let body = body.refused(503, "ENGAGED_LOCALLY");
    assert!(body["detail"].as_str().unwrap().contains("until its kill file is removed"), "{body}");
    assert!(!body.to_string().contains(scratch.0.to_str().unwrap()), "{body}");
    assert_eq!(gate(&service).await, closed(403, "KILL_SWITCH_ENGAGED"), "at once");
    let written = std::fs::read_to_string(scratch.file()).unwrap();
    assert!(written.contains("bryan") && written.contains("smoke"), "{written}");
    // And after a restart.
    let again =
        Service::on(service.options.clone(), Setup { kill_file: Some(scratch.file()), ..Setup::default() }).await;
    assert_eq!(gate(&again).await, closed(403, "KILL_SWITCH_ENGAGED"));
}

#[tokio::test]
async fn an_engage_without_a_place_for_a_kill_file_stops_the_process() {
    let service = Service::live().await;
    service.db.close().await;
    service.post(ENGAGE, &json!({})).await.refused(503, "ENGAGED_LOCALLY");
    assert_eq!(gate(&service).await, closed(403, "KILL_SWITCH_ENGAGED"));
}

#[tokio::test]
async fn a_row_that_no_program_can_read_does_not_keep_an_engage_from_stopping_this_instance() {
    for damage in [
        "ALTER TABLE go_live_state DROP CONSTRAINT go_live_state_times; UPDATE go_live_state SET kill_switch_at = 'infinity'",
        "ALTER TABLE go_live_state DROP CONSTRAINT go_live_state_times; UPDATE go_live_state SET go_live_at = '290000-01-01'",
        "UPDATE go_live_state SET version = 9223372036854775807",
    ] {
        let scratch = Scratch::new();
        let service = with_kill_file(&scratch).await;
        sqlx::raw_sql(damage).execute(&service.pool).await.unwrap();
        service.post(ENGAGE, &json!({"actor": "bryan"})).await.refused(503, "ENGAGED_LOCALLY");
        assert_eq!(gate(&service).await, closed(403, "KILL_SWITCH_ENGAGED"), "{damage}");
    }
}

#[tokio::test]
async fn a_clock_that_went_back_does_not_put_the_receipt_before_the_change() {
    let service = Service::live().await;
    service.jump("-10 years").await;
    let body = service.post(ENGAGE, &json!({"actor": "bryan"})).await.ok();
    let time = |field: &str| body[field].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert!(time("guaranteed_by") >= time("updated_at") + TimeDelta::seconds(2), "{body}");
}

#[tokio::test]
async fn a_policy_that_no_program_can_read_closes_no_gate_and_its_flags_are_false() {
    let service = Service::live().await;
    let flags = async || {
        let asked = crate::support::request(
            axum::http::Method::POST,
            "/ofrep/v1/evaluate/flags/engine.WHOLESALE.enabled",
            None,
            "",
        );
        service.send(asked).await.ok()["value"].clone()
    };
    let wholesale = "ALTER TABLE risk_policy DROP CONSTRAINT risk_policy_times;
                     UPDATE risk_policy SET updated_at = '290000-01-01' WHERE engine = 'WHOLESALE'";
    sqlx::raw_sql(wholesale).execute(&service.pool).await.unwrap();
    // Any event of the control stream makes it read again.
    service.post("/go-live/packs", &json!({"id": "x", "status": "installed"})).await.ok();
    refresh(&service).await;
    assert_eq!((gate(&service).await, flags().await), (open(), json!(false)));
    sqlx::query("UPDATE risk_policy SET updated_at = now()").execute(&service.pool).await.unwrap();
    refresh(&service).await;
    assert_eq!((gate(&service).await, flags().await), (open(), json!(true)));
}

// A state that goes backwards

#[tokio::test]
async fn a_restored_state_blocks_until_it_is_accepted_and_that_is_an_event() {
    let service = Service::live().await;
    service.post(ENGAGE, &json!({"actor": "bryan"})).await.ok();
    service.clock.advance(1);
    refresh(&service).await;
    sqlx::query("UPDATE go_live_state SET version = 2, kill_switch_engaged = false")
        .execute(&service.pool)
        .await
        .unwrap();
    service.clock.advance(1);
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    let body = service.get_root("/api/deals").await;
    assert_eq!(body.headers["retry-after"], "1");
    body.refused(503, "STATE_REWOUND");
    let ready = service.get_root("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json["reason"].as_str().unwrap().contains("accept-rewind"), "{}", ready.text);
    // Switches that may be outdated allow no reserve and no use; positions can be closed.
    service.reserve("WHOLESALE", "1").await.refused(503, "STATE_REWOUND");
    let made = service.post("/heimdall/recommend", &json!({"domain": "D", "confidence": 0.5})).await.ok();
    let require = format!("/heimdall/recommendations/{}/require-prod-eligible", made["id"]);
    service.post(&require, &json!({})).await.refused(503, "STATE_REWOUND");
    service.post("/risk/settle", &json!({"engine": "WHOLESALE", "reserved_amount": 1})).await.ok();
    // No change in the restored history opens the gate.
    service.post(ENABLE, &json!({"actor": "bryan"})).await.ok();
    service.clock.advance(1);
    assert!(service.app.feed.refresh(&service.db).await.is_err());
    assert_eq!(gate(&service).await, closed(503, "STATE_REWOUND"));

    let origin = holdfast::audit::Origin::system(Some("bryan".parse().unwrap()));
    let reason = "restored from last night's backup".parse().unwrap();
    holdfast::go_live::accept_rewind(&service.db, &reason, &origin).await.unwrap();
    refresh(&service).await;
    assert_eq!(gate(&service).await, open());
    let event = service.get("/go-live/events?limit=1").await.ok()["items"][0].clone();
    assert_eq!((&event["action"], &event["reason"]), (&json!("GO_LIVE_REWIND_ACCEPT"), &json!(reason.to_string())));
    // The review reads the switches' history, of which this is none.
    assert_eq!(service.get("/review").await.ok()["state"]["go_live_enabled"], true);
    // Somebody who had not noticed anything goes on, too.
    let other = Service::on(service.options.clone(), Setup::default()).await;
    assert_eq!(gate(&other).await, open());
    holdfast::go_live::accept_rewind(&service.db, &reason, &origin).await.unwrap();
    refresh(&other).await;
    refresh(&service).await;
    assert_eq!((gate(&other).await, gate(&service).await), (open(), open()));
}

// The instances

#[tokio::test]
async fn instances_are_listed_with_what_they_run_and_in_what_they_differ() {
    let here = Service::with(Setup { name: "here", ..Setup::default() }).await;
    let there = Service::on(here.options.clone(), Setup { name: "there", enforce: false, ..Setup::default() }).await;
    let list = async || here.get("/instances").await.ok();
    let body = list().await;
    let names: Vec<&Value> = body["instances"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["here", "there"]);
    for one in body["instances"].as_array().unwrap() {
        assert_eq!((&one["live"], &one["standing"]), (&json!(true), &json!("state")));
        assert_eq!(one["version"], env!("CARGO_PKG_VERSION"));
    }
    let drift = json!([{"field": "enforcement", "values": {"\"all\"": ["here"], "\"off\"": ["there"]}}]);
    assert_eq!(body["drift"], drift);
    // One that is silent for longer than the longest lease is not live, and differs from nobody.
    here.jump("3 seconds").await;
    refresh(&here).await;
    let body = list().await;
    assert_eq!((&body["instances"][0]["live"], &body["instances"][1]["live"]), (&json!(true), &json!(false)));
    assert_eq!(body["drift"], json!([]));
    here.jump("25 hours").await;
    refresh(&here).await;
    assert_eq!(list().await["instances"].as_array().unwrap().len(), 1);
    drop(there);
}

#[tokio::test]
async fn readiness_says_what_the_gate_goes_by() {
    let service = Service::live().await;
    let ready = service.get_root("/readyz").await.ok();
    assert_eq!(
        (&ready["state_lease_ms"], &ready["notified"], &ready["kill_file"]),
        (&json!(2_000), &json!(false), &json!(false))
    );
    let metrics = service.get_root("/metrics").await;
    for name in [
        "state_age_ms 0",
        "state_lease_ms 2000",
        "state_version 2",
        "state_rewound 0",
        "kill_file 0",
        "state_notified 0",
    ] {
        assert!(metrics.text.contains(&format!("holdfast_{name}")), "{name}: {}", metrics.text);
    }
}

#[tokio::test]
async fn a_stop_and_the_review_name_the_live_instances_that_do_not_enforce() {
    let here = Service::with(Setup { name: "here", ..Setup::default() }).await;
    for path in [ENGAGE, DISABLE] {
        let answer = here.post(path, &json!({"actor": "a"})).await.ok();
        assert_eq!((&answer["not_enforcing"], &answer["warnings"]), (&json!([]), &json!([])), "{path}");
    }
    let off = Setup { name: "off", enforce: false, ..Setup::default() };
    let dev = Setup { name: "dev", env: Some("dev"), ..Setup::default() };
    let others = (Service::on(here.options.clone(), off).await, Service::on(here.options.clone(), dev).await);
    for path in [ENGAGE, DISABLE] {
        let answer = here.post(path, &json!({"actor": "a"})).await.ok();
        assert_eq!(answer["not_enforcing"], json!(["dev", "off"]), "{path}");
        assert!(answer["warnings"].to_string().contains("dev, off do not enforce"), "{answer}");
    }
    let review = here.get("/review").await.ok();
    assert_eq!(review["not_enforcing"], json!(["dev", "off"]));
    assert!(review["look_first"][0].as_str().unwrap().starts_with("dev does not enforce"), "{review}");
    // One that is gone admits nothing.
    here.jump("3 seconds").await;
    refresh(&here).await;
    assert_eq!(here.post(ENGAGE, &json!({})).await.ok()["not_enforcing"], json!([]));
    drop(others);
}
