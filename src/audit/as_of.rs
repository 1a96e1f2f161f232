//! The settings in force at an instant (the go-live state, the components and every policy), computed from the control
//! stream alone.
//!
//! The event of a change has the whole setting after it, so the last one before the instant is enough. Two facts need
//! more: a trip throttles a risk policy and a re-arm lifts that, and only the change that moved it tells whether an
//! operator enabled a throttled policy. So the events about risk policies and trips are replayed in order.
//!
//! The settings before the first change came with the migrations, which are never edited; this module repeats them.
//! Nothing is guessed: a value whose detail was erased is null and marked as erased.

mod installed;

pub use installed::Fields;

use super::actions::{Setting, row_of};
use crate::db::to_json;
use crate::error::{Error, Result};
use crate::types::{ControlAction, Ratio};
use chrono::{DateTime, Utc};
use installed::Kind;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The actions that move a setting: those of which the last event for a subject is enough, and those whose events are
/// all replayed.
#[must_use]
pub fn moving() -> (Vec<&'static str>, Vec<&'static str>) {
    let texts = |is_replayed: bool| {
        let moves = move |action: &ControlAction| {
            row_of(*action).moves.is_some_and(|setting| setting.is_replayed() == is_replayed)
        };
        ControlAction::ALL.into_iter().filter(moves).map(ControlAction::as_str).collect()
    };
    (texts(false), texts(true))
}

/// A control event, reduced to the facts about settings.
#[derive(Debug)]
pub struct Told {
    /// The number in the control stream.
    pub seq: i64,
    /// The time of the event.
    pub at: DateTime<Utc>,
    /// The setting that it moves.
    pub moves: Setting,
    /// The engine, domain, wire or component; none for the go-live state.
    pub subject: Option<String>,
    /// The acting person or program, as claimed.
    pub actor: Option<String>,
    /// The reason in the caller's words; none if none was given, or it was erased.
    pub reason: Option<String>,
    /// True if the reason was erased.
    pub reason_erased: bool,
    /// The setting after the event; none if it was erased.
    pub detail: Option<String>,
}

impl Told {
    /// The parsed detail; none if it was erased.
    fn read<T: for<'a> Deserialize<'a>>(&self) -> Result<Option<T>> {
        let unreadable = |error| Error::Inconsistent(format!("the detail of control event {}: {error}", self.seq));
        self.detail.as_deref().map(serde_json::from_str).transpose().map_err(unreadable)
    }

    fn subject(&self) -> String {
        self.subject.clone().unwrap_or_default()
    }
}

/// A setting in force, and the event that it comes from.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InForce {
    /// An engine, a domain, a wire (`DOMAIN.metric`) or a component; `go_live` for the switches.
    pub name: String,
    /// The control event that set it; null if the installed setting was never changed.
    pub seq: Option<i64>,
    /// The time of that event.
    pub at: Option<DateTime<Utc>>,
    /// True if the value is not known, because the detail of its event was erased.
    pub erased: bool,
    /// The setting in force, as the lever's own route showed it; null if it was erased.
    #[schema(value_type = Option<Object>)]
    pub value: Option<Fields>,
}

/// The settings in force at an instant.
#[derive(Debug, Serialize, ToSchema)]
pub struct AsOf {
    /// The instant; an event of exactly that time counts.
    pub at: DateTime<Utc>,
    /// The last control event up to the instant; 0 before the first.
    pub seq: i64,
    /// The go-live state; null before Holdfast was installed.
    pub go_live: Option<InForce>,
    /// The components that had reported.
    pub packs: Vec<InForce>,
    /// The risk policies, with the throttles that were active.
    pub risk_policies: Vec<InForce>,
    /// The charter's policies.
    pub heimdall_policies: Vec<InForce>,
    /// The wires' policies.
    pub regression_policies: Vec<InForce>,
    /// The wires that had tripped at least once: `domain`, `metric`, `triggered`, `trip_id`, `last_triggered_at`,
    /// `watermark`.
    pub wires: Vec<InForce>,
    /// Trips whose detail was erased, so that the throttled risk policy is not known.
    pub unknown_trips: Vec<i64>,
}

#[derive(Deserialize)]
struct After {
    after: Fields,
}

#[derive(Deserialize)]
struct Upserted {
    changes: Vec<Moved>,
    policy: Fields,
}

#[derive(Deserialize)]
struct Moved {
    field: String,
    to: Box<RawValue>,
}

#[derive(Deserialize)]
struct Accepted {
    version: i64,
}

#[derive(Deserialize)]
struct Tripped {
    policy: Pair,
    drop_fraction: Option<Ratio>,
    engine: Option<String>,
}

#[derive(Deserialize)]
struct Pair {
    domain: String,
    metric: String,
}

/// The effect of a re-arm, or of another baseline, on a wire.
#[derive(Deserialize)]
struct Rebased {
    /// The series event up to which the wire ignores everything; none in baseline events from before it was recorded.
    watermark: Option<i64>,
}

/// Facts of a risk policy that its own members do not show.
#[derive(Debug, Default)]
struct Hold {
    /// The operator's flag; none if it is not known.
    by_hand: Option<bool>,
    throttled_by: Vec<i64>,
}

/// The state of the replay.
#[derive(Debug, Default)]
struct Going {
    things: BTreeMap<(Kind, String), InForce>,
    holds: BTreeMap<String, Hold>,
    /// The active trip of each wire.
    trips: BTreeMap<String, i64>,
    /// The series event up to which a wire ignores everything; none if that is not known.
    watermarks: BTreeMap<String, Option<i64>>,
    unknown_trips: Vec<i64>,
}

/// The settings after these events, in order: the last of each kind and name, and every one of those that [`moving`]
/// says are replayed.
pub fn as_of(at: DateTime<Utc>, seq: i64, installed: bool, events: &[Told]) -> Result<AsOf> {
    let mut going = Going::default();
    if installed {
        for (kind, name, value) in installed::all()? {
            if kind == Kind::Risk {
                let by_hand = value.get("enabled").map(|enabled| enabled.get() == "true");
                going.holds.insert(name.clone(), Hold { by_hand, ..Hold::default() });
            }
            let thing = InForce { name: name.clone(), seq: None, at: None, erased: false, value: Some(value) };
            going.things.insert((kind, name), thing);
        }
    }
    for event in events {
        going.take(event)?;
    }
    Ok(going.end(at, seq))
}

impl Going {
    fn take(&mut self, event: &Told) -> Result<()> {
        match event.moves {
            Setting::Switches => {
                let after = event.read::<After>()?.map(|changed| changed.after);
                self.set(Kind::GoLive, "go_live".to_owned(), event, after);
            }
            Setting::Version => self.accept(event)?,
            Setting::Report => self.set(Kind::Pack, event.subject(), event, event.read()?),
            Setting::RiskPolicy => self.upsert_risk(event)?,
            Setting::RiskPolicyRemoval => {
                self.holds.remove(&event.subject());
                self.remove(Kind::Risk, event);
            }
            Setting::HeimdallPolicy => self.upsert(Kind::Heimdall, event)?,
            Setting::HeimdallPolicyRemoval => self.remove(Kind::Heimdall, event),
            Setting::RegressionPolicy => self.upsert(Kind::Regression, event)?,
            Setting::RegressionPolicyRemoval => self.remove(Kind::Regression, event),
            Setting::Trip => self.trip(event)?,
            Setting::Rearm => self.rearm(event)?,
            Setting::Baseline => self.rebase(event)?,
        }
        Ok(())
    }

    fn set(&mut self, kind: Kind, name: String, event: &Told, value: Option<Fields>) {
        let (seq, at) = (Some(event.seq), Some(event.at));
        let thing = InForce { name: name.clone(), seq, at, erased: value.is_none(), value };
        self.things.insert((kind, name), thing);
    }

    fn upsert(&mut self, kind: Kind, event: &Told) -> Result<()> {
        self.set(kind, event.subject(), event, event.read::<Upserted>()?.map(|upserted| upserted.policy));
        Ok(())
    }

    fn remove(&mut self, kind: Kind, event: &Told) {
        self.things.remove(&(kind, event.subject()));
    }

    /// An accepted history moves the version up by one and changes nothing else.
    fn accept(&mut self, event: &Told) -> Result<()> {
        let accepted: Option<Accepted> = event.read()?;
        let Some(state) = self.things.get_mut(&(Kind::GoLive, "go_live".to_owned())) else { return Ok(()) };
        (state.seq, state.at) = (Some(event.seq), Some(event.at));
        if let (Some(Accepted { version }), Some(value)) = (accepted, &mut state.value) {
            value.insert("version".into(), to_json(&version));
        } else {
            (state.erased, state.value) = (true, None);
        }
        Ok(())
    }

    fn upsert_risk(&mut self, event: &Told) -> Result<()> {
        let engine = event.subject();
        let hold = self.holds.entry(engine.clone()).or_default();
        let upserted: Option<Upserted> = event.read()?;
        if let Some(Upserted { changes, policy }) = &upserted {
            let member = |name: &str| policy.get(name).map_or("null", |value| value.get());
            hold.throttled_by = serde_json::from_str(member("throttled_by")).unwrap_or_default();
            if let Some(moved) = changes.iter().find(|change| change.field == "enabled") {
                hold.by_hand = Some(moved.to.get() == "true");
            } else if hold.throttled_by.is_empty() {
                hold.by_hand = Some(member("enabled") == "true");
            }
        } else {
            hold.by_hand = None;
        }
        self.set(Kind::Risk, engine, event, upserted.map(|upserted| upserted.policy));
        Ok(())
    }

    fn trip(&mut self, event: &Told) -> Result<()> {
        let wire = event.subject();
        self.trips.insert(wire.clone(), event.seq);
        let Some(Tripped { policy: Pair { domain, metric }, drop_fraction, engine }) = event.read()? else {
            self.unknown_trips.push(event.seq);
            self.set(Kind::Wire, wire, event, None);
            return Ok(());
        };
        if let Some(engine) = engine {
            let why = format!("Regression tripwire: {wire} drop={}", drop_fraction.unwrap_or_default().short());
            self.note_risk(&engine, event, event.actor.as_deref().or(Some("system")), Some(&why));
            self.holds.entry(engine).or_default().throttled_by.push(event.seq);
        }
        let watermark = self.watermarks.get(&wire).copied().unwrap_or(Some(0));
        let value = [
            ("domain", to_json(&domain)),
            ("metric", to_json(&metric)),
            ("triggered", to_json(&true)),
            ("trip_id", to_json(&event.seq)),
            ("last_triggered_at", to_json(&event.at)),
            ("watermark", to_json(&watermark)),
        ];
        self.set(Kind::Wire, wire, event, Some(value.map(|(name, value)| (name.to_owned(), value)).into()));
        Ok(())
    }

    fn rearm(&mut self, event: &Told) -> Result<()> {
        let wire = event.subject();
        // A wire has at most one active trip, so the trip is known without the detail.
        let trip = self.trips.remove(&wire);
        let held = self.holds.iter_mut().find(|(_, hold)| hold.throttled_by.iter().any(|held| Some(*held) == trip));
        if let Some((engine, hold)) = held {
            hold.throttled_by.retain(|held| Some(*held) != trip);
            let engine = engine.clone();
            let why = event.reason.clone().or_else(|| (!event.reason_erased).then(|| format!("Re-armed: {wire}")));
            self.note_risk(&engine, event, event.actor.as_deref(), why.as_deref());
        }
        let value = self.rebased(event)?.map(|mut value| {
            value.insert("triggered".into(), to_json(&false));
            value.insert("trip_id".into(), to_json(&()));
            value
        });
        self.set(Kind::Wire, wire, event, value);
        Ok(())
    }

    /// Another baseline. For a wire that has never tripped it is kept until it trips.
    fn rebase(&mut self, event: &Told) -> Result<()> {
        let wire = event.subject();
        let value = self.rebased(event)?;
        if self.things.contains_key(&(Kind::Wire, wire.clone())) {
            self.set(Kind::Wire, wire, event, value);
        }
        Ok(())
    }

    /// The wire before this event, with the watermark of the event; none if either is not known.
    fn rebased(&mut self, event: &Told) -> Result<Option<Fields>> {
        let wire = event.subject();
        let rebased: Option<Rebased> = event.read()?;
        let watermark = rebased.as_ref().and_then(|rebased| rebased.watermark);
        self.watermarks.insert(wire.clone(), watermark);
        let before = self.things.get(&(Kind::Wire, wire)).and_then(|thing| thing.value.clone());
        Ok(rebased.and(before).map(|mut value| {
            value.insert("watermark".into(), to_json(&watermark));
            value
        }))
    }

    /// Records on a risk policy that a throttle was set or lifted. An engine without a policy gets a disabled one
    /// without caps.
    fn note_risk(&mut self, engine: &str, event: &Told, by: Option<&str>, why: Option<&str>) {
        let thing = self.things.entry((Kind::Risk, engine.to_owned())).or_insert_with(|| {
            self.holds.insert(engine.to_owned(), Hold { by_hand: Some(false), ..Hold::default() });
            InForce {
                name: engine.to_owned(),
                seq: None,
                at: None,
                erased: false,
                value: Some(installed::uncapped(engine)),
            }
        });
        (thing.seq, thing.at) = (Some(event.seq), Some(event.at));
        let Some(value) = &mut thing.value else { return };
        let version = value.get("version").and_then(|version| version.get().parse::<i64>().ok()).unwrap_or_default();
        value.insert("version".into(), to_json(&(version + 1)));
        value.insert("changed_by".into(), to_json(&by));
        value.insert("reason".into(), to_json(&why));
        value.insert("updated_at".into(), to_json(&event.at));
    }

    fn end(mut self, at: DateTime<Utc>, seq: i64) -> AsOf {
        let mut of = |wanted: Kind| -> Vec<InForce> {
            self.things.extract_if(.., |(kind, _), _| *kind == wanted).map(|(_, thing)| thing).collect()
        };
        let mut risk_policies = of(Kind::Risk);
        for thing in &mut risk_policies {
            let Some(Hold { by_hand, throttled_by }) = self.holds.get(&thing.name) else { continue };
            let enabled = if throttled_by.is_empty() { *by_hand } else { Some(false) };
            if let (Some(value), Some(enabled)) = (&mut thing.value, enabled) {
                value.insert("enabled".into(), to_json(&enabled));
                value.insert("throttled_by".into(), to_json(throttled_by));
            } else {
                (thing.erased, thing.value) = (true, None);
            }
        }
        AsOf {
            at,
            seq,
            go_live: of(Kind::GoLive).pop(),
            packs: of(Kind::Pack),
            risk_policies,
            heimdall_policies: of(Kind::Heimdall),
            regression_policies: of(Kind::Regression),
            wires: of(Kind::Wire),
            unknown_trips: self.unknown_trips,
        }
    }
}
