//! Denials: every reason with its scope and text, how they are counted, and the event of each.

use super::{Step, counters, decision, run, today, upsert};
use crate::support::Service;
use serde_json::{Value, json};

struct Denied {
    setup: &'static [Step],
    engine: &'static str,
    amount: &'static str,
    reason: &'static str,
    scope: &'static str,
    message: &'static str,
}

const UPSERT: &str = "/risk/policies/upsert";

const DENIED: &[Denied] = &[
    Denied {
        setup: &[Step::Post("/go-live/kill-switch/engage", "{}")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "kill_switch_engaged",
        scope: "SYSTEM",
        message: "SYSTEM hard stop: Kill switch engaged",
    },
    Denied {
        setup: &[Step::Post("/go-live/disable", r#"{"actor":"test"}"#)],
        engine: "WHOLESALE",
        amount: "1",
        reason: "go_live_disabled",
        scope: "SYSTEM",
        message: "SYSTEM hard stop: Go-live disabled",
    },
    Denied {
        setup: &[Step::Sql("DELETE FROM risk_policy WHERE engine = 'GLOBAL'")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "policy_missing",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Policy missing",
    },
    Denied {
        setup: &[],
        engine: "NOBODY",
        amount: "1",
        reason: "policy_missing",
        scope: "NOBODY",
        message: "NOBODY hard stop: Policy missing",
    },
    Denied {
        setup: &[Step::Post(UPSERT, r#"{"engine":"GLOBAL","enabled":false}"#)],
        engine: "WHOLESALE",
        amount: "1",
        reason: "policy_disabled",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Policy disabled",
    },
    Denied {
        setup: &[],
        engine: "NOTIFY",
        amount: "1",
        reason: "policy_disabled",
        scope: "NOTIFY",
        message: "NOTIFY hard stop: Policy disabled",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"GLOBAL","max_actions_per_day":3}"#),
            Step::Reserve("WHOLESALE", "1"),
            Step::Reserve("CAPITAL", "1"),
            Step::Reserve("WHOLESALE", "1"),
        ],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_actions_exceeded",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Actions/day cap exceeded (4 > 3)",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"WHOLESALE","max_actions_per_day":3}"#),
            Step::Reserve("WHOLESALE", "1"),
            Step::Reserve("WHOLESALE", "1"),
            Step::Lose("WHOLESALE", "0"),
        ],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_actions_exceeded",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Actions/day cap exceeded (4 > 3)",
    },
    Denied {
        setup: &[Step::Reserve("WHOLESALE", "1000")],
        engine: "CAPITAL",
        amount: "600",
        reason: "daily_exposure_exceeded",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Daily exposure cap exceeded (1600 > 1500)",
    },
    Denied {
        setup: &[Step::Reserve("WHOLESALE", "600.5")],
        engine: "WHOLESALE",
        amount: "500",
        reason: "daily_exposure_exceeded",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Daily exposure cap exceeded (1100.5 > 1000)",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"GLOBAL","max_daily_exposure":0,"allow_unlimited":true}"#),
            Step::Reserve("WHOLESALE", "1000"),
        ],
        engine: "CAPITAL",
        amount: "600",
        reason: "open_risk_exceeded",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Open risk cap exceeded (1600 > 1500)",
    },
    Denied {
        setup: &[
            Step::Post(UPSERT, r#"{"engine":"WHOLESALE","max_daily_exposure":5000}"#),
            Step::Reserve("WHOLESALE", "1000"),
        ],
        engine: "WHOLESALE",
        amount: "100",
        reason: "open_risk_exceeded",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Open risk cap exceeded (1100 > 1000)",
    },
    Denied {
        setup: &[Step::Lose("WHOLESALE", "100"), Step::Lose("CAPITAL", "150")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_loss_reached",
        scope: "GLOBAL",
        message: "GLOBAL hard stop: Daily loss cap already reached (250 >= 250)",
    },
    Denied {
        setup: &[Step::Lose("WHOLESALE", "200.25")],
        engine: "WHOLESALE",
        amount: "1",
        reason: "daily_loss_reached",
        scope: "WHOLESALE",
        message: "WHOLESALE hard stop: Daily loss cap already reached (200.25 >= 200)",
    },
];

#[tokio::test]
async fn every_denial_has_its_reason_scope_and_text_and_moves_no_counter() {
    for case in DENIED {
        let service = Service::live().await;
        for step in case.setup {
            run(&service, step).await;
        }
        let (counters_before, policies) = (counters(&service).await, service.get("/risk/policies").await.text);
        let answer = service.reserve(case.engine, case.amount).await;
        assert_eq!(decision(&answer), "deny");
        let body = answer.ok();
        let flat = json!([
            body["ok"],
            body["engine"],
            body["reserved"],
            body["reservation_id"],
            body["reason"],
            body["scope"],
            body["message"],
            body["failures"][0]["reason"],
            body["failures"][0]["scope"]
        ]);
        assert_eq!(
            flat,
            json!([false, case.engine, 0, null, case.reason, case.scope, case.message, case.reason, case.scope])
        );
        assert_eq!(counters(&service).await, counters_before, "{}", case.message);
        assert_eq!(service.get("/risk/policies").await.text, policies, "{}", case.message);
        let tally: (String, String, String, i64) =
            sqlx::query_as("SELECT engine, scope, reason, denied FROM risk_denial_day")
                .fetch_one(&service.pool)
                .await
                .unwrap();
        assert_eq!(tally, (case.engine.into(), case.scope.into(), case.reason.into(), 1));
        for engine in ["GLOBAL", case.engine] {
            let row = today(&service, engine).await;
            if !row.is_null() {
                assert_eq!(json!([row["denied_count"], row["denials_by_reason"]]), json!([1, {case.reason: 1}]));
            }
        }
        assert!(today(&service, "NOBODY").await.is_null());
    }
}

#[tokio::test]
async fn the_snapshots_of_a_denial_are_those_of_the_level_that_failed() {
    for case in DENIED {
        let service = Service::live().await;
        for step in case.setup {
            run(&service, step).await;
        }
        let body = service.reserve(case.engine, case.amount).await.ok();
        let shown = if case.scope == "GLOBAL" { "GLOBAL" } else { case.engine };
        assert_eq!(body["ledger_snapshot"]["engine"], shown, "{}", case.message);
        let policy = if case.reason == "policy_missing" { Value::Null } else { json!(shown) };
        assert_eq!(body["policy_snapshot"].get("engine").cloned().unwrap_or_default(), policy, "{}", case.message);
    }
}

#[tokio::test]
async fn all_failures_are_listed_in_order_with_their_numbers() {
    let service = Service::live().await;
    service.reserve("WHOLESALE", "900").await.ok();
    upsert(&service, json!({"engine": "WHOLESALE", "max_actions_per_day": 1, "enabled": false})).await;
    let id = service.reserve("CAPITAL", "1").await.ok()["reservation_id"].clone();
    service.post("/risk/settle", &json!({"reservation_id": id, "realized_loss": 251.5})).await.ok();
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    service.post("/go-live/disable", &json!({"actor": "test"})).await.ok();
    let body = service.reserve("WHOLESALE", "700.25").await.ok();
    let seen: Vec<_> = body["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!([one["reason"], one["scope"], one["limit"], one["used"], one["requested"]]))
        .collect();
    let expected = [
        json!(["kill_switch_engaged", "SYSTEM", null, null, null]),
        json!(["go_live_disabled", "SYSTEM", null, null, null]),
        json!(["daily_exposure_exceeded", "GLOBAL", 1500, 901, 700.25]),
        json!(["open_risk_exceeded", "GLOBAL", 1500, 900, 700.25]),
        json!(["daily_loss_reached", "GLOBAL", 250, 251.5, null]),
        json!(["policy_disabled", "WHOLESALE", null, null, null]),
        json!(["daily_actions_exceeded", "WHOLESALE", 1, 1, 1]),
        json!(["daily_exposure_exceeded", "WHOLESALE", 1000, 900, 700.25]),
        json!(["open_risk_exceeded", "WHOLESALE", 1000, 900, 700.25]),
    ];
    assert_eq!(seen, expected);
    assert_eq!(
        json!([body["reason"], body["scope"], body["message"]]),
        json!(["kill_switch_engaged", "SYSTEM", "SYSTEM hard stop: Kill switch engaged"])
    );
}

#[tokio::test]
async fn denials_are_counted_by_engine_and_first_reason_and_all_of_them_on_global() {
    let service = Service::live().await;
    for (engine, amount) in [
        ("WHOLESALE", "1001"),
        ("WHOLESALE", "1600"),
        ("CAPITAL", "751"),
        ("CAPITAL", "752"),
        ("NOTIFY", "1"),
        ("NOBODY", "1"),
    ] {
        assert_eq!(service.reserve(engine, amount).await.ok()["ok"], false);
    }
    let seen = |row: Value| json!([row["denied_count"], row["denials_by_reason"]]);
    assert_eq!(seen(today(&service, "WHOLESALE").await), json!([2, {"daily_exposure_exceeded": 2}]));
    assert_eq!(seen(today(&service, "CAPITAL").await), json!([2, {"daily_exposure_exceeded": 2}]));
    assert_eq!(seen(today(&service, "NOTIFY").await), json!([1, {"policy_disabled": 1}]));
    assert_eq!(
        seen(today(&service, "GLOBAL").await),
        json!([6, {"daily_exposure_exceeded": 4, "policy_disabled": 1, "policy_missing": 1}])
    );
}

#[tokio::test]
async fn a_denial_is_one_event_with_its_reason_and_moves_nothing() {
    let service = Service::live().await;
    let body = json!({"engine": "NOTIFY", "amount": 5, "actor": "bot", "reason": "try", "correlation_id": "c"});
    service.post("/risk/check-and-reserve", &body).await.ok();
    let page = service.get("/risk/events").await.ok();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let event = &page["items"][0];
    let flat = json!([
        event["action"],
        event["ok"],
        event["engine"],
        event["amount"],
        event["denial"],
        event["scope"],
        event["reason"],
        event["actor"],
        event["correlation_id"],
        event["reservation_id"],
        event["exposure_delta"],
        event["open_delta"],
        event["actions_delta"]
    ]);
    assert_eq!(
        flat,
        json!(["DENY", false, "NOTIFY", 5, "policy_disabled", "NOTIFY", "try", "bot", "c", null, 0, 0, 0])
    );
}
