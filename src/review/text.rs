//! Renders the review as Markdown, for a terminal, a chat or an e-mail.

mod weeks;

use super::attention::who;
use super::blind::Blindness;
use super::document::{Review, began};
use super::slo::{RATIO_ONE, Unit};
use super::values::values;
use super::week::beside;
use crate::heimdall::model::{CheckResult, GateCheck};
use crate::types::Ratio;
use chrono::{DateTime, SecondsFormat, Utc};
use std::fmt::{self, Write};

/// The medium that shows the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A renderer of Markdown.
    Markdown,
    /// A terminal: Markdown source, with callers' words unescaped.
    Terminal,
}

pub(super) fn document(review: &Review, medium: Medium) -> String {
    let mut page = Page { out: String::new(), medium };
    page.write(review).expect("writing to a String cannot fail");
    page.out
}

/// The document as it is being written.
struct Page {
    out: String,
    medium: Medium,
}

impl Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_str(text)
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

const fn on(flag: bool, yes: &'static str, no: &'static str) -> &'static str {
    if flag { yes } else { no }
}

fn percent(ratio: Ratio) -> String {
    let percent = Ratio::of(ratio.units() * 100, 1_000_000_000_000).unwrap_or_default();
    format!("{} %", percent.short())
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

impl Page {
    /// Renders callers' words as text: rendered Markdown must not let them end a table or become a link, a tag or an
    /// emphasis. A backslash turns each of these signs into a letter.
    fn plain(&self, text: &str) -> String {
        let mut plain = String::with_capacity(text.len());
        let mut before = ' ';
        let mut letters = text.chars().peekable();
        while let Some(c) = letters.next() {
            let within = before.is_alphanumeric() && letters.peek().is_some_and(|next| next.is_alphanumeric());
            match c {
                // Within a word an underscore is not an emphasis.
                '_' if within => plain.push(c),
                '<' | '>' | '&' | '|' | '[' | ']' | '`' | '*' | '_' | '\\' | '~' if self.medium == Medium::Markdown => {
                    plain.extend(['\\', c]);
                }
                // Our own names have no control characters, and a caller must not control a terminal.
                c if c.is_control() => plain.push(' '),
                c => plain.push(c),
            }
            before = c;
        }
        plain
    }

    fn write(&mut self, review: &Review) -> fmt::Result {
        writeln!(self, "# Control plane review, {}\n", time(review.generated_at))?;
        writeln!(self, "Since {}.\n", time(review.since))?;
        if review.open_mode {
            writeln!(self, "**OPEN MODE: there are no tokens, and callers are not authenticated.**\n")?;
        }
        writeln!(self, "## Look at this first\n")?;
        if review.look_first.is_empty() {
            writeln!(self, "Nothing needs attention.")?;
        }
        for line in &review.look_first {
            writeln!(self, "- {}", self.plain(line))?;
        }
        self.state(review)?;
        self.ledger(review)?;
        self.wires(review)?;
        self.scorecards(review)?;
        self.charter(review)?;
        self.objectives(review)?;
        self.changes(review)?;
        self.audit(review)?;
        self.more(review)
    }

    fn more(&mut self, review: &Review) -> fmt::Result {
        if !review.more.is_empty() {
            writeln!(self, "\n## Not shown\n")?;
        }
        for (list, count) in &review.more {
            writeln!(self, "- {count} more in {list}")?;
        }
        Ok(())
    }

    fn state(&mut self, review: &Review) -> fmt::Result {
        let state = &review.state;
        let here = &review.answering;
        writeln!(self, "\n## State\n")?;
        for (stops, why) in [(here.kill_file, "its kill file"), (here.rewound, "a database that went back")] {
            if stops {
                writeln!(self, "- STOPPED, {}: by {why}, whatever the state below says", here.name())?;
            }
        }
        writeln!(self, "- Go-live: {}", on(state.go_live_enabled, "on", "off"))?;
        writeln!(self, "- Kill switch: {}", on(state.kill_switch_engaged, "ENGAGED", "released"))?;
        writeln!(
            self,
            "- Last change: version {}, {}, by {}: {}",
            state.version,
            time(state.updated_at),
            self.plain(state.changed_by.as_deref().unwrap_or("-")),
            self.plain(state.reason.as_deref().unwrap_or("-"))
        )
    }

    fn scorecards(&mut self, review: &Review) -> fmt::Result {
        writeln!(
            self,
            "\n## Heimdall sandbox today\n\n| Domain | Trials | Success rate | Mean confidence |\n|---|---|---|---|"
        )?;
        for card in &review.scorecards {
            writeln!(
                self,
                "| {} | {} | {} | {} |",
                card.domain,
                card.trials,
                percent(card.success_rate),
                card.avg_confidence.short()
            )?;
        }
        self.week_of_scorecards(review)
    }

    fn objectives(&mut self, review: &Review) -> fmt::Result {
        writeln!(
            self,
            "\n## Objectives\n\n| Objective | Target | Value | Sample | Met | From |\n|---|---|---|---|---|---|"
        )?;
        for objective in review.slo.all() {
            let shown = |value: Ratio| match objective.value_unit {
                Unit::Seconds => format!("{} s", value.short()),
                Unit::None => percent(value),
            };
            let value = objective.value.map_or_else(|| "-".to_owned(), shown);
            let value = match objective.value_week_before {
                Some(before) => beside(&value, &shown(before)),
                None => value,
            };
            let unit = match objective.sample_unit {
                Unit::Seconds => " s",
                Unit::None => "",
            };
            let sample = format!("{}{unit} of at least {}{unit}", objective.sample, objective.sample_min);
            let unknown = if objective.is_too_small() { "too few to say" } else { "-" };
            let met = objective.met.map_or(unknown, |met| on(met, "yes", "NO"));
            writeln!(
                self,
                "| {} | {} | {} | {sample} | {met} | {} |",
                objective.name, objective.target, value, objective.detail
            )?;
        }
        Ok(())
    }

    fn audit(&mut self, review: &Review) -> fmt::Result {
        writeln!(self, "\n## Audit streams\n\n| Stream | Events | Last | Hash |\n|---|---|---|---|")?;
        for head in &review.audit {
            writeln!(
                self,
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
                writeln!(
                    self,
                    "\nLast checkpoint: {}, by {}; {agrees}.",
                    time(witness.at),
                    self.plain(&witness.signer)
                )?;
            }
            None => writeln!(self, "\nNo checkpoint on this machine.")?,
        }
        Ok(())
    }

    fn ledger(&mut self, review: &Review) -> fmt::Result {
        writeln!(
            self,
            "\n## Risk today\n\n| Engine | Exposure | Open risk | Loss | Actions | Denied | Why |\n|---|---|---|---|---|---|---|"
        )?;
        for row in &review.ledger {
            let why: Vec<String> =
                row.denials_by_reason.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            writeln!(
                self,
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
        self.week_of_ledger(review)?;
        if !review.denials.is_empty() {
            writeln!(
                self,
                "\n## Denied since {}\n\n| Engine | Reason | Denied |\n|---|---|---|",
                review.since.date_naive()
            )?;
        }
        for row in &review.denials {
            let denied = beside(&row.denied, &row.denied_week_before);
            writeln!(self, "| {} | {} | {denied} |", row.engine, row.reason)?;
        }
        for policy in &review.disabled_engines {
            writeln!(
                self,
                "\n{} is off: {}",
                policy.engine,
                self.plain(policy.reason.as_deref().unwrap_or("no reason given"))
            )?;
        }
        Ok(())
    }

    fn wires(&mut self, review: &Review) -> fmt::Result {
        writeln!(self, "\n## Tripwires\n")?;
        if review.tripped.is_empty() && review.near_tripping.is_empty() && review.shadow_tripped.is_empty() {
            writeln!(self, "- None tripped, none near.")?;
        }
        for wire in &review.tripped {
            writeln!(self, "- TRIPPED {}.{}: {}", wire.domain, wire.metric, wire.note)?;
        }
        for wire in &review.near_tripping {
            writeln!(self, "- near {}.{}: {}{}", wire.domain, wire.metric, wire.note, began(wire))?;
        }
        for wire in &review.shadow_tripped {
            writeln!(self, "- SHADOW {}.{}: {}", wire.domain, wire.metric, wire.note)?;
        }
        for wire in &review.silent {
            writeln!(self, "- silent {}.{}: {} s", wire.domain, wire.metric, wire.silent_seconds)?;
        }
        for series in &review.unwatched {
            writeln!(self, "- unwatched {}.{}: {} events", series.domain, series.metric, series.events)?;
        }
        for wire in &review.blind_wires {
            let why = match wire.why {
                Blindness::Off => "off",
                Blindness::NoEvents => "without events",
                Blindness::Warmup => "warming up",
                Blindness::CannotCompute => "cannot compare",
            };
            writeln!(self, "- {why} {}.{}: {}", wire.domain, wire.metric, self.plain(&wire.note))?;
        }
        Ok(())
    }

    fn charter(&mut self, review: &Review) -> fmt::Result {
        writeln!(self, "\n## Heimdall charter\n")?;
        let charter = &review.charter;
        if charter.could_promote.is_empty() && charter.should_demote.is_empty() && charter.evidence_not_met.is_empty() {
            writeln!(self, "Production use matches the evidence.")?;
        }
        for (what, domains) in [
            ("Could be promoted", &charter.could_promote),
            ("SHOULD BE DEMOTED", &charter.should_demote),
            ("On without evidence", &charter.evidence_not_met),
        ] {
            for domain in domains {
                let checks: Vec<String> = domain.checks.iter().map(check).collect();
                writeln!(self, "- {what}: {}, {}", domain.domain, self.plain(&checks.join(", ")))?;
            }
        }
        Ok(())
    }

    fn changes(&mut self, review: &Review) -> fmt::Result {
        writeln!(
            self,
            "\n## Who changed what\n\n| When | Who | What | To | Values | Outcome | Why |\n|---|---|---|---|---|---|---|"
        )?;
        for change in &review.changes {
            writeln!(
                self,
                "| {} | {} | {} | {} | {} | {} | {} |",
                time(change.at),
                self.plain(&who(Some(&change.principal), change.actor.as_deref())),
                change.action,
                self.plain(change.subject.as_deref().unwrap_or("-")),
                self.plain(&values(change)),
                change.error.as_deref().unwrap_or("done"),
                self.plain(change.reason.as_deref().unwrap_or("-"))
            )?;
        }
        Ok(())
    }
}
