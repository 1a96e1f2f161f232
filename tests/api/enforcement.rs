//! The gate, through HTTP, in front of handlers that note that they ran. What the gate blocks must not run.

mod bypasses;
mod exempt;
mod freshness;
mod table;

use crate::support::{Answer, Service, Setup};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::Method;
use axum::routing::any;
use holdfast::config::ScopeName;
use serde_json::json;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;

const ENABLE: &str = "/go-live/enable";
const DISABLE: &str = "/go-live/disable";
const ENGAGE: &str = "/go-live/kill-switch/engage";
const RELEASE: &str = "/go-live/kill-switch/release";

/// How long a state may be used without being read again, milliseconds.
const LEASE_MS: u64 = 2_000;

const DEALS: &str = "/api/deals";
const SANDBOX: &str = "/api/sandbox/x";
const UNKNOWN: &str = "/made/up";

/// A service of somebody else's behind the gate: every path has a handler, and each notes that it ran.
struct Upstream {
    router: holdfast::app::Service,
    reached: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    fn behind(service: &Service) -> Self {
        let reached = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&reached);
        let note = move |request: Request| {
            let line = format!("{} {}", request.method(), request.uri().path());
            notes.lock().unwrap().push(line);
            std::future::ready("done")
        };
        let router = Router::new().route(DEALS, any(note.clone())).route(SANDBOX, any(note.clone())).fallback(note);
        Self { router: service.app.serve(router), reached }
    }

    #[track_caller]
    fn send(&self, request: Request) -> impl Future<Output = Answer> + use<> {
        let caller = Location::caller();
        let router = self.router.clone();
        async move { Answer::read(router.oneshot(request).await.unwrap(), caller).await }
    }

    #[track_caller]
    fn get(&self, path: &str) -> impl Future<Output = Answer> + use<> {
        self.send(bare(&Method::GET, path))
    }

    /// The calls since the last check.
    fn reached(&self) -> Vec<String> {
        std::mem::take(&mut *self.reached.lock().unwrap())
    }
}

fn bare(method: &Method, uri: &str) -> Request {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Body::empty())
        .unwrap_or_else(|error| panic!("{method} {uri:.100}: {error}"))
}

/// The state that the gate uses.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Off,
    Live,
    Killed,
    KilledWhileOff,
    Stale,
}

impl State {
    const ALL: [Self; 5] = [Self::Off, Self::Live, Self::Killed, Self::KilledWhileOff, Self::Stale];
    /// Those in which nothing passes, under the default scope.
    const CLOSED: [Self; 4] = [Self::Off, Self::Killed, Self::KilledWhileOff, Self::Stale];

    /// From whatever state the service is in.
    async fn bring_about(self, service: &Service) {
        let live = matches!(self, Self::Live | Self::Killed | Self::Stale);
        let killed = matches!(self, Self::Killed | Self::KilledWhileOff);
        switch(service, if live { ENABLE } else { DISABLE }).await;
        switch(service, if killed { ENGAGE } else { RELEASE }).await;
        service.app.feed.refresh(&service.db).await.unwrap();
        if self == Self::Stale {
            service.clock.advance(LEASE_MS + 1);
        }
    }

    /// How this state refuses.
    fn refusal(self) -> (u16, &'static str) {
        match self {
            Self::Off => (403, "GO_LIVE_DISABLED"),
            Self::Killed | Self::KilledWhileOff => (403, "KILL_SWITCH_ENGAGED"),
            Self::Stale => (503, "STATE_STALE"),
            Self::Live => unreachable!("a live service refuses nothing"),
        }
    }
}

async fn switch(service: &Service, path: &str) {
    service.post(path, &json!({"actor": "secret-operator", "reason": "secret-reason"})).await.ok();
}

async fn scoped(scope: ScopeName) -> Service {
    Service::with(Setup { scope, ..Setup::default() }).await
}
