//! What needs attention: a plain list of sentences, made by small functions that each look at one thing.

use super::blind::{BlindWire, Blindness};
use super::{Review, began};
use crate::heimdall::model::{CheckResult, Standing};
use crate::types::Total;
use chrono::{DateTime, SecondsFormat, Utc};

/// Sentences of one kind that a review lists; how many more there are is one sentence.
const OF_A_KIND_MAX: usize = 20;

/// Looks at one thing.
type Look = fn(&Review) -> Vec<String>;

/// Everything that is looked at, the worst first.
const LOOKS: [Look; 13] = [
    rewritten,
    incomplete,
    switches,
    halted,
    tripped,
    engines,
    charter,
    near_tripping,
    silent,
    unwatched,
    blind_wires,
    refused,
    objectives,
];

/// What needs attention, the worst first.
pub(super) fn look_first(review: &Review) -> Vec<String> {
    LOOKS.iter().flat_map(|look| bounded(look(review))).collect()
}

fn bounded(mut sentences: Vec<String>) -> Vec<String> {
    let more = sentences.len().saturating_sub(OF_A_KIND_MAX);
    sentences.truncate(OF_A_KIND_MAX);
    sentences.extend((more > 0).then(|| format!("… and {more} more of that kind")));
    sentences
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn by(name: Option<&String>) -> &str {
    name.map_or("nobody named", String::as_str)
}

fn because(reason: Option<&String>) -> &str {
    reason.map_or("no reason given", String::as_str)
}

fn rewritten(review: &Review) -> Vec<String> {
    let broken = review.checkpoint.iter().filter(|witness| !witness.holds);
    let sentence = |at| {
        format!("THE AUDIT TRAIL WAS REWRITTEN: it does not agree with the checkpoint that was signed at {}", time(at))
    };
    broken.map(|witness| sentence(witness.at)).collect()
}

fn incomplete(review: &Review) -> Vec<String> {
    review.missing.iter().map(|line| format!("The book is not complete: {line}")).collect()
}

fn switches(review: &Review) -> Vec<String> {
    let state = &review.state;
    let mut first = Vec::new();
    if state.kill_switch_engaged {
        let kill = &state.kill_switch;
        let (by, why) = (by(kill.by.as_ref()), because(kill.reason.as_ref()));
        first.push(format!("The kill switch is engaged, by {by}: {why}"));
    }
    if !state.go_live_enabled {
        first.push("Go-live is off: every reserve is denied".into());
    }
    first
}

fn halted(review: &Review) -> Vec<String> {
    let sentence =
        |since| format!("The book does not balance, new reserves are halted since {}: see docs/LEDGER.md", time(since));
    review.ledger_halted_at.into_iter().map(sentence).collect()
}

fn tripped(review: &Review) -> Vec<String> {
    let sentence = |wire: &crate::regression::model::WireState| {
        format!("{}.{} has tripped and is not re-armed: {}", wire.domain, wire.metric, wire.note)
    };
    review.tripped.iter().map(sentence).collect()
}

fn engines(review: &Review) -> Vec<String> {
    let off = review.disabled_engines.iter();
    let off = off.filter(|policy| policy.engine.is_global() || !policy.throttled_by.is_empty()).map(|policy| {
        let (by, why) = (by(policy.changed_by.as_ref()), because(policy.reason.as_ref()));
        format!("{} is off, by {by}: {why}", policy.engine)
    });
    let lost = review.ledger.iter().filter(|row| row.headroom.loss == Some(Total::ZERO));
    let lost = lost
        .map(|row| format!("{} has lost {} today and is stopped until midnight UTC", row.engine, row.realized_loss));
    off.chain(lost).collect()
}

fn charter(review: &Review) -> Vec<String> {
    // Of a domain that has not tried enough yet the charter's own section tells: with a daily scorecard that is every morning.
    let failed = |domain: &&Standing| domain.checks.iter().any(|check| check.result == CheckResult::Fail);
    let fails = review.charter.should_demote.iter().filter(failed).map(|domain| {
        format!("{} acts in production and its evidence fails: demote it, or find the cause", domain.domain)
    });
    let without = review.charter.evidence_not_met.iter().map(|domain| {
        format!("{} acts in production without evidence that passed when it was switched on", domain.domain)
    });
    fails.chain(without).collect()
}

fn near_tripping(review: &Review) -> Vec<String> {
    let near = review.near_tripping.iter();
    let near =
        near.map(|wire| format!("{}.{} is near tripping: {}{}", wire.domain, wire.metric, wire.note, began(wire)));
    let shadow = review.shadow_tripped.iter();
    let shadow =
        shadow.map(|wire| format!("{}.{} would have tripped, in SHADOW mode: {}", wire.domain, wire.metric, wire.note));
    near.chain(shadow).collect()
}

fn silent(review: &Review) -> Vec<String> {
    let silent = review.silent.iter();
    silent
        .map(|wire| format!("{}.{} has been silent for {} s", wire.domain, wire.metric, wire.silent_seconds))
        .collect()
}

fn unwatched(review: &Review) -> Vec<String> {
    let sentence = |series: &super::Unwatched| {
        let meant = meant(series.did_you_mean.as_ref());
        let (domain, metric, events) = (&series.domain, &series.metric, series.events);
        format!("{domain}.{metric} is measured ({events} events) and no wire watches it{meant}")
    };
    review.unwatched.iter().map(sentence).collect()
}

fn blind_wires(review: &Review) -> Vec<String> {
    let sentence = |wire: &BlindWire| {
        let name = format!("{}.{}", wire.domain, wire.metric);
        match wire.why {
            Blindness::Off => {
                format!(
                    "The wire {name} is off, by {}: nobody judges its {} events",
                    by(wire.changed_by.as_ref()),
                    wire.events
                )
            }
            Blindness::NoEvents => {
                let meant = meant(wire.did_you_mean.as_ref());
                format!("The wire {name} is on and its series never had an event{meant}")
            }
            Blindness::Warmup => format!("The wire {name} does not judge yet: {}", wire.note),
        }
    };
    review.blind_wires.iter().map(sentence).collect()
}

fn meant(other: Option<&String>) -> String {
    other.map_or_else(String::new, |other| format!(": did you mean {other}?"))
}

fn refused(review: &Review) -> Vec<String> {
    match review.changes.iter().filter(|change| !change.ok).count() {
        0 => Vec::new(),
        refused => vec![format!("{refused} attempts to change the control plane were refused")],
    }
}

fn objectives(review: &Review) -> Vec<String> {
    let missed = review.slo.all().into_iter().filter(|objective| objective.met == Some(false));
    missed
        .map(|objective| format!("{} misses its target {}: {}", objective.name, objective.target, objective.detail))
        .collect()
}
