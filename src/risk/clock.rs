//! A database clock that was ahead during a reserve, and an operator's confirmation that it is right now.
//!
//! Times never run back: until the clock has caught up, each event is a microsecond after the one before, on that
//! event's business day, whose caps apply once to all of them.

use super::store;
use crate::audit::{self, ControlEvent, Origin, Stream};
use crate::db::{self, Database};
use crate::error::{Error, Result};
use crate::types::{ControlAction, Reason};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Serialize;

/// How far an event may be after the last one for the acceptance to cover it: the believed error of a clock.
const MARGIN: TimeDelta = TimeDelta::hours(1);

/// The acceptance, for the audit trail.
#[derive(Debug, Serialize)]
pub struct ClockAccepted {
    /// Seconds by which the clock is behind the last event.
    pub behind_seconds: i64,
    /// The time that the clock shows.
    pub clock: DateTime<Utc>,
    /// The time of the ledger's last event: until the clock reaches it, no event has a later day.
    pub last_event_at: DateTime<Utc>,
    /// The business day of all events until then.
    pub day: NaiveDate,
}

/// Accepts a clock that is more than an hour behind the ledger's last event, so that reserves resume. Any other clock
/// is left alone.
pub async fn accept_clock(db: &Database, reason: &Reason, origin: &Origin) -> Result<Option<ClockAccepted>> {
    let mut tx = db.begin().await?;
    // Lock order: risk, control.
    let head = db.history().lock(&mut tx, Stream::Risk).await?;
    let Some(behind_seconds) = head.clock_went_back() else {
        db::confirm(tx).await?;
        return Ok(None);
    };
    let mut control_head = db.history().lock(&mut tx, Stream::Control).await?;
    let last_event_at = head.last_at();
    let accepted = ClockAccepted { behind_seconds, clock: head.now(), last_event_at, day: head.next().day() };
    let too_far = || Error::Inconsistent(format!("the last event is of {last_event_at}"));
    let up_to = last_event_at.checked_add_signed(MARGIN).ok_or_else(too_far)?;
    store::accept_clock(&mut tx, head.now(), up_to).await?;
    audit::revise(&mut tx, Stream::Risk).await?;
    let event = ControlEvent::new(ControlAction::ClockAccept).because(reason).detail(&accepted);
    event.append(&mut tx, &mut control_head, origin).await?;
    db::commit(tx).await?;
    Ok(Some(accepted))
}
