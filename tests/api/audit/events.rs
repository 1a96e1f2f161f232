//! Events of all streams in one list: each once, whole, whatever arrives in between.

use super::{STREAMS, busy};
use crate::support::Service;
use holdfast::audit::events::{Cursor, Order};
use holdfast::audit::{self, ControlEvent, Origin, Stream};
use holdfast::types::ControlAction;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor};
use std::collections::BTreeSet;

/// An event's place: its time, its stream and its number there.
type Place = (String, String, i64);

fn place(event: &Value) -> Place {
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    (text("at"), text("stream"), event["seq"].as_i64().unwrap())
}

/// A page: its rows and where the next one begins.
async fn page(service: &Service, query: &str) -> (Vec<Value>, Option<String>) {
    let body = service.get(&format!("/audit/events?{query}")).await.ok();
    let rows = body["items"].as_array().unwrap().clone();
    (rows, body["next_cursor"].as_str().map(str::to_owned))
}

/// Every page, up to the last one that has rows where the oldest come first.
async fn walk(service: &Service, query: &str) -> Vec<Value> {
    let (mut rows, mut next) = page(service, query).await;
    while let Some(cursor) = next {
        let (more, then) = page(service, &format!("{query}&cursor={cursor}")).await;
        if more.is_empty() && then.as_ref() == Some(&cursor) {
            break;
        }
        rows.extend(more);
        next = then;
    }
    rows
}

fn places(rows: &[Value]) -> Vec<Place> {
    rows.iter().map(place).collect()
}

#[tokio::test]
async fn both_orders_see_every_event_once_in_the_order_of_their_times() {
    let service = busy().await;
    let mut expected = Vec::new();
    for stream in STREAMS {
        let (rows, next) = page(&service, &format!("stream={stream}&limit=1000")).await;
        assert!(rows.len() >= 8 && next.is_none() && rows.iter().all(|row| row["stream"] == stream));
        expected.extend(places(&rows));
    }
    assert_eq!(i64::try_from(expected.len()).unwrap(), service.events().await);
    for limit in [1, 3, 7, 1000] {
        expected.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(places(&walk(&service, &format!("limit={limit}")).await), expected, "{limit}");
        expected.sort_unstable();
        assert_eq!(places(&walk(&service, &format!("order=asc&limit={limit}")).await), expected, "{limit}");
    }
}

#[tokio::test]
async fn an_event_is_shown_with_every_column_as_it_is_stored() {
    let service = busy().await;
    let body = json!({
        "engine": "CAPITAL", "amount": "0.100000", "correlation_id": "t", "reason": "\"why\"", "metadata": {"b": 1.50, "a": [1e2]},
    });
    service.post("/risk/check-and-reserve", &body).await.ok();
    let measured = json!({"domain": "D", "metric": "m", "value": "-1.50", "detail": "{\"no\": \"object\"}"});
    service.post("/regression/kpi", &measured).await.ok();
    for stream in STREAMS {
        let (rows, _) = page(&service, &format!("stream={stream}&limit=1000")).await;
        let sql = format!("SELECT row_to_json(t)::text FROM {stream}_event t ORDER BY seq DESC");
        let stored: Vec<String> = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&service.pool).await.unwrap();
        assert_eq!(rows.len(), stored.len());
        for (row, stored) in rows.iter().zip(stored) {
            let stored: Value = serde_json::from_str(&stored).unwrap();
            let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
            let mut shown = names(row);
            assert!(shown.remove("stream") && shown.remove("erased"));
            assert_eq!(shown, names(&stored));
            assert_eq!(format!("\\x{}", row["hash"].as_str().unwrap()), stored["hash"].as_str().unwrap());
            for (name, stored) in stored.as_object().unwrap() {
                match (&row[name], stored) {
                    // Written as it is in the other lists.
                    _ if name == "at" || name == "hash" => {}
                    (Value::Number(shown), Value::Number(stored)) => {
                        assert_eq!(shown.as_f64(), stored.as_f64(), "{name}");
                    }
                    (shown @ Value::Object(_), Value::String(text)) => {
                        assert_eq!(*shown, serde_json::from_str::<Value>(text).unwrap(), "{name}");
                    }
                    (shown, stored) => assert_eq!(shown, stored, "{stream} {name}"),
                }
            }
        }
    }
    let text = service.get("/audit/events?limit=2").await.text;
    // Digits and spelling as they were written, amounts in their canonical text.
    for exact in
        [r#""amount":0.1,"#, r#""metadata":{"a":[100.0],"b":1.5}"#, r#""value":-1.5,"#, r#""reason":"\"why\"""#]
    {
        assert!(text.contains(exact), "{exact}: {text}");
    }
    assert!(text.contains(r#""detail":"{\"no\": \"object\"}""#), "{text}");
}

#[tokio::test]
async fn an_event_that_is_committed_late_is_neither_skipped_nor_repeated() {
    let service = busy().await;
    let newest = page(&service, "limit=5").await;
    let (_, tail) = page(&service, "order=asc&limit=1000").await;
    // One has its time, and waits; another, later one is committed before it.
    let mut tx = service.db.begin().await.unwrap();
    let mut head = audit::lock(&mut tx, Stream::Control).await.unwrap();
    let origin = Origin::system(None);
    let event = ControlEvent::new(ControlAction::AccessRefused);
    event.append(&mut tx, &mut head, &origin).await.unwrap();
    // The service's clock stands still in a test, and dates an event right after another by it.
    service.clock.advance(1_000);
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
    let (first, next) = page(&service, &format!("order=asc&cursor={}", tail.unwrap())).await;
    assert_eq!(first.iter().map(|row| row["action"].clone()).collect::<Vec<_>>(), ["RESERVE"]);
    tx.commit().await.unwrap();
    let (second, next) = page(&service, &format!("order=asc&cursor={}", next.unwrap())).await;
    assert_eq!(second.iter().map(|row| row["action"].clone()).collect::<Vec<_>>(), ["ACCESS_REFUSED"]);
    assert!(place(&second[0]) < place(&first[0]), "its time is the earlier one");
    let (none, same) = page(&service, &format!("order=asc&cursor={}", next.clone().unwrap())).await;
    assert_eq!((none, same), (vec![], next));
    // A walk that began before either goes on as if nothing had happened.
    let (rows, _) = page(&service, &format!("limit=1000&cursor={}", newest.1.unwrap())).await;
    let mut seen = places(&newest.0);
    seen.extend(places(&rows));
    assert_eq!(i64::try_from(seen.len()).unwrap(), service.events().await - 2);
    assert!(seen.is_sorted_by(|a, b| a > b));
}

#[tokio::test]
async fn filters_hold_and_leave_out_the_streams_that_have_no_such_column() {
    let service = busy().await;
    let by = json!({"engine": "CAPITAL", "amount": 1, "actor": "eve", "correlation_id": "thread"});
    let made = service.post("/risk/check-and-reserve", &by).await.ok();
    let id = made["reservation_id"].as_str().unwrap();
    service.post("/risk/settle", &json!({"reservation_id": id, "actor": "eve"})).await.ok();
    let upsert = json!({"engine": "CAPITAL", "max_daily_loss": 7, "actor": "eve"});
    service.post("/risk/policies/upsert", &upsert).await.ok();
    let measured = json!({"domain": "OTHER", "metric": "m", "success": true, "correlation_id": "thread"});
    service.post_with("/regression/kpi", ("x-request-id", "req-7"), &measured).await.ok();
    let trial = json!({"domain": "OTHER", "confidence": 0.5, "success": true, "correlation_id": "thread"});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    for (query, expected) in [
        ("actor=eve", "control RISK_POLICY_UPSERT, risk SETTLE, risk RESERVE"),
        ("correlation_id=thread", "heimdall TRIAL, kpi, risk RESERVE"),
        ("correlation_id=thread&stream=kpi", "kpi"),
        ("correlation_id=thread&actor=eve", "risk RESERVE"),
        ("request_id=req-7", "kpi"),
        ("engine=capital", "control RISK_POLICY_UPSERT, risk SETTLE, risk RESERVE"),
        ("engine=capital&action=SETTLE", "risk SETTLE"),
        ("domain=other", "heimdall TRIAL, kpi"),
        ("domain=other&action=TRIAL", "heimdall TRIAL"),
        ("domain=other&engine=capital", ""),
        (&format!("reservation_id={id}"), "risk SETTLE, risk RESERVE"),
        (&format!("reservation_id={id}&stream=control"), ""),
        ("reservation_id=0190163d-8694-739b-aea5-966c26f8ad91", ""),
        ("action=GO_LIVE_ENABLE&principal=UNAUTHENTICATED", "control GO_LIVE_ENABLE"),
        ("principal=nobody", ""),
    ] {
        for order in ["desc", "asc"] {
            let mut rows = walk(&service, &format!("{query}&order={order}&limit=2")).await;
            if order == "asc" {
                rows.reverse();
            }
            let shown = |row: &Value| {
                let action = row["action"].as_str().map_or_else(String::new, |action| format!(" {action}"));
                format!("{}{action}", row["stream"].as_str().unwrap())
            };
            assert_eq!(rows.iter().map(shown).collect::<Vec<_>>().join(", "), expected, "{query}");
        }
    }
}

#[tokio::test]
async fn a_time_counts_from_and_ends_before() {
    let service = busy().await;
    let (all, _) = page(&service, "limit=1000").await;
    let all = places(&all);
    for (first, last) in [(0, 0), (3, 17), (0, all.len() - 1), (all.len() - 1, all.len() - 1)] {
        let (from, to) = (&all[last].0, &all[first].0);
        let expected: Vec<_> = all.iter().filter(|event| event.0 >= *from && event.0 < *to).cloned().collect();
        let query = format!("from={from}&to={to}&limit=4");
        assert_eq!(places(&walk(&service, &query).await), expected, "{query}");
        let mut rising = places(&walk(&service, &format!("{query}&order=asc")).await);
        rising.reverse();
        assert_eq!(rising, expected, "{query}");
        let open = format!("from={from}&limit=1000");
        assert_eq!(places(&walk(&service, &open).await), all[..=last], "{open}");
    }
    assert_eq!(page(&service, "from=9999-01-01T00:00:00Z").await, (vec![], None));
    assert_eq!(page(&service, "to=0001-01-01T00:00:00Z").await, (vec![], None));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_field_named() {
    let service = Service::fresh().await;
    assert_eq!(page(&service, "").await, (vec![], None));
    for cursor in
        ["5", "d", "d.1.2.3", "d.1.2.3.x", "d.1.2.3.-1", "a.1.1.1.1", "d.1.2.3.4.5", "d.1.1.1.99999999999999999999"]
    {
        service.get(&format!("/audit/events?cursor={cursor}")).await.invalid("cursor");
    }
    let cursor = |order, places| Cursor { order, places }.to_string();
    let whole = cursor(Order::Desc, [1, 1, 1, 12]);
    service.get(&format!("/audit/events?cursor={whole}&order=asc")).await.invalid("cursor");
    for end in 1..whole.len() {
        service.get(&format!("/audit/events?cursor={}", &whole[..end])).await.invalid("cursor");
    }
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("order=newest", "order"),
        ("stream=all", "stream"),
        ("from=yesterday", "from"),
        ("to=2026-01-01", "to"),
        ("reservation_id=7", "reservation_id"),
        ("engine=a%20b", "engine"),
        ("action=settle", "action"),
        ("stream=kpi&action=KILL_SWITCH_ENGAGED", "action"),
        ("wire=x", "wire"),
    ] {
        service.get(&format!("/audit/events?{query}")).await.invalid(field);
    }
    // Places that nobody gave are places all the same.
    page(&service, &format!("cursor={}", cursor(Order::Desc, [0; 4]))).await;
    let far = [999_999_999_999_999_999, 0, 0, 1];
    page(&service, &format!("cursor={}", cursor(Order::Desc, far))).await;
    page(&service, &format!("order=asc&cursor={}", cursor(Order::Asc, far))).await;
}

/// A search without an index runs range by range, so that no page takes long; the rest waits for the next page.
#[tokio::test]
async fn a_rare_event_in_a_long_stream_is_found_in_pages_of_bounded_work() {
    let service = Service::live().await;
    service.post("/regression/kpi", &json!({"domain": "D", "metric": "m", "success": true, "actor": "eve"})).await.ok();
    let many = "INSERT INTO kpi_event (seq, at, principal, domain, metric, series_seq, success, series_sum, hash)
                SELECT h.seq + n, h.at + n * interval '1 us', 'x', 'D', 'm', 1 + n, true, 1 + n, h.hash
                FROM audit_head h, generate_series(1, 25000) n WHERE stream = 'kpi';
                UPDATE audit_head SET seq = seq + 25000, at = at + interval '25000 us' WHERE stream = 'kpi'";
    service.pool.execute(many).await.unwrap();
    for order in ["desc", "asc"] {
        let (mut pages, mut rows, mut cursor) = (0, Vec::new(), String::new());
        loop {
            let (more, next) = page(&service, &format!("actor=eve&order={order}{cursor}")).await;
            (pages, cursor) = (pages + 1, format!("&cursor={}", next.clone().unwrap_or_default()));
            rows.extend(more);
            if next.is_none() || pages > 5 {
                break;
            }
        }
        assert_eq!((rows.len(), &rows[0]["seq"]), (1, &json!(1)), "{order}");
        assert!(pages >= 3, "{order}: {pages}");
    }
    // An index leads to these at once.
    let (rows, next) = page(&service, "domain=none").await;
    assert_eq!((rows.len(), next), (0, None));
    assert_eq!(page(&service, "correlation_id=none").await.1, None);
    let (rows, _) = page(&service, "action=GO_LIVE_ENABLE").await;
    assert_eq!(rows.len(), 1);
}

#[tokio::test]
async fn an_unknown_action_is_refused_with_the_nearest_ones() {
    let service = Service::fresh().await;
    for (asked, nearest) in
        [("settle", "SETTLE"), ("KILL_SWITCH_ENGAGED", "KILL_SWITCH_ENGAGE"), ("TRIP", "REGRESSION_TRIP")]
    {
        let said = service.get(&format!("/audit/events?action={asked}")).await.invalid("action");
        assert!(said.contains(&format!("the nearest: {nearest}")), "{asked}: {said}");
    }
    assert_eq!(page(&service, "action=REGRESSION_SHADOW_TRIP").await, (vec![], None));
}

#[tokio::test]
async fn of_an_engine_the_control_stream_shows_that_its_policy_was_set_and_removed() {
    let service = Service::fresh().await;
    let policy =
        json!({"engine": "SPARE", "max_daily_loss": 7, "max_daily_exposure": 7, "max_open_risk": 7, "enabled": false});
    service.post("/risk/policies/upsert", &policy).await.ok();
    service.post("/risk/policies/remove", &json!({"engine": "SPARE", "actor": "eve"})).await.ok();
    for (query, actions) in [
        ("engine=spare", vec!["RISK_POLICY_REMOVE", "RISK_POLICY_UPSERT"]),
        ("engine=spare&action=RISK_POLICY_REMOVE", vec!["RISK_POLICY_REMOVE"]),
        ("engine=spare&action=TOKEN_CREATE", vec![]),
    ] {
        let rows = walk(&service, query).await;
        assert_eq!(rows.iter().map(|row| row["action"].clone()).collect::<Vec<_>>(), actions, "{query}");
    }
}
