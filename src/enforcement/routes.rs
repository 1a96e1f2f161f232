//! The one table of Holdfast's own routes: what the gate makes of each, and what its caller needs.
//!
//! A route without a row has no scope, so it is open to nobody. Tests tie the table to the rules and to the `OpenAPI` document.

use super::class::RouteClass;
use axum::http::Method;

/// What a caller's token must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// No token needed.
    Public,
    /// Reads.
    Read,
    /// Reserve, settle, release, extend, require.
    Reserve,
    /// KPI events, trials, recommendations: apart, so that an AI cannot grade itself.
    Evidence,
    /// Disable, acknowledge, and policies; loosening one needs [`Scope::Release`] as well.
    Operate,
    /// Enable, kill-switch release, and every loosening.
    Release,
    /// Forward-auth and OFREP.
    Proxy,
    /// Tokens.
    Admin,
    /// Engage, and nothing else. Whoever holds [`Scope::Operate`] may engage, too.
    Kill,
}

/// One route of Holdfast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The method; none where any will do. HEAD is answered by the row of GET.
    pub method: Option<Method>,
    /// The template as the router and the `OpenAPI` document write it.
    pub template: &'static str,
    /// What the gate makes of it, as the rules say.
    pub class: RouteClass,
    /// What a caller needs.
    pub scope: Scope,
}

/// The row of a route, by the template the router matched; `None` for a route the table does not know.
#[must_use]
pub fn route(method: &Method, template: &str) -> Option<&'static Route> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|row| row.template == template && row.method.as_ref().is_none_or(|wanted| wanted == method))
}

/// The scope of a route, by the template the router matched; `None` means nobody may call it.
#[must_use]
pub fn scope_of(method: &Method, template: &str) -> Option<Scope> {
    route(method, template).map(|route| route.scope)
}

const fn get(template: &'static str, scope: Scope) -> Route {
    Route { method: Some(Method::GET), template, class: RouteClass::Exempt, scope }
}

const fn post(template: &'static str, scope: Scope) -> Route {
    Route { method: Some(Method::POST), template, class: RouteClass::Exempt, scope }
}

const fn any(template: &'static str, scope: Scope) -> Route {
    Route { method: None, template, class: RouteClass::Exempt, scope }
}

/// Every route of Holdfast. All are exempt: the switch must be readable and releasable while it blocks.
pub static ROUTES: &[Route] = {
    use Scope::{Evidence, Kill, Operate, Proxy, Public, Read, Release, Reserve};
    &[
        // Go-live
        get("/api/governance/go-live/state", Read),
        get("/api/governance/go-live/checklist", Read),
        get("/api/governance/go-live/events", Read),
        get("/api/governance/go-live/packs", Read),
        post("/api/governance/go-live/packs", Operate),
        post("/api/governance/go-live/enable", Release),
        post("/api/governance/go-live/disable", Operate),
        post("/api/governance/go-live/kill-switch/engage", Kill),
        post("/api/governance/go-live/kill-switch/release", Release),
        // Risk
        get("/api/governance/risk/policies", Read),
        post("/api/governance/risk/policies/upsert", Operate),
        get("/api/governance/risk/ledger/today", Read),
        get("/api/governance/risk/reservations", Read),
        get("/api/governance/risk/reservations/{id}", Read),
        get("/api/governance/risk/events", Read),
        post("/api/governance/risk/check-and-reserve", Reserve),
        post("/api/governance/risk/settle", Reserve),
        post("/api/governance/risk/reservations", Reserve),
        post("/api/governance/risk/reservations/{id}/settle", Reserve),
        post("/api/governance/risk/reservations/{id}/release", Reserve),
        post("/api/governance/risk/reservations/{id}/extend", Reserve),
        // A batch may hold corrections, so it takes what they take.
        post("/api/governance/risk/batch", Operate),
        post("/api/governance/risk/adjustments", Operate),
        get("/api/governance/risk/reconciliation", Read),
        // Heimdall
        get("/api/governance/heimdall/policies", Read),
        post("/api/governance/heimdall/policies/upsert", Operate),
        get("/api/governance/heimdall/scorecard/today", Read),
        post("/api/governance/heimdall/sandbox/trial", Evidence),
        post("/api/governance/heimdall/recommend", Evidence),
        get("/api/governance/heimdall/recommendations", Read),
        get("/api/governance/heimdall/recommendations/{id}", Read),
        post("/api/governance/heimdall/recommendations/{id}/require-prod-eligible", Reserve),
        get("/api/governance/heimdall/events", Read),
        // Regression
        get("/api/governance/regression/policies", Read),
        post("/api/governance/regression/policies/upsert", Operate),
        get("/api/governance/regression/state", Read),
        post("/api/governance/regression/evaluate", Operate),
        get("/api/governance/regression/kpi", Read),
        post("/api/governance/regression/kpi", Evidence),
        get("/api/governance/regression/trips", Read),
        // Audit
        get("/api/governance/audit/verify", Read),
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
        get("/health", Public),
        get("/livez", Public),
        get("/readyz", Public),
        // Counters tell about the business; a loopback listener may waive the token.
        get("/metrics", Read),
        get("/openapi.json", Public),
        get("/docs", Public),
        get("/docs/", Public),
        get("/docs/{*rest}", Public),
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
        assert_eq!(scope_of(&Method::GET, one), Some(Scope::Read));
        assert_eq!(scope_of(&Method::HEAD, one), Some(Scope::Read));
        assert_eq!(scope_of(&Method::POST, engage), Some(Scope::Kill));
        assert_eq!(scope_of(&Method::PATCH, nginx), Some(Scope::Proxy));
        assert_eq!(scope_of(&Method::POST, one), None);
        assert_eq!(scope_of(&Method::HEAD, engage), None);
        assert_eq!(scope_of(&Method::GET, "/api/governance/risk/reservations/7"), None);
    }
}
