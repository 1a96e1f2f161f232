//! Holdfast: an institutional governance control plane. One HTTP service on PostgreSQL that protects a business, and
//! the AI that advises it, from harm while it learns. It has four levers, one audit trail and one enforcement layer.
//!
//! The modules from the ground up; an import goes down this list or stays in its line (`.ci/layers`):
//!
//! - [`types`], [`clock`]: the vocabulary, parsed once at the edge. [`error`]: the one error table.
//! - [`db`], [`budget`], [`postgres`]: pools and migrations, shared places, the private PostgreSQL.
//! - [`identity`]: the caller and its rights. [`audit`]: the event streams and their hash chain.
//! - [`idempotency`]: one intent, one effect. [`group_commit`]: one transaction for all waiting changes.
//! - [`http`]: parses a request into values. [`enforcement`]: the gate around the finished router, and the feed of its
//!   state.
//! - [`access`]: the guard of each route, and the tokens. [`config`]. [`approval`]: the gate for a second person.
//! - The levers, each a service with `model`, `store` and `http`, built on the modules before it: [`go_live`],
//!   [`risk`], [`heimdall`], [`regression`].
//! - [`trail`], [`approve`], [`review`]: the reads of the trail, the second person's decision, the Monday review.
//! - [`middleware`], [`app`], [`cli`]: the stack, the wiring, the commands.
//!
//! The invariants:
//!
//! 1. **Fail closed.** Cannot read, cannot write, cannot decide: refuse.
//! 2. **One transaction decides.** A decision, its counters and its event commit together; the answer comes after the
//!    commit.
//! 3. **Decisions are pure**: `(state, request, now) -> decision`, in each lever's `model`.
//! 4. **Exact numbers.** Decisions use no floats, except for statistical evidence, in [`regression::detector`] and in
//!    the charter's [`heimdall::model`], where the bits are the same everywhere. A value equal to a limit passes.
//! 5. **Nothing is lost or rewritten.** Events are append-only and chained.
//! 6. **Lock order**: kpi, heimdall, risk, control heads, then rows; forward only.

pub mod access;
pub mod app;
pub mod approval;
pub mod approve;
pub mod audit;
pub mod budget;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod enforcement;
pub mod error;
pub mod go_live;
pub mod group_commit;
pub mod heimdall;
pub mod http;
pub mod idempotency;
pub mod identity;
pub(crate) mod log;
pub mod middleware;
pub(crate) mod owner;
pub(crate) mod panics;
pub mod postgres;
pub(crate) mod process_status;
pub mod regression;
pub mod review;
pub mod risk;
pub mod statistics;
pub mod trail;
pub mod types;
