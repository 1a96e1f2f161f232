//! The review as Markdown, for a terminal, a chat or an e-mail.

use super::slo::RATIO_ONE;
use super::{Blindness, Review, began};
use crate::heimdall::model::{CheckResult, GateCheck};
use crate::types::Ratio;
use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt::{self, Write};

pub(super) fn markdown(review: &Review) -> String {
    let mut text = String::new();
    write(&mut text, review).expect("writing to a String cannot fail");
    text
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn percent(ratio: Ratio) -> String {
    let percent = Ratio::of(ratio.units() * 100, 1_000_000_000_000).unwrap_or_default();
    format!("{} %", percent.short())
}

/// Callers' words as text: they can neither end a table nor become a link or a tag where the Markdown is rendered.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '&' => plain.push_str("&amp;"),
            '|' | '[' | ']' | '(' | ')' | '`' | '*' | '_' | '\\' | '!' => plain.extend(['\\', c]),
            c => plain.push(c),
        }
    }
    plain
}

fn write(out: &mut String, review: &Review) -> fmt::Result {
    writeln!(out, "# Control plane review, {}\n", time(review.generated_at))?;
    writeln!(out, "Since {}.\n", time(review.since))?;
    if review.open_mode {
        writeln!(out, "**OPEN MODE: there are no tokens, and callers are not authenticated.**\n")?;
    }
    writeln!(out, "## Look at this first\n")?;
    if review.look_first.is_empty() {
        writeln!(out, "Nothing needs attention.")?;
    }
    for line in &review.look_first {
        writeln!(out, "- {}", plain(line))?;
    }
    let state = &review.state;
    let on = |flag: bool, yes: &'static str, no: &'static str| if flag { yes } else { no };
    writeln!(out, "\n## State\n")?;
    writeln!(out, "- Go-live: {}", on(state.go_live_enabled, "on", "off"))?;
    writeln!(out, "- Kill switch: {}", on(state.kill_switch_engaged, "ENGAGED", "released"))?;
    writeln!(
        out,
        "- Last change: version {}, {}, by {}: {}",
        state.version,
        time(state.updated_at),
        plain(state.changed_by.as_deref().unwrap_or("-")),
        plain(state.reason.as_deref().unwrap_or("-"))
    )?;
    ledger(out, review)?;
    wires(out, review)?;
    writeln!(
        out,
        "\n## Heimdall sandbox today\n\n| Domain | Trials | Success rate | Mean confidence |\n|---|---|---|---|"
    )?;
    for card in &review.scorecards {
        writeln!(
            out,
            "| {} | {} | {} | {} |",
            card.domain,
            card.trials,
            percent(card.success_rate),
            card.avg_confidence.short()
        )?;
    }
    charter(out, review)?;
    writeln!(out, "\n## Objectives\n\n| Objective | Target | Value | Met | From |\n|---|---|---|---|---|")?;
    for objective in review.slo.all() {
        let seconds = objective.name == "Time to remediate";
        let value = objective.value.map(|value| if seconds { format!("{} s", value.short()) } else { percent(value) });
        let met = objective.met.map_or("-", |met| on(met, "yes", "NO"));
        writeln!(
            out,
            "| {} | {} | {} | {met} | {} |",
            objective.name,
            objective.target,
            value.as_deref().unwrap_or("-"),
            objective.detail
        )?;
    }
    changes(out, review)?;
    writeln!(out, "\n## Audit streams\n\n| Stream | Events | Last | Hash |\n|---|---|---|---|")?;
    for head in &review.audit {
        writeln!(
            out,
            "| {} | {} | {} | {}… |",
            head.stream,
            head.seq,
            time(head.at),
            head.hash.get(..16).unwrap_or(&head.hash)
        )?;
    }
    match &review.checkpoint {
        Some(witness) => {
            let agrees = on(witness.holds, "the trail agrees with it", "THE TRAIL DOES NOT AGREE WITH IT");
            writeln!(out, "\nLast checkpoint: {}, by {}; {agrees}.", time(witness.at), plain(&witness.signer))?;
        }
        None => writeln!(out, "\nNo checkpoint on this machine.")?,
    }
    Ok(())
}

fn ledger(out: &mut String, review: &Review) -> fmt::Result {
    writeln!(
        out,
        "\n## Risk today\n\n| Engine | Exposure | Open risk | Loss | Actions | Denied | Why |\n|---|---|---|---|---|---|---|"
    )?;
    for row in &review.ledger {
        let why: Vec<String> =
            row.denials_by_reason.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.engine,
            row.exposure_used,
            row.open_risk_reserved,
            row.realized_loss,
            row.actions_count,
            row.denied_count,
            why.join(", ")
        )?;
    }
    for policy in &review.disabled_engines {
        writeln!(out, "\n{} is off: {}", policy.engine, plain(policy.reason.as_deref().unwrap_or("no reason given")))?;
    }
    Ok(())
}

fn wires(out: &mut String, review: &Review) -> fmt::Result {
    writeln!(out, "\n## Tripwires\n")?;
    if review.tripped.is_empty() && review.near_tripping.is_empty() && review.shadow_tripped.is_empty() {
        writeln!(out, "- None tripped, none near.")?;
    }
    for wire in &review.tripped {
        writeln!(out, "- TRIPPED {}.{}: {}", wire.domain, wire.metric, wire.note)?;
    }
    for wire in &review.near_tripping {
        writeln!(out, "- near {}.{}: {}{}", wire.domain, wire.metric, wire.note, began(wire))?;
    }
    for wire in &review.shadow_tripped {
        writeln!(out, "- SHADOW {}.{}: {}", wire.domain, wire.metric, wire.note)?;
    }
    for wire in &review.silent {
        writeln!(out, "- silent {}.{}: {} s", wire.domain, wire.metric, wire.silent_seconds)?;
    }
    for series in &review.unwatched {
        writeln!(out, "- unwatched {}.{}: {} events", series.domain, series.metric, series.events)?;
    }
    for wire in &review.blind_wires {
        let why = match wire.why {
            Blindness::Off => "off",
            Blindness::NoEvents => "without events",
            Blindness::Warmup => "warming up",
        };
        writeln!(out, "- {why} {}.{}: {}", wire.domain, wire.metric, plain(&wire.note))?;
    }
    Ok(())
}

fn charter(out: &mut String, review: &Review) -> fmt::Result {
    writeln!(out, "\n## Heimdall charter\n")?;
    let charter = &review.charter;
    if charter.could_promote.is_empty() && charter.should_demote.is_empty() && charter.evidence_not_met.is_empty() {
        writeln!(out, "Production use goes with the evidence.")?;
    }
    for (what, domains) in [
        ("Could be promoted", &charter.could_promote),
        ("SHOULD BE DEMOTED", &charter.should_demote),
        ("On without evidence", &charter.evidence_not_met),
    ] {
        for domain in domains {
            let checks: Vec<String> = domain.checks.iter().map(check).collect();
            writeln!(out, "- {what}: {}, {}", domain.domain, plain(&checks.join(", ")))?;
        }
    }
    Ok(())
}

fn check(check: &GateCheck) -> String {
    let result = match check.result {
        CheckResult::Pass => "pass",
        CheckResult::Fail => "FAIL",
        CheckResult::InsufficientEvidence => "not enough yet",
    };
    let number = |value: Ratio| if value.units() % RATIO_ONE == 0 { value.to_string() } else { value.short() };
    let shown = |value: Option<Ratio>| value.map_or_else(|| "-".to_owned(), number);
    format!("{} {} of {}: {result}", check.check, shown(check.value), shown(check.threshold))
}

fn changes(out: &mut String, review: &Review) -> fmt::Result {
    writeln!(out, "\n## Who changed what\n\n| When | Who | What | To | Outcome | Why |\n|---|---|---|---|---|---|")?;
    for change in &review.changes {
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            time(change.at),
            plain(change.actor.as_deref().unwrap_or("-")),
            change.action,
            change.subject.as_deref().unwrap_or("-"),
            change.error.as_deref().unwrap_or("done"),
            plain(change.reason.as_deref().unwrap_or("-"))
        )?;
    }
    Ok(())
}
