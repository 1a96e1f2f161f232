//! Lists that grow, a page at a time: each row once, whatever arrives in between.

use crate::support::Service;
use holdfast::types::Place;
use serde_json::{Value, json};

/// A list that grows.
#[derive(Debug, Clone, Copy)]
enum List {
    RiskEvents,
    Reservations,
    HeimdallEvents,
    Recommendations,
    Kpi,
    Trips,
    GoLiveEvents,
}

use List::{GoLiveEvents, HeimdallEvents, Kpi, Recommendations, Reservations, RiskEvents, Trips};

const ALL: [List; 7] = [RiskEvents, Reservations, HeimdallEvents, Recommendations, Kpi, Trips, GoLiveEvents];

impl List {
    /// Its path, and the member that it is ordered by.
    const fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::RiskEvents => ("/risk/events", "seq"),
            Self::Reservations => ("/risk/reservations", "seq"),
            Self::HeimdallEvents => ("/heimdall/events", "seq"),
            Self::Recommendations => ("/heimdall/recommendations", "id"),
            Self::Kpi => ("/regression/kpi", "id"),
            Self::Trips => ("/regression/trips", "id"),
            Self::GoLiveEvents => ("/go-live/events", "seq"),
        }
    }

    /// Makes it one row longer; `number` is another one each time.
    async fn grow(self, service: &Service, number: usize) {
        match self {
            Self::RiskEvents | Self::Reservations => {
                assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
            }
            Self::HeimdallEvents => {
                let trial = json!({"domain": "D", "confidence": 0.5, "success": true});
                service.post("/heimdall/sandbox/trial", &trial).await.ok();
            }
            Self::Recommendations => {
                // A row of the same stream in between, so that the ids have gaps.
                let trial = json!({"domain": "D", "confidence": 0.5, "success": true});
                service.post("/heimdall/sandbox/trial", &trial).await.ok();
                let made = json!({"domain": "D", "confidence": 0.5});
                service.post("/heimdall/recommend", &made).await.ok();
            }
            Self::Kpi => {
                let measured = json!({"domain": "D", "metric": "m", "success": true});
                service.post("/regression/kpi", &measured).await.ok();
            }
            Self::Trips => {
                let domain = format!("T{number}");
                let wire = json!({
                    "domain": domain, "metric": "m", "window_events": 1, "baseline_events": 1, "min_events_to_enforce": 1,
                });
                service.post("/regression/policies/upsert", &wire).await.ok();
                for success in [true, false] {
                    let measured = json!({"domain": domain, "metric": "m", "success": success});
                    service.post("/regression/kpi", &measured).await.ok();
                }
            }
            Self::GoLiveEvents => {
                let pack = json!({"id": format!("pack-{number}"), "status": "installed"});
                service.post("/go-live/packs", &pack).await.ok();
            }
        }
    }

    /// A page: the rows' places, and where the next one begins.
    async fn page(self, service: &Service, query: &str) -> (Vec<i64>, Value) {
        let (path, key) = self.path();
        let page = service.get(&format!("{path}?{query}")).await.ok();
        let rows = page["items"].as_array().expect("items").iter();
        let places = rows.map(|row| row[key].as_i64().expect("a place")).collect();
        (places, page["next_cursor"].clone())
    }
}

#[tokio::test]
async fn an_empty_list_is_one_empty_page() {
    let service = Service::fresh().await;
    for list in ALL {
        let (path, _) = list.path();
        let page = service.get(path).await.ok();
        assert_eq!((&page["items"], &page["next_cursor"]), (&json!([]), &Value::Null), "{path}");
    }
}

#[tokio::test]
async fn a_walk_sees_every_row_once_whatever_arrives_in_between() {
    for list in ALL {
        let service = Service::live().await;
        for number in 0..7 {
            list.grow(&service, number).await;
        }
        let (before, end) = list.page(&service, "limit=1000").await;
        assert!(before.len() >= 7 && before.is_sorted_by(|a, b| a > b), "{list:?}: {before:?}");
        assert_eq!(end, Value::Null);
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let from = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
            let (rows, next) = list.page(&service, &format!("limit=3{from}")).await;
            assert!(rows.len() <= 3, "{list:?}");
            seen.extend(rows);
            pages += 1;
            list.grow(&service, 100 + pages).await;
            match next {
                Value::Null => break,
                next => cursor = Some(next.as_str().expect("an opaque text").to_owned()),
            }
        }
        assert_eq!(seen, before, "{list:?}");
        assert_eq!(pages, before.len().div_ceil(3), "{list:?}");
        // The rows that arrived are at the front of a new walk.
        let (after, _) = list.page(&service, "limit=1000").await;
        assert_eq!(after.len(), before.len() + pages, "{list:?}");
        assert!(after.ends_with(&before), "{list:?}");
    }
}

#[tokio::test]
async fn a_page_that_ends_with_the_last_row_is_the_last_page() {
    for list in ALL {
        let service = Service::live().await;
        for number in 0..3 {
            list.grow(&service, number).await;
        }
        let (all, _) = list.page(&service, "").await;
        let (rows, next) = list.page(&service, &format!("limit={}", all.len())).await;
        assert_eq!((rows, next), (all.clone(), Value::Null), "{list:?}");
        let (rows, next) = list.page(&service, &format!("limit={}", all.len() - 1)).await;
        assert_eq!((&rows[..], next.is_string()), (&all[..all.len() - 1], true), "{list:?}");
    }
}

#[tokio::test]
async fn a_filter_holds_through_the_walk() {
    let service = Service::fresh().await;
    for number in 0..8 {
        let body = json!({"domain": if number % 2 == 0 { "EVEN" } else { "ODD" }, "metric": "m", "success": true});
        service.post("/regression/kpi", &body).await.ok();
    }
    let (first, next) = Kpi.page(&service, "domain=even&limit=2").await;
    let cursor = next.as_str().expect("a second page").to_owned();
    let (second, end) = Kpi.page(&service, &format!("domain=EVEN&limit=2&cursor={cursor}")).await;
    assert_eq!((first, second, end), (vec![7, 5], vec![3, 1], Value::Null));
}

#[tokio::test]
async fn a_page_has_a_hundred_rows_unless_asked_otherwise() {
    let service = Service::fresh().await;
    service.kpis("D", "m", 101, 0).await;
    let (rows, next) = Kpi.page(&service, "").await;
    assert_eq!((rows.len(), next.is_string()), (100, true));
    let (rows, next) = Kpi.page(&service, "limit=").await;
    assert_eq!((rows.len(), next.is_string()), (100, true));
}

#[tokio::test]
async fn limits_out_of_bounds_and_cursors_cut_short_are_refused_with_the_field_named() {
    let service = Service::fresh().await;
    for list in ALL {
        let (path, _) = list.path();
        for limit in ["0", "1001", "-1", "1.5", "all", "1e400"] {
            service.get(&format!("{path}?limit={limit}")).await.invalid("limit");
        }
        let whole = Place::new(path, 123).to_string();
        let changed = whole.replacen("123", "12", 1);
        // A bare number is what cursors were before they had a checksum.
        for cursor in
            ["abc", "-1", "1.5", "1000000000001", "%27", "0", "123", &whole[..whole.len() - 1], &whole[1..], &changed]
        {
            let refused = service.get(&format!("{path}?cursor={cursor}")).await.invalid("cursor");
            assert!(refused.contains("start again without cursor"), "{cursor}: {refused}");
        }
        service.get(&format!("{path}?offset=3")).await.invalid("offset");
        for query in ["limit=1", "limit=1000"] {
            service.get(&format!("{path}?{query}")).await.ok();
        }
        for place in [0, 1_000_000_000_000, 999_999_999_999_999_999] {
            service.get(&format!("{path}?cursor={}", Place::new(path, place))).await.ok();
        }
    }
}

#[tokio::test]
async fn a_cursor_of_one_list_is_refused_by_every_other() {
    let service = Service::live().await;
    for list in ALL {
        for number in 0..2 {
            list.grow(&service, number).await;
        }
    }
    let document = service.get_root("/openapi.json").await.ok();
    let takes_cursor = |operation: &Value| {
        let parameters = operation["get"]["parameters"].as_array().into_iter().flatten();
        parameters.into_iter().any(|parameter| parameter["name"] == "cursor")
    };
    let paths = document["paths"].as_object().expect("paths").iter();
    let lists: Vec<_> = paths
        .filter(|(_, operation)| takes_cursor(operation))
        .map(|(path, _)| path.strip_prefix(crate::support::BASE).expect("a path of ours").to_owned())
        .collect();
    assert_eq!(lists.len(), ALL.len() + 6, "{lists:?}: those above, all events, and the histories");
    // A history of a policy is of one policy, with a row for each change.
    for turn in 1..=2 {
        let risk = json!({"engine": "WHOLESALE", "max_actions_per_day": 100 + turn});
        service.post("/risk/policies/upsert", &risk).await.ok();
        let charter = json!({"domain": "BUYER_MATCH", "min_sandbox_trials": 100 + turn});
        service.post("/heimdall/policies/upsert", &charter).await.ok();
        let wire = json!({"domain": "D", "metric": "m", "window_events": 60 + turn});
        service.post("/regression/policies/upsert", &wire).await.ok();
    }
    let path = |list: &str| match list {
        "/risk/policies/history" => format!("{list}?engine=WHOLESALE"),
        "/heimdall/policies/history" => format!("{list}?domain=BUYER_MATCH"),
        "/regression/policies/history" => format!("{list}?domain=D&metric=m"),
        _ => format!("{list}?"),
    };
    let mut cursors = Vec::new();
    for list in &lists {
        let page = service.get(&format!("{}&limit=1", path(list))).await.ok();
        cursors
            .push((list.clone(), page["next_cursor"].as_str().unwrap_or_else(|| panic!("{list}: {page}")).to_owned()));
    }
    for list in &lists {
        for (of, cursor) in &cursors {
            let answer = service.get(&format!("{}&limit=1&cursor={cursor}", path(list))).await;
            if of == list {
                answer.ok();
            } else {
                answer.invalid("cursor");
            }
        }
    }
}
