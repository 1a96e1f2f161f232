//! One cluster a test process, gone when the process is; a template that each test clones.

use holdfast::db::Database;
use holdfast::postgres::{DataLifetime, Durability, EmbeddedPostgres, OwnedBy, Settings};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<EmbeddedPostgres> = OnceCell::const_new();
static NEXT: AtomicU64 = AtomicU64::new(1);

const TEMPLATE: &str = "template_holdfast";

async fn cluster() -> &'static EmbeddedPostgres {
    CLUSTER
        .get_or_init(|| async {
            let settings = Settings {
                data_dir: std::env::temp_dir().join(format!("holdfast-test-{}", std::process::id())),
                durability: Durability::None,
                lifetime: DataLifetime::Temporary,
                pg_bin_dir: pg_bin_dir(),
                owner: OwnedBy::Server,
            };
            let postgres = EmbeddedPostgres::start(settings).await.unwrap_or_else(|error| panic!("{error}"));
            make_template(&postgres.connect_options()).await;
            postgres
        })
        .await
}

/// As the program takes it from its environment.
#[expect(clippy::disallowed_methods, reason = "tests have no configuration but this")]
fn pg_bin_dir() -> Option<std::path::PathBuf> {
    std::env::var_os("PG_BIN_DIR").map(Into::into)
}

/// Migrates the template and gives it a clock that tests can move.
async fn make_template(options: &PgConnectOptions) {
    let mut admin = PgConnection::connect_with(options).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {TEMPLATE}"))).await.unwrap();
    let db = Database::open(options.clone().database(TEMPLATE)).await.unwrap();
    db.migrate().await.unwrap();
    db.close().await;
    let mut template = PgConnection::connect_with(&options.clone().database(TEMPLATE)).await.unwrap();
    template
        .execute(
            // Every test begins at noon, whenever it is run: hours that pass in it are of the same day.
            "CREATE TABLE test_clock (skew interval NOT NULL, noon interval NOT NULL);
             INSERT INTO test_clock
             SELECT '0', (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '12 hours') AT TIME ZONE 'UTC' - now();
             CREATE FUNCTION test_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS 'SELECT clock_timestamp() + (SELECT noon FROM test_clock)';
             CREATE OR REPLACE FUNCTION holdfast_now() RETURNS timestamptz LANGUAGE sql VOLATILE
                 AS 'SELECT test_now() + (SELECT skew FROM test_clock)'",
        )
        .await
        .unwrap();
    template.close().await.unwrap();
    admin.close().await.unwrap();
}

/// A database of its own for a test.
pub async fn clone_template() -> PgConnectOptions {
    let options = cluster().await.connect_options();
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut admin = PgConnection::connect_with(&options).await.unwrap();
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))).await.unwrap();
    admin.close().await.unwrap();
    options.database(&name)
}

/// The ledger's invariants, as SQL that must find nothing.
const BOOKS: &str = "
    SELECT 'open(' || engine || ') is ' || open_amount || ', its reservations say ' || held AS broken
    FROM (SELECT engine, open_amount,
                 COALESCE((SELECT sum(r.open_amount) FROM risk_reservation r
                           WHERE r.status = 'OPEN' AND (o.engine = 'GLOBAL' OR r.engine = o.engine)), 0) AS held
          FROM risk_open o) AS stock
    WHERE open_amount <> held
    UNION ALL
    SELECT 'flows of ' || d.engine || ' on ' || d.day || ' differ from their events'
    FROM risk_ledger_day d,
         LATERAL (SELECT COALESCE(sum(exposure_delta), 0) AS exposure, COALESCE(sum(loss_delta), 0) AS loss,
                         COALESCE(sum(actions_delta), 0)::bigint AS actions
                  FROM risk_event e WHERE e.day = d.day AND (d.engine = 'GLOBAL' OR e.engine = d.engine)) AS events
    WHERE (exposure_used, realized_loss, actions_count) IS DISTINCT FROM (exposure, loss, actions)
      AND d.day > (SELECT COALESCE(max((last_at AT TIME ZONE 'UTC')::date), '-infinity') FROM audit_archive WHERE stream = 'risk')
    UNION ALL
    SELECT 'open risk of ' || o.engine || ' at the end of ' || d.day || ' is ' || kept || ', its events have ' || moved
    FROM risk_open o,
         (SELECT day FROM risk_event UNION SELECT day + 1 FROM risk_event UNION SELECT day - 1 FROM risk_event) d,
         LATERAL (SELECT CASE WHEN (o.updated_at AT TIME ZONE 'UTC')::date <= d.day THEN o.open_amount
                              ELSE COALESCE((SELECT open_amount FROM risk_open_day w WHERE w.engine = o.engine AND w.day <= d.day
                                             ORDER BY w.day DESC LIMIT 1), 0) END AS kept,
                         (SELECT COALESCE(sum(open_delta), 0) FROM risk_event e
                          WHERE e.day <= d.day AND (o.engine = 'GLOBAL' OR e.engine = o.engine)) AS moved) AS both_sides
    -- A repair leaves the days that have ended as they were.
    WHERE kept <> moved AND NOT EXISTS (SELECT FROM control_event WHERE action = 'RISK_REPAIR')
      AND NOT EXISTS (SELECT FROM audit_archive WHERE stream = 'risk')
    UNION ALL
    SELECT 'denials of ' || t.engine || ' on ' || t.day || ' differ from their events'
    FROM (SELECT day, engine, scope, reason, denied FROM risk_denial_day) t
    WHERE denied <> (SELECT count(*) FROM risk_event e
                     WHERE (e.day, e.engine, e.scope, e.denial) = (t.day, t.engine, t.scope, t.reason))
    UNION ALL
    SELECT 'corrections of ' || c.corrects_seq || ' differ from their events'
    FROM risk_correction c,
         LATERAL (SELECT COALESCE(sum(loss_delta), 0) AS loss, COALESCE(sum(exposure_delta), 0) AS exposure
                  FROM risk_event e
                  WHERE e.action = 'ADJUST'
                    AND (COALESCE(e.detail::json ->> 'c', e.detail::json ->> 'corrects_seq')::bigint = c.corrects_seq
                         OR EXISTS (SELECT FROM risk_correction own WHERE own.corrects_seq = e.seq AND own.root = c.corrects_seq))) AS events
    WHERE (c.loss, c.exposure) IS DISTINCT FROM (events.loss, events.exposure)
    UNION ALL
    SELECT 'open(GLOBAL) is ' || o.open_amount || ', the engines have ' || sum(e.open_amount)
    FROM risk_open o JOIN risk_open e ON e.engine <> 'GLOBAL'
    WHERE o.engine = 'GLOBAL'
    GROUP BY o.open_amount
    HAVING o.open_amount <> sum(e.open_amount)
    UNION ALL
    SELECT 'reservation ' || r.id || ' was not made by event ' || r.seq
    FROM risk_reservation r LEFT JOIN risk_event e ON e.seq = r.seq
    WHERE r.seq > (SELECT COALESCE(max(last_seq), 0) FROM audit_archive WHERE stream = 'risk')
      AND (e.action, e.reservation_id, e.engine, e.amount, e.at, e.day)
          IS DISTINCT FROM ('RESERVE', r.id, r.engine, r.amount, r.created_at, r.day)
    UNION ALL
    SELECT 'reservation ' || r.id || ' is ' || r.status || ' by ' || COALESCE(e.action, 'nothing')
    FROM risk_reservation r LEFT JOIN risk_event e ON e.seq = r.closed_seq
    WHERE r.status <> 'OPEN'
      AND ((e.action, e.engine, e.at)
           IS DISTINCT FROM (CASE r.status WHEN 'SETTLED' THEN 'SETTLE' WHEN 'RELEASED' THEN 'RELEASE' ELSE 'EXPIRE' END,
                             r.engine, r.closed_at)
           OR COALESCE(e.reservation_id, r.id) <> r.id)
    UNION ALL
    SELECT 'event ' || e.seq || ' is a second ' || e.action || ' of ' || e.reservation_id
    FROM (SELECT seq, action, reservation_id,
                 row_number() OVER (PARTITION BY reservation_id,
                                        CASE WHEN action IN ('RELEASE', 'SETTLE') THEN 'ENDED' ELSE action END
                                    ORDER BY seq) AS nth
          FROM risk_event WHERE action IN ('RESERVE', 'SETTLE', 'RELEASE', 'EXPIRE') AND reservation_id IS NOT NULL) e
    WHERE nth > 1
    UNION ALL
    SELECT 'event ' || e.seq || ', ' || e.action || ', belongs to no reservation that it ended'
    FROM risk_event e LEFT JOIN risk_reservation r ON r.id = e.reservation_id AND r.engine = e.engine
    WHERE e.action IN ('RELEASE', 'EXPIRE')
      AND NOT COALESCE(r.closed_seq = e.seq OR (e.action = 'EXPIRE' AND r.status = 'SETTLED' AND r.closed_seq > e.seq), false)
    UNION ALL
    SELECT 'event ' || e.seq || ' names a reservation that does not exist'
    FROM risk_event e LEFT JOIN risk_reservation r ON r.id = e.reservation_id AND r.engine = e.engine
    WHERE e.reservation_id IS NOT NULL AND r.id IS NULL
    UNION ALL
    SELECT 'reservation ' || r.id || ' has ' || r.open_amount || ' open and ' || r.amount || ' less what was returned is another'
    FROM risk_reservation r
    WHERE r.status = 'OPEN' AND NOT EXISTS (SELECT FROM risk_event e WHERE e.action = 'SETTLE' AND e.reservation_id IS NULL)
      AND r.open_amount <> r.amount
    UNION ALL
    SELECT 'events of ' || day || ' have no row of ' || engine
    FROM (SELECT DISTINCT day, engine FROM risk_event WHERE (exposure_delta, loss_delta, actions_delta) <> (0, 0, 0)) e
    WHERE NOT EXISTS (SELECT FROM risk_ledger_day d WHERE (d.day, d.engine) = (e.day, e.engine))
    UNION ALL
    SELECT 'stream ' || stream || ' has gaps: head ' || seq || ', events ' || n
    FROM (SELECT stream, seq, CASE stream WHEN 'control' THEN (SELECT count(*) FROM control_event)
                                          WHEN 'risk' THEN (SELECT count(*) FROM risk_event)
                                          WHEN 'heimdall' THEN (SELECT count(*) FROM heimdall_event)
                                          ELSE (SELECT count(*) FROM kpi_event) END AS n
          FROM audit_head) h
    WHERE seq <> n + COALESCE((SELECT sum(last_seq - first_seq + 1) FROM audit_archive AS gone
                               WHERE gone.stream = h.stream AND restored_at IS NULL), 0)";

/// Panics if the books of a database do not balance. Runs on a thread of its own, since a destructor cannot wait.
pub fn check_books(options: PgConnectOptions) {
    let checked = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // A test that took its database away has nothing left to check.
            let Ok(mut conn) = PgConnection::connect_with(&options).await else {
                return Vec::new();
            };
            let rows = sqlx::query(BOOKS).fetch_all(&mut conn).await.unwrap();
            rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>()
        })
    });
    let broken = checked.join().expect("the books can be read");
    assert!(broken.is_empty(), "the books do not balance: {broken:#?}");
}
