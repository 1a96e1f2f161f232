//! The command line: `serve` (the default), `migrate`, `review`, `audit`, `risk reconcile`, `token`,
//! `two-person-release`, `kill`, `healthcheck`, `db psql`, `db accept-rewind`, `db accept-clock`, `openapi`.
//!
//! A command that fails prints one sentence on standard error and exits 1. A review, a verification or a reconciliation
//! that cannot be made exits 2, since its 1 says that something needs attention.

mod audit;
mod clock;
mod database;
mod healthcheck;
mod init;
mod kill;
mod listen;
mod reconcile;
mod rewind;
mod serve;
mod stop;
mod token;
mod usage;
mod words;

use crate::config::{
    self, ChecklistArgs, CheckpointConfig, DatabaseConfig, EnforcementConfig, LimitsConfig, LogConfig, ServerConfig,
};
use crate::enforcement::kill_file::KillFile;
use crate::review::{Answering, Medium};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use rustix::fs::Mode;
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use words::Tolerated;

/// Institutional governance control plane: go-live state, risk caps, AI charter, regression tripwire, one audit trail.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    serve: ServeArgs,

    #[command(flatten)]
    database: DatabaseConfig,

    #[command(flatten)]
    log: LogConfig,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    server: ServerConfig,

    #[command(flatten)]
    enforcement: EnforcementConfig,

    #[command(flatten)]
    checklist: ChecklistArgs,

    #[command(flatten)]
    checkpoint: CheckpointConfig,

    #[command(flatten)]
    limits: LimitsConfig,
}

#[derive(Debug, Subcommand)]
enum Command {
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
enum AuditCommand {
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
enum RiskCommand {
    /// Compare every counter with its reservations and events. Exits 0 if the book balances, 1 if it does not, 2 if it
    /// cannot be compared.
    Reconcile(reconcile::ReconcileArgs),
}

#[derive(Debug, Subcommand)]
enum DbCommand {
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
struct Task {
    command: Command,
    database: DatabaseConfig,
    log: LogConfig,
}

impl From<Cli> for Task {
    fn from(Cli { command, serve, database, log }: Cli) -> Self {
        Self { command: command.unwrap_or_else(|| Command::Serve(Box::new(serve))), database, log }
    }
}

impl Command {
    /// Whether the command only tightens. Such a command ignores every input that it can do without.
    fn tightens(&self) -> bool {
        match self {
            Self::Kill(_) | Self::Token { command: token::TokenCommand::Revoke(_) } => true,
            Self::TwoPersonRelease(args) => args.setting == token::Switch::On,
            _ => false,
        }
    }
}

/// The reason of a failure, in one sentence.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The time that the end waits for file operations whose result is no longer needed.
const HANGING_TIMEOUT: Duration = Duration::from_secs(1);

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    // Only this user may write to a file or directory of Holdfast, whatever umask the shell set.
    let others = Mode::WGRP | Mode::WOTH;
    rustix::process::umask(rustix::process::umask(others) | others);
    let Tolerated { task, ignored, doubts } = match read_arguments() {
        Ok(read) => read,
        Err(code) => return code,
    };
    if !doubts.is_empty() && !matches!(task.command, Command::Kill(_)) {
        fail(&format!("{}: the command did nothing; correct this and try again", doubts.join("; ")));
        return ExitCode::FAILURE;
    }
    let is_review = matches!(
        task.command,
        Command::Review { .. } | Command::Risk { .. } | Command::Audit { command: AuditCommand::Verify(_) }
    );
    let is_serve = matches!(task.command, Command::Serve(_));
    let of_libpq = config::libpq_variables();
    if task.database.url().is_none() && !of_libpq.is_empty() {
        return without(&of_libpq);
    }
    for sentence in &ignored {
        fail(sentence);
    }
    if init::is_first() && is_serve {
        return init::run().unwrap_or_else(|error| {
            fail(&format!(
                "cannot run the server as process 1: {error}: give the container an init (docker run --init)"
            ));
            ExitCode::FAILURE
        });
    }
    // The log is dropped after the runtime, so that nothing is logged later.
    let _log = match crate::log::start(&task.log) {
        Ok(log) => Some(log),
        Err(sentence) if task.command.tightens() => {
            fail(&format!("{sentence}: ignored"));
            crate::log::start(&LogConfig::default()).ok()
        }
        Err(sentence) => {
            fail(&sentence);
            return failure_of(is_review);
        }
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if is_serve {
        runtime.worker_threads(request_threads());
    }
    match runtime.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run(task));
            // A task that still uses a file then uses one on a disk that hangs.
            runtime.shutdown_timeout(HANGING_TIMEOUT);
            if doubts.is_empty() {
                return code;
            }
            fail(&format!(
                "{}: the intended instance may not be stopped; name its place and try again",
                doubts.join("; ")
            ));
            ExitCode::FAILURE
        }
        Err(error) => {
            fail(&format!("cannot start the runtime: {error}"));
            failure_of(is_review)
        }
    }
}

/// Reads the command of this process, or returns its exit code.
fn read_arguments() -> Result<Tolerated, ExitCode> {
    let error = match Cli::try_parse() {
        Ok(cli) => return Ok(Tolerated { task: cli.into(), ignored: Vec::new(), doubts: Vec::new() }),
        Err(error) => error,
    };
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe does not make the command fail.
        let _ = error.print();
        return Err(ExitCode::SUCCESS);
    }
    let sentence = usage::sentence(&error);
    words::tightening(std::env::args_os().skip(1), &sentence).ok_or_else(|| {
        fail(&sentence);
        // Nothing was parsed, so the arguments themselves tell whether 1 would mean that something needs attention.
        failure_of(std::env::args_os().any(|word| word == "review" || word == "reconcile" || word == "verify"))
    })
}

/// Restarts this program without these variables of libpq. The driver reads them by itself, and some would switch off
/// the protections of the private PostgreSQL. A running process cannot remove them.
fn without(names: &[OsString]) -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| "holdfast".into());
    let program = std::env::current_exe().unwrap_or_else(|_| name.clone().into());
    let mut anew = std::process::Command::new(program);
    anew.arg0(name).args(words);
    for variable in names {
        anew.env_remove(variable);
    }
    // `exec` returns only if it failed.
    let error = anew.exec();
    let names = names.iter().map(|name| name.to_string_lossy()).collect::<Vec<_>>().join(", ");
    fail(&format!("{names} must not reach the private PostgreSQL, and cannot be removed ({error}): unset them"));
    ExitCode::FAILURE
}

/// The threads that serve requests: one fewer than processors. All requests wait for the ledger's writer, which has its
/// own thread. A thread for each processor would compete with the writer: on two processors that costs a tenth of the
/// reserves.
fn request_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| (processors.get() - 1).max(1))
}

/// The exit code of a failure: 2 of a review, verification or reconciliation, since its 1 says that something needs
/// attention.
fn failure_of(is_review: bool) -> ExitCode {
    if is_review { ExitCode::from(2) } else { ExitCode::FAILURE }
}

fn fail(sentence: &str) {
    crate::log::say(&format!("holdfast: {sentence}"));
}

async fn run(Task { command, database, .. }: Task) -> ExitCode {
    let outcome = match command {
        Command::Serve(args) => Box::pin(serve::serve(*args, database)).await,
        Command::Migrate { status } => database::migrate(&database, status).await,
        Command::Review { checkpoint, kill_file } => {
            return verdict(review(&database, &checkpoint, kill_file).await);
        }
        Command::Risk { command: RiskCommand::Reconcile(args) } => {
            return verdict(reconcile::run(args, &database).await.map(|balanced| !balanced));
        }
        Command::Audit { command: AuditCommand::Verify(args) } => {
            return verdict(audit::verify(*args, &database).await.map(|whole| !whole));
        }
        Command::Audit { command: AuditCommand::Checkpoint(args) } => audit::checkpoint(&args, &database).await,
        Command::Audit { command: AuditCommand::Key(args) } => audit::key(&args, &database).await,
        Command::TwoPersonRelease(args) => token::two_person(args, &database).await,
        Command::Token { command } => token::run(command, &database).await,
        Command::Audit { command: AuditCommand::Export(args) } => audit::export(args, &database).await,
        Command::Audit { command: AuditCommand::Erase(args) } => audit::erase(args, &database).await,
        Command::Healthcheck { bind_addr, live } => {
            healthcheck::ask(bind_addr, if live { "/livez" } else { "/readyz" }).await
        }
        Command::Kill(args) => kill::kill(args, &database).await,
        Command::Db { command: DbCommand::Psql } => database::psql(&database),
        Command::Db { command: DbCommand::AcceptRewind(args) } => rewind::accept(*args, &database).await,
        Command::Db { command: DbCommand::AcceptClock(args) } => clock::accept(*args, &database).await,
        Command::Openapi => print(&crate::app::document_text()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail(&error.to_string());
            failure_of(false)
        }
    }
}

/// The exit code of a command that checks whether something needs attention.
fn verdict(attention: Result<bool, Failure>) -> ExitCode {
    match attention {
        Ok(attention) => ExitCode::from(u8::from(attention)),
        Err(error) => {
            fail(&error.to_string());
            failure_of(true)
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that closed the pipe has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Prints the review. Returns whether something needs attention.
async fn review(
    config: &DatabaseConfig,
    checkpoint: &CheckpointConfig,
    kill_file: Option<PathBuf>,
) -> Result<bool, Failure> {
    let file = config.kill_file(kill_file).ok().map(KillFile::new);
    let answering = Answering::machine(file).await;
    let (db, postgres) = database::open_migrated(config).await?;
    let notary = audit::existing_notary(checkpoint, config).await;
    let review = crate::review::collect(&db, answering, notary.as_ref()).await;
    let printed = review.map_err(Failure::from).and_then(|review| {
        print(&review.document(Medium::Terminal))?;
        Ok(!review.look_first.is_empty())
    });
    database::close_after(printed, db, postgres).await
}

#[cfg(test)]
mod tests;
