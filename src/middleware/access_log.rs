//! One log line per answered request, and its metrics. Labels are route templates, never raw paths: a scanner must not
//! be able to fill a metrics store.

use super::identity::Identity;
use crate::clock::Clock;
use crate::enforcement::routes::ROUTES;
use crate::error::Problem;
use crate::http::places::Share;
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::response::Response;
use metrics::{Counter, Histogram};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{Layer, Service};

/// The route of a request that matched none.
const NO_ROUTE: &str = "none";

/// A request that is being answered.
pub(super) struct Entry {
    clock: Clock,
    started_ns: u64,
    route: Route,
}

/// The route template, which the innermost router fills in: the request carries a clone, the entry keeps one.
#[derive(Debug, Clone, Default)]
struct Route(Arc<OnceLock<MatchedPath>>);

impl Entry {
    pub(super) fn begin(request: &mut Request) -> Self {
        let (clock, route) = (Clock::system(), Route::default());
        request.extensions_mut().insert(route.clone());
        Self { started_ns: clock.now_ns(), clock, route }
    }

    /// Counts the answer and writes the line.
    pub(super) fn finish(self, asked: &Identity, response: &Response, meters: &Meters) {
        let elapsed = Duration::from_nanos(self.clock.now_ns() - self.started_ns);
        let status = response.status().as_u16();
        let route = self.route.0.get().map_or(NO_ROUTE, MatchedPath::as_str);
        meters.count(route, &asked.method, status, elapsed);
        // Strings are quoted and escaped in both formats, so no field can forge a line.
        tracing::info!(
            target: "holdfast::access",
            method = asked.method.as_str(),
            path = crate::types::bounded(asked.path()),
            route,
            status,
            error = response.extensions().get::<Problem>().map(|problem| problem.row.code),
            elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            request_id = asked.request_id.as_str(),
            "request"
        );
    }
}

/// The metrics of answered requests. Their handles are kept, since a look-up by labels costs more than the counting.
/// The number of handles is bounded: routes are templates, methods are eight, and a route answers few statuses.
#[derive(Default)]
pub(super) struct Meters(RwLock<HashMap<String, RouteMeters>>);

struct RouteMeters {
    seconds: Histogram,
    /// One counter per method and status. They are few, so a linear search is the fastest.
    requests: Vec<(&'static str, u16, Counter)>,
}

impl Meters {
    fn count(&self, route: &str, method: &Method, status: u16, elapsed: Duration) {
        let method = method_label(method);
        // Fractions of milliseconds count: the shortest buckets end at 1, 2.5 and 5 ms.
        let seconds = elapsed.as_secs_f64();
        {
            let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(meters) = known.get(route)
                && let Some(requests) = meters.requests(method, status)
            {
                requests.increment(1);
                meters.seconds.record(seconds);
                return;
            }
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let meters = known.entry(route.to_owned()).or_insert_with(|| RouteMeters {
            seconds: metrics::histogram!("holdfast_http_request_seconds", "route" => route.to_owned()),
            requests: Vec::new(),
        });
        // Another request may have added it between the two locks.
        if meters.requests(method, status).is_none() {
            meters.requests.push((method, status, requests(route, method, status)));
        }
        if let Some(requests) = meters.requests(method, status) {
            requests.increment(1);
        }
        meters.seconds.record(seconds);
    }
}

impl RouteMeters {
    fn requests(&self, method: &str, status: u16) -> Option<&Counter> {
        self.requests.iter().find(|known| known.0 == method && known.1 == status).map(|known| &known.2)
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").finish_non_exhaustive()
    }
}

fn requests(route: &str, method: &'static str, status: u16) -> Counter {
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::counter!("holdfast_http_requests_total", &labels)
}

/// Statuses whose first answer an operator wants to see as an increase.
const ALARMING: [u16; 5] = [200, 403, 429, 500, 503];

/// Begins the counters of our own routes at 0, for the usual status and for those that alarms use. A counter that
/// begins with its first event shows no increase at that event.
pub(crate) fn begin_counting() {
    for route in ROUTES.iter().filter(|route| route.share != Share::Probe) {
        for status in ALARMING {
            let method = route.method.as_ref().map_or("POST", method_label);
            requests(route.template, method, status).increment(0);
        }
    }
}

/// The label of a method. A method that the caller invented has none of its own.
fn method_label(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("OTHER")
}

/// Tells the access log the route template. It is mounted inside the router, which knows the template.
#[derive(Debug, Clone, Copy)]
pub struct NoteRoute;

impl<S> Layer<S> for NoteRoute {
    type Service = NotesRoute<S>;

    fn layer(&self, inner: S) -> Self::Service {
        NotesRoute(inner)
    }
}

/// The service made by [`NoteRoute`].
#[derive(Debug, Clone)]
pub struct NotesRoute<S>(S);

impl<S: Service<Request>> Service<Request> for NotesRoute<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let extensions = request.extensions();
        if let (Some(Route(route)), Some(matched)) = (extensions.get::<Route>(), extensions.get::<MatchedPath>()) {
            // A request is routed once.
            let _ = route.set(matched.clone());
        }
        self.0.call(request)
    }
}
