//! The ledger's writer: what waits together is one transaction, what fails fails alone, a full queue says so at once, and no
//! answer is ever given that the database does not bear out, wherever the connection breaks.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

use crate::support::{Answer, Service, Setup, broken_links};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use sqlx::{Executor, Postgres, Transaction};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Operations that may wait, as the writer has it.
const QUEUE_MAX: usize = 8_192;

/// Go-live on, and no caps on RACE and GLOBAL.
async fn uncapped() -> Service {
    let service = Service::live().await;
    lift_caps(&service).await;
    connect(&service).await;
    service
}

/// Gives the writer its connection, and the connection its first commit. What finds nothing commits nothing else.
async fn connect(service: &Service) {
    let nothing = json!({"reservation_id": "00000000-0000-0000-0000-000000000001"});
    settle(service, &nothing).await.unwrap().refused(404, "NOT_FOUND");
}

async fn lift_caps(service: &Service) {
    for engine in ["GLOBAL", "RACE"] {
        let body = json!({"engine": engine, "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
            "allow_unlimited": true});
        service.post("/risk/policies/upsert", &body).await.ok();
    }
}

/// Holds the ledger's head, as another instance's writer would.
async fn hold(service: &Service) -> Transaction<'static, Postgres> {
    let mut tx = service.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM audit_head WHERE stream = 'risk' FOR UPDATE").execute(&mut *tx).await.unwrap();
    tx
}

/// The writer's backend, once it waits for the head: the service does nothing else that waits in these tests.
async fn waiting_backend(service: &Service) -> i32 {
    let sql = "SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'holdfast' AND wait_event_type = 'Lock'";
    loop {
        if let Some(pid) = sqlx::query_scalar(sql).fetch_optional(&service.pool).await.unwrap() {
            return pid;
        }
        tokio::task::yield_now().await;
    }
}

/// Terminates a backend and returns when it is gone.
async fn terminate(service: &Service, pid: i32) {
    let sql = "SELECT pg_terminate_backend($1, 10000)";
    let gone: bool = sqlx::query_scalar(sql).bind(pid).fetch_one(&service.pool).await.unwrap();
    assert!(gone);
}

fn reserve(service: &Service, actor: &str) -> JoinHandle<Answer> {
    let body = json!({"engine": "RACE", "amount": 1, "actor": actor});
    tokio::spawn(service.post("/risk/check-and-reserve", &body))
}

fn settle(service: &Service, body: &Value) -> JoinHandle<Answer> {
    tokio::spawn(service.post("/risk/settle", body))
}

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

/// On a runtime of one thread, tasks run in the order in which they were spawned: when this one has had its turn this often,
/// all that were spawned before it have come as far as they can.
async fn arrived() {
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
}

async fn all(running: Vec<JoinHandle<Answer>>) -> Vec<Answer> {
    let mut answers = Vec::with_capacity(running.len());
    for one in running {
        answers.push(one.await.unwrap());
    }
    answers
}

/// The id of a reserve that was allowed.
fn allowed(answer: Answer) -> String {
    let body = answer.ok();
    assert_eq!(body["ok"], true, "{body}");
    body["reservation_id"].as_str().unwrap().to_owned()
}

/// Asserts that these reservations and no others exist, each with its event.
async fn assert_recorded(service: &Service, ids: impl IntoIterator<Item = String>) {
    let ids: Vec<_> = ids.into_iter().collect();
    let told: BTreeSet<_> = ids.iter().cloned().collect();
    assert_eq!(told.len(), ids.len(), "two answers name one reservation");
    for sql in [
        "SELECT id::text FROM risk_reservation",
        "SELECT reservation_id::text FROM risk_event WHERE action = 'RESERVE'",
    ] {
        let recorded: Vec<String> = sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap();
        assert_eq!(recorded.len(), told.len(), "{sql}");
        assert_eq!(recorded.into_iter().collect::<BTreeSet<_>>(), told, "{sql}");
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}

const TRANSACTIONS: &str = "SELECT count(DISTINCT xmin::text) FROM risk_event";

// Batches.

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
    // What was told inside the transaction is what is told after it.
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

// Connections that break before the commit.

#[tokio::test]
async fn a_writer_whose_idle_connection_was_terminated_decides_the_next_request() {
    let service = uncapped().await;
    let tx = hold(&service).await;
    let first = reserve(&service, "test");
    let pid = waiting_backend(&service).await;
    tx.commit().await.unwrap();
    let first = allowed(first.await.unwrap());
    terminate(&service, pid).await;
    let second = allowed(reserve(&service, "test").await.unwrap());
    assert_recorded(&service, [first, second]).await;
}

#[tokio::test]
async fn a_writer_that_is_terminated_while_it_waits_decides_on_a_new_connection() {
    let service = uncapped().await;
    let first = allowed(reserve(&service, "test").await.unwrap());
    let tx = hold(&service).await;
    let second = reserve(&service, "test");
    let old = waiting_backend(&service).await;
    terminate(&service, old).await;
    assert_ne!(waiting_backend(&service).await, old);
    tx.commit().await.unwrap();
    let second = allowed(second.await.unwrap());
    assert_recorded(&service, [first, second]).await;
}

/// Takes as long as the writer's lock timeout.
#[tokio::test]
async fn a_head_that_stays_held_is_waited_for_once() {
    let service = uncapped().await;
    let first = allowed(reserve(&service, "test").await.unwrap());
    let tx = hold(&service).await;
    let waiting = reserve(&service, "test");
    let mut backends = BTreeSet::new();
    while !waiting.is_finished() {
        let sql = "SELECT pid FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'holdfast' AND wait_event_type = 'Lock'";
        let pids: Vec<i32> = sqlx::query_scalar(sql).fetch_all(&service.pool).await.unwrap();
        backends.extend(pids);
    }
    waiting.await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
    tx.commit().await.unwrap();
    assert_recorded(&service, [first]).await;
    assert_eq!(backends.len(), 1, "the whole wait was repeated on another connection");
}

// Connections that break during the commit.

/// How many keys were used.
static KEYS: AtomicU32 = AtomicU32::new(0);

/// How a reserve is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By its one statement, without holding the head: nobody else writes, and it has no key.
    Free,
    /// By a COMMIT, under the locked head.
    Locked,
}

impl Way {
    const ALL: [Self; 2] = [Self::Free, Self::Locked];

    /// What only a message to PostgreSQL that commits holds.
    const fn commit(self) -> &'static [u8] {
        match self {
            // The action of the event that it inserts.
            Self::Free => b"RESERVE",
            Self::Locked => b"COMMIT\0",
        }
    }

    fn reserve(self, service: &Service) -> JoinHandle<Answer> {
        let body = json!({"engine": "RACE", "amount": 1, "actor": "test"});
        let key = format!("key-{}", KEYS.fetch_add(1, Ordering::SeqCst));
        match self {
            Self::Free => tokio::spawn(service.post("/risk/check-and-reserve", &body)),
            Self::Locked => {
                tokio::spawn(service.post_with("/risk/check-and-reserve", ("idempotency-key", key.as_str()), &body))
            }
        }
    }
}

/// What a proxy does with the next commit that it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Armed {
    /// Nothing.
    No,
    /// Cuts both sides; the server never sees it.
    BeforeCommit,
    /// Cuts the client's side; the server never sees it, nor that its client is gone.
    Silently,
    /// Passes it on and cuts the client's side at once; the server may still be at it.
    AfterCommit,
    /// The same, and takes no new connections from then on.
    AfterCommitForGood,
    /// Takes no new connections.
    Away,
    /// Cuts the client's side and passes it on later, as a buffer on the way may.
    Late,
    /// Keeps both sides open and passes nothing on, as a half-open connection does.
    HalfOpen,
}

/// How much later that is: new decisions are long made.
const LATE: Duration = Duration::from_millis(300);

/// Stands between a service and PostgreSQL.
struct Proxy {
    armed: Arc<AtomicU8>,
    directory: PathBuf,
}

impl Proxy {
    /// A service on a database of its own, behind a proxy; the test itself looks at the database directly.
    async fn between(way: Way) -> (Self, Service) {
        let direct = uncapped().await.options.clone();
        let directory = std::env::temp_dir().join(format!("holdfast-proxy-{}", direct.get_database().unwrap()));
        let directory = directory.with_extension(std::process::id().to_string());
        std::fs::create_dir(&directory).unwrap();
        let name = format!(".s.PGSQL.{}", direct.get_port());
        let server = direct.get_socket().unwrap().join(&name);
        let listener = UnixListener::bind(directory.join(&name)).unwrap();
        let proxy = Self { armed: Arc::new(AtomicU8::new(Armed::No as u8)), directory };
        let armed = Arc::clone(&proxy.armed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if armed.load(Ordering::SeqCst) == Armed::Away as u8 {
                    continue;
                }
                let server = UnixStream::connect(&server).await.unwrap();
                tokio::spawn(relay(client, server, way, Arc::clone(&armed)));
            }
        });
        let mut service = Service::on(direct.clone().socket(&proxy.directory), Setup::default()).await;
        service.pool = PgPool::connect_lazy_with(direct.clone());
        service.options = direct;
        (proxy, service)
    }

    fn arm(&self, armed: Armed) {
        self.armed.store(armed as u8, Ordering::SeqCst);
    }

    /// Whether it has cut, as it does once each time it is armed.
    fn has_cut(&self) -> bool {
        [Armed::No as u8, Armed::Away as u8].contains(&self.armed.load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Passes bytes both ways until one side ends or the proxy does what it is armed for.
async fn relay(client: UnixStream, server: UnixStream, way: Way, armed: Arc<AtomicU8>) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(pass(from_server, to_client));
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
        let is_commit = bytes[..count].windows(way.commit().len()).any(|window| window == way.commit());
        let now = if is_commit { armed.load(Ordering::SeqCst) } else { Armed::No as u8 };
        if now == Armed::No as u8 || now == Armed::Away as u8 {
            if to_server.write_all(&bytes[..count]).await.is_err() {
                break;
            }
            continue;
        }
        let then = if now == Armed::AfterCommitForGood as u8 { Armed::Away } else { Armed::No };
        armed.store(then as u8, Ordering::SeqCst);
        if now == Armed::HalfOpen as u8 {
            std::future::pending::<()>().await;
        }
        // The client's side is cut before the server has anything to answer, so that no answer gets through.
        back.abort();
        let _ = back.await;
        drop(from_client);
        if now == Armed::Silently as u8 {
            // The server's side stays open: only the server's own limits end that transaction.
            std::future::pending::<()>().await;
        }
        if now == Armed::Late as u8 {
            tokio::time::sleep(LATE).await;
        }
        if now != Armed::BeforeCommit as u8 {
            to_server.write_all(&bytes[..count]).await.unwrap();
        }
        return;
    }
    back.abort();
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

/// Waits for whatever transaction holds the head, so that what is read afterwards is final.
async fn quiet(service: &Service) {
    hold(service).await.commit().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_breaks_before_the_commit_leaves_a_fresh_decision_and_one_reservation() {
    for way in Way::ALL {
        for armed in [Armed::BeforeCommit, Armed::Silently] {
            let (proxy, service) = Proxy::between(way).await;
            let first = allowed(way.reserve(&service).await.unwrap());
            proxy.arm(armed);
            let second = allowed(way.reserve(&service).await.unwrap());
            assert!(proxy.has_cut(), "{way:?} {armed:?}");
            quiet(&service).await;
            assert_recorded(&service, [first, second]).await;
        }
    }
}

#[tokio::test]
async fn a_half_open_connection_at_the_commit_is_given_up_and_what_came_of_it_is_told() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        let first = allowed(way.reserve(&service).await.unwrap());
        proxy.arm(Armed::HalfOpen);
        let second = way.reserve(&service).await.unwrap();
        assert!(proxy.has_cut());
        let mut told = vec![first];
        match way {
            // It is known that nothing happened, and nobody waits twice as long.
            Way::Free => assert_eq!(second.refused(503, "DATABASE_UNAVAILABLE")["retry_same_key"], true),
            // The server ends a transaction that idles, and says so on the way back.
            Way::Locked => told.push(allowed(second)),
        }
        assert_recorded(&service, told.clone()).await;
        told.push(allowed(way.reserve(&service).await.unwrap()));
        assert_recorded(&service, told).await;
    }
}

#[tokio::test]
async fn a_write_that_reaches_the_database_after_its_answer_changes_nothing() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        if way == Way::Locked {
            connect(&service).await;
        }
        proxy.arm(Armed::Late);
        let first = way.reserve(&service).await.unwrap();
        assert!(proxy.has_cut());
        let mut told = Vec::new();
        // A transaction that holds the head is waited for; what has not begun never happens.
        match way {
            Way::Free => assert_eq!(first.refused(503, "DATABASE_UNAVAILABLE")["retry_same_key"], true),
            Way::Locked => told.push(allowed(first)),
        }
        told.push(allowed(way.reserve(&service).await.unwrap()));
        proxy.arm(Armed::Late);
        told.push(allowed(way.reserve(&service).await.unwrap()));
        assert!(proxy.has_cut());
        tokio::time::sleep(2 * LATE).await;
        assert_recorded(&service, told).await;
    }
}

#[tokio::test]
async fn a_first_connection_that_breaks_before_the_commit_is_a_503_that_decided_nothing() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        proxy.arm(Armed::BeforeCommit);
        let body = way.reserve(&service).await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
        assert!(proxy.has_cut());
        assert_eq!(body["retry_same_key"], true);
        quiet(&service).await;
        assert_recorded(&service, []).await;
        let next = allowed(way.reserve(&service).await.unwrap());
        assert_recorded(&service, [next]).await;
    }
}

#[tokio::test]
async fn a_first_connection_that_breaks_at_its_confirmation_has_decided_nothing() {
    for armed in [Armed::BeforeCommit, Armed::AfterCommit, Armed::Late] {
        let (proxy, service) = Proxy::between(Way::Locked).await;
        proxy.arm(armed);
        let body = Way::Locked.reserve(&service).await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
        assert!(proxy.has_cut());
        assert_eq!(body["retry_same_key"], true);
        let next = allowed(Way::Locked.reserve(&service).await.unwrap());
        quiet(&service).await;
        assert_recorded(&service, [next]).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_commit_leaves_the_true_answer() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        let mut ids = Vec::new();
        if way == Way::Locked {
            // The first COMMIT of a connection is no batch's.
            connect(&service).await;
        }
        for _ in 0..10 {
            proxy.arm(Armed::AfterCommit);
            ids.push(allowed(way.reserve(&service).await.unwrap()));
            assert!(proxy.has_cut());
        }
        assert_recorded(&service, ids.clone()).await;
        if way == Way::Locked {
            settles_through_a_break(&proxy, &service, &ids[0]).await;
        }
    }
}

async fn settles_through_a_break(proxy: &Proxy, service: &Service, id: &str) {
    proxy.arm(Armed::AfterCommit);
    let settled = settle(service, &json!({"reservation_id": id, "realized_loss": 3})).await.unwrap().ok();
    assert!(proxy.has_cut());
    assert_eq!(json!([settled["released"], settled["ledger_engine"]["realized_loss"]]), json!([1, 3]));
    assert_eq!(service.count("SELECT count(*) FROM risk_event WHERE action = 'SETTLE'").await, 1);
}

#[tokio::test]
async fn a_whole_batch_whose_connection_breaks_at_the_commit_gets_true_answers() {
    for armed in [Armed::BeforeCommit, Armed::AfterCommit] {
        let (proxy, service) = Proxy::between(Way::Locked).await;
        // What finds nothing commits nothing. Once the connection was used, it takes the fifty into its batch: there is one commit.
        let nothing = json!({"reservation_id": "00000000-0000-0000-0000-000000000001"});
        settle(&service, &nothing).await.unwrap().refused(404, "NOT_FOUND");
        let tx = hold(&service).await;
        let plug = settle(&service, &nothing);
        waiting_backend(&service).await;
        let waiting: Vec<_> = (0..50).map(|_| reserve(&service, "test")).collect();
        arrived().await;
        proxy.arm(armed);
        tx.commit().await.unwrap();
        plug.await.unwrap().refused(404, "NOT_FOUND");
        let ids: Vec<_> = all(waiting).await.into_iter().map(allowed).collect();
        assert!(proxy.has_cut(), "{armed:?}");
        quiet(&service).await;
        assert_recorded(&service, ids).await;
        assert_eq!(service.count(TRANSACTIONS).await, 1, "{armed:?}");
    }
}

#[tokio::test]
async fn a_commit_that_cannot_be_looked_up_is_an_unknown_outcome() {
    for way in Way::ALL {
        let (proxy, service) = Proxy::between(way).await;
        let first = allowed(way.reserve(&service).await.unwrap());
        proxy.arm(Armed::AfterCommitForGood);
        let answer = way.reserve(&service).await.unwrap();
        assert!(proxy.has_cut());
        let body = answer.refused(503, "OUTCOME_UNKNOWN");
        assert_eq!(body["retry_same_key"], true);
        assert_eq!(body["reservation_id"], Value::Null);
        // While the database is away nothing can be decided, and that is known.
        let away = way.reserve(&service).await.unwrap().refused(503, "DATABASE_UNAVAILABLE");
        assert_eq!(away["retry_same_key"], true);
        proxy.arm(Armed::No);
        quiet(&service).await;
        // It had been committed; the caller was rightly not told that it had not.
        let second: String = sqlx::query_scalar("SELECT id::text FROM risk_reservation ORDER BY seq DESC LIMIT 1")
            .fetch_one(&service.pool)
            .await
            .unwrap();
        assert_ne!(second, first);
        let third = allowed(way.reserve(&service).await.unwrap());
        assert_recorded(&service, [first, second, third]).await;
    }
}

// What a writer does that is alone.

/// How often the head's turn moved.
const TURN: &str = "SELECT turn FROM audit_head WHERE stream = 'risk'";

#[tokio::test]
async fn whatever_a_reserve_rests_on_moves_the_turn_of_the_head_whoever_changes_it() {
    let service = uncapped().await;
    let mut turn = service.count(TURN).await;
    // Where replication applies a change, the head that it moved arrives by itself. And so without the key to a trip.
    let applied = "BEGIN; SET LOCAL session_replication_role = replica;
         INSERT INTO risk_throttle (engine, trip_id, created_at) VALUES ('RACE', 1, now()); COMMIT";
    service.pool.execute(applied).await.unwrap();
    assert_eq!(service.count(TURN).await, turn);
    for sql in [
        "UPDATE risk_policy SET max_open_risk = 1 WHERE engine = 'RACE'",
        "UPDATE risk_throttle SET created_at = now()",
        "DELETE FROM risk_throttle",
        "INSERT INTO risk_halt (at, differences) VALUES (now(), '[]')",
        "DELETE FROM risk_halt",
        // A repair where there was no halt.
        "DELETE FROM risk_halt",
        "UPDATE risk_policy SET max_open_risk = 0 WHERE engine = 'RACE'",
    ] {
        service.pool.execute(sql).await.unwrap();
        let now = service.count(TURN).await;
        assert!(now > turn, "{sql}");
        turn = now;
    }
    allowed(reserve(&service, "test").await.unwrap());
    assert_eq!(service.count(TURN).await, turn, "an event needs no turn");
    for sql in ["turn = turn - 1", "turn = turn + 1, at = at + interval '1 us'", "turn = turn + 1, hash = sha256('x')"]
    {
        let sql = sqlx::AssertSqlSafe(format!("UPDATE audit_head SET {sql} WHERE stream = 'risk'"));
        assert!(service.pool.execute(sql).await.is_err());
    }
}

/// A reserve that has read and waits with its write until the transaction ends; nothing else waits for that.
async fn between_read_and_write(service: &Service) -> (Transaction<'static, Postgres>, JoinHandle<Answer>) {
    allowed(reserve(service, "test").await.unwrap());
    let mut tx = service.pool.begin().await.unwrap();
    tx.execute("LOCK TABLE risk_event IN SHARE MODE").await.unwrap();
    let waiting = reserve(service, "test");
    waiting_backend(service).await;
    (tx, waiting)
}

#[tokio::test]
async fn a_change_between_the_read_and_the_write_of_a_lone_reserve_binds_it() {
    let cap = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 1});
    let disabled = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 5,
        "enabled": false});
    for (path, body, reason) in [
        ("/go-live/kill-switch/engage", json!({"reason": "stop"}), "kill_switch_engaged"),
        ("/go-live/disable", json!({"actor": "a"}), "go_live_disabled"),
        ("/risk/policies/upsert", cap, "open_risk_exceeded"),
        ("/risk/policies/upsert", disabled, "policy_disabled"),
    ] {
        let service = uncapped().await;
        // They are for changes by hand: what Holdfast itself changes does not depend on them.
        service.pool.execute("ALTER TABLE risk_policy DISABLE TRIGGER turn").await.unwrap();
        let (tx, waiting) = between_read_and_write(&service).await;
        service.post(path, &body).await.ok();
        tx.commit().await.unwrap();
        let answer = waiting.await.unwrap().ok();
        assert_eq!((&answer["ok"], &answer["reason"]), (&json!(false), &json!(reason)));
    }
}

#[tokio::test]
async fn a_lone_reserve_whose_process_was_paused_is_decided_anew() {
    let service = uncapped().await;
    let (tx, waiting) = between_read_and_write(&service).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT holdfast_now()").fetch_one(&service.pool).await.unwrap();
    tx.commit().await.unwrap();
    allowed(waiting.await.unwrap());
    let at: DateTime<Utc> =
        sqlx::query_scalar("SELECT max(at) FROM risk_event").fetch_one(&service.pool).await.unwrap();
    assert!(at > now, "{at} {now}");
}

#[tokio::test]
async fn a_lone_denial_is_decided_once() {
    let service = uncapped().await;
    let cap = json!({"engine": "RACE", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 1});
    service.post("/risk/policies/upsert", &cap).await.ok();
    allowed(reserve(&service, "test").await.unwrap());
    for denials in 1..=3 {
        assert_eq!(reserve(&service, "test").await.unwrap().ok()["reason"], "open_risk_exceeded");
        assert_eq!(service.count("SELECT denied FROM risk_denial_day").await, denials);
    }
    assert_eq!(broken_links(&service.pool).await, [""; 0]);
}
