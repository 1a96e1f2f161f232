//! Lever 4, the regression tripwire: has performance dropped? Then throttle the engine or pull the kill switch.
//!
//! Invariants:
//! - Every measurement is evaluated in the transaction that records it, by order of arrival. The next reserve after a tripping
//!   event is denied.
//! - A wire is latched: it acts once a trip, and stands tripped until somebody re-arms it. Events from before a re-arm never
//!   count again.
//! - The cost of an event does not depend on the history: the windows are three index reads of running sums, evidence is a few
//!   numbers.
//!
//! What changes two levers (a trip, a re-arm), and with it the writer of measurements, is in [`crate::govern`]; this module keeps
//! the lever's rules and tables.

pub mod advice;
pub mod backtest;
pub mod detector;
pub mod http;
pub mod model;
pub mod store;
