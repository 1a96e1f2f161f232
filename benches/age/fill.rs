//! The history that is measured over: lifecycles of ten engines, a few of them denied, released, or left open.

use crate::Result;
use crate::support::all;
use crate::support::http::{self, Connection};
use crate::support::place::Instance;
use sqlx::{PgConnection, Row};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Engines without caps.
const ENGINES: u64 = 10;
/// The engine that denies all but its first reserve.
pub(crate) const CAPPED: &str = "AGE_CAPPED";
/// The engine of one lifecycle, the oldest of all: to find it is to look past everything that came after it.
pub(crate) const ONCE: &str = "AGE_ONCE";
/// Lifecycles of one call, and how many callers there are.
const LIFECYCLES: u64 = 400;
const CALLERS: u64 = 4;

/// The lifecycles that were begun, of all fills of this run.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Opens the ledger for business, and writes the first lifecycle.
pub(crate) async fn begin(service: &Instance) -> Result<()> {
    service.post("/go-live/enable", r#"{"actor":"bench"}"#).await?;
    let engines = (0..ENGINES).map(|number| (format!("AGE_{number}"), 0));
    for (engine, cap) in engines.chain([("GLOBAL".into(), 0), (CAPPED.into(), 1), (ONCE.into(), 0)]) {
        let policy = format!(
            r#"{{"engine":"{engine}","max_daily_loss":0,"max_daily_exposure":0,"max_open_risk":{cap},
                "allow_unlimited":true,"actor":"bench","reason":"benchmark"}}"#
        );
        service.post("/risk/policies/upsert", &policy).await?;
    }
    let mut first = String::new();
    lifecycle(&mut first, ONCE, "once", "settle");
    service.post("/risk/batch", &format!(r#"{{"operations":[{first}]}}"#)).await
}

/// Writes lifecycles until the stream has this many events.
pub(crate) async fn until(service: &Instance, db: &mut PgConnection, events: u64) -> Result<()> {
    let missing = events.saturating_sub(head(db).await?);
    // Of a hundred lifecycles 95 have two events.
    let calls = Arc::new(AtomicU64::new((missing / 2).div_ceil(LIFECYCLES)));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let mut connection = Connection::open(service.addr).await?;
        let calls = Arc::clone(&calls);
        callers.spawn(async move {
            while calls.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let answer = connection.succeed(&http::post("/risk/batch", "", &operations())).await?;
                if http::find(answer.body, b"\"status\":5").is_some() {
                    return Err(format!("a lifecycle was not written: {}", answer.excerpt()).into());
                }
            }
            Ok(())
        });
    }
    all(callers).await.map(drop)
}

pub(crate) async fn head(db: &mut PgConnection) -> Result<u64> {
    let head = sqlx::query("SELECT seq FROM audit_head WHERE stream = 'risk'").fetch_one(db).await?;
    Ok(u64::try_from(head.get::<i64, _>(0))?)
}

/// The body of a call.
fn operations() -> String {
    let mut body = String::from(r#"{"operations":["#);
    let first = BEGUN.fetch_add(LIFECYCLES, Ordering::Relaxed);
    for number in first..first + LIFECYCLES {
        let engine = format!("AGE_{}", number % ENGINES);
        let correlation = format!("deal-{number}");
        match number % 100 {
            0 => lifecycle(&mut body, CAPPED, &correlation, ""),
            1 => lifecycle(&mut body, &engine, &correlation, "release"),
            // Four of a hundred stay open.
            2..=5 => lifecycle(&mut body, &engine, &correlation, ""),
            _ => lifecycle(&mut body, &engine, &correlation, "settle"),
        }
        body.push(',');
    }
    body.pop();
    body.push_str("]}");
    body
}

/// An id that no other call of this run returns. The ids are spread, as random ones are.
pub(crate) fn new_id() -> Uuid {
    static GIVEN: AtomicU64 = AtomicU64::new(1);
    // An odd factor maps no two numbers to the same id.
    let factor = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835;
    Uuid::from_u128(u128::from(GIVEN.fetch_add(1, Ordering::Relaxed)).wrapping_mul(factor))
}

/// A reserve and, in `end`, the operation that ends it; none leaves it open.
fn lifecycle(body: &mut String, engine: &str, correlation: &str, end: &str) {
    let id = new_id();
    let caller = format!(r#""actor":"bench","correlation_id":"{correlation}""#);
    let _ = write!(body, r#"{{"op":"reserve","engine":"{engine}","amount":1,"reservation_id":"{id}",{caller}}}"#);
    if !end.is_empty() {
        let _ = write!(body, r#",{{"op":"{end}","reservation_id":"{id}",{caller}}}"#);
    }
}
