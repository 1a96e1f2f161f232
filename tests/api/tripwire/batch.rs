//! Many measurements in one request.

use super::{BATCH, Service, Value, json, record, state, trip, wire};

const NDJSON: &str = "application/x-ndjson";

#[tokio::test]
async fn lines_and_a_list_are_recorded_alike() {
    let service = Service::live().await;
    wire(&service, "lines", json!({})).await;
    let line = |success: bool| format!(r#"{{"domain":"LAB","metric":"lines","success":{success},"event_id":null}}"#);
    let body = [vec![line(true); 15], vec![String::new(), line(false)]].concat().join("\n");
    let done = service.post_text(&format!("{BATCH}?actor=shop"), NDJSON, &body).await.ok();
    assert_eq!((&done["recorded"], &done["tripped"][0]["line"]), (&json!(16), &json!(17)), "{done}: blank lines count");
    assert_eq!(done["last_id"].as_i64().unwrap() - done["first_id"].as_i64().unwrap(), 15);
    let newest = service.get("/regression/kpi?limit=1").await.ok()["items"][0].clone();
    assert_eq!((&newest["actor"], &newest["id"]), (&json!("shop"), &done["last_id"]));
    assert_eq!(trip(&service).await["kpi_seq"], newest["id"]);

    wire(&service, "list", json!({})).await;
    assert_eq!(record(&service, "list", &[[true; 15].as_slice(), &[false]].concat()).await, [16]);
}

#[tokio::test]
async fn one_bad_measurement_does_not_keep_the_others_out() {
    let service = Service::live().await;
    let good = json!({"domain": "LAB", "metric": "rate", "success": true});
    let events = json!([
        good,
        {"domain": "LAB", "metric": "rate", "value": 3},
        {"domain": "LAB", "metric": "rate"},
        {"domain": "L A B", "metric": "rate", "success": true},
        {"domain": "LAB", "metric": "rate", "success": true, "surprise": 1},
        good,
    ]);
    let done = service.post(BATCH, &json!({"events": events})).await.ok();
    assert_eq!((&done["recorded"], &done["refused_count"]), (&json!(2), &json!(4)));
    let refused: Vec<_> = done["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["line"].as_i64().unwrap(), one["error"]["error"].as_str().unwrap().to_owned()))
        .collect();
    let invalid = |line| (line, "VALIDATION_FAILED".to_owned());
    assert_eq!(refused, [(2, "SERIES_KIND_MISMATCH".to_owned()), invalid(3), invalid(4), invalid(5)]);
    assert_eq!(service.count("SELECT count(*) FROM kpi_event").await, 2);
}

#[tokio::test]
async fn the_same_event_id_is_one_event_within_a_request_and_across_two() {
    let service = Service::live().await;
    let event =
        |id: &str, success: bool| json!({"domain": "LAB", "metric": "rate", "success": success, "event_id": id});
    let events = json!([event("a", true), event("b", true), event("a", true), event("a", false)]);
    let done = service.post(BATCH, &json!({"events": events})).await.ok();
    assert_eq!((&done["recorded"], &done["duplicates"]), (&json!(2), &json!(1)));
    assert_eq!(done["refused"][0]["error"]["error"], "EVENT_ID_REUSED");
    let again = service.post(BATCH, &json!({"events": [event("b", true), event("c", true)]})).await.ok();
    assert_eq!((&again["recorded"], &again["duplicates"]), (&json!(1), &json!(1)));
    assert_eq!(service.count("SELECT count(*) FROM kpi_event").await, 3);
}

#[tokio::test]
async fn what_is_no_list_of_measurements_is_refused_whole() {
    let service = Service::live().await;
    for body in [json!({}), json!({"events": []}), json!({"events": [1]}), json!({"events": "x"})] {
        service.post(BATCH, &body).await.invalid("events");
    }
    service.post(BATCH, &json!({"events": [], "success": true})).await.invalid("success");
    for body in ["[]", "{\"domain\":", "x\n1", "\u{0}"] {
        service.post_text(BATCH, NDJSON, body).await.refused(400, "MALFORMED_REQUEST");
    }
    service.post_text(BATCH, NDJSON, "").await.invalid("events");
    let many = vec!["{\"domain\":\"LAB\",\"metric\":\"m\",\"success\":true}"; 10_001].join("\n");
    service.post_text(BATCH, NDJSON, &many).await.invalid("events");
    let large = " ".repeat(8 * 1024 * 1024 + 1);
    service.post_text(BATCH, NDJSON, &large).await.refused(413, "BODY_TOO_LARGE");
    assert_eq!(service.count("SELECT count(*) FROM kpi_event").await, 0);
}

#[tokio::test]
async fn ten_thousand_measurements_are_one_commit_and_chain() {
    let service = Service::live().await;
    wire(&service, "rate", json!({})).await;
    let outcomes: Vec<bool> = (0..10_000).map(|n| n % 10 != 0).collect();
    assert_eq!(record(&service, "rate", &outcomes).await, [0; 0]);
    assert_eq!(state(&service, "rate").await["baseline"], 0.9);
    let verified = service.get("/audit/verify?stream=kpi").await.ok();
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(service.get("/regression/kpi?limit=1").await.ok()["items"][0]["series_seq"], Value::from(10_000));
}

#[tokio::test]
async fn an_array_is_a_list_and_a_line_that_is_none_is_refused_by_itself() {
    let service = Service::live().await;
    let event = r#"{"domain":"LAB","metric":"rate","success":true}"#;
    let done = service.post_text(BATCH, "application/json", &format!("[{event},{event},7]")).await.ok();
    assert_eq!((&done["recorded"], &done["refused"][0]["line"]), (&json!(2), &json!(3)));
    let body = format!("{event}\r\n\r\nnonsense\r\n{event}\r\n");
    let done = service.post_text(BATCH, NDJSON, &body).await.ok();
    assert_eq!((&done["recorded"], &done["refused_count"]), (&json!(2), &json!(1)), "{done}");
    let refused = &done["refused"][0];
    assert_eq!((&refused["line"], &refused["error"]["error"]), (&json!(3), &json!("MALFORMED_REQUEST")));
    service.post_text(BATCH, "application/json", "[").await.refused(400, "MALFORMED_REQUEST");
    service.post_text(BATCH, "application/json", "[]").await.invalid("events");
}

#[tokio::test]
async fn a_body_with_an_encoding_is_not_read() {
    let service = Service::live().await;
    let event = json!({"domain": "LAB", "metric": "rate", "success": true});
    for path in ["/regression/kpi", BATCH] {
        service.post_with(path, ("content-encoding", "gzip"), &event).await.refused(415, "UNSUPPORTED_MEDIA_TYPE");
    }
}

#[tokio::test]
async fn where_no_measurement_can_be_read_the_request_is_refused() {
    let service = Service::live().await;
    let bad =
        json!({"events": [{"domain": "LAB", "metric": "rate"}, {"domain": "LAB", "metric": "rate", "surprise": 1}]});
    service.post(BATCH, &bad).await.invalid("success");
}

#[tokio::test]
async fn ok_says_that_all_were_taken() {
    let service = Service::live().await;
    wire(&service, "rate", json!({})).await;
    record(&service, "rate", &[true]).await;
    let values = vec![json!({"domain": "LAB", "metric": "rate", "value": 1}); 500];
    let done = service.post(BATCH, &json!({"events": values})).await.ok();
    assert_eq!((&done["ok"], &done["recorded"], &done["refused_count"]), (&json!(false), &json!(0), &json!(500)));
    let good = json!({"domain": "LAB", "metric": "rate", "success": true});
    for (events, ok) in [(json!([good, values[0]]), false), (json!([good]), true)] {
        assert_eq!(service.post(BATCH, &json!({"events": events})).await.ok()["ok"], ok, "{events}");
    }
}

#[tokio::test]
async fn measurements_that_no_wire_watches_are_named() {
    let service = Service::live().await;
    wire(&service, "rate", json!({})).await;
    wire(&service, "off", json!({"enabled": false})).await;
    let event = |metric: &str| json!({"domain": "LAB", "metric": metric, "success": true, "event_id": metric});
    let done =
        service.post(BATCH, &json!({"events": [event("rate"), event("rat"), event("off"), event("rate")]})).await.ok();
    assert_eq!(
        json!([done["ok"], done["recorded"], done["duplicates"], done["watched"], done["unwatched_count"]]),
        json!([true, 3, 1, 2, 2])
    );
    assert_eq!(
        done["unwatched"],
        json!([{"domain": "LAB", "metric": "off", "events": 1}, {"domain": "LAB", "metric": "rat", "events": 1}])
    );
    let many: Vec<_> = (0..30).map(|n| event(&format!("m{n}"))).collect();
    let done = service.post(BATCH, &json!({"events": many})).await.ok();
    assert_eq!((done["unwatched"].as_array().unwrap().len(), &done["unwatched_count"]), (20, &json!(30)));
}

#[tokio::test]
async fn a_byte_order_mark_before_the_first_line_loses_no_measurement() {
    let service = Service::live().await;
    wire(&service, "marked", json!({})).await;
    let line = r#"{"domain":"LAB","metric":"marked","success":true}"#;
    for (content_type, body) in [
        (NDJSON, format!("\u{feff}{line}\n{line}\n")),
        ("application/json", format!("\u{feff}[{line},{line}]")),
        ("application/json", format!("\u{feff}{{\"events\":[{line},{line}]}}")),
    ] {
        let done = service.post_text(BATCH, content_type, &body).await.ok();
        assert_eq!((&done["recorded"], &done["refused"]), (&json!(2), &json!([])), "{body}");
    }
}
