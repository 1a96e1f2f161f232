//! The switches and their checklist: types and pure decisions. Storage is in `store`.

use crate::approval::model::ApprovalAction;
use crate::enforcement::feed::GateState;
use crate::enforcement::feed::renewal::News;
use crate::error::Blocker;
use crate::types::{ControlAction, Label, PackId};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The last change of one of the two switches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Movement {
    /// The time of the change; null before the first one.
    pub at: Option<DateTime<Utc>>,
    /// The actor, as the caller claimed.
    pub by: Option<String>,
    /// The reason, in the caller's words.
    pub reason: Option<String>,
}

/// The go-live state. The top-level `changed_by`, `reason` and `updated_at` are those of the last change of either
/// switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GoLiveState {
    /// Whether production is switched on.
    pub go_live_enabled: bool,
    /// Whether everything is stopped, even if go-live is on.
    pub kill_switch_engaged: bool,
    /// The actor of the last change, as claimed.
    pub changed_by: Option<String>,
    /// The reason of the last change, in the caller's words.
    pub reason: Option<String>,
    /// The time of the last change.
    pub updated_at: DateTime<Utc>,
    /// The number of changes, from 1. It is the `ETag`, and the version that `If-Match` names.
    pub version: i64,
    /// The last change of the go-live switch itself.
    pub go_live: Movement,
    /// The last change of the kill switch itself; while it is engaged, its first engagement.
    pub kill_switch: Movement,
}

impl GoLiveState {
    /// The part of the state that the gate uses.
    #[must_use]
    pub const fn for_gate(&self) -> GateState {
        GateState {
            version: self.version,
            go_live_enabled: self.go_live_enabled,
            kill_switch_engaged: self.kill_switch_engaged,
        }
    }
}

/// A period in one state of the switches.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// The beginning of the period, which lasts until the next one.
    pub from: DateTime<Utc>,
    /// Whether production ran: go-live on, kill switch released.
    pub live: bool,
}

/// A change of one of the switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Switches production on.
    Enable,
    /// Switches production off.
    Disable,
    /// Stops everything.
    Engage,
    /// Ends the stop.
    Release,
}

impl Switch {
    /// The action of the change's event.
    #[must_use]
    pub const fn action(self) -> ControlAction {
        match self {
            Self::Enable => ControlAction::GoLiveEnable,
            Self::Disable => ControlAction::GoLiveDisable,
            Self::Engage => ControlAction::KillSwitchEngage,
            Self::Release => ControlAction::KillSwitchRelease,
        }
    }

    /// Whether the change admits more than before, so that it may be refused.
    #[must_use]
    pub const fn loosens(self) -> bool {
        self.loosening().is_some()
    }

    /// The change in the form of a notification to the other instances.
    #[must_use]
    pub const fn news(self) -> News {
        match self {
            Self::Engage => News::Engaged,
            Self::Disable => News::Disabled,
            Self::Enable | Self::Release => News::Changed,
        }
    }

    /// The action that needs approval; none for a change that tightens.
    #[must_use]
    pub const fn loosening(self) -> Option<ApprovalAction> {
        match self {
            Self::Enable => Some(ApprovalAction::Enable),
            Self::Release => Some(ApprovalAction::Release),
            Self::Disable | Self::Engage => None,
        }
    }
}

/// The state after a change. Every change counts, even a repeated one, so that a late release that names the version it
/// saw loses against a newer engage. A repeated engage keeps the first engagement's time, actor and reason.
#[must_use]
pub fn apply(
    state: &GoLiveState,
    change: Switch,
    by: Option<&str>,
    reason: Option<&str>,
    at: DateTime<Utc>,
) -> GoLiveState {
    let movement = Movement { at: Some(at), by: by.map(Into::into), reason: reason.map(Into::into) };
    let mut next = GoLiveState {
        changed_by: movement.by.clone(),
        reason: movement.reason.clone(),
        updated_at: at,
        // At the largest version the update finds no row to replace, and fails.
        version: state.version.saturating_add(1),
        ..state.clone()
    };
    match change {
        Switch::Enable | Switch::Disable => {
            next.go_live_enabled = change == Switch::Enable;
            next.go_live = movement;
        }
        // A repeated change moves nothing: the first engagement, or the last release, stays.
        Switch::Engage if state.kill_switch_engaged => {}
        Switch::Release if !state.kill_switch_engaged => {}
        Switch::Engage | Switch::Release => {
            next.kill_switch_engaged = change == Switch::Engage;
            next.kill_switch = movement;
        }
    }
    next
}

/// Whether `If-Match` admits a version: true without the header, for `*`, and for a list that has the version.
#[must_use]
pub fn if_match_allows(header: Option<&str>, version: i64) -> bool {
    let Some(header) = header else { return true };
    header.split(',').map(str::trim).any(|tag| {
        // Intermediaries may weaken a tag; only the version inside counts.
        let bare = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
        tag == "*" || bare == version.to_string()
    })
}

/// Whether a component is in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PackStatus {
    /// The component is in place.
    Installed,
    /// The component is missing or incomplete.
    Missing,
}

impl PackStatus {
    /// The status in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Missing => "missing",
        }
    }
}

/// A component that reports itself to the checklist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pack {
    /// The component's id.
    pub id: String,
    /// The component's name for people.
    pub name: String,
    /// The component's version, as reported.
    pub version: String,
    /// Whether the component is in place.
    pub status: PackStatus,
    /// The actor of the report, as claimed.
    pub changed_by: Option<String>,
    /// The time of the report.
    pub updated_at: DateTime<Utc>,
}

/// A component's report of itself.
#[derive(Debug, Clone)]
pub struct PackReport {
    /// The component's id.
    pub id: PackId,
    /// The component's name for people; when left out, the old one or at first the id.
    pub name: Option<Label>,
    /// The component's version; when left out, the old one or at first `unknown`.
    pub version: Option<Label>,
    /// Whether the component is in place.
    pub status: PackStatus,
}

/// The components of the levers themselves, which the migrations install.
pub const LEVER_PACKS: [&str; 4] = ["go_live", "risk", "heimdall", "regression"];

/// The facts that the checklist judges.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The migrations that this server has and the database lacks.
    pub pending_migrations: i64,
    /// The number of policies of the risk guard, the charter and the tripwire.
    pub policies: [(&'static str, i64); 3],
    /// The components that have reported themselves.
    pub packs: Vec<Pack>,
    /// The components that the configuration requires beyond the levers.
    pub required_packs: Vec<PackId>,
    /// Whether the kill switch is engaged.
    pub kill_switch_engaged: bool,
    /// Whether this instance's kill file exists.
    pub kill_file: bool,
    /// Whether GLOBAL is enabled and not throttled; none if it has no policy.
    pub global_policy_active: Option<bool>,
    /// The reason why this instance's gate is off; none if it is on.
    pub enforcement_off: Option<&'static str>,
    /// The wires that are tripped, as `DOMAIN.metric`.
    pub tripped_wires: Vec<String>,
}

/// One required item of the checklist.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Item<T> {
    /// Whether the item passes.
    pub ok: bool,
    /// The facts of the judgement.
    pub detail: T,
}

/// The facts about the service itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BackendDetail {
    /// The number of migrations that are not applied.
    pub pending_migrations: i64,
    /// The number of policies per lever; each must have at least one.
    pub policies: BTreeMap<&'static str, i64>,
}

/// The facts about the required components.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PacksDetail {
    /// The required components that are not installed.
    pub missing_or_not_installed: Vec<String>,
    /// The number of required components.
    pub total: usize,
}

/// The two required items.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Required {
    /// All migrations are applied and the policies of the three other levers exist.
    pub backend_complete: Item<BackendDetail>,
    /// The levers and every required component are installed.
    pub packs_installed: Item<PacksDetail>,
}

/// The go-live checklist. Warnings, each with a name and a sentence, do not prevent an enable.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Checklist {
    /// Whether every required item passes.
    pub ok: bool,
    /// The items that an enable requires.
    pub required: Required,
    /// The points that an operator should know before an enable, by name.
    pub warnings: BTreeMap<&'static str, String>,
}

impl Checklist {
    /// Judges the facts.
    #[must_use]
    pub fn judge(facts: &Facts) -> Self {
        let backend_ok = facts.pending_migrations == 0 && facts.policies.iter().all(|&(_, count)| count > 0);
        let mut required: Vec<&str> = LEVER_PACKS.to_vec();
        required.extend(facts.required_packs.iter().map(PackId::as_str));
        required.sort_unstable();
        required.dedup();
        let installed = |id: &str| facts.packs.iter().any(|pack| pack.id == id && pack.status == PackStatus::Installed);
        let missing: Vec<String> = required.iter().filter(|id| !installed(id)).map(|&id| id.to_owned()).collect();
        let packs_ok = missing.is_empty();
        Self {
            ok: backend_ok && packs_ok,
            required: Required {
                backend_complete: Item {
                    ok: backend_ok,
                    detail: BackendDetail {
                        pending_migrations: facts.pending_migrations,
                        policies: facts.policies.into_iter().collect(),
                    },
                },
                packs_installed: Item {
                    ok: packs_ok,
                    detail: PacksDetail { missing_or_not_installed: missing, total: required.len() },
                },
            },
            warnings: warnings(facts),
        }
    }

    /// The required items that fail, each with the fix.
    #[must_use]
    pub fn blockers(&self) -> Vec<Blocker> {
        let mut blockers = Vec::new();
        let backend = &self.required.backend_complete;
        if !backend.ok {
            let empty: Vec<_> =
                backend.detail.policies.iter().filter(|&(_, &count)| count == 0).map(|(lever, _)| *lever).collect();
            let detail = format!(
                "{} migrations are not applied (holdfast migrate), levers without a policy: {empty:?}",
                backend.detail.pending_migrations
            );
            blockers.push(Blocker { id: "backend_complete".into(), detail });
        }
        let packs = &self.required.packs_installed;
        if !packs.ok {
            let detail = format!(
                "not installed: {}; each reports itself with POST /api/governance/go-live/packs",
                packs.detail.missing_or_not_installed.join(", ")
            );
            blockers.push(Blocker { id: "packs_installed".into(), detail });
        }
        blockers
    }
}

fn warnings(facts: &Facts) -> BTreeMap<&'static str, String> {
    let mut warnings = BTreeMap::new();
    if facts.kill_switch_engaged {
        warnings.insert(
            "kill_switch_engaged",
            "the kill switch is engaged: everything stays blocked until it is released".into(),
        );
    }
    if facts.kill_file {
        warnings.insert(
            "kill_file",
            "this instance is stopped by its kill file, whatever the switches say: it continues when the file is removed"
                .into(),
        );
    }
    match facts.global_policy_active {
        Some(true) => {}
        Some(false) => {
            warnings
                .insert("global_policy_disabled", "the GLOBAL risk policy is disabled: every reserve is denied".into());
        }
        None => {
            warnings.insert("global_policy_missing", "there is no GLOBAL risk policy: every reserve is denied".into());
        }
    }
    if let Some(why) = facts.enforcement_off {
        warnings
            .insert("enforcement_off", format!("this instance does not enforce ({why}): requests pass in any state"));
    }
    if !facts.tripped_wires.is_empty() {
        warnings.insert("tripped_wires", format!("tripped and not re-armed: {}", facts.tripped_wires.join(", ")));
    }
    warnings
}

#[cfg(test)]
mod tests;
