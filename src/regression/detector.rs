//! The detectors of a drop: pure code, without a database and without a clock.
//!
//! - [`Rolling`] is PLAIN: the last window against the baseline before it.
//! - [`Evidence`] is SEQUENTIAL: the strength of events against a [`Frozen`] baseline. It consists of three
//!   e-processes, each a bet that the series is worse by another design, restarted whenever it has nothing to show (an
//!   e-CUSUM). On a series that is no worse than the baseline's lower bound, their mean reaches `arl` at most once in
//!   `arl` events, whatever the dependence between events (Shin, Ramdas, Rinaldo, "E-detectors", 2022): the sum of
//!   restarted e-processes is dominated by the Shiryaev-Roberts statistic `R`, and `E[R at T] <= E[T]`.
//! - [`lint`] predicts the behaviour of PLAIN, [`permutation`] estimates that of any detector from history.
//!
//! Evidence is a float. A decision uses only `+ - * /`, comparison and `sqrt`, which IEEE 754 rounds alike everywhere,
//! so that a replay on any machine has the same bits. The size of the drop, the other half of a trip, is exact.

mod evidence;
mod frozen;
pub mod lint;
pub mod permutation;
mod plain;
mod ranks;

pub use evidence::{Evidence, Step, evidence_pct};
pub use frozen::{Frozen, Settings};
pub use plain::Rolling;

#[cfg(test)]
mod tests;
