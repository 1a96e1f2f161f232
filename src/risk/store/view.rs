//! The facts of a decision in one statement: time, switches, head and levels.

use super::columns::{amount, count, engine, total, ttl};
use crate::audit::{self, Head, Stream};
use crate::error::{Error, Result};
use crate::risk::model::{Level, RiskPolicy, Usage};
use crate::types::Engine;
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgConnection};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Prepares the statement of [`begin`] on a connection, under a name that a text without parameters can call.
pub const PREPARE_BEGIN: &str = concat!("PREPARE read_view (text[], date) AS ", include_str!("view.sql"));

/// One instant of the ledger, for the requested engines.
#[derive(Debug)]
pub struct BookView {
    /// The database's time.
    pub now: DateTime<Utc>,
    /// The day of the levels' flows.
    pub day: NaiveDate,
    /// The facts that concern every level.
    pub facts: Facts,
    /// The requested levels: policy, the day's flows, the outstanding amount.
    pub levels: BTreeMap<Engine, Level>,
    /// The ledger's head. The caller must set its time before use.
    pub head: Head,
}

/// The facts that concern every level.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// True while the kill switch is engaged.
    pub kill_switch_engaged: bool,
    /// True while go-live is enabled.
    pub go_live_enabled: bool,
    /// The version of the switches.
    pub switches_version: i64,
    /// The time since which new reserves are refused because the book does not balance; none if they are not.
    pub halted_at: Option<DateTime<Utc>>,
    /// The earliest expiry of an open hold; none if none expires.
    pub next_due: Option<DateTime<Utc>>,
}

/// A level, with the values that all levels share. The names are those of the statement, which marks the columns that
/// are never null.
#[derive(FromRow)]
struct Row {
    #[sqlx(rename = "now!")]
    now: DateTime<Utc>,
    #[sqlx(rename = "day!")]
    day: NaiveDate,
    #[sqlx(rename = "switches_version!")]
    switches_version: i64,
    #[sqlx(rename = "kill_switch_engaged!")]
    kill_switch_engaged: bool,
    #[sqlx(rename = "go_live_enabled!")]
    go_live_enabled: bool,
    #[sqlx(rename = "halted_at?")]
    halted_at: Option<DateTime<Utc>>,
    #[sqlx(rename = "next_due?")]
    next_due: Option<DateTime<Utc>>,
    #[sqlx(rename = "seq!")]
    seq: i64,
    #[sqlx(rename = "hash!")]
    hash: Vec<u8>,
    #[sqlx(rename = "at!")]
    at: DateTime<Utc>,
    #[sqlx(rename = "turn!")]
    turn: i64,
    #[sqlx(rename = "engine!")]
    engine: String,
    #[sqlx(rename = "max_daily_loss?")]
    max_daily_loss: Option<Decimal>,
    #[sqlx(rename = "max_daily_exposure?")]
    max_daily_exposure: Option<Decimal>,
    #[sqlx(rename = "max_open_risk?")]
    max_open_risk: Option<Decimal>,
    #[sqlx(rename = "max_actions_per_day?")]
    max_actions_per_day: Option<i64>,
    #[sqlx(rename = "default_ttl_seconds?")]
    default_ttl_seconds: Option<i64>,
    #[sqlx(rename = "enabled?")]
    enabled: Option<bool>,
    #[sqlx(rename = "changed_by?")]
    changed_by: Option<String>,
    #[sqlx(rename = "reason?")]
    reason: Option<String>,
    #[sqlx(rename = "policy_updated_at?")]
    policy_updated_at: Option<DateTime<Utc>>,
    #[sqlx(rename = "version?")]
    version: Option<i64>,
    #[sqlx(rename = "throttled_by!")]
    throttled_by: Vec<i64>,
    #[sqlx(rename = "open_amount?")]
    open_amount: Option<Decimal>,
    #[sqlx(rename = "exposure_used?")]
    exposure_used: Option<Decimal>,
    #[sqlx(rename = "realized_loss?")]
    realized_loss: Option<Decimal>,
    #[sqlx(rename = "actions_count?")]
    actions_count: Option<i64>,
    #[sqlx(rename = "usage_updated_at?")]
    usage_updated_at: Option<DateTime<Utc>>,
}

impl Row {
    fn view(&self) -> Result<BookView> {
        Ok(BookView {
            now: self.now,
            day: self.day,
            facts: Facts {
                kill_switch_engaged: self.kill_switch_engaged,
                go_live_enabled: self.go_live_enabled,
                switches_version: self.switches_version,
                halted_at: self.halted_at,
                next_due: self.next_due,
            },
            levels: BTreeMap::new(),
            head: audit::seen(Stream::Risk, self.seq, self.hash.clone(), self.at, self.turn)?,
        })
    }

    fn level(self) -> Result<(Engine, Level)> {
        let engine = engine(&self.engine)?;
        let caps = (self.max_daily_loss, self.max_daily_exposure, self.max_open_risk, self.max_actions_per_day);
        let policy = match caps {
            (Some(loss), Some(exposure), Some(open), Some(actions)) => Some(RiskPolicy {
                engine: engine.clone(),
                max_daily_loss: amount(loss)?,
                max_daily_exposure: amount(exposure)?,
                max_open_risk: amount(open)?,
                max_actions_per_day: count(actions)?,
                default_ttl_seconds: ttl(self.default_ttl_seconds)?,
                enabled: self.enabled.unwrap_or(false) && self.throttled_by.is_empty(),
                changed_by: self.changed_by,
                reason: self.reason,
                updated_at: self.policy_updated_at.unwrap_or_default(),
                version: self.version.unwrap_or_default(),
                throttled_by: self.throttled_by,
                enabled_by_hand: self.enabled.unwrap_or(false),
            }),
            _ => None,
        };
        let usage = Usage {
            exposure_used: total(self.exposure_used)?,
            open_risk_reserved: total(self.open_amount)?,
            realized_loss: total(self.realized_loss)?,
            actions_count: self.actions_count.unwrap_or(0),
            updated_at: self.usage_updated_at,
        };
        Ok((engine, Level { policy, usage }))
    }
}

/// The levels of these engines on a day.
pub async fn read_levels(
    conn: &mut PgConnection,
    engines: &[Engine],
    day: NaiveDate,
) -> Result<BTreeMap<Engine, Level>> {
    read(conn, engines, Some(day)).await?.into_iter().map(Row::level).collect()
}

/// An instant without the right to append to the ledger, on the database's day. Needs at least one engine.
pub async fn read_view(conn: &mut PgConnection, engines: &[Engine]) -> Result<BookView> {
    collect(read(conn, engines, None).await?)
}

/// Begins a transaction, locks the ledger's head, and then reads an instant: three statements in one round trip, each
/// of which sees the writes of the previous holder. Needs a connection with [`PREPARE_BEGIN`].
pub async fn begin(conn: &mut PgConnection, engines: &[Engine]) -> Result<BookView> {
    // Names of engines are letters, digits, `_ . -`.
    let mut read = String::from("EXECUTE read_view ('{");
    for (place, engine) in engines.iter().enumerate() {
        let _ = write!(read, r#"{}"{engine}""#, if place == 0 { "" } else { "," });
    }
    read.push_str("}', NULL)");
    let rows = audit::begin_and(conn, Stream::Risk, &read).await?;
    let rows: Result<_, sqlx::Error> = rows.iter().map(Row::from_row).collect();
    collect(rows?)
}

async fn read(conn: &mut PgConnection, engines: &[Engine], day: Option<NaiveDate>) -> Result<Vec<Row>> {
    let names: Vec<String> = engines.iter().map(ToString::to_string).collect();
    let rows = sqlx::query_file_as!(Row, "src/risk/store/view.sql", &names, day);
    Ok(rows.fetch_all(conn).await?)
}

fn collect(rows: Vec<Row>) -> Result<BookView> {
    let first = rows.first().ok_or_else(|| Error::Inconsistent("no level was requested".into()))?;
    let mut view = first.view()?;
    view.levels = rows.into_iter().map(Row::level).collect::<Result<_>>()?;
    Ok(view)
}
