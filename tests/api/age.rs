//! The same answers, found in the same time, behind a history that is longer than what one page looks at.

use crate::support::Service;
use serde_json::{Value, json};

/// Lifecycles of one engine: two events each, more than a page looks at together.
const LIFECYCLES: usize = 5_200;

/// A rare event of each kind, then many of others.
async fn aged() -> Service {
    let service = Service::live().await;
    for engine in ["GLOBAL", "WHOLESALE", "CAPITAL"] {
        let caps = json!({"engine": engine, "max_daily_exposure": 0, "max_open_risk": 0, "allow_unlimited": true});
        service.post("/risk/policies/upsert", &caps).await.ok();
    }
    let old = json!({"engine": "CAPITAL", "amount": 7, "ttl_seconds": 3600, "actor": "early", "correlation_id": "old"});
    let hold = service.post("/risk/check-and-reserve", &old).await.ok();
    let id = hold["reservation_id"].as_str().unwrap();
    service.post(&format!("/risk/reservations/{id}/extend"), &json!({"ttl_seconds": 7200})).await.ok();
    let released = service.reserve("CAPITAL", "3").await.ok();
    let id = released["reservation_id"].as_str().unwrap();
    service.post(&format!("/risk/reservations/{id}/release"), &json!({})).await.ok();
    let numbers: Vec<usize> = (0..LIFECYCLES).collect();
    for part in numbers.chunks(400) {
        let operations: Vec<Value> = part
            .iter()
            .flat_map(|number| {
                let id = format!("00000000-0000-4000-8000-{number:012}");
                [
                    json!({"op": "reserve", "engine": "WHOLESALE", "amount": 1, "reservation_id": id}),
                    json!({"op": "settle", "reservation_id": id}),
                ]
            })
            .collect();
        let done = service.post("/risk/batch", &json!({"operations": operations})).await.ok();
        assert!(done["results"].as_array().unwrap().iter().all(|result| result["status"] == 200), "{done}");
    }
    service
}

/// The rows of a list by its pages, and how many pages it took.
async fn read(service: &Service, path: &str) -> (Vec<Value>, usize) {
    let (mut rows, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = service.get(&format!("{path}{cursor}")).await.ok();
        rows.extend(page["items"].as_array().unwrap().iter().cloned());
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (rows, pages),
        }
    }
}

#[tokio::test]
async fn what_is_rare_is_found_by_pages_that_each_look_at_a_bounded_part() {
    let service = aged().await;
    for (path, rows, most) in [
        // No index leads to these: a page without rows leads on.
        ("/risk/events?action=EXTEND", 1, 2),
        ("/risk/events?action=ADJUST", 0, 2),
        ("/risk/events?ok=false", 0, 2),
        ("/risk/reservations?status=RELEASED", 1, 2),
        ("/risk/reservations?status=EXPIRED", 0, 2),
        ("/risk/reservations?engine=CAPITAL", 2, 2),
        ("/risk/reservations?engine=CAPITAL&status=RELEASED", 1, 2),
        ("/audit/events?actor=early", 1, 2),
        ("/audit/events?stream=risk&action=RELEASE", 1, 2),
        ("/audit/events?request_id=none", 0, 2),
        // An index leads to these: one page has all of them.
        ("/risk/events?engine=CAPITAL", 4, 1),
        ("/risk/events?correlation_id=old", 1, 1),
        ("/risk/reservations?status=OPEN", 1, 1),
        ("/risk/reservations?status=OPEN&engine=CAPITAL", 1, 1),
        ("/risk/reservations?status=OPEN&engine=WHOLESALE", 0, 1),
        ("/risk/reservations?correlation_id=old", 1, 1),
        ("/risk/reservations?correlation_id=old&status=OPEN", 1, 1),
        ("/risk/reservations?older_than=86400", 0, 1),
        ("/risk/reservations?older_than=86400&engine=CAPITAL", 0, 1),
        ("/risk/events?to=2020-01-01T00:00:00Z", 0, 1),
        ("/risk/events?from=2199-01-01T00:00:00Z&action=EXTEND", 0, 1),
        ("/audit/events?engine=CAPITAL&stream=risk", 4, 1),
    ] {
        let (found, pages) = read(&service, path).await;
        assert_eq!((found.len(), pages), (rows, most), "{path}: {found:?}");
    }
}

#[tokio::test]
async fn a_list_is_planned_for_the_values_it_is_asked_with() {
    let service = Service::fresh().await;
    let mut conn = service.db.read().await.unwrap();
    let mode: String = sqlx::query_scalar("SHOW plan_cache_mode").fetch_one(&mut *conn).await.unwrap();
    assert_eq!(mode, "force_custom_plan", "a plan for any value reads a whole list from the sixth call on");
}

#[tokio::test]
async fn a_frequent_row_is_listed_once_whatever_the_filter_and_the_size_of_a_page() {
    let service = aged().await;
    for (path, rows) in [
        ("/risk/events?action=SETTLE&limit=1000", LIFECYCLES),
        ("/risk/events?engine=WHOLESALE&limit=1000", 2 * LIFECYCLES),
        ("/risk/reservations?status=SETTLED&limit=1000", LIFECYCLES),
        ("/risk/reservations?engine=WHOLESALE&status=SETTLED&limit=999", LIFECYCLES),
        ("/audit/events?stream=risk&action=RESERVE&limit=1000", LIFECYCLES + 2),
    ] {
        let (found, _) = read(&service, path).await;
        let numbers: Vec<_> = found.iter().map(|row| row["seq"].as_i64().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, next| one > next), "{path}");
        assert_eq!(numbers.len(), rows, "{path}");
    }
}

#[tokio::test]
async fn a_time_range_and_a_filter_list_what_lies_in_both() {
    let service = aged().await;
    let all = read(&service, "/risk/events?limit=1000").await.0;
    // The ten oldest, newest first.
    let oldest = &all[all.len() - 10..];
    let at = |place: usize| oldest[place]["created_at"].as_str().unwrap();
    let range = format!("from={}&to={}", at(8), at(1));
    let (found, pages) = read(&service, &format!("/risk/events?{range}")).await;
    assert_eq!((found.as_slice(), pages), (&oldest[2..=8], 1));
    let (found, pages) = read(&service, &format!("/risk/events?{range}&action=RESERVE")).await;
    let reserves: Vec<_> = oldest[2..=8].iter().filter(|row| row["action"] == "RESERVE").cloned().collect();
    assert_eq!((found, pages), (reserves, 1));
}

#[tokio::test]
async fn more_than_a_thousand_old_holds_are_said_to_be_more_and_the_oldest_are_counted() {
    let service = Service::live().await;
    for engine in ["GLOBAL", "WHOLESALE"] {
        let caps = json!({"engine": engine, "max_daily_exposure": 0, "max_open_risk": 0, "allow_unlimited": true});
        service.post("/risk/policies/upsert", &caps).await.ok();
    }
    let reserve = json!({"op": "reserve", "engine": "WHOLESALE", "amount": 2});
    for (count, later, more) in [(1_000, "8 days", false), (1, "16 days", true)] {
        service.post("/risk/batch", &json!({"operations": vec![&reserve; count]})).await.ok();
        service.set_skew(later).await;
        let old = service.get("/review").await.ok()["old_holds"].clone();
        assert_eq!(json!([old[0]["holds"], old[0]["more"], old[0]["open_amount"]]), json!([1000, more, 2000]));
        assert_eq!(old.as_array().unwrap().len(), 1);
    }
    let review = service.get("/review").await.ok();
    let said = review["look_first"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    let said: Vec<_> = said.filter(|line| line.contains("never expire")).collect();
    let wanted = "WHOLESALE has more than 1000 holds, the oldest 1000 of them of 2000 together, that never expire";
    assert!(said.len() == 1 && said[0].starts_with(wanted), "{said:?}");
}
