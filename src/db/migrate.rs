//! Migrations: each is applied under a lock, in a transaction of its own, without a time limit, and reports its
//! progress.

use super::session::Purpose;
use super::{Database, OpenError, Pools};
use crate::error::Result;
use chrono::{DateTime, Utc};
use sqlx::migrate::Migrator;
use sqlx::{Connection, Executor, PgConnection, PgPool};
use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

/// How soon a migrating session ends after its process has died, even while it waits: PostgreSQL checks this often
/// whether its client is still there. A server that cannot check fails this statement, and migrates all the same.
const ORPHAN_CHECK: &str = "SET client_connection_check_interval = '500ms'";
/// How often the process checks whether a migration waits.
const LOOK: Duration = Duration::from_secs(1);

/// The progress of a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Migrating {
    /// It is running.
    Runs,
    /// It waits for a lock that another session holds.
    Waits,
}

/// The migrations inside the binary. Migrations that a newer server applied are not an error: see `schema_minimum`.
fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!("./migrations");
    migrator.set_ignore_missing(true);
    migrator
}

impl Database {
    /// Applies the migrations under a lock. A newer schema is accepted if its `schema_minimum` allows this binary.
    pub async fn migrate(&self) -> Result<(), OpenError> {
        self.migrate_telling(|_| {}).await
    }

    /// Applies the migrations and reports each change of progress. Dropping the future ends the session and its wait.
    pub async fn migrate_telling(&self, tell: impl Fn(Migrating)) -> Result<(), OpenError> {
        let Pools { sessions, pool, .. } = self.pools()?;
        let mut conn = sessions.connect(Purpose::Migration).await?;
        refuse_foreign(&mut conn).await?;
        if let Err(error) = conn.execute(ORPHAN_CHECK).await {
            tracing::debug!(%error, "a migrating session may outlive this process");
        }
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await?;
        let migrator = migrator();
        tokio::select! {
            migrated = migrator.run(&mut conn) => migrated?,
            never = watch(pool, backend, tell) => match never {},
        }
        conn.close().await?;
        self.check_schema().await
    }

    async fn check_schema(&self) -> Result<(), OpenError> {
        let needed: Option<String> = sqlx::query_scalar("SELECT value FROM setting WHERE key = 'schema_minimum'")
            .fetch_optional(&self.pools()?.pool)
            .await?;
        let needed = needed.ok_or(OpenError::SchemaMinimum("nothing".into()))?;
        let needed = needed.trim().parse().map_err(|_| OpenError::SchemaMinimum(format!("{needed:?}")))?;
        let known = newest_migration();
        if needed > known { Err(OpenError::SchemaTooNew { needed, known }) } else { Ok(()) }
    }

    /// Each migration with the time it was applied; none for a pending one.
    pub async fn migration_status(&self) -> Result<Vec<(i64, String, bool)>> {
        let mut conn = self.read().await?;
        let applied = applied_migrations(&mut conn).await?;
        Ok(migrator()
            .iter()
            .map(|migration| {
                (migration.version, migration.description.to_string(), applied.contains(&migration.version))
            })
            .collect())
    }
}

/// Refuses a schema that belongs to another application: it has tables, and none of ours. Tables of extensions do not
/// count, nor does an empty table of migrations, which a failed first migration leaves.
async fn refuse_foreign(conn: &mut PgConnection) -> Result<(), OpenError> {
    let found = sqlx::query_as::<_, (String, Option<String>)>(
        "SELECT current_schema()::text,
                (SELECT string_agg(relname, ', ' ORDER BY relname)
                 FROM (SELECT relname::text
                       FROM pg_class
                       WHERE relnamespace = current_schema()::regnamespace
                         AND relkind IN ('r', 'p', 'f')
                         AND relname <> '_sqlx_migrations'
                         AND NOT EXISTS (SELECT FROM pg_depend
                                         WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
                       ORDER BY relname
                       LIMIT 5) AS other)
         WHERE to_regclass('audit_head') IS NULL",
    );
    match found.fetch_optional(&mut *conn).await? {
        Some((schema, Some(tables))) => Err(OpenError::Foreign { schema, tables }),
        Some((schema, None)) if migrated_by_another(conn).await? => {
            Err(OpenError::Foreign { schema, tables: "_sqlx_migrations".into() })
        }
        _ => Ok(()),
    }
}

/// True if the table of migrations has rows but our first migration, which makes the audit heads, was never applied.
async fn migrated_by_another(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *conn).await?;
    if !exists {
        return Ok(false);
    }
    // Both are checked in one statement: another process may have applied our first migration since.
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM _sqlx_migrations) AND to_regclass('audit_head') IS NULL")
        .fetch_one(conn)
        .await
}

/// Reports each change between running and waiting for a lock, and logs the sessions that hold it.
async fn watch(pool: &PgPool, backend: i32, tell: impl Fn(Migrating)) -> Infallible {
    let mut before = Migrating::Runs;
    tell(before);
    loop {
        tokio::time::sleep(LOOK).await;
        // A failed check is repeated a second later.
        let Ok(held_by) = holders(pool, backend).await else { continue };
        let now = if held_by.is_some() { Migrating::Waits } else { Migrating::Runs };
        if now != before {
            before = now;
            tell(now);
            if let Some(held_by) = held_by {
                tracing::warn!(backend, held_by, "the migrations wait for a lock");
            } else {
                tracing::info!(backend, "the migrations continue");
            }
        }
    }
}

/// The sessions that block a session; none if it does not wait.
async fn holders(pool: &PgPool, backend: i32) -> Result<Option<String>> {
    let holders = sqlx::query_scalar(
        "SELECT string_agg(concat_ws(' ', pid, usename, application_name, state), '; ' ORDER BY pid)
         FROM pg_stat_activity WHERE pid = ANY (pg_blocking_pids($1))",
    );
    Ok(holders.bind(backend).fetch_one(pool).await?)
}

async fn applied_migrations(conn: &mut PgConnection) -> Result<Vec<i64>> {
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL").fetch_one(&mut *conn).await?;
    if !exists {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(conn)
        .await?)
}

/// The newest migration that this program knows.
pub(crate) fn newest_migration() -> i64 {
    static NEWEST: OnceLock<i64> = OnceLock::new();
    *NEWEST.get_or_init(|| migrator().iter().map(|migration| migration.version).max().unwrap_or(0))
}

/// Raises `schema_minimum` to a migration, so that a program that does not know it refuses to start. Says whether the
/// minimum is at least a minute old: by then, every program that started before it has written its row. The minimum of a
/// fresh schema has no age.
pub(crate) async fn require_migration(conn: &mut PgConnection, migration: i64) -> Result<bool> {
    sqlx::query!(
        "UPDATE setting SET value = $1::bigint::text, changed_at = holdfast_now()
         WHERE key = 'schema_minimum' AND value::bigint < $1",
        migration
    )
    .execute(&mut *conn)
    .await?;
    let stands = sqlx::query_scalar!(
        r#"SELECT value::bigint >= $1 AND (changed_at IS NULL OR changed_at <= holdfast_now() - interval '1 minute') AS "stands!"
           FROM setting
           WHERE key = 'schema_minimum'"#,
        migration
    )
    .fetch_optional(conn)
    .await?;
    Ok(stands == Some(true))
}

/// The time at which the first migration was applied.
pub async fn installed_at(conn: &mut PgConnection) -> Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("SELECT min(installed_on) FROM _sqlx_migrations").fetch_one(conn).await?)
}

/// The number of this binary's migrations that the database lacks.
pub async fn pending_migrations(conn: &mut PgConnection) -> Result<i64> {
    let applied = applied_migrations(conn).await?;
    let pending = migrator().iter().filter(|migration| !applied.contains(&migration.version)).count();
    Ok(i64::try_from(pending).expect("there are few migrations"))
}
