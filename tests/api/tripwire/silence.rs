//! Silence: what of it counts, and since when.

use super::{UPSERT, named, record, state, tripped, wire};
use crate::support::{Service, Setup};
use serde_json::{Value, json};

/// A wire that trips by a minute's silence, and has one event.
async fn watched(service: &Service, metric: &str, more: Value) {
    let mut settings = json!({"on_stale": "TRIP", "stale_after_seconds": 60});
    for (name, value) in more.as_object().expect("an object") {
        settings[name] = value.clone();
    }
    wire(service, metric, settings).await;
    record(service, metric, &[true]).await;
}

async fn trips(service: &Service) -> usize {
    service.app.regression.trip_silent().await.expect("it can be looked for")
}

async fn silent_seconds(service: &Service, metric: &str) -> Option<i64> {
    let silent = service.get("/review").await.ok()["silent"].take();
    silent.as_array().expect("a list").iter().find(|row| row["metric"] == metric)?["silent_seconds"].as_i64()
}

async fn switch(service: &Service, path: &str) {
    service.post(&format!("/go-live/{path}"), &json!({"actor": "drill", "reason": "drill"})).await.ok();
}

#[tokio::test]
async fn a_drill_of_78_seconds_does_not_trip_a_wire_of_60_and_the_silence_goes_on_where_it_was() {
    for (stop, start) in [("kill-switch/engage", "kill-switch/release"), ("disable", "enable")] {
        let service = Service::live().await;
        watched(&service, "rate", json!({})).await;
        service.set_skew("30 seconds").await;
        switch(&service, stop).await;
        service.set_skew("108 seconds").await;
        assert_eq!(trips(&service).await, 0, "{stop}");
        switch(&service, start).await;
        assert_eq!(trips(&service).await, 0, "{stop}");
        // Neither forgotten nor begun anew: 30 s before the drill and 30 s after it. On another instance as well.
        service.set_skew("136 seconds").await;
        assert_eq!(trips(&service).await, 0, "{stop}");
        service.set_skew("139 seconds").await;
        let other = Service::on(service.options.clone(), Setup::default()).await;
        assert_eq!(trips(&other).await, 1, "{stop}");
        assert_eq!(trips(&service).await, 0, "{stop}");
        let note = state(&service, "rate").await["note"].take();
        assert!(
            ["TRIGGERED stale=60s action=THROTTLE", "TRIGGERED stale=61s action=THROTTLE"]
                .contains(&note.as_str().unwrap()),
            "{note}"
        );
    }
}

#[tokio::test]
async fn nothing_is_silent_before_production_was_ever_on() {
    let service = Service::fresh().await;
    watched(&service, "rate", json!({})).await;
    service.set_skew("1 hour").await;
    assert_eq!((trips(&service).await, silent_seconds(&service, "rate").await), (0, None));
    switch(&service, "enable").await;
    service.set_skew("3661 seconds").await;
    assert_eq!(trips(&service).await, 1);
}

#[tokio::test]
async fn a_change_of_a_setting_does_not_begin_the_silence_anew() {
    let service = Service::live().await;
    watched(&service, "rate", json!({})).await;
    for seconds in [25, 50] {
        service.set_skew(&format!("{seconds} seconds")).await;
        wire(&service, "rate", json!({"max_drop_fraction": format!("0.{}", 10 + seconds)})).await;
    }
    service.set_skew("61 seconds").await;
    assert_eq!(trips(&service).await, 1);
}

#[tokio::test]
async fn a_silence_that_is_there_before_the_setting_is_said_and_trips() {
    let service = Service::live().await;
    wire(&service, "rate", json!({})).await;
    record(&service, "rate", &[true]).await;
    service.set_skew("2 hours").await;
    assert_eq!(trips(&service).await, 0);
    service
        .post(
            "/risk/policies/upsert",
            &json!({"engine": "LAB", "max_open_risk": 1, "max_daily_loss": 1, "max_daily_exposure": 1}),
        )
        .await
        .ok();
    let set = wire(&service, "rate", json!({"on_stale": "TRIP", "stale_after_seconds": 60})).await;
    assert!(set["warnings"][0].as_str().unwrap().starts_with("the series has been silent for 7200 s"), "{set}");
    assert_eq!(trips(&service).await, 1);
}

#[tokio::test]
async fn silence_begins_when_a_wire_is_switched_on_and_when_it_is_armed_again() {
    let service = Service::live().await;
    watched(&service, "rate", json!({})).await;
    let off = json!({"enabled": false, "reason": "maintenance"});
    service.post(UPSERT, &named("rate", off)).await.ok();
    service.set_skew("1 hour").await;
    assert_eq!(trips(&service).await, 0, "a wire that is off looks at nothing");
    wire(&service, "rate", json!({"enabled": true})).await;
    service.set_skew("3659 seconds").await;
    assert_eq!(trips(&service).await, 0);
    service.set_skew("3661 seconds").await;
    assert_eq!(trips(&service).await, 1);
    // The throttle has made a policy that is off; nobody has switched that engine off.
    service.post("/regression/rearm", &named("rate", json!({"reason": "the feed is back"}))).await.ok();
    service.set_skew("3720 seconds").await;
    assert_eq!(trips(&service).await, 0);
    service.set_skew("3722 seconds").await;
    assert_eq!(trips(&service).await, 1);
}

#[tokio::test]
async fn an_engine_that_is_off_cannot_be_silent() {
    let service = Service::live().await;
    let engine = async |engine: &str, enabled: bool| {
        let body = json!({"engine": engine, "enabled": enabled, "max_open_risk": 100, "max_daily_loss": 100,
            "max_daily_exposure": 100, "actor": "ops", "reason": "drill"});
        service.post("/risk/policies/upsert", &body).await.ok();
    };
    engine("LAB", true).await;
    for metric in ["own", "rate", "stops"] {
        let action = if metric == "stops" { "KILL_SWITCH" } else { "THROTTLE" };
        watched(&service, metric, json!({"action": action, "stale_after_seconds": 100})).await;
    }
    // Off by hand, then GLOBAL, then by the throttle of a wire on the same engine.
    service.set_skew("10 seconds").await;
    engine("LAB", false).await;
    service.set_skew("200 seconds").await;
    engine("LAB", true).await;
    engine("GLOBAL", false).await;
    service.set_skew("400 seconds").await;
    engine("GLOBAL", true).await;
    tripped(&service, "fell", json!({})).await;
    service.set_skew("600 seconds").await;
    assert_eq!(trips(&service).await, 0, "20 seconds");
    service.post("/regression/rearm", &named("fell", json!({"reason": "mended"}))).await.ok();
    service.set_skew("685 seconds").await;
    assert_eq!(trips(&service).await, 0, "95 seconds");
    service.set_skew("692 seconds").await;
    assert_eq!(trips(&service).await, 3);
}

#[tokio::test]
async fn a_throttle_that_somebody_overrode_hides_no_silence() {
    let service = Service::live().await;
    tripped(&service, "fell", json!({})).await;
    watched(&service, "rate", json!({"max_drop_fraction": 1})).await;
    service.set_skew("100 seconds").await;
    assert_eq!(trips(&service).await, 0);
    let on = json!({"engine": "LAB", "enabled": true, "max_open_risk": 100, "max_daily_loss": 100, "max_daily_exposure": 100,
        "actor": "ops", "reason": "I know"});
    service.post("/risk/policies/upsert", &on).await.ok();
    service.set_skew("159 seconds").await;
    assert_eq!(trips(&service).await, 0);
    service.set_skew("161 seconds").await;
    assert_eq!(trips(&service).await, 1, "while the other wire still stands tripped");
}

#[tokio::test]
async fn a_silence_is_as_long_as_the_time_that_is_believed_says() {
    let service = Service::live().await;
    watched(&service, "rate", json!({})).await;
    // Nobody has read the clock since it jumped.
    service.jump("3 hours").await;
    assert_eq!(trips(&service).await, 0, "the jump is no silence");
    service.app.feed.refresh(&service.db).await.unwrap();
    assert_eq!(trips(&service).await, 0, "nor when it is doubted");
    // Time that passes by this process's clock is a silence, whatever the database shows.
    service.clock.advance(61_000);
    assert_eq!(trips(&service).await, 1);
}

#[tokio::test]
async fn an_engine_that_was_off_and_whose_policy_was_removed_was_not_silent_while_it_was_off() {
    let service = Service::live().await;
    let engine = async |enabled: bool| {
        let body = json!({"engine": "LAB", "enabled": enabled, "max_open_risk": 100, "max_daily_loss": 100,
            "max_daily_exposure": 100, "actor": "ops", "reason": "drill"});
        service.post("/risk/policies/upsert", &body).await.ok();
    };
    engine(true).await;
    watched(&service, "rate", json!({})).await;
    service.set_skew("10 seconds").await;
    engine(false).await;
    service.set_skew("200 seconds").await;
    service.post("/risk/policies/remove", &json!({"engine": "LAB", "actor": "ops", "reason": "misspelt"})).await.ok();
    service.set_skew("245 seconds").await;
    assert_eq!(trips(&service).await, 0, "55 seconds: without a policy it counts as on");
    service.set_skew("252 seconds").await;
    assert_eq!(trips(&service).await, 1);
}
