//! The status, the stable code and the title of every error: exhaustive, without a catch-all.

use super::Error;
use super::database::is_disk_full;
use crate::types::{Block, ReservationStatus};

/// One row of the table.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of the table, independent of the others")]
pub struct Row {
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// The stable code, upper case, for programs.
    pub code: &'static str,
    /// The title, the same for every occurrence.
    pub title: &'static str,
    /// Whether the guard counts it.
    pub is_counted: bool,
    /// Whether the guard records it as an event, if an authenticated caller tried to change the control plane. Refusals
    /// of the switches themselves are other events.
    pub is_noted: bool,
    /// Whether the caller should send the same request with the same key again. That is safe even if the first one may
    /// have been carried out: with its key, a request is carried out only once.
    pub retry_same_key: bool,
    /// Whether the disk of the database is full.
    pub is_disk_full: bool,
}

const fn row(status: u16, code: &'static str, title: &'static str) -> Row {
    Row { status, code, title, is_counted: false, is_noted: false, retry_same_key: false, is_disk_full: false }
}

impl Row {
    const fn noted(self) -> Self {
        Self { is_noted: true, ..self }
    }

    const fn retry_same_key(self) -> Self {
        Self { retry_same_key: true, ..self }
    }

    const fn disk_full(self) -> Self {
        Self { is_disk_full: true, ..self }
    }
}

/// Defines the rows that are counted, and the list of them. Only this makes a row a counted one, so none is missing in
/// the list.
macro_rules! counted {
    ($($name:ident = $row:expr;)+) => {
        $(const $name: Row = Row { is_counted: true, ..$row };)+

        /// Every row that is counted.
        pub(crate) const COUNTED: &[Row] = &[$($name),+];
    };
}

counted! {
    UNAUTHENTICATED = row(401, "UNAUTHENTICATED", "A token is needed");
    INVALID_TOKEN = row(401, "INVALID_TOKEN", "The token is not valid");
    INSUFFICIENT_SCOPE = row(403, "INSUFFICIENT_SCOPE", "The token lacks a scope").noted();
    OUT_OF_REACH = row(403, "OUT_OF_REACH", "The token is for other engines or domains").noted();
    BEYOND_MAX_LOSS = row(403, "OUT_OF_REACH", "The token is for smaller losses").noted();
    APPROVAL_REFUSED = row(403, "APPROVAL_REFUSED", "A second person is needed").noted();
    FOREIGN_REQUEST = row(403, "FOREIGN_REQUEST", "The request may come from a web page or a proxy");
    RATE_LIMITED = row(429, "RATE_LIMITED", "The token was used too often").retry_same_key();
}

/// The row of a reservation that was already closed, by its status.
const fn closed(status: ReservationStatus) -> Row {
    match status {
        ReservationStatus::Released => row(409, "ALREADY_RELEASED", "The reservation was released before"),
        ReservationStatus::Expired => row(409, "ALREADY_EXPIRED", "The reservation has expired"),
        ReservationStatus::Settled | ReservationStatus::Open => {
            row(409, "ALREADY_SETTLED", "The reservation was settled before")
        }
    }
}

impl Error {
    /// The row of this error.
    #[must_use]
    pub fn row(&self) -> Row {
        match self {
            Self::Malformed(_) => row(400, "MALFORMED_REQUEST", "The request cannot be read"),
            Self::Contradictory(..) => row(400, "CONTRADICTORY_INPUT", "A field is given more than once"),
            Self::AmbiguousPath { .. } => row(400, "AMBIGUOUS_PATH", "The path is ambiguous"),
            Self::Blocked { block, .. } => match block {
                Block::KillSwitchEngaged | Block::KilledLocally => {
                    row(403, "KILL_SWITCH_ENGAGED", "The kill switch is engaged")
                }
                Block::GoLiveDisabled => row(403, "GO_LIVE_DISABLED", "Go-live is disabled"),
                Block::StateStale => row(503, "STATE_STALE", "The go-live state is not known").retry_same_key(),
                Block::StateRewound => Self::StateRewound.row(),
            },
            Self::Unauthenticated => UNAUTHENTICATED,
            Self::InvalidToken(_) => INVALID_TOKEN,
            Self::InsufficientScope { .. } => INSUFFICIENT_SCOPE,
            Self::OutOfReach { .. } => OUT_OF_REACH,
            Self::BeyondMaxLoss { .. } => BEYOND_MAX_LOSS,
            Self::ApprovalRefused(_) => APPROVAL_REFUSED,
            Self::ApprovalClosed { .. } => row(409, "APPROVAL_CLOSED", "The approval request has ended").noted(),
            Self::ForeignRequest(_) => FOREIGN_REQUEST,
            Self::RateLimited { .. } => RATE_LIMITED,
            Self::AccessUnknown => row(503, "ACCESS_UNKNOWN", "The valid tokens are not known").retry_same_key(),
            Self::NotProdEligible { .. } => {
                row(403, "NOT_PROD_ELIGIBLE", "The recommendation may not be used in production")
            }
            Self::RouteNotFound => row(404, "ROUTE_NOT_FOUND", "There is no such route"),
            Self::NotFound { .. } => row(404, "NOT_FOUND", "The thing does not exist"),
            Self::MethodNotAllowed => row(405, "METHOD_NOT_ALLOWED", "The method is not allowed"),
            Self::AlreadyClosed { status, .. } => closed(*status),
            Self::LimitReached { .. } | Self::AskedTooOften { .. } => row(409, "LIMIT_REACHED", "The limit is reached"),
            Self::AnswerTooLarge { .. } => {
                row(409, "ANSWER_TOO_LARGE", "The answer would be too large").retry_same_key()
            }
            Self::NeverExpires { .. } => row(409, "NEVER_EXPIRES", "The reservation never expires"),
            Self::ReservationExists { .. } => row(409, "RESERVATION_EXISTS", "The id belongs to another reservation"),
            Self::ReservationDenied { .. } => row(409, "RESERVATION_DENIED", "The reserve was denied"),
            Self::ExtensionDenied { .. } => row(409, "EXTENSION_DENIED", "The extension was denied"),
            Self::StillUsed { .. } => row(409, "STILL_USED", "It is in use and cannot be removed"),
            Self::AdjustmentOutOfRange { .. } | Self::AdjustmentBeyondEvent { .. } => {
                row(409, "ADJUSTMENT_OUT_OF_RANGE", "The correction exceeds what was booked")
            }
            Self::WireTripped { .. } => row(409, "WIRE_TRIPPED", "The wire has tripped").noted(),
            Self::NotTripped { .. } => row(409, "NOT_TRIPPED", "The wire has not tripped"),
            Self::BaselineWorse { .. } => row(409, "BASELINE_WORSE", "The new baseline is worse").noted(),
            Self::EngineThrottled { .. } => row(409, "ENGINE_THROTTLED", "The engine is throttled").noted(),
            Self::EventIdReused { .. } => row(409, "EVENT_ID_REUSED", "The event id names another measurement"),
            Self::Archived { .. } => row(410, "ARCHIVED", "The event is archived"),
            Self::ChecklistFailed { .. } => row(412, "CHECKLIST_FAILED", "The go-live checklist does not pass"),
            Self::EvidenceInsufficient { .. } => {
                row(412, "EVIDENCE_INSUFFICIENT", "The domain has not earned production use")
            }
            Self::VersionMismatch { .. } => row(412, "VERSION_MISMATCH", "The state has changed"),
            Self::BodyTooLarge { .. } => row(413, "BODY_TOO_LARGE", "The body is too large"),
            Self::UnsupportedMediaType(_) => row(415, "UNSUPPORTED_MEDIA_TYPE", "The body's format is not supported"),
            Self::Invalid(_) => row(422, "VALIDATION_FAILED", "A field is not acceptable"),
            Self::IdempotencyKeyReused { .. } => {
                row(422, "IDEMPOTENCY_KEY_REUSED", "The key belongs to another request")
            }
            Self::ZeroMeansUnlimited { .. } => row(422, "ZERO_MEANS_UNLIMITED", "A cap of 0 removes the cap").noted(),
            Self::SeriesKind { .. } => row(422, "SERIES_KIND_MISMATCH", "The series holds the other kind of values"),
            Self::TrailDamaged(_) => row(409, "TRAIL_DAMAGED", "The audit trail is damaged"),
            Self::ClockWentBack(_) => row(503, "CLOCK_WENT_BACK", "The database clock went back").retry_same_key(),
            Self::ClockJumped(_) => row(503, "CLOCK_JUMPED", "The database clock jumped ahead").retry_same_key(),
            Self::LedgerHalted(_) => row(503, "LEDGER_HALTED", "The book does not balance").retry_same_key(),
            Self::StateRewound => row(503, "STATE_REWOUND", "The database went back").retry_same_key(),
            Self::Unavailable(error) if is_disk_full(error) => {
                row(503, "DISK_FULL", "The disk of the database is full").retry_same_key().disk_full()
            }
            Self::Unavailable(_) => row(503, "DATABASE_UNAVAILABLE", "The database cannot be reached").retry_same_key(),
            Self::Overloaded => row(503, "OVERLOADED", "Too many operations are waiting").retry_same_key(),
            Self::OutcomeUnknown(_) => row(503, "OUTCOME_UNKNOWN", "The outcome is unknown").retry_same_key(),
            Self::NotDisabled(cause) => cause.row(),
            Self::EngagedLocally { .. } => {
                row(503, "ENGAGED_LOCALLY", "Only this instance is stopped").retry_same_key()
            }
            Self::DeadlineExceeded(_) => row(503, "DEADLINE_EXCEEDED", "The request took too long").retry_same_key(),
            Self::Inconsistent(_) | Self::Database(_) | Self::Panicked => {
                row(500, "INTERNAL_ERROR", "The service failed")
            }
        }
    }
}

/// Refuses one more of a kind whose number has reached the limit of a setting.
pub(crate) fn require_room(what: &'static str, count: usize, limit: usize, setting: &'static str) -> super::Result<()> {
    if count < limit { Ok(()) } else { Err(Error::LimitReached { what, limit, setting }) }
}
