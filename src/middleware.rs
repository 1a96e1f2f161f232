//! The middleware between the socket and the gate, as one layer.
//!
//! Each layer of axum or tower costs every request a boxed future and a copy of the layers inside it. So each concern
//! is a function in its own file, and [`Stack`] alone sets their order.

pub mod access_log;
mod completion;
mod deadline;
mod identity;

use crate::enforcement::authz;
use crate::error::Error;
use crate::http::numbers;
use crate::http::places::AsText;
use crate::panics;
use access_log::{Entry, Meters};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use identity::Identity;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::{Service, ServiceExt};

/// The stack around the gated service. Outermost first:
///
/// 1. `identity`: names the request and renders error bodies. Outermost, so that every answer has an id and the errors
///    of every layer have the same body.
/// 2. `authz::close`: forward-auth answers 200 or 403, even if a layer below fails.
/// 3. `access_log`: one line a request, and the metrics. Outside the panics, so that a panic is a logged 500.
/// 4. `deadline`: limits the time that a caller waits. Inside the log, outside the gate, so that it includes the
///    reading of the body.
/// 5. `completion`: a change that was begun is finished, also if its caller hangs up. Inside the deadline, which ends
///    only the waiting.
/// 6. `panics`: a panic is a 500 of one request. Innermost, so that this holds when the caller has gone; no layer
///    outside runs a handler's code.
///
/// The gate is inside all of this, and the router inside the gate.
#[derive(Debug, Clone)]
pub struct Stack<S> {
    gated: S,
    meters: Arc<Meters>,
}

impl<S> Stack<S> {
    /// The stack around this service. The metrics recorder must be installed already.
    pub fn new(gated: S) -> Self {
        Self { gated, meters: Arc::default() }
    }
}

impl<S> Service<Request> for Stack<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // `answer` waits for the copy that serves the request, within the deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { gated, meters } = self.clone();
        Box::pin(async move { Ok(answer(gated, &meters, request).await) })
    }
}

/// One request through the stack.
async fn answer<S>(gated: S, meters: &Meters, mut request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let identity = Identity::of(&mut request);
    let with_texts = numbers::wanted(&request);
    if with_texts {
        request.extensions_mut().insert(AsText);
    }
    let entry = Entry::begin(&mut request);
    let is_change = completion::is_change(&request);
    let guarded = async move {
        match panics::caught(gated.oneshot(request)).await {
            Ok(Ok(response)) => response,
            Err(panics::Panicked) => Error::Panicked.into_response(),
        }
    };
    let allowed = deadline::of(identity.path());
    let response = if is_change {
        deadline::enforce(allowed, completion::Completing::new(guarded)).await
    } else {
        deadline::enforce(allowed, guarded).await
    };
    // Proxies interpret a failed check in different ways, so every answer that is not an allow is the same refusal.
    let response = if authz::covers(identity.path()) { authz::close(response) } else { response };
    entry.finish(&identity, &response, meters);
    let response = identity.render(response);
    if with_texts { numbers::as_text(response).await } else { response }
}
