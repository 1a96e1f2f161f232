//! Every action that an event can have, and what an action of the control stream means to its readers. AUDIT.md
//! describes each; tests compare this list, the written actions and the document.

use super::Stream;
use crate::error::{Error, Result};
use crate::types::{ControlAction, HeimdallAction, RiskAction, letters_apart};

/// The meaning of an action's event to those who read the control stream.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The setting that the event moves, for [`super::as_of`]; none if it moves none.
    pub moves: Option<Setting>,
    /// The questions of [`super::complete`] that the event answers: it says that a row was made, or removed again.
    pub answers: &'static [Question],
    /// The streams whose writers also store the reason in a row of their own, in lock order, for [`super::erase`].
    pub reason_in: &'static [Stream],
    /// The form of the detail, for the review.
    pub detail: Detail,
}

/// A setting, and how an event moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The go-live state; the event holds all of it.
    Switches,
    /// The version of the go-live state, and nothing else of it.
    Version,
    /// The last report of a component.
    Report,
    /// The policy of an engine.
    RiskPolicy,
    /// The removal of the policy of an engine.
    RiskPolicyRemoval,
    /// The policy of a domain.
    HeimdallPolicy,
    /// The removal of the policy of a domain.
    HeimdallPolicyRemoval,
    /// The policy of a wire.
    RegressionPolicy,
    /// The removal of the policy of a wire.
    RegressionPolicyRemoval,
    /// A wire, which trips and may throttle an engine.
    Trip,
    /// A wire, which is re-armed and no longer throttles its engine.
    Rearm,
    /// A wire, which ignores its earlier events.
    Baseline,
}

impl Setting {
    /// Whether every event is needed; for the others the last one for a subject is enough.
    #[must_use]
    pub const fn is_replayed(self) -> bool {
        match self {
            Self::Version | Self::RiskPolicy | Self::RiskPolicyRemoval | Self::Trip | Self::Rearm | Self::Baseline => {
                true
            }
            Self::Switches
            | Self::Report
            | Self::HeimdallPolicy
            | Self::HeimdallPolicyRemoval
            | Self::RegressionPolicy
            | Self::RegressionPolicyRemoval => false,
        }
    }
}

/// A question about the rows that the control stream says there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Are the policies, tokens, requests, reports and settings there, and what halted the book?
    Policies,
    /// Are the wires, their trips and their throttles there?
    Wires,
}

/// The form of a detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The moved fields in `changes`.
    Changes,
    /// One value, `from` and `to`.
    FromTo,
    /// A component's report.
    Report,
    /// The removed policy.
    Removed,
    /// The removed policy and the kind of its series.
    RemovedWire,
    /// Anything else, or none.
    Other,
}

const fn row(
    moves: Option<Setting>,
    answers: &'static [Question],
    reason_in: &'static [Stream],
    detail: Detail,
) -> Row {
    Row { moves, answers, reason_in, detail }
}

/// The row of an action: exhaustive, without a catch-all, so that no reader of the control stream forgets a new one.
#[must_use]
pub const fn row_of(action: ControlAction) -> Row {
    use self::{ControlAction as A, Detail as D, Question as Q, Setting as S};
    use Stream::{Heimdall, Kpi, Risk};
    match action {
        A::GoLiveEnable | A::GoLiveDisable | A::KillSwitchEngage | A::KillSwitchRelease => {
            row(Some(S::Switches), &[], &[], D::Other)
        }
        A::PackReport => row(Some(S::Report), &[Q::Policies], &[], D::Report),
        A::GoLiveRewindAccept => row(Some(S::Version), &[], &[], D::Other),
        A::RiskPolicyUpsert => row(Some(S::RiskPolicy), &[Q::Policies, Q::Wires], &[Risk], D::Changes),
        A::RiskPolicyRemove => row(Some(S::RiskPolicyRemoval), &[Q::Policies, Q::Wires], &[], D::Removed),
        A::HeimdallPolicyUpsert | A::HeimdallPromote | A::HeimdallDemote => {
            row(Some(S::HeimdallPolicy), &[Q::Policies], &[Heimdall], D::Changes)
        }
        A::HeimdallPolicyRemove => row(Some(S::HeimdallPolicyRemoval), &[Q::Policies], &[], D::Removed),
        A::RegressionPolicyUpsert => row(Some(S::RegressionPolicy), &[Q::Wires], &[Kpi], D::Changes),
        A::RegressionPolicyRemove => row(Some(S::RegressionPolicyRemoval), &[Q::Wires], &[], D::RemovedWire),
        A::RegressionTrip => row(Some(S::Trip), &[Q::Wires], &[], D::Other),
        A::RegressionShadowTrip => row(None, &[Q::Wires], &[], D::Other),
        A::RegressionRearm => row(Some(S::Rearm), &[Q::Wires], &[Kpi, Risk], D::Other),
        A::RegressionKind => row(None, &[Q::Wires], &[], D::FromTo),
        A::RegressionBaselineReset => row(Some(S::Baseline), &[Q::Wires], &[], D::Other),
        A::SettingChange => row(None, &[Q::Policies], &[], D::FromTo),
        A::ClockAccept | A::RiskHalt | A::RiskRepair | A::ApprovalRequest | A::TokenCreate | A::AuditErase => {
            row(None, &[Q::Policies], &[], D::Other)
        }
        A::RegressionAcknowledge
        | A::ApprovalApprove
        | A::ApprovalReject
        | A::TokenRevoke
        | A::AccessRefused
        | A::AuditArchive
        | A::AuditRestore => row(None, &[], &[], D::Other),
    }
}

/// The actions of a stream. Events of `kpi` have none.
#[must_use]
pub fn actions(stream: Stream) -> Vec<&'static str> {
    match stream {
        Stream::Control => ControlAction::ALL.map(ControlAction::as_str).to_vec(),
        Stream::Risk => RiskAction::ALL.map(RiskAction::as_str).to_vec(),
        Stream::Heimdall => HeimdallAction::ALL.map(HeimdallAction::as_str).to_vec(),
        Stream::Kpi => Vec::new(),
    }
}

/// Letters in which a misspelt action may differ.
const TYPOS_MAX: usize = 2;
/// Most actions that a refusal suggests.
const NAMED_MAX: usize = 4;
/// Shortest part of a name, in letters, that suggests an action.
const PART_MIN: usize = 4;

/// Refuses an unknown action: an empty list for a misspelt name would say that nothing happened.
pub fn require_known(action: &str) -> Result<()> {
    let all: Vec<&str> = Stream::ALL.into_iter().flat_map(actions).collect();
    if all.contains(&action) {
        return Ok(());
    }
    let asked = action.to_ascii_uppercase();
    // In a short name, two letters would be half of it.
    let typos = TYPOS_MAX.min(asked.len() / 3);
    let is_part = |known: &str| asked.len() >= PART_MIN && (known.contains(&asked) || asked.contains(known));
    let mut near: Vec<(usize, &str)> = all
        .iter()
        .filter_map(|known| {
            let apart = letters_apart(&asked, known, typos);
            Some((apart.or(is_part(known).then_some(TYPOS_MAX + 1))?, *known))
        })
        .collect();
    near.sort_by_key(|(apart, _)| *apart);
    let named: Vec<&str> = near.into_iter().take(NAMED_MAX).map(|(_, known)| known).collect();
    let detail = if named.is_empty() {
        format!("is not an action of any stream: send one of {}", all.join(", "))
    } else {
        format!("is not an action of any stream; the nearest: {}", named.join(", "))
    };
    Err(Error::invalid("action", detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    fn all() -> BTreeSet<String> {
        Stream::ALL.into_iter().flat_map(actions).map(str::to_owned).collect()
    }

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    /// The variants that the source names as the action of an event: first in its `new(`, or after `action:` in its
    /// fields.
    fn written(source: &str) -> BTreeSet<&str> {
        let begins = ["action: ", "let action = ", "ControlEvent::new(", "HeimdallEvent::new("];
        let events = begins.into_iter().flat_map(|begin| source.split(begin).skip(1));
        let actions = events.map(|event| event.split([',', ';']).next().unwrap_or_default());
        actions.flat_map(|action| action.split(|letter: char| !letter.is_alphanumeric() && letter != ':')).collect()
    }

    #[test]
    fn every_action_is_written_somewhere() {
        use ControlAction as A;
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let texts: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let seen: BTreeSet<&str> = texts.iter().flat_map(|text| written(text)).collect();
        // The switches name theirs in a function.
        let switches = [A::GoLiveEnable, A::GoLiveDisable, A::KillSwitchEngage, A::KillSwitchRelease];
        let control = ControlAction::ALL.into_iter().filter(|action| !switches.contains(action));
        let control = control.map(|action| format!("ControlAction::{action:?}"));
        let risk = RiskAction::ALL.map(|action| format!("RiskAction::{action:?}"));
        let heimdall = HeimdallAction::ALL.map(|action| format!("HeimdallAction::{action:?}"));
        for action in control.chain(risk).chain(heimdall) {
            assert!(seen.contains(action.as_str()), "{action} is never written");
        }
    }

    #[test]
    fn the_document_lists_every_action_and_no_other() {
        let document = include_str!("../../docs/AUDIT.md");
        let section = document.split("## What is recorded").nth(1).unwrap().split("\n## ").next().unwrap();
        // The first column of the table, and the sentences after it; errors and columns are elsewhere.
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        let sentence = section.split("\n`risk`: ").nth(1).unwrap();
        let texts: Vec<String> = rows.map(|row| format!("`{row}")).chain([sentence.to_owned()]).collect();
        let quoted = texts.iter().flat_map(|text| text.split('`').skip(1).step_by(2));
        let is_action = |text: &&str| text.bytes().all(|letter| letter.is_ascii_uppercase() || letter == b'_');
        let listed: BTreeSet<String> = quoted.filter(is_action).map(str::to_owned).collect();
        assert_eq!(listed, all());
    }

    #[test]
    fn an_unknown_action_is_refused_with_the_nearest_ones() {
        for (asked, nearest) in [
            ("settle", "the nearest: SETTLE"),
            ("KILL_SWITCH_ENGAGED", "the nearest: KILL_SWITCH_ENGAGE"),
            ("TRIP", "the nearest: REGRESSION_TRIP, REGRESSION_SHADOW_TRIP"),
            ("x", "send one of GO_LIVE_ENABLE, "),
        ] {
            let Err(Error::Invalid(errors)) = require_known(asked) else { panic!("{asked} is taken") };
            assert!(errors[0].detail.contains(nearest), "{asked}: {}", errors[0].detail);
        }
        for action in all() {
            require_known(&action).unwrap();
        }
    }
}
