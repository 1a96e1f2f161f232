//! Operations that wait together are one transaction, and one that fails fails alone.

use super::{TRANSACTIONS, all, allowed, arrived, assert_recorded, hold, reserve, settle, uncapped, waiting_backend};
use crate::support::{Answer, Service};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use tokio::task::JoinHandle;

/// Operations that may wait, as the writer has it.
const QUEUE_MAX: usize = 8_192;

/// A head that is held and a writer that waits for it with one reserve: whatever is sent now waits together.
struct Held {
    tx: Transaction<'static, Postgres>,
    plug: JoinHandle<Answer>,
}

impl Held {
    async fn on(service: &Service) -> Self {
        let tx = hold(service).await;
        let plug = reserve(service, "plug");
        waiting_backend(service).await;
        Self { tx, plug }
    }

    /// Lets go, after what was sent has come to the queue, and answers the reserve that was alone.
    async fn release(self) -> Answer {
        arrived().await;
        self.tx.commit().await.unwrap();
        self.plug.await.unwrap()
    }
}

#[tokio::test]
async fn operations_that_wait_together_are_one_transaction() {
    let service = uncapped().await;
    let held = Held::on(&service).await;
    let waiting: Vec<_> = (0..50).map(|_| reserve(&service, "test")).collect();
    arrived().await;
    assert!(waiting.iter().all(|one| !one.is_finished()));
    let mut ids = vec![allowed(held.release().await)];
    ids.extend(all(waiting).await.into_iter().map(allowed));
    assert_recorded(&service, ids).await;
    // The one that the writer was at, and then the fifty.
    assert_eq!(service.count(TRANSACTIONS).await, 2);
}

#[tokio::test]
async fn operations_are_decided_in_the_order_they_came() {
    let service = uncapped().await;
    let held = Held::on(&service).await;
    let waiting: Vec<_> = (0..50).map(|_| reserve(&service, "test")).collect();
    let mut ids = vec![allowed(held.release().await)];
    ids.extend(all(waiting).await.into_iter().map(allowed));
    let sql = "SELECT id::text FROM risk_reservation ORDER BY seq";
    let recorded: Vec<String> = sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap();
    assert_eq!(recorded, ids);
}

#[tokio::test]
async fn a_cap_holds_exactly_inside_one_transaction() {
    let service = uncapped().await;
    let cap = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 21, "max_open_risk": 0,
        "allow_unlimited": true});
    service.post("/risk/policies/upsert", &cap).await.ok();
    let held = Held::on(&service).await;
    let waiting: Vec<_> = (0..50).map(|_| reserve(&service, "test")).collect();
    let mut ids = vec![allowed(held.release().await)];
    for (number, answer) in all(waiting).await.into_iter().enumerate() {
        if number < 20 {
            ids.push(allowed(answer));
        } else {
            assert_eq!(answer.ok()["ok"], false, "{number}");
        }
    }
    assert_recorded(&service, ids).await;
    assert_eq!(service.count("SELECT sum(denied)::bigint FROM risk_denial_day WHERE engine = 'RACE'").await, 30);
    assert_eq!(service.count(TRANSACTIONS).await, 2);
}

#[tokio::test]
async fn one_poisonous_operation_fails_alone() {
    let service = uncapped().await;
    sqlx::query("ALTER TABLE risk_event ADD CHECK (actor IS DISTINCT FROM 'poison')")
        .execute(&service.pool)
        .await
        .unwrap();
    let held = Held::on(&service).await;
    let waiting: Vec<_> =
        (0..256).map(|number| reserve(&service, if number == 128 { "poison" } else { "good" })).collect();
    let mut ids = vec![allowed(held.release().await)];
    for (number, answer) in all(waiting).await.into_iter().enumerate() {
        if number == 128 {
            answer.refused(500, "INTERNAL_ERROR");
        } else {
            ids.push(allowed(answer));
        }
    }
    assert_eq!(ids.len(), 256);
    assert_recorded(&service, ids).await;
    assert_eq!(service.count("SELECT seq FROM audit_head WHERE stream = 'risk'").await, 256);
    // The writer is none the worse for it.
    allowed(reserve(&service, "good").await.unwrap());
}

#[tokio::test]
async fn a_full_queue_answers_503_at_once_and_never_an_approval() {
    const BEYOND: usize = 100;
    let service = uncapped().await;
    let held = Held::on(&service).await;
    // The one that is being decided has its place as well.
    let room = QUEUE_MAX - 1;
    let mut waiting: Vec<_> = (0..room + BEYOND).map(|_| reserve(&service, "test")).collect();
    // Those that found no room are answered while the head is still held: nothing was waited for.
    for refused in all(waiting.split_off(room)).await {
        assert!(refused.headers.contains_key("retry-after"));
        let body = refused.refused(503, "OVERLOADED");
        assert_eq!(body["retry_same_key"], true);
        assert_eq!(body["reservation_id"], Value::Null);
    }
    assert!(waiting.iter().all(|one| !one.is_finished()));
    assert_eq!(service.count("SELECT count(*) FROM risk_event").await, 0);
    let mut ids = vec![allowed(held.release().await)];
    ids.extend(all(waiting).await.into_iter().map(allowed));
    assert_recorded(&service, ids).await;
    // There is room again.
    allowed(reserve(&service, "test").await.unwrap());
}

#[tokio::test]
async fn a_settle_matches_a_reservation_that_was_made_in_the_same_transaction() {
    let service = uncapped().await;
    let held = Held::on(&service).await;
    let body = json!({"engine": "RACE", "amount": 5, "correlation_id": "thread"});
    let reserved = tokio::spawn(service.post("/risk/check-and-reserve", &body));
    let settled = settle(
        &service,
        &json!({"engine": "RACE", "reserved_amount": 5, "realized_loss": 2, "correlation_id": "thread"}),
    );
    // A thread without reservations, in the same transaction, takes what is oldest: the one that was there before.
    let other = settle(&service, &json!({"engine": "RACE", "reserved_amount": 3, "correlation_id": "other"}));
    let plug = allowed(held.release().await);
    let id = allowed(reserved.await.unwrap());
    let settled = settled.await.unwrap().ok();
    assert_eq!(
        settled["reservations"],
        json!([{"reservation_id": id, "released": 5, "status": "SETTLED"}]),
        "{settled}"
    );
    assert_eq!(json!([settled["released"], settled["unmatched"]]), json!([5, 0]));
    let other = other.await.unwrap().ok();
    assert_eq!(other["reservations"], json!([{"reservation_id": plug, "released": 1, "status": "SETTLED"}]), "{other}");
    assert_eq!(json!([other["released"], other["unmatched"]]), json!([1, 2]));
    assert_eq!(service.count(TRANSACTIONS).await, 2);
    let stored = service.get(&format!("/risk/reservations/{id}")).await.ok();
    assert_eq!(json!([stored["status"], stored["open_amount"]]), json!(["SETTLED", 0]));
    assert_recorded(&service, [plug, id]).await;
}

#[tokio::test]
async fn of_two_settles_of_one_reservation_in_one_transaction_the_first_wins() {
    let service = uncapped().await;
    let id = allowed(reserve(&service, "test").await.unwrap());
    let held = Held::on(&service).await;
    let first = settle(&service, &json!({"reservation_id": id, "realized_loss": 7}));
    let second = settle(&service, &json!({"reservation_id": id, "realized_loss": 9}));
    allowed(held.release().await);
    let won = first.await.unwrap().ok();
    assert_eq!(json!([won["ledger_engine"]["realized_loss"], won["released"]]), json!([7, 1]));
    let lost = second.await.unwrap().refused(409, "ALREADY_SETTLED");
    assert_eq!(lost["reservation_id"], id);
    assert_eq!(lost["settled"]["realized_loss"], 7);
    assert_eq!(lost["settled"]["reservations"], won["reservations"]);
    assert_eq!(service.count("SELECT count(*) FROM risk_event WHERE action = 'SETTLE'").await, 1);
    // The answer inside the transaction equals the one after it.
    let later = settle(&service, &json!({"reservation_id": id})).await.unwrap().refused(409, "ALREADY_SETTLED");
    assert_eq!(later["settled"], lost["settled"]);
}

/// A batch never finds less for a settle than the settle alone would have found.
#[tokio::test]
async fn original_settles_of_one_transaction_each_reach_as_far_as_alone() {
    let service = uncapped().await;
    let ids: Vec<_> =
        all((0..1_005).map(|_| reserve(&service, "test")).collect()).await.into_iter().map(allowed).collect();
    let held = Held::on(&service).await;
    let named = settle(&service, &json!({"reservation_id": ids[0]}));
    let first = settle(&service, &json!({"engine": "RACE", "reserved_amount": 1000, "correlation_id": "a"}));
    let second = settle(&service, &json!({"engine": "RACE", "reserved_amount": 4, "correlation_id": "b"}));
    let plug = allowed(held.release().await);
    let released = |settled: &Value| json!([settled["released"], settled["unmatched"]]);
    assert_eq!(released(&named.await.unwrap().ok()), json!([1, 0]));
    assert_eq!(released(&first.await.unwrap().ok()), json!([1000, 0]));
    assert_eq!(released(&second.await.unwrap().ok()), json!([4, 0]));
    let open: Vec<String> = sqlx::query_scalar("SELECT id::text FROM risk_reservation WHERE status = 'OPEN'")
        .fetch_all(&service.pool)
        .await
        .unwrap();
    assert_eq!(open, [plug]);
}

/// Books that were damaged from outside make a settle fail; what shares its transaction must not write half of it.
#[tokio::test]
async fn a_settle_that_fails_moves_nothing_through_what_shares_its_transaction() {
    let service = uncapped().await;
    let id = allowed(reserve(&service, "test").await.unwrap());
    let held = Held::on(&service).await;
    let failing = settle(&service, &json!({"reservation_id": id, "realized_loss": 5}));
    let sharing = reserve(&service, "test");
    arrived().await;
    // The waiting writer has the plug alone; the day's loss has no room from then on.
    let Held { mut tx, plug } = held;
    sqlx::query("UPDATE risk_ledger_day SET realized_loss = 1e22 WHERE engine = 'RACE'")
        .execute(&mut *tx)
        .await
        .unwrap();
    sqlx::query(
        "CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN IF new.engine = 'RACE' THEN new.realized_loss := 1e22; END IF; RETURN new; END $$",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    sqlx::query(
        "CREATE TRIGGER full_up BEFORE INSERT OR UPDATE ON risk_ledger_day FOR EACH ROW EXECUTE FUNCTION full_up()",
    )
    .execute(&mut *tx)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    allowed(plug.await.unwrap());
    failing.await.unwrap().refused(500, "INTERNAL_ERROR");
    allowed(sharing.await.unwrap());
    // Repaired, the reservation is what it was: open, and to be settled.
    sqlx::query("DROP TRIGGER full_up ON risk_ledger_day").execute(&service.pool).await.unwrap();
    sqlx::query("UPDATE risk_ledger_day SET realized_loss = 0 WHERE engine = 'RACE'")
        .execute(&service.pool)
        .await
        .unwrap();
    let stored = service.get(&format!("/risk/reservations/{id}")).await.ok();
    assert_eq!(json!([stored["status"], stored["open_amount"]]), json!(["OPEN", 1]));
    let settled = settle(&service, &json!({"reservation_id": id})).await.unwrap().ok();
    assert_eq!(settled["released"], 1);
}
