//! The instances on this database. Each writes its row with every renewal of its lease; differences between them are
//! reported.

use crate::db::{self, Database};
use crate::error::Result;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;
use uuid::Uuid;

/// The longest age at which a state admits a request. An instance may choose a shorter one, never a longer one, since
/// receipts rely on it.
pub const LEASE_MAX: Duration = Duration::from_secs(2);
/// The shortest lease, which leaves a quarter of it for a read.
pub const LEASE_MIN: Duration = Duration::from_millis(200);

/// The time for which the row of a vanished instance is kept.
const KEPT: TimeDelta = TimeDelta::days(1);

/// The time that the answer to a stop waits for the list of instances that do not enforce.
const NOT_ENFORCING_TIMEOUT: Duration = Duration::from_millis(250);

/// This process, as the other instances see it.
#[derive(Debug, Clone)]
pub struct Instance {
    /// A new id for every start.
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) version: &'static str,
    pub(super) configuration: Box<RawValue>,
}

/// The settings that every instance on a database should share.
#[derive(Debug, Clone, Serialize)]
pub struct Configuration {
    /// `all`, `prod_exec` or `off`.
    pub enforcement: &'static str,
    /// The SHA-256 of the file of rules; none for the defaults.
    pub execution_classes: Option<String>,
    /// The longest age at which a state is used, milliseconds.
    pub state_lease_ms: u64,
    /// The components that go-live requires beyond the levers.
    pub required_packs: Vec<String>,
}

impl Instance {
    /// This process. The name is for people: the host and the address that it listens on.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "an id of its own for every start; nothing is decided by it")]
    pub fn new(name: &str, configuration: &Configuration) -> Self {
        let name = name.chars().filter(|letter| !letter.is_control()).take(200).collect::<String>();
        Self {
            id: Uuid::new_v4(),
            name: if name.is_empty() { "unnamed".to_owned() } else { name },
            version: env!("CARGO_PKG_VERSION"),
            configuration: crate::db::to_json(configuration),
        }
    }

    /// The instance's id, which is new for every start.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }
}

/// The state that an instance's gate uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// The database's state, for its lease.
    State,
    /// The kill file, which blocks everything.
    KillFile,
    /// A state that went backwards, which blocks everything.
    Rewound,
}

impl Standing {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::KillFile => "kill_file",
            Self::Rewound => "rewound",
        }
    }
}

/// An instance as its row describes it.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceRecord {
    /// The instance's id, which is new for every start.
    pub id: Uuid,
    /// The host and the address that the instance listens on.
    pub name: String,
    /// The version of Holdfast.
    pub version: String,
    /// The settings that every instance should share.
    #[schema(value_type = Object)]
    pub configuration: Box<RawValue>,
    /// `state`: the instance follows the database; `kill_file`, `rewound`: it blocks everything.
    pub standing: String,
    /// The version of the go-live state that the instance used when it wrote this; null before its first read.
    pub state_version: Option<i64>,
    /// The time of the instance's first write.
    pub started_at: DateTime<Utc>,
    /// The time of the instance's last write.
    pub seen_at: DateTime<Utc>,
    /// Whether the instance wrote within the longest lease. One that did not admits nothing.
    pub live: bool,
}

/// A setting in which live instances differ.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Drift {
    /// The name of the setting: `version`, or a member of `configuration`.
    pub field: String,
    /// Each value, as JSON, with the names of the instances that have it.
    pub values: BTreeMap<String, Vec<String>>,
}

/// The instances on this database.
#[derive(Debug, Serialize, ToSchema)]
pub struct Instances {
    /// The instances that were seen within a day, by name.
    pub instances: Vec<InstanceRecord>,
    /// The settings in which the live instances differ; empty when they agree.
    pub drift: Vec<Drift>,
}

/// The instances that were seen within a day.
pub async fn list(conn: &mut PgConnection) -> Result<Instances> {
    let rows = sqlx::query!(
        r#"SELECT id,
                  name,
                  version,
                  configuration,
                  standing,
                  state_version,
                  started_at,
                  seen_at,
                  holdfast_now() AS "now!"
           FROM instance
           ORDER BY name, started_at, id"#
    )
    .fetch_all(conn)
    .await?;
    let lease = TimeDelta::from_std(LEASE_MAX).unwrap_or_default();
    let instances = rows
        .into_iter()
        .filter(|row| row.now - row.seen_at < KEPT)
        .map(|row| {
            Ok(InstanceRecord {
                id: row.id,
                name: row.name,
                version: row.version,
                configuration: crate::db::stored_json(row.configuration)?,
                standing: row.standing,
                state_version: row.state_version,
                started_at: row.started_at,
                seen_at: row.seen_at,
                live: row.now - row.seen_at <= lease,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let drift = drift(&instances);
    Ok(Instances { instances, drift })
}

impl Instances {
    /// The names of the live instances whose gate is off: they admit everything in any state.
    #[must_use]
    pub fn not_enforcing(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Told {
            enforcement: String,
        }
        let is_off = |one: &&InstanceRecord| {
            let told = serde_json::from_str::<Told>(one.configuration.get());
            one.live && told.is_ok_and(|told| told.enforcement == "off")
        };
        self.instances.iter().filter(is_off).map(|one| one.name.clone()).collect()
    }

    /// The components that the live instances, and the asked one, require beyond the levers.
    pub fn required_packs(&self, asked: Option<Uuid>) -> impl Iterator<Item = String> {
        #[derive(serde::Deserialize)]
        struct Told {
            required_packs: Vec<String>,
        }
        let live = self.instances.iter().filter(move |one| one.live || Some(one.id) == asked);
        let told = live.filter_map(|one| serde_json::from_str::<Told>(one.configuration.get()).ok());
        told.flat_map(|told| told.required_packs)
    }
}

/// The live instances that do not enforce; none if they cannot be read soon. This serves the answer to a stop, so it
/// neither waits long nor fails.
pub async fn not_enforcing(db: &Database) -> Option<Vec<String>> {
    let read = async { Ok::<_, crate::error::Error>(list(&mut *db.work().await?).await?.not_enforcing()) };
    let read = tokio::time::timeout(NOT_ENFORCING_TIMEOUT, crate::panics::caught(read)).await;
    read.ok()?.ok()?.ok()
}

/// The settings in which live instances differ.
fn drift(instances: &[InstanceRecord]) -> Vec<Drift> {
    let mut fields: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let live: Vec<_> = instances.iter().filter(|instance| instance.live).collect();
    for instance in &live {
        let mut note = |field: &str, value: String| {
            fields.entry(field.to_owned()).or_default().entry(value).or_default().push(instance.name.clone());
        };
        note("version", db::json_text(&instance.version));
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(instance.configuration.get()).unwrap_or_default();
        for (field, value) in members {
            note(&field, value.get().to_owned());
        }
    }
    // A setting that some instances do not know counts as a difference.
    let agreed = |values: &BTreeMap<String, Vec<String>>| {
        values.len() == 1 && values.values().all(|names| names.len() == live.len())
    };
    fields.into_iter().filter(|(_, values)| !agreed(values)).map(|(field, values)| Drift { field, values }).collect()
}

/// The name of an instance whose program does not know a migration, if one was seen within the last minute. That is
/// longer than a lease, since a process that was paused may go on.
pub async fn older_than(conn: &mut PgConnection, migration: i64) -> Result<Option<String>> {
    Ok(sqlx::query_scalar!(
        "SELECT name
         FROM instance
         WHERE (newest_migration IS NULL OR newest_migration < $1) AND seen_at > holdfast_now() - interval '1 minute'
         ORDER BY seen_at DESC
         LIMIT 1",
        migration
    )
    .fetch_optional(conn)
    .await?)
}

/// Removes an instance that ends from the list, and every one that was not seen for a day.
pub async fn leave(conn: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query!("DELETE FROM instance WHERE id = $1 OR seen_at < holdfast_now() - interval '1 day'", id)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, version: &str, configuration: &str, live: bool) -> InstanceRecord {
        InstanceRecord {
            id: Uuid::nil(),
            name: name.into(),
            version: version.into(),
            configuration: RawValue::from_string(configuration.into()).expect("JSON"),
            standing: "state".into(),
            state_version: Some(1),
            started_at: DateTime::UNIX_EPOCH,
            seen_at: DateTime::UNIX_EPOCH,
            live,
        }
    }

    #[test]
    fn drift_names_each_value_and_who_has_it_and_only_among_the_living() {
        let same = r#"{"enforcement":"all","state_lease_ms":2000}"#;
        let other = r#"{"enforcement":"off","state_lease_ms":2000}"#;
        assert!(drift(&[]).is_empty());
        assert!(drift(&[instance("a", "1", same, true), instance("b", "1", same, true)]).is_empty());
        assert!(drift(&[instance("a", "1", same, true), instance("b", "2", other, false)]).is_empty());
        let found = drift(&[instance("a", "1", same, true), instance("b", "2", other, true)]);
        let value = |field: &str, values: [(&str, &str); 2]| Drift {
            field: field.into(),
            values: values.into_iter().map(|(value, name)| (value.into(), vec![name.into()])).collect(),
        };
        assert_eq!(
            found,
            [
                value("enforcement", [(r#""all""#, "a"), (r#""off""#, "b")]),
                value("version", [(r#""1""#, "a"), (r#""2""#, "b")]),
            ]
        );
        let fewer = drift(&[instance("a", "1", same, true), instance("b", "1", "{}", true)]);
        assert_eq!(fewer.len(), 2, "what one does not know differs: {fewer:?}");
    }
}
