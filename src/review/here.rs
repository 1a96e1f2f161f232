//! What the answering process knows of itself, and what the others wrote of themselves.

use crate::clock::belief::Doubt;
use crate::db::disk::Disk;
use crate::enforcement::feed::Feed;
use crate::enforcement::kill_file::{Found, KillFile};
use crate::regression::measure::Reused;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// Who answers, and what stops it whatever the database says.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct Answering {
    /// The instance; null where a command answers on its machine.
    pub instance: Option<Uuid>,
    /// Whether its kill file exists, or cannot be looked at: it admits nothing.
    pub kill_file: bool,
    /// Where that file is looked for.
    pub kill_file_path: Option<String>,
    /// Whether the database went back and nobody has accepted that: it admits nothing.
    pub rewound: bool,
    /// Events that it knew and that are not in the database, as far as it noticed.
    pub lost_events: Vec<String>,
    /// Whether the database said within the last minute that its disk is full: a change that needs room is not recorded.
    pub disk_full: bool,
    /// Bytes that are free where the private PostgreSQL keeps its data; null where there is none, or it cannot be known.
    pub disk_free_bytes: Option<u64>,
    /// Measurements that it refused since it began because their sender had used their `event_id` for another one.
    pub event_ids_reused: u64,
    /// The last of them: the series, the id and the sender.
    pub event_id_reused_last: Option<String>,
    /// How many seconds the database's clock jumped ahead, while that is not believed: it reserves nothing. Null while it is.
    pub clock_jumped_seconds: Option<i64>,
}

impl Answering {
    /// An instance that serves.
    #[must_use]
    pub fn instance(feed: &Feed, reused: &Reused, disk: &Disk) -> Self {
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
        }
    }

    /// A command, on the machine whose instance looks for this file.
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

    /// Its name in sentences.
    pub(super) const fn name(&self) -> &'static str {
        if self.instance.is_some() { "this instance" } else { "this machine's instance" }
    }
}
