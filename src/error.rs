//! The one error table: every refusal and failure of the service, with its status, its stable code and its body.
//!
//! [`Error`] is what every part of the crate returns; [`Error::row`] is the table, and `docs/ERRORS.md` is its prose. A
//! failure becomes an empty response that carries a [`Problem`]; the outermost middleware renders it with the request's id,
//! so that routing errors, extractor errors and panics have the same body (RFC 9457).
//!
//! What the caller did wrong is told in full, with the fix. What went wrong here is logged once, at the boundary, and told
//! as little as possible.

pub(crate) mod database;
mod field;
mod problem;
mod refusal;
mod table;

pub use field::{Blocker, FieldError};
pub use problem::Problem;
pub use refusal::Refusal;
pub use table::Row;
pub(crate) use table::require_room;

use crate::types::{Amount, Block, Engine, ExecutionClass, Finding, ReservationStatus, ReversedRange, Scope};
use database::is_unreachable;
use field::{blockers_in_words, fields_in_words};
use serde_json::value::RawValue;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can be refused or fail.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum Error {
    /// The request cannot be read: bad JSON, bad percent-encoding, a truncated body.
    #[error("{0}")]
    Malformed(String),
    /// A field is given twice, or differently in body and query.
    #[error("{0}")]
    Contradictory(String, FieldError),
    /// A path that two programs could read differently.
    #[error("the path is ambiguous: {reason}")]
    AmbiguousPath { reason: String },
    /// Nobody is authenticated, and somebody has to be.
    #[error("a token is needed: send Authorization: Bearer hf_…, which holdfast token create makes")]
    Unauthenticated,
    /// A token that opens nothing.
    #[error("the token {0}")]
    InvalidToken(&'static str),
    /// The token lacks a scope.
    #[error("{what} needs the scope {}, which the token has not", .needed.as_str())]
    InsufficientScope { needed: Scope, what: &'static str },
    /// The token is for other engines or domains.
    #[error("the token does not reach the {what} {name}: use one that does (see holdfast token list)")]
    OutOfReach { what: &'static str, name: String },
    /// A loss, or what was used beyond what was reserved, is larger than the token may book at once.
    #[error("the token books {what} up to {bound} at once, and this one is {amount}: use a token without that bound")]
    BeyondMaxLoss { what: &'static str, amount: Amount, bound: Amount },
    /// The second person is missing, or is the first one.
    #[error("two_person_release {0}")]
    ApprovalRefused(&'static str),
    /// The token has asked for too many changes.
    #[error(
        "a token may ask for {limit} changes within {minutes} minutes, and this one has: wait until the first of them expires"
    )]
    AskedTooOften { limit: usize, minutes: i64 },
    /// The request does not wait any more.
    #[error("approval {id} {how}")]
    ApprovalClosed { id: i64, how: String },
    /// In open mode, a request that may not come from this machine's operator.
    #[error("without tokens only this machine's operator is served, and {0}: create a token, and send it")]
    ForeignRequest(String),
    /// The token was used too often.
    #[error("the token has used up its rate: wait, or create one with a higher rate_per_second")]
    RateLimited { wait: std::time::Duration },
    /// It is not known which tokens there are.
    #[error(
        "it is not known which tokens are valid: the database is away or slow; try again (to stop everything without it, run holdfast \
         kill on each machine)"
    )]
    AccessUnknown,
    /// The gate is closed.
    #[error("{}", .block.message())]
    Blocked { block: Block, exec_class: ExecutionClass, path: String, state_version: Option<i64> },
    /// A recommendation may not be used in production.
    #[error("recommendation {id} may not be used in production: {gate_reason}")]
    NotProdEligible { id: i64, domain: String, gate_reason: &'static str },
    /// No such route.
    #[error("there is no such route: see /docs/ for all of them")]
    RouteNotFound,
    /// No such thing.
    #[error("there is no {what} {id}")]
    NotFound { what: &'static str, id: String },
    /// The route exists, with another method.
    #[error("this route does not take that method: see the Allow header")]
    MethodNotAllowed,
    /// The reservation has ended before; nothing was changed.
    #[error("reservation {reservation_id} was {} at {closed_at}: nothing was changed; {}", .status.as_str().to_ascii_lowercase(), .status.next_step())]
    AlreadyClosed { reservation_id: uuid::Uuid, status: ReservationStatus, closed_at: String, outcome: Box<RawValue> },
    /// There are as many of a kind as there may be.
    #[error(
        "there are {limit} {what} already, as many as {setting} lets there be: use one that there is, or raise {setting}"
    )]
    LimitReached { what: &'static str, limit: usize, setting: &'static str },
    /// The outcome was recorded before, and is too large to be told once more in the same answer.
    #[error(
        "the outcome was recorded before and has {bytes} bytes, and this answer repeats as much as it may: nothing was done; send the \
         operation with its key in a request of its own"
    )]
    AnswerTooLarge { bytes: usize },
    /// A hold that stands until somebody ends it cannot be extended.
    #[error("reservation {reservation_id} never expires: there is nothing to extend")]
    NeverExpires { reservation_id: uuid::Uuid },
    /// The id that the caller chose is another reservation's.
    #[error("reservation {reservation_id} exists and is another one: it differs in {fields:?}; choose a new id")]
    ReservationExists { reservation_id: uuid::Uuid, fields: Vec<&'static str> },
    /// A reserve was denied, told to a caller who looks only at the status.
    #[error("{message}")]
    ReservationDenied { message: String, members: Vec<(&'static str, Box<RawValue>)> },
    /// An extension was denied.
    #[error("{message}")]
    ExtensionDenied { message: String, members: Vec<(&'static str, Box<RawValue>)> },
    /// A correction would take more than was booked today.
    #[error("{counter} of {engine} would leave its range on {day}: correct by at most what was booked that day")]
    AdjustmentOutOfRange { engine: Engine, counter: &'static str, day: chrono::NaiveDate },
    /// A thing cannot be removed: it was used, or is in force.
    #[error("the {what} {name} cannot be removed: {}", uses.join("; "))]
    StillUsed { what: &'static str, name: String, uses: Vec<String> },
    /// A correction would take back more than its event booked.
    #[error(
        "{counter} of event {corrects_seq} has {left} left to take back, with what earlier corrections took and added: correct by at most that"
    )]
    AdjustmentBeyondEvent { corrects_seq: i64, engine: Engine, counter: &'static str, left: crate::types::Total },
    /// An upsert would re-arm a tripped wire without saying why, or a reset would change the baseline of one.
    #[error("the wire {domain}.{metric} tripped (trip {trip_id}): re-arm it first, and give a reason")]
    WireTripped { domain: String, metric: String, trip_id: i64 },
    /// A wire is to be acknowledged or re-armed that has not tripped.
    #[error("the wire {domain}.{metric} has not tripped: nothing to acknowledge or re-arm")]
    NotTripped { domain: String, metric: String },
    /// A baseline is worse than the one in use by half of what trips.
    #[error(
        "the new baseline of {domain}.{metric} is worse than the one in use, by {}: that would hide a drop; send force=true \
         if it is meant",
        .drop.short()
    )]
    BaselineWorse { domain: String, metric: String, drop: crate::types::Ratio },
    /// An upsert would lift throttles without saying why.
    #[error("{engine} is throttled by the trips {trips:?}: give a reason to override them, or re-arm the wires")]
    EngineThrottled { engine: String, trips: Vec<i64> },
    /// An `event_id` was used before, for another measurement.
    #[error(
        "event_id {event_id} already names another measurement that you sent of this series: it differs in {fields:?}"
    )]
    EventIdReused { event_id: String, fields: Vec<&'static str> },
    /// Go-live's checklist does not pass.
    #[error("the go-live checklist does not pass: {}", blockers_in_words(.blockers))]
    ChecklistFailed { blockers: Vec<Blocker>, checklist: Box<RawValue> },
    /// The domain has not earned production use.
    #[error("{domain} has not earned production use: {}", blockers_in_words(.blockers))]
    EvidenceInsufficient { domain: String, blockers: Vec<Blocker>, checks: Box<RawValue> },
    /// `If-Match` names another version.
    #[error("the state is at version {actual}, not {expected}: read it again and decide anew")]
    VersionMismatch { expected: String, actual: i64 },
    /// The body is larger than the limit.
    #[error("the body is larger than {limit} bytes: send less")]
    BodyTooLarge { limit: usize },
    /// A body in a format that is not read.
    #[error("cannot read {0}: send application/json or application/x-www-form-urlencoded, in UTF-8")]
    UnsupportedMediaType(String),
    /// Fields that were read and are not acceptable.
    #[error("{}", fields_in_words(.0))]
    Invalid(Vec<FieldError>),
    /// The key stands for another input.
    #[error("the idempotency key {key:?} stands for another request: it differs in {}; use a new key", .fields.join(", "))]
    IdempotencyKeyReused { key: String, fields: Vec<String> },
    /// A cap would be removed by setting it to 0.
    #[error("a cap of 0 means no cap: send allow_unlimited=true if that is meant, or a positive {}", .fields.join(", "))]
    ZeroMeansUnlimited { fields: Vec<&'static str> },
    /// The series has the other kind of values.
    #[error("{domain}.{metric} is a {kind} series: send {wanted}, or have an operator set its kind")]
    SeriesKind { domain: String, metric: String, kind: &'static str, wanted: &'static str },
    /// The database's clock stands before times that are already recorded.
    #[error(
        "the database clock is {0} seconds behind the last recorded event: reserves are halted until it is right, or holdfast db accept-clock says that it is"
    )]
    ClockWentBack(i64),
    /// The database's clock ran far ahead of this process's.
    #[error(
        "the database clock jumped {0} seconds ahead: reserves are halted; they go on by themselves once the clock is right again, or \
         the machine's clock and the database's have agreed for a minute"
    )]
    ClockJumped(i64),
    /// The book does not balance.
    #[error("the book did not balance at {0}: new reserves are halted until `holdfast risk reconcile --repair`")]
    LedgerHalted(chrono::DateTime<chrono::Utc>),
    /// The database went back, as after a restore: its prohibitions, or the answers given, are not known.
    #[error("{}", Block::StateRewound.message())]
    StateRewound,
    /// The database cannot be reached, or not soon enough.
    #[error("{}", database::sentence(.0))]
    Unavailable(#[source] sqlx::Error),
    /// More operations wait than can be decided in time.
    #[error("too many operations are waiting: nothing was decided, try again")]
    Overloaded,
    /// The connection broke during a commit.
    #[error(
        "the connection broke while the outcome was being recorded: send the same request with the same key again, or read the \
         state first"
    )]
    OutcomeUnknown(#[source] sqlx::Error),
    /// The kill switch could not be engaged in the database; this instance is stopped all the same.
    #[error(
        "the kill switch could not be recorded ({cause}): this instance alone blocks from now on, {until}; engage again until it is \
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
    /// The audit trail is not what was appended.
    #[error("the audit trail is damaged: {0}")]
    TrailDamaged(Box<Finding>),
    /// The database said something that cannot be.
    #[error("inconsistent data: {0}")]
    Inconsistent(String),
    /// A bug, or a database that refuses for a reason of its own.
    #[error("database: {0}")]
    Database(#[source] sqlx::Error),
    /// A handler panicked.
    #[error("a handler panicked")]
    Panicked,
}

impl Error {
    /// A field that is not acceptable.
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

impl From<sqlx::Error> for Error {
    /// A failure to reach the database is a 503; what the database itself refuses is a bug of ours.
    fn from(error: sqlx::Error) -> Self {
        if is_unreachable(&error) { Self::Unavailable(error) } else { Self::Database(error) }
    }
}
