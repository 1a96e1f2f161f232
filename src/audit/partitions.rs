//! The partitions of the tables that grow with every decision: made ahead, so that each event finds its place.
//!
//! Any instance makes them, and only one at a time. Reads and writes go on meanwhile: a partition is attached empty.

use super::{Stream, between, head_seq};
use crate::db::Database;
use crate::error::database::is_partition_missing;
use crate::error::{Error, Result};
use chrono::TimeDelta;
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use std::time::Duration;

/// How often the head is compared with the last partition.
const EVERY: Duration = Duration::from_secs(10);
/// The fewest events of a partition, and of those for which there is always a place: one writer takes minutes for them.
const EVENTS_MIN: i64 = 10_000_000;
const MILLION: i64 = 1_000_000;
/// A partition holds about as many events as came in this time, so that few partitions hold a year.
const SPAN: TimeDelta = TimeDelta::days(30);
/// A maker waits for another maker, and an archive; no decision waits for it.
const PATIENCE: &str = "SET LOCAL lock_timeout = '250ms'";

/// A table in partitions by the numbers of a stream's events.
#[derive(Debug)]
pub struct Partitioned {
    /// The table.
    pub table: &'static str,
    /// The stream whose numbers bound its partitions.
    pub stream: Stream,
    /// The names of its partitions before their first number.
    prefix: &'static str,
    /// The parts of a partition that the table cannot give it.
    own: fn(&str) -> String,
}

/// Every table with partitions.
pub const ALL: [Partitioned; 3] = [
    Partitioned {
        table: "risk_event",
        stream: Stream::Risk,
        prefix: "risk_event_",
        // GET /risk/events by engine, newest first.
        own: |name| format!("CREATE INDEX {name}_engine ON {name} (engine, seq); {}", guarded(name)),
    },
    // By the event that ended the reservation.
    Partitioned {
        table: "risk_reservation_closed",
        stream: Stream::Risk,
        prefix: "risk_reservation_",
        own: |name| format!("ALTER TABLE {name} ADD PRIMARY KEY (id), REPLICA IDENTITY FULL"),
    },
    Partitioned { table: "heimdall_event", stream: Stream::Heimdall, prefix: "heimdall_event_", own: guarded },
];

/// The guard that a statement meets: the table gives its partitions only those of rows.
fn guarded(name: &str) -> String {
    format!(
        "CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON {name}
             FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
         ALTER TABLE {name} ENABLE ALWAYS TRIGGER guard_truncate"
    )
}

impl Partitioned {
    /// The name of the partition that begins with this number. The program makes every name, so none needs quoting.
    pub(super) fn name(&self, from: i64) -> String {
        format!("{}{from}", self.prefix)
    }

    /// Creates a table that can be attached as a partition.
    pub(super) async fn create(&self, conn: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
        let (parent, own) = (self.table, (self.own)(name));
        let statement = format!("CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS); {own}");
        conn.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.map(drop)
    }

    /// Attaches a created table as the partition of the numbers from `from` to before `to`.
    pub(super) async fn attach(
        &self,
        conn: &mut PgConnection,
        name: &str,
        (from, to): (i64, i64),
    ) -> Result<(), sqlx::Error> {
        let parent = self.table;
        let statement = format!("ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})");
        conn.execute(AssertSqlSafe(statement)).await.map(drop)
    }
}

/// A partition, and the numbers that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The name of its table.
    pub name: String,
    /// The first number that belongs to it.
    pub from: i64,
    /// The first number after it.
    pub to: i64,
}

/// Makes partitions ahead until the task is cancelled.
pub async fn run(db: Database) {
    let mut turns = tokio::time::interval(EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if let Err(error) = make_ahead(&db).await {
            tracing::warn!(%error, "the next partitions could not be made: trying again in {} s", EVERY.as_secs());
        }
    }
}

/// Makes the missing partitions of every table, also if those of one cannot be made. Returns how many it made.
pub async fn make_ahead(db: &Database) -> Result<usize> {
    let mut made = Ok(0);
    for table in &ALL {
        match (make_ahead_of(db, table).await, &mut made) {
            (Ok(more), Ok(made)) => *made += more,
            (Err(error), Ok(_)) => made = Err(error),
            (_, Err(_)) => {}
        }
    }
    made
}

async fn make_ahead_of(db: &Database, table: &Partitioned) -> Result<usize> {
    let mut conn = db.work().await?;
    let head = head_seq(&mut conn, table.stream).await?;
    let end = end(&list(&mut conn, table.table).await?);
    if end - head > EVENTS_MIN {
        return Ok(0);
    }
    let since = db.history().now(&mut conn).await? - SPAN;
    let recent = head - between(&mut conn, table.stream, Some(since), None).await?.0;
    drop(conn);
    // In millions, so that the tables of a stream have the same bounds.
    let size = (recent / MILLION * MILLION + MILLION).max(EVENTS_MIN);
    let mut made = 0;
    while make_next(db, table, head, size).await? {
        made += 1;
    }
    Ok(made)
}

/// Makes the next partition, if one is missing.
async fn make_next(db: &Database, table: &Partitioned, head: i64, size: i64) -> Result<bool> {
    let mut tx = db.begin().await?;
    tx.execute(PATIENCE).await?;
    let parent = table.table;
    tx.execute(AssertSqlSafe(format!("LOCK TABLE ONLY {parent} IN SHARE UPDATE EXCLUSIVE MODE"))).await?;
    let from = end(&list(&mut tx, parent).await?);
    if from - head > EVENTS_MIN {
        return Ok(false);
    }
    let to = from + size;
    let name = table.name(from);
    table.create(&mut tx, &name).await?;
    table.attach(&mut tx, &name, (from, to)).await?;
    crate::db::commit(tx).await?;
    tracing::info!(partition = name, from, to, "a partition was made");
    Ok(true)
}

/// The partitions of a table, in the order of their numbers.
pub async fn list(conn: &mut PgConnection, table: &str) -> Result<Vec<Partition>> {
    let bounds = sqlx::query!(
        r#"SELECT child.relname::text AS "name!",
                  COALESCE(substring(pg_get_expr(child.relpartbound, child.oid) FROM 'FROM \(''(\d+)')::bigint, 1) AS "from!",
                  substring(pg_get_expr(child.relpartbound, child.oid) FROM 'TO \(''(\d+)')::bigint AS "to!"
           FROM pg_inherits
           JOIN pg_class AS child ON child.oid = inhrelid
           WHERE inhparent = to_regclass($1)
           ORDER BY 2"#,
        table
    )
    .fetch_all(conn)
    .await?;
    Ok(bounds.into_iter().map(|row| Partition { name: row.name, from: row.from, to: row.to }).collect())
}

/// The first number that no partition holds.
fn end(partitions: &[Partition]) -> i64 {
    partitions.last().map_or(1, |last| last.to)
}

/// True if an event found no partition: [`make_ahead`] makes one, and the same statement succeeds.
#[must_use]
pub fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Unavailable(error) if is_partition_missing(error))
}
