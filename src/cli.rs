//! The command line: `serve` (the default), `migrate`, `review`, `audit`, `archive`, `risk reconcile`, `token`,
//! `two-person-release`, `kill`, `healthcheck`, `db psql`, `db accept-rewind`, `db accept-clock`, `openapi`.
//!
//! A command that fails prints one sentence on standard error and exits 1. A review, a verification or a reconciliation
//! that cannot be made exits 2, since its 1 says that something needs attention.

mod archive;
mod audit;
mod clock;
mod command;
mod database;
mod healthcheck;
mod init;
mod kill;
mod listen;
mod notary;
mod output;
mod reconcile;
mod rewind;
mod serve;
mod stop;
mod token;
mod tolerated;
mod usage;
mod words;

use crate::config::{self, CheckpointConfig, DatabaseConfig, LogConfig};
use crate::enforcement::kill_file::KillFile;
use crate::review::{Answering, Medium};
use clap::Parser;
use clap::error::ErrorKind;
use command::{AuditCommand, Cli, Command, DbCommand, RiskCommand, Task};
use notary::existing_notary;
use output::{Failure, fail, print};
use rustix::fs::Mode;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tolerated::Tolerated;

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
    tolerated::tightening(std::env::args_os().skip(1), &sentence).ok_or_else(|| {
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
        Command::Archive(args) => Box::pin(archive::run(*args, &database)).await,
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

/// Prints the review. Returns whether something needs attention.
async fn review(
    config: &DatabaseConfig,
    checkpoint: &CheckpointConfig,
    kill_file: Option<PathBuf>,
) -> Result<bool, Failure> {
    let file = config.kill_file(kill_file).ok().map(KillFile::new);
    let answering = Answering::machine(file).await;
    let (db, postgres) = database::open_migrated(config).await?;
    let notary = existing_notary(checkpoint, config).await;
    let review = crate::review::collect(&db, answering, notary.as_ref()).await;
    let printed = review.map_err(Failure::from).and_then(|review| {
        print(&review.document(Medium::Terminal))?;
        Ok(!review.look_first.is_empty())
    });
    database::close_after(printed, db, postgres).await
}

#[cfg(test)]
mod tests;
