//! The commands and their arguments.

use super::{archive, audit, clock, kill, reconcile, rewind, token};
use crate::config::{
    ArchiveConfig, ChecklistArgs, CheckpointConfig, DatabaseConfig, EnforcementConfig, LimitsConfig, LogConfig,
    ServerConfig,
};
use clap::{Args, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Institutional governance control plane: go-live state, risk caps, AI charter, regression tripwire, one audit trail.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) serve: ServeArgs,

    #[command(flatten)]
    pub(super) database: DatabaseConfig,

    #[command(flatten)]
    pub(super) log: LogConfig,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) server: ServerConfig,

    #[command(flatten)]
    pub(super) enforcement: EnforcementConfig,

    #[command(flatten)]
    pub(super) checklist: ChecklistArgs,

    #[command(flatten)]
    pub(super) checkpoint: CheckpointConfig,

    #[command(flatten)]
    pub(super) archive: ArchiveConfig,

    #[command(flatten)]
    pub(super) limits: LimitsConfig,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serve HTTP. This is the default.
    Serve(Box<ServeArgs>),
    /// Apply the migrations.
    Migrate {
        /// Only show which migrations are applied.
        #[arg(long)]
        status: bool,
    },
    /// Print the Monday review. Exits 0 if nothing needs attention, 1 if something does, 2 if the review cannot be
    /// made.
    Review {
        #[command(flatten)]
        checkpoint: CheckpointConfig,
        /// The kill file of this machine's instance [default: KILL in the data directory].
        #[arg(long, env = "KILL_FILE", value_name = "FILE", value_parser = crate::config::path)]
        kill_file: Option<PathBuf>,
    },
    /// Ask a running server whether it is ready. Exits 0 if it is.
    Healthcheck {
        /// The server's address.
        #[arg(long, env = "BIND_ADDR", default_value = "127.0.0.1:8000", value_name = "IP:PORT", value_parser = crate::config::address)]
        bind_addr: SocketAddr,
        /// Ask only whether the process answers, for a restart policy: a restart does not help a server that waits for
        /// its database.
        #[arg(long)]
        live: bool,
    },
    /// Stop everything: write this machine's kill file, which needs no database, and engage the kill switch.
    Kill(kill::KillArgs),
    /// Work with the audit trail.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Move old events of the ledger and the charter into signed files, verified, and out of the database. Nothing else
    /// ever removes events.
    Archive(Box<archive::ArchiveArgs>),
    /// Manage tokens. The first one ends the open mode.
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Set whether changes that loosen wait for a second person.
    TwoPersonRelease(token::TwoPersonArgs),
    /// Work with the risk ledger.
    Risk {
        #[command(subcommand)]
        command: RiskCommand,
    },
    /// Work with the database.
    Db {
        #[command(subcommand)]
        command: DbCommand,
    },
    /// Print the OpenAPI document.
    Openapi,
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Recompute the hash of every event. Exits 0 if the trail is whole, 1 if it was tampered with or parts are
    /// missing, 2 if it cannot be verified.
    Verify(Box<audit::VerifyArgs>),
    /// Sign the heads of all streams, and print the note. Keep the note where the database's owner cannot change it.
    Checkpoint(CheckpointConfig),
    /// Print the key that checks this machine's checkpoints.
    Key(CheckpointConfig),
    /// Print every event as a line of JSON. docs/audit-verify.py verifies them without Holdfast.
    Export(audit::ExportArgs),
    /// Erase a text of an event, and record the erasure. The text's digest stays, so the trail still verifies.
    Erase(audit::EraseArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum RiskCommand {
    /// Compare every counter with its reservations and events. Exits 0 if the book balances, 1 if it does not, 2 if it
    /// cannot be compared.
    Reconcile(reconcile::ReconcileArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum DbCommand {
    /// Open a SQL shell in the database that the server uses.
    Psql,
    /// Accept a database that went back, as after a restore, and print the lost events. Instances that noticed the loss
    /// block until then.
    AcceptRewind(Box<rewind::AcceptArgs>),
    /// Accept a clock that is behind the ledger's last event because it was ahead before. Reserves are halted until
    /// then.
    AcceptClock(Box<clock::AcceptClockArgs>),
}

/// A command, with its database and its log.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) command: Command,
    pub(super) database: DatabaseConfig,
    pub(super) log: LogConfig,
}

impl From<Cli> for Task {
    fn from(Cli { command, serve, database, log }: Cli) -> Self {
        Self { command: command.unwrap_or_else(|| Command::Serve(Box::new(serve))), database, log }
    }
}

impl Command {
    /// Whether the command only tightens. Such a command ignores every input that it can do without.
    pub(super) fn tightens(&self) -> bool {
        match self {
            Self::Kill(_) | Self::Token { command: token::TokenCommand::Revoke(_) } => true,
            Self::TwoPersonRelease(args) => args.setting == token::Switch::On,
            _ => false,
        }
    }
}
