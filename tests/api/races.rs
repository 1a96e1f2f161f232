//! Many at once: caps hold exactly, one wins where one may, a stop that was answered binds whatever is sent after it, and
//! nothing deadlocks.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod exact;
mod stopped;
mod tumult;
mod waits;

use crate::support::{Answer, BASE, Service};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Engines without a cap under a GLOBAL without one.
async fn uncapped(service: &Service, engines: &[&str]) {
    for engine in ["GLOBAL"].iter().chain(engines) {
        let body = json!({"engine": engine, "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
            "allow_unlimited": true});
        service.post("/risk/policies/upsert", &body).await.ok();
    }
}

/// A wire that trips at its fourth event, of which three are recorded.
async fn nearly_tripped(service: &Service, metric: &str, action: &str) {
    let wire = json!({"domain": "WHOLESALE", "metric": metric, "window_events": 2, "baseline_events": 2,
        "min_events_to_enforce": 2, "max_drop_fraction": 0.5, "action": action, "enabled": true});
    service.post("/regression/policies/upsert", &wire).await.ok();
    for success in [true, true, false] {
        service.post("/regression/kpi", &failure(metric, success)).await.ok();
    }
}

fn failure(metric: &str, success: bool) -> Value {
    json!({"domain": "WHOLESALE", "metric": metric, "success": success})
}

fn reserve_body(engine: &str) -> Value {
    json!({"engine": engine, "amount": 1, "actor": "racer"})
}

/// The service behind a socket of its own, until dropped.
struct Server {
    url: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn of(service: &Service) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}{BASE}", listener.local_addr().unwrap());
        let router = axum::ServiceExt::<axum::extract::Request>::into_make_service(service.app.router());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Sends through a router; the answer may have any status.
fn send(router: &holdfast::app::Service, path: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
    let request = crate::support::request(
        axum::http::Method::POST,
        &format!("{BASE}{path}"),
        Some("application/json"),
        &body.to_string(),
    );
    let router = router.clone();
    async move {
        let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
        Answer::read(response, std::panic::Location::caller()).await
    }
}
