//! HTTP: the router's assembly, how a request becomes a value, and how an answer is shaped.
//!
//! Handlers live with their levers; they read as a sentence: extract, one service call, answer. Everything that all of them
//! share is here.

pub mod connections;
mod drain;
pub mod errors;
mod health;
pub(crate) mod input;
pub(crate) mod keyed;
pub(crate) mod numbers;
mod openapi;
mod paging;
pub mod places;
mod problem;
pub mod server;

pub use crate::identity::Caller;
pub use input::{BODY_BYTES_MAX, Input, Lenient, Query, Segment};
pub(crate) use input::{CanStop, Stopping};
pub use keyed::{Keyed, marked};
pub use openapi::{document, document_text};
pub use paging::{Page, Paging};
pub use problem::render;

use crate::access::guard::GuardLayer;
use crate::app::App;
use crate::error::Error;
use crate::identity::Admitted;
use crate::types::RequestId;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::http::request::Parts;
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;

/// Where every governance route lives.
pub const BASE_PATH: &str = "/api/governance";

/// Lets the connection end with this answer.
pub(crate) fn end_connection(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// All routes with their documentation.
pub(crate) fn routes() -> OpenApiRouter<App> {
    let governance = OpenApiRouter::new()
        .merge(crate::go_live::http::router())
        .merge(crate::risk::http::router())
        .merge(crate::heimdall::http::router())
        .merge(crate::regression::http::router())
        .merge(crate::review::http::router())
        .merge(crate::enforcement::http::router())
        .merge(crate::audit::http::router())
        .merge(crate::access::http::router())
        .merge(crate::approval::http::router());
    OpenApiRouter::new().nest(BASE_PATH, governance).merge(crate::enforcement::http::absolute()).merge(health::router())
}

/// The finished router: every route, the documents, and an error body for everything else.
pub fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .merge(openapi::router())
        .fallback(|| async { Error::RouteNotFound })
        .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
        .layer(GuardLayer(app.clone()))
        .with_state(app)
}

/// The counters and the probes, without the guard.
pub(crate) fn metrics_router(app: App) -> Router {
    let (router, _) = health::router().split_for_parts();
    router.fallback(|| async { Error::RouteNotFound }).with_state(app)
}

/// The query of a route that takes none, so that a misspelt parameter is refused instead of ignored.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        // The outermost middleware names every request; a router without it has no callers.
        let request_id = parts.extensions.get::<RequestId>().cloned().unwrap_or_else(RequestId::generate);
        // Whoever the guard has not admitted is nobody.
        let admitted = parts.extensions.get::<Admitted>().cloned().ok_or(Error::Unauthenticated)?;
        let authority = admitted.authority.ok_or(Error::Unauthenticated)?;
        Ok(Self { principal: admitted.principal, authority, request_id })
    }
}
