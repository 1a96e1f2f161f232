//! The gate: no request reaches a handler that the go-live switch or the kill switch forbids.
//!
//! It wraps the *finished* router, so that routes added or merged later, nested routers, fallbacks, 404s and 405s are
//! behind it: `GateLayer::new(source, enforcement, rules).layer(router)`. Do not mount it with `Router::layer`, which
//! covers only the routes added before it and runs after routing.
//!
//! It changes no request: it reads the method and the path, and either hands the request on unchanged or drops it
//! unread. It changes no response: it hands it on, or answers instead of the inner service, which is then not called:
//! - 400 `AMBIGUOUS_PATH`: the path has more than one reading. Also while enforcement is off;
//! - 403 `KILL_SWITCH_ENGAGED` or `GO_LIVE_DISABLED`: the state forbids the request;
//! - 503 `STATE_STALE` or `STATE_REWOUND`, with `Retry-After`: the state is not known well enough to admit the request.
//!
//! The decision takes no lock, allocates nothing and does no I/O: it reads the [`View`] that the [`Source`] holds in
//! memory, once per request. It never reads headers, query and body, so none of them can open the gate. The answer does
//! not reveal who threw the switch or why.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::path::{AmbiguousPath, canonical};
use super::rules::Rules;
use crate::error::Error;
use crate::http::render;
use crate::types::RequestId;
use crate::types::{Block, ExecutionClass, RouteClass};

/// The known state at this instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// No fresh state: the process is starting, or the last good read is older than the lease.
    Stale,
    /// The database's state went backwards, and no operator has accepted that.
    Rewound,
    /// The kill file stops this instance, whatever the database says.
    Killed,
    /// A state that was read within the lease.
    Fresh {
        /// The version of the state, which every change increments.
        version: i64,
        /// Whether go-live is enabled.
        go_live_enabled: bool,
        /// Whether the kill switch is engaged, which overrides go-live.
        kill_switch_engaged: bool,
    },
}

/// The gate's source of the state. It is called for every request, so it must not lock, allocate or wait.
pub trait Source: Clone + Send + Sync + 'static {
    /// The state now, or [`View::Stale`].
    fn view(&self) -> View;
}

/// The requests that are blocked while go-live is off (`ENFORCEMENT_SCOPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnforcementScope {
    /// Every class.
    All,
    /// `PROD_EXEC` alone.
    ProdExec,
}

/// Whether the gate enforces the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// Everything with an unambiguous path passes (`ENV=development` or `GO_LIVE_ENFORCE=0`).
    Off,
    /// The gate decides by [`decide`].
    On(EnforcementScope),
}

impl Enforcement {
    /// The name of the setting: the scope's, or `off`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On(EnforcementScope::All) => "all",
            Self::On(EnforcementScope::ProdExec) => "prod_exec",
        }
    }
}

/// The decision on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is handed on.
    Allow,
    /// The request is refused.
    Block(Block),
}

/// The decision table: the classes that pass in each state.
#[must_use]
pub const fn decide(class: RouteClass, view: View, scope: EnforcementScope) -> Verdict {
    let RouteClass::Class(class) = class else {
        return Verdict::Allow;
    };
    match view {
        View::Stale => Verdict::Block(Block::StateStale),
        View::Rewound => Verdict::Block(Block::StateRewound),
        View::Killed => Verdict::Block(Block::KilledLocally),
        View::Fresh { kill_switch_engaged: true, .. } => Verdict::Block(Block::KillSwitchEngaged),
        View::Fresh { go_live_enabled: true, .. } => Verdict::Allow,
        View::Fresh { .. } => match (scope, class) {
            (EnforcementScope::ProdExec, ExecutionClass::ObserveOnly | ExecutionClass::SandboxExec) => Verdict::Allow,
            (EnforcementScope::All, _) | (EnforcementScope::ProdExec, ExecutionClass::ProdExec) => {
                Verdict::Block(Block::GoLiveDisabled)
            }
        },
    }
}

/// Puts a [`Gate`] around a finished service.
#[derive(Clone, Debug)]
pub struct GateLayer<F> {
    terms: Arc<Terms<F>>,
}

/// The settings of a gate. They are shared, since a service is cloned for every request.
#[derive(Debug)]
struct Terms<F> {
    source: F,
    enforcement: Enforcement,
    rules: Arc<Rules>,
}

impl<F: Source> GateLayer<F> {
    /// A gate that reads the state from `source` and classifies requests by these rules.
    #[must_use]
    pub fn new(source: F, enforcement: Enforcement, rules: Arc<Rules>) -> Self {
        Self { terms: Arc::new(Terms { source, enforcement, rules }) }
    }
}

impl<S, F: Source> Layer<S> for GateLayer<F> {
    type Service = Gate<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Gate { inner, terms: Arc::clone(&self.terms) }
    }
}

/// The service made by [`GateLayer`].
#[derive(Clone, Debug)]
pub struct Gate<S, F> {
    inner: S,
    terms: Arc<Terms<F>>,
}

/// The reason why a request does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Ambiguous(AmbiguousPath),
    Blocked { block: Block, exec_class: ExecutionClass, state_version: Option<i64> },
}

impl<S, F: Source> Gate<S, F> {
    /// The path is checked first, since a path with two readings has no class.
    fn admit(&self, method: &Method, path: &str) -> Result<(), Refusal> {
        let path = canonical(path).map_err(Refusal::Ambiguous)?;
        let (Enforcement::On(scope), RouteClass::Class(exec_class)) =
            (self.terms.enforcement, self.terms.rules.classify(method, path))
        else {
            return Ok(());
        };
        let view = self.terms.source.view();
        match decide(RouteClass::Class(exec_class), view, scope) {
            Verdict::Allow => Ok(()),
            Verdict::Block(block) => Err(Refusal::Blocked { block, exec_class, state_version: view.version() }),
        }
    }
}

impl View {
    /// The version of the state; none where it is not known.
    #[must_use]
    pub const fn version(self) -> Option<i64> {
        match self {
            Self::Stale | Self::Rewound | Self::Killed => None,
            Self::Fresh { version, .. } => Some(version),
        }
    }
}

impl Refusal {
    /// The answer instead of the handler's. It shows `path` only if that is canonical.
    #[cold]
    fn into_response(self, path: &str, request_id: Option<&RequestId>) -> Response {
        let response = match self {
            Self::Ambiguous(refused) => Error::AmbiguousPath { reason: refused.to_string() },
            Self::Blocked { block, exec_class, state_version } => {
                Error::Blocked { block, exec_class, path: path.to_owned(), state_version }
            }
        }
        .into_response();
        match request_id {
            // Holdfast's own stack has named the request, and renders its errors.
            Some(_) => response,
            // Another service has no such stack, so the error is rendered here.
            None => render(response, path, &RequestId::generate(), |_| None),
        }
    }
}

impl<S, F> Service<Request<Body>> for Gate<S, F>
where
    S: Service<Request<Body>, Response = Response>,
    F: Source,
{
    type Response = Response;
    type Error = S::Error;
    type Future = GateFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let state = match self.admit(request.method(), path) {
            Ok(()) => State::Admitted { future: self.inner.call(request) },
            Err(refusal) => {
                let response = refusal.into_response(path, request.extensions().get::<RequestId>());
                State::Refused { response: Some(response) }
            }
        };
        GateFuture { state }
    }
}

pin_project! {
    /// The answer of a [`Gate`]: the inner service's, or a refusal that is ready at once.
    pub struct GateFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Admitted { #[pin] future: F },
        Refused { response: Option<Response> },
    }
}

impl<F, E> Future for GateFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Admitted { future } => future.poll(context),
            StateProjection::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("a future is not polled again after it was ready")))
            }
        }
    }
}

impl<F> fmt::Debug for GateFuture<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GateFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
