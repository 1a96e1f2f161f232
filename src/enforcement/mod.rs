//! The enforcement layer: no request reaches a handler that the go-live state forbids.
//!
//! - [`path`]: one reading of a path, or a refusal.
//! - [`class`]: what kind of work a route is, and the one table of Holdfast's own routes.
//! - [`gate`]: the tower layer around the finished router, and the decision.
//! - [`feed`]: what the gate knows, and how old that may be.
//!
//! Invariant: not knowing is not allowing. A state older than the lease blocks everything that is not exempt.

pub mod class;
pub mod feed;
pub mod gate;
pub mod path;
