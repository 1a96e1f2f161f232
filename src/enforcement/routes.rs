//! The one table of Holdfast's own routes: the class of each for the gate, and the scopes that its caller needs.
//!
//! A route without a row refuses every caller. Tests compare the table with the rules and with the `OpenAPI` document.

use crate::http::places::Share;
use crate::types::RouteClass;
use crate::types::Scope;
use axum::http::Method;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The scopes that a route needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// No scope: the route answers every caller.
    Nothing,
    /// A token with this scope, once there are tokens.
    Scope(Scope),
    /// A token with one of these: the party that opened a hold may close it, and so may an operator.
    Either(Scope, Scope),
}

impl Needs {
    /// The scopes of which one is enough; none if no scope is needed. A refusal names the first.
    pub fn scopes(self) -> impl Iterator<Item = Scope> {
        let (first, second) = match self {
            Self::Nothing => (None, None),
            Self::Scope(scope) => (Some(scope), None),
            Self::Either(first, second) => (Some(first), Some(second)),
        };
        first.into_iter().chain(second)
    }
}

/// One route of Holdfast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method; none if every method is accepted. The row of GET also serves HEAD.
    pub method: Option<Method>,
    /// The template as the router and the `OpenAPI` document write it.
    pub template: &'static str,
    /// The class that the rules give the route.
    pub class: RouteClass,
    /// The scopes that a caller needs.
    pub needs: Needs,
    /// The share of places that the route's requests use.
    pub share: Share,
}

/// The path of the counters.
pub const METRICS: &str = "/metrics";

/// The rows by template, which each request looks up.
static BY_TEMPLATE: LazyLock<HashMap<&str, Vec<&Route>>> = LazyLock::new(|| {
    let mut rows: HashMap<&str, Vec<&Route>> = HashMap::new();
    for row in ROUTES {
        rows.entry(row.template).or_default().push(row);
    }
    rows
});

/// The row of a route, by the template that the router matched; `None` if the table does not have it.
#[must_use]
pub fn route(method: &Method, template: &str) -> Option<&'static Route> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let rows = BY_TEMPLATE.get(template)?;
    rows.iter().copied().find(|row| row.method.as_ref().is_none_or(|wanted| wanted == method))
}

/// The scopes that a route needs, by the template that the router matched; `None` refuses every caller.
#[must_use]
pub fn needs_of(method: &Method, template: &str) -> Option<Needs> {
    route(method, template).map(|route| route.needs)
}

/// The methods of a template, as an `Allow` header lists them; empty if the table does not have it.
#[must_use]
pub fn methods(template: &str) -> Vec<&'static str> {
    let rows = BY_TEMPLATE.get(template).map(Vec::as_slice).unwrap_or_default();
    let mut methods = Vec::new();
    for method in rows.iter().filter_map(|row| row.method.as_ref()) {
        methods.push(method.as_str());
        if *method == Method::GET {
            methods.push(Method::HEAD.as_str());
        }
    }
    methods
}

const fn row(method: Option<Method>, template: &'static str, needs: Needs, share: Share) -> Route {
    Route { method, template, class: RouteClass::Exempt, needs, share }
}

const fn get(template: &'static str, scope: Scope) -> Route {
    row(Some(Method::GET), template, Needs::Scope(scope), Share::Read)
}

const fn post(template: &'static str, scope: Scope) -> Route {
    row(Some(Method::POST), template, Needs::Scope(scope), Share::Ordinary)
}

/// A route that closes a hold.
const fn closing(template: &'static str) -> Route {
    row(Some(Method::POST), template, Needs::Either(Scope::Reserve, Scope::Operate), Share::Ordinary)
}

const fn delete(template: &'static str, scope: Scope) -> Route {
    row(Some(Method::DELETE), template, Needs::Scope(scope), Share::Ordinary)
}

const fn any(template: &'static str, scope: Scope) -> Route {
    row(None, template, Needs::Scope(scope), Share::Ordinary)
}

/// A switch that tightens.
const fn switch(template: &'static str, scope: Scope) -> Route {
    row(Some(Method::POST), template, Needs::Scope(scope), Share::Switch)
}

/// A route that answers every caller.
const fn public(template: &'static str, share: Share) -> Route {
    row(Some(Method::GET), template, Needs::Nothing, share)
}

/// Every route of Holdfast. All are exempt: the switch must be readable and releasable while it blocks.
pub static ROUTES: &[Route] = {
    use Scope::{Admin, Kill, Measure, Operate, Proxy, Read, Recommend, Release, Reserve};
    &[
        // Go-live
        get("/api/governance/go-live/state", Read),
        get("/api/governance/go-live/checklist", Read),
        get("/api/governance/go-live/events", Read),
        get("/api/governance/go-live/packs", Read),
        post("/api/governance/go-live/packs", Operate),
        post("/api/governance/go-live/enable", Release),
        switch("/api/governance/go-live/disable", Operate),
        switch("/api/governance/go-live/kill-switch/engage", Kill),
        post("/api/governance/go-live/kill-switch/release", Release),
        // Risk
        get("/api/governance/risk/policies", Read),
        get("/api/governance/risk/policies/history", Read),
        post("/api/governance/risk/policies/upsert", Operate),
        post("/api/governance/risk/policies/remove", Operate),
        get("/api/governance/risk/ledger", Read),
        get("/api/governance/risk/ledger/today", Read),
        get("/api/governance/risk/reservations", Read),
        get("/api/governance/risk/reservations/{id}", Read),
        get("/api/governance/risk/events", Read),
        post("/api/governance/risk/check-and-reserve", Reserve),
        closing("/api/governance/risk/settle"),
        post("/api/governance/risk/reservations", Reserve),
        closing("/api/governance/risk/reservations/{id}/settle"),
        closing("/api/governance/risk/reservations/{id}/release"),
        post("/api/governance/risk/reservations/{id}/extend", Reserve),
        // Each operation in a batch needs the scopes of its own route.
        closing("/api/governance/risk/batch"),
        post("/api/governance/risk/adjustments", Operate),
        get("/api/governance/risk/reconciliation", Read),
        // Heimdall
        get("/api/governance/heimdall/policies", Read),
        get("/api/governance/heimdall/policies/history", Read),
        post("/api/governance/heimdall/policies/upsert", Operate),
        post("/api/governance/heimdall/policies/remove", Operate),
        post("/api/governance/heimdall/promote", Release),
        post("/api/governance/heimdall/demote", Operate),
        get("/api/governance/heimdall/scorecard/today", Read),
        get("/api/governance/heimdall/scorecards", Read),
        post("/api/governance/heimdall/sandbox/trial", Measure),
        post("/api/governance/heimdall/recommend", Recommend),
        get("/api/governance/heimdall/recommendations", Read),
        get("/api/governance/heimdall/recommendations/{id}", Read),
        post("/api/governance/heimdall/recommendations/{id}/require-prod-eligible", Reserve),
        post("/api/governance/heimdall/recommendations/{id}/revoke", Operate),
        get("/api/governance/heimdall/events", Read),
        // Regression
        get("/api/governance/regression/policies", Read),
        get("/api/governance/regression/policies/history", Read),
        post("/api/governance/regression/policies/upsert", Operate),
        post("/api/governance/regression/policies/remove", Operate),
        get("/api/governance/regression/state", Read),
        post("/api/governance/regression/evaluate", Operate),
        get("/api/governance/regression/kpi", Read),
        post("/api/governance/regression/kpi", Measure),
        post("/api/governance/regression/kpi/batch", Measure),
        post("/api/governance/regression/kind", Operate),
        post("/api/governance/regression/acknowledge", Operate),
        post("/api/governance/regression/rearm", Release),
        post("/api/governance/regression/baseline/reset", Release),
        get("/api/governance/regression/baselines", Read),
        row(Some(Method::POST), "/api/governance/regression/backtest", Needs::Scope(Read), Share::Read),
        get("/api/governance/regression/trips", Read),
        // Audit
        get("/api/governance/audit/verify", Read),
        get("/api/governance/audit/events", Read),
        get("/api/governance/audit/as-of", Read),
        get("/api/governance/audit/checkpoint", Read),
        // Access
        get("/api/governance/access/tokens", Admin),
        post("/api/governance/access/tokens", Admin),
        delete("/api/governance/access/tokens/{id}", Admin),
        get("/api/governance/approvals", Read),
        get("/api/governance/approvals/{id}", Read),
        post("/api/governance/approvals/{id}/approve", Release),
        row(
            Some(Method::POST),
            "/api/governance/approvals/{id}/reject",
            Needs::Either(Operate, Release),
            Share::Ordinary,
        ),
        // Review
        get("/api/governance/review", Read),
        // Enforcement
        get("/api/governance/instances", Read),
        any("/api/governance/authz/nginx", Proxy),
        any("/api/governance/authz/traefik", Proxy),
        any("/api/governance/authz/envoy/", Proxy),
        any("/api/governance/authz/envoy/{*path}", Proxy),
        post("/ofrep/v1/evaluate/flags", Proxy),
        post("/ofrep/v1/evaluate/flags/{key}", Proxy),
        // Outside the base path
        public("/health", Share::Probe),
        public("/livez", Share::Probe),
        public("/readyz", Share::Probe),
        // The counters reveal facts about the business; a loopback listener may waive the token.
        row(Some(Method::GET), METRICS, Needs::Scope(Read), Share::Probe),
        public("/openapi.json", Share::Read),
        public("/docs", Share::Read),
        public("/docs/", Share::Read),
        public("/docs/{*rest}", Share::Read),
        get("/", Read),
    ]
};

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::*;

    #[test]
    fn every_row_has_the_class_that_the_gate_gives_its_path() {
        let rules = Rules::default();
        for row in ROUTES {
            let path = row
                .template
                .replace("{id}", "7")
                .replace("{key}", "x")
                .replace("{*rest}", "a.css")
                .replace("{*path}", "x");
            let given = rules.classify(row.method.as_ref().unwrap_or(&Method::PUT), &path);
            assert_eq!(given, row.class, "{:?} {path}", row.method);
        }
    }

    #[test]
    fn no_route_has_two_rows() {
        for row in ROUTES {
            let found = route(row.method.as_ref().unwrap_or(&Method::PUT), row.template).expect("a row");
            assert!(std::ptr::eq(found, row), "{:?} {}", row.method, row.template);
        }
    }

    #[test]
    fn scopes_are_found_by_template_and_unknown_routes_have_none() {
        let one = "/api/governance/risk/reservations/{id}";
        let engage = "/api/governance/go-live/kill-switch/engage";
        let nginx = "/api/governance/authz/nginx";
        assert_eq!(needs_of(&Method::GET, one), Some(Needs::Scope(Scope::Read)));
        assert_eq!(needs_of(&Method::HEAD, one), Some(Needs::Scope(Scope::Read)));
        assert_eq!(needs_of(&Method::POST, engage), Some(Needs::Scope(Scope::Kill)));
        assert_eq!(needs_of(&Method::PATCH, nginx), Some(Needs::Scope(Scope::Proxy)));
        assert_eq!(needs_of(&Method::POST, one), None);
        assert_eq!(needs_of(&Method::HEAD, engage), None);
        assert_eq!(needs_of(&Method::GET, "/api/governance/risk/reservations/7"), None);
    }
}
