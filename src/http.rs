//! HTTP shared by all handlers: the parsing of requests and the form of answers. It knows no lever.
//!
//! Handlers are in their levers' folders: extract the input, call one service, answer.

pub mod connections;
mod days;
mod drain;
pub mod errors;
pub(crate) mod input;
pub(crate) mod keyed;
pub(crate) mod numbers;
mod paging;
pub mod places;
mod problem;
pub mod server;

pub use crate::identity::Caller;
pub use days::{DaysPage, Rows};
pub use input::{BODY_BYTES_MAX, Input, Lenient, Query, Segment};
pub(crate) use input::{CanStop, Off, Stopping};
pub(crate) use keyed::said;
pub use keyed::{Change, Said, marked};
pub use paging::{ArchivedPage, Page, Paging};
pub use problem::render;

use crate::error::Error;
use crate::identity::Admitted;
use crate::types::RequestId;
use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::http::request::Parts;
use axum::response::Response;

/// The path prefix of every governance route.
pub const BASE_PATH: &str = "/api/governance";

pub(crate) fn end_connection(response: &mut Response) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The query of a route without parameters: a misspelt parameter is refused instead of ignored.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        // The outermost middleware names every request; only a router in a test lacks it.
        let request_id = parts.extensions.get::<RequestId>().cloned().unwrap_or_else(RequestId::generate);
        // A request that the guard has not admitted has no caller.
        let admitted = parts.extensions.get::<Admitted>().cloned().ok_or(Error::Unauthenticated)?;
        let authority = admitted.authority.ok_or(Error::Unauthenticated)?;
        Ok(Self { principal: admitted.principal, authority, request_id })
    }
}
