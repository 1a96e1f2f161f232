//! The finished routers.

use super::routes::routes;
use super::{App, Service, health, openapi};
use crate::error::Error;

impl App {
    /// The whole service, behind the stack and the gate: every route, the documents, and an error body for every other
    /// path.
    #[must_use]
    pub fn router(&self) -> Service {
        let (router, _) = routes(Some(self)).split_for_parts();
        let router = router
            .merge(openapi::router())
            .fallback(|| async { Error::RouteNotFound })
            .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
            .layer(self.guard.clone());
        self.serve(router)
    }

    /// The counters and the probes alone, without the guard, for a second listener that needs no token.
    #[must_use]
    pub fn metrics_router(&self) -> Service {
        let (router, _) = health::router().split_for_parts();
        self.serve(router.fallback(|| async { Error::RouteNotFound }).with_state(self.clone()))
    }
}
