//! The removal of archived events from the database, in one transaction with the row that says where they are.
//!
//! To drop a partition, PostgreSQL locks its table against everybody for a moment. Requests that come meanwhile wait
//! behind it, so a lock that is not there at once is given up, and tried again later.

use super::manifest::Manifest;
use super::plan::Part;
use super::{ArchiveError, Result, is_locked, refused, store};
use crate::audit::{ControlEvent, Stream};
use crate::db::{self, Database};
use crate::error::Error;
use crate::identity::Origin;
use crate::types::ControlAction;
use serde::Serialize;
use sqlx::Executor;
use std::time::Duration;
use tokio::time::Instant;

/// The longest wait for each of the few locks: others wait behind it.
const LOCK: &str = "SET LOCAL lock_timeout = '100ms'";
/// The time for which it is tried, and the pause between two attempts.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_secs(2);

/// The detail of the control event.
#[derive(Serialize)]
struct Detail<'a> {
    file: String,
    sha256: &'a str,
    bytes: i64,
    last_hash: String,
    dropped: &'a [String],
}

/// Records a segment and drops its tables. `erasures` is the number of erased texts when the events were read.
pub(super) async fn remove(
    db: &Database,
    part: &Part,
    manifest: &Manifest,
    erasures: i64,
    tell: &mut impl FnMut(&str),
) -> Result<()> {
    let mut tables = vec![part.table.clone()];
    tables.extend(store::partitions_up_to(&mut *db.work().await?, part.stream, part.last).await?);
    let began = Instant::now();
    let mut is_told = false;
    loop {
        match attempt(db, part, manifest, erasures, &tables).await {
            Err(ArchiveError::Database(Error::Unavailable(error) | Error::Database(error))) if is_locked(&error) => {}
            done => return done,
        }
        let who = store::holders(&mut *db.work().await?, &tables, None).await?;
        if began.elapsed() >= PATIENCE {
            let (first, last, file) = (part.first(), part.last, part.file());
            return refused(format!(
                "{file} is written, but events {first} to {last} are still in the database, because {who} uses them: try again when \
                 that has ended"
            ));
        }
        if !is_told {
            is_told = true;
            tell(&format!("{who} uses {}: waiting up to {} s", part.table, PATIENCE.as_secs()));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn attempt(db: &Database, part: &Part, manifest: &Manifest, erasures: i64, tables: &[String]) -> Result<()> {
    let (first, last, stream) = (part.first(), part.last, part.stream);
    let mut tx = db.begin().await?;
    tx.execute(LOCK).await?;
    // Before the head: a switch does not wait for readers of these tables.
    store::lock_parents(&mut tx, stream).await?;
    let mut head = db.history().lock(&mut tx, Stream::Control).await?;
    if store::erasures(&mut tx, stream, first, last).await? != erasures {
        return refused(format!(
            "a text of the events {first} to {last} was erased while they were archived, and {} may still have it: run the \
             same command again, which replaces the file",
            part.file()
        ));
    }
    if !store::record(&mut tx, manifest, part.restored.as_ref(), head.next().at).await? {
        return refused(format!(
            "events {first} to {last} were archived by another process meanwhile: see holdfast archive list"
        ));
    }
    store::drop_tables(&mut tx, tables).await?;
    let subject = format!("{}/{first}-{last}", stream.as_str());
    let detail = Detail {
        file: manifest.file(),
        sha256: &manifest.sha256,
        bytes: manifest.bytes,
        last_hash: crate::types::hex(&manifest.last.hash),
        dropped: tables,
    };
    let event = ControlEvent::new(ControlAction::AuditArchive).about(&subject).detail(&detail);
    event.append(&mut tx, &mut head, &Origin::system(None)).await?;
    Ok(db::commit(tx).await?)
}
