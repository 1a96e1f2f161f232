//! Every POST route with an input that it takes.

use super::{DISABLE, ENGAGE, Post};
use crate::support::BASE;
use axum::http::Method;
use holdfast::enforcement::routes::ROUTES;

const ACTOR: (&str, &str) = ("actor", r#""Bryan & Åsa = 100 %""#);
const REASON: (&str, &str) = ("reason", r#""why? a+b; \"c\" #1""#);
const CORRELATION: (&str, &str) = ("correlation_id", r#""deal/7""#);

/// Every POST route, in an order in which each of them works on a live service.
pub(super) const POSTS: &[Post] = &[
    Post {
        template: "/go-live/packs",
        fields: &[
            ("id", r#""CRM""#),
            ("status", r#""installed""#),
            ("name", r#""Customers & co""#),
            ("version", "1.0"),
            ACTOR,
            REASON,
        ],
        number: None,
        needs_a_field: true,
    },
    Post { template: "/go-live/enable", fields: &[ACTOR, REASON], number: None, needs_a_field: true },
    // Of a fresh install, these three are off and were never used.
    Post {
        template: "/risk/policies/remove",
        fields: &[("engine", r#"" notify ""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/policies/remove",
        fields: &[("domain", r#""Capital_Route""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/policies/remove",
        fields: &[("domain", r#""Buyer_Match""#), ("metric", r#""match_success""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/risk/policies/upsert",
        fields: &[
            ("engine", r#"" deals ""#),
            ("max_daily_loss", "250.50"),
            ("max_daily_exposure", r#""1500.000001""#),
            ("max_open_risk", "1e3"),
            ("max_actions_per_day", "10"),
            ("enabled", "true"),
            ("allow_unlimited", "false"),
            ACTOR,
            REASON,
        ],
        number: Some("max_daily_loss"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/check-and-reserve",
        fields: &[
            ("engine", r#""DEALS""#),
            ("amount", "400.000001"),
            ("metadata", r#"{"b":1.50,"a":["x&y",{"c":null}]}"#),
            ("ttl_seconds", r#""3600""#),
            ("dry_run", r#""no""#),
            ACTOR,
            REASON,
            CORRELATION,
        ],
        number: Some("amount"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/settle",
        fields: &[
            ("engine", r#""deals""#),
            ("reserved_amount", "400.000001"),
            ("settled_amount", r#""100""#),
            ("realized_loss", "0.5"),
            ACTOR,
            REASON,
            CORRELATION,
        ],
        number: Some("realized_loss"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations",
        fields: &[
            ("engine", r#""DEALS""#),
            ("amount", "5"),
            ("ttl_seconds", "60"),
            ("reservation_id", r#""0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5e""#),
            ACTOR,
            REASON,
        ],
        number: Some("amount"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations/{id}/extend",
        fields: &[("ttl_seconds", r#""120""#), ("engine", r#""deals""#), ACTOR, REASON, CORRELATION],
        number: Some("ttl_seconds"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations/{id}/release",
        fields: &[("engine", r#""deals""#), ACTOR, REASON, CORRELATION],
        number: None,
        needs_a_field: false,
    },
    Post {
        template: "/risk/batch",
        fields: &[(
            "operations",
            r#"[{"op":"reserve","engine":"deals","amount":1.50,"reservation_id":"0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5f"},{"op":"settle"}]"#,
        )],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations/{id}/settle",
        fields: &[("settled_amount", "1.25"), ("realized_loss", r#""0.5""#), ACTOR, REASON, CORRELATION],
        number: Some("realized_loss"),
        needs_a_field: false,
    },
    Post {
        template: "/risk/adjustments",
        fields: &[("corrects_seq", "1"), ("loss_delta", r#""0.5""#), ACTOR, REASON, CORRELATION],
        // It may be negative, which the table of unacceptable numbers does not know.
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/policies/upsert",
        fields: &[
            ("domain", r#""Routing""#),
            ("min_confidence_prod", "0.5"),
            ("min_sandbox_trials", "1"),
            ("min_sandbox_success_rate", r#""0.25""#),
            ("prod_use_enabled", "1"),
            ("engine", r#""deals""#),
            ("recommendation_ttl_seconds", "3600"),
            ("single_use", r#""yes""#),
            ("scorecard_window", r#""ROLLING_DAYS""#),
            ("window_days", r#""7""#),
            ("gate_rule", r#""POINT""#),
            ("approved_model_version", r#""v2 & later""#),
            ("calibration_gate", "false"),
            ACTOR,
            REASON,
        ],
        number: Some("min_confidence_prod"),
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/sandbox/trial",
        fields: &[
            ("domain", r#""routing""#),
            ("model_version", r#"" v2 & later ""#),
            ("confidence", "0.7300000000000001"),
            ("success", r#""on""#),
            ACTOR,
            CORRELATION,
        ],
        number: Some("confidence"),
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/recommend",
        fields: &[
            ("domain", r#""ROUTING""#),
            ("model_version", r#""v2 & later""#),
            ("confidence", "0.9"),
            ("recommendation", r#"{"route":"A&B","weight":1.10}"#),
            ("evidence", "{}"),
            ACTOR,
            CORRELATION,
        ],
        number: Some("confidence"),
        needs_a_field: true,
    },
    Post {
        // The trial is the first event of its stream, the recommendation the second.
        template: "/heimdall/recommendations/{id}/require-prod-eligible",
        fields: &[ACTOR, REASON, CORRELATION],
        number: None,
        needs_a_field: false,
    },
    Post {
        template: "/heimdall/recommendations/{id}/revoke",
        fields: &[ACTOR, REASON, CORRELATION],
        number: None,
        needs_a_field: false,
    },
    Post {
        template: "/heimdall/demote",
        fields: &[("domain", r#""Routing""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        // The one trial is all that is asked for.
        template: "/heimdall/promote",
        fields: &[("domain", r#""Routing""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/policies/upsert",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""Close_Rate""#),
            ("window_events", "5"),
            ("baseline_events", r#""5""#),
            ("min_events_to_enforce", "5"),
            ("max_drop_fraction", "0.25"),
            ("action", r#""THROTTLE""#),
            ("engine", r#""deals""#),
            ("enabled", "true"),
            ACTOR,
            REASON,
        ],
        number: Some("max_drop_fraction"),
        needs_a_field: true,
    },
    Post {
        template: "/regression/kpi",
        fields: &[
            ("domain", r#""DEALS""#),
            ("metric", r#""close_rate""#),
            ("success", "true"),
            ("detail", r#""closed & signed""#),
            ("event_id", r#""e-1""#),
            ACTOR,
            CORRELATION,
        ],
        number: Some("success"),
        needs_a_field: true,
    },
    Post {
        template: "/regression/evaluate",
        fields: &[("domain", r#""deals""#), ("metric", r#""close_rate""#), ACTOR],
        number: None,
        needs_a_field: true,
    },
    // With the one before, five good ones and five bad: the wire trips.
    Post {
        template: "/regression/kpi/batch",
        fields: &[
            (
                "events",
                r#"[{"domain":"deals","metric":"close_rate","success":"yes","event_id":"e-1"},{"domain":"DEALS","metric":"close_rate","success":true},{"domain":"DEALS","metric":"close_rate","success":true},{"domain":"DEALS","metric":"close_rate","success":true,"actor":"a & b"},{"domain":"DEALS","metric":"close_rate","success":true},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","value":1}]"#,
            ),
            ACTOR,
            CORRELATION,
        ],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/backtest",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""close_rate""#),
            ("window_events", "2"),
            ("min_events_to_enforce", "2"),
            ("detector", r#""SEQUENTIAL""#),
            ("from", r#""2020-01-01T00:00:00Z""#),
            ("shuffles", "3"),
        ],
        number: Some("shuffles"),
        needs_a_field: true,
    },
    Post {
        template: "/regression/acknowledge",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""close_rate""#),
            ("verdict", r#""TRUE_REGRESSION""#),
            ACTOR,
            REASON,
        ],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/kind",
        fields: &[("domain", r#""deals""#), ("metric", r#""new""#), ("kind", r#""BOOLEAN""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/rearm",
        fields: &[("domain", r#""deals""#), ("metric", r#""close_rate""#), ("baseline", r#""KEEP""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/baseline/reset",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""close_rate""#),
            ("source", r#""NEXT_N""#),
            ("force", r#""no""#),
            ACTOR,
            REASON,
        ],
        number: None,
        needs_a_field: true,
    },
    Post { template: DISABLE, fields: &[ACTOR, REASON], number: None, needs_a_field: false },
    Post { template: ENGAGE, fields: &[ACTOR, REASON], number: None, needs_a_field: false },
    Post { template: "/go-live/kill-switch/release", fields: &[ACTOR, REASON], number: None, needs_a_field: false },
];

#[test]
fn the_table_of_these_tests_holds_every_post_route() {
    // Flags are asked for with POST; nothing of it is input. No two answers of a token are alike, and
    // an approval and its rejection need one that waits: tests/api/access, tests/api/approval.
    let mut known: Vec<_> = ROUTES
        .iter()
        .filter(|route| route.method == Some(Method::POST) && route.template.starts_with(BASE))
        .filter(|route| {
            !route.template.ends_with("/access/tokens") && !route.template.starts_with("/api/governance/approvals/")
        })
        .map(|route| route.template)
        .collect();
    let mut tested: Vec<_> = POSTS.iter().map(|post| format!("{BASE}{}", post.template)).collect();
    known.sort_unstable();
    tested.sort_unstable();
    assert_eq!(tested, known);
}
