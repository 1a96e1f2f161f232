//! The settings that the migrations install. No event has them, and migrations are never edited, so they are repeated
//! here; a test compares them with a fresh database. The time of the installation is not known here, so `updated_at` is
//! null.

use crate::db::to_json;
use crate::error::{Error, Result};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The members of a JSON object, each with its original text.
pub type Fields = BTreeMap<String, Box<RawValue>>;

/// The kinds of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    GoLive,
    Pack,
    Risk,
    Heimdall,
    Regression,
    Wire,
}

/// Every installed setting, by kind and by the name that events give it.
pub(super) fn all() -> Result<Vec<(Kind, String, Fields)>> {
    let mut all = Vec::new();
    for (kind, alike, each) in KINDS {
        for (name, own) in *each {
            let read = |text: &str| {
                serde_json::from_str::<Fields>(text).map_err(|error| Error::Inconsistent(format!("{name}: {error}")))
            };
            let mut value = read(alike)?;
            value.append(&mut read(own)?);
            all.push((*kind, (*name).to_owned(), value));
        }
    }
    Ok(all)
}

/// The policy that a throttle creates for an engine without one: disabled, without caps.
pub(super) fn uncapped(engine: &str) -> Fields {
    let zero = || to_json(&0);
    let fields = [
        ("engine", to_json(engine)),
        ("max_daily_loss", zero()),
        ("max_daily_exposure", zero()),
        ("max_open_risk", zero()),
        ("max_actions_per_day", zero()),
        ("default_ttl_seconds", to_json(&())),
        ("version", zero()),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into()
}

type Installed = (Kind, &'static str, &'static [(&'static str, &'static str)]);

/// The members that all settings of a kind share, and those of each setting.
const KINDS: &[Installed] = &[
    (
        Kind::GoLive,
        r#"{"go_live_enabled":false,"kill_switch_engaged":false,"changed_by":null,"reason":null,"updated_at":null,"version":1,
            "go_live":{"at":null,"by":null,"reason":null},"kill_switch":{"at":null,"by":null,"reason":null}}"#,
        &[("go_live", "{}")],
    ),
    (
        Kind::Pack,
        r#"{"version":"1","status":"installed","changed_by":"migration","updated_at":null}"#,
        &[
            ("go_live", r#"{"id":"go_live","name":"Go-live state"}"#),
            ("risk", r#"{"id":"risk","name":"Risk guard"}"#),
            ("heimdall", r#"{"id":"heimdall","name":"Heimdall charter"}"#),
            ("regression", r#"{"id":"regression","name":"Regression tripwire"}"#),
        ],
    ),
    (
        Kind::Risk,
        r#"{"max_actions_per_day":0,"default_ttl_seconds":null,"enabled":true,"changed_by":"migration","reason":"Seeded",
            "updated_at":null,"version":1,"throttled_by":[]}"#,
        &[
            ("GLOBAL", r#"{"engine":"GLOBAL","max_daily_loss":250,"max_daily_exposure":1500,"max_open_risk":1500}"#),
            (
                "WHOLESALE",
                r#"{"engine":"WHOLESALE","max_daily_loss":200,"max_daily_exposure":1000,"max_open_risk":1000}"#,
            ),
            ("CAPITAL", r#"{"engine":"CAPITAL","max_daily_loss":150,"max_daily_exposure":750,"max_open_risk":750}"#),
            (
                "NOTIFY",
                r#"{"engine":"NOTIFY","max_daily_loss":0,"max_daily_exposure":0,"max_open_risk":0,"enabled":false}"#,
            ),
        ],
    ),
    (
        Kind::Heimdall,
        r#"{"prod_use_enabled":false,"engine":null,"recommendation_ttl_seconds":259200,"single_use":false,"scorecard_window":"DAY",
            "window_days":30,"gate_rule":"POINT","approved_model_version":null,"calibration_gate":false,"evidence":null,
            "promotion":null,"changed_by":"migration","reason":"Seeded","updated_at":null,"version":1}"#,
        &[
            (
                "WHOLESALE_OFFER",
                r#"{"domain":"WHOLESALE_OFFER","min_confidence_prod":0.92,"min_sandbox_trials":75,"min_sandbox_success_rate":0.82}"#,
            ),
            (
                "BUYER_MATCH",
                r#"{"domain":"BUYER_MATCH","min_confidence_prod":0.9,"min_sandbox_trials":50,"min_sandbox_success_rate":0.8}"#,
            ),
            (
                "CAPITAL_ROUTE",
                r#"{"domain":"CAPITAL_ROUTE","min_confidence_prod":0.95,"min_sandbox_trials":100,"min_sandbox_success_rate":0.85}"#,
            ),
            (
                "FOLLOWUP_NEXT_ACTION",
                r#"{"domain":"FOLLOWUP_NEXT_ACTION","min_confidence_prod":0.9,"min_sandbox_trials":60,"min_sandbox_success_rate":0.8}"#,
            ),
        ],
    ),
    (
        Kind::Regression,
        r#"{"window_events":50,"baseline_events":200,"min_events_to_enforce":50,"action":"THROTTLE","engine":null,"enabled":false,
            "changed_by":"migration","reason":"Seeded","detector":"PLAIN","direction":"HIGHER_IS_BETTER","effect":"RELATIVE","max_drop_value":null,"mode":"ENFORCE",
            "on_stale":"WARN","stale_after_seconds":null,"false_trip_arl":null,"tolerance_fraction":null,"updated_at":null,"version":1}"#,
        &[
            ("WHOLESALE.contract_rate", r#"{"domain":"WHOLESALE","metric":"contract_rate","max_drop_fraction":0.2}"#),
            (
                "WHOLESALE.offer_accept_rate",
                r#"{"domain":"WHOLESALE","metric":"offer_accept_rate","max_drop_fraction":0.15}"#,
            ),
            (
                "BUYER_MATCH.match_success",
                r#"{"domain":"BUYER_MATCH","metric":"match_success","max_drop_fraction":0.25}"#,
            ),
            (
                "CAPITAL.roi_event",
                r#"{"domain":"CAPITAL","metric":"roi_event","max_drop_fraction":0.3,"action":"KILL_SWITCH"}"#,
            ),
        ],
    ),
];
