//! The rights of callers.

mod bounds;
mod charters;
mod grading;
mod matrix;
mod open;
pub mod reach;
mod small;
mod tokens;
mod wires;

use crate::support::{Answer, Service, request};
use axum::http::{HeaderValue, Method};
use holdfast::access;
use holdfast::access::model::NewToken;
use holdfast::audit::Origin;
use serde_json::Value;

/// A token for a test.
pub fn new(scopes: &str) -> NewToken {
    NewToken {
        name: "test-token".parse().unwrap(),
        owner: None,
        scopes: scopes.split(',').map(|scope| scope.parse().unwrap()).collect(),
        engines: None,
        domains: None,
        expires_in: None,
        rate_per_second: None,
        max_loss: None,
    }
}

/// Creates a token behind the service's back, as the shell does, and waits until the service knows.
pub async fn create(service: &Service, new: NewToken) -> String {
    let created = access::create(&service.db, &new, None, None, &Origin::system(None)).await.unwrap();
    refresh(service).await;
    created.token
}

pub async fn token(service: &Service, scopes: &str) -> String {
    create(service, new(scopes)).await
}

pub async fn refresh(service: &Service) {
    service.app.feed.refresh(&service.db).await.unwrap();
}

/// A request with a token.
#[track_caller]
pub fn call(
    service: &Service,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: &Value,
) -> impl Future<Output = Answer> + use<> {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let content_type = (!body.is_null()).then_some("application/json");
    let mut request = request(method, path, content_type, &text);
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert("authorization", value);
    }
    service.send(request)
}
