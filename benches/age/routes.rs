//! The routes that are asked, as `METHOD path`. Filters are asked with a value that is frequent, with one that only the oldest event has,
//! and with one that no event has: a route whose cost grows with the history shows it at one of them.

use crate::Result;
use crate::fill::{CAPPED, ONCE, new_id};
use crate::support::http::{self, BASE, Connection};
use crate::support::numbers::real;
use crate::support::place::Instance;
use sqlx::{PgConnection, Row};
use tokio::time::Instant;
use uuid::Uuid;

const RESERVE: &str = "POST /risk/check-and-reserve";
const SETTLE: &str = "POST /risk/settle";

/// Each of them.
pub(crate) async fn all(db: &mut PgConnection) -> Result<Vec<String>> {
    let oldest =
        sqlx::query("SELECT reservation_id::text, principal FROM risk_event WHERE seq = 1").fetch_one(db).await?;
    let (id, principal): (String, String) = (oldest.get(0), oldest.get(1));
    let none = Uuid::nil();
    let reads = [
        "/review".to_owned(),
        "/risk/ledger/today".into(),
        "/risk/reconciliation".into(),
        "/risk/policies".into(),
        format!("/risk/reservations/{id}"),
        "/risk/reservations".into(),
        "/risk/reservations?engine=AGE_3".into(),
        format!("/risk/reservations?engine={ONCE}"),
        format!("/risk/reservations?engine={CAPPED}"),
        "/risk/reservations?status=OPEN".into(),
        "/risk/reservations?status=SETTLED".into(),
        "/risk/reservations?status=RELEASED".into(),
        "/risk/reservations?status=EXPIRED".into(),
        "/risk/reservations?correlation_id=once".into(),
        "/risk/reservations?correlation_id=none".into(),
        "/risk/reservations?status=OPEN&older_than=1".into(),
        "/risk/reservations?older_than=86400".into(),
        "/risk/events".into(),
        "/risk/events?engine=AGE_3".into(),
        format!("/risk/events?engine={ONCE}"),
        "/risk/events?action=DENY".into(),
        "/risk/events?action=EXTEND".into(),
        "/risk/events?ok=false".into(),
        "/risk/events?correlation_id=once".into(),
        "/risk/events?correlation_id=none".into(),
        "/risk/events?to=2020-01-01T00:00:00Z".into(),
        "/risk/events?from=2099-01-01T00:00:00Z".into(),
        "/audit/events".into(),
        "/audit/events?order=asc".into(),
        "/audit/events?stream=risk".into(),
        format!("/audit/events?principal={principal}"),
        "/audit/events?principal=nobody".into(),
        "/audit/events?actor=bench".into(),
        "/audit/events?actor=nobody".into(),
        "/audit/events?action=EXTEND".into(),
        "/audit/events?action=RISK_POLICY_UPSERT".into(),
        format!("/audit/events?engine={ONCE}"),
        "/audit/events?domain=NONE".into(),
        "/audit/events?correlation_id=once".into(),
        "/audit/events?request_id=none".into(),
        format!("/audit/events?reservation_id={id}"),
        format!("/audit/events?reservation_id={none}"),
        "/audit/events?to=2020-01-01T00:00:00Z".into(),
        "/audit/events?from=2099-01-01T00:00:00Z".into(),
        "/go-live/events".into(),
        "/go-live/checklist".into(),
        "/go-live/state".into(),
        "/heimdall/events".into(),
        "/heimdall/recommendations".into(),
        "/heimdall/scorecard/today".into(),
        "/regression/state".into(),
        "/regression/trips".into(),
        "/instances".into(),
        "/approvals".into(),
        "/access/tokens".into(),
    ];
    let mut lines = vec![RESERVE.to_owned(), SETTLE.to_owned()];
    lines.extend(reads.into_iter().map(|path| format!("GET {path}")));
    Ok(lines)
}

/// The median of so many calls, in milliseconds.
pub(crate) async fn median(service: &Instance, line: &str, calls: u64) -> Result<f64> {
    let mut connection = Connection::open(service.addr).await?;
    let mut times = Vec::new();
    // The first call of a connection is none of the usual ones.
    for _ in 0..=calls {
        let id = new_id();
        let reserve = format!(r#"{{"engine":"AGE_3","amount":1,"actor":"bench","reservation_id":"{id}"}}"#);
        let reserve = http::post("/risk/check-and-reserve", "", &reserve);
        let request = match line {
            RESERVE => reserve,
            SETTLE => {
                connection.succeed(&reserve).await?;
                http::post("/risk/settle", "", &format!(r#"{{"reservation_id":"{id}","actor":"bench"}}"#))
            }
            read => http::get(&format!("{BASE}{}", read.trim_start_matches("GET "))),
        };
        let began = Instant::now();
        connection.succeed(&request).await.map_err(|error| format!("{line}: {error}"))?;
        times.push(began.elapsed().as_micros());
    }
    times.remove(0);
    times.sort_unstable();
    Ok(real(u64::try_from(times[times.len() / 2])?) / 1_000.0)
}
