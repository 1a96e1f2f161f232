//! The HTTP answers of changes that may wait for a second person.

use super::Loosened;
use crate::error::{Error, Result};
use crate::http::{BASE_PATH, marked};
use crate::idempotency::{Earlier, Once};
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

impl<T> Loosened<T> {
    /// The change's own answer, or 202 with the waiting request.
    pub fn answer(self, done: impl FnOnce(crate::idempotency::Once<T>) -> Result<Response>) -> Result<Response> {
        match self {
            Self::Done(once) => done(once),
            Self::Waiting(record) => Ok(waiting(record.id, record)),
        }
    }
}

impl<T: Serialize> IntoResponse for Loosened<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Done(once) => once.into_response(),
            Self::Waiting(record) => waiting(record.id, record),
        }
    }
}

/// A 202 with the waiting request. `Location` is its address.
pub(crate) fn waiting(id: i64, record: impl Serialize) -> Response {
    let approve = format!("{BASE_PATH}/approvals/{id}/approve");
    (StatusCode::ACCEPTED, [(LOCATION, approve)], Json(record)).into_response()
}

/// The id inside a kept answer.
#[derive(Deserialize)]
struct Id {
    id: i64,
}

/// A kept 202, as it was first answered.
#[must_use]
pub fn waiting_again(record: Box<RawValue>) -> Response {
    match serde_json::from_str::<Id>(record.get()) {
        Ok(Id { id }) => waiting(id, record),
        Err(error) => Error::Inconsistent(format!("a kept request cannot be read: {error}")).into_response(),
    }
}

impl<T: Serialize> IntoResponse for Once<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Done(answer) => Json(answer).into_response(),
            Self::Replayed(Earlier::Done(answer)) => marked(true, Json(answer)),
            Self::Replayed(Earlier::Waiting(request)) => marked(true, waiting_again(request)),
        }
    }
}
