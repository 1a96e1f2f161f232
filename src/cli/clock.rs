//! `holdfast db accept-clock`: a clock that is behind the ledger is right.

use super::database::{close, open_existing};
use super::{Failure, print};
use crate::audit::Origin;
use crate::config::DatabaseConfig;
use crate::risk::clock;
use crate::types::{Actor, Reason};
use chrono::SecondsFormat;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct AcceptClockArgs {
    /// The actor who accepts.
    #[arg(long)]
    actor: Option<Actor>,
    /// Why the clock is right, and how it came to be ahead.
    #[arg(long)]
    reason: Reason,
}

/// Lets reserves go on under a clock that is behind the ledger's last event.
pub(super) async fn accept(args: AcceptClockArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, name) = open_existing(config).await?;
    let accepted = clock::accept_clock(&db, &args.reason, &Origin::system(args.actor)).await;
    close(db, postgres).await?;
    let Some(accepted) = accepted? else {
        return print(&format!(
            "the clock of {name} is not behind the ledger by more than an hour: nothing is to be accepted\n"
        ));
    };
    let until = accepted.last_event_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    print(&format!(
        "accepted in {name}: the clock is right, {} s behind the ledger's last event. Until {until} everything is booked on {}, whose caps \
         hold once for all of it\n",
        accepted.behind_seconds, accepted.day
    ))
}
