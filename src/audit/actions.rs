//! Every action that an event can have. AUDIT.md describes each; tests compare this list, the written actions and the
//! document. An action that says what a policy, a token or an engine is now also belongs in [`super::as_of`],
//! [`super::complete`] and `review::values`.

use super::Stream;
use crate::error::{Error, Result};
use crate::types::{HeimdallAction, RiskAction, letters_apart};

const CONTROL: [&str; 31] = [
    "GO_LIVE_ENABLE",
    "GO_LIVE_DISABLE",
    "KILL_SWITCH_ENGAGE",
    "KILL_SWITCH_RELEASE",
    "PACK_REPORT",
    "GO_LIVE_REWIND_ACCEPT",
    "CLOCK_ACCEPT",
    "RISK_POLICY_UPSERT",
    "RISK_POLICY_REMOVE",
    "RISK_HALT",
    "RISK_REPAIR",
    "HEIMDALL_POLICY_UPSERT",
    "HEIMDALL_POLICY_REMOVE",
    "HEIMDALL_PROMOTE",
    "HEIMDALL_DEMOTE",
    "REGRESSION_POLICY_UPSERT",
    "REGRESSION_POLICY_REMOVE",
    "REGRESSION_TRIP",
    "REGRESSION_SHADOW_TRIP",
    "REGRESSION_REARM",
    "REGRESSION_KIND",
    "REGRESSION_ACKNOWLEDGE",
    "REGRESSION_BASELINE_RESET",
    "APPROVAL_REQUEST",
    "APPROVAL_APPROVE",
    "APPROVAL_REJECT",
    "SETTING_CHANGE",
    "TOKEN_CREATE",
    "TOKEN_REVOKE",
    "ACCESS_REFUSED",
    "AUDIT_ERASE",
];

/// The actions of a stream. Events of `kpi` have none.
#[must_use]
pub fn actions(stream: Stream) -> Vec<&'static str> {
    match stream {
        Stream::Control => CONTROL.to_vec(),
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

    /// The quoted texts and the variants of a stream's actions after `action:` in the fields of an event, in the
    /// constants `REMOVED`, or in the `new(` of an event.
    fn written(source: &str) -> Vec<String> {
        let begins = ["action: ", "const REMOVED: &str = ", "ControlEvent::new(", "HeimdallEvent::new("]
            .map(|begin| source.split(begin).skip(1));
        let fields = begins.into_iter().flatten().map(|rest| rest.split(['\n', ',']).next().unwrap_or_default());
        let named = |field: &str| -> Vec<String> {
            let quoted = field.split('"').skip(1).step_by(2).map(str::to_owned);
            let variants = ["RiskAction::", "HeimdallAction::"].map(|name| field.split(name).skip(1));
            let variants = variants.into_iter().flatten().map(|rest| {
                rest.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase()
            });
            quoted.chain(variants).collect()
        };
        let is_action =
            |text: &String| text.len() >= 4 && text.bytes().all(|letter| letter.is_ascii_uppercase() || letter == b'_');
        fields.flat_map(named).filter(is_action).collect()
    }

    #[test]
    fn every_action_that_the_program_writes_is_known() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let (known, mut seen) = (all(), BTreeSet::new());
        for file in files {
            for action in written(&std::fs::read_to_string(&file).unwrap()) {
                assert!(known.contains(&action), "{}: {action} is not among the known actions", file.display());
                seen.insert(action);
            }
        }
        // The switches name their actions in a function. Every known action must be written somewhere.
        let switches = ["GO_LIVE_ENABLE", "GO_LIVE_DISABLE", "KILL_SWITCH_ENGAGE", "KILL_SWITCH_RELEASE"];
        seen.extend(switches.map(str::to_owned));
        assert_eq!(known.difference(&seen).collect::<Vec<_>>(), [""; 0]);
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
