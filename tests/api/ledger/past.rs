//! History: the ledger and the scorecards of earlier days, the versions of a policy, and the week before in the review.

mod policies;
mod scorecards;
mod week;

use crate::access::{call, create, new, token};
use crate::review::at;
use crate::support::Service;
use axum::http::Method;
use holdfast::access::model::NewToken;
use serde_json::{Value, json};

/// A reservation's id.
async fn hold(service: &Service, engine: &str, amount: u32) -> String {
    let answer = service.reserve(engine, &amount.to_string()).await.ok();
    answer["reservation_id"].as_str().unwrap_or_else(|| panic!("denied: {answer}")).to_owned()
}

async fn settle(service: &Service, id: &str, loss: u32) {
    let body = json!({"realized_loss": loss, "actor": "test"});
    service.post(&format!("/risk/reservations/{id}/settle"), &body).await.ok();
}

/// All rows of a list, with a page of so many rows at a time.
async fn all(service: &Service, path: &str, limit: usize) -> Vec<Value> {
    let (mut rows, mut cursor) = (Vec::new(), String::new());
    loop {
        let sign = if path.contains('?') { '&' } else { '?' };
        let page = service.get(&format!("{path}{sign}limit={limit}{cursor}")).await.ok();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit, "{path}: {page}");
        rows.extend(items.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => {
                assert_eq!(items.len(), limit, "{path}: a page before the last one is full");
                cursor = format!("&cursor={next}");
            }
            None => return rows,
        }
    }
}

/// Rows by their days and engine: exposure, open risk, loss, actions, denials.
fn numbers(rows: &[Value]) -> Vec<Value> {
    let of = |row: &Value| {
        let days = if row["from"] == row["day"] {
            row["day"].clone()
        } else {
            json!(format!("{}..{}", row["from"].as_str().unwrap(), row["day"].as_str().unwrap()))
        };
        json!([
            days,
            row["engine"],
            row["exposure_used"],
            row["open_risk_reserved"],
            row["realized_loss"],
            row["actions_count"],
            row["denied_count"]
        ])
    };
    rows.iter().map(of).collect()
}

/// Four days: two holds on the second, one of them settled on the third with a denial, nothing on the fourth, and the
/// other one returned on the fifth, which still runs.
async fn lived() -> Service {
    let service = Service::live().await;
    at(&service, "2040-01-02T12:00:00Z").await;
    let first = hold(&service, "WHOLESALE", 100).await;
    let second = hold(&service, "CAPITAL", 40).await;
    at(&service, "2040-01-03T12:00:00Z").await;
    settle(&service, &first, 5).await;
    hold(&service, "WHOLESALE", 7).await;
    assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
    assert_eq!(service.reserve("NOBODY", "1").await.ok()["ok"], false);
    at(&service, "2040-01-05T12:00:00Z").await;
    service.post(&format!("/risk/reservations/{second}/release"), &json!({"actor": "test"})).await.ok();
    service
}

const RANGE: &str = "from=2040-01-01&to=2040-01-06";

#[tokio::test]
async fn each_day_has_its_flows_and_what_was_open_at_its_end() {
    let service = lived().await;
    let rows = all(&service, &format!("/risk/ledger?{RANGE}"), 100).await;
    assert_eq!(
        numbers(&rows),
        [
            json!(["2040-01-05", "GLOBAL", 0, 7, 0, 0, 0]),
            json!(["2040-01-04", "GLOBAL", 0, 47, 0, 0, 0]),
            json!(["2040-01-03", "GLOBAL", 7, 47, 5, 1, 2]),
            json!(["2040-01-02", "GLOBAL", 140, 140, 0, 2, 0]),
            json!(["2040-01-01", "GLOBAL", 0, 0, 0, 0, 0]),
        ]
    );
    assert_eq!(rows[2]["denials_by_reason"], json!({"policy_disabled": 1, "policy_missing": 1}));
    let rows = all(&service, &format!("/risk/ledger?{RANGE}&engine=capital&by=day"), 2).await;
    assert_eq!(
        numbers(&rows),
        [
            json!(["2040-01-05", "CAPITAL", 0, 0, 0, 0, 0]),
            json!(["2040-01-04", "CAPITAL", 0, 40, 0, 0, 0]),
            json!(["2040-01-03", "CAPITAL", 0, 40, 0, 0, 0]),
            json!(["2040-01-02", "CAPITAL", 40, 40, 0, 1, 0]),
            json!(["2040-01-01", "CAPITAL", 0, 0, 0, 0, 0]),
        ]
    );
}

#[tokio::test]
async fn the_range_by_engine_is_the_sum_of_its_days() {
    let service = lived().await;
    let rows = all(&service, "/risk/ledger?from=2040-01-02&to=2040-01-05&by=engine", 100).await;
    assert_eq!(
        numbers(&rows),
        [
            json!(["2040-01-02..2040-01-04", "CAPITAL", 40, 40, 0, 1, 0]),
            json!(["2040-01-02..2040-01-04", "GLOBAL", 147, 47, 5, 3, 2]),
            json!(["2040-01-02..2040-01-04", "NOBODY", 0, 0, 0, 0, 1]),
            json!(["2040-01-02..2040-01-04", "NOTIFY", 0, 0, 0, 0, 1]),
            json!(["2040-01-02..2040-01-04", "WHOLESALE", 107, 7, 5, 2, 0]),
        ]
    );
    let one = service.get("/risk/ledger?from=2040-01-02&to=2040-01-05&by=engine&engine=WHOLESALE").await.ok();
    assert_eq!(one, json!({"items": [rows[4]], "next_cursor": null}));
    // An engine that nobody ever made is only in the days in which it was asked for.
    let rows = all(&service, "/risk/ledger?from=2040-01-04&to=2040-01-05&by=engine", 100).await;
    assert_eq!(rows.len(), 4);
}

#[tokio::test]
async fn every_day_and_engine_is_one_row_and_they_add_up() {
    let service = lived().await;
    let rows = all(&service, &format!("/risk/ledger?{RANGE}&by=day,engine"), 1000).await;
    let keys: Vec<_> = rows.iter().map(|row| format!("{}{}", row["day"], row["engine"])).collect();
    assert_eq!(rows.len(), 4 * 5 + 1, "{keys:?}");
    for limit in [1, 2, 3, 4, 5, 20] {
        assert_eq!(all(&service, &format!("/risk/ledger?{RANGE}&by=day,engine"), limit).await, rows, "{limit}");
    }
    for day in all(&service, &format!("/risk/ledger?{RANGE}"), 100).await {
        for member in ["exposure_used", "open_risk_reserved", "realized_loss", "actions_count", "denied_count"] {
            let of_engines = rows.iter().filter(|row| row["day"] == day["day"] && row["engine"] != "GLOBAL");
            let sum: f64 = of_engines.map(|row| row[member].as_f64().unwrap()).sum();
            assert_eq!(json!(sum), json!(day[member].as_f64().unwrap()), "{member} of {}", day["day"]);
        }
    }
    let one = all(&service, &format!("/risk/ledger?{RANGE}&by=day,engine&engine=WHOLESALE"), 2).await;
    assert_eq!(one, all(&service, &format!("/risk/ledger?{RANGE}&by=day&engine=WHOLESALE"), 100).await);
}

#[tokio::test]
async fn today_is_as_of_now_and_the_same_as_the_ledger_of_today() {
    let service = lived().await;
    hold(&service, "WHOLESALE", 11).await;
    let now = all(&service, "/risk/ledger?from=2040-01-05&by=engine", 100).await;
    let today = service.get("/risk/ledger/today").await.ok();
    for row in today.as_array().unwrap() {
        let same = now.iter().find(|one| one["engine"] == row["engine"]).unwrap();
        for member in [
            "day",
            "exposure_used",
            "open_risk_reserved",
            "realized_loss",
            "actions_count",
            "denied_count",
            "denials_by_reason",
        ] {
            assert_eq!(same[member], row[member], "{member} of {}", row["engine"]);
        }
    }
    assert_eq!(now.len(), today.as_array().unwrap().len());
}

#[tokio::test]
async fn a_day_that_has_ended_never_changes() {
    let service = Service::live().await;
    at(&service, "2040-01-02T12:00:00Z").await;
    let held = hold(&service, "WHOLESALE", 100).await;
    let short = json!({"engine": "CAPITAL", "amount": 30, "ttl_seconds": 60, "actor": "test"});
    service.post("/risk/check-and-reserve", &short).await.ok();
    assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
    at(&service, "2040-01-03T12:00:00Z").await;
    let path = "/risk/ledger?from=2040-01-01&to=2040-01-03&by=day,engine";
    let before = all(&service, path, 100).await;
    settle(&service, &held, 9).await;
    service
        .post("/risk/adjustments", &json!({"corrects_seq": 1, "exposure_delta": 3, "reason": "late", "actor": "test"}))
        .await
        .ok();
    hold(&service, "WHOLESALE", 1).await;
    assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
    at(&service, "2040-01-09T12:00:00Z").await;
    hold(&service, "CAPITAL", 1).await;
    assert_eq!(all(&service, path, 100).await, before);
    // The hold that was due at 12:01 was open until something happened: its end is booked on that day.
    let rows = all(&service, "/risk/ledger?from=2040-01-02&to=2040-01-10&engine=CAPITAL", 100).await;
    let open: Vec<_> = rows.iter().map(|row| row["open_risk_reserved"].clone()).collect();
    assert_eq!(json!(open), json!([1, 0, 0, 0, 0, 0, 0, 30]));
}

#[tokio::test]
async fn midnight_ends_a_day_and_begins_the_next() {
    let service = Service::live().await;
    at(&service, "2040-01-02T23:59:30Z").await;
    let held = hold(&service, "WHOLESALE", 100).await;
    at(&service, "2040-01-03T00:00:30Z").await;
    let open = async || {
        let rows = all(&service, "/risk/ledger?from=2040-01-02&engine=WHOLESALE", 100).await;
        json!(
            rows.iter()
                .map(|row| json!([row["day"], row["exposure_used"], row["open_risk_reserved"]]))
                .collect::<Vec<_>>()
        )
    };
    assert_eq!(open().await, json!([["2040-01-03", 0, 100], ["2040-01-02", 100, 100]]), "nothing happened since");
    settle(&service, &held, 0).await;
    assert_eq!(open().await, json!([["2040-01-03", 0, 0], ["2040-01-02", 100, 100]]));
}

#[tokio::test]
async fn days_before_the_upgrade_are_summed_from_their_events() {
    let service = lived().await;
    at(&service, "2040-01-08T12:00:00Z").await;
    hold(&service, "CAPITAL", 1).await;
    let path = "/risk/ledger?from=2040-01-01&by=day,engine";
    let before = all(&service, path, 1000).await;
    let kept = "SELECT count(*) FROM risk_open_day";
    let rows = service.count(kept).await;
    assert!(rows >= 5, "{rows}");
    sqlx::raw_sql("DELETE FROM risk_open_day").execute(&service.pool).await.unwrap();
    assert_ne!(all(&service, path, 1000).await, before);
    // Twice is safe.
    for _ in 0..2 {
        sqlx::raw_sql(include_str!("../../../migrations/0034_past_days.sql")).execute(&service.pool).await.unwrap();
        assert_eq!(all(&service, path, 1000).await, before);
    }
}

#[tokio::test]
async fn a_range_says_what_is_wrong_with_it_and_what_to_send() {
    let service = Service::live().await;
    at(&service, "2040-01-05T12:00:00Z").await;
    for (query, field, says) in [
        (
            "from=2040-01-04&to=2040-01-04",
            "to",
            "is not after from, and to itself is not in the range: send a later day, 2040-01-05 for one day",
        ),
        ("from=2040-01-04&to=2040-01-02", "to", "send a later day, 2040-01-05 for one day"),
        ("from=2040-01-06", "from", "is in the future: today is 2040-01-05"),
        ("from=2039-01-04", "from", "is 367 days before the end of the range"),
        ("from=0001-01-01&to=9999-12-31", "from", "for at most 366 days at once"),
        ("to=0001-01-01", "to", "has no day before it"),
        ("from=2040-02-30", "from", "is not a day: send the UTC day alone"),
        ("from=2040-01-02T00:00:00Z", "from", "for example 2026-01-13"),
        ("from=-2040-01-02", "from", "is not a day"),
        ("from=%00", "from", "is not a day"),
        ("to=tomorrow", "to", "is not a day"),
        ("by=week", "by", "day,engine"),
        ("by=engine,day", "by", "day,engine"),
        ("limit=0", "limit", "1"),
        ("limit=1001", "limit", "1000"),
        ("engine=a b", "engine", ""),
        ("engine=%27%3B--", "engine", ""),
        ("cursor=x", "cursor", "is not a cursor"),
        ("cursor=2040-01-04.GLOBAL.00000000", "cursor", "is not a cursor of this list"),
        ("day=2040-01-04", "day", "unknown"),
    ] {
        let detail = service.get(&format!("/risk/ledger?{}", query.replace(' ', "%20"))).await.invalid(field);
        assert!(detail.contains(says), "{query}: {detail}");
    }
    let page = service.get("/risk/ledger?from=2040-01-01&limit=1").await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let other =
        service.get(&format!("/risk/ledger?from=2040-01-01&by=day,engine&cursor={cursor}")).await.invalid("cursor");
    assert!(other.contains("not a cursor of this list"), "{other}");
    // The longest range, and one without any bound.
    assert_eq!(all(&service, "/risk/ledger?from=2039-01-05", 1000).await.len(), 366);
    let rows = all(&service, "/risk/ledger", 7).await;
    assert_eq!((rows.len(), &rows[0]["day"], &rows[29]["day"]), (30, &json!("2040-01-05"), &json!("2039-12-07")));
    // Days that have not begun have no row.
    assert_eq!(all(&service, "/risk/ledger?from=2040-01-04&to=2040-03-01", 100).await.len(), 2);
}

#[tokio::test]
async fn an_engine_that_is_not_known_is_no_row_of_zeros() {
    let service = lived().await;
    for query in ["engine=NOBODEE", "engine=NOBODEE&by=engine", "engine=NOBODY&from=2040-01-04"] {
        let refused = service.get(&format!("/risk/ledger?{query}")).await.refused(404, "NOT_FOUND");
        assert!(refused["detail"].as_str().unwrap().contains("GET /risk/policies lists them"), "{refused}");
    }
    // It was asked for in vain on the third.
    let rows = all(&service, &format!("/risk/ledger?{RANGE}&engine=NOBODY"), 100).await;
    assert_eq!(rows.iter().map(|row| row["denied_count"].as_i64().unwrap()).sum::<i64>(), 1);
}

#[tokio::test]
async fn an_engine_that_was_removed_keeps_its_denials() {
    let service = Service::live().await;
    at(&service, "2040-01-02T12:00:00Z").await;
    assert_eq!(service.reserve("NOTIFY", "1").await.ok()["ok"], false);
    service.post("/risk/policies/remove", &json!({"engine": "NOTIFY", "actor": "test"})).await.ok();
    at(&service, "2040-01-03T12:00:00Z").await;
    let rows = all(&service, "/risk/ledger?from=2040-01-01&engine=NOTIFY&by=engine", 100).await;
    assert_eq!(numbers(&rows), [json!(["2040-01-01..2040-01-03", "NOTIFY", 0, 0, 0, 0, 1])]);
    assert!(all(&service, "/risk/ledger?from=2040-01-01&by=engine", 100).await.contains(&rows[0]));
}

#[tokio::test]
async fn a_token_for_some_engines_reads_the_history_of_all() {
    let service = lived().await;
    let few = NewToken { engines: Some(vec!["CAPITAL".parse().unwrap()]), ..new("read,reserve") };
    let few = create(&service, few).await;
    let reader = token(&service, "read").await;
    let path = format!("/api/governance/risk/ledger?{RANGE}&by=engine");
    let of = async |secret: &str| call(&service, Method::GET, &path, Some(secret), &Value::Null).await.ok();
    let seen = of(&few).await;
    assert_eq!(seen["items"].as_array().unwrap().len(), 5);
    assert_eq!(seen, of(&reader).await);
    let reserve = token(&service, "reserve").await;
    let paths = [
        "risk/ledger",
        "heimdall/scorecards",
        "risk/policies/history?engine=GLOBAL",
        "heimdall/policies/history?domain=BUYER_MATCH",
        "regression/policies/history?domain=CAPITAL&metric=roi_event",
    ];
    for path in paths {
        let path = format!("/api/governance/{path}");
        call(&service, Method::GET, &path, None, &Value::Null).await.refused(401, "UNAUTHENTICATED");
        call(&service, Method::GET, &path, Some(&reserve), &Value::Null).await.refused(403, "INSUFFICIENT_SCOPE");
        call(&service, Method::GET, &path, Some(&reader), &Value::Null).await.ok();
    }
}
