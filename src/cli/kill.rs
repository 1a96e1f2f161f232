//! `holdfast kill`: stop, by the database and by this machine's kill file.

use super::database::{close, open_existing};
use super::{Failure, print};
use crate::audit::Origin;
use crate::config::{DatabaseConfig, path};
use crate::enforcement::instance;
use crate::enforcement::kill_file::{KillFile, Written};
use crate::go_live;
use crate::panics;
use crate::types::{Actor, Reason};
use clap::Args;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// How long the database may take over an engage: connecting, waiting for the head, committing.
const ENGAGE_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(super) struct KillArgs {
    /// Who stops everything.
    #[arg(long)]
    actor: Option<Actor>,
    /// Why.
    #[arg(long)]
    reason: Option<Reason>,
    /// `KILL_FILE`: the file that stops this machine's instance. Default: KILL in the data directory.
    #[arg(long, env = "KILL_FILE", value_name = "FILE", value_parser = path)]
    kill_file: Option<PathBuf>,
}

/// The file first: it needs nobody. Succeeds only if the database has recorded it, too. The output comes last, since its reader
/// may not take it.
pub(super) async fn kill(args: KillArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let KillArgs { actor, reason, kill_file } = args;
    let written = write_file(kill_file, config, actor.as_ref(), reason.as_ref()).await;
    let mut said = match &written {
        Ok(path) => format!("{path}: an instance that looks there is stopped until it is removed\n"),
        Err(error) => {
            super::fail(&format!("this machine's instance is not stopped by its file: {error}"));
            String::new()
        }
    };
    let engaged = async {
        let (db, postgres, name) = open_existing(config).await?;
        let engaged = panics::caught(go_live::engage_from_shell(&db, reason.as_ref(), &Origin::system(actor))).await;
        let admitting = if matches!(engaged, Ok(Ok(_))) { instance::not_enforcing(&db).await } else { None };
        close(db, postgres).await?;
        let engaged = engaged.map_err(|panics::Panicked| Failure::from("a row in it cannot be read"))?;
        Ok::<_, Failure>((engaged?, name, admitting))
    };
    let done = match tokio::time::timeout(ENGAGE_TIMEOUT, engaged).await {
        Ok(Ok((state, name, admitting))) => {
            let then = if written.is_ok() { "release it, and remove the file" } else { "release it" };
            let _ = writeln!(
                said,
                "the kill switch is engaged (version {}) in {name}: no instance on it that enforces admits anything from 2 s after this on\n\
                 {}\n\
                 to go on: {then}",
                state.version,
                told_of(admitting.as_deref())
            );
            written.map(drop).map_err(|_| "the kill switch is engaged, and the kill file is not written".to_owned())
        }
        Ok(Err(error)) => Err(not_taken(&error.to_string())),
        Err(_) => Err(not_taken(&format!("no answer within {} s", ENGAGE_TIMEOUT.as_secs()))),
    };
    let printed =
        print(&said).map_err(|error| format!("it is done, and standard output did not take what was done: {error}"));
    done.and(printed).map_err(Failure::from)
}

fn not_taken(cause: &str) -> String {
    format!("the database did not take it: {cause}: other instances are not stopped")
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
    let path = match said.filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => file,
        None => config.data_dir()?.join("KILL"),
    };
    let who = actor.map_or("somebody", Actor::as_str);
    let why = reason.map_or("no reason given", Reason::as_str);
    let shown = path.display().to_string();
    let written = KillFile::new(path).write(&format!("holdfast kill by {who} ({why})\n")).await;
    match written.map_err(|error| format!("{shown} cannot be written: {error}"))? {
        Written::Whole => Ok(shown),
        Written::Empty(error) => Ok(format!("{shown} (it is empty: {error})")),
    }
}
