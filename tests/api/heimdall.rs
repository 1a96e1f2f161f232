//! Lever 3 through HTTP: policies, the day's scorecard, the gate at creation and the checks at use.

mod evidence;
mod guard;
mod promotion;

use crate::support::{Answer, Service, Setup};
use serde_json::{Value, json};

const UPSERT: &str = "/heimdall/policies/upsert";
const TRIAL: &str = "/heimdall/sandbox/trial";
const RECOMMEND: &str = "/heimdall/recommend";

/// The row of a domain in a list; null when there is none.
fn of(list: &Value, domain: &str) -> Value {
    let rows = list.as_array().expect("a list");
    let found = rows.iter().find(|row| row["domain"] == domain);
    found.cloned().unwrap_or_default()
}

async fn policy(service: &Service, domain: &str) -> Value {
    of(&service.get("/heimdall/policies").await.ok(), domain)
}

async fn card(service: &Service, domain: &str) -> Value {
    of(&service.get("/heimdall/scorecard/today").await.ok(), domain)
}

async fn trials(service: &Service, domain: &str, successes: usize, failures: usize) {
    for number in 0..successes + failures {
        let success = number < successes;
        let body = json!({"domain": domain, "confidence": 0.9, "success": success});
        service.post(TRIAL, &body).await.ok();
    }
}

/// A domain that passes its gate with a confidence of 0.9: two of two trials succeeded.
async fn open_gate(service: &Service, domain: &str) {
    let on = json!({"domain": domain, "min_sandbox_trials": 2, "prod_use_enabled": true});
    service.post(UPSERT, &on).await.ok();
    trials(service, domain, 2, 0).await;
}

async fn recommend(service: &Service, domain: &str, confidence: &str) -> Value {
    let body = format!(r#"{{"domain":"{domain}","confidence":{confidence}}}"#);
    let answer = service.post_text(RECOMMEND, "application/json", &body);
    answer.await.ok()
}

/// A recommendation that passed its gate, with a confidence of 0.95.
async fn eligible(service: &Service, domain: &str) -> i64 {
    open_gate(service, domain).await;
    let made = recommend(service, domain, "0.95").await;
    assert_eq!(made["gate_reason"], "gate_pass");
    made["id"].as_i64().expect("an id")
}

async fn require(service: &Service, id: i64) -> Answer {
    let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
    let body = json!({"actor": "sender", "reason": "send", "correlation_id": "deal-1"});
    service.post(&path, &body).await
}

async fn events(service: &Service, filter: &str) -> Vec<Value> {
    let page = service.get(&format!("/heimdall/events?limit=1000{filter}"));
    let page = page.await.ok();
    page["items"].as_array().expect("a page").clone()
}

#[tokio::test]
async fn policies_are_seeded_and_all_off() {
    let service = Service::fresh().await;
    let policies = service.get("/heimdall/policies").await.ok();
    let rows: Vec<Value> = policies
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            json!([
                row["domain"],
                row["min_confidence_prod"],
                row["min_sandbox_trials"],
                row["min_sandbox_success_rate"],
                row["prod_use_enabled"],
                row["version"]
            ])
        })
        .collect();
    assert_eq!(
        json!(rows),
        json!([
            ["BUYER_MATCH", 0.90, 50, 0.80, false, 1],
            ["CAPITAL_ROUTE", 0.95, 100, 0.85, false, 1],
            ["FOLLOWUP_NEXT_ACTION", 0.90, 60, 0.80, false, 1],
            ["WHOLESALE_OFFER", 0.92, 75, 0.82, false, 1],
        ])
    );
}

#[tokio::test]
async fn a_new_domain_starts_at_the_originals_defaults() {
    let service = Service::fresh().await;
    let made = service.post(UPSERT, &json!({"domain": "NEW"})).await.ok();
    assert_eq!(
        made,
        json!({
            "domain": "NEW", "min_confidence_prod": 0.9, "min_sandbox_trials": 50, "min_sandbox_success_rate": 0.8,
            "prod_use_enabled": false, "engine": null, "recommendation_ttl_seconds": 259_200, "single_use": false,
            "scorecard_window": "DAY", "window_days": 30, "gate_rule": "POINT", "approved_model_version": null,
            "calibration_gate": false, "evidence": null, "promotion": null, "changed_by": null, "reason": null,
            "updated_at": made["updated_at"], "version": 1,
            "changes": [
                {"field": "min_confidence_prod", "from": null, "to": 0.9},
                {"field": "min_sandbox_trials", "from": null, "to": 50},
                {"field": "min_sandbox_success_rate", "from": null, "to": 0.8},
                {"field": "prod_use_enabled", "from": null, "to": false},
            ],
            "warnings": [{
                "id": "closes_each_midnight",
                "detail": "DAY counts today alone: the gate closes each midnight UTC until 50 new trials arrive",
            }],
        })
    );
}

#[tokio::test]
async fn an_upsert_changes_what_it_names_and_keeps_the_rest() {
    let service = Service::fresh().await;
    let body = json!({"domain": "BUYER_MATCH", "min_sandbox_trials": 60, "changed_by": "bryan", "reason": "more"});
    let done = service.post(UPSERT, &body).await.ok();
    assert_eq!(done["changes"], json!([{"field": "min_sandbox_trials", "from": 50, "to": 60}]));
    let now = policy(&service, "BUYER_MATCH").await;
    assert_eq!(
        now,
        json!({
            "domain": "BUYER_MATCH", "min_confidence_prod": 0.9, "min_sandbox_trials": 60, "min_sandbox_success_rate": 0.8,
            "prod_use_enabled": false, "engine": null, "recommendation_ttl_seconds": 259_200, "single_use": false,
            "scorecard_window": "DAY", "window_days": 30, "gate_rule": "POINT", "approved_model_version": null,
            "calibration_gate": false, "evidence": null, "promotion": null, "changed_by": "bryan", "reason": "more",
            "updated_at": now["updated_at"], "version": 2, "warnings": now["warnings"],
        })
    );
}

#[tokio::test]
async fn the_same_upsert_twice_is_one_change() {
    let service = Service::fresh().await;
    let body = json!({"domain": "BUYER_MATCH", "min_confidence_prod": "0.91", "actor": "bryan"});
    service.post(UPSERT, &body).await.ok();
    let (events, before) = (service.events().await, policy(&service, "BUYER_MATCH").await);
    let again = service.post(UPSERT, &body).await.ok();
    assert_eq!(again["changes"], json!([]));
    assert_eq!(policy(&service, "BUYER_MATCH").await, before);
    assert_eq!(service.events().await, events);
}

#[tokio::test]
async fn an_upsert_means_the_same_as_json_form_and_query() {
    let service = Service::fresh().await;
    let fields = "domain=form&min_sandbox_trials=7&prod_use_enabled=yes&min_confidence_prod=0.5";
    service.post_form(UPSERT, fields).await.ok();
    service.post_query(UPSERT, &fields.replace("form", "query")).await.ok();
    let json = json!({"domain": "json", "min_sandbox_trials": 7, "prod_use_enabled": true, "min_confidence_prod": 0.5});
    service.post(UPSERT, &json).await.ok();
    let mut seen = Vec::new();
    for domain in ["FORM", "QUERY", "JSON"] {
        let mut row = policy(&service, domain).await;
        row["domain"].take();
        row["updated_at"].take();
        row["promotion"].take();
        seen.push(row);
    }
    assert_eq!(seen[0]["min_sandbox_trials"], 7);
    assert_eq!(seen[0]["prod_use_enabled"], true);
    assert!(seen.iter().all(|row| *row == seen[0]), "{seen:?}");
}

#[tokio::test]
async fn an_upsert_is_a_change_of_the_control_plane() {
    let service = Service::fresh().await;
    let body = json!({"domain": "BUYER_MATCH", "prod_use_enabled": true, "actor": "bryan", "reason": "earned"});
    service.post(UPSERT, &body).await.ok();
    let review = service.get("/review").await.ok();
    let change = &review["changes"][0];
    assert_eq!(change["action"], "HEIMDALL_POLICY_UPSERT");
    assert_eq!(change["subject"], "BUYER_MATCH");
    assert_eq!((&change["actor"], &change["reason"]), (&json!("bryan"), &json!("earned")));
    assert_eq!(change["detail"]["changes"], json!([{"field": "prod_use_enabled", "from": false, "to": true}]));
    assert_eq!(change["detail"]["evidence"], "not_met");
}

/// A body and the field that is wrong with it.
type Refused = (&'static str, &'static str);

const BAD_UPSERTS: &[Refused] = &[
    ("{}", "domain"),
    (r#"{"domain":" "}"#, "domain"),
    (r#"{"domain":"A B"}"#, "domain"),
    (r#"{"domain":"D","min_confidence_prod":1.1}"#, "min_confidence_prod"),
    (r#"{"domain":"D","min_confidence_prod":-0.1}"#, "min_confidence_prod"),
    (r#"{"domain":"D","min_confidence_prod":0.1234567}"#, "min_confidence_prod"),
    (r#"{"domain":"D","min_sandbox_success_rate":1.000001}"#, "min_sandbox_success_rate"),
    (r#"{"domain":"D","min_sandbox_trials":-1}"#, "min_sandbox_trials"),
    (r#"{"domain":"D","min_sandbox_trials":1.5}"#, "min_sandbox_trials"),
    (r#"{"domain":"D","prod_use_enabled":"maybe"}"#, "prod_use_enabled"),
    (r#"{"domain":"D","min_trials":5}"#, "min_trials"),
];

const BAD_TRIALS: &[Refused] = &[
    (r#"{"confidence":0.5,"success":true}"#, "domain"),
    (r#"{"domain":"D","success":true}"#, "confidence"),
    (r#"{"domain":"D","confidence":0.5}"#, "success"),
    (r#"{"domain":"D","confidence":0.5,"success":2}"#, "success"),
    (r#"{"domain":"D","confidence":0.5,"success":true,"x":1}"#, "x"),
];

const BAD_RECOMMENDATIONS: &[Refused] = &[
    (r#"{"domain":"D"}"#, "confidence"),
    (r#"{"domain":"D","confidence":0.5,"recommendation":[1]}"#, "recommendation"),
    (r#"{"domain":"D","confidence":0.5,"recommendation":"buy"}"#, "recommendation"),
    (r#"{"domain":"D","confidence":0.5,"evidence":{"a":{"b":1,"b":2}}}"#, "evidence"),
];

#[tokio::test]
async fn a_refused_input_names_its_field_and_leaves_no_trace() {
    let service = Service::fresh().await;
    let state = async || {
        (
            service.events().await,
            service.get("/heimdall/policies").await.ok(),
            service.get("/heimdall/scorecard/today").await.ok(),
        )
    };
    let before = state().await;
    for (path, cases) in [(UPSERT, BAD_UPSERTS), (TRIAL, BAD_TRIALS), (RECOMMEND, BAD_RECOMMENDATIONS)] {
        for (body, field) in cases {
            let answer = service.post_text(path, "application/json", body).await;
            assert!(!answer.invalid(field).is_empty(), "{path} {body}");
        }
    }
    let too_long = [
        (UPSERT, json!({"domain": "D".repeat(81)}), "domain"),
        (UPSERT, json!({"domain": "D", "reason": "r".repeat(1001)}), "reason"),
        (RECOMMEND, json!({"domain": "D", "confidence": 0.5, "evidence": {"text": "x".repeat(16 * 1024)}}), "evidence"),
    ];
    for (path, body, field) in too_long {
        service.post(path, &body).await.invalid(field);
    }
    assert_eq!(state().await, before);
}

#[tokio::test]
async fn more_trials_than_the_table_holds_are_refused_with_the_field_named() {
    let service = Service::fresh().await;
    // The column's limit; one more must be a 422, not a constraint that speaks as a 500.
    let most = json!({"domain": "D", "min_sandbox_trials": 1_000_000_000});
    service.post(UPSERT, &most).await.ok();
    for count in ["1000000001", "1000000000000"] {
        let body = format!(r#"{{"domain":"D","min_sandbox_trials":{count}}}"#);
        let answer = service.post_text(UPSERT, "application/json", &body).await;
        answer.invalid("min_sandbox_trials");
    }
}

#[tokio::test]
async fn confidences_beyond_their_bounds_are_refused_with_the_fix() {
    let service = Service::fresh().await;
    let cases = [
        ("1.000000000000000001", "is more than 1: send a number from 0 to 1"),
        ("1.5", "is more than 1: send a number from 0 to 1"),
        ("-0.1", "is -0.1, which is less than 0: send a number from 0 to 1"),
        ("-0", "is minus zero: send 0"),
        ("-0.0", "is minus zero: send 0"),
        ("0.1234567890123456789", "has 19 decimals, at most 18: round it, or send \"0.123456789012345679\""),
        ("1e-19", "has 19 decimals, at most 18: round it, or send \"0.000000000000000001\""),
        ("\"high\"", "is not a plain decimal number: send digits, for example 400 or \"0.3\""),
    ];
    for (confidence, sentence) in cases {
        for path in [TRIAL, RECOMMEND] {
            let success = if path == TRIAL { r#","success":true"# } else { "" };
            let body = format!(r#"{{"domain":"D","confidence":{confidence}{success}}}"#);
            let answer = service.post_text(path, "application/json", &body).await;
            assert_eq!(answer.invalid("confidence"), sentence, "{path} {confidence}");
        }
    }
    assert_eq!(service.events().await, 0);
}

#[tokio::test]
async fn a_trial_is_counted_and_answered_with_its_scorecard() {
    let service = Service::fresh().await;
    let body =
        json!({"domain": "BUYER_MATCH", "confidence": 0.8, "success": true, "actor": "ai", "correlation_id": "run-1"});
    let first = service.post(TRIAL, &body).await.ok();
    assert_eq!(
        first,
        json!({
            "day": first["day"], "from": first["day"], "domain": "BUYER_MATCH", "model_version": null, "trials": 1, "successes": 1,
            "success_rate": 1, "avg_confidence": 0.8,
            "calibration": {"overconfidence": -0.2, "overconfidence_z": -0.5, "brier_score": 0.04},
            "updated_at": first["updated_at"],
        })
    );
    let event = &events(&service, "").await[0];
    let seen = ["domain", "action", "ok", "confidence", "success", "actor", "correlation_id", "recommendation_id"]
        .map(|member| event[member].clone());
    assert_eq!(json!(seen), json!(["BUYER_MATCH", "TRIAL", true, 0.8, true, "ai", "run-1", null]));
}

#[tokio::test]
async fn a_trial_sent_twice_is_two_trials() {
    let service = Service::fresh().await;
    trials(&service, "D", 2, 1).await;
    let card = card(&service, "D").await;
    assert_eq!((&card["trials"], &card["successes"]), (&json!(3), &json!(2)));
    assert_eq!(card["success_rate"], json!(0.666_666_666_667));
    assert_eq!(events(&service, "&action=TRIAL").await.len(), 3);
}

#[tokio::test]
async fn rates_are_exact_sums_divided_once() {
    let service = Service::fresh().await;
    for number in 0..75 {
        let body = json!({"domain": "WHOLESALE_OFFER", "confidence": 0.9, "success": number < 65});
        service.post(TRIAL, &body).await.ok();
    }
    let text = service.get("/heimdall/scorecard/today").await.text;
    // 65/75, and 75 times 0.9 without the drift of a float sum.
    assert!(
        text.contains(r#""trials":75,"successes":65,"success_rate":0.866666666667,"avg_confidence":0.9,"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_doubles_seventeen_digits_are_taken_as_written() {
    let service = Service::fresh().await;
    for confidence in ["0.8666666666666667", "0.30000000000000004", "0.333333333333333333"] {
        let body = format!(r#"{{"domain":"D","confidence":{confidence},"success":true}}"#);
        let answer = service.post_text(TRIAL, "application/json", &body).await;
        answer.ok();
    }
    let sum: String = sqlx::query_scalar("SELECT confidence_sum::text FROM heimdall_scorecard_day")
        .fetch_one(&service.pool)
        .await
        .unwrap();
    assert_eq!(sum, "1.500000000000000073");
    let text = service.get("/heimdall/events").await.text;
    for confidence in ["0.8666666666666667,", "0.30000000000000004,", "0.333333333333333333,"] {
        let member = format!(r#""confidence":{confidence}"#);
        assert!(text.contains(&member), "{member} in {text}");
    }
    assert_eq!(card(&service, "D").await["avg_confidence"], json!(0.5));
}

#[tokio::test]
async fn domains_are_one_in_any_case_and_trimmed() {
    let service = Service::fresh().await;
    for domain in ["buyer_match", " Buyer_Match ", "BUYER_MATCH"] {
        let body = json!({"domain": domain, "confidence": 0.9, "success": true});
        service.post(TRIAL, &body).await.ok();
    }
    assert_eq!(card(&service, "BUYER_MATCH").await["trials"], 3);
    let on = json!({"domain": "buyer_match", "prod_use_enabled": true});
    service.post(UPSERT, &on).await.ok();
    let made = recommend(&service, "buyer_Match", "0.95").await;
    assert_eq!(made["domain"], "BUYER_MATCH");
    assert_eq!(made["gate_reason"], "insufficient_sandbox_trials");
    assert_eq!(events(&service, "&domain=buyer_match").await.len(), 4);
    assert_eq!(service.get("/heimdall/policies").await.ok().as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn the_scorecard_lists_every_policy_and_every_domain_with_trials() {
    let service = Service::fresh().await;
    trials(&service, "AAA_NO_POLICY", 1, 0).await;
    let cards = service.get("/heimdall/scorecard/today").await.ok();
    let domains: Vec<&Value> = cards.as_array().unwrap().iter().map(|card| &card["domain"]).collect();
    assert_eq!(
        json!(domains),
        json!(["AAA_NO_POLICY", "BUYER_MATCH", "CAPITAL_ROUTE", "FOLLOWUP_NEXT_ACTION", "WHOLESALE_OFFER"])
    );
    let idle = of(&cards, "CAPITAL_ROUTE");
    assert_eq!(
        idle,
        json!({
            "day": idle["day"], "from": idle["day"], "domain": "CAPITAL_ROUTE", "model_version": null, "trials": 0, "successes": 0,
            "success_rate": 0, "avg_confidence": 0,
            "calibration": {"overconfidence": null, "overconfidence_z": null, "brier_score": null}, "updated_at": null,
            "gate": idle["gate"],
        })
    );
}

#[tokio::test]
async fn midnight_closes_the_gate_until_new_trials_arrive() {
    let service = Service::fresh().await;
    open_gate(&service, "D").await;
    assert_eq!(recommend(&service, "D", "0.95").await["gate_reason"], "gate_pass");
    let today = card(&service, "D").await["day"].clone();
    service.set_skew("1 day").await;
    let tomorrow = card(&service, "D").await;
    assert_ne!(tomorrow["day"], today);
    assert_eq!((&tomorrow["trials"], &tomorrow["updated_at"]), (&json!(0), &Value::Null));
    let closed = recommend(&service, "D", "0.95").await;
    assert_eq!(closed["gate_reason"], "insufficient_sandbox_trials");
    trials(&service, "D", 2, 0).await;
    assert_eq!(recommend(&service, "D", "0.95").await["gate_reason"], "gate_pass");
}

#[tokio::test]
async fn the_five_gate_reasons_come_in_their_order() {
    let service = Service::fresh().await;
    let verdict = async |confidence: &str, eligible: bool, reason: &str| {
        let made = recommend(&service, "ROUTE", confidence).await;
        let id = service.count("SELECT max(seq) FROM heimdall_event").await;
        let stated: Value = serde_json::from_str(confidence).unwrap();
        assert_eq!(
            made,
            json!({
                "id": id, "domain": "ROUTE", "model_version": null, "confidence": stated, "prod_eligible": eligible,
                "gate_reason": reason, "gate_checks": made["gate_checks"], "expires_at": made["expires_at"], "single_use": false,
                "created_at": made["created_at"],
            })
        );
    };
    let set = async |body: Value| service.post(UPSERT, &body).await.ok();

    // No policy is no permission, and asking creates none.
    verdict("1", false, "prod_use_disabled").await;
    assert_eq!(policy(&service, "ROUTE").await, Value::Null);
    // Off comes first, though nothing else would pass either.
    set(json!({"domain": "ROUTE", "min_sandbox_trials": 5})).await;
    verdict("0", false, "prod_use_disabled").await;
    set(json!({"domain": "ROUTE", "prod_use_enabled": true})).await;
    verdict("0.899999999999999999", false, "confidence_below_threshold").await;
    // Equality passes, here and below.
    verdict("0.9", false, "insufficient_sandbox_trials").await;
    trials(&service, "ROUTE", 3, 1).await;
    verdict("0.9", false, "insufficient_sandbox_trials").await;
    trials(&service, "ROUTE", 0, 1).await;
    verdict("0.9", false, "sandbox_success_rate_below_threshold").await;
    trials(&service, "ROUTE", 5, 0).await;
    verdict("0.9", true, "gate_pass").await;
}

#[tokio::test]
async fn a_recommendation_sent_twice_is_two_recommendations() {
    let service = Service::fresh().await;
    let first = recommend(&service, "D", "0.5").await;
    let second = recommend(&service, "D", "0.5").await;
    assert_ne!(first["id"], second["id"]);
    let list = service.get("/heimdall/recommendations").await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn recommendation_and_evidence_are_kept_as_written() {
    let service = Service::fresh().await;
    let recommendation = r#"{"z":1.50,"a":[1, 2],"big":12345678901234567890.123,"\u00fc":null}"#;
    let evidence = r#"{ "model" : "v2.1" }"#;
    let body = format!(
        r#"{{"domain":"D","confidence":0.5,"recommendation":{recommendation},"evidence":{evidence},"actor":"ai","correlation_id":"c-1"}}"#
    );
    let made = service.post_text(RECOMMEND, "application/json", &body).await.ok();
    let answer = service.get(&format!("/heimdall/recommendations/{}", made["id"])).await;
    let kept = format!(r#""recommendation":{recommendation},"evidence":{evidence},"#);
    assert!(answer.text.contains(&kept), "{}", answer.text);
    assert_eq!((&answer.json["actor"], &answer.json["correlation_id"]), (&json!("ai"), &json!("c-1")));
    // In a form the object is a string.
    let form = "domain=D&confidence=0.5&recommendation=%7B%22a%22%3A1.0%7D";
    let made = service.post_form(RECOMMEND, form).await.ok();
    let answer = service.get(&format!("/heimdall/recommendations/{}", made["id"])).await;
    assert!(answer.text.contains(r#""recommendation":{"a":1.0},"evidence":null"#), "{}", answer.text);
}

#[tokio::test]
async fn a_recommendation_keeps_the_policy_and_the_scorecard_it_was_judged_by() {
    let service = Service::fresh().await;
    let id = eligible(&service, "D").await;
    // Both move on; the verdict's copies do not.
    trials(&service, "D", 0, 2).await;
    service.post(UPSERT, &json!({"domain": "D", "prod_use_enabled": false})).await.ok();
    let kept = service.get(&format!("/heimdall/recommendations/{id}")).await.ok();
    assert_eq!((&kept["prod_eligible"], &kept["gate_reason"]), (&json!(true), &json!("gate_pass")));
    let policy = &kept["policy_snapshot"];
    assert_eq!(
        json!([policy["domain"], policy["min_sandbox_trials"], policy["prod_use_enabled"], policy["version"]]),
        json!(["D", 2, true, 1])
    );
    let card = &kept["scorecard_snapshot"];
    assert_eq!(
        json!([card["domain"], card["trials"], card["successes"], card["success_rate"], card["avg_confidence"]]),
        json!(["D", 2, 2, 1, 0.9])
    );
    // Without a policy there is nothing to keep of one.
    let made = recommend(&service, "NO_POLICY", "0.5").await;
    let kept = service.get(&format!("/heimdall/recommendations/{}", made["id"])).await.ok();
    assert_eq!(kept["policy_snapshot"], Value::Null);
    assert_eq!(kept["scorecard_snapshot"]["trials"], 0);
}

#[tokio::test]
async fn recommendations_are_listed_newest_first_and_filtered() {
    let service = Service::fresh().await;
    let passed = eligible(&service, "D").await;
    let failed = recommend(&service, "D", "0.1").await["id"].clone();
    let other = recommend(&service, "E", "0.1").await["id"].clone();
    for (filter, expected) in [
        ("", json!([other, failed, passed])),
        ("?domain=d", json!([failed, passed])),
        ("?prod_eligible=true", json!([passed])),
        ("?prod_eligible=no", json!([other, failed])),
        ("?domain=E&prod_eligible=1", json!([])),
        ("?domain=NOBODY", json!([])),
    ] {
        let page = service.get(&format!("/heimdall/recommendations{filter}")).await.ok();
        let ids: Vec<&Value> = page["items"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert_eq!((json!(ids), &page["next_cursor"]), (expected, &Value::Null), "{filter}");
    }
    for (filter, field) in
        [("domain=A+B", "domain"), ("prod_eligible=perhaps", "prod_eligible"), ("domian=D", "domian")]
    {
        service.get(&format!("/heimdall/recommendations?{filter}")).await.invalid(field);
    }
}

#[tokio::test]
async fn events_are_filtered_by_action_and_domain() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    require(&service, id).await.ok();
    trials(&service, "E", 1, 0).await;
    for (filter, count) in [
        ("", 5),
        ("&action=TRIAL", 3),
        ("&action=RECOMMEND", 1),
        ("&action=REQUIRE", 1),
        ("&domain=E", 1),
        ("&domain=E&action=REQUIRE", 0),
    ] {
        assert_eq!(events(&service, filter).await.len(), count, "{filter}");
    }
    service.get("/heimdall/events?action=GUESS").await.invalid("action");
}

#[tokio::test]
async fn a_recommendation_that_does_not_exist_is_404_and_not_an_event() {
    let service = Service::live().await;
    let before = service.events().await;
    // The trial has a sequence number and is no recommendation.
    trials(&service, "D", 1, 0).await;
    for id in [0, 1, 999, 1_000_000_000_000] {
        service.get(&format!("/heimdall/recommendations/{id}")).await.refused(404, "NOT_FOUND");
        require(&service, id).await.refused(404, "NOT_FOUND");
    }
    for id in ["abc", "-1", "1.5", "1000000000001"] {
        service.get(&format!("/heimdall/recommendations/{id}")).await.invalid("id");
    }
    assert_eq!(service.events().await, before + 1);
}

#[tokio::test]
async fn an_eligible_recommendation_may_be_used_as_often_as_it_is_asked() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    for _ in 0..2 {
        let allowed = require(&service, id).await.ok();
        let expected = json!({
            "ok": true, "id": id, "domain": "D", "model_version": null, "confidence": 0.95, "prod_eligible": true,
            "gate_reason": "gate_pass", "expires_at": allowed["expires_at"],
        });
        assert_eq!(allowed, expected);
    }
    let uses = events(&service, "&action=REQUIRE").await;
    assert_eq!(uses.len(), 2);
    let seen = ["recommendation_id", "ok", "gate_reason", "actor", "reason", "correlation_id"]
        .map(|member| uses[0][member].clone());
    assert_eq!(json!(seen), json!([id, true, "gate_pass", "sender", "send", "deal-1"]));
}

#[tokio::test]
async fn a_use_needs_no_body() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
    service.post_query(&path, "").await.ok();
    service.post(&path, &json!({"id": 1})).await.invalid("id");
}

/// Expects the use to be refused for this reason, with its whole body and its event.
#[track_caller]
fn refused_use(answer: Answer, id: i64, reason: &str) {
    let body = answer.refused(403, "NOT_PROD_ELIGIBLE");
    let members = ["id", "domain", "prod_eligible", "gate_reason"].map(|member| body[member].clone());
    assert_eq!(json!(members), json!([id, "D", false, reason]));
    assert_eq!(body["detail"], format!("recommendation {id} may not be used in production: {reason}"));
}

#[tokio::test]
async fn a_use_is_refused_with_the_verdict_at_creation_even_after_the_gate_opens() {
    let service = Service::live().await;
    let set = async |body: Value| service.post(UPSERT, &body).await.ok();
    let never_id = async |confidence: &str| {
        let made = recommend(&service, "D", confidence).await;
        made["id"].as_i64().unwrap()
    };
    let off = never_id("0.95").await;
    set(json!({"domain": "D", "min_sandbox_trials": 2, "prod_use_enabled": true})).await;
    let unsure = never_id("0.5").await;
    let untried = never_id("0.95").await;
    trials(&service, "D", 1, 1).await;
    let unproven = never_id("0.95").await;
    let verdicts = [
        (off, "prod_use_disabled"),
        (unsure, "confidence_below_threshold"),
        (untried, "insufficient_sandbox_trials"),
        (unproven, "sandbox_success_rate_below_threshold"),
    ];
    for (id, reason) in verdicts {
        refused_use(require(&service, id).await, id, reason);
    }
    // Now every check would pass for all of them.
    set(json!({"domain": "D", "min_confidence_prod": 0.1})).await;
    trials(&service, "D", 8, 0).await;
    assert_eq!(recommend(&service, "D", "0.5").await["gate_reason"], "gate_pass");
    for (id, reason) in verdicts {
        refused_use(require(&service, id).await, id, reason);
    }
    let uses = events(&service, "&action=REQUIRE").await;
    assert_eq!(uses.len(), 8);
    assert!(uses.iter().all(|one| one["ok"] == false && one["gate_reason"] != "gate_pass"));
}

#[tokio::test]
async fn eligibility_ends_when_production_use_is_switched_off() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let set = async |on: bool| service.post(UPSERT, &json!({"domain": "D", "prod_use_enabled": on})).await.ok();
    set(false).await;
    refused_use(require(&service, id).await, id, "prod_use_disabled");
    set(true).await;
    require(&service, id).await.ok();
}

#[tokio::test]
async fn eligibility_ends_when_the_threshold_rises_above_its_confidence() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let set = async |least: &str| {
        let body = json!({"domain": "D", "min_confidence_prod": least});
        service.post(UPSERT, &body).await.ok()
    };
    set("0.950001").await;
    refused_use(require(&service, id).await, id, "confidence_below_threshold");
    set("0.95").await;
    require(&service, id).await.ok();
}

#[tokio::test]
async fn the_kill_switch_and_go_live_off_forbid_every_use() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    let switch = async |path: &str| service.post(path, &json!({"actor": "ops"})).await.ok();
    switch("/go-live/disable").await;
    refused_use(require(&service, id).await, id, "go_live_disabled");
    // The kill switch is named first.
    switch("/go-live/kill-switch/engage").await;
    refused_use(require(&service, id).await, id, "kill_switch_engaged");
    switch("/go-live/enable").await;
    refused_use(require(&service, id).await, id, "kill_switch_engaged");
    switch("/go-live/kill-switch/release").await;
    require(&service, id).await.ok();
    let reasons: Vec<Value> =
        events(&service, "&action=REQUIRE").await.iter().map(|one| one["gate_reason"].clone()).collect();
    assert_eq!(json!(reasons), json!(["gate_pass", "kill_switch_engaged", "kill_switch_engaged", "go_live_disabled"]));
}

#[tokio::test]
async fn a_development_environment_needs_no_go_live_but_heeds_the_kill_switch() {
    for env in ["development", "dev", "test"] {
        let setup = Setup { env: Some(env), ..Setup::default() };
        let service = Service::with(setup).await;
        let id = eligible(&service, "D").await;
        require(&service, id).await.ok();
        service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
        refused_use(require(&service, id).await, id, "kill_switch_engaged");
    }
    let setup = Setup { env: Some("production"), ..Setup::default() };
    let service = Service::with(setup).await;
    let id = eligible(&service, "D").await;
    refused_use(require(&service, id).await, id, "go_live_disabled");
}

#[tokio::test]
async fn midnight_does_not_void_yesterdays_pass() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    service.set_skew("1 day").await;
    require(&service, id).await.ok();
}
