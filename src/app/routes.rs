//! Collects the routes of every part.

use super::{App, health};
use crate::http::BASE_PATH;
use crate::{access, approve, enforcement, go_live, heimdall, regression, review, risk, trail};
use utoipa_axum::router::OpenApiRouter;

/// The routes of one part. They are bound to its service, if one is given; without one they serve the OpenAPI document.
fn part<S: Clone + Send + Sync + 'static>(router: OpenApiRouter<S>, service: Option<S>) -> OpenApiRouter {
    match service {
        Some(service) => router.with_state(service),
        None => OpenApiRouter::with_openapi(router.into_openapi()),
    }
}

/// All routes with their documentation; without an app the documentation alone.
pub(super) fn routes(app: Option<&App>) -> OpenApiRouter {
    let governance = OpenApiRouter::new()
        .merge(part(go_live::http::router(), app.map(|app| app.go_live.clone())))
        .merge(part(risk::http::router(), app.map(|app| app.risk.clone())))
        .merge(part(heimdall::http::router(), app.map(|app| app.heimdall.clone())))
        .merge(part(regression::http::router(), app.map(|app| app.regression.clone())))
        .merge(part(review::http::router(), app.map(App::review)))
        .merge(part(enforcement::http::router(), app.map(|app| app.db.clone())))
        .merge(part(trail::http::router(), app.map(|app| app.trail.clone())))
        .merge(part(access::http::router(), app.map(|app| app.access.clone())))
        .merge(part(approve::http::router(), app.map(App::approve)));
    OpenApiRouter::new()
        .nest(BASE_PATH, governance)
        .merge(part(enforcement::http::absolute(), app.map(App::outside)))
        .merge(part(health::router(), app.cloned()))
}
