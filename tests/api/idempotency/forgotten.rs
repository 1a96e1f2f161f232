//! How long a key stands: through a week and what is done about old ones, and no longer.

use super::{KPI, RESERVE, TRIAL, UPSERT, done, kept_keys, keyed, replayed, reserve_of, trial_of};
use crate::support::Service;
use holdfast::idempotency::forget;
use serde_json::{Value, json};

/// A service at the noon after the one at which every test begins, so that no test runs into the next day.
struct Noon {
    service: Service,
}

impl Noon {
    async fn new() -> Self {
        let service = Service::live().await;
        let noon = Self { service };
        noon.days_later(0).await;
        noon
    }

    async fn days_later(&self, days: u32) {
        self.service.set_skew(&format!("{days} days 24 hours")).await;
    }

    /// The partitions, by how many days from the first one they are; the default one is left out.
    async fn partitions(&self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT child.relname::text
             FROM pg_inherits
             JOIN pg_class AS child ON child.oid = inhrelid
             WHERE inhparent = 'idempotency_key'::regclass AND child.relname <> 'idempotency_key_other'
             ORDER BY 1",
        )
        .fetch_all(&self.service.pool)
        .await
        .unwrap()
    }

    /// The names of the partitions of these days from today.
    async fn names(&self, ahead: std::ops::RangeInclusive<i32>) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT 'idempotency_key_' || to_char((holdfast_now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD')
             FROM generate_series($1::int, $2::int) AS n ORDER BY 1",
        )
        .bind(*ahead.start())
        .bind(*ahead.end())
        .fetch_all(&self.service.pool)
        .await
        .unwrap()
    }
}

/// Intents of every kind: kept as an answer and as a pointer.
fn intents() -> [(&'static str, Value); 4] {
    [
        (RESERVE, reserve_of(1)),
        (UPSERT, json!({"engine": "CAPITAL", "max_daily_loss": 1})),
        (TRIAL, trial_of("A")),
        (KPI, json!({"domain": "A", "metric": "m", "success": true})),
    ]
}

async fn do_all(service: &Service) -> Vec<Value> {
    let mut answers = Vec::new();
    for (path, body) in intents() {
        answers.push(done(keyed(service, path, path, &body).await));
    }
    answers
}

async fn replay_all(service: &Service, answers: &[Value]) {
    for ((path, body), answer) in intents().iter().zip(answers) {
        replayed(keyed(service, path, path, body).await, answer);
    }
}

#[tokio::test]
async fn a_key_stands_for_seven_days_and_is_forgotten_after() {
    let noon = Noon::new().await;
    let service = &noon.service;
    forget(&service.db).await.unwrap();
    let answers = do_all(service).await;
    assert_eq!(service.count("SELECT count(*) FROM idempotency_key_other").await, 0, "each day has its partition");
    for days in [1, 6, 7] {
        noon.days_later(days).await;
        replay_all(service, &answers).await;
        assert_eq!(forget(&service.db).await.unwrap(), 0);
        replay_all(service, &answers).await;
    }
    noon.days_later(8).await;
    assert_eq!(forget(&service.db).await.unwrap(), 1);
    assert_eq!(kept_keys(service).await, 0);
    let anew = do_all(service).await;
    assert_ne!(anew[0]["reservation_id"], answers[0]["reservation_id"]);
    replay_all(service, &anew).await;
}

#[tokio::test]
async fn an_answer_that_is_too_old_is_not_given_even_before_it_is_forgotten() {
    let noon = Noon::new().await;
    let service = &noon.service;
    done(keyed(service, TRIAL, "k", &trial_of("A")).await);
    done(keyed(service, RESERVE, "r", &reserve_of(1)).await);
    noon.days_later(8).await;
    // Another input is none of the old one's business either.
    done(keyed(service, TRIAL, "k", &trial_of("B")).await);
    done(keyed(service, RESERVE, "r", &reserve_of(2)).await);
}

#[tokio::test]
async fn each_day_has_a_partition_ahead_and_old_ones_are_dropped() {
    let noon = Noon::new().await;
    let service = &noon.service;
    assert_eq!(noon.partitions().await, Vec::<String>::new());
    assert_eq!(forget(&service.db).await.unwrap(), 0);
    assert_eq!(noon.partitions().await, noon.names(0..=2).await);
    noon.days_later(2).await;
    assert_eq!(forget(&service.db).await.unwrap(), 0);
    assert_eq!(noon.partitions().await, noon.names(-2..=2).await);
    noon.days_later(9).await;
    assert_eq!(forget(&service.db).await.unwrap(), 2, "two days are more than a week ago");
    assert_eq!(noon.partitions().await, [noon.names(-7..=-5).await, noon.names(0..=2).await].concat());
    assert_eq!(forget(&service.db).await.unwrap(), 0, "there is nothing left to do");
}

#[tokio::test]
async fn two_instances_may_forget_at_once() {
    let noon = Noon::new().await;
    let service = &noon.service;
    forget(&service.db).await.unwrap();
    noon.days_later(30).await;
    let (one, other) = tokio::join!(forget(&service.db), forget(&service.db));
    // One may have to wait for the other, and try again later.
    assert!(one.is_ok() || other.is_ok(), "{one:?} {other:?}");
    forget(&service.db).await.unwrap();
    assert_eq!(noon.partitions().await, noon.names(0..=2).await);
}

#[tokio::test]
async fn keys_that_came_before_their_partition_stand_as_long_and_are_forgotten_as_soon() {
    let noon = Noon::new().await;
    let service = &noon.service;
    let answers = do_all(service).await;
    assert_eq!(service.count("SELECT count(*) FROM idempotency_key_other").await, 4);
    // The whole day stays where its first key went.
    forget(&service.db).await.unwrap();
    assert_eq!(noon.partitions().await, noon.names(1..=2).await);
    replay_all(service, &answers).await;
    done(keyed(service, TRIAL, "later that day", &trial_of("A")).await);
    assert_eq!(service.count("SELECT count(*) FROM idempotency_key_other").await, 5);
    noon.days_later(7).await;
    forget(&service.db).await.unwrap();
    replay_all(service, &answers).await;
    noon.days_later(8).await;
    forget(&service.db).await.unwrap();
    assert_eq!(kept_keys(service).await, 0);
    do_all(service).await;
}

#[tokio::test]
async fn a_day_that_upkeep_never_saw_is_kept_all_the_same() {
    let noon = Noon::new().await;
    let service = &noon.service;
    forget(&service.db).await.unwrap();
    noon.days_later(5).await;
    let answers = do_all(service).await;
    assert_eq!(service.count("SELECT count(*) FROM idempotency_key_other").await, 4);
    noon.days_later(12).await;
    forget(&service.db).await.unwrap();
    replay_all(service, &answers).await;
}
