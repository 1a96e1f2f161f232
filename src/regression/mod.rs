//! Lever 4, the regression tripwire: has performance dropped? Then throttle the engine or pull the kill switch.
//!
//! Invariants:
//! - Every measurement is evaluated in the transaction that records it, by order of arrival. The next reserve after a tripping
//!   event is denied.
//! - A wire is latched: it acts once a trip, and stands tripped until somebody re-arms it. Events from before a re-arm never
//!   count again.
//! - The cost of an event does not depend on the history: the windows are three index reads of running sums.
//!
//! What changes two levers (a trip, a re-arm) is in [`crate::govern`]; this module keeps the lever's own tables.
//!
//! Statements of a measurement on an armed wire: 9 (lock, time, end of series, event, head, policy, state, sums, state).

pub mod detector;
pub mod http;
pub mod model;
pub mod store;

use crate::audit::{Head, Origin, Stamp};
use crate::error::{Error, Result};
use model::{Evaluation, KpiEvent, Mark, RegressionPolicy, Span, Window, WireState};
use sqlx::PgConnection;

/// A measurement that was recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    /// Its place in the stream.
    pub stamp: Stamp,
    /// Its place in the series.
    pub mark: Mark,
}

/// Records a measurement inside a transaction that holds the KPI head.
pub async fn record_in_tx(
    conn: &mut PgConnection,
    head: &mut Head,
    event: &KpiEvent,
    origin: &Origin,
) -> Result<Recorded> {
    let end = store::read_end(&mut *conn, &event.domain, &event.metric).await?;
    let (kind, _) = event.measurement.kind();
    if let Some(first_kind) = end.map(|end| end.kind)
        && first_kind != kind
    {
        return Err(Error::SeriesKind {
            domain: event.domain.to_string(),
            metric: event.metric.to_string(),
            kind: first_kind,
            wanted: if first_kind == "BOOLEAN" { "success" } else { "value" },
        });
    }
    let end = end.map(|end| end.mark).unwrap_or_default();
    let sum = end.sum.plus(event.measurement.addend());
    let sum =
        sum.ok_or_else(|| Error::Inconsistent(format!("the sum of {}.{} is full", event.domain, event.metric)))?;
    let mark = Mark { events: end.events + 1, sum };
    let stamp = head.next();
    let hash = head.seal(stamp, event.canonical(stamp, origin, mark).bytes());
    store::insert_event(&mut *conn, stamp, origin, event, mark, &hash).await?;
    head.store(conn).await?;
    Ok(Recorded { stamp, mark })
}

/// The windows of a wire as they stand, and what they say.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The baseline it was judged against.
    pub baseline: Window,
    /// The recent window.
    pub recent: Window,
    /// The verdict.
    pub evaluation: Evaluation,
}

/// Reads the windows of a wire inside a transaction that holds the KPI head.
pub async fn read_in_tx(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    state: &WireState,
    end: Mark,
) -> Result<Reading> {
    let span = Span::of(policy, end.events, state.watermark, state.pinned.is_some());
    let [low, high] = store::read_marks(conn, &policy.domain, &policy.metric, [span.low, span.high]).await?;
    let recent = Window::between(high, end);
    let baseline = match state.pinned {
        Some(pinned) if span.pinned => pinned,
        _ => Window::between(low, high),
    };
    Ok(Reading { baseline, recent, evaluation: model::evaluate(policy, baseline, recent) })
}
