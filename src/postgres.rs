//! The private PostgreSQL, which Holdfast and its tests run without a `DATABASE_URL`.
//!
//! One directory, one owner, one PostgreSQL. Invariants:
//!
//! - **Private.** A Unix socket in a directory that only one user can enter; no TCP port, hence no password.
//! - **Durable** with [`Durability::Full`]: nothing that protects a commit is switched off.
//! - **It ends with its owner**, in order, even if that is killed: a watcher process (`watcher.rs`) sees the pipe to
//!   the owner close and stops PostgreSQL. If the watcher was killed as well, the next start stops it. The data stays,
//!   except with [`DataLifetime::Temporary`].
//! - **PostgreSQL's own lock decides.** `postmaster.pid` is read, never deleted. A lock of ours (`owner.lock`), which
//!   the kernel releases when its holder dies, decides which Holdfast may run PostgreSQL on a directory.
//! - **Never as root.** `user.rs` chooses another user.
//! - Each wait has a limit, and each failure a sentence ([`EmbeddedError`]).
//!
//! Reading order: `layout` (paths), `user`, `find` and `wheel` (programs), `process` (running programs), `watcher`,
//! `connect`, `cluster` (initdb, start, readiness), then this file: owning, supervising, stopping; and `attach` for
//! every other process.
//!
//! Absent on purpose: backups, upgrades between major versions, replication. These need the operator's own PostgreSQL
//! and `DATABASE_URL`.

#![expect(
    clippy::disallowed_methods,
    reason = "this waits for processes of this machine, in real time, and hands them a clean environment"
)]

mod attach;
mod cluster;
mod connect;
mod error;
mod find;
mod layout;
mod owned;
mod process;
mod user;
mod watcher;
mod wheel;

use std::{
    fs::File,
    path::{Path, PathBuf},
    pin::pin,
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use sqlx::postgres::PgConnectOptions;

pub use self::{
    attach::{attach, attach_to_any, has_cluster, psql_command},
    cluster::Durability,
    error::EmbeddedError,
    owned::OwnedBy,
    watcher::DataLifetime,
};
use self::{
    cluster::{Cluster, Processes, wait_for},
    layout::Layout,
    user::RunAs,
    watcher::Watcher,
};

/// A fast shutdown writes a checkpoint; clients are disconnected, not waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// An immediate shutdown waits five seconds for children, then kills them.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The watcher only has to delete a temporary directory.
const WATCHER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the process checks whether PostgreSQL is alive.
const SUPERVISE_POLL: Duration = Duration::from_millis(100);

/// How long PostgreSQL may lack its socket before it is restarted.
const UNREACHABLE_MAX: Duration = Duration::from_secs(10);

/// The pause before a restart after a failed one; it doubles from the first to the second failure.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// After this long, the next end is a new incident: the pauses begin again.
const STABLE_AFTER: Duration = Duration::from_mins(1);

/// The settings of a private PostgreSQL.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the cluster and everything that belongs to it; created if missing.
    pub data_dir: PathBuf,
    /// The possible loss in a power cut.
    pub durability: Durability,
    /// The lifetime of the data.
    pub lifetime: DataLifetime,
    /// `PG_BIN_DIR`: the directory of initdb and postgres. `None`: search for one.
    pub pg_bin_dir: Option<PathBuf>,
    /// The process that owns the directory: a server or a command.
    pub owner: OwnedBy,
}

/// A running private PostgreSQL and its ownership. If it is dropped without [`EmbeddedPostgres::stop`], the watcher
/// stops PostgreSQL.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    cluster: Cluster,
    /// The last field, so that it is released last.
    _owner_lock: File,
}

impl EmbeddedPostgres {
    /// Becomes the owner of the data directory, creates the cluster if there is none, and starts PostgreSQL. Returns
    /// when the database accepts connections.
    pub async fn start(settings: Settings) -> Result<Self, EmbeddedError> {
        let started = Self::start_unless(std::future::pending(), settings).await?;
        Ok(started.expect("what is pending does not stop it"))
    }

    /// The same, unless `stop` resolves first: then everything that was begun is ended in order, and nothing runs.
    /// Recovery and a download of programs are interrupted; initdb takes a moment and is finished.
    pub async fn start_unless(
        stop: impl Future<Output = ()>,
        settings: Settings,
    ) -> Result<Option<Self>, EmbeddedError> {
        let mut stop = pin!(stop);
        let began = Instant::now();
        if settings.lifetime == DataLifetime::Temporary {
            Layout::check_empty(&settings.data_dir)?;
        }
        let layout = Layout::create(&settings.data_dir)?;
        let owner_lock = layout.own(&settings.owner).await?;
        // From here on, an early return drops the watcher, which cleans up.
        let mut watcher = spawn_watcher(&layout, settings.lifetime)?;
        let run_as = RunAs::choose(&layout.data_dir, &layout.cluster)?;
        if let Some(user) = &run_as {
            user.check_becoming()?;
            user.check_way_to(&layout.data_dir)?;
        }
        let made_by = layout.cluster_major()?;
        let binaries = tokio::select! {
            found = find::find(settings.pg_bin_dir.as_deref(), &layout.cluster, made_by.as_deref(), run_as.as_ref()) => found?,
            () = &mut stop => {
                watcher.release();
                wait_for(WATCHER_TIMEOUT, || watcher.is_gone()).await;
                return Ok(None);
            }
        };
        let processes = Mutex::new(Processes { postmaster: None, socket: None, watcher });
        let cluster = Cluster {
            layout,
            binaries,
            run_as,
            durability: settings.durability,
            lifetime: settings.lifetime,
            processes,
        };
        cluster.remove_unfinished().await?;
        if made_by.is_none() {
            cluster.init().await?;
        }
        let this = Self { cluster, _owner_lock: owner_lock };
        let started = tokio::select! {
            started = this.cluster.take_over_and_start() => Some(started?),
            () = &mut stop => None,
        };
        if started.is_none() {
            this.stop().await?;
            return Ok(None);
        }
        tracing::info!(
            version = this.cluster.binaries.version,
            programs = %this.cluster.binaries.dir.display(),
            data_dir = %this.cluster.layout.data_dir.display(),
            new = made_by.is_none(),
            elapsed_ms = began.elapsed().as_millis(),
            "private PostgreSQL is ready"
        );
        Ok(Some(this))
    }

    /// The connection options: the Unix socket, and the role and database `holdfast`. They stay the same over restarts.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        connect::connect_options(&self.cluster.layout.socket_dir, layout::PORT)
    }

    /// The directory of the socket, for `psql -h` and similar programs.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.cluster.layout.socket_dir
    }

    /// Restarts PostgreSQL and its watcher whenever they end, and PostgreSQL whenever it is unreachable, until `stop`
    /// resolves. Run it beside the server. It never gives up: the server answers "unavailable" meanwhile.
    pub async fn supervise(&self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        tokio::select! {
            () = &mut stop => {}
            () = self.keep_running() => {}
        }
    }

    async fn keep_running(&self) {
        let mut backoff = BACKOFF_MIN;
        let mut up_since = Instant::now();
        let mut unreachable_since = None;
        let mut unwatched = None;
        loop {
            tokio::time::sleep(SUPERVISE_POLL).await;
            self.keep_watcher(&mut unwatched);
            let log = self.cluster.layout.log.display();
            if self.cluster.postmaster_ended() {
                tracing::error!(%log, "PostgreSQL has ended unexpectedly: restarting it");
            } else {
                if self.cluster.can_be_reached() {
                    unreachable_since = None;
                    continue;
                }
                if unreachable_since.get_or_insert_with(Instant::now).elapsed() < UNREACHABLE_MAX {
                    continue;
                }
                let socket_dir = self.socket_dir().display();
                tracing::error!(%log, %socket_dir, "PostgreSQL is running, but its socket is missing: restarting it");
                if let Err(error) = self.end_postgres().await {
                    tracing::error!(%error, "PostgreSQL could not be stopped");
                    continue;
                }
            }
            unreachable_since = None;
            if up_since.elapsed() > STABLE_AFTER {
                backoff = BACKOFF_MIN;
            }
            let began = Instant::now();
            match self.cluster.start().await {
                Ok(()) => {
                    let elapsed_ms = began.elapsed().as_millis();
                    tracing::warn!(elapsed_ms, "PostgreSQL is running again");
                    up_since = Instant::now();
                }
                Err(error) => tracing::error!(%error, "PostgreSQL could not be restarted"),
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Starts another watcher after the last one has ended. `unwatched` is the reason, last logged, why there is none.
    fn keep_watcher(&self, unwatched: &mut Option<String>) {
        let mut processes = self.cluster.processes();
        if !processes.watcher.is_gone() {
            return;
        }
        let replaced = spawn_watcher(&self.cluster.layout, self.cluster.lifetime).and_then(|successor| {
            processes.watcher.replace(successor).map_err(EmbeddedError::at(&self.cluster.layout.data_dir))
        });
        match replaced {
            // The new watcher has the state of the last one.
            Ok(()) => {
                *unwatched = None;
                tracing::warn!("the watcher of PostgreSQL had ended unexpectedly: another was started");
            }
            Err(error) => {
                let error = error.to_string();
                if unwatched.as_ref() != Some(&error) {
                    tracing::error!(error, "PostgreSQL has no watcher: it will outlive a kill of this process");
                    *unwatched = Some(error);
                }
            }
        }
    }

    /// Stops PostgreSQL in order (open connections are ended) and waits for its end. With [`DataLifetime::Temporary`],
    /// the data directory is then deleted.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        self.end_postgres().await?;
        self.cluster.layout.remove_socket_dir();
        self.cluster.told(Watcher::stopped);
        self.cluster.processes().watcher.release();
        if !wait_for(WATCHER_TIMEOUT, || self.cluster.processes().watcher.is_gone()).await {
            tracing::warn!("the watcher of PostgreSQL has not ended in time");
        }
        Ok(())
    }

    async fn end_postgres(&self) -> Result<(), EmbeddedError> {
        let pid = self.cluster.processes().postmaster.as_ref().map(std::process::Child::id);
        if let Some(pid) = pid {
            self.signal(Signal::INT);
            if !self.cluster.wait_for_end(STOP_TIMEOUT).await {
                tracing::warn!(pid, "PostgreSQL has not stopped in time: stopping it at once");
                self.signal(Signal::QUIT);
                if !self.cluster.wait_for_end(QUIT_TIMEOUT).await {
                    return Err(EmbeddedError::NotStopped { pid });
                }
            }
        }
        Ok(())
    }

    /// Signals our own child. It is not reaped yet, so no other process can have its number.
    fn signal(&self, signal: Signal) {
        let processes = self.cluster.processes();
        if let Some(pid) = processes.postmaster.as_ref().and_then(|child| i32::try_from(child.id()).ok()) {
            process::signal(pid, signal);
        }
    }
}

fn spawn_watcher(layout: &Layout, lifetime: DataLifetime) -> Result<Watcher, EmbeddedError> {
    let (log, _) = layout.open_log()?;
    Watcher::spawn(layout, lifetime, log)
        .map_err(|source| EmbeddedError::CannotRun { program: user::SHELL.into(), source })
}
