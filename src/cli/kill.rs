//! `holdfast kill`: stop, by the database and by this machine's kill file. `holdfast db accept-rewind`: a restored state is meant.

use super::{Failure, close, open, print};
use crate::audit::Origin;
use crate::config::{DatabaseConfig, path};
use crate::enforcement::kill_file::KillFile;
use crate::go_live;
use crate::types::{Actor, Principal, Reason};
use clap::Args;
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

#[derive(Debug, Args)]
pub(super) struct AcceptArgs {
    /// Who accepts.
    #[arg(long)]
    actor: Option<Actor>,
    /// Why the older state is the right one.
    #[arg(long)]
    reason: Reason,
}

fn origin(actor: Option<Actor>) -> Origin {
    Origin { principal: Principal::system(), actor, request_id: None, correlation_id: None }
}

/// The file first: it needs nobody. Succeeds only if the database has recorded it, too.
pub(super) async fn kill(args: KillArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let KillArgs { actor, reason, kill_file } = args;
    let path = match kill_file.filter(|file| !file.as_os_str().is_empty()) {
        Some(file) => file,
        None => config.data_dir()?.join("KILL"),
    };
    let shown = path.display().to_string();
    let file = KillFile::new(path);
    let who = actor.as_ref().map_or("somebody", Actor::as_str);
    let why = reason.as_ref().map_or("no reason given", Reason::as_str);
    let written = file.write(&format!("holdfast kill by {who} ({why})\n")).await;
    match &written {
        Ok(()) => print(&format!("{shown}: an instance that looks there blocks everything until it is removed\n"))?,
        Err(error) => super::fail(&format!("{shown} cannot be written: {error}")),
    }
    let engaged = async {
        let (db, postgres) = open(config).await?;
        let engaged = go_live::engage_from_shell(&db, reason.as_ref(), &origin(actor)).await;
        close(db, postgres).await?;
        Ok::<_, Failure>(engaged?)
    };
    let state = match tokio::time::timeout(ENGAGE_TIMEOUT, engaged).await {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => {
            return Err(format!("the database did not take it: {error}: other instances are not stopped").into());
        }
        Err(_) => {
            let seconds = ENGAGE_TIMEOUT.as_secs();
            return Err(
                format!("the database did not answer within {seconds} s: other instances are not stopped").into()
            );
        }
    };
    print(&format!(
        "the kill switch is engaged (version {}): no instance admits anything from 2 s after this on\n\
         to go on: release it, and remove the file\n",
        state.version
    ))?;
    Ok(written?)
}

/// Gives the state a history of its own, so that instances that saw it go backwards take it over.
pub(super) async fn accept_rewind(args: AcceptArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres) = open(config).await?;
    let accepted = go_live::accept_rewind(&db, &args.reason, &origin(args.actor)).await;
    close(db, postgres).await?;
    print(&format!("accepted: the go-live state is at version {}, and every instance takes it over\n", accepted?))
}
