//! A domain of the charter belongs to its engine as well, where its policy names one.

use super::{call, create, new, token};
use crate::support::{BASE, Service};
use axum::http::Method;
use serde_json::{Value, json};

async fn post(service: &Service, token: &str, path: &str, body: &Value) -> Value {
    let answer = call(service, Method::POST, &format!("{BASE}{path}"), Some(token), body).await;
    json!([answer.status.as_u16(), answer.json["error"].as_str().unwrap_or_default()])
}

#[tokio::test]
async fn a_token_of_one_engine_touches_no_domain_of_another_by_any_route() {
    let service = Service::live().await;
    for engine in ["EA", "EB"] {
        let caps = json!({"engine": engine, "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
        service.post("/risk/policies/upsert", &caps).await.ok();
    }
    let policy = json!({"domain": "DB", "engine": "EB", "single_use": true, "min_sandbox_trials": 0,
        "min_sandbox_success_rate": 0, "min_confidence_prod": 0, "prod_use_enabled": true});
    service.post("/heimdall/policies/upsert", &policy).await.ok();
    let trial = json!({"domain": "DB", "confidence": 0.5, "success": true});
    service.post("/heimdall/sandbox/trial", &trial).await.ok();
    let advice = json!({"domain": "DB", "confidence": 0.5});
    let made = service.post("/heimdall/recommend", &advice).await.ok();
    let mut of_ea = new("reserve,operate,release,evidence");
    of_ea.engines = Some(vec!["EA".parse().unwrap()]);
    let of_ea = create(&service, of_ea).await;
    let of_all = token(&service, "reserve,operate,evidence").await;
    let one = format!("/heimdall/recommendations/{}", made["id"]);
    let (domain, why) = (json!({"domain": "DB"}), json!({"domain": "DB", "actor": "x", "reason": "y"}));
    let events = service.count("SELECT count(*) FROM heimdall_event").await;
    for (path, body) in [
        (format!("{one}/require-prod-eligible"), &json!({})),
        (format!("{one}/revoke"), &json!({})),
        ("/heimdall/sandbox/trial".to_owned(), &trial),
        ("/heimdall/recommend".to_owned(), &advice),
        ("/heimdall/policies/upsert".to_owned(), &domain),
        ("/heimdall/policies/remove".to_owned(), &domain),
        ("/heimdall/promote".to_owned(), &why),
        ("/heimdall/demote".to_owned(), &domain),
    ] {
        assert_eq!(post(&service, &of_ea, &path, body).await, json!([403, "OUT_OF_REACH"]), "{path}");
    }
    assert_eq!(service.count("SELECT count(*) FROM heimdall_event").await, events);
    // Its one use is still there.
    assert_eq!(post(&service, &of_all, &format!("{one}/require-prod-eligible"), &json!({})).await, json!([200, ""]));
    assert_eq!(post(&service, &of_all, &format!("{one}/revoke"), &json!({})).await, json!([200, ""]));
    // A domain that names no engine is every engine's.
    for path in ["/heimdall/sandbox/trial", "/heimdall/recommend"] {
        let mut body = trial.clone();
        body["domain"] = json!("FREE");
        if path == "/heimdall/recommend" {
            body.as_object_mut().unwrap().remove("success");
        }
        assert_eq!(post(&service, &of_ea, path, &body).await, json!([200, ""]), "{path}");
    }
}
