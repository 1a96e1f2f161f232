//! An operator's acts on a wire, and the behaviour of SEQUENTIAL, through HTTP.

use crate::support::{Service, Setup};
use holdfast::regression::model::{
    FrozenSpan, Mark, Measurement, RegressionPolicy, Series, Sums, Window, Wire, WireState,
};
use serde_json::{Value, json};
use sqlx::Connection;

mod batch;
mod kind;
mod random;
mod sequential;
mod silence;

const UPSERT: &str = "/regression/policies/upsert";
const BATCH: &str = "/regression/kpi/batch";

/// A wire of 5 recent events against 10, with whatever else is given.
async fn wire(service: &Service, metric: &str, more: Value) -> Value {
    let mut body = json!({
        "domain": "LAB", "metric": metric, "window_events": 5, "baseline_events": 10, "min_events_to_enforce": 5,
        "actor": "setup",
    });
    for (name, value) in more.as_object().expect("an object") {
        body[name] = value.clone();
    }
    service.post(UPSERT, &body).await.ok()
}

async fn state(service: &Service, metric: &str) -> Value {
    let states = service.get("/regression/state").await.ok();
    let found = states.as_array().unwrap().iter().find(|row| row["domain"] == "LAB" && row["metric"] == metric);
    found.cloned().unwrap_or_default()
}

async fn trip(service: &Service) -> Value {
    service.get("/regression/trips?limit=1").await.ok()["items"][0].clone()
}

/// Records outcomes, one line each, and gives back the places of those that tripped, from 1.
async fn record(service: &Service, metric: &str, outcomes: &[bool]) -> Vec<i64> {
    let events: Vec<_> =
        outcomes.iter().map(|success| json!({"domain": "LAB", "metric": metric, "success": success})).collect();
    let done = service.post(BATCH, &json!({"events": events})).await.ok();
    assert_eq!((&done["recorded"], &done["refused_count"]), (&json!(outcomes.len()), &json!(0)), "{done}");
    done["tripped"].as_array().unwrap().iter().map(|one| one["line"].as_i64().unwrap()).collect()
}

/// A wire that has just tripped.
async fn tripped(service: &Service, metric: &str, more: Value) {
    wire(service, metric, more).await;
    assert_eq!(record(service, metric, &[true; 15]).await, [0; 0]);
    assert_eq!(record(service, metric, &[false]).await, [1]);
}

fn named(metric: &str, more: Value) -> Value {
    let mut body = json!({"domain": "LAB", "metric": metric, "actor": "bryan"});
    let Value::Object(members) = more else { panic!("{more} is no object") };
    for (name, value) in members {
        body[name] = value;
    }
    body
}

#[tokio::test]
async fn an_acknowledged_trip_still_stands_and_says_what_it_was() {
    let service = Service::live().await;
    tripped(&service, "rate", json!({})).await;
    let body = named("rate", json!({"verdict": "FALSE_ALARM", "reason": "noise"}));
    let done = service.post("/regression/acknowledge", &body).await.ok();
    assert_eq!((&done["state"]["status"], &done["state"]["triggered"]), (&json!("ACKNOWLEDGED"), &json!(true)));
    assert_eq!(state(&service, "rate").await["status"], "ACKNOWLEDGED");
    assert_eq!(service.reserve("LAB", "1").await.ok()["ok"], false);

    // The last word counts, and each is a change of the control plane.
    let body = named("rate", json!({"verdict": "TRUE_REGRESSION"}));
    service.post("/regression/acknowledge", &body).await.ok();
    let kept = trip(&service).await;
    assert_eq!((&kept["verdict"], &kept["acknowledged_by"]), (&json!("TRUE_REGRESSION"), &json!("bryan")));
    let events = service.get("/audit/events?stream=control&action=REGRESSION_ACKNOWLEDGE").await.ok();
    assert_eq!(events["items"].as_array().unwrap().len(), 2, "{events}");

    // An earlier one is named by its id.
    service.post("/regression/rearm", &named("rate", json!({"reason": "fixed"}))).await.ok();
    service.post("/regression/acknowledge", &body).await.refused(409, "NOT_TRIPPED");
    let earlier = named("rate", json!({"verdict": "EXPECTED_CHANGE", "trip_id": kept["id"]}));
    let done = service.post("/regression/acknowledge", &earlier).await.ok();
    assert_eq!(done["state"]["status"], "WARMUP", "{done}");
    assert_eq!(trip(&service).await["verdict"], "EXPECTED_CHANGE");
    let unknown = named("rate", json!({"verdict": "EXPECTED_CHANGE", "trip_id": 999_999}));
    service.post("/regression/acknowledge", &unknown).await.refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn the_review_shows_the_real_share_of_false_alarms() {
    let service = Service::live().await;
    for (metric, verdict) in [("one", "FALSE_ALARM"), ("two", "TRUE_REGRESSION"), ("three", "EXPECTED_CHANGE")] {
        tripped(&service, metric, json!({})).await;
        service.post("/regression/acknowledge", &named(metric, json!({"verdict": verdict}))).await.ok();
    }
    let share = service.get("/review").await.ok()["slo"]["false_alarm_share"].clone();
    assert_eq!((&share["met"], &share["value"]), (&json!(null), &json!(0.333_333_333_333)), "{share}: too few to say");
    for n in 4..=10 {
        let metric = format!("more-{n}");
        tripped(&service, &metric, json!({})).await;
        service.post("/regression/acknowledge", &named(&metric, json!({"verdict": "TRUE_REGRESSION"}))).await.ok();
    }
    let share = service.get("/review").await.ok()["slo"]["false_alarm_share"].clone();
    assert_eq!((&share["met"], &share["value"], &share["sample"]), (&json!(false), &json!(0.1), &json!(10)), "{share}");
}

#[tokio::test]
async fn a_rearm_with_bad_events_in_the_history_does_not_trip() {
    let service = Service::live().await;
    tripped(&service, "rate", json!({})).await;
    assert_eq!(record(&service, "rate", &[false; 50]).await, [0; 0], "latched: it acts once");
    let done = service.post("/regression/rearm", &named("rate", json!({"reason": "fixed"}))).await.ok();
    assert_eq!((&done["state"]["status"], &done["baseline"]), (&json!("WARMUP"), &json!("KEEP")));
    service.reserve("LAB", "1").await.ok();
    assert_eq!(record(&service, "rate", &[true; 40]).await, [0; 0]);
    assert_eq!(record(&service, "rate", &[true, true, false]).await, [3], "and it is armed");
    service.post("/regression/rearm", &named("other", json!({"reason": "x"}))).await.refused(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_rearm_needs_a_reason_and_a_trip() {
    let service = Service::live().await;
    wire(&service, "rate", json!({})).await;
    service.post("/regression/rearm", &named("rate", json!({"reason": "x"}))).await.refused(409, "NOT_TRIPPED");
    service.post("/regression/rearm", &named("rate", json!({}))).await.invalid("reason");
}

#[tokio::test]
async fn a_rearm_may_take_the_last_events_or_the_next_as_its_baseline() {
    let service = Service::live().await;
    // The change was intended: half is the new normal.
    tripped(&service, "last", json!({})).await;
    record(&service, "last", &[true, false, true, false, true, false, true, false, true, false]).await;
    let body = named("last", json!({"reason": "a new product", "baseline": "RESET_LAST_N"}));
    let done = service.post("/regression/rearm", &body).await.ok();
    assert_eq!(done["state"]["baseline_version"], 1);
    assert_eq!(record(&service, "last", &[true, false, true, false, true]).await, [0; 0]);
    assert_eq!(state(&service, "last").await["baseline"], 0.5);

    tripped(&service, "next", json!({})).await;
    let body = named("next", json!({"reason": "a new product", "baseline": "RESET_NEXT_N"}));
    service.post("/regression/rearm", &body).await.ok();
    assert_eq!(record(&service, "next", &[false; 14]).await, [0; 0], "nothing is judged until there is a baseline");
    let baselines = service.get("/regression/baselines?domain=LAB&metric=next").await.ok();
    assert_eq!((&baselines[0]["source"], &baselines[0]["after_event"]), (&json!("NEXT_N"), &json!(16)));
}

#[tokio::test]
async fn a_shadow_trip_is_recorded_and_does_nothing() {
    let service = Service::live().await;
    tripped(&service, "rate", json!({"mode": "SHADOW"})).await;
    let now = state(&service, "rate").await;
    assert_eq!((&now["status"], &now["triggered"]), (&json!("SHADOW_TRIPPED"), &json!(false)), "{now}");
    assert_eq!(trip(&service).await["shadow"], true);
    let policies = service.get("/risk/policies").await.ok();
    assert!(policies.as_array().unwrap().iter().all(|row| row["throttled_by"] == json!([])), "{policies}");
    let review = service.get("/review").await.ok();
    assert_eq!((&review["tripped"], &review["shadow_tripped"][0]["metric"]), (&json!([]), &json!("rate")));

    // Once it is meant, it is armed, and the next drop acts.
    wire(&service, "rate", json!({"mode": "ENFORCE"})).await;
    assert_eq!(state(&service, "rate").await["trip_id"], Value::Null);
    record(&service, "rate", &[true; 20]).await;
    assert_eq!(record(&service, "rate", &[false]).await, [1]);
    assert_eq!(state(&service, "rate").await["status"], "TRIPPED");
}

#[tokio::test]
async fn a_worse_baseline_is_refused_unless_it_is_meant() {
    let service = Service::live().await;
    wire(&service, "rate", json!({"max_drop_fraction": 0.5, "window_events": 10})).await;
    record(&service, "rate", &[true; 20]).await;
    // 3 of the last 10 failed, which is a drop of 0.3: more than half of 0.5.
    record(&service, "rate", &[false, true, true, false, true, true, false, true, true, true]).await;
    let body = named("rate", json!({"reason": "Friday"}));
    let refused = service.post("/regression/baseline/reset", &body).await.refused(409, "BASELINE_WORSE");
    assert_eq!(refused["drop_fraction"], 0.3, "{refused}");
    let forced = named("rate", json!({"reason": "Friday", "force": true}));
    let done = service.post("/regression/baseline/reset", &forced).await.ok();
    assert_eq!((&done["version"], &done["source"]), (&json!(1), &json!("RESET_LAST_N")));

    tripped(&service, "other", json!({})).await;
    let body = named("other", json!({"reason": "Friday"}));
    service.post("/regression/baseline/reset", &body).await.refused(409, "WIRE_TRIPPED");
}

#[tokio::test]
async fn lower_is_better_is_the_mirror_image() {
    let service = Service::live().await;
    let outcomes: Vec<bool> = (0..400_u32).map(|n| n % 7 != 3 && (n < 300 || n % 3 == 0)).collect();
    let mirrored: Vec<bool> = outcomes.iter().map(|success| !success).collect();
    for detector in ["PLAIN", "SEQUENTIAL"] {
        let (high, low) = (format!("high_{detector}").to_lowercase(), format!("low_{detector}").to_lowercase());
        let more =
            json!({"detector": detector, "window_events": 50, "baseline_events": 200, "min_events_to_enforce": 50});
        wire(&service, &high, more.clone()).await;
        let mut flipped = more;
        flipped["direction"] = json!("LOWER_IS_BETTER");
        wire(&service, &low, flipped).await;
        let fired = record(&service, &high, &outcomes).await;
        assert_eq!(fired.len(), 1, "{detector}");
        assert_eq!(record(&service, &low, &mirrored).await, fired, "{detector}");
        let (high, low) = (state(&service, &high).await, state(&service, &low).await);
        assert_eq!((&high["evidence"], &high["drop_fraction"]), (&low["evidence"], &low["drop_fraction"]));
    }
}

#[tokio::test]
async fn an_absolute_drop_watches_a_metric_that_loses_money() {
    let service = Service::live().await;
    wire(&service, "margin", json!({"effect": "ABSOLUTE", "max_drop_value": 40})).await;
    let values = |values: Vec<i64>| {
        let line = |value| json!({"domain": "LAB", "metric": "margin", "value": value});
        json!({"events": values.into_iter().map(line).collect::<Vec<_>>()})
    };
    let quiet = service.post(BATCH, &values([vec![-100; 15], vec![-139; 4]].concat())).await.ok();
    assert_eq!(quiet["tripped"], json!([]));
    let done = service.post(BATCH, &values(vec![-140, -181])).await.ok();
    assert_eq!((&done["tripped"][0]["line"], &done["tripped"][0]["trip"]["drop_fraction"]), (&json!(2), &json!(43.7)));
    let refused = named("margin", json!({"effect": "RELATIVE"}));
    service.post(UPSERT, &refused).await.invalid("max_drop_value");
}

#[tokio::test]
async fn a_silent_series_trips_the_wire_that_says_so() {
    let service = Service::live().await;
    let silent = |on_stale: &str| json!({"on_stale": on_stale, "stale_after_seconds": 60});
    for (metric, on_stale) in [("ignored", "IGNORE"), ("warned", "WARN"), ("tripped", "TRIP")] {
        wire(&service, metric, silent(on_stale)).await;
        record(&service, metric, &[true]).await;
    }
    assert_eq!(service.app.regression.trip_silent().await.unwrap(), 0);
    service.jump("61 seconds").await;
    let listed = service.get("/review").await.ok()["silent"].clone();
    let metrics: Vec<_> = listed.as_array().unwrap().iter().map(|row| row["metric"].clone()).collect();
    assert_eq!(metrics, ["tripped", "warned"]);
    assert_eq!(service.app.regression.trip_silent().await.unwrap(), 1);
    assert_eq!(service.app.regression.trip_silent().await.unwrap(), 0, "once");
    let (now, kept) = (state(&service, "tripped").await, trip(&service).await);
    assert_eq!((&now["status"], &kept["cause"]), (&json!("TRIPPED"), &json!("STALE")), "{now} {kept}");
    let refused = service.reserve("LAB", "1").await.ok();
    assert_eq!(refused["ok"], false, "{refused}");

    // Armed again, it has as long as before.
    service.post("/regression/rearm", &named("tripped", json!({"reason": "the feed is back"}))).await.ok();
    assert_eq!(service.app.regression.trip_silent().await.unwrap(), 0);
    let refused = json!({"domain": "LAB", "metric": "new", "on_stale": "TRIP"});
    service.post(UPSERT, &refused).await.invalid("stale_after_seconds");
}

#[tokio::test]
async fn a_wire_that_chance_would_trip_says_so_when_it_is_set_up() {
    let service = Service::live().await;
    let unknown = wire(&service, "other", json!({})).await["warnings"].to_string();
    assert!(unknown.contains("no risk policy is named LAB"), "{unknown}");
    service
        .post(
            "/risk/policies/upsert",
            &json!({"engine": "LAB", "max_open_risk": 1, "max_daily_loss": 1, "max_daily_exposure": 1}),
        )
        .await
        .ok();
    let warned = async |metric: &str, more: Value| wire(&service, metric, more).await["warnings"].clone();
    let windows = json!({"window_events": 50, "baseline_events": 200, "min_events_to_enforce": 50});
    let with = |more: Value| {
        let mut body = windows.clone();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    assert_eq!(warned("rate", with(json!({}))).await, json!([]), "nothing is known yet");
    let outcomes: Vec<bool> = (0..1_000).map(|n| n % 5 != 0).collect();
    record(&service, "rate", &outcomes).await;
    let said = warned("rate", with(json!({}))).await.to_string();
    assert!(said.contains("a drop below 0.28") && said.contains("false trips in 5,000 events"), "{said}");
    assert_eq!(warned("rate", with(json!({"detector": "SEQUENTIAL"}))).await, json!([]));

    let value = |n: i64| json!({"domain": "LAB", "metric": "profit", "value": if n % 10 == 0 { 900 } else { 10 }});
    service.post(BATCH, &json!({"events": (0..500).map(value).collect::<Vec<_>>()})).await.ok();
    let mut stops = named("profit", with(json!({"action": "KILL_SWITCH"})));
    service.post(UPSERT, &stops).await.invalid("force");
    stops["force"] = json!(true);
    let said = service.post(UPSERT, &stops).await.ok()["warnings"].to_string();
    assert!(said.contains("a few large ones are enough"), "{said}");
    service.post(UPSERT, &named("profit", json!({"detector": "SEQUENTIAL"}))).await.ok();

    let loss = |_| json!({"domain": "LAB", "metric": "loss", "value": -5});
    service.post(BATCH, &json!({"events": (0..50).map(loss).collect::<Vec<_>>()})).await.ok();
    let said = warned("loss", with(json!({}))).await.to_string();
    assert!(said.contains("effect=ABSOLUTE does not"), "{said}");
}

#[tokio::test]
async fn a_baseline_of_no_events_is_refused_and_one_of_few_is_said() {
    let service = Service::live().await;
    for detector in ["PLAIN", "SEQUENTIAL"] {
        let metric = detector.to_lowercase();
        wire(&service, &metric, json!({"detector": detector})).await;
        let reset = async |more: Value| service.post("/regression/baseline/reset", &named(&metric, more)).await;
        reset(json!({})).await.invalid("source");
        let said = reset(json!({"source": "NEXT_N"})).await.ok();
        let warning = "the new baseline has 0 of 10 events: nothing is judged until enough have come";
        assert_eq!(said["warnings"], json!([warning]), "{detector}");
        assert_eq!(reset(json!({"force": true})).await.ok()["warnings"], json!([warning]), "{detector}");
        record(&service, &metric, &[true; 4]).await;
        let said = reset(json!({})).await.ok()["warnings"].take();
        assert!(said[0].as_str().unwrap().starts_with("the new baseline has 4 of 10 events"), "{detector}: {said}");
        record(&service, &metric, &[true; 12]).await;
        assert_eq!(reset(json!({})).await.ok()["warnings"], json!([]), "{detector}");
    }
    // An end of a trip is never refused for its baseline.
    tripped(&service, "fell", json!({})).await;
    let rearm = named("fell", json!({"reason": "mended", "baseline": "RESET_NEXT_N"}));
    let armed = service.post("/regression/rearm", &rearm).await.ok();
    assert!(armed["warnings"][0].as_str().unwrap().contains("0 of 10 events"), "{armed}");
}
