//! Production use is earned: promotion by evidence, demotion at any time, and the review of who should have which.

use super::{UPSERT, eligible, policy, refused_use, require, trials};
use crate::support::Service;
use serde_json::{Value, json};

const PROMOTE: &str = "/heimdall/promote";
const DEMOTE: &str = "/heimdall/demote";

fn promotion(domain: &str) -> Value {
    json!({"domain": domain, "actor": "bryan", "reason": "Friday review"})
}

/// A domain that asks for four trials, by this rule.
async fn small(service: &Service, domain: &str) {
    service
        .post(UPSERT, &json!({"domain": domain, "min_sandbox_trials": 4, "scorecard_window": "ROLLING_DAYS"}))
        .await
        .ok();
}

async fn last_change(service: &Service) -> Value {
    service.get("/review").await.ok()["changes"][0].clone()
}

#[tokio::test]
async fn a_domain_that_has_not_earned_it_is_not_promoted_and_told_what_is_missing() {
    let service = Service::live().await;
    small(&service, "D").await;
    trials(&service, "D", 1, 2).await;
    let before = policy(&service, "D").await;
    let body = service.post(PROMOTE, &promotion("D")).await.refused(412, "EVIDENCE_INSUFFICIENT");
    assert_eq!(
        body["checks"],
        json!([
            {"check": "sandbox_trials", "result": "INSUFFICIENT_EVIDENCE", "reason": "insufficient_sandbox_trials", "value": 3, "threshold": 4},
            {"check": "sandbox_success_rate", "result": "FAIL", "reason": "sandbox_success_rate_below_threshold",
             "value": 0.333_333_333_333, "threshold": 0.8},
        ])
    );
    assert_eq!(
        body["detail"],
        "D has not earned production use: the number of trials is 3, at least 4 is needed; \
         the success rate is 0.333333333333, at least 0.8 is needed"
    );
    assert_eq!(
        body["blockers"][0],
        json!({"id": "sandbox_trials", "detail": "the number of trials is 3, at least 4 is needed"})
    );
    assert_eq!(policy(&service, "D").await, before);
    // A refused attempt is an event with the evidence.
    let change = last_change(&service).await;
    assert_eq!(
        json!([change["action"], change["subject"], change["ok"], change["error"], change["reason"]]),
        json!(["HEIMDALL_PROMOTE", "D", false, "EVIDENCE_INSUFFICIENT", "Friday review"])
    );
    assert_eq!(change["detail"]["standing"]["scorecard"]["trials"], 3);
    // The refusal is not kept: with the evidence the same key succeeds.
    trials(&service, "D", 9, 0).await;
    service.post_with(PROMOTE, ("idempotency-key", "k"), &promotion("D")).await.ok();
}

#[tokio::test]
async fn a_promotion_switches_production_use_on_and_keeps_its_evidence() {
    let service = Service::live().await;
    small(&service, "D").await;
    trials(&service, "D", 4, 0).await;
    let promoted = service.post(PROMOTE, &promotion("D")).await.ok();
    assert_eq!(promoted["changes"], json!([{"field": "prod_use_enabled", "from": false, "to": true}]));
    assert_eq!(
        json!([promoted["prod_use_enabled"], promoted["evidence"], promoted["version"]]),
        json!([true, "met", 2])
    );
    let kept = &promoted["promotion"];
    assert_eq!(json!([kept["by"], kept["scorecard"]["trials"], kept["checks"][1]["value"]]), json!(["bryan", 4, 1]));
    let change = last_change(&service).await;
    assert_eq!(
        json!([change["action"], change["ok"], change["detail"]["evidence"], change["detail"]["policy"]["promotion"]]),
        json!(["HEIMDALL_PROMOTE", true, "met", kept])
    );
    assert!(policy(&service, "D").await["warnings"].as_array().unwrap().is_empty());
    // The evidence of the promotion stays, whatever later trials show.
    trials(&service, "D", 0, 9).await;
    assert_eq!(policy(&service, "D").await["promotion"], *kept);
    service.post(PROMOTE, &promotion("D")).await.refused(412, "EVIDENCE_INSUFFICIENT");
    assert_eq!(policy(&service, "D").await["prod_use_enabled"], true, "a refused renewal demotes nobody");
}

#[tokio::test]
async fn each_rule_of_the_gate_is_a_rule_of_promotion() {
    let service = Service::live().await;
    service
        .post(
            UPSERT,
            &json!({"domain": "D", "gate_rule": "LCB", "calibration_gate": true, "approved_model_version": "v2"}),
        )
        .await
        .ok();
    trials(&service, "D", 60, 0).await;
    let refused = service.post(PROMOTE, &promotion("D")).await.refused(412, "EVIDENCE_INSUFFICIENT");
    let names: Vec<&Value> = refused["checks"].as_array().unwrap().iter().map(|one| &one["check"]).collect();
    assert_eq!(json!(names), json!(["sandbox_trials", "sandbox_success_rate", "calibration"]));
    for number in 0..50 {
        let trial = json!({"domain": "D", "confidence": 0.9, "success": number < 45, "model_version": "v2"});
        service.post("/heimdall/sandbox/trial", &trial).await.ok();
    }
    let promoted = service.post(PROMOTE, &promotion("D")).await.ok();
    assert_eq!(promoted["promotion"]["scorecard"]["model_version"], "v2");
    assert_eq!(promoted["promotion"]["checks"][1]["value"], 0.808_453);
}

#[tokio::test]
async fn a_promotion_names_domain_actor_and_reason() {
    let service = Service::live().await;
    let before = service.everything().await;
    for (body, field) in [
        (json!({"actor": "a", "reason": "r"}), "domain"),
        (json!({"domain": "BUYER_MATCH", "reason": "r"}), "actor"),
        (json!({"domain": "BUYER_MATCH", "actor": "a"}), "reason"),
        (json!({"domain": "BUYER_MATCH", "actor": "a", "reason": "r", "force": true}), "force"),
    ] {
        service.post(PROMOTE, &body).await.invalid(field);
    }
    service.post(PROMOTE, &promotion("NOBODYS")).await.refused(404, "NOT_FOUND");
    service.post(DEMOTE, &json!({"domain": "NOBODYS"})).await.refused(404, "NOT_FOUND");
    service.post(DEMOTE, &json!({"actor": "a"})).await.invalid("domain");
    assert_eq!(service.everything().await, before);
    service.post_form(PROMOTE, "domain=buyer_match&changed_by=a&reason=r").await.refused(412, "EVIDENCE_INSUFFICIENT");
}

#[tokio::test]
async fn a_demotion_always_works_and_binds_the_next_use() {
    let service = Service::live().await;
    let id = eligible(&service, "D").await;
    service.post(PROMOTE, &promotion("D")).await.ok();
    require(&service, id).await.ok();
    service.post("/go-live/kill-switch/engage", &json!({})).await.ok();
    let demoted = service.post(DEMOTE, &json!({"domain": "D", "actor": "ops", "reason": "odd offers"})).await.ok();
    assert_eq!(
        json!([demoted["prod_use_enabled"], demoted["evidence"], demoted["promotion"], demoted["reason"]]),
        json!([false, null, null, "odd offers"])
    );
    assert_eq!(last_change(&service).await["action"], "HEIMDALL_DEMOTE");
    refused_use(require(&service, id).await, id, "prod_use_disabled");
    // Again is nothing.
    let before = service.everything().await;
    let again = service.post(DEMOTE, &json!({"domain": "D"})).await.ok();
    assert_eq!((&again["changes"], &again["version"]), (&json!([]), &demoted["version"]));
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn production_use_that_is_switched_on_without_evidence_says_so_until_it_is_earned() {
    let service = Service::live().await;
    let on = json!({"domain": "D", "min_sandbox_trials": 4, "prod_use_enabled": true, "actor": "bryan"});
    let done = service.post(UPSERT, &on).await.ok();
    assert_eq!(done["evidence"], "not_met");
    let change = last_change(&service).await;
    assert_eq!(json!([change["action"], change["detail"]["evidence"]]), json!(["HEIMDALL_POLICY_UPSERT", "not_met"]));
    let review = service.get("/review").await.ok();
    assert_eq!(review["charter"]["evidence_not_met"][0]["domain"], "D");
    let said = "D acts in production without evidence that passed when it was switched on";
    assert!(review["look_first"].as_array().unwrap().contains(&json!(said)), "{review}");
    // Other changes leave it as it was; trials alone do not mend it; a promotion does.
    trials(&service, "D", 4, 0).await;
    let kept = service.post(UPSERT, &json!({"domain": "D", "min_confidence_prod": 0.95})).await.ok();
    assert_eq!(kept["evidence"], "not_met");
    let promoted = service.post(PROMOTE, &promotion("D")).await.ok();
    assert_eq!((&promoted["evidence"], &promoted["changes"]), (&json!("met"), &json!([])));
    assert_eq!(service.get("/review").await.ok()["charter"]["evidence_not_met"], json!([]));
    // Off and on again with evidence: it is met by an upsert, too.
    for (on, evidence) in [(false, Value::Null), (true, json!("met"))] {
        let done = service.post(UPSERT, &json!({"domain": "D", "prod_use_enabled": on})).await.ok();
        assert_eq!(done["evidence"], evidence);
        assert_eq!(done["promotion"].is_null(), !on);
    }
}

#[tokio::test]
async fn the_review_lists_who_could_be_promoted_and_who_should_be_demoted() {
    let service = Service::live().await;
    for domain in ["EARNED", "FALLEN", "GOOD", "YOUNG"] {
        small(&service, domain).await;
    }
    for domain in ["EARNED", "FALLEN", "GOOD"] {
        trials(&service, domain, 4, 0).await;
    }
    for domain in ["FALLEN", "GOOD"] {
        service.post(PROMOTE, &promotion(domain)).await.ok();
    }
    trials(&service, "FALLEN", 0, 2).await;
    let before = service.events().await;
    let review = service.get("/review").await.ok();
    let named = |list: &str| -> Vec<String> {
        let rows = review["charter"][list].as_array().unwrap();
        rows.iter().map(|row| row["domain"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(named("could_promote"), ["EARNED"]);
    assert_eq!(named("should_demote"), ["FALLEN"]);
    assert_eq!(named("evidence_not_met"), [""; 0]);
    let first = json!("FALLEN acts in production and its evidence fails: demote it, or find the cause");
    assert!(review["look_first"].as_array().unwrap().contains(&first), "{}", review["look_first"]);
    let text = service.get("/review?format=markdown").await.text;
    for line in [
        r"- Could be promoted: EARNED, sandbox_trials 4 of 4: pass, sandbox_success_rate 1 of 0.800: pass",
        r"- SHOULD BE DEMOTED: FALLEN, sandbox_trials 6 of 4: pass, sandbox_success_rate 0.667 of 0.800: FAIL",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(service.events().await, before, "a review writes nothing");
}

#[tokio::test]
async fn a_domain_that_midnight_closed_is_listed_without_an_alarm() {
    let service = Service::live().await;
    service.post(UPSERT, &json!({"domain": "D", "min_sandbox_trials": 4})).await.ok();
    trials(&service, "D", 4, 0).await;
    service.post(PROMOTE, &promotion("D")).await.ok();
    service.set_skew("1 day").await;
    let review = service.get("/review").await.ok();
    assert_eq!(review["charter"]["should_demote"][0]["checks"][0]["result"], "INSUFFICIENT_EVIDENCE");
    let alarms =
        review["look_first"].as_array().unwrap().iter().filter(|line| line.as_str().unwrap().starts_with("D "));
    assert_eq!(alarms.count(), 0, "{}", review["look_first"]);
}
