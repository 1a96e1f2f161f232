//! SEQUENTIAL: evidence against a frozen baseline.

use super::{
    BATCH, Connection, FrozenSpan, Mark, Measurement, RegressionPolicy, Series, Service, Setup, Sums, UPSERT, Value,
    Window, Wire, WireState, json, named, record, state, trip, wire,
};

/// The settings of the reference.
fn settings() -> Value {
    json!({"detector": "SEQUENTIAL", "window_events": 50, "baseline_events": 200, "min_events_to_enforce": 50})
}

/// This number of events, of which every `every`th fails.
fn failing(count: usize, every: usize) -> Vec<bool> {
    (1..=count).map(|place| !place.is_multiple_of(every)).collect()
}

/// tripwire.md 5.1: 250 events, the detector chosen right after the 200th, then the bad pattern.
#[tokio::test]
async fn the_golden_streams_fire_at_exactly_their_event() {
    let service = Service::live().await;
    // Every event of the pattern fails, or every other, the first of them.
    let patterns = [
        ("five_fail", 5, 1, 11),
        ("five_alternate", 5, 2, 77),
        ("ten_fail", 10, 1, 7),
        ("twenty_fail", 20, 1, 6),
        ("twenty_alternate", 20, 2, 19),
    ];
    for (metric, every, fails, expected) in patterns {
        let good = failing(250, every);
        record(&service, metric, &good[..200]).await;
        wire(&service, metric, settings()).await;
        assert_eq!(state(&service, metric).await["status"], "ARMED", "{metric}: the baseline is there");
        assert_eq!(record(&service, metric, &good[200..]).await, [0; 0], "{metric}");
        let bad: Vec<bool> = (0..100_usize).map(|place| !place.is_multiple_of(fails)).collect();
        assert_eq!(record(&service, metric, &bad).await, [expected], "{metric}");
        let kept = trip(&service).await;
        assert!(kept["evidence"].as_f64().unwrap() >= 50_000.0, "{kept}");
        assert!(kept["began_at_event"].as_i64().unwrap() <= 250 + expected, "{kept}");
    }
}

#[tokio::test]
async fn evidence_and_guarantee_are_shown_as_they_grow() {
    let service = Service::live().await;
    record(&service, "rate", &failing(200, 20)).await;
    wire(&service, "rate", settings()).await;
    let before = state(&service, "rate").await;
    assert_eq!(before["guarantee"], json!({"arl_events": 50_000, "max_false_trip_per_5000": 0.1}));
    record(&service, "rate", &[false; 5]).await;
    let now = state(&service, "rate").await;
    // tripwire.md 5.2: 190/200, all fail, after five events.
    assert!((now["evidence"].as_f64().unwrap() - 9_102.695_506).abs() < 1e-5, "{now}");
    assert!((now["evidence_pct"].as_f64().unwrap() - 84.254).abs() < 0.01, "{now}");
    assert_eq!((&now["began_at_event"], &now["current_events"]), (&json!(201), &json!(5)));
    let review = service.get("/review").await.ok();
    assert_eq!(review["near_tripping"][0]["metric"], "rate");
    let first =
        review["look_first"].as_array().unwrap().iter().find(|line| line.as_str().unwrap().contains("LAB.rate"));
    assert!(
        first.unwrap().as_str().unwrap().contains("84 % of the evidence; began at event 201, 5 events ago"),
        "{first:?}"
    );
    assert_eq!(record(&service, "rate", &[false]).await, [1]);
}

#[tokio::test]
async fn a_baseline_that_is_not_there_yet_is_collected_from_the_next_events() {
    let service = Service::live().await;
    record(&service, "rate", &failing(100, 20)).await;
    wire(&service, "rate", settings()).await;
    let now = state(&service, "rate").await;
    assert_eq!((&now["status"], &now["note"]), (&json!("WARMUP"), &json!("baseline_collecting(have=100, need=200)")));
    assert_eq!(record(&service, "rate", &failing(100, 20)).await, [0; 0]);
    assert_eq!(state(&service, "rate").await["status"], "ARMED");
    assert_eq!(record(&service, "rate", &[false; 8]).await, [6]);

    // The same over many events of one request.
    wire(&service, "whole", settings()).await;
    assert_eq!(record(&service, "whole", &[failing(200, 20), vec![false; 8]].concat()).await, [206]);
}

#[tokio::test]
async fn a_wire_that_was_off_gathers_no_evidence_over_what_it_did_not_see() {
    let service = Service::live().await;
    record(&service, "rate", &failing(200, 20)).await;
    wire(&service, "rate", settings()).await;
    record(&service, "rate", &[false; 4]).await;
    wire(
        &service,
        "rate",
        json!({"enabled": false, "window_events": 50, "baseline_events": 200, "min_events_to_enforce": 50}),
    )
    .await;
    record(&service, "rate", &[false; 10]).await;
    wire(
        &service,
        "rate",
        json!({"enabled": true, "window_events": 50, "baseline_events": 200, "min_events_to_enforce": 50}),
    )
    .await;
    assert_eq!(state(&service, "rate").await["evidence"], 1.0);
    assert_eq!(record(&service, "rate", &[false; 6]).await, [6]);
    assert_eq!(trip(&service).await["began_at_event"], 215);
}

#[tokio::test]
async fn a_rearm_keeps_the_frozen_baseline_and_forgets_the_evidence() {
    let service = Service::live().await;
    record(&service, "rate", &failing(200, 20)).await;
    wire(&service, "rate", settings()).await;
    assert_eq!(record(&service, "rate", &[false; 30]).await, [6]);
    let done = service.post("/regression/rearm", &named("rate", json!({"reason": "fixed"}))).await.ok();
    assert_eq!((&done["state"]["status"], &done["state"]["evidence"]), (&json!("ARMED"), &json!(1.0)), "{done}");
    assert_eq!(record(&service, "rate", &failing(99, 20)).await, [0; 0]);
    assert_eq!(record(&service, "rate", &[false; 6]).await, [6]);
}

#[tokio::test]
async fn other_settings_freeze_the_baseline_anew() {
    let service = Service::live().await;
    record(&service, "rate", &failing(300, 20)).await;
    wire(&service, "rate", settings()).await;
    let versions = async || state(&service, "rate").await["baseline_version"].clone();
    assert_eq!(versions().await, 1);
    let mut same = settings();
    same["false_trip_arl"] = json!(100_000);
    wire(&service, "rate", same).await;
    assert_eq!(versions().await, 1, "only how much evidence it takes");
    let mut other = settings();
    other["max_drop_fraction"] = json!(0.3);
    wire(&service, "rate", other).await;
    assert_eq!(versions().await, 2);
    let listed = service.get("/regression/baselines?domain=LAB&metric=rate").await.ok();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["after_event"]), (2, &json!(100)));
    service
        .post(UPSERT, &json!({"domain": "LAB", "metric": "rate", "false_trip_arl": 99}))
        .await
        .invalid("false_trip_arl");
}

#[tokio::test]
async fn values_are_judged_by_their_ranks() {
    let service = Service::live().await;
    // Heavy tails: one in twenty is a hundred times the rest.
    let value = |place: usize| if place.is_multiple_of(20) { 10_000 } else { 90 + i64::try_from(place % 21).unwrap() };
    let events = |values: Vec<i64>| {
        let line = |value| json!({"domain": "LAB", "metric": "profit", "value": value});
        json!({"events": values.into_iter().map(line).collect::<Vec<_>>()})
    };
    service.post(BATCH, &events((1..=200).map(value).collect())).await.ok();
    wire(&service, "profit", settings()).await;
    let same = service.post(BATCH, &events((1..=2_000).map(value).collect())).await.ok();
    assert_eq!(same["tripped"], json!([]));
    let worse = service.post(BATCH, &events((1..=200).map(|place| value(place) / 2).collect())).await.ok();
    let line = worse["tripped"][0]["line"].as_i64().unwrap();
    assert!((10..=60).contains(&line), "{worse}");
}

/// The stored state of a wire equals a replay of its events, bit for bit: after single events and batches, trips and
/// re-arms, written by a hundred at once and through a restart.
#[tokio::test]
async fn the_state_is_that_of_a_replay_whoever_wrote_and_in_whatever_pieces() {
    let service = Service::live().await;
    record(&service, "rate", &failing(230, 9)).await;
    wire(&service, "rate", settings()).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..100_u32 {
        let body = json!({"domain": "LAB", "metric": "rate", "success": writer % 9 != 0});
        writers.spawn(service.post("/regression/kpi", &body));
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap().ok();
    }
    for piece in [1, 7, 50, 3] {
        record(&service, "rate", &failing(piece, 4)).await;
    }
    let again = Service::on(service.options.clone(), Setup::default()).await;
    record(&again, "rate", &failing(31, 3)).await;

    let mut conn = sqlx::PgConnection::connect_with(&service.options).await.unwrap();
    let policy = holdfast::regression::store::read_policies(&mut conn).await.unwrap();
    let policy: RegressionPolicy = policy.into_iter().find(|policy| policy.domain.as_str() == "LAB").unwrap();
    let kept = holdfast::regression::store::read_state(&mut conn, &policy.domain, &policy.metric).await.unwrap();
    let outcomes: Vec<bool> =
        sqlx::query_scalar("SELECT success FROM kpi_event WHERE domain = 'LAB' ORDER BY series_seq")
            .fetch_all(&mut conn)
            .await
            .unwrap();

    let mut series = Series::default();
    let mut fresh = Wire::new(policy.clone(), WireState::new(policy.domain.clone(), policy.metric.clone()), true);
    let mut marks = vec![Mark::default()];
    for (place, success) in outcomes.iter().enumerate() {
        let measurement = Measurement::Success(*success);
        let mark = Mark { events: series.end.events + 1, sum: series.end.sum.plus(measurement.addend()).unwrap() };
        series.push(mark, holdfast::regression::model::Kind::Boolean, 0);
        marks.push(mark);
        if place + 1 == 230 {
            let span = FrozenSpan::last(200, 230, 0);
            fresh.freeze(span, marks[30], mark);
        } else if place + 1 > 230 {
            let reading = fresh.observe(mark, measurement, &series).unwrap();
            fresh.take(&reading);
        }
    }
    assert_eq!(series.sum(230), Some(marks[230].sum));
    assert_eq!(Window::between(marks[30], marks[230]).sum, fresh.state.frozen.unwrap().sum.unwrap());
    assert_eq!(kept.bets.e.map(f64::to_bits), fresh.state.bets.e.map(f64::to_bits));
    assert_eq!(
        (kept.bets, kept.frozen, kept.evidence_after),
        (fresh.state.bets, fresh.state.frozen, fresh.state.evidence_after)
    );
    assert_eq!((kept.drop_fraction, &kept.note), (fresh.state.drop_fraction, &fresh.state.note));
}

/// Armed again right after each trip, a live wire makes the trips that a backtest of its history says, number for number.
#[tokio::test]
async fn a_backtest_is_what_was_done_live() {
    let service = Service::live().await;
    for (metric, detector) in [("plain", "PLAIN"), ("sequential", "SEQUENTIAL")] {
        let mut draft = settings();
        draft["detector"] = json!(detector);
        draft["min_events_to_enforce"] = json!(20);
        wire(&service, metric, draft.clone()).await;
        let outcomes: Vec<bool> =
            (0..1_500_u32).map(|n| if (n / 300) % 2 == 0 { n % 10 != 0 } else { n % 3 == 0 }).collect();
        for success in outcomes {
            if !record(&service, metric, &[success]).await.is_empty() {
                service.post("/regression/rearm", &named(metric, json!({"reason": "again"}))).await.ok();
            }
        }
        let live = service.get(&format!("/regression/trips?metric={metric}&limit=1000")).await.ok();
        let mut live = live["items"].as_array().unwrap().clone();
        live.reverse();
        let replayed =
            service.post("/regression/backtest", &json!({"domain": "LAB", "metric": metric, "shuffles": 2})).await.ok();
        assert!(live.len() >= 2, "{metric}: {}", live.len());
        assert_eq!(replayed["trips_count"], live.len(), "{metric}");
        for (one, other) in live.iter().zip(replayed["trips"].as_array().unwrap()) {
            for field in [
                "series_seq",
                "baseline_events",
                "baseline_sum",
                "current_events",
                "current_sum",
                "drop_fraction",
                "evidence",
                "began_at_event",
            ] {
                assert_eq!(one[field], other[field], "{metric} {field}: {one} {other}");
            }
        }
    }
}

#[tokio::test]
async fn a_backtest_says_what_chance_would_do_and_writes_nothing() {
    let service = Service::live().await;
    // Half of them succeed, as by a coin: PLAIN trips on that all the time.
    let coin: Vec<bool> = (0..3_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 1).collect();
    record(&service, "coin", &coin).await;
    let before = service.everything().await;
    let ask = json!({"domain": "LAB", "metric": "coin", "shuffles": 20});
    let said = service.post("/regression/backtest", &ask).await.ok();
    let mut again = service.post("/regression/backtest", &ask).await.ok();
    again["policy"]["updated_at"] = said["policy"]["updated_at"].clone();
    assert_eq!(said, again, "the same question has the same answer");
    assert_eq!(said["events"], 3_000);
    assert_eq!(said["chance"]["tripped_share"], 1.0);
    assert!(said["chance_sequential"]["tripped_share"].as_f64().unwrap() <= 0.1, "{said}");
    assert_eq!(said["recommended"]["detector"], "SEQUENTIAL", "{said}");
    assert!((said["min_resolvable_drop"].as_f64().unwrap() - 0.553).abs() < 0.02, "{said}");
    assert_eq!(service.everything().await, before);
    let none = json!({"domain": "LAB", "metric": "none"});
    let unknown = service.post("/regression/backtest", &none).await.refused(404, "NOT_FOUND");
    assert_eq!(unknown["detail"], "there is no series LAB.none");
    service.post("/regression/policies/upsert", &none).await.ok();
    let nothing = service.post("/regression/backtest", &none).await.ok();
    assert_eq!((&nothing["events"], &nothing["recommended"]), (&json!(0), &Value::Null));
    let bad = json!({"domain": "LAB", "metric": "coin", "window_events": 0});
    service.post("/regression/backtest", &bad).await.invalid("window_events");
    let range =
        |from: &str, to: &str| json!({"domain": "LAB", "metric": "coin", "from": from, "to": to, "shuffles": 0});
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    service.post("/regression/backtest", &range(late, early)).await.invalid("to");
    assert_eq!(service.post("/regression/backtest", &range(early, late)).await.ok()["events"], 0);
    for list in ["/risk/events", "/audit/events"] {
        service.get(&format!("{list}?from={late}&to={early}")).await.invalid("to");
        service.get(&format!("{list}?from={early}&to={early}")).await.ok();
    }
}

#[tokio::test]
async fn a_wire_that_is_set_up_disabled_is_armed_when_it_is_enabled() {
    let service = Service::live().await;
    let mut off = settings();
    off["enabled"] = json!(false);
    wire(&service, "rate", off).await;
    record(&service, "rate", &failing(200, 20)).await;
    let mut on = settings();
    on["enabled"] = json!(true);
    wire(&service, "rate", on).await;
    assert_eq!(state(&service, "rate").await["status"], "ARMED");
    assert_eq!(record(&service, "rate", &[false; 8]).await, [6]);
}

#[tokio::test]
async fn a_baseline_is_not_frozen_anew_over_a_drop_or_a_trip() {
    let service = Service::live().await;
    record(&service, "rate", &failing(200, 20)).await;
    wire(&service, "rate", settings()).await;
    record(&service, "rate", &[[true; 20].as_slice(), &[false; 5]].concat()).await;
    // Five failures in a row are evidence of 9,000.
    let tighter = named("rate", json!({"max_drop_fraction": 0.19}));
    service.post(UPSERT, &tighter).await.refused(409, "BASELINE_WORSE");
    let reset = |more: Value| named("rate", more);
    for source in ["LAST_N", "NEXT_N"] {
        let body = reset(json!({"source": source}));
        service.post("/regression/baseline/reset", &body).await.refused(409, "BASELINE_WORSE");
    }
    service.post("/regression/baseline/reset", &reset(json!({"force": true}))).await.ok();
    record(&service, "rate", &[true; 20]).await;
    service.post(UPSERT, &tighter).await.ok();

    record(&service, "other", &failing(200, 20)).await;
    wire(&service, "other", settings()).await;
    assert_eq!(record(&service, "other", &[false; 30]).await, [6]);
    let tighter = named("other", json!({"max_drop_fraction": 0.19}));
    service.post(UPSERT, &tighter).await.refused(409, "WIRE_TRIPPED");
    assert_eq!(state(&service, "other").await["baseline_version"], 1);
}
