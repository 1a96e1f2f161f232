//! Limits: names, texts, objects and whole requests are taken up to them and not beyond.

use super::JSON;
use crate::support::Service;
use serde_json::json;

#[tokio::test]
async fn names_and_texts_are_taken_up_to_their_limits_and_not_beyond() {
    let service = Service::live().await;
    let risk = json!({"max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1, "engine": "E"});
    let kpi = json!({"domain": "D", "metric": "m", "success": true});
    let pack = json!({"id": "p", "status": "installed"});
    let reserve = json!({"engine": "WHOLESALE", "amount": 1});
    let by = json!({"actor": "a"});
    for (path, valid, field, unit, most) in [
        ("/risk/policies/upsert", &risk, "engine", "a", 50),
        ("/regression/kpi", &kpi, "domain", "a", 80),
        ("/regression/kpi", &kpi, "metric", "a", 64),
        ("/regression/kpi", &kpi, "event_id", "é", 200),
        ("/regression/kpi", &kpi, "correlation_id", "é", 200),
        ("/regression/kpi", &kpi, "detail", "a", 4_096),
        ("/regression/kpi", &kpi, "detail", "é", 2_048),
        ("/go-live/packs", &pack, "id", "a", 64),
        ("/go-live/packs", &pack, "name", "é", 64),
        ("/go-live/packs", &pack, "version", "é", 64),
        ("/go-live/enable", &by, "actor", "a", 200),
        ("/go-live/enable", &by, "actor", "é", 200),
        ("/go-live/enable", &by, "actor", "💣", 200),
        ("/go-live/enable", &by, "reason", "a", 1_000),
        ("/go-live/enable", &by, "reason", "💣", 1_000),
        ("/risk/check-and-reserve", &reserve, "correlation_id", "💣", 200),
        ("/risk/check-and-reserve", &reserve, "reason", "💣", 1_000),
    ] {
        let with = |count: usize| {
            let mut body = valid.clone();
            body[field] = json!(unit.repeat(count));
            body
        };
        service.post(path, &with(most)).await.ok();
        let before = service.everything().await;
        let sentence = service.post(path, &with(most + 1)).await.invalid(field);
        assert!(sentence.contains("at most") && sentence.contains("shorten it"), "{path} {field}: {sentence}");
        assert_eq!(service.everything().await, before, "{path} {field}");
    }
}

#[tokio::test]
async fn objects_are_taken_up_to_16_kib_and_kept_as_written() {
    let service = Service::live().await;
    let object = |bytes: usize| format!("{{\"b\": 1.50, \"a\": \"{}\"}}", "x".repeat(bytes - 20));
    let most = object(16 * 1024);
    assert_eq!(most.len(), 16 * 1024);
    let reserve = |metadata: &str| {
        let body = format!(r#"{{"engine":"WHOLESALE","amount":1,"metadata":{metadata}}}"#);
        service.post_text("/risk/check-and-reserve", JSON, &body)
    };
    let recommend = |name: &str, object: &str| {
        let body = format!(r#"{{"domain":"BUYER_MATCH","confidence":0.5,"{name}":{object}}}"#);
        service.post_text("/heimdall/recommend", JSON, &body)
    };
    reserve(&most).await.ok();
    recommend("recommendation", &most).await.ok();
    recommend("evidence", &most).await.ok();
    let written = service.get("/risk/events").await;
    assert!(written.text.contains(&most), "the object is kept as written");
    let before = service.everything().await;
    let beyond = object(16 * 1024 + 1);
    reserve(&beyond).await.invalid("metadata");
    recommend("recommendation", &beyond).await.invalid("recommendation");
    recommend("evidence", &beyond).await.invalid("evidence");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn the_largest_legitimate_request_fits() {
    let service = Service::live().await;
    let object = format!("{{\"a\":\"{}\"}}", "x".repeat(16 * 1024 - 8));
    let actor = "💣".repeat(200);
    let body = format!(
        r#"{{"domain":"{}","confidence":0.123456789012345678,"recommendation":{object},"evidence":{object},"actor":"{actor}","correlation_id":"{actor}"}}"#,
        "D".repeat(80)
    );
    service.post_text("/heimdall/recommend", JSON, &body).await.ok();
}

#[tokio::test]
async fn names_are_trimmed_and_in_one_case() {
    let service = Service::live().await;
    let policy = json!({"engine": " de-als_1.x ", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
    assert_eq!(service.post("/risk/policies/upsert", &policy).await.ok()["engine"], "DE-ALS_1.X");
    let kpi = json!({"domain": "\tdeals ", "metric": " Close.Rate ", "success": "yes"});
    service.post("/regression/kpi", &kpi).await.ok();
    let listed = service.get("/regression/kpi").await.ok();
    assert_eq!((&listed["items"][0]["domain"], &listed["items"][0]["metric"]), (&json!("DEALS"), &json!("close.rate")));
    for engine in ["a b", "a/b", "é", "a\nb", "ſ", "a,b", "a:b", "*", "%"] {
        let mut policy = policy.clone();
        policy["engine"] = json!(engine);
        service.post("/risk/policies/upsert", &policy).await.invalid("engine");
    }
}
