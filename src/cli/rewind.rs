//! The command `holdfast db accept-rewind`, which accepts a database that went back, and the file that records how far
//! the database had come.

use super::database::{close_after, open_existing};
use super::notary::existing_notary;
use super::output::{Failure, print};
use crate::audit::Origin;
use crate::config::{CheckpointConfig, DatabaseConfig};
use crate::db::Database;
use crate::db::history::{self, Heads, Lost, Marks, MarksFile};
use crate::enforcement::instance::{self, Standing};
use crate::go_live;
use crate::types::{Actor, Reason};
use clap::Args;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// The actor who accepts.
    #[arg(long)]
    actor: Option<Actor>,
    /// The reason why the older state is right.
    #[arg(long)]
    reason: Reason,
    #[command(flatten)]
    checkpoint: CheckpointConfig,
}

/// The file of this machine's marks: one for each address of a database and each book in it. None without a data
/// directory.
fn marks_file(config: &DatabaseConfig, db: &Database) -> Result<Option<MarksFile>, Failure> {
    let Ok(dir) = config.data_dir() else { return Ok(None) };
    let (options, schema) = db.place()?;
    let server = match config.url() {
        Some(_) => {
            let socket = options.get_socket().map(|dir| dir.display().to_string());
            format!("{}:{}", socket.unwrap_or_else(|| options.get_host().to_owned()), options.get_port())
        }
        // The private database has one name, since its directory may move.
        None => "private".to_owned(),
    };
    let database = options.get_database().unwrap_or_default();
    Ok(Some(MarksFile::new(&dir, &format!("{server}/{database}/{schema}"))))
}

/// Loads this machine's marks of the database, and keeps saving those of this process.
pub(super) async fn remember(db: &Database, config: &DatabaseConfig) -> Result<(), Failure> {
    let Some(file) = marks_file(config, db)? else {
        tracing::warn!("HOME and DATA_DIR are not set: a restart will not notice that the database lost events");
        return Ok(());
    };
    let shown = file.path().display().to_string();
    db.history().remember_in(file).await.map_err(|error| {
        format!(
            "{shown} cannot be read ({error}): it records how far the database had come; inspect it, then remove it"
        )
        .into()
    })
}

/// Gives the database a new history, which instances that saw it go back adopt. Prints the lost events.
pub(super) async fn accept(args: AcceptArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, name) = open_existing(config).await?;
    let accepted = accept_in(&db, args, config).await;
    let printed = accepted.and_then(|accepted| print(&text(accepted, &name)));
    close_after(printed, db, postgres).await
}

fn text(Accepted { version, rewound, known, lost }: Accepted, name: &str) -> String {
    let found = match rewound {
        0 => "no live instance has reported that the database went back",
        _ => "every instance adopts it",
    };
    let mut text = format!("accepted in {name}: the go-live state is at version {version}; {found}\n");
    if !known {
        text.push_str(
            "this machine has neither marks nor a checkpoint of this database, so the lost events are not known here\n",
        );
    } else if lost.is_empty() {
        text.push_str("every event that this machine knows of is there\n");
    }
    for lost in lost {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{lost}");
    }
    text
}

struct Accepted {
    version: i64,
    /// The number of live instances that reported an older state.
    rewound: usize,
    /// Whether this machine knows of any event.
    known: bool,
    lost: Vec<Lost>,
}

async fn accept_in(db: &Database, args: AcceptArgs, config: &DatabaseConfig) -> Result<Accepted, Failure> {
    let AcceptArgs { actor, reason, checkpoint } = args;
    let list = instance::list(&mut *db.read().await?).await?;
    let rewound = list.instances.iter().filter(|one| one.live && one.standing == Standing::Rewound.as_str()).count();
    let file = marks_file(config, db)?;
    let marks = match &file {
        // If the file cannot be read, fewer lost events are known.
        Some(file) => file.load().await.ok().flatten(),
        None => None,
    };
    let notary = existing_notary(&checkpoint, config).await;
    let known: Vec<Heads> =
        [marks.map(|marks| marks.heads), notary.and_then(|notary| notary.last()).map(|last| last.heads)]
            .into_iter()
            .flatten()
            .collect();
    let accepted = go_live::accept_rewind_knowing(db, &known, &reason, &Origin::system(actor)).await?;
    if let Some(file) = file {
        let found = history::found(&mut *db.read().await?).await?;
        let marks = Marks { generation: found.generation, heads: found.heads };
        file.save(&marks).await.map_err(|error| format!("{} cannot be written: {error}", file.path().display()))?;
    }
    Ok(Accepted { version: accepted.version, rewound, known: !known.is_empty(), lost: accepted.lost })
}
