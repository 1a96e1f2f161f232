//! The OpenAPI document: the same everywhere, complete, and true.

use crate::support::{Service, Setup, request};
use axum::http::Method;
use holdfast::audit::checkpoint::Notary;
use holdfast::audit::note::Signer;
use holdfast::enforcement::routes::{ROUTES, needs_of};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn document() -> Value {
    serde_json::from_str(&holdfast::app::document_text()).expect("the document is JSON")
}

/// An operation: its method, its template, and what the document says of it.
struct Operation {
    method: Method,
    template: String,
    body: Value,
}

fn operations() -> Vec<Operation> {
    let document = document();
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut operations = Vec::new();
    for (template, item) in paths {
        for (method, body) in item.as_object().expect("a path item") {
            let method: Method = method.to_uppercase().parse().expect("only operations stand in a path item");
            operations.push(Operation { method, template: template.clone(), body: body.clone() });
        }
    }
    operations
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.template)
    }

    fn parameters(&self) -> Vec<Value> {
        self.body["parameters"].as_array().cloned().unwrap_or_default()
    }

    /// The value of each parameter of the path.
    fn path(&self, id: &str) -> String {
        self.template.replace("{id}", id).replace("{key}", id)
    }

    fn documents(&self, status: u16) -> bool {
        self.body["responses"][status.to_string()].is_object()
    }
}

/// The target of a reference; null if it has none.
fn resolve<'a>(document: &'a Value, reference: &str) -> &'a Value {
    let pointer = reference.strip_prefix('#').expect("references are local");
    document.pointer(pointer).unwrap_or(&Value::Null)
}

/// The document is written to the repository, so that a change of the contract is seen in review.
/// After a change that is meant: `cargo run -- openapi > docs/openapi.json`.
#[test]
fn the_checked_in_document_is_the_real_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        checked_in == holdfast::app::document_text(),
        "docs/openapi.json is not the document: refresh it with `cargo run -- openapi > docs/openapi.json` and review the diff"
    );
}

#[tokio::test]
async fn the_served_document_is_the_real_one() {
    let service = Service::fresh().await;
    let answer = service.get_root("/openapi.json").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.text, holdfast::app::document_text());
}

#[test]
fn it_is_openapi_3_1_with_a_title_and_a_version() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    assert_eq!(document["info"]["title"], "Holdfast");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn operations_and_the_route_table_are_the_same() {
    let operations = operations();
    for operation in &operations {
        let scope = needs_of(&operation.method, &operation.template);
        assert!(scope.is_some(), "{} has no row in ROUTES", operation.name());
    }
    let documented: BTreeSet<String> = operations.iter().map(Operation::name).collect();
    let undocumented: Vec<String> = ROUTES
        .iter()
        .filter(|row| !(row.template == "/" || row.template == "/openapi.json" || row.template.starts_with("/docs")))
        // OpenAPI has no name for the rest of a path.
        .filter(|row| !row.template.contains("{*"))
        // Any method is documented as GET.
        .map(|row| format!("{} {}", row.method.as_ref().unwrap_or(&Method::GET), row.template))
        .filter(|name| !documented.contains(name))
        .collect();
    assert_eq!(undocumented, Vec::<String>::new());
}

#[tokio::test]
async fn every_row_of_the_route_table_is_routed() {
    let service = Service::fresh().await;
    for row in ROUTES {
        let path = row
            .template
            .replace("{id}", "7")
            .replace("{*rest}", "index.html")
            .replace("{*path}", "x")
            .replace("{key}", "go_live_enabled");
        let method = row.method.clone().unwrap_or(Method::PATCH);
        let content_type = (method == Method::POST).then_some("application/json");
        let body = if method == Method::POST { r#"{"nonsense":1}"# } else { "" };
        let answer = service.send(request(method.clone(), &path, content_type, body)).await;
        let code = answer.json["error"].as_str().unwrap_or_default();
        assert!(!matches!(code, "ROUTE_NOT_FOUND" | "METHOD_NOT_ALLOWED"), "{method} {path}: {}", answer.text);
    }
}

#[test]
fn operation_ids_are_unique_and_every_operation_has_a_tag_and_a_summary() {
    let mut seen = BTreeMap::new();
    let tags: BTreeSet<String> =
        document()["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap().to_owned()).collect();
    for operation in operations() {
        let name = operation.name();
        let id = operation.body["operationId"].as_str().unwrap_or_default().to_owned();
        assert!(!id.is_empty(), "{name} has no operationId");
        let twin = seen.insert(id.clone(), name.clone());
        assert_eq!(twin, None, "{id} is also {name}");
        let tag = operation.body["tags"][0].as_str().unwrap_or_default();
        assert!(tags.contains(tag), "{name} has the tag {tag:?}");
        assert!(operation.body["summary"].is_string(), "{name} has no summary");
    }
}

#[test]
fn every_reference_resolves() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_str() {
                        Some(target) if name == "$ref" => found.push(target.to_owned()),
                        _ => references(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100, "only {} references", found.len());
    let broken: BTreeSet<&String> = found.iter().filter(|target| !resolve(&document, target).is_object()).collect();
    assert_eq!(broken, BTreeSet::new());
}

#[test]
fn every_path_parameter_is_documented() {
    for operation in operations() {
        let documented: BTreeSet<String> = operation
            .parameters()
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let named: BTreeSet<String> =
            operation.template.split('/').filter(|segment| segment.starts_with('{')).map(str::to_owned).collect();
        assert_eq!(documented, named, "{}", operation.name());
    }
}

/// The fields of a POST's body.
fn fields(document: &Value, operation: &Operation) -> BTreeSet<String> {
    let schema = &operation.body["requestBody"]["content"]["application/json"]["schema"];
    let schema = resolve(document, schema["$ref"].as_str().expect("a named schema"));
    let properties = schema["properties"].as_object().expect("fields");
    properties.keys().cloned().collect()
}

fn posts() -> Vec<Operation> {
    let mut posts = operations();
    // OFREP's are another standard's, and change nothing.
    posts.retain(|operation| operation.method == Method::POST && !operation.template.starts_with("/ofrep/"));
    posts
}

#[test]
fn every_post_takes_json_and_form_and_needs_neither() {
    for operation in posts() {
        let (name, body) = (operation.name(), &operation.body["requestBody"]);
        let types: Vec<&String> = body["content"].as_object().expect("a body").keys().collect();
        assert_eq!(types, ["application/json", "application/x-www-form-urlencoded"], "{name}");
        let schema = |of: &str| body["content"][of]["schema"].clone();
        assert_eq!(schema(types[1]), schema(types[0]), "{name}");
        assert_eq!(body["required"], false, "{name}");
    }
}

#[test]
fn every_field_of_a_post_is_an_optional_query_parameter_too() {
    let document = document();
    let mut wrong = Vec::new();
    for operation in posts() {
        let mut in_query = operation.parameters();
        // A parameter that shapes the answer is not a field.
        in_query.retain(|parameter| parameter["in"] == "query" && parameter["name"] != "numbers");
        let optional = in_query.iter().all(|parameter| parameter["required"] == false);
        assert!(optional, "{}", operation.name());
        let names = in_query.iter().map(|parameter| parameter["name"].as_str().expect("a name").to_owned());
        let names: BTreeSet<String> = names.collect();
        assert_eq!(names.len(), in_query.len(), "{} documents a parameter twice", operation.name());
        let missing: Vec<String> = fields(&document, &operation).symmetric_difference(&names).cloned().collect();
        if !missing.is_empty() {
            wrong.push(format!("{}: {missing:?}", operation.name()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// A generator leaves a field of which it is not told what it is to anything.
#[test]
fn every_field_of_a_post_says_what_it_is_and_no_other_is_taken() {
    let document = document();
    let mut wrong = Vec::new();
    for operation in posts() {
        let schema = &operation.body["requestBody"]["content"]["application/json"]["schema"];
        let schema = resolve(&document, schema["$ref"].as_str().expect("a named schema"));
        // Engage acts whatever is sent.
        let acts = ["/engage", "/disable"].iter().any(|stop| operation.template.ends_with(stop));
        if !acts && schema["additionalProperties"] != json!(false) {
            wrong.push(format!("{} takes any other", operation.name()));
        }
        for (name, field) in schema["properties"].as_object().expect("fields") {
            if ["type", "$ref", "oneOf"].iter().all(|what| field[what].is_null()) {
                wrong.push(format!("{} {name}", operation.name()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_query_parameter_is_null() {
    let mut wrong = Vec::new();
    for operation in operations() {
        let parameters = operation.parameters();
        let in_query = parameters.iter().filter(|parameter| parameter["in"] == "query");
        wrong.extend(in_query.filter(|parameter| parameter["schema"].to_string().contains("null")).cloned());
    }
    assert_eq!(wrong, Vec::<Value>::new());
}

/// OpenAPI would make a parameter of each of its members.
#[test]
fn objects_and_lists_in_a_query_are_texts_of_json() {
    let document = document();
    let mut texts = 0;
    for operation in operations() {
        let parameters = operation.parameters();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let schema = &parameter["schema"];
            let schema = schema["$ref"].as_str().map_or(schema, |target| resolve(&document, target));
            let kind = schema["type"].as_str().unwrap_or_default();
            assert!(!matches!(kind, "object" | "array"), "{} {}", operation.name(), parameter["name"]);
            texts += usize::from(schema["contentMediaType"] == "application/json");
        }
    }
    assert!(texts >= 5, "only {texts}");
}

#[test]
fn numbers_state_what_the_parser_takes() {
    let document = document();
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    for (name, kind, least, most) in [
        ("Count", "integer", 0_i64, 1_000_000_000_000_i64),
        ("Ttl", "integer", 1, 2_592_000),
        ("Amount", "number", 0, 1_000_000_000_000),
        ("Measured", "number", -1_000_000_000_000, 1_000_000_000_000),
    ] {
        let found = schema(name);
        assert_eq!(
            (&found["type"], &found["minimum"], &found["maximum"]),
            (&json!(kind), &json!(least), &json!(most)),
            "{name}"
        );
    }
    let limits = operations().iter().flat_map(Operation::parameters).filter(|one| one["name"] == "limit").count();
    let bounded = |one: &Value| one["schema"]["minimum"] == 1 && one["schema"]["maximum"] == 1_000;
    let all = operations().iter().flat_map(Operation::parameters).filter(bounded).count();
    assert!(limits >= 6 && all == limits, "{all} of {limits} limits have bounds");
    let amount = &schema("CheckAndReserve")["properties"]["amount"];
    assert_eq!(amount["exclusiveMinimum"], 0, "{amount}");
}

#[test]
fn texts_state_that_they_have_no_control_characters() {
    let document = document();
    for name in ["Actor", "Reason", "CorrelationId", "EventId", "IdempotencyKey", "Label", "Detail"] {
        let schema = &document["components"]["schemas"][name];
        assert!(schema["pattern"].as_str().unwrap_or_default().contains(r"\u007f-\u009f"), "{name}: {schema}");
    }
}

#[test]
fn a_closed_gate_and_an_ambiguous_path_are_problems_on_every_route() {
    let document = document();
    let content = |path: &str, method: &str, status: &str| {
        document["paths"][path][method]["responses"][status]["content"].as_object().expect("a body").clone()
    };
    for proxy in ["nginx", "traefik", "envoy/"] {
        let path = format!("/api/governance/authz/{proxy}");
        assert!(content(&path, "get", "403").contains_key("application/problem+json"), "{path}");
    }
    let flag = content("/ofrep/v1/evaluate/flags/{key}", "post", "400");
    assert!(flag.contains_key("application/problem+json") && flag.contains_key("application/json"), "{flag:?}");
}

#[test]
fn changed_by_stands_beside_actor_in_every_post() {
    let document = document();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for operation in posts() {
        let fields = fields(&document, &operation);
        if fields.contains("actor") != fields.contains("changed_by") {
            wrong.push(operation.name());
        }
        seen += usize::from(fields.contains("actor"));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(seen >= 10, "only {seen} POSTs name an actor");
}

#[tokio::test]
async fn every_documented_get_answers_200() {
    let notary = Notary::new(Signer::new("test", [1; 32]).unwrap(), None, None);
    let service = Service::with(Setup { notary: Some(notary), ..Setup::default() }).await;
    service.post("/go-live/enable", &json!({"actor": "test"})).await.ok();
    let made = service.post("/heimdall/recommend", &json!({"domain": "D", "confidence": 0.5})).await.ok();
    let reserved = service.reserve("WHOLESALE", "1").await.ok();
    sqlx::query(
        "INSERT INTO approval (id, action, input, requested_by, owner, requested_at, expires_at)
         VALUES ($1, 'GO_LIVE_ENABLE', '{}', 'ann:1', 'ann', now(), now() + interval '1 minute')",
    )
    .bind(made["id"].as_i64().unwrap())
    .execute(&service.pool)
    .await
    .unwrap();
    for operation in operations().iter().filter(|operation| operation.method == Method::GET) {
        let id = if operation.template.contains("reservations") {
            reserved["reservation_id"].as_str().unwrap().to_owned()
        } else {
            made["id"].to_string()
        };
        let query = match operation.template.as_str() {
            "/api/governance/risk/policies/history" => "?engine=GLOBAL",
            "/api/governance/heimdall/policies/history" => "?domain=BUYER_MATCH",
            "/api/governance/regression/policies/history" => "?domain=CAPITAL&metric=roi_event",
            _ => "",
        };
        let mut sent = request(Method::GET, &format!("{}{query}", operation.path(&id)), None, "");
        let of_proxies = [
            ("x-original-uri", "/"),
            ("x-original-method", "GET"),
            ("x-forwarded-uri", "/"),
            ("x-forwarded-method", "GET"),
        ];
        for (name, value) in of_proxies.into_iter().filter(|_| operation.template.contains("/authz/")) {
            sent.headers_mut().insert(name, value.parse().unwrap());
        }
        let answer = service.send(sent).await;
        assert_eq!(answer.status, 200, "{}: {}", operation.name(), answer.text);
        if operation.template.contains("/authz/") {
            assert_eq!(answer.text, "", "{}", operation.name());
            continue;
        }
        let documented = operation.body["responses"]["200"]["content"].as_object().expect("a body");
        let content_type = answer.headers["content-type"].to_str().unwrap();
        let essence = content_type.split(';').next().unwrap();
        assert!(documented.contains_key(essence), "{} answers {content_type}", operation.name());
    }
}

#[tokio::test]
async fn every_refusal_of_a_get_has_a_documented_status() {
    let service = Service::fresh().await;
    let mut wrong = Vec::new();
    for operation in operations().iter().filter(|operation| operation.method == Method::GET) {
        for (id, query) in [
            ("7", "?nonsense=1"),
            ("none", ""),
            ("1000", ""),
            ("0190163d-8694-739b-aea5-966c26f8ad91", ""),
            ("7", "?a=%zz"),
            ("7", "?stream=kpi&from=1000"),
        ] {
            let answer = service.get_root(&format!("{}{query}", operation.path(id))).await;
            let status = answer.status.as_u16();
            if !operation.documents(status) {
                wrong.push(format!("{} with {id:?} {query:?} answers {status}", operation.name()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn every_refusal_of_a_post_has_a_documented_status() {
    let service = Service::fresh().await;
    let mut wrong = Vec::new();
    for operation in posts() {
        let large = format!(r#"{{"reason":"{}"}}"#, "x".repeat(70_000));
        for (content_type, body) in [
            ("application/json", r#"{"nonsense":1}"#),
            ("application/json", "{"),
            ("application/json", r#"{"actor":"a","changed_by":"b"}"#),
            ("text/xml", "<nonsense/>"),
            ("application/json", &large),
        ] {
            let answer = service.send(request(Method::POST, &operation.path("7"), Some(content_type), body)).await;
            let status = answer.status.as_u16();
            if !operation.documents(status) {
                wrong.push(format!("{} with {body:.40} answers {status}", operation.name()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
