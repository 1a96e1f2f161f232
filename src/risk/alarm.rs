//! What operators have to hear of at once: a day's loss that stands at a cap, and stops an engine or all of them.

use super::model::CAP_REACHED;
use super::operation::{Done, Outcome};

fn settles_at_a_cap() -> metrics::Counter {
    metrics::counter!("holdfast_settles_at_loss_cap_total")
}

/// A counter that begins with its first event has no increase at that: it is there from the start.
pub(super) fn begin_counting() {
    settles_at_a_cap().increment(0);
}

/// Raises the alarm for a settle that was just booked, and not for one that is told again.
pub(super) fn raise(done: &Done) {
    let Outcome::Settled(settlement) = &done.outcome else { return };
    let caps: Vec<_> = settlement.flags.iter().filter(|flag| flag.ends_with(CAP_REACHED)).map(String::as_str).collect();
    if !done.replayed && !caps.is_empty() {
        settles_at_a_cap().increment(1);
        tracing::error!(
            caps = caps.join(", "),
            "a settle stands at a cap of the day's loss: reserves are denied until midnight UTC"
        );
    }
}
