//! `holdfast kill`: stop, by the database and by this machine's kill file.

use super::database::{Beside, close, open_beside};
use super::{Failure, print};
use crate::audit::Origin;
use crate::config::{DatabaseConfig, path};
use crate::enforcement::instance;
use crate::enforcement::kill_file::{KillFile, Written};
use crate::go_live;
use crate::panics;
use crate::postgres::{OwnedBy, attach_to_any};
use crate::types::{Actor, Reason};
use clap::Args;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// How long the kill file may take: a disk that hangs must not keep the database from being told.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the database may take over an engage: connecting, waiting for the head, committing.
const ENGAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// How often, and after which pause, an engage is tried again that failed on a PostgreSQL of another command, with which it ends.
const ENDING_ATTEMPTS: u32 = 20;
const ENDING_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// Who stops everything.
    #[arg(long)]
    pub(super) actor: Option<Actor>,
    /// Why.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
    /// `KILL_FILE`: the file that stops this machine's instance. Default: KILL in the data directory.
    #[arg(long, env = "KILL_FILE", value_name = "FILE", value_parser = path)]
    pub(super) kill_file: Option<PathBuf>,
}

/// The file first: it needs nobody. Succeeds only if the database has recorded it, too. The output comes last, since its reader
/// may not take it.
pub(super) async fn kill(args: KillArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let KillArgs { actor, reason, kill_file } = args;
    let written = write_file(kill_file, config, actor.as_ref(), reason.as_ref());
    let written = tokio::time::timeout(FILE_TIMEOUT, written)
        .await
        .unwrap_or_else(|_| Err(format!("its disk has not taken it within {} s", FILE_TIMEOUT.as_secs()).into()));
    let mut said = match &written {
        Ok(path) => format!("{path}: an instance that looks there is stopped until it is removed\n"),
        Err(error) => {
            super::fail(&format!("this machine's instance is not stopped by its file: {error}"));
            String::new()
        }
    };
    let done = match engage(config, reason.as_ref(), actor).await {
        Ok(Engaged { version, database, admitting }) => {
            let then = if written.is_ok() { "release it, and remove the file" } else { "release it" };
            let _ = writeln!(
                said,
                "the kill switch is engaged (version {version}) in {database}: no instance on it that enforces admits anything from 2 s after this on\n\
                 {}\n\
                 to go on: {then}",
                told_of(admitting.as_deref())
            );
            written.map(drop).map_err(|_| "the kill switch is engaged, and the kill file is not written".to_owned())
        }
        Err(cause) => Err(format!("the database did not take it: {cause}: other instances are not stopped")),
    };
    let printed =
        print(&said).map_err(|error| format!("it is done, and standard output did not take what was done: {error}"));
    done.and(printed).map_err(Failure::from)
}

/// What an engage did.
struct Engaged {
    /// Of the state.
    version: i64,
    /// Where it is recorded.
    database: String,
    /// Live instances that do not enforce; none where that could not be read.
    admitting: Option<Vec<String>>,
}

/// Engages in the database. Each step has its time: nothing that comes after the commit makes an engage look as if it had failed.
async fn engage(config: &DatabaseConfig, reason: Option<&Reason>, actor: Option<Actor>) -> Result<Engaged, Failure> {
    let origin = Origin::system(actor);
    let recorded = async {
        let mut attempts = 1;
        loop {
            let ends = attempts < ENDING_ATTEMPTS && ends_with_another(config);
            attempts += 1;
            let tried = async {
                let (db, postgres, database) = open_beside(config, Beside::Anybody).await?;
                let engaged = panics::caught(go_live::engage_from_shell(&db, reason, &origin)).await;
                Ok::<_, Failure>((db, postgres, database, engaged))
            };
            match tried.await {
                // To stop twice is safe, and to stop nobody is not.
                Err(_) | Ok((_, None, _, Ok(Err(_)))) if ends => tokio::time::sleep(ENDING_PAUSE).await,
                done => return done,
            }
        }
    };
    let recorded = tokio::time::timeout(ENGAGE_TIMEOUT, recorded).await;
    let (db, postgres, database, engaged) =
        recorded.map_err(|_| format!("no answer within {} s", ENGAGE_TIMEOUT.as_secs()))??;
    // This has its own limit.
    let admitting = if matches!(engaged, Ok(Ok(_))) { instance::not_enforcing(&db).await } else { None };
    if let Err(error) = close(db, postgres).await {
        tracing::warn!(%error, "the database that was started for this does not end");
    }
    let state = engaged.map_err(|panics::Panicked| "a row in it cannot be read")??;
    Ok(Engaged { version: state.version, database, admitting })
}

/// Whether the PostgreSQL that runs was started by another command, with which it ends.
fn ends_with_another(config: &DatabaseConfig) -> bool {
    let is_there = |dir: PathBuf| OwnedBy::is_command(&dir) && attach_to_any(&dir).is_ok();
    config.url().is_none() && config.data_dir().is_ok_and(is_there)
}

/// Who is not stopped by the state.
fn told_of(admitting: Option<&[String]>) -> String {
    match admitting {
        None => "which live instances do not enforce could not be read: see GET /instances".to_owned(),
        Some([]) => "every live instance enforces".to_owned(),
        Some(names) => format!(
            "NOT STOPPED, since they do not enforce (GO_LIVE_ENFORCE=0 or a development ENV): {}: stop them on their machines",
            names.join(", ")
        ),
    }
}

/// Writes the kill file where the server would look; gives its path.
async fn write_file(
    said: Option<PathBuf>,
    config: &DatabaseConfig,
    actor: Option<&Actor>,
    reason: Option<&Reason>,
) -> Result<String, Failure> {
    let path = config.kill_file(said)?;
    let who = actor.map_or("somebody", Actor::as_str);
    let why = reason.map_or("no reason given", Reason::as_str);
    let shown = path.display().to_string();
    let written = KillFile::new(path).write(&format!("holdfast kill by {who} ({why})\n")).await;
    match written.map_err(|error| format!("{shown} cannot be written: {error}"))? {
        Written::Whole => Ok(shown),
        Written::Empty(error) => Ok(format!("{shown} (it is empty: {error})")),
    }
}
