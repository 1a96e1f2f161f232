//! Bodies that stall, and bodies of many at once.

use crate::support::{Answer, BASE, Service, Setup, request};
use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode};
use holdfast::config::LimitsConfig;
use hyper::body::Frame;
use serde_json::json;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

type Begun = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A body that begins and does not go on.
struct Stalled(Option<Bytes>);

impl hyper::body::Body for Stalled {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |begun| Poll::Ready(Some(Ok(Frame::data(begun)))))
    }
}

/// A request whose body begins like this and does not go on, as far as that goes.
fn begin(service: &Service, path: &str, body: String) -> Begun {
    begin_at(service, Method::POST, &format!("{BASE}{path}"), body)
}

/// The same of any method, at an absolute path.
fn begin_at(service: &Service, method: Method, path: &str, body: String) -> Begun {
    let mut stalled = request(method, path, Some("application/json"), "");
    *stalled.body_mut() = Body::new(Stalled(Some(body.into())));
    let mut begun: Begun = Box::pin(service.send(stalled));
    let polled = begun.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it waits for the rest");
    begun
}

#[tokio::test]
async fn a_place_is_taken_when_the_body_is_there() {
    let service = Service::live().await;
    // More of each than there are places.
    let stalled: Vec<_> = (0..8_300).map(|_| begin(&service, "/risk/check-and-reserve", "{".into())).collect();
    let stops: Vec<_> = (0..1_100).map(|_| begin(&service, "/go-live/kill-switch/engage", "{".into())).collect();
    let answer = service.reserve("RETAIL", "1").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    // The end of a token has a body that nobody needs, and takes a place of the same.
    let token = format!("{BASE}/access/tokens/0000000000000000");
    let ends: Vec<_> = (0..8_300).map(|_| begin_at(&service, Method::DELETE, &token, "{".into())).collect();
    let answer = service.reserve("RETAIL", "1").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    std::mem::forget(ends);
    let answer = service.post("/go-live/kill-switch/engage", &json!({"actor": "other"})).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    // A dropped request would continue as a task, so these are leaked instead.
    std::mem::forget((stalled, stops));
}

#[tokio::test]
async fn bodies_together_stay_in_their_budget_and_small_ones_need_none() {
    let limits = LimitsConfig { body_budget_mib: 16, ..LimitsConfig::default() };
    let service = Service::with(Setup { limits, ..Setup::default() }).await;
    service.post("/go-live/enable", &json!({"actor": "test"})).await.ok();
    let batch = || format!(r#"{{"operations":[{}"#, " ".repeat(2_000_000));
    // Half of it is one principal's.
    let stalled: Vec<_> = (0..4).map(|_| begin(&service, "/risk/batch", batch())).collect();
    let answer = service.post_text("/risk/batch", "application/json", &batch()).await;
    assert_eq!((answer.status, answer.json["error"].as_str()), (StatusCode::SERVICE_UNAVAILABLE, Some("OVERLOADED")));
    let answer = service.reserve("RETAIL", "1").await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    std::mem::forget(stalled);
}

#[tokio::test]
async fn bodies_of_flag_requests_are_in_the_budget_of_all_bodies() {
    const FLAGS: &str = "/ofrep/v1/evaluate/flags";
    let limits = LimitsConfig { body_budget_mib: 16, ..LimitsConfig::default() };
    let service = Service::with(Setup { limits, ..Setup::default() }).await;
    let body = || format!(r#"{{"context":{{}}{}"#, " ".repeat(60_000));
    // Each is 51,821 bytes beyond what is free, and one principal has 8 MiB: room for 161.
    let mut stalled: Vec<_> = (0..80).map(|_| begin_at(&service, Method::POST, FLAGS, body())).collect();
    stalled.extend((0..81).map(|_| begin_at(&service, Method::POST, &format!("{FLAGS}/go_live_enabled"), body())));
    for path in [FLAGS.to_owned(), format!("{FLAGS}/go_live_enabled")] {
        let asked = request(Method::POST, &path, Some("application/json"), &format!("{}}}", body()));
        let answer = service.send(asked).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
        assert_eq!(answer.json["error"], "OVERLOADED");
        // A small one needs none of it.
        let answer = service.send(request(Method::POST, &path, Some("application/json"), "{}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    std::mem::forget(stalled);
}
