//! A disk on which PostgreSQL's files cannot grow any more, while its log still fits.

use crate::support::Service;
use serde_json::json;
use sqlx::Executor;

/// Every statement that adds a row to the ledger finds no room, as it is when a file cannot be extended.
const FULL: &str = "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';
    END $$;
    CREATE TRIGGER no_room BEFORE INSERT ON risk_event FOR EACH STATEMENT EXECUTE FUNCTION no_room();";
const ROOM: &str = "DROP TRIGGER no_room ON risk_event";

#[tokio::test]
async fn a_full_disk_is_said_in_answers_readiness_review_and_metrics() {
    let service = Service::live().await;
    service.pool.execute(FULL).await.unwrap();
    let asked: Vec<_> = (0..20).map(|_| tokio::spawn(service.reserve("WHOLESALE", "1"))).collect();
    for answer in asked {
        let refused = answer.await.unwrap().refused(503, "DISK_FULL");
        assert!(refused["detail"].as_str().unwrap().starts_with("the disk of the database is full"), "{refused}");
        assert_eq!(refused["retry_same_key"], true);
    }
    let ready = service.get_root("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json["reason"].as_str().unwrap().starts_with("DISK_FULL"), "{}", ready.text);
    let review = service.get("/review").await.ok();
    assert_eq!(review["answering"]["disk_full"], true);
    assert!(review["look_first"].to_string().contains("The disk of the database is full"), "{}", review["look_first"]);
    assert!(service.get_root("/metrics").await.text.contains("\nholdfast_disk_full "));
    // Every change that fits is done, so everything can be stopped.
    service.post("/go-live/kill-switch/engage", &json!({"actor": "ops"})).await.ok();
    service.post("/go-live/kill-switch/release", &json!({"actor": "ops"})).await.ok();
    service.pool.execute(ROOM).await.unwrap();
    assert_eq!(service.reserve("WHOLESALE", "1").await.ok()["ok"], true);
}

#[tokio::test]
async fn how_much_is_free_is_measured_where_the_data_is() {
    let service = Service::live().await;
    assert_eq!(service.get("/review").await.ok()["answering"]["disk_free_bytes"], json!(null));
    service.db.disk().look_at(std::env::temp_dir());
    let free = service.get("/review").await.ok()["answering"]["disk_free_bytes"].as_u64();
    assert!(free.is_some_and(|bytes| bytes > 0), "{free:?}");
    let metrics = service.get_root("/metrics").await.text;
    assert!(metrics.contains("\nholdfast_disk_free_bytes "), "{metrics}");
}
