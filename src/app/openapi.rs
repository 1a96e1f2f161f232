//! The OpenAPI document, made from the handlers' own types, and Swagger UI from assets inside the binary.
//!
//! One pass adds the parts that every POST has in common: the form encoding beside JSON, every body field as an
//! optional query parameter, `changed_by` beside `actor`, and the headers of idempotency keys. A test keeps
//! `docs/openapi.json` equal to this.

use crate::enforcement::routes::{Needs, needs_of};
use crate::http::numbers::{NUMBERS, STRING};
use axum::Router;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, Method};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use std::sync::LazyLock;
use utoipa::OpenApi;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Deprecated, Ref, RefOr, Required};

/// Title, version and tags; paths and schemas come from the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Holdfast",
        description = "Institutional governance control plane: go-live state, risk guard, Heimdall charter, regression tripwire.\n\nEvery POST takes a JSON object, a form body, or query parameters; they mean the same, and body and query merge. A POST with an Idempotency-Key is done once, even if it is sent several times (engage and disable always act). Amounts are exact decimals, as JSON numbers or strings. Errors are application/problem+json (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "go-live", description = "The go-live switch, the kill switch and the checklist"),
        (name = "risk", description = "Today's risk caps of GLOBAL and of each engine, and the reservations under them"),
        (name = "heimdall", description = "The evidence on which an AI domain may act in production"),
        (name = "regression", description = "Measurements, and the wires that trip when performance drops"),
        (name = "enforcement", description = "The instances on this database, and the decision for proxies"),
        (name = "flags", description = "The state as feature flags, OFREP 0.3"),
        (name = "access", description = "Tokens, their rights, and approvals by a second person"),
        (name = "audit", description = "The audit trail: its events, its heads and their verification"),
        (name = "review", description = "The Monday review"),
        (name = "service", description = "Health and metrics")
    ),
    components(schemas(crate::http::errors::ProblemBody, crate::types::Place))
)]
struct Base;

/// The document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let (_, routes) = super::routes::routes(None).split_for_parts();
    let mut document = Base::openapi();
    document.merge(routes);
    let mut components = document.components.take().unwrap_or_default();
    let posts = || document.paths.paths.values().filter_map(|path| path.post.as_ref());
    for name in posts().filter_map(body_schema).map(str::to_owned).collect::<Vec<_>>() {
        if let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(&name) {
            add_changed_by(object);
        }
    }
    // OFREP's POSTs only evaluate; they keep that standard's own form.
    let ours = document.paths.paths.iter_mut().filter(|(path, _)| path.starts_with(crate::http::BASE_PATH));
    for operation in ours.filter_map(|(_, path)| path.post.as_mut()) {
        complete(operation, &components);
        if !operation.operation_id.as_deref().is_some_and(|id| KEYLESS.contains(&id)) {
            add_key(operation);
        }
    }
    components.add_security_scheme(BEARER, bearer());
    for (template, item) in &mut document.paths.paths {
        let operations =
            [(Method::GET, &mut item.get), (Method::POST, &mut item.post), (Method::DELETE, &mut item.delete)];
        for (method, operation) in operations {
            let mut needed: Vec<_> = needs_of(&method, template)
                .into_iter()
                .flat_map(Needs::scopes)
                .map(|scope| SecurityRequirement::new(BEARER, [scope.as_str()]))
                .collect();
            let Some(operation) = operation else { continue };
            if crate::http::numbers::covers(template) && !crate::enforcement::authz::covers(template) {
                operation.parameters.get_or_insert_with(Vec::new).push(numbers());
            }
            if !needed.is_empty() {
                // The alternative is no token: in open mode, before the first token is created, every caller on the
                // machine is admitted.
                needed.push(SecurityRequirement::default());
                operation.security = Some(needed);
            }
        }
    }
    document.components = Some(components);
    document
}

/// The name of the security scheme.
const BEARER: &str = "bearer";

fn bearer() -> SecurityScheme {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("hf_<id>_<secret>").description(Some(
        "A token from holdfast token create or POST /access/tokens. Each operation names the scope that it needs.",
    ));
    SecurityScheme::Http(scheme.build())
}

/// The paths that always act and ignore an idempotency key.
const KEYLESS: [&str; 6] =
    ["disable_go_live", "engage_kill_switch", "create_token", "approve", "reject", "backtest_wire"];

/// Adds the request header that names an intent, and the answer's header that marks a repeated answer.
fn add_key(operation: &mut Operation) {
    let key = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The caller's name for this change, the same as the field `idempotency_key`: with the same key and input it is done \
             once and answered alike for 7 days.",
        ))
        .schema(Some(Ref::from_schema_name("IdempotencyKey")))
        .build();
    operation.parameters.get_or_insert_with(Vec::new).push(RefOr::T(key));
    let replayed = HeaderBuilder::new()
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["true"]))))
        .description(Some("Present when this is an earlier answer under the same key: nothing was done this time."))
        .build();
    for (status, response) in &mut operation.responses.responses {
        if let (true, RefOr::T(response)) = (status.starts_with('2'), response) {
            response.headers.insert("Idempotent-Replayed".into(), RefOr::T(replayed.clone()));
        }
    }
}

/// The parameter that asks for numbers as strings.
fn numbers() -> RefOr<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(NUMBERS)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(
            "With `string`, each number of the answer is a string of the same digits, for readers that would round it. \
             `Accept: application/json;numbers=string` is the same.",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).enum_values(Some([STRING]))));
    RefOr::T(parameter.build())
}

/// The name of the schema of a POST's body.
fn body_schema(operation: &Operation) -> Option<&str> {
    let Some(RefOr::T(body)) = &operation.request_body else { return None };
    let Some(RefOr::T(json)) = body.content.get("application/json") else { return None };
    let Some(RefOr::Ref(reference)) = &json.schema else { return None };
    reference.ref_location.rsplit('/').next()
}

/// The document as the service serves it and the repository holds it.
#[must_use]
pub fn document_text() -> String {
    let mut text = document().to_pretty_json().expect("the document consists of text, numbers and lists");
    text.push('\n');
    text
}

static DOCUMENT: LazyLock<String> = LazyLock::new(document_text);

/// Adds the form beside JSON, and each field as an optional query parameter, since the field may come in either place.
fn complete(operation: &mut Operation, components: &Components) {
    let Some(name) = body_schema(operation).map(str::to_owned) else { return };
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::False);
        if let Some(json) = body.content.get("application/json").cloned() {
            body.content.insert("application/x-www-form-urlencoded".into(), json);
        }
    }
    let Some(RefOr::T(Schema::Object(object))) = components.schemas.get(&name) else { return };
    let parameters = operation.parameters.get_or_insert_with(Vec::new);
    parameters.extend(object.properties.iter().map(|(name, schema)| query_parameter(name, schema)));
}

fn query_parameter(name: &str, schema: &RefOr<Schema>) -> RefOr<Parameter> {
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some("The same as in the body; if it is in both, they must agree."))
        .schema(Some(as_text(without_null(schema))))
        .build();
    RefOr::T(parameter)
}

/// The schema of an object or a list in a query, where it is one text of JSON. By OpenAPI's own rule, its members would
/// be parameters.
fn as_text(schema: RefOr<Schema>) -> RefOr<Schema> {
    let nested = match &schema {
        RefOr::Ref(reference) => reference.ref_location.ends_with("/JsonObject"),
        RefOr::T(schema) => matches!(schema, Schema::Array(_)),
    };
    if !nested {
        return schema;
    }
    let text = ObjectBuilder::new().schema_type(Type::String).content_media_type("application/json");
    RefOr::T(Schema::Object(text.build()))
}

/// A schema without null, since a query omits a field instead of sending null.
fn without_null(schema: &RefOr<Schema>) -> RefOr<Schema> {
    let null = |item: &RefOr<Schema>| match item {
        RefOr::T(Schema::Object(object)) => object.schema_type == SchemaType::Type(Type::Null),
        _ => false,
    };
    match schema {
        RefOr::T(Schema::OneOf(one_of)) if one_of.items.iter().any(null) => {
            let mut items = one_of.items.iter().filter(|item| !null(item));
            match (items.next(), items.next()) {
                (Some(only), None) => only.clone(),
                _ => schema.clone(),
            }
        }
        RefOr::T(Schema::Object(object)) => {
            let mut object = object.clone();
            if let SchemaType::Array(types) = &object.schema_type {
                let mut types = types.iter().filter(|of| **of != Type::Null);
                if let (Some(only), None) = (types.next(), types.next()) {
                    object.schema_type = SchemaType::Type(only.clone());
                }
            }
            RefOr::T(Schema::Object(object))
        }
        other => other.clone(),
    }
}

/// The original's name for `actor`, which its clients send.
fn add_changed_by(object: &mut Object) {
    if !object.properties.contains_key("actor") {
        return;
    }
    let changed_by = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("The same field as `actor`, by the original's name."))
        .deprecated(Some(Deprecated::True))
        .min_length(Some(1))
        .max_length(Some(200))
        .pattern(Some(crate::types::TEXT_PATTERN))
        .build();
    object.properties.insert("changed_by".into(), RefOr::T(Schema::Object(changed_by)));
    // Either name is accepted, so neither alone is required. Where one of them is, the description says so.
    object.required.retain(|field| field != "actor");
}

/// The document and Swagger UI; `/` redirects to the latter until there is a console.
pub(super) fn router() -> Router {
    let swagger = utoipa_swagger_ui::SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    Router::new()
        .route("/openapi.json", get(openapi_json))
        .route("/", get(|| async { Redirect::temporary("/docs/") }))
        .merge(Router::from(swagger).layer(map_response(guarded)))
}

/// The rights of a documentation page: it may run and show its own files and ask this service; no other page may frame
/// it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                           font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn openapi_json() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}
