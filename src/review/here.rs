//! The answering process's knowledge of itself, for the review.

use crate::audit::archive::schedule::LastFailure;
use crate::clock::belief::Doubt;
use crate::db::disk::Disk;
use crate::enforcement::feed::Feed;
use crate::enforcement::kill_file::{Found, KillFile};
use crate::regression::measure::Reused;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The instance that answers, and the causes that stop it whatever the database says.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Answering {
    /// The instance's id; null if a command answers on its machine.
    pub instance: Option<Uuid>,
    /// Whether its kill file exists, or cannot be read: it then admits nothing.
    pub kill_file: bool,
    /// The path of the kill file; null if it has none.
    pub kill_file_path: Option<String>,
    /// Whether the database went back and no operator has accepted that: the instance then admits nothing.
    pub rewound: bool,
    /// The events that it knew and that are missing in the database, as far as it noticed.
    pub lost_events: Vec<String>,
    /// Whether the database reported within the last minute that its disk is full: changes that need room are then not
    /// recorded.
    pub disk_full: bool,
    /// The free bytes at the private PostgreSQL's data; null if there is none, or they are unknown.
    pub disk_free_bytes: Option<u64>,
    /// The measurements that it has refused since its start because their sender had used their `event_id` for another
    /// one.
    pub event_ids_reused: u64,
    /// The last of those: the series, the id and the sender; null if there was none.
    pub event_id_reused_last: Option<String>,
    /// The seconds by which the database's clock jumped ahead, while it is not believed and reserves are refused; null
    /// while it is believed.
    pub clock_jumped_seconds: Option<i64>,
    /// The reason why its scheduled archive failed.
    #[serde(skip)]
    pub(super) archive_failure: Option<String>,
}

impl Answering {
    /// The answer of an instance that serves.
    #[must_use]
    pub fn instance(feed: &Feed, reused: &Reused, disk: &Disk, archiving: &LastFailure) -> Self {
        let (event_ids_reused, event_id_reused_last) = reused.so_far();
        Self {
            disk_full: disk.is_full(),
            disk_free_bytes: disk.free_bytes(),
            event_ids_reused,
            event_id_reused_last,
            instance: Some(feed.instance().id()),
            kill_file: feed.is_killed_locally(),
            kill_file_path: feed.kill_file().map(|file| file.path().display().to_string()),
            rewound: feed.is_rewound(),
            lost_events: feed.history().lost().iter().map(ToString::to_string).collect(),
            clock_jumped_seconds: match feed.belief().doubt() {
                Some(Doubt::Ahead(seconds)) => Some(seconds),
                Some(Doubt::Behind(_)) | None => None,
            },
            archive_failure: archiving.get(),
        }
    }

    /// The answer of a command, on the machine whose instance has this kill file.
    pub async fn machine(kill_file: Option<KillFile>) -> Self {
        let Some(file) = kill_file else {
            return Self::default();
        };
        Self {
            kill_file: file.look().await != Found::Absent,
            kill_file_path: Some(file.path().display().to_string()),
            ..Self::default()
        }
    }

    /// The name of the instance in sentences.
    pub(super) const fn name(&self) -> &'static str {
        if self.instance.is_some() { "this instance" } else { "this machine's instance" }
    }
}
