//! The command `holdfast risk reconcile`, which compares every counter with its rows and can repair it.

use super::database::{close_after, open_existing};
use super::output::{Failure, print};
use crate::audit::Origin;
use crate::config::DatabaseConfig;
use crate::risk::reconcile::{Reconciliation, reconcile, repair};
use crate::types::{Actor, Reason};
use clap::Args;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// Set every counter to the value of its rows, record the repair, and let reserves continue.
    #[arg(long, requires_all = ["actor", "reason"])]
    repair: bool,
    /// The actor who repairs.
    #[arg(long)]
    actor: Option<Actor>,
    /// The reason.
    #[arg(long)]
    reason: Option<Reason>,
}

/// Compares or repairs. Returns whether the book balances now.
pub(super) async fn run(args: ReconcileArgs, config: &DatabaseConfig) -> Result<bool, Failure> {
    let (db, postgres, _) = open_existing(config).await?;
    let ReconcileArgs { repair: repairs, actor, reason } = args;
    let done = match reason.filter(|_| repairs) {
        Some(reason) => {
            let origin = Origin::system(actor);
            repair(&db, &reason, &origin).await.map(|found| (text(&found, true), true))
        }
        None => reconcile(&db).await.map(|found| (text(&found, false), found.balanced && found.halted_at.is_none())),
    };
    let printed = done.map_err(Failure::from).and_then(|(text, balanced)| print(&text).map(|()| balanced));
    close_after(printed, db, postgres).await
}

fn text(found: &Reconciliation, repaired: bool) -> String {
    let mut text = format!("day {}, up to event {} of the risk stream\n", found.day, found.seq);
    for difference in &found.differences {
        let verb = if repaired { "was" } else { "is" };
        let (engine, counter) = (&difference.engine, difference.counter);
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "{engine}: {counter} {verb} {}, its rows say {}", difference.recorded, difference.computed);
    }
    let since = found.halted_at.map_or_else(String::new, |at| format!(" since {}", at.format("%Y-%m-%dT%H:%M:%SZ")));
    let fix = "run holdfast risk reconcile --repair --actor NAME --reason TEXT";
    let _ = match (found.differences.is_empty(), repaired, found.halted_at) {
        (true, true, None) => writeln!(text, "the book balances, and reserves continue"),
        (true, false, None) => writeln!(text, "the book balances"),
        (false, true, None) => writeln!(text, "repaired: the book balances, and reserves continue"),
        (true, _, Some(_)) => writeln!(text, "the book balances again, but new reserves are halted{since}: {fix}"),
        (false, ..) => writeln!(text, "new reserves are halted{since}: {fix}"),
    };
    text
}
