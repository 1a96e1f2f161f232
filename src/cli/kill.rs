//! The command `holdfast kill`, which stops by this machine's kill file and by the database.

use super::database::{Beside, close, open_beside};
use super::output::{Failure, fail, print};
use crate::audit::Origin;
use crate::config::{DatabaseConfig, path};
use crate::enforcement::instance;
use crate::enforcement::kill_file::{KillFile, Written};
use crate::error::Error;
use crate::go_live;
use crate::panics;
use crate::postgres::{OwnedBy, attach_to_any};
use crate::types::{Actor, Reason};
use clap::Args;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// The time that the kill file may take, since a disk that hangs must not delay the engage.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that the database may take for an engage: connecting, waiting for the head, committing.
const ENGAGE_TIMEOUT: Duration = Duration::from_secs(15);
/// The number of attempts, and the pause between them, for an engage that fails on the PostgreSQL of another command,
/// with which it ends.
const ENDING_ATTEMPTS: u32 = 20;
const ENDING_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// The actor who stops everything.
    #[arg(long)]
    pub(super) actor: Option<Actor>,
    /// The reason.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
    /// `KILL_FILE`: the file that stops this machine's instance [default: KILL in the data directory].
    #[arg(long, env = "KILL_FILE", value_name = "FILE", value_parser = path)]
    pub(super) kill_file: Option<PathBuf>,
}

/// Writes the file first, since the file needs no database. It succeeds only if the database has also recorded the
/// engage. It prints last, since the output may block.
pub(super) async fn kill(args: KillArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let KillArgs { actor, reason, kill_file } = args;
    let written = write_file(kill_file, config, actor.as_ref(), reason.as_ref());
    let written = tokio::time::timeout(FILE_TIMEOUT, written)
        .await
        .unwrap_or_else(|_| Err(format!("its disk took longer than {} s", FILE_TIMEOUT.as_secs()).into()));
    let mut said = match &written {
        Ok(path) => format!("{path}: an instance with this kill file is stopped until the file is removed\n"),
        Err(error) => {
            fail(&format!("the kill file does not stop this machine's instance: {error}"));
            String::new()
        }
    };
    let done = match engage(config, reason.as_ref(), actor).await {
        Ok(Engaged { version, database, admitting }) => {
            let then = if written.is_ok() { "release it, and remove the file" } else { "release it" };
            let _ = writeln!(
                said,
                "the kill switch is engaged (version {version}) in {database}: 2 s after this, no enforcing instance on it admits anything\n\
                 {}\n\
                 to resume: {then}",
                told_of(admitting.as_deref())
            );
            written.map(drop).map_err(|_| "the kill switch is engaged, but the kill file is not written".to_owned())
        }
        Err(cause) => Err(format!("the kill switch is not engaged, so other instances are not stopped: {cause}")),
    };
    let printed = print(&said).map_err(|error| format!("everything is stopped, but standard output failed: {error}"));
    done.and(printed).map_err(Failure::from)
}

/// The result of an engage in the database.
struct Engaged {
    /// The version of the state after the engage.
    version: i64,
    /// The name of the database that recorded the engage.
    database: String,
    /// The live instances that do not enforce; none if the list could not be read.
    admitting: Option<Vec<String>>,
}

/// Engages in the database. Each step has its own time limit, so that no step after the commit makes an engage look
/// failed.
async fn engage(config: &DatabaseConfig, reason: Option<&Reason>, actor: Option<Actor>) -> Result<Engaged, Failure> {
    let origin = Origin::system(actor);
    let recorded = async {
        let mut attempts = 1;
        loop {
            let (is_first, ends) = (attempts == 1, attempts < ENDING_ATTEMPTS && ends_with_another(config));
            attempts += 1;
            let tried = async {
                let (db, postgres, database) = open_beside(config, Beside::Anybody(ENGAGE_TIMEOUT)).await?;
                let engaged = panics::caught(go_live::engage_from_shell(&db, reason, &origin)).await;
                Ok::<_, Failure>((db, postgres, database, engaged))
            };
            match tried.await {
                // A second stop does no harm; a missing stop does.
                Err(_) | Ok((_, None, _, Ok(Err(_)))) if ends => tokio::time::sleep(ENDING_PAUSE).await,
                // The attempt was cut off in the middle: its server may have ended, or another server may have started.
                Ok((_, None, _, Ok(Err(Error::Unavailable(_) | Error::OutcomeUnknown(_))))) if is_first => {}
                done => return done,
            }
        }
    };
    let recorded = tokio::time::timeout(ENGAGE_TIMEOUT, recorded).await;
    let (db, postgres, database, engaged) =
        recorded.map_err(|_| format!("no answer within {} s", ENGAGE_TIMEOUT.as_secs()))??;
    // This read has its own time limit.
    let admitting = if matches!(engaged, Ok(Ok(_))) { instance::not_enforcing(&db).await } else { None };
    if let Err(error) = close(db, postgres).await {
        tracing::warn!(%error, "the PostgreSQL that was started for this command does not stop");
    }
    let state = engaged.map_err(|panics::Panicked| "a row of the database cannot be read")??;
    Ok(Engaged { version: state.version, database, admitting })
}

/// Whether another command started the running PostgreSQL, which then ends with that command.
fn ends_with_another(config: &DatabaseConfig) -> bool {
    let is_there = |dir: PathBuf| OwnedBy::may_be_command(&dir) && attach_to_any(&dir).is_ok();
    config.url().is_none() && config.data_dir().is_ok_and(is_there)
}

/// The sentence about the instances that the state does not stop.
fn told_of(admitting: Option<&[String]>) -> String {
    match admitting {
        None => "the list of live instances could not be read: see GET /instances".to_owned(),
        Some([]) => "every live instance enforces".to_owned(),
        Some(names) => format!(
            "NOT STOPPED: {}: they do not enforce (GO_LIVE_ENFORCE=0 or a development ENV), stop them on their machines",
            names.join(", ")
        ),
    }
}

/// Writes the kill file where the server looks for it. Returns its path.
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
