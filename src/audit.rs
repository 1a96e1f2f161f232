//! The audit trail: four append-only streams of events, each hash-chained behind a head.
//!
//! This module is the only way to append, so every writer keeps these invariants:
//! - A writer locks its stream's head first, alone in its statement, and reads everything else afterwards. In READ
//!   COMMITTED a statement that waits for a lock keeps the snapshot from before the wait; a later statement sees fresh
//!   data.
//! - Sequence numbers have no gaps (they come from the head, not from a PostgreSQL sequence), times strictly increase,
//!   and `hash = SHA-256(previous hash ‖ canonical bytes)`. [`canonical`] defines the bytes.
//! - Change, event and head commit together.
//!
//! **Lock order**, everywhere: kpi, heimdall, risk, control, then rows; forward only.
//!
//! Statements per appended event: one to lock, one for the time, one insert, one to store the head.
//!
//! The database guards the trail itself: events are never changed or deleted, and heads only move forward. [`verify`]
//! recomputes the chain, [`complete`] finds missing parts of a book, [`crate::db::history`] detects lost events,
//! [`checkpoint`] signs the heads for a place outside the database, [`events`] lists, [`export`] writes JSON lines,
//! [`as_of`] shows the settings of an instant, `policies` the versions of one policy, [`erase`] removes a text, and
//! [`archive`] moves old events into files.

pub mod actions;
pub mod archive;
pub mod as_of;
pub mod binary;
pub mod canonical;
mod changes;
pub mod checkpoint;
pub mod complete;
mod control;
pub mod erase;
pub mod events;
pub mod export;
mod head;
pub mod layout;
mod locking;
pub mod note;
pub mod partitions;
mod policies;
pub(crate) mod store;
pub mod told;
pub mod verify;

pub use crate::identity::Origin;
pub use crate::types::Stream;
pub use canonical::Canonical;
pub use changes::{Changes, FieldChange};
pub use control::{ControlEvent, ControlRecord};
pub use head::{Head, Stamp, chain};
pub use policies::{PolicyFieldChange, PolicyKind, PolicyVersion};
pub(crate) use store::events::between;
pub(crate) use store::policies::policy_versions;
pub use store::{
    HeadRecord, begin, begin_and, clock_is_accepted, control_events, head_seq, heads, lock, prepare_to_begin, revise,
    seen, was_done,
};
