//! The detectors: pure code, without a database and without a clock.
//!
//! - [`Rolling`] is PLAIN: the last window against the baseline before it.
//! - [`Evidence`] is SEQUENTIAL: how strongly events speak against a [`Frozen`] baseline. Three e-processes, each a bet that the
//!   series is worse by another design, restarted whenever it has nothing to show (an e-CUSUM). Their mean reaches `arl` on a
//!   series that is no worse than the baseline's lower bound once in `arl` events at most, whatever the dependence between events
//!   (Shin, Ramdas, Rinaldo, "E-detectors", 2022): the sum of restarted e-processes is dominated by the Shiryaev-Roberts statistic
//!   `R`, and `E[R at T] <= E[T]`.
//! - [`lint`] says beforehand what PLAIN would do, [`permutation`] estimates from history what any detector would.
//!
//! Evidence is a float. On the path of a decision there is only `+ - * /`, comparison and `sqrt`, which IEEE 754 rounds alike
//! everywhere, so that a replay on any machine has the same bits. How much worse the series is, the other half of a trip, is exact.

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
