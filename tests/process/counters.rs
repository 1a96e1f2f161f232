//! What `/metrics` counts: decisions and trips, not the answers that tell of them.

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
        lines(&server, "holdfast_reserve_decisions_total"),
        [
            r#"holdfast_reserve_decisions_total{outcome="policy_missing"} 1"#,
            r#"holdfast_reserve_decisions_total{outcome="reserved"} 3"#
        ]
    );
    assert_eq!(
        lines(&server, "holdfast_wire_trips_total"),
        [r#"holdfast_wire_trips_total{action="THROTTLE",mode="ENFORCE"} 1"#]
    );
    server.stop(Signal::TERM);
}
