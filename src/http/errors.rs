//! The error answers of routes, as OpenAPI documents them. The table itself is in [`crate::error`].

use crate::error::{Blocker, FieldError};
use std::collections::BTreeMap;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// The body of every error (RFC 9457). Some codes have more members. Programs should use `error`, which is stable.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used; http::problem writes the body")]
pub struct ProblemBody {
    /// A URN of the code, for example `urn:holdfast:problem:not-found`.
    #[schema(rename = "type")]
    kind: String,
    /// The title of the code, the same for every occurrence.
    title: String,
    /// The HTTP status, as in the status line.
    status: u16,
    /// The explanation of this occurrence, with the fix.
    detail: String,
    /// The path of the request.
    instance: String,
    /// The stable code, upper case.
    error: String,
    /// The id of the request, to quote in a report.
    request_id: String,
    /// The fields that were not accepted (400, 422).
    errors: Option<Vec<FieldError>>,
    /// The failed checks of a precondition (412).
    blockers: Option<Vec<Blocker>>,
    /// True if the same request may be sent again with its idempotency key; without a key, read the state first (429,
    /// 503).
    retry_same_key: Option<bool>,
}

fn problem(description: &str) -> RefOr<Response> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build().into()
}

fn responses(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    let describe = |status: u16| match status {
        400 => "The request cannot be read, or contradicts itself",
        401 => "A token is missing or not valid",
        403 => "Refused",
        404 => "The thing does not exist",
        409 => "The request conflicts with the current state",
        410 => "The event is archived: `detail` names the file",
        412 => "A precondition fails: see `blockers`",
        413 => "The body is too large",
        415 => "The body's format is not supported",
        422 => "A field is not acceptable: see `errors`",
        429 => "The token was used too often: try again after Retry-After",
        503 => "Nothing can be decided now: try again after Retry-After",
        _ => "The service failed: quote `request_id` in a report",
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
    /// The errors of a route that needs no database: only its parameters can be wrong.
    Local,
    [400, 422, 503]
);
error_set!(
    /// The errors of a read.
    Read,
    [400, 401, 403, 422, 429, 500, 503]
);
error_set!(
    /// The errors of a read of one thing.
    ReadOne,
    [400, 401, 403, 404, 410, 422, 429, 500, 503]
);
error_set!(
    /// The errors of a read that compares the trail with a signed checkpoint.
    ReadOfTrail,
    [400, 401, 403, 404, 409, 422, 429, 500, 503]
);
error_set!(
    /// The errors of a change.
    Change,
    [400, 401, 403, 409, 410, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// The errors of a change of one thing.
    ChangeOfOne,
    [400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// The errors of a loosening, which has preconditions.
    Loosen,
    [400, 401, 403, 412, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// The errors of a loosening of one thing.
    LoosenOne,
    [400, 401, 403, 404, 412, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// The errors of an approval, which include those of the approved change.
    Approve,
    [400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// The errors of the production guard.
    Require,
    [400, 401, 403, 404, 413, 415, 422, 429, 500, 503]
);
error_set!(
    /// The errors of a switch that always acts.
    Act,
    [400, 401, 403, 500, 503]
);
