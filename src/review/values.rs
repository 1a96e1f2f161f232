//! The changed values of an event, for the table of changes.

use crate::audit::ControlRecord;
use crate::audit::actions::{Detail, row_of};
use crate::types::ControlAction;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The most fields that a row lists.
const FIELDS_MAX: usize = 8;

/// The fields that a change moved, with their old and new values. For a removed policy they are its settings; for a
/// component's report, its current values.
pub(super) fn values(change: &ControlRecord) -> String {
    let action = ControlAction::read(&change.action);
    let texts = change.detail.as_ref().and_then(|detail| match action.map(|action| row_of(action).detail) {
        // An action of a later version may move fields, too.
        None | Some(Detail::Changes) => moved(detail),
        Some(Detail::FromTo) => from_to(detail),
        Some(Detail::Report) => reported(detail),
        Some(Detail::Removed) => removed(detail, action),
        Some(Detail::RemovedWire) => {
            let mut fields: Fields<'_> = serde_json::from_str(detail.get()).ok()?;
            let mut texts = fields.remove("policy").and_then(|policy| removed(policy, action))?;
            let kind = fields.remove("kind").filter(|kind| kind.get() != "null");
            texts.extend(kind.map(|kind| format!("kind {} → none", shown(kind))));
            Some(texts)
        }
        Some(Detail::Other) => None,
    });
    let mut texts = texts.unwrap_or_default();
    let more = texts.len().saturating_sub(FIELDS_MAX);
    texts.truncate(FIELDS_MAX);
    texts.extend((more > 0).then(|| format!("{more} more")));
    if texts.is_empty() { "-".to_owned() } else { texts.join(", ") }
}

/// The members of an object, by name.
type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

fn shown(value: &RawValue) -> String {
    match value.get() {
        "null" => "none".to_owned(),
        value => value.trim_matches('"').to_owned(),
    }
}

fn moved(detail: &RawValue) -> Option<Vec<String>> {
    #[derive(Deserialize)]
    struct Detail<'a> {
        #[serde(borrow, default)]
        changes: Vec<Moved<'a>>,
    }
    #[derive(Deserialize)]
    struct Moved<'a> {
        field: &'a str,
        #[serde(borrow)]
        from: &'a RawValue,
        #[serde(borrow)]
        to: &'a RawValue,
    }
    let detail: Detail<'_> = serde_json::from_str(detail.get()).ok()?;
    let text = |one: &Moved<'_>| format!("{} {} → {}", one.field, shown(one.from), shown(one.to));
    Some(detail.changes.iter().map(text).collect())
}

fn reported(detail: &RawValue) -> Option<Vec<String>> {
    let fields: Fields<'_> = serde_json::from_str(detail.get()).ok()?;
    let text = |name: &str| Some(format!("{name} {}", shown(fields.get(name)?)));
    Some(["status", "version"].into_iter().filter_map(text).collect())
}

fn from_to(detail: &RawValue) -> Option<Vec<String>> {
    let fields: Fields<'_> = serde_json::from_str(detail.get()).ok()?;
    Some(vec![format!("{} → {}", shown(fields.get("from")?), shown(fields.get("to")?))])
}

/// The settings of a removed policy. Its name is the subject of the change, and earlier changes hold its history.
fn removed(policy: &RawValue, action: Option<ControlAction>) -> Option<Vec<String>> {
    let fields: Fields<'_> = serde_json::from_str(policy.get()).ok()?;
    let is_setting = |name: &str, value: &RawValue| {
        let is_name = matches!(name, "domain" | "metric")
            || (name == "engine" && action == Some(ControlAction::RiskPolicyRemove));
        let is_history = matches!(name, "changed_by" | "reason" | "updated_at" | "version" | "throttled_by");
        !is_name && !is_history && value.get() != "null"
    };
    let settings = fields.into_iter().filter(|(name, value)| is_setting(name, value));
    Some(settings.map(|(name, value)| format!("{name} {} → none", shown(value))).collect())
}
