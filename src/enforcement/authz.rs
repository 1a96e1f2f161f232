//! Forward-auth: a proxy asks before each request whether the state lets it through. One endpoint a proxy, since each tells
//! path and method in its own way, and an endpoint that guessed from headers would be told by the caller what to guess.
//!
//! Allow is 200 with an empty body, and nothing else is: some proxies let a check that failed with 5xx pass, so on these routes
//! every other outcome, of whatever layer, is 403 ([`close`]). The check covers path and method alone; headers that speak of
//! another path or method change nothing.

use super::gate::{Source, Verdict, View, decide};
use super::http::Outside;
use super::path::canonical;
use crate::error::{Error, Problem};
use crate::http::errors::ProblemBody;
use crate::types::{ExecutionClass, RouteClass};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

/// Below which every answer is 200 or 403.
const PREFIX: &str = "/api/governance/authz/";
/// What Envoy puts before the path that it asks about: its `path_prefix`.
const ENVOY_PREFIX: &str = "/api/governance/authz/envoy";

const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");

const DECISION: HeaderName = HeaderName::from_static("x-governance-decision");
const REASON: HeaderName = HeaderName::from_static("x-governance-reason");
const CLASS: HeaderName = HeaderName::from_static("x-governance-class");
const STATE_VERSION: HeaderName = HeaderName::from_static("x-governance-state-version");

/// The routes, each for any method: Envoy asks with the method of the request itself.
pub(super) fn router() -> OpenApiRouter<Outside> {
    OpenApiRouter::new()
        .routes(routes!(authz_nginx).map(|_: MethodRouter<Outside>| any(authz_nginx)))
        .routes(routes!(authz_traefik).map(|_: MethodRouter<Outside>| any(authz_traefik)))
        // The root alone: a wildcard is never empty.
        .routes(routes!(authz_envoy).map(|_: MethodRouter<Outside>| any(authz_envoy)))
        .route("/api/governance/authz/envoy/{*path}", any(authz_envoy))
}

/// The request that a proxy asks about, or a sentence that says why it cannot be told.
type Asked<'a> = Result<(Method, &'a str), String>;

/// For nginx: `X-Original-URI` and `X-Original-Method` say what is asked about.
#[utoipa::path(
    get, path = "/api/governance/authz/nginx", tag = "enforcement",
    params(("X-Original-URI" = String, Header, description = "Path and query as they came"),
           ("X-Original-Method" = String, Header, description = "The method")),
    responses((status = 200, description = "Let it through"), (status = 403, description = "Do not", body = ProblemBody, content_type = "application/problem+json"))
)]
async fn authz_nginx(State(outside): State<Outside>, headers: HeaderMap) -> Response {
    answer(&outside, told(&headers, &ORIGINAL_URI, &ORIGINAL_METHOD))
}

/// For Traefik and Caddy: `X-Forwarded-Uri` and `X-Forwarded-Method` say what is asked about.
#[utoipa::path(
    get, path = "/api/governance/authz/traefik", tag = "enforcement",
    params(("X-Forwarded-Uri" = String, Header, description = "Path and query as they came"),
           ("X-Forwarded-Method" = String, Header, description = "The method")),
    responses((status = 200, description = "Let it through"), (status = 403, description = "Do not", body = ProblemBody, content_type = "application/problem+json"))
)]
async fn authz_traefik(State(outside): State<Outside>, headers: HeaderMap) -> Response {
    answer(&outside, told(&headers, &FORWARDED_URI, &FORWARDED_METHOD))
}

/// For Envoy: the path that follows says what is asked about, and the method of the request itself.
#[utoipa::path(
    get, path = "/api/governance/authz/envoy/", tag = "enforcement",
    responses((status = 200, description = "Let it through"), (status = 403, description = "Do not", body = ProblemBody, content_type = "application/problem+json"))
)]
async fn authz_envoy(State(outside): State<Outside>, method: Method, uri: Uri) -> Response {
    answer(
        &outside,
        uri.path()
            .strip_prefix(ENVOY_PREFIX)
            .map(|path| (method, path))
            .ok_or_else(|| "the path prefix is missing".to_owned()),
    )
}

/// The values of a pair of headers: each once, or none.
fn told<'a>(headers: &'a HeaderMap, uri: &HeaderName, method: &HeaderName) -> Asked<'a> {
    let one = |name: &HeaderName| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (Some(value), None) => Ok(value.as_bytes()),
            (Some(_), Some(_)) => Err(format!("the header {name} is there twice, and two lines are two stories")),
            (None, _) => Err(format!("the header {name} is missing")),
        }
    };
    let no_text = || format!("the path in the header {uri} is no visible ASCII: percent-encode it");
    // A query decides nothing, and clients send its UTF-8 as it is.
    let path = one(uri)?.split(|byte| *byte == b'?').next().unwrap_or_default();
    let path = str::from_utf8(path).ok().filter(|path| path.is_ascii()).ok_or_else(no_text)?;
    let method = Method::from_bytes(one(method)?).map_err(|_| format!("the header {method} is no method"))?;
    Ok((method, path))
}

/// The decision, as a proxy reads it.
fn answer(outside: &Outside, asked: Asked<'_>) -> Response {
    let (method, path) = match asked {
        Ok(asked) => asked,
        Err(what) => {
            return Error::Malformed(format!("{what}: see docs/ENFORCEMENT.md for the proxy's configuration"))
                .into_response();
        }
    };
    let path = match canonical(path) {
        Ok(path) => path,
        Err(refused) => return Error::AmbiguousPath { reason: refused.to_string() }.into_response(),
    };
    let class = outside.rules.classify(&method, path);
    let view = outside.feed.view();
    let mut response = match (decide(class, view, outside.scope), class) {
        (Verdict::Block(block), RouteClass::Class(exec_class)) => {
            let state_version = view.version();
            Error::Blocked { block, exec_class, path: path.to_owned(), state_version }.into_response()
        }
        // An exempt path is not blocked.
        (Verdict::Allow | Verdict::Block(_), _) => {
            let mut response = Response::default();
            let headers = response.headers_mut();
            headers.insert(DECISION, HeaderValue::from_static("allow"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let reason = match (class, view) {
                (RouteClass::Exempt, _) => "exempt",
                (_, View::Fresh { go_live_enabled: true, .. }) => "live",
                // Go-live is off, and that does not concern this class here.
                _ => "not_restricted",
            };
            headers.insert(REASON, HeaderValue::from_static(reason));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(CLASS, HeaderValue::from_static(name(class)));
    if let Some(version) = view.version() {
        headers.insert(STATE_VERSION, HeaderValue::from(version));
    }
    response
}

const fn name(class: RouteClass) -> &'static str {
    match class {
        RouteClass::Exempt => "EXEMPT",
        RouteClass::Class(ExecutionClass::ObserveOnly) => ExecutionClass::ObserveOnly.as_str(),
        RouteClass::Class(ExecutionClass::SandboxExec) => ExecutionClass::SandboxExec.as_str(),
        RouteClass::Class(ExecutionClass::ProdExec) => ExecutionClass::ProdExec.as_str(),
    }
}

/// Whether an answer on this path goes to a proxy.
#[must_use]
pub fn covers(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Makes everything that is not an allow a refusal that every proxy reads as one: 403, with the error that it is.
pub fn close(mut response: Response) -> Response {
    if response.status() == StatusCode::OK && response.headers().get(DECISION).is_some() {
        return response;
    }
    let mut problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if response.status() == StatusCode::METHOD_NOT_ALLOWED => Error::MethodNotAllowed.problem(),
        None => Error::RouteNotFound.problem(),
    };
    problem.status = StatusCode::FORBIDDEN;
    *response.status_mut() = StatusCode::FORBIDDEN;
    let headers = response.headers_mut();
    headers.remove(RETRY_AFTER);
    headers.remove(CONTENT_TYPE);
    headers.insert(DECISION, HeaderValue::from_static("block"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A code is upper case with underscores, so this is a header value.
    if let Ok(reason) = HeaderValue::from_str(&problem.code.to_ascii_lowercase()) {
        headers.insert(REASON, reason);
    }
    response.extensions_mut().insert(problem);
    response
}
