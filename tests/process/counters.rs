//! The counts of `/metrics`: they count decisions and trips, not the answers that report them.

use crate::support::{Place, Server};
use rustix::process::Signal;
use serde_json::json;

/// The lines of a metric.
fn lines(server: &Server, metric: &str) -> Vec<String> {
    let text = server.get_root("/metrics").text;
    let mut lines: Vec<_> = text.lines().filter(|line| line.starts_with(metric)).map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Those of them that have counted something.
fn counted(server: &Server, metric: &str) -> Vec<String> {
    lines(server, metric).into_iter().filter(|line| !line.ends_with(" 0")).collect()
}

#[test]
fn counters_are_there_at_zero_before_their_first_event() {
    let place = Place::new();
    let server = place.serve();
    for metric in [
        "holdfast_event_ids_reused_total",
        "holdfast_wire_trips_total{action=\"KILL_SWITCH\",mode=\"ENFORCE\"}",
        "holdfast_wire_trips_total{action=\"THROTTLE\",mode=\"ENFORCE\"}",
        "holdfast_wire_trips_total{action=\"THROTTLE\",mode=\"SHADOW\"}",
        "holdfast_reserve_decisions_total{outcome=\"reserved\"}",
        "holdfast_reserve_decisions_total{outcome=\"daily_loss_reached\"}",
        "holdfast_access_refused_total{error=\"INVALID_TOKEN\"}",
        "holdfast_connections_refused_total",
        "holdfast_log_lines_dropped_total",
        "holdfast_http_requests_total{route=\"/api/governance/risk/check-and-reserve\",method=\"POST\",status=\"500\"}",
    ] {
        assert_eq!(lines(&server, metric), [format!("{metric} 0")], "{metric}");
    }
    assert_eq!(lines(&server, "holdfast_reserve_decisions_total").len(), 9);
    server.stop(Signal::TERM);
}

#[test]
fn durations_are_not_counted_in_whole_milliseconds() {
    let place = Place::new();
    let server = place.serve();
    for _ in 0..10 {
        server.get("/go-live/state").ok();
    }
    let sum = r#"holdfast_http_request_seconds_sum{route="/api/governance/go-live/state"}"#;
    let lines = lines(&server, sum);
    let seconds: f64 = lines[0].split(' ').next_back().unwrap().parse().unwrap();
    let milliseconds = seconds * 1_000.0;
    assert!(milliseconds > 0.0 && (milliseconds - milliseconds.round()).abs() > 1e-7, "{lines:?}");
    server.stop(Signal::TERM);
}

#[test]
fn a_replay_is_not_counted() {
    let place = Place::new();
    let server = place.serve();
    server.go_live();
    let wire = json!({"domain": "WHOLESALE", "metric": "m", "window_events": 1, "baseline_events": 1,
                      "min_events_to_enforce": 1, "engine": "CAPITAL"});
    server.post("/regression/policies/upsert", &wire).ok();
    server.post("/regression/kpi", &json!({"domain": "WHOLESALE", "metric": "m", "success": true})).ok();
    for _ in 0..3 {
        let chosen =
            json!({"engine": "WHOLESALE", "amount": 2, "reservation_id": "0190163d-8694-739b-aea5-966c26f8ad91"});
        server.post("/risk/check-and-reserve", &chosen).ok();
        let keyed = json!({"engine": "WHOLESALE", "amount": 1, "idempotency_key": "one"});
        server.post("/risk/check-and-reserve", &keyed).ok();
        let denied = json!({"engine": "NOBODY", "amount": 1, "idempotency_key": "two"});
        server.post("/risk/check-and-reserve", &denied).ok();
        let many =
            json!({"idempotency_key": "three", "operations": [{"op": "reserve", "engine": "WHOLESALE", "amount": 3}]});
        server.post("/risk/batch", &many).ok();
        let trips = json!({"domain": "WHOLESALE", "metric": "m", "success": false, "idempotency_key": "four"});
        assert_eq!(server.post("/regression/kpi", &trips).ok()["tripped"]["action"], "THROTTLE");
    }
    assert_eq!(
        counted(&server, "holdfast_reserve_decisions_total"),
        [
            r#"holdfast_reserve_decisions_total{outcome="policy_missing"} 1"#,
            r#"holdfast_reserve_decisions_total{outcome="reserved"} 3"#
        ]
    );
    assert_eq!(
        counted(&server, "holdfast_wire_trips_total"),
        [r#"holdfast_wire_trips_total{action="THROTTLE",mode="ENFORCE"} 1"#]
    );
    server.stop(Signal::TERM);
}
