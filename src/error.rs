//! The one error table: every refusal and failure of the service, with its status, its stable code and its body.
//!
//! [`Error`] is the error type of the crate, [`Error::row`] is the table, and `docs/ERRORS.md` explains it. A failure
//! becomes an empty response that carries a [`Problem`]. The outermost middleware renders it with the request's id, so
//! that routing errors, extractor errors and panics have the same body (RFC 9457).
//!
//! A caller's mistake is answered in full, with the fix. A failure of the service is logged once, at the boundary, and
//! answered with as little as possible.

pub(crate) mod database;
mod field;
mod problem;
mod refusal;
mod table;

pub use field::{Blocker, FieldError};
pub use problem::Problem;
pub use refusal::Refusal;
pub use table::Row;
pub(crate) use table::{COUNTED, require_room};

use crate::types::{
    Amount, Block, DayRangeError, Engine, ExecutionClass, Finding, ReservationStatus, ReversedRange, Scope, Stream,
};
use database::is_unreachable;
use field::{blockers_in_words, fields_in_words};
use serde_json::value::RawValue;

/// The result of a call into this crate; its error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every refusal and failure of the service.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum Error {
    /// The request cannot be read: bad JSON, bad percent-encoding, a truncated body.
    #[error("{0}")]
    Malformed(String),
    /// A field is given twice, or differently in body and query.
    #[error("{0}")]
    Contradictory(String, FieldError),
    /// Two programs could read the path differently.
    #[error("the path is ambiguous: {reason}")]
    AmbiguousPath { reason: String },
    /// The route needs a token, and the request has none.
    #[error("a token is needed: send Authorization: Bearer hf_…, which holdfast token create makes")]
    Unauthenticated,
    /// The token is unknown, revoked, expired, or sent twice.
    #[error("the token {0}")]
    InvalidToken(&'static str),
    /// The token lacks a scope.
    #[error("{what} needs the scope {}, which the token does not have", .needed.as_str())]
    InsufficientScope { needed: Scope, what: &'static str },
    /// The token is for other engines or domains.
    #[error("the token does not reach the {what} {name}: use one that does (see holdfast token list)")]
    OutOfReach { what: &'static str, name: String },
    /// The loss, or the use beyond the reservation, is larger than the token may book at once.
    #[error("the token may book {what} of up to {bound} at once, and this is {amount}: use a token without that bound")]
    BeyondMaxLoss { what: &'static str, amount: Amount, bound: Amount },
    /// The second person is missing, or is the person who made the request.
    #[error("two_person_release {0}")]
    ApprovalRefused(&'static str),
    /// The token has requested too many changes within the lifetime of an approval request.
    #[error(
        "a token may request {limit} changes within {minutes} minutes, and this one has reached that: wait until the \
         oldest expires"
    )]
    AskedTooOften { limit: usize, minutes: i64 },
    /// The approval request has ended.
    #[error("approval {id} {how}")]
    ApprovalClosed { id: i64, how: String },
    /// In open mode, the request may not come from this machine's operator.
    #[error("without tokens only this machine's operator is served, and {0}: create a token and send it")]
    ForeignRequest(String),
    /// The token has exceeded its rate.
    #[error("the token has used up its rate: wait, or create one with a higher rate_per_second")]
    RateLimited { wait: std::time::Duration },
    /// The valid tokens are not known.
    #[error(
        "the valid tokens are not known, because the database is away or slow: try again (to stop everything without \
         it, run holdfast \
         kill on each machine)"
    )]
    AccessUnknown,
    /// The gate is closed.
    #[error("{}", .block.message())]
    Blocked { block: Block, exec_class: ExecutionClass, path: String, state_version: Option<i64> },
    /// The recommendation may not be used in production.
    #[error("recommendation {id} may not be used in production: {gate_reason}")]
    NotProdEligible { id: i64, domain: String, gate_reason: &'static str },
    /// No route has this path.
    #[error("there is no such route: see /docs/ for all of them")]
    RouteNotFound,
    /// The thing that the request names does not exist.
    #[error("there is no {what} {id}")]
    NotFound { what: &'static str, id: String },
    /// The route exists with another method.
    #[error("this route does not accept that method: the Allow header lists those that it accepts")]
    MethodNotAllowed,
    /// The reservation ended before. Nothing was changed.
    #[error("reservation {reservation_id} was {} at {closed_at}: nothing was changed; {}", .status.as_str().to_ascii_lowercase(), .status.next_step())]
    AlreadyClosed { reservation_id: uuid::Uuid, status: ReservationStatus, closed_at: String, outcome: Box<RawValue> },
    /// The number of a kind has reached its limit.
    #[error("there are already {limit} {what}, the limit set by {setting}: use an existing one, or raise {setting}")]
    LimitReached { what: &'static str, limit: usize, setting: &'static str },
    /// The outcome was recorded before and is too large to be repeated in the same answer.
    #[error(
        "the outcome was recorded before, has {bytes} bytes, and no longer fits into this answer: nothing was done; \
         send the \
         operation with its key in a request of its own"
    )]
    AnswerTooLarge { bytes: usize },
    /// A hold without an expiry cannot be extended.
    #[error("reservation {reservation_id} never expires: there is nothing to extend")]
    NeverExpires { reservation_id: uuid::Uuid },
    /// The id that the caller chose belongs to another reservation.
    #[error("reservation {reservation_id} already exists with other values in {fields:?}: choose a new id")]
    ReservationExists { reservation_id: uuid::Uuid, fields: Vec<&'static str> },
    /// A reserve was denied on a route that answers a denial with an error status.
    #[error("{message}")]
    ReservationDenied { message: String, members: Vec<(&'static str, Box<RawValue>)> },
    /// The ledger denied an extension.
    #[error("{message}")]
    ExtensionDenied { message: String, members: Vec<(&'static str, Box<RawValue>)> },
    /// A correction would take back more than was booked today.
    #[error("{counter} of {engine} would leave its range on {day}: correct by at most what was booked that day")]
    AdjustmentOutOfRange { engine: Engine, counter: &'static str, day: chrono::NaiveDate },
    /// The thing cannot be removed, because it was used or is in force.
    #[error("the {what} {name} cannot be removed: {}", uses.join("; "))]
    StillUsed { what: &'static str, name: String, uses: Vec<String> },
    /// A correction would take back more than its event booked.
    #[error(
        "after earlier corrections, {left} of {counter} of event {corrects_seq} can still be taken back: correct by at \
         most that"
    )]
    AdjustmentBeyondEvent { corrects_seq: i64, engine: Engine, counter: &'static str, left: crate::types::Total },
    /// An upsert would re-arm a tripped wire without a reason, or a reset would change the baseline of a tripped wire.
    #[error("the wire {domain}.{metric} tripped (trip {trip_id}): re-arm it first, and give a reason")]
    WireTripped { domain: String, metric: String, trip_id: i64 },
    /// Only a tripped wire can be acknowledged or re-armed, and this one has not tripped.
    #[error("the wire {domain}.{metric} has not tripped: nothing to acknowledge or re-arm")]
    NotTripped { domain: String, metric: String },
    /// The new baseline is worse than the current one by at least half of the drop that trips.
    #[error(
        "the new baseline of {domain}.{metric} is worse than the current one, by {}: it would hide a drop; send \
         force=true \
         if it is intended",
        .drop.short()
    )]
    BaselineWorse { domain: String, metric: String, drop: crate::types::Ratio },
    /// An upsert would lift throttles without a reason.
    #[error("{engine} is throttled by the trips {trips:?}: give a reason to override them, or re-arm the wires")]
    EngineThrottled { engine: String, trips: Vec<i64> },
    /// The `event_id` was used before for another measurement.
    #[error(
        "event_id {event_id} already names another measurement that you sent for this series, which differs in \
         {fields:?}: use a new event_id"
    )]
    EventIdReused { event_id: String, fields: Vec<&'static str> },
    /// The go-live checklist does not pass.
    #[error("the go-live checklist does not pass: {}", blockers_in_words(.blockers))]
    ChecklistFailed { blockers: Vec<Blocker>, checklist: Box<RawValue> },
    /// The domain has not earned production use.
    #[error("{domain} has not earned production use: {}", blockers_in_words(.blockers))]
    EvidenceInsufficient { domain: String, blockers: Vec<Blocker>, checks: Box<RawValue> },
    /// `If-Match` names another version than the current one.
    #[error("the state is at version {actual}, not {expected}: read it again and decide again")]
    VersionMismatch { expected: String, actual: i64 },
    /// The body is larger than the limit.
    #[error("the body is larger than {limit} bytes: send less")]
    BodyTooLarge { limit: usize },
    /// The body has a content type that the service does not read.
    #[error("cannot read {0}: send application/json or application/x-www-form-urlencoded, in UTF-8")]
    UnsupportedMediaType(String),
    /// Some fields were read and are not acceptable.
    #[error("{}", fields_in_words(.0))]
    Invalid(Vec<FieldError>),
    /// The key belongs to a request with another input.
    #[error("the idempotency key {key:?} belongs to another request, which differs in {}: use a new key", .fields.join(", "))]
    IdempotencyKeyReused { key: String, fields: Vec<String> },
    /// A cap of 0 would remove the cap.
    #[error("a cap of 0 means no cap: send allow_unlimited=true if that is intended, or a positive {}", .fields.join(", "))]
    ZeroMeansUnlimited { fields: Vec<&'static str> },
    /// The series holds the other kind of values.
    #[error("{domain}.{metric} is a {kind} series: send {wanted}, or have an operator set its kind")]
    SeriesKind { domain: String, metric: String, kind: &'static str, wanted: &'static str },
    /// The database clock is behind times that are already recorded.
    #[error(
        "the database clock is {0} seconds behind the last recorded event: reserves are halted until it is right, or \
         until somebody confirms it with holdfast db accept-clock"
    )]
    ClockWentBack(i64),
    /// The database clock is far ahead of this process's clock.
    #[error(
        "the database clock jumped {0} seconds ahead: reserves are halted; they resume by themselves once the clock is \
         right again, or \
         once the machine's clock and the database's have agreed for a minute"
    )]
    ClockJumped(i64),
    /// The ledger's counters do not match its reservations and events.
    #[error("the book did not balance at {0}: new reserves are halted until `holdfast risk reconcile --repair`")]
    LedgerHalted(chrono::DateTime<chrono::Utc>),
    /// The database went back, as after a restore: engaged prohibitions or given answers may be missing.
    #[error("{}", Block::StateRewound.message())]
    StateRewound,
    /// The database cannot be reached, or not soon enough.
    #[error("{}", database::sentence(.0))]
    Unavailable(#[source] sqlx::Error),
    /// More operations are waiting than can be decided in time.
    #[error("too many operations are waiting: nothing was decided, try again")]
    Overloaded,
    /// The connection broke during a commit.
    #[error(
        "the database connection broke while the outcome was being recorded: send the same request with the same key \
         again, or read the \
         state first"
    )]
    OutcomeUnknown(#[source] sqlx::Error),
    /// The kill switch could not be engaged in the database; this instance is stopped all the same.
    #[error(
        "the kill switch could not be recorded ({cause}): from now on only this instance blocks, {until}; engage again \
         until it is \
         recorded"
    )]
    EngagedLocally { cause: String, until: &'static str },
    /// The change of go-live to off may not have been recorded.
    #[error(
        "go-live may still be enabled: {}; to stop everything without the database, POST /api/governance/go-live/kill-switch/engage to each instance, or run holdfast \
         kill on each machine",
        .0.problem().detail
    )]
    NotDisabled(#[source] Box<Error>),
    /// The request took longer than its deadline.
    #[error("the request took longer than {0} seconds: send it with the same key again, or read the state first")]
    DeadlineExceeded(u64),
    /// The audit trail differs from what was appended.
    #[error("the audit trail is damaged: {0}")]
    TrailDamaged(Box<Finding>),
    /// The request needs an event that is in a file and no longer in the database.
    #[error(
        "{what} is archived: events {first} to {last} of {} are in the file {file}; read them there, or bring them back \
         with holdfast archive restore",
        .stream.as_str()
    )]
    Archived { what: String, stream: Stream, first: i64, last: i64, file: String },
    /// The database holds a value that must not occur.
    #[error("inconsistent data: {0}")]
    Inconsistent(String),
    /// A bug, or a refusal by the database that has no row of its own.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// A handler panicked.
    #[error("a handler panicked")]
    Panicked,
}

impl Error {
    /// A refusal of one field.
    #[must_use]
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError::new(field, detail)])
    }
}

impl From<ReversedRange> for Error {
    fn from(error: ReversedRange) -> Self {
        Self::invalid("to", error.to_string())
    }
}

impl From<DayRangeError> for Error {
    fn from(error: DayRangeError) -> Self {
        Self::invalid(error.field(), error.to_string())
    }
}

impl From<sqlx::Error> for Error {
    /// Maps a failure to reach the database to 503, and a refusal by the database itself to 500: the latter is a bug
    /// here.
    fn from(error: sqlx::Error) -> Self {
        if is_unreachable(&error) { Self::Unavailable(error) } else { Self::Database(error) }
    }
}
