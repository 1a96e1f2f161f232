//! What a request is allowed to do to the world: its execution class, and the scope a caller needs.
//!
//! `RULES` decide the class of any path, also of services that Holdfast knows only by path. [`ROUTES`] is the one
//! table of Holdfast's own routes; a route without a row has no scope, so it is open to nobody. Tests tie the two
//! together, and tie the table to the `OpenAPI` document.
//!
//! Invariants:
//! - Paths are canonical ([`super::path::canonical`]) and are compared byte by byte, a whole segment at a time:
//!   `/api/governanceX` is not below `/api/governance`, and `/healthz` is not `/health`.
//! - The most specific rule wins. No rule means `PROD_EXEC`, the class that is blocked first.
//! - Only the path is read: never the query, never a header, so no override or rewrite header can move a request.
//! - "Exempt" means "not blocked by the switch", not "public": scopes hold there as everywhere.
//!
//! Absent on purpose: rules that name a method or a parameter. None of today's needs one.

use axum::http::Method;
use serde::Serialize;

/// How far a request reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionClass {
    /// Reads.
    ObserveOnly,
    /// Acts inside the sandbox.
    SandboxExec,
    /// Acts on the world: money, messages, contracts. Also everything unknown.
    ProdExec,
}

impl ExecutionClass {
    /// The name in bodies, headers and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ObserveOnly => "OBSERVE_ONLY",
            Self::SandboxExec => "SANDBOX_EXEC",
            Self::ProdExec => "PROD_EXEC",
        }
    }
}

/// What the gate makes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteClass {
    /// Never blocked by the switch: the control plane itself, which must answer to release it.
    Exempt,
    /// Blocked as the table in [`super::gate::decide`] says.
    Class(ExecutionClass),
}

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
    /// The method. HEAD is answered by the row of GET.
    pub method: Method,
    /// The template as the router and the `OpenAPI` document write it.
    pub template: &'static str,
    /// What the gate makes of it; [`classify`] agrees.
    pub class: RouteClass,
    /// What a caller needs.
    pub scope: Scope,
}

/// What a rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The path itself. A trailing slash is another path.
    Exact,
    /// The path and all below it.
    Subtree,
}

/// One rule: a path and its class.
struct Rule {
    path: &'static str,
    reach: Reach,
    class: RouteClass,
}

const EXEMPT: RouteClass = RouteClass::Exempt;
const SANDBOX: RouteClass = RouteClass::Class(ExecutionClass::SandboxExec);
const PROD: RouteClass = RouteClass::Class(ExecutionClass::ProdExec);

const fn exact(path: &'static str, class: RouteClass) -> Rule {
    Rule { path, reach: Reach::Exact, class }
}

const fn subtree(path: &'static str, class: RouteClass) -> Rule {
    Rule { path, reach: Reach::Subtree, class }
}

/// Longest path first. The rules that cover one path are prefixes of each other, so the first that does is the most
/// specific.
const RULES: &[Rule] = &[
    subtree("/api/governance", EXEMPT),
    subtree("/api/followups", PROD),
    exact("/openapi.json", EXEMPT),
    subtree("/api/capital", PROD),
    subtree("/api/sandbox", SANDBOX),
    subtree("/api/alerts", PROD),
    subtree("/api/buyers", PROD),
    subtree("/api/intake", PROD),
    subtree("/api/notify", PROD),
    subtree("/api/deals", PROD),
    subtree("/console", EXEMPT),
    exact("/metrics", EXEMPT),
    exact("/health", EXEMPT),
    exact("/readyz", EXEMPT),
    exact("/livez", EXEMPT),
    subtree("/ofrep", EXEMPT),
    subtree("/docs", EXEMPT),
    exact("/", EXEMPT),
];

const _: () = {
    let mut next = 1;
    while next < RULES.len() {
        assert!(RULES[next - 1].path.len() >= RULES[next].path.len(), "RULES go from the longest path to the shortest");
        next += 1;
    }
};

/// The class of a request by its canonical path, whatever the method: HEAD, OPTIONS and methods nobody has heard of are
/// no lighter than GET. The method is here because rules map method and path, even if none of today's names one.
#[must_use]
pub fn classify(_method: &Method, canonical_path: &str) -> RouteClass {
    RULES.iter().find(|rule| rule.covers(canonical_path)).map_or(PROD, |rule| rule.class)
}

impl Rule {
    fn covers(&self, path: &str) -> bool {
        let Some(rest) = path.as_bytes().strip_prefix(self.path.as_bytes()) else {
            return false;
        };
        match self.reach {
            Reach::Exact => rest.is_empty(),
            // The boundary: the name ends here, or its segment does.
            Reach::Subtree => rest.first().is_none_or(|next| *next == b'/'),
        }
    }
}

/// The row of a route, by the template the router matched; `None` for a route the table does not know.
#[must_use]
pub fn route(method: &Method, template: &str) -> Option<&'static Route> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|route| route.method == *method && route.template == template)
}

/// The scope of a route, by the template the router matched; `None` means nobody may call it.
#[must_use]
pub fn scope_of(method: &Method, template: &str) -> Option<Scope> {
    route(method, template).map(|route| route.scope)
}

const fn get(template: &'static str, scope: Scope) -> Route {
    Route { method: Method::GET, template, class: EXEMPT, scope }
}

const fn post(template: &'static str, scope: Scope) -> Route {
    Route { method: Method::POST, template, class: EXEMPT, scope }
}

/// Every route of Holdfast. All are exempt: the switch must be readable and releasable while it blocks.
pub static ROUTES: &[Route] = {
    use Scope::{Evidence, Kill, Operate, Public, Read, Release, Reserve};
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
        // Review
        get("/api/governance/review", Read),
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
    use super::*;

    /// The class of a path, for GET.
    fn class(path: &str) -> RouteClass {
        classify(&Method::GET, path)
    }

    #[test]
    fn every_row_has_the_class_that_the_gate_gives_its_path() {
        for row in ROUTES {
            let path = row.template.replace("{id}", "7").replace("{*rest}", "a.css");
            let given = classify(&row.method, &path);
            assert_eq!(given, row.class, "{} {path}", row.method);
        }
    }

    #[test]
    fn no_route_has_two_rows() {
        for row in ROUTES {
            let found = route(&row.method, row.template).expect("a row");
            assert!(std::ptr::eq(found, row), "{} {}", row.method, row.template);
        }
    }

    #[test]
    fn exempt_subtrees_end_at_a_segment_boundary() {
        for name in ["/api/governance", "/docs", "/console", "/ofrep"] {
            for below in ["", "/", "/x", "/x/y/", "/%64"] {
                assert_eq!(class(&format!("{name}{below}")), EXEMPT, "{name}{below}");
            }
            for beside in ["X", "-evil", "-evil/x", "s", ".json", "%20", "_", ":x"] {
                assert_eq!(class(&format!("{name}{beside}")), PROD, "{name}{beside}");
            }
            assert_eq!(class(&format!("/x{name}")), PROD);
        }
    }

    #[test]
    fn exact_exemptions_cover_nothing_else() {
        for name in "/health /livez /readyz /metrics /openapi.json".split(' ') {
            assert_eq!(class(name), EXEMPT, "{name}");
            for beside in ["/", "/x", "z", "-x", "%20", ".json"] {
                assert_eq!(class(&format!("{name}{beside}")), PROD, "{name}{beside}");
            }
            assert_eq!(class(&name.to_uppercase()), PROD, "{name}");
        }
        assert_eq!(class("/"), EXEMPT);
    }

    #[test]
    fn the_default_rules_hold_below_their_segment() {
        // Unknown is PROD_EXEC too: only the table itself tells a missing rule.
        for name in "deals intake buyers capital alerts notify followups".split(' ') {
            let path = format!("/api/{name}");
            let rule = RULES.iter().find(|rule| rule.path == path).expect(name);
            assert_eq!((rule.reach, rule.class), (Reach::Subtree, PROD), "{name}");
            assert!(rule.covers(&format!("{path}/7/offers")), "{name}");
        }
        assert_eq!(class("/api/sandbox"), SANDBOX);
        assert_eq!(class("/api/sandbox/runs"), SANDBOX);
    }

    #[test]
    fn unknown_paths_are_prod_exec_for_every_method() {
        const PATHS: &str = "/api /api/ /api/sandboxes /API/sandbox /api/s%61ndbox /docs.html /x";
        for path in PATHS.split(' ') {
            for method in "GET HEAD OPTIONS TRACE CONNECT PATCH PROPFIND get".split(' ') {
                let method = Method::from_bytes(method.as_bytes()).expect("a method");
                assert_eq!(classify(&method, path), PROD, "{method} {path}");
            }
        }
    }

    #[test]
    fn names_agree_with_the_serialised_form() {
        use ExecutionClass::{ObserveOnly, ProdExec, SandboxExec};
        for class in [ObserveOnly, SandboxExec, ProdExec] {
            let name = serde_json::to_value(class).expect("a string");
            assert_eq!(name, class.as_str());
        }
    }

    #[test]
    fn scopes_are_found_by_template_and_unknown_routes_have_none() {
        let one = "/api/governance/risk/reservations/{id}";
        let engage = "/api/governance/go-live/kill-switch/engage";
        assert_eq!(scope_of(&Method::GET, one), Some(Scope::Read));
        assert_eq!(scope_of(&Method::HEAD, one), Some(Scope::Read));
        assert_eq!(scope_of(&Method::POST, engage), Some(Scope::Kill));
        assert_eq!(scope_of(&Method::POST, one), None);
        assert_eq!(scope_of(&Method::HEAD, engage), None);
        assert_eq!(scope_of(&Method::GET, "/api/governance/risk/reservations/7"), None);
    }
}
