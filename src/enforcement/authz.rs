//! Forward-auth: a proxy asks before each request whether the state admits it. Each proxy has its own endpoint, since
//! each sends path and method in its own way; an endpoint that guessed the proxy from headers could be misled by the
//! caller.
//!
//! Only 200 with an empty body allows. Some proxies admit a request whose check failed with 5xx, so on these routes
//! every other outcome, of every layer, is 403 ([`close`]). The check covers path and method alone; headers that name
//! another path or method change nothing.

use super::gate::{Source, Verdict, View, decide};
use super::outside::Outside;
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

/// The prefix of the paths on which every answer is 200 or 403.
const PREFIX: &str = "/api/governance/authz/";
/// The prefix that Envoy puts before the path of the request: its `path_prefix`.
const ENVOY_PREFIX: &str = "/api/governance/authz/envoy";

// Open mode refuses requests with the headers of a proxy: `access::open` lists them.
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");

const DECISION: HeaderName = HeaderName::from_static("x-governance-decision");
const REASON: HeaderName = HeaderName::from_static("x-governance-reason");
const CLASS: HeaderName = HeaderName::from_static("x-governance-class");
const STATE_VERSION: HeaderName = HeaderName::from_static("x-governance-state-version");

/// The routes, each for every method, since Envoy uses the method of the request itself.
pub(super) fn router() -> OpenApiRouter<Outside> {
    OpenApiRouter::new()
        .routes(routes!(authz_nginx).map(|_: MethodRouter<Outside>| any(authz_nginx)))
        .routes(routes!(authz_traefik).map(|_: MethodRouter<Outside>| any(authz_traefik)))
        // Only the root needs a second route, since a wildcard is never empty.
        .routes(routes!(authz_envoy).map(|_: MethodRouter<Outside>| any(authz_envoy)))
        .route("/api/governance/authz/envoy/{*path}", any(authz_envoy))
}

/// The request that a proxy asks about, or a sentence on why it cannot be read.
type Asked<'a> = Result<(Method, &'a str), String>;

/// Decides for nginx: `X-Original-URI` and `X-Original-Method` name the request.
#[utoipa::path(
    get, path = "/api/governance/authz/nginx", tag = "enforcement",
    params(("X-Original-URI" = String, Header, description = "The path and query of the request, unchanged"),
           ("X-Original-Method" = String, Header, description = "The method of the request")),
    responses((status = 200, description = "Admit the request"), (status = 403, description = "Refuse the request", body = ProblemBody, content_type = "application/problem+json"))
)]
async fn authz_nginx(State(outside): State<Outside>, headers: HeaderMap) -> Response {
    answer(&outside, told(&headers, &ORIGINAL_URI, &ORIGINAL_METHOD))
}

/// Decides for Traefik and Caddy: `X-Forwarded-Uri` and `X-Forwarded-Method` name the request.
#[utoipa::path(
    get, path = "/api/governance/authz/traefik", tag = "enforcement",
    params(("X-Forwarded-Uri" = String, Header, description = "The path and query of the request, unchanged"),
           ("X-Forwarded-Method" = String, Header, description = "The method of the request")),
    responses((status = 200, description = "Admit the request"), (status = 403, description = "Refuse the request", body = ProblemBody, content_type = "application/problem+json"))
)]
async fn authz_traefik(State(outside): State<Outside>, headers: HeaderMap) -> Response {
    answer(&outside, told(&headers, &FORWARDED_URI, &FORWARDED_METHOD))
}

/// Decides for Envoy: the rest of the path and the method are those of the request.
#[utoipa::path(
    get, path = "/api/governance/authz/envoy/", tag = "enforcement",
    responses((status = 200, description = "Admit the request"), (status = 403, description = "Refuse the request", body = ProblemBody, content_type = "application/problem+json"))
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

/// The values of a pair of headers, each of which must be there exactly once.
fn told<'a>(headers: &'a HeaderMap, uri: &HeaderName, method: &HeaderName) -> Asked<'a> {
    let one = |name: &HeaderName| {
        let mut lines = headers.get_all(name).iter();
        match (lines.next(), lines.next()) {
            (Some(value), None) => Ok(value.as_bytes()),
            (Some(_), Some(_)) => Err(format!("the header {name} is there twice: the proxy must send it once")),
            (None, _) => Err(format!("the header {name} is missing")),
        }
    };
    let no_text = || format!("the path in the header {uri} has characters outside visible ASCII: percent-encode it");
    // The query does not affect the decision, and clients may send its UTF-8 unencoded.
    let path = one(uri)?.split(|byte| *byte == b'?').next().unwrap_or_default();
    let path = str::from_utf8(path).ok().filter(|path| path.is_ascii()).ok_or_else(no_text)?;
    let method = Method::from_bytes(one(method)?).map_err(|_| format!("the header {method} does not hold a method"))?;
    Ok((method, path))
}

/// The decision in the form for a proxy.
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
        // An exempt path is never blocked.
        (Verdict::Allow | Verdict::Block(_), _) => {
            let mut response = Response::default();
            let headers = response.headers_mut();
            headers.insert(DECISION, HeaderValue::from_static("allow"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            let reason = match (class, view) {
                (RouteClass::Exempt, _) => "exempt",
                (_, View::Fresh { go_live_enabled: true, .. }) => "live",
                // Go-live is off, but this class is not restricted here.
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

/// Whether an answer on this path is for a proxy.
#[must_use]
pub fn covers(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Turns every answer that is not an allow into a refusal that every proxy understands: 403, with the original error as
/// its body.
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
    // A code is upper case with underscores, so it is a valid header value.
    if let Ok(reason) = HeaderValue::from_str(&problem.row.code.to_ascii_lowercase()) {
        headers.insert(REASON, reason);
    }
    response.extensions_mut().insert(problem);
    response
}
