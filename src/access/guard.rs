//! The guard of Holdfast's own routes: authenticates the caller, checks its rights, and gives the request a place.
//!
//! It runs inside the router, where the template is known, and before every handler. Its order: the route's row, the
//! caller, its rate, the scope, and a [place](crate::http::places) among the requests in flight, which is taken when
//! the body has arrived. The admitted caller becomes the handler's [`crate::http::Caller`].
//!
//! A change that tightens has its own share at each step: engage and disable wait for no place of other requests, have
//! no rate, and use the last known register, so that an operator can stop everything under any load.

mod refusals;

pub(crate) use refusals::begin_counting;

use super::Access;
use super::holder::Holder;
use super::open::{Asked, Hosts, refuse_pages};
use super::register::{Age, Mode};
use super::token::Token;
use crate::enforcement::authz;
use crate::enforcement::routes::{self, Needs, Route};
use crate::error::{Error, Result};
use crate::http::connections::Connection;
use crate::http::places::{Places, Seat, Share};
use crate::identity::{Admitted, Authority};
use crate::types::{Principal, Scope};
use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{ALLOW, AUTHORIZATION};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use pin_project_lite::pin_project;
use refusals::{Note, is_control, note_of, noting};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tower::{Layer, Service};

/// The machines that can reach the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// This machine alone.
    #[default]
    Loopback,
    /// Other machines, too; every caller needs a token.
    Network,
    /// Other machines, too, and the operator allows this without tokens.
    Insecure,
}

/// Puts a [`Guard`] around each route of a router.
#[derive(Debug, Clone)]
pub struct GuardLayer(Arc<Means>);

/// The services and settings that a guard uses.
#[derive(Debug)]
pub struct Means {
    /// The tokens and their register.
    pub access: Access,
    /// The machines that can reach this instance.
    pub exposure: Exposure,
    /// The host names that a request may use in open mode.
    pub hosts: Hosts,
    /// Places for requests in flight.
    pub places: Places,
}

impl GuardLayer {
    /// A guard with these means.
    #[must_use]
    pub fn new(means: Means) -> Self {
        Self(Arc::new(means))
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, means: Arc::clone(&self.0) }
    }
}

/// The service made by [`GuardLayer`].
#[derive(Debug, Clone)]
pub struct Guard<S> {
    inner: S,
    means: Arc<Means>,
}

/// The state of an admitted request.
struct Passage {
    /// The place, held until the request is answered.
    seat: Arc<Seat>,
    /// The note for a refusal by the handler.
    note: Option<Box<Note>>,
}

/// The refusal of a request, and its note.
struct Refusal {
    response: Response,
    note: Option<Box<Note>>,
}

impl From<Error> for Box<Refusal> {
    fn from(error: Error) -> Self {
        Self::new(Refusal { response: error.into_response(), note: None })
    }
}

impl<S> Guard<S> {
    /// Admits a request, or returns its refusal.
    fn admit(&self, request: &mut Request, row: &Route) -> Result<Passage, Box<Refusal>> {
        let is_kept = request.extensions().get::<Arc<Connection>>().is_some_and(|connection| connection.is_kept());
        if is_kept && !matches!(row.share, Share::Switch | Share::Probe) {
            return Err(Error::Overloaded.into());
        }
        let (admitted, holder) = self.identify(Asked::of(request), row)?;
        let mut note = None;
        if let (Some(holder), Some(needed)) = (holder, row.needs.scopes().next()) {
            if matches!(row.share, Share::Ordinary | Share::Read) {
                self.means.access.register().meter(&holder)?;
            }
            note = is_control(needed, request.method()).then(|| Box::new(note_of(request, row, &holder)));
            if !row.needs.scopes().any(|scope| holder.grant.holds(scope)) {
                let response = Error::InsufficientScope { needed, what: "this route" }.into_response();
                return Err(Box::new(Refusal { response, note }));
            }
        }
        let seat = Arc::new(self.means.places.seat(row.share, &admitted.principal, request));
        // The place of a request with a body is taken when the body is read.
        if !matches!(row.method, Some(Method::POST | Method::DELETE)) || request.body().is_end_stream() {
            seat.take()?;
        }
        request.extensions_mut().insert(Arc::clone(&seat));
        request.extensions_mut().insert(admitted);
        Ok(Passage { seat, note })
    }

    /// Identifies the caller. On a route without a scope, a caller without a valid token is anonymous.
    fn identify(&self, asked: Asked<'_>, row: &Route) -> Result<(Admitted, Option<Arc<Holder>>)> {
        // Switches, and decisions for a proxy, which are the safe value anyway where the state is not known.
        let by_last_known = row.share == Share::Switch || row.needs == Needs::Scope(Scope::Proxy);
        let age = if by_last_known { Age::Any } else { Age::Fresh };
        let register = self.means.access.register();
        let anybody = |authority| (Admitted { principal: Principal::unauthenticated(), authority }, None);
        let by_token = || {
            let token = token_of(asked.headers)?.ok_or(Error::Unauthenticated)?;
            let holder = register.check(&token, age)?;
            let authority = Some(Authority::Token(Arc::clone(&holder.grant)));
            Ok((Admitted { principal: holder.grant.principal.clone(), authority }, Some(holder)))
        };
        let public = row.needs == Needs::Nothing;
        // The counters answer this machine's own collector without a token.
        let answers_everybody = public
            || (row.template == routes::METRICS
                && self.means.exposure == Exposure::Loopback
                && !asked.headers.contains_key(AUTHORIZATION)
                && self.refuse_foreign(asked, row).is_ok());
        match register.mode() {
            Mode::Tokens if answers_everybody => Ok(by_token().unwrap_or_else(|_| anybody(None))),
            Mode::Tokens => by_token(),
            Mode::Unknown if answers_everybody => Ok(anybody(None)),
            Mode::Unknown => Err(Error::AccessUnknown),
            Mode::Open => match self.refuse_foreign(asked, row) {
                Ok(()) => Ok(anybody(Some(Authority::Unlimited))),
                // A public route tells a stranger no more than that it exists.
                Err(_) if public => Ok(anybody(None)),
                Err(error) => Err(error),
            },
        }
    }

    /// Refuses, in open mode, every request that this machine's operator may not have sent.
    fn refuse_foreign(&self, asked: Asked<'_>, row: &Route) -> Result<()> {
        if self.means.exposure == Exposure::Network {
            return Err(Error::Unauthenticated);
        }
        // A decision for a proxy comes through a proxy, and reveals nothing to a page.
        if authz::covers(row.template) {
            return Ok(());
        }
        refuse_pages(asked.headers)?;
        let hosts = &self.means.hosts;
        if self.means.exposure == Exposure::Loopback {
            hosts.refuse_strangers(asked)
        } else {
            hosts.refuse_names(asked.headers)
        }
    }
}

/// The refusal where the table has no row for the method. It names the methods of the template, if there are any.
fn unlisted(request: &Request, template: &str) -> Response {
    let methods = routes::methods(template);
    if methods.is_empty() {
        tracing::error!(template, method = %request.method(), "a route has no row in the table of routes: every caller is refused");
        return Error::RouteNotFound.into_response();
    }
    let mut response = Error::MethodNotAllowed.into_response();
    if let Ok(methods) = HeaderValue::from_str(&methods.join(",")) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

/// The token of a request; none if the request has none.
fn token_of(headers: &HeaderMap) -> Result<Option<Token>> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = shown.next() else { return Ok(None) };
    if shown.next().is_some() {
        return Err(Error::InvalidToken("came in two Authorization headers: send one"));
    }
    Token::of_header(value.as_bytes()).map(Some).map_err(Error::InvalidToken)
}

impl<S> Service<Request> for Guard<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = GuardFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let means = Arc::clone(&self.means);
        let Some(matched) = request.extensions().get::<MatchedPath>().cloned() else {
            // An unknown route needs no guard: the fallback answers 404.
            return GuardFuture { means, state: State::Passed { future: self.inner.call(request), passage: None } };
        };
        let Some(row) = routes::route(request.method(), matched.as_str()) else {
            return GuardFuture {
                means,
                state: State::Answered { response: Some(unlisted(&request, matched.as_str())) },
            };
        };
        let state = match self.admit(&mut request, row) {
            Ok(passage) => State::Passed { future: self.inner.call(request), passage: Some(passage) },
            Err(refusal) => State::Refused { response: Some(refusal.response), note: refusal.note },
        };
        GuardFuture { means, state }
    }
}

pin_project! {
    /// The answer of a [`Guard`]: the handler's, or a refusal. A refusal that is an event is answered after the event
    /// was written.
    pub struct GuardFuture<F> {
        means: Arc<Means>,
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Passed { #[pin] future: F, passage: Option<Passage> },
        Refused { response: Option<Response>, note: Option<Box<Note>> },
        Noting { response: Option<Response>, noting: Pin<Box<dyn Future<Output = ()> + Send>> },
        Answered { response: Option<Response> },
    }
}

impl<F, E> Future for GuardFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (response, note) = match this.state.as_mut().project() {
                StateProjection::Passed { future, passage } => {
                    let response = match ready!(future.poll(context)) {
                        Ok(response) => response,
                        Err(error) => return Poll::Ready(Err(error)),
                    };
                    // The place is free again.
                    match passage.take() {
                        Some(passage) => (passage.seat.answer(response), passage.note),
                        None => (response, None),
                    }
                }
                StateProjection::Refused { response, note } => (answered(response), note.take()),
                StateProjection::Noting { response, noting } => {
                    ready!(noting.as_mut().poll(context));
                    return Poll::Ready(Ok(answered(response)));
                }
                StateProjection::Answered { response } => return Poll::Ready(Ok(answered(response))),
            };
            match noting(&this.means.access, &response, note) {
                None => return Poll::Ready(Ok(response)),
                Some(noting) => {
                    this.state.set(State::Noting { response: Some(response), noting: Box::pin(noting) });
                }
            }
        }
    }
}

fn answered(response: &mut Option<Response>) -> Response {
    response.take().expect("a future is not polled again after it was ready")
}

impl<F> std::fmt::Debug for GuardFuture<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("GuardFuture").finish_non_exhaustive()
    }
}
