//! A reservation: the part of an action's amount that is not settled yet.

use crate::audit::Stamp;
use crate::types::{Amount, Engine, ReservationStatus};
use chrono::{DateTime, NaiveDate, Utc};
use uuid::Uuid;

/// A reservation and its outstanding amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The id, chosen by the caller or made by the service.
    pub id: Uuid,
    /// The event that made it.
    pub seq: i64,
    /// The engine; never GLOBAL.
    pub engine: Engine,
    /// The reserved amount; never changes.
    pub amount: Amount,
    /// The outstanding amount; more than zero exactly while the reservation is open.
    pub open_amount: Amount,
    /// The business day of the reserve.
    pub day: NaiveDate,
    /// The caller's correlation id.
    pub correlation_id: Option<String>,
    /// The time of the reserve.
    pub created_at: DateTime<Utc>,
    /// The time at which it is due; none for no expiry.
    pub expires_at: Option<DateTime<Utc>>,
    /// The recorded status; see [`Self::status_at`] for a due one.
    pub status: ReservationStatus,
    /// The time and the event that closed it; none exactly while it is open.
    pub closed: Option<Stamp>,
}

impl Reservation {
    /// True if it is open and due.
    #[must_use]
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.status == ReservationStatus::Open && self.expires_at.is_some_and(|due| due <= now)
    }

    /// True if it is open and not due.
    #[must_use]
    pub fn is_live(&self, now: DateTime<Utc>) -> bool {
        self.status == ReservationStatus::Open && !self.is_due(now)
    }

    /// The status at this time: a due reservation has expired, whether or not that is booked yet.
    #[must_use]
    pub fn status_at(&self, now: DateTime<Utc>) -> ReservationStatus {
        if self.is_due(now) { ReservationStatus::Expired } else { self.status }
    }

    pub(super) fn close(&mut self, status: ReservationStatus, stamp: Stamp) {
        self.open_amount = Amount::ZERO;
        self.status = status;
        self.closed = Some(stamp);
    }
}
