//! A hold: what of an action's amount is not settled yet.

use crate::audit::Stamp;
use crate::types::{Amount, Engine, ReservationStatus};
use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

/// A reservation and, while it is open, its outstanding amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its id.
    pub id: Uuid,
    /// The event that made it.
    pub seq: i64,
    /// Its engine.
    pub engine: Engine,
    /// The reserved amount; never changes.
    pub amount: Amount,
    /// The outstanding amount; more than zero exactly while it is open.
    pub open_amount: Amount,
    /// The day it was reserved on.
    pub day: NaiveDate,
    /// The caller's thread.
    pub correlation_id: Option<String>,
    /// When it was reserved.
    pub created_at: DateTime<Utc>,
    /// When it is due; none means never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Where it stands.
    pub status: ReservationStatus,
    /// When and by which event it was closed; none exactly while it is open.
    pub closed: Option<Stamp>,
}

impl Reservation {
    /// Whether it is outstanding and its time is up.
    #[must_use]
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.status == ReservationStatus::Open && self.expires_at.is_some_and(|due| due <= now)
    }

    /// Whether it is outstanding, and its time is not up.
    #[must_use]
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.status == ReservationStatus::Open && !self.is_due(now)
    }

    /// Where it stands at this time: one whose time is up has expired, whether or not that is booked yet.
    #[must_use]
    pub fn status_at(&self, now: DateTime<Utc>) -> ReservationStatus {
        if self.is_due(now) { ReservationStatus::Expired } else { self.status }
    }

    /// Ends it, with nothing outstanding.
    pub(super) fn close(&mut self, status: ReservationStatus, stamp: Stamp) {
        self.open_amount = Amount::ZERO;
        self.status = status;
        self.closed = Some(stamp);
    }
}
