//! Everything between the socket and the gate, in one layer.
//!
//! One, because a layer of axum's or tower's costs each request a boxed future and a copy of the layers inside it; the
//! concerns are functions instead, each in its file, and [`Stack`] is the one place that says in which order they act.

pub mod access_log;
mod completion;
mod deadline;
mod identity;

use crate::enforcement::authz;
use crate::error::Error;
use crate::http::numbers;
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
/// 1. `identity`: names the request and renders error bodies. Outermost, so that every answer has an id and every error,
///    of whatever layer, has the same body.
/// 2. `authz::close`: what forward-auth answers is 200 or 403, whatever went wrong below.
/// 3. `access_log`: one line a request, and the metrics. Outside the panics, so that a panic is a logged 500.
/// 4. `deadline`: nobody is kept waiting for longer than that. Inside the log, outside the gate, so that it counts the
///    reading of the body.
/// 5. `completion`: what was begun is finished, also for a caller that hangs up. Inside the deadline, which only ends the
///    waiting.
/// 6. `panics`: a panic is a 500 of one request. Innermost, so that it is one as well when nobody waits any more; nothing
///    outside it runs code of a handler.
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
        // The copy that serves the request is waited for in `answer`, within the deadline.
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
        request.extensions_mut().insert(numbers::AsText);
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
    // A proxy reads a failed check as it likes: to it everything that is not an allow is the same refusal.
    let response = if authz::covers(identity.path()) { authz::close(response) } else { response };
    entry.finish(&identity, &response, meters);
    let response = identity.render(response);
    if with_texts { numbers::as_text(response).await } else { response }
}
