//! The points that need attention: a list of sentences, made by small functions that each check one subject.

use super::blind::{BlindWire, Blindness};
use super::caps::used_up;
use super::document::{OLD, Review, began};
use super::required::Lacking;
use super::store::{LedgerDifference, OldHolds};
use crate::approval::model::ApprovalRecord;
use crate::enforcement::instance::Drift;
use crate::heimdall::model::{CheckResult, Standing};
use crate::regression::model::series_name;
use crate::types::ControlAction;
use chrono::{DateTime, SecondsFormat, Utc};

/// The most sentences of one kind in a review; one more sentence gives the number of the others.
const OF_A_KIND_MAX: usize = 20;

/// A clock that is further behind halts reserves with `CLOCK_WENT_BACK`.
const CLOCK_BEHIND_MAX: i64 = 3_600;

/// A check of one subject.
type Look = fn(&Review) -> Vec<String>;

/// All checks, the most urgent first.
const LOOKS: &[Look] = &[
    rewritten,
    admitting,
    here,
    disk,
    incomplete,
    others,
    switches,
    components,
    clock,
    halted,
    differing,
    tripped,
    engines,
    used_up,
    approvals,
    old_holds,
    archive,
    charter,
    self_graded,
    reused,
    near_tripping,
    silent,
    unwatched,
    blind_wires,
    refused,
    objectives,
];

/// The points that need attention, the most urgent first.
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

/// The person behind a change: the authenticated principal, and the claimed actor if that is another name.
pub(super) fn who(principal: Option<&str>, claimed: Option<&str>) -> String {
    match (principal, claimed) {
        (Some(principal), Some(claimed))
            if claimed != principal && principal.split_once(':').map(|(name, _)| name) != Some(claimed) =>
        {
            format!("{principal} (says {claimed})")
        }
        (Some(principal), _) => principal.to_owned(),
        (None, Some(claimed)) => format!("somebody (says {claimed})"),
        (None, None) => "an unnamed caller".to_owned(),
    }
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

fn admitting(review: &Review) -> Vec<String> {
    let sentence = |name: &String| format!("{name} does not enforce: it admits everything, whatever the switches say");
    review.not_enforcing.iter().map(sentence).collect()
}

fn switches(review: &Review) -> Vec<String> {
    let state = &review.state;
    let mut first = Vec::new();
    if state.kill_switch_engaged {
        let kill = &state.kill_switch;
        let by = who(review.who.of(ControlAction::KillSwitchEngage, ""), kill.by.as_deref());
        first.push(format!("The kill switch is engaged, by {by}: {}", because(kill.reason.as_ref())));
    }
    if !state.go_live_enabled {
        first.push("Go-live is off: every reserve is denied".into());
    }
    first
}

/// The causes that stop the answering instance, whatever the switches say.
fn here(review: &Review) -> Vec<String> {
    let here = &review.answering;
    let mut first = Vec::new();
    if here.kill_file {
        let file = here.kill_file_path.as_deref().unwrap_or("it cannot be written");
        first.push(format!("{} is STOPPED by its kill file, whatever the switches say: {file}", capital(here.name())));
    }
    if here.rewound {
        let name = capital(here.name());
        let lost = match here.lost_events.join("; ") {
            lost if lost.is_empty() => lost,
            lost => format!(" ({lost})"),
        };
        first.push(format!("{name} is STOPPED: the database went back{lost}, see holdfast db accept-rewind"));
    }
    first
}

fn disk(review: &Review) -> Vec<String> {
    let here = &review.answering;
    let free = here.disk_free_bytes.map_or_else(String::new, |bytes| format!(", {bytes} bytes are free"));
    let full = format!("The disk of the database is full: changes that need room are not recorded, so make room{free}");
    here.disk_full.then_some(full).into_iter().collect()
}

/// The other live instances that are stopped.
fn others(review: &Review) -> Vec<String> {
    let others = review.instances.instances.iter();
    let others = others.filter(|other| other.live && Some(other.id) != review.answering.instance);
    let stopped = others.filter_map(|other| {
        let why = match other.standing.as_str() {
            "kill_file" => "its kill file",
            "rewound" => "a database that went back",
            _ => return None,
        };
        Some(format!("The instance {} is STOPPED by {why}", other.name))
    });
    stopped.collect()
}

/// The settings in which live instances differ, since they then answer differently.
fn differing(review: &Review) -> Vec<String> {
    let sentence = |drift: &Drift| {
        let values = drift.values.iter().map(|(value, names)| format!("{value} on {}", names.join(", ")));
        format!("Live instances differ in {}: {}", drift.field, values.collect::<Vec<_>>().join("; "))
    };
    review.instances.drift.iter().map(sentence).collect()
}

fn clock(review: &Review) -> Vec<String> {
    let seconds = review.clock_behind_seconds;
    let behind = if review.clock_behind_accepted {
        format!(
            "The database's clock is {seconds} s behind the ledger, which was accepted: the caps of one day hold until it has caught up"
        )
    } else {
        format!(
            "The database's clock went back: it is {seconds} s behind the ledger, and no reserve passes; if it is right, holdfast db \
             accept-clock says so"
        )
    };
    let behind = (seconds > CLOCK_BEHIND_MAX).then_some(behind);
    let jumped = review.answering.clock_jumped_seconds.map(|seconds| {
        format!(
            "The database's clock jumped {seconds} s ahead, and {} does not believe it: no reserve passes until this machine's clock \
             and the database's have agreed for a minute",
            review.answering.name()
        )
    });
    behind.into_iter().chain(jumped).collect()
}

fn halted(review: &Review) -> Vec<String> {
    let sentence =
        |since| format!("The book does not balance, new reserves are halted since {}: see docs/LEDGER.md", time(since));
    let differs = review.ledger_differences.iter().map(|difference| {
        let LedgerDifference { engine, counter, recorded, computed } = difference;
        format!("{engine} {counter} is {recorded} in the ledger, and its rows say {computed}")
    });
    review.ledger_halted_at.into_iter().map(sentence).chain(differs).collect()
}

fn approvals(review: &Review) -> Vec<String> {
    let sentence = |approval: &ApprovalRecord| {
        format!(
            "{} waits for a second person until {}, asked for by {}: {} (id {})",
            approval.action.as_str(),
            time(approval.expires_at),
            who(Some(&approval.requested_by), approval.actor.as_deref()),
            because(approval.reason.as_ref()),
            approval.id
        )
    };
    review.approvals.iter().map(sentence).collect()
}

fn old_holds(review: &Review) -> Vec<String> {
    let sentence = |old: &OldHolds| {
        let OldHolds { engine, holds, more, open_amount, oldest_at } = old;
        let (days, oldest) = (OLD.num_days(), time(*oldest_at));
        let many = if *more {
            format!("more than {holds} holds, the oldest {holds} of them of {open_amount} together,")
        } else {
            format!("{holds} holds of {open_amount} together")
        };
        format!(
            "{engine} has {many} that never expire and have been open for more than {days} days, the oldest since {oldest}"
        )
    };
    review.old_holds.iter().map(sentence).collect()
}

fn archive(review: &Review) -> Vec<String> {
    let sentence = |failure| format!("Old events could not be archived: {failure}");
    review.answering.archive_failure.iter().map(sentence).collect()
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
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
        let trips: Vec<String> = policy.throttled_by.iter().map(ToString::to_string).collect();
        let by = if trips.is_empty() {
            who(review.who.of(ControlAction::RiskPolicyUpsert, policy.engine.as_str()), policy.changed_by.as_deref())
        } else {
            format!("trip {}", trips.join(" and "))
        };
        format!("{} is off, by {by}: {}", policy.engine, because(policy.reason.as_ref()))
    });
    off.collect()
}

fn charter(review: &Review) -> Vec<String> {
    // A domain with too few trials is in the charter's own section: with a daily scorecard, that is every morning.
    let failed = |domain: &&Standing| domain.checks.iter().any(|check| check.result == CheckResult::Fail);
    let fails = review.charter.should_demote.iter().filter(failed).map(|domain| {
        format!("{} acts in production and its evidence fails: demote it, or find the cause", domain.domain)
    });
    let without = review.charter.evidence_not_met.iter().map(|domain| {
        format!("{} acts in production without evidence that passed when it was switched on", domain.domain)
    });
    fails.chain(without).collect()
}

fn self_graded(review: &Review) -> Vec<String> {
    let sentence = |token: &String| {
        format!(
            "{token} may both measure and recommend: an AI that holds it grades itself, split it into measure and recommend"
        )
    };
    review.grade_themselves.iter().map(sentence).collect()
}

fn reused(review: &Review) -> Vec<String> {
    let here = &review.answering;
    let last = here.event_id_reused_last.iter();
    let sentence = |last| {
        let (name, count) = (capital(here.name()), here.event_ids_reused);
        format!(
            "{name} refused {count} measurements whose event_id names another one of the same sender, the last {last}"
        )
    };
    last.map(sentence).collect()
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
        let name = series_name(&wire.domain, &wire.metric);
        match wire.why {
            Blindness::Off => {
                let by = who(review.who.of(ControlAction::RegressionPolicyUpsert, &name), wire.changed_by.as_deref());
                format!("The wire {name} is off, by {by}: nobody judges its {} events", wire.events)
            }
            Blindness::NoEvents => {
                let meant = meant(wire.did_you_mean.as_ref());
                format!("The wire {name} is on and its series never had an event{meant}")
            }
            Blindness::Warmup => format!("The wire {name} does not judge yet: {}", wire.note),
            Blindness::CannotCompute => format!(
                "The wire {name} judges nothing: its baseline is not above 0, which has no relative drop; give it effect=ABSOLUTE with a \
                 max_drop_value, or another baseline"
            ),
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

/// One sentence per component: its name, the time and the caller of its report, and the consequence.
fn components(review: &Review) -> Vec<String> {
    let means = if review.state.go_live_enabled {
        "the checklist fails, while production is on"
    } else {
        "the checklist fails, and production cannot be switched on"
    };
    let sentence = |lacking: &Lacking| {
        let id = &lacking.id;
        match &lacking.reported {
            Some(pack) => {
                let by = who(review.who.of(ControlAction::PackReport, id), pack.changed_by.as_deref());
                format!("The required component {id} reports missing since {}, by {by}: {means}", time(pack.updated_at))
            }
            None => format!("The required component {id} has never reported itself: {means}"),
        }
    };
    review.lacking.iter().map(sentence).collect()
}
