//! Signed checkpoints: what is kept outside tells what was done inside.

use crate::support::{Service, Setup};
use holdfast::audit::Stream;
use holdfast::audit::checkpoint::{Notary, believe};
use holdfast::audit::note::Signer;
use holdfast::audit::verify::Tampering;
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor};

fn notary() -> Notary {
    Notary::new(Signer::new("test", [1; 32]).unwrap(), None, None)
}

async fn busy(notary: &Notary) -> Service {
    let service = Service::with(Setup { notary: Some(notary.clone()), ..Setup::default() }).await;
    service.post("/go-live/enable", &json!({"actor": "test"})).await.ok();
    for _ in 0..3 {
        service.reserve("WHOLESALE", "1").await.ok();
    }
    service
}

/// Does to the trail what its guards would not allow.
async fn tamper(service: &Service, sql: &str) {
    let guards = |verb: &str| {
        ["risk_event", "audit_head"].map(|table| format!("ALTER TABLE {table} {verb} TRIGGER guard;")).concat()
    };
    let sql = format!("{} {sql}; {}", guards("DISABLE"), guards("ENABLE ALWAYS"));
    service.pool.execute(AssertSqlSafe(sql)).await.unwrap();
}

#[tokio::test]
async fn a_checkpoint_names_every_head_and_is_signed() {
    let notary = notary();
    let service = busy(&notary).await;
    let answer = service.get("/audit/checkpoint").await;
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    let checkpoint = believe(&answer.text, &notary.verifier()).unwrap();
    let heads = service.get("/audit/verify").await.ok();
    for head in heads["streams"].as_array().unwrap() {
        let point = checkpoint.heads[&Stream::named(head["stream"].as_str().unwrap()).unwrap()];
        assert_eq!(point.seq, head["seq"]);
    }
    assert!(believe(&answer.text.replace("risk 3", "risk 2"), &notary.verifier()).is_err());
    let review = service.get("/review").await.ok();
    assert_eq!((&review["checkpoint"]["holds"], &review["checkpoint"]["signer"]), (&json!(true), &json!("test")));
    assert_eq!(review["checkpoint"]["heads"]["risk"], 3);
}

#[tokio::test]
async fn a_trail_whose_hashes_were_all_made_anew_is_found_by_the_checkpoint_alone() {
    let notary = notary();
    let service = busy(&notary).await;
    service.get("/audit/checkpoint").await.status.as_u16();
    // As an owner of the database would: another event, another hash, another head.
    tamper(
        &service,
        "DELETE FROM risk_event WHERE seq = 3;
         UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM risk_event WHERE seq = 2),
                               at = (SELECT at FROM risk_event WHERE seq = 2) WHERE stream = 'risk'",
    )
    .await;
    let other = Service::on(service.options.clone(), Setup::default()).await;
    assert_eq!(other.get("/audit/verify").await.ok()["ok"], true, "nothing inside tells");
    for query in ["", "?incremental=true"] {
        let found = service.get(&format!("/audit/verify{query}")).await.ok()["findings"][0].clone();
        assert_eq!((&found["kind"], &found["seq"]), (&json!("truncated"), &json!(3)), "{query}: {found}");
    }
    let refused = service.get("/audit/checkpoint").await.refused(409, "TRAIL_DAMAGED");
    assert_eq!(
        (&refused["stream"], &refused["seq"], &refused["kind"]),
        (&json!("risk"), &json!(3), &json!("truncated"))
    );
    let review = service.get("/review").await.ok();
    assert_eq!(review["checkpoint"]["holds"], false);
    let first = review["look_first"].to_string();
    assert!(first.contains("DAMAGED: risk 3: truncated") && first.contains("REWRITTEN"), "{first}");
    // The books of this test lack their event.
    service.pool.execute("DELETE FROM risk_reservation WHERE seq = 3; UPDATE risk_open SET open_amount = open_amount - 1 WHERE open_amount = 3; UPDATE risk_ledger_day SET exposure_used = exposure_used - 1, actions_count = actions_count - 1 WHERE actions_count = 3").await.unwrap();
}

#[tokio::test]
async fn damage_that_has_no_form_is_named_and_raises_the_alarm_too() {
    let event = "ALTER TABLE risk_event DROP CONSTRAINT risk_event_hash_check;
                 UPDATE risk_event SET hash = hash || '\\x00' WHERE seq = 3";
    let head = "ALTER TABLE audit_head DROP CONSTRAINT audit_head_hash_check;
                UPDATE audit_head SET hash = hash || '\\x00' WHERE stream = 'risk'";
    for (sql, kind) in [(event, "rewritten"), (head, "head_moved")] {
        let notary = notary();
        let service = busy(&notary).await;
        assert_eq!(service.get("/audit/checkpoint").await.status, 200);
        tamper(&service, sql).await;
        let found = service.get("/audit/verify?incremental=true").await.ok()["findings"][0].clone();
        assert_eq!((&found["stream"], &found["seq"], &found["kind"]), (&json!("risk"), &json!(3), &json!(kind)));
        let every = "1h".parse().unwrap();
        let verifying = service.app.trail.verifying.clone();
        let running = tokio::spawn(notary.clone().run(service.db.clone(), every, verifying));
        while notary.finding().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        running.abort();
        let refused = service.get("/audit/checkpoint").await.refused(409, "TRAIL_DAMAGED");
        assert_eq!((&refused["seq"], &refused["kind"]), (&json!(3), &json!(kind)));
        tamper(
            &service,
            "UPDATE risk_event SET hash = substr(hash, 1, 32); UPDATE audit_head SET hash = substr(hash, 1, 32)",
        )
        .await;
    }
}

#[tokio::test]
async fn without_a_key_there_is_no_checkpoint_and_the_review_says_so() {
    let service = Service::live().await;
    service.get("/audit/checkpoint").await.refused(404, "NOT_FOUND");
    assert_eq!(service.get("/review").await.ok()["checkpoint"], json!(null));
}

#[tokio::test]
async fn a_key_is_made_once_for_its_owner_alone_and_a_kept_checkpoint_is_found_again() {
    use std::os::unix::fs::PermissionsExt;
    let dir = std::env::temp_dir().join(format!("holdfast-notary-{}", std::process::id()));
    let (key, kept) = (dir.join("checkpoint.key"), dir.join("checkpoints"));
    let open = || Notary::open(&key, "a host", Some(kept.clone()));
    let (one, other) = tokio::join!(open(), open());
    let one = one.unwrap();
    assert_eq!(one.verifier(), other.unwrap().verifier());
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let service = busy(&one).await;
    let every = "1h".parse().unwrap();
    let running = tokio::spawn(one.clone().run(service.db.clone(), every, service.app.trail.verifying.clone()));
    let last = loop {
        let again = open().await.unwrap();
        assert_eq!(again.verifier(), one.verifier());
        if let Some(last) = again.last() {
            break last;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    running.abort();
    assert_eq!(last.heads[&Stream::Risk].seq, 3);
    // A file that is not a checkpoint of this key is skipped.
    std::fs::write(kept.join("29990101T000000000000Z-x.note"), "nonsense").unwrap();
    assert_eq!(open().await.unwrap().last(), Some(last));
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_damaged_trail_is_not_signed_by_the_schedule_and_leads_the_review() {
    let notary = notary();
    let service = busy(&notary).await;
    tamper(&service, "UPDATE risk_event SET actor = 'x' WHERE seq = 2").await;
    let every = "1h".parse().unwrap();
    let running = tokio::spawn(notary.clone().run(service.db.clone(), every, service.app.trail.verifying.clone()));
    while notary.finding().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    running.abort();
    assert_eq!(notary.last(), None);
    let first = service.get("/review").await.ok()["look_first"][0].clone();
    assert!(first.as_str().unwrap().contains("risk 2: edited"), "{first}");
}

/// The result of the schedule of an instance that has signed nothing yet.
async fn scheduled(service: &Service) -> Notary {
    let notary = notary();
    let every = "2s".parse().unwrap();
    let running = tokio::spawn(notary.clone().run(service.db.clone(), every, service.app.trail.verifying.clone()));
    while notary.last().is_none() && notary.finding().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    running.abort();
    notary
}

#[tokio::test]
async fn the_schedule_reads_a_long_trail_in_portions_and_names_damage_wherever_it_is() {
    let service = busy(&notary()).await;
    for from in [0, 10_000, 20_000] {
        let events: Vec<_> = (from..from + 10_000).map(|_| json!({"domain": "D", "metric": "m", "value": 1})).collect();
        service.post("/regression/kpi/batch", &json!({"events": events})).await.ok();
    }
    assert_eq!(scheduled(&service).await.last().unwrap().heads[&Stream::Kpi].seq, 30_000);
    let change = async |seq: i64, metric: &str| {
        let guard = |verb: &str| format!("ALTER TABLE kpi_event {verb} TRIGGER guard;");
        let update = format!("UPDATE kpi_event SET metric = '{metric}' WHERE seq = {seq};");
        service.pool.execute(AssertSqlSafe(guard("DISABLE") + &update + &guard("ENABLE ALWAYS"))).await.unwrap();
    };
    for seq in [1, 9_999, 10_000, 10_001, 19_998, 19_999, 25_000, 30_000] {
        change(seq, "other").await;
        let notary = scheduled(&service).await;
        let finding = notary.finding().unwrap();
        assert_eq!((finding.stream, finding.seq, finding.kind), (Stream::Kpi, seq, Tampering::Edited));
        assert_eq!(notary.last(), None);
        change(seq, "m").await;
    }
    assert!(scheduled(&service).await.finding().is_none());
}

#[tokio::test]
async fn a_trail_that_grows_while_it_is_verified_is_signed() {
    let notary = notary();
    let service = busy(&notary).await;
    let reserves = async {
        for _ in 0..100 {
            service.reserve("WHOLESALE", "1").await.ok();
        }
    };
    let checkpoints = async {
        for _ in 0..20 {
            let answer = service.get("/audit/checkpoint").await;
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
    };
    tokio::join!(reserves, checkpoints);
}

#[tokio::test]
async fn what_was_not_verified_is_not_signed_and_once_it_is_whole_again_it_is() {
    let notary = notary();
    let service = busy(&notary).await;
    service.get("/audit/checkpoint").await.status.as_u16();
    service.reserve("WHOLESALE", "1").await.ok();
    for (damage, repair, kind) in [
        (
            "UPDATE risk_event SET actor = 'x' WHERE seq = 4",
            "UPDATE risk_event SET actor = 'test' WHERE seq = 4",
            "edited",
        ),
        (
            "UPDATE audit_head SET seq = 3 WHERE stream = 'risk'",
            "UPDATE audit_head SET seq = 4 WHERE stream = 'risk'",
            "head_moved",
        ),
    ] {
        tamper(&service, damage).await;
        let refused = service.get("/audit/checkpoint").await.refused(409, "TRAIL_DAMAGED");
        assert_eq!(refused["kind"], kind);
        assert_eq!(notary.last().unwrap().heads[&Stream::Risk].seq, 3);
        tamper(&service, repair).await;
    }
    assert_eq!(service.get("/audit/checkpoint").await.status, 200);
    assert_eq!((notary.last().unwrap().heads[&Stream::Risk].seq, notary.finding()), (4, None));
}
