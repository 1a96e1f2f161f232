//! The error answers of routes, as OpenAPI documents them. The table itself is in [`crate::error`].

use crate::error::{Blocker, FieldError};
use std::collections::BTreeMap;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// The body of every error, RFC 9457. Some codes carry more members; `error` is stable and what a program should look at.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used; http::problem writes the body")]
pub struct ProblemBody {
    /// A URN of the code.
    #[schema(rename = "type")]
    kind: String,
    /// The kind of error, in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// This occurrence, with the fix.
    detail: String,
    /// The path that was asked for.
    instance: String,
    /// The stable code, upper case.
    error: String,
    /// Quote this when you report it.
    request_id: String,
    /// The fields that were not accepted (400, 422).
    errors: Option<Vec<FieldError>>,
    /// The obstacles (412).
    blockers: Option<Vec<Blocker>>,
    /// Whether the same request may be sent again with its idempotency key; without one, read the state first (429, 503).
    retry_same_key: Option<bool>,
}

fn problem(description: &str) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build().into()
}

fn responses(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let describe = |status: u16| match status {
        400 => "The request cannot be read, or says two things",
        401 => "A token is needed, or it is not valid",
        403 => "Refused",
        404 => "There is no such thing",
        409 => "In conflict with what stands",
        412 => "A precondition fails: see `blockers`",
        413 => "The body is too large",
        415 => "The body's format is not read",
        422 => "A field is not acceptable: see `errors`",
        429 => "The token was used too often; try again after Retry-After",
        503 => "Nothing can be decided now; try again after Retry-After",
        _ => "Something went wrong here: quote `request_id`",
    };
    statuses.iter().map(|&status| (status.to_string(), problem(describe(status)))).collect()
}

macro_rules! error_set {
    ($(#[$doc:meta])* $name:ident, [$($status:literal),*]) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                responses(&[$($status),*])
            }
        }
    };
}

error_set!(
    /// Of what needs no database: only its parameters can be wrong.
    Local,
    [400, 422, 503]
);
error_set!(
    /// Of a read.
    Read,
    [400, 401, 403, 422, 429, 500, 503]
);
error_set!(
    /// Of a read of one thing.
    ReadOne,
    [400, 401, 403, 404, 422, 429, 500, 503]
);
error_set!(
    /// Of a read that compares the trail with what was signed.
    ReadOfTrail,
    [400, 401, 403, 404, 409, 422, 429, 500, 503]
);
error_set!(
    /// Of a change.
    Change,
    [400, 401, 403, 409, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// Of a change of one thing.
    ChangeOfOne,
    [400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// Of a loosening, which is checked.
    Loosen,
    [400, 401, 403, 412, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// Of a loosening of one thing.
    LoosenOne,
    [400, 401, 403, 404, 412, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// Of an approval, which can fail as the change itself can.
    Approve,
    [400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// Of the production guard.
    Require,
    [400, 401, 403, 404, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// Of what always acts.
    Act,
    [400, 401, 403, 500, 503]
);
