//! The command `holdfast db accept-clock`, which accepts a clock that is behind the ledger.

use super::database::{close_after, open_existing};
use super::output::{Failure, print};
use crate::audit::Origin;
use crate::config::DatabaseConfig;
use crate::risk::clock::{self, ClockAccepted};
use crate::types::{Actor, Reason};
use chrono::SecondsFormat;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct AcceptClockArgs {
    /// The actor who accepts.
    #[arg(long)]
    actor: Option<Actor>,
    /// The reason why the clock is right, and why it was ahead.
    #[arg(long)]
    reason: Reason,
}

/// Lets reserves continue under a clock that is behind the ledger's last event.
pub(super) async fn accept(args: AcceptClockArgs, config: &DatabaseConfig) -> Result<(), Failure> {
    let (db, postgres, name) = open_existing(config).await?;
    let accepted = clock::accept_clock(&db, &args.reason, &Origin::system(args.actor)).await;
    let printed = accepted.map_err(Failure::from).and_then(|accepted| print(&text(accepted.as_ref(), &name)));
    close_after(printed, db, postgres).await
}

fn text(accepted: Option<&ClockAccepted>, name: &str) -> String {
    let Some(accepted) = accepted else {
        return format!(
            "the clock of {name} is not behind the ledger by more than an hour: there is nothing to accept\n"
        );
    };
    let until = accepted.last_event_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!(
        "accepted in {name}: the clock is right, {} s behind the ledger's last event. Until {until} everything is booked on {}, whose caps \
         hold once for all of it\n",
        accepted.behind_seconds, accepted.day
    )
}
