//! The trials that count, their judgement, and the calibration of stated confidences.

use super::refused::BAD_UPSERTS;
use super::{TRIAL, UPSERT, card, policy, recommend, set, trials};
use crate::support::Service;
use serde_json::{Value, json};

async fn verdict(service: &Service) -> Value {
    recommend(service, "D", "0.95").await["gate_reason"].clone()
}

async fn versioned(service: &Service, version: &str, successes: usize, failures: usize) {
    for number in 0..successes + failures {
        let success = number < successes;
        let body = json!({"domain": "D", "confidence": 0.9, "success": success, "model_version": version});
        service.post(TRIAL, &body).await.ok();
    }
}

#[tokio::test]
async fn each_rule_opens_at_its_boundary_and_not_a_success_earlier() {
    let service = Service::live().await;
    set(&service, json!({"prod_use_enabled": true})).await;
    trials(&service, "D", 40, 10).await;
    // Of the same fifty trials, so many more or fewer were right.
    let successes = async |count: i64| {
        let sql = "UPDATE heimdall_scorecard_day SET successes = $1, confidence_success_sum = 0.9 * $1";
        sqlx::query(sql).bind(count).execute(&service.pool).await.unwrap();
    };
    let mut opened = Vec::new();
    for rule in ["POINT", "LCB", "ANYTIME"] {
        set(&service, json!({"gate_rule": rule})).await;
        let mut first = None;
        for count in 38..=50 {
            successes(count).await;
            if verdict(&service).await == "gate_pass" {
                first = first.or(Some(count));
            } else {
                assert_eq!(first, None, "{rule} closed again at {count}");
                assert_eq!(verdict(&service).await, "sandbox_success_rate_below_threshold");
            }
        }
        opened.push(first);
    }
    assert_eq!(opened, [Some(40), Some(45), Some(47)]);
}

#[tokio::test]
async fn a_version_counts_its_own_trials_alone_and_a_new_one_starts_at_zero() {
    let service = Service::live().await;
    set(&service, json!({"prod_use_enabled": true, "min_sandbox_trials": 4})).await;
    trials(&service, "D", 2, 0).await;
    versioned(&service, "v1", 2, 0).await;
    // Nobody is approved: all trials count, whatever they name.
    assert_eq!(verdict(&service).await, "gate_pass");
    let evidence = async || {
        let gate = card(&service, "D").await["gate"].clone();
        let scorecard = &gate["scorecard"];
        json!([scorecard["model_version"], scorecard["trials"], scorecard["successes"], gate["passes"]])
    };
    assert_eq!(evidence().await, json!([null, 4, 4, true]));
    set(&service, json!({"approved_model_version": "v1"})).await;
    assert_eq!(evidence().await, json!(["v1", 2, 2, false]));
    assert_eq!(verdict(&service).await, "insufficient_sandbox_trials");
    versioned(&service, "v1", 1, 1).await;
    assert_eq!(evidence().await, json!(["v1", 4, 3, false]));
    set(&service, json!({"approved_model_version": "v2"})).await;
    assert_eq!(evidence().await, json!(["v2", 0, 0, false]));
    versioned(&service, "v2", 4, 0).await;
    assert_eq!(evidence().await, json!(["v2", 4, 4, true]));
    // The day's card is of all of them, as it was.
    let today = card(&service, "D").await;
    assert_eq!(json!([today["trials"], today["successes"], today["model_version"]]), json!([10, 9, null]));
    let events = service.get("/heimdall/events?action=TRIAL&limit=1").await.ok();
    assert_eq!(events["items"][0]["model_version"], "v2");
}

#[tokio::test]
async fn a_rolling_window_counts_its_last_days_and_midnight_closes_nothing() {
    let service = Service::live().await;
    set(
        &service,
        json!({"prod_use_enabled": true, "min_sandbox_trials": 4, "scorecard_window": "ROLLING_DAYS", "window_days": 3}),
    )
    .await;
    trials(&service, "D", 2, 0).await;
    versioned(&service, "v1", 0, 1).await;
    service.set_skew("1 day").await;
    trials(&service, "D", 3, 0).await;
    let trials_that_count = async || {
        let scorecard = card(&service, "D").await["gate"]["scorecard"].clone();
        json!([scorecard["trials"], scorecard["successes"]])
    };
    assert_eq!((trials_that_count().await, verdict(&service).await), (json!([6, 5]), json!("gate_pass")));
    service.set_skew("2 days").await;
    assert_eq!((trials_that_count().await, verdict(&service).await), (json!([6, 5]), json!("gate_pass")));
    assert_eq!(card(&service, "D").await["trials"], 0, "the day's own card is empty");
    service.set_skew("3 days").await;
    assert_eq!(
        (trials_that_count().await, verdict(&service).await),
        (json!([3, 3]), json!("insufficient_sandbox_trials"))
    );
    service.set_skew("4 days").await;
    assert_eq!(trials_that_count().await, json!([0, 0]));
    // One day is the day itself.
    set(&service, json!({"window_days": 1})).await;
    service.set_skew("5 days").await;
    trials(&service, "D", 4, 0).await;
    assert_eq!(verdict(&service).await, "gate_pass");
    service.set_skew("6 days").await;
    assert_eq!(verdict(&service).await, "insufficient_sandbox_trials");
}

#[tokio::test]
async fn a_window_of_one_version_is_summed_over_its_days() {
    let service = Service::live().await;
    let rolling = json!({
        "prod_use_enabled": true, "min_sandbox_trials": 4, "scorecard_window": "ROLLING_DAYS", "window_days": 2,
        "approved_model_version": "v1",
    });
    set(&service, rolling).await;
    versioned(&service, "v1", 2, 0).await;
    versioned(&service, "v2", 0, 9).await;
    service.set_skew("1 day").await;
    versioned(&service, "v1", 2, 0).await;
    let gate = card(&service, "D").await["gate"].clone();
    assert_eq!(
        json!([gate["passes"], gate["scorecard"]["trials"], gate["scorecard"]["avg_confidence"]]),
        json!([true, 4, 0.9])
    );
    service.set_skew("2 days").await;
    let gate = card(&service, "D").await["gate"].clone();
    assert_eq!(json!([gate["passes"], gate["scorecard"]["trials"]]), json!([false, 2]));
}

#[tokio::test]
async fn calibration_is_shown_and_keeps_the_gate_shut_only_where_it_is_asked_to() {
    let service = Service::live().await;
    set(&service, json!({"prod_use_enabled": true, "min_sandbox_success_rate": 0.7})).await;
    trials(&service, "D", 40, 10).await;
    let expected = json!({"overconfidence": 0.1, "overconfidence_z": 2.357_023, "brier_score": 0.17});
    assert_eq!(card(&service, "D").await["calibration"], expected);
    assert_eq!(verdict(&service).await, "gate_pass");
    set(&service, json!({"calibration_gate": true})).await;
    assert_eq!(verdict(&service).await, "calibration_overconfident");
    let gate = card(&service, "D").await["gate"].clone();
    let check = gate["checks"].as_array().unwrap().iter().find(|one| one["check"] == "calibration").unwrap().clone();
    assert_eq!(
        check,
        json!({"check": "calibration", "result": "FAIL", "reason": "calibration_overconfident", "value": 2.357_023, "threshold": 1.645})
    );
    // One that comes after the four: a rate that is too low is named first.
    set(&service, json!({"min_sandbox_success_rate": 0.9})).await;
    assert_eq!(verdict(&service).await, "sandbox_success_rate_below_threshold");
}

#[tokio::test]
async fn sums_are_exact_to_the_last_digit_of_every_square() {
    let service = Service::live().await;
    for (confidence, success) in
        [("0.123456789012345678", true), ("0.999999999999999999", false), ("1", true), ("0", false)]
    {
        for version in ["", r#""model_version":"v","#] {
            let body = format!(r#"{{"domain":"D",{version}"confidence":{confidence},"success":{success}}}"#);
            service.post_text(TRIAL, "application/json", &body).await.ok();
        }
    }
    let off = "SELECT count(*) FROM
         (SELECT confidence_square_sum AS square, confidence_success_sum AS success, 0 AS n FROM heimdall_scorecard_day
          UNION ALL SELECT confidence_square_sum, confidence_success_sum, 1 FROM heimdall_scorecard_version) AS card
         JOIN (SELECT sum(confidence * confidence) AS square, sum(confidence) FILTER (WHERE success) AS success, 0 AS n
               FROM heimdall_event
               UNION ALL SELECT sum(confidence * confidence), sum(confidence) FILTER (WHERE success), 1
               FROM heimdall_event WHERE model_version = 'v') AS trial USING (n)
         WHERE (card.square, card.success) <> (trial.square, trial.success)";
    assert_eq!(service.count(off).await, 0);
    let square: String = sqlx::query_scalar("SELECT confidence_square_sum::text FROM heimdall_scorecard_version")
        .fetch_one(&service.pool)
        .await
        .unwrap();
    // 0.123456789012345678^2 + 0.999999999999999999^2 + 1
    assert_eq!(square, "2.015241578753238834527968299765279685");
}

#[tokio::test]
async fn the_list_warns_of_what_an_operator_would_not_expect() {
    let service = Service::live().await;
    let warned = async || {
        let listed = policy(&service, "D").await;
        let ids = listed["warnings"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    set(&service, json!({})).await;
    assert_eq!(warned().await, ["closes_each_midnight"]);
    assert_eq!(
        policy(&service, "D").await["warnings"][0]["detail"],
        "DAY counts today alone: the gate closes each midnight UTC until 50 new trials arrive"
    );
    set(&service, json!({"scorecard_window": "ROLLING_DAYS"})).await;
    assert_eq!(warned().await, [""; 0]);
    set(&service, json!({"recommendation_ttl_seconds": 0, "min_sandbox_success_rate": 1, "gate_rule": "ANYTIME"}))
        .await;
    assert_eq!(warned().await, ["gate_never_opens", "never_expires"]);
    set(&service, json!({"min_sandbox_trials": 0, "prod_use_enabled": true})).await;
    assert_eq!(warned().await, ["prod_use_without_evidence", "nothing_to_earn", "gate_never_opens", "never_expires"]);
}

#[tokio::test]
async fn a_setting_beyond_its_bounds_is_refused_with_the_field_named() {
    let service = Service::live().await;
    let before = service.everything().await;
    for (body, field) in [
        (r#"{"domain":"D","window_days":0}"#, "window_days"),
        (r#"{"domain":"D","window_days":366}"#, "window_days"),
        (r#"{"domain":"D","recommendation_ttl_seconds":31536001}"#, "recommendation_ttl_seconds"),
        (r#"{"domain":"D","recommendation_ttl_seconds":-1}"#, "recommendation_ttl_seconds"),
        (r#"{"domain":"D","scorecard_window":"WEEK"}"#, "scorecard_window"),
        (r#"{"domain":"D","gate_rule":"lcb"}"#, "gate_rule"),
        (r#"{"domain":"D","engine":"A B"}"#, "engine"),
        (r#"{"domain":"D","engine":"A","remove_engine":true}"#, "engine"),
        (
            r#"{"domain":"D","approved_model_version":"v","remove_approved_model_version":"yes"}"#,
            "approved_model_version",
        ),
        (r#"{"domain":"D","single_use":"perhaps"}"#, "single_use"),
    ]
    .iter()
    .chain(BAD_UPSERTS)
    {
        service.post_text(UPSERT, "application/json", body).await.invalid(field);
    }
    let long = json!({"domain": "D", "confidence": 1, "success": true, "model_version": "v".repeat(201)});
    service.post(TRIAL, &long).await.invalid("model_version");
    assert_eq!(service.everything().await, before);
    for body in [
        json!({"window_days": 1, "recommendation_ttl_seconds": 31_536_000, "approved_model_version": "v".repeat(200)}),
        json!({"window_days": 365, "recommendation_ttl_seconds": 0, "engine": "A", "remove_engine": false}),
    ] {
        set(&service, body).await;
    }
}

#[tokio::test]
async fn a_setting_moves_alone_and_is_told_only_when_it_moves() {
    let service = Service::live().await;
    set(&service, json!({})).await;
    let moved = async |body: Value| set(&service, body).await["changes"].clone();
    assert_eq!(moved(json!({"engine": "capital"})).await, json!([{"field": "engine", "from": null, "to": "CAPITAL"}]));
    assert_eq!(
        moved(json!({"gate_rule": "LCB", "window_days": 30})).await,
        json!([{"field": "gate_rule", "from": "POINT", "to": "LCB"}])
    );
    assert_eq!(
        moved(json!({"remove_engine": true})).await,
        json!([{"field": "engine", "from": "CAPITAL", "to": null}])
    );
    assert_eq!(moved(json!({"remove_engine": true})).await, json!([]));
    assert_eq!(
        moved(json!({"approved_model_version": " v 1 "})).await,
        json!([{"field": "approved_model_version", "from": null, "to": "v 1"}])
    );
    let now = policy(&service, "D").await;
    assert_eq!(
        json!([now["gate_rule"], now["engine"], now["approved_model_version"], now["version"]]),
        json!(["LCB", null, "v 1", 5])
    );
}
