//! The cluster: its creation by initdb, its start, and its readiness.

use std::{
    ffi::OsString,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Child, Command},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    connect::{ROLE, open_database},
    error::{EmbeddedError, no_room},
    find::Binaries,
    layout::{CLUSTER, Layout, PORT, private_dir},
    process::{self, PidFile, command, output, serves, tail},
    user::RunAs,
    watcher::{DataLifetime, Watcher},
};

/// The pause between two checks. PostgreSQL starts within tens of milliseconds.
const POLL: Duration = Duration::from_millis(5);

/// initdb takes a second; a slow disk may take long to sync.
const INITDB_TIMEOUT: Duration = Duration::from_mins(2);

/// How long PostgreSQL may take to answer after it has reported itself ready.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// A start that takes longer than this is probably a recovery, and is logged.
const RECOVERY_NOTICE: Duration = Duration::from_secs(2);
/// The interval at which a recovery is logged, which is PostgreSQL's own.
const RECOVERY_PACE: Duration = Duration::from_secs(10);

/// How long an earlier postmaster may take to end: its watcher asks at once, and insists after ten seconds.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// If it still runs after this, its watcher is gone too, and this process asks it to end.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(2);

/// Children of a killed owner or postmaster end by themselves within moments; until then they block a start.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(10);
const LEFTOVER_PAUSE: Duration = Duration::from_millis(200);

/// PostgreSQL's messages about such children: they still use its memory, or a process is dying or a zombie.
const IN_THE_WAY: [&str; 2] = ["pre-existing shared memory block", "lock file \"postmaster.pid\" already exists"];

/// The number of lines of PostgreSQL's output that an error quotes.
const TAIL_LINES: usize = 8;

#[derive(Debug)]
pub(super) struct Processes {
    pub(super) postmaster: Option<Child>,
    /// The device and inode of its socket once it is ready. It creates no other while it runs.
    pub(super) socket: Option<(u64, u64)>,
    pub(super) watcher: Watcher,
}

impl Drop for Processes {
    /// After a drop without `stop`, the watcher ends PostgreSQL; a zombie of it would look alive to the next
    /// postmaster.
    fn drop(&mut self) {
        self.watcher.release();
        if let Some(mut postmaster) = self.postmaster.take() {
            reap(move || postmaster.wait().map(drop));
        }
    }
}

/// The possible loss in a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// No committed data is lost.
    Full,
    /// Everything may be lost: fsync, `synchronous_commit` and `full_page_writes` are off. Only for tests.
    None,
}

/// Everything that starting PostgreSQL needs, the first time and later.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) layout: Layout,
    pub(super) binaries: Binaries,
    pub(super) run_as: Option<RunAs>,
    pub(super) durability: Durability,
    pub(super) lifetime: DataLifetime,
    pub(super) processes: Mutex<Processes>,
}

impl Cluster {
    pub(super) fn processes(&self) -> MutexGuard<'_, Processes> {
        // Nothing panics while the lock is held, and its data would still be valid.
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the remains of a crash during [`Cluster::init`]. An initdb that is just ending may still add or remove
    /// files, so this is repeated.
    pub(super) async fn remove_unfinished(&self) -> Result<(), EmbeddedError> {
        let began = Instant::now();
        while let Err(error) = self.layout.remove_unfinished() {
            if began.elapsed() > LEFTOVER_TIMEOUT {
                return Err(EmbeddedError::at(&self.layout.data_dir)(error));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Creates the cluster under another name and renames it, so that a crash leaves no half of one.
    pub(super) async fn init(&self) -> Result<(), EmbeddedError> {
        let name = format!("{CLUSTER}.new.{}", std::process::id());
        let new = self.layout.data_dir.join(&name);
        private_dir(&new, self.run_as.as_ref())?;
        let program = self.binaries.dir.join("initdb");
        let mut initdb = command(&program, self.run_as.as_ref());
        // -D first: the watcher recognises our processes by it.
        initdb.arg("-D").arg(&new).args(["-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "-k"]);
        initdb.arg("--no-instructions");
        if matches!(self.durability, Durability::None) {
            initdb.arg("--no-sync");
        }
        let told = |pid| self.told(|watcher| watcher.running(pid, &name));
        let result = output(initdb, INITDB_TIMEOUT, told)
            .await
            .map_err(|source| EmbeddedError::CannotRun { program, source })?;
        if !result.status.success() {
            let text = [result.stdout, result.stderr].concat();
            let said = String::from_utf8_lossy(&text);
            if said.contains("could not look up effective user ID") {
                let uid = self.run_as.as_ref().map_or(rustix::process::geteuid().as_raw(), |user| user.uid);
                return Err(EmbeddedError::NoName { uid });
            }
            let no_room = no_room(&said, &self.layout.data_dir);
            return Err(no_room.unwrap_or_else(|| EmbeddedError::InitFailed { output: tail(&text, TAIL_LINES) }));
        }
        self.told(Watcher::stopped);
        fs::rename(&new, &self.layout.cluster).map_err(EmbeddedError::at(&self.layout.cluster))?;
        // The rename must survive a power cut too.
        File::open(&self.layout.data_dir)
            .and_then(|dir| dir.sync_all())
            .map_err(EmbeddedError::at(&self.layout.data_dir))
    }

    /// Waits for an earlier postmaster of this cluster to end. Its pid file is never touched: if the process in it is
    /// not recognisably ours, PostgreSQL decides whether the file is stale.
    async fn take_over(&self) -> Result<(), EmbeddedError> {
        let cluster = &self.layout.cluster;
        let began = Instant::now();
        let mut asked = false;
        loop {
            let file = PidFile::read(cluster).map_err(EmbeddedError::at(cluster))?;
            let Some(pid) = file.map(|file| file.pid).filter(|pid| serves(*pid, cluster)) else {
                return Ok(());
            };
            if began.elapsed() > TAKEOVER_TIMEOUT {
                return Err(EmbeddedError::StillRunning { pid, cluster: cluster.clone() });
            }
            if !asked && began.elapsed() > TAKEOVER_PATIENCE {
                asked = true;
                tracing::warn!(pid, "an earlier PostgreSQL of this data directory is still running: stopping it");
                process::signal(pid, Signal::INT);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) async fn take_over_and_start(&self) -> Result<(), EmbeddedError> {
        self.take_over().await?;
        self.start().await
    }

    /// Starts PostgreSQL and waits until it answers. Repeats while remains of a killed one block the start.
    pub(super) async fn start(&self) -> Result<(), EmbeddedError> {
        let began = Instant::now();
        loop {
            match self.start_once().await {
                Err(EmbeddedError::StartFailed { tail, .. })
                    if IN_THE_WAY.iter().any(|words| tail.contains(words)) && began.elapsed() < LEFTOVER_TIMEOUT =>
                {
                    tokio::time::sleep(LEFTOVER_PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn start_once(&self) -> Result<(), EmbeddedError> {
        private_dir(&self.layout.socket_dir, self.run_as.as_ref())?;
        PidFile::disown(&self.layout.cluster).map_err(EmbeddedError::at(&self.layout.cluster))?;
        let (log, log_start) = self.layout.open_log()?;
        let also_log = log.try_clone().map_err(EmbeddedError::at(&self.layout.log))?;
        let program = self.binaries.dir.join("postgres");
        let mut postgres = self.postgres_command(&program);
        postgres.stdout(also_log).stderr(log);
        {
            let mut processes = self.processes();
            // The watcher is told before and after, so that at every moment somebody would end the process.
            if let Err(error) = processes.watcher.starting() {
                tracing::warn!(%error, "the watcher of PostgreSQL has ended");
            }
            let child = postgres.spawn().map_err(|source| EmbeddedError::CannotRun { program, source })?;
            if let Err(error) = processes.watcher.running(child.id(), CLUSTER) {
                tracing::warn!(%error, "the watcher of PostgreSQL has ended");
            }
            processes.postmaster = Some(child);
            processes.socket = None;
        }
        self.wait_until_ready(log_start).await?;
        let socket = self.socket();
        self.processes().socket = socket;
        Ok(())
    }

    fn socket(&self) -> Option<(u64, u64)> {
        let socket = fs::metadata(self.layout.socket_dir.join(format!(".s.PGSQL.{PORT}"))).ok()?;
        Some((socket.dev(), socket.ino()))
    }

    /// True if the socket of PostgreSQL still exists.
    pub(super) fn can_be_reached(&self) -> bool {
        let there = self.socket();
        there.is_some() && there == self.processes().socket
    }

    /// `-D <cluster>` comes first: `serves` searches for it.
    fn postgres_command(&self, program: &Path) -> Command {
        let mut postgres = command(program, self.run_as.as_ref());
        postgres.arg("-D").arg(&self.layout.cluster);
        let mut sockets = OsString::from("unix_socket_directories=");
        sockets.push(&self.layout.socket_dir);
        postgres.arg("-c").arg(sockets).arg("-c").arg(format!("port={PORT}"));
        for setting in COMMON.iter().chain(match self.durability {
            Durability::Full => DURABLE,
            Durability::None => DISPOSABLE,
        }) {
            postgres.args(["-c", setting]);
        }
        postgres
    }

    /// Waits until the pid file of our own child says `ready` and a connection to our database works. Recovery has no
    /// time limit, because an interrupted one begins again at the next start.
    async fn wait_until_ready(&self, log_start: u64) -> Result<(), EmbeddedError> {
        let began = Instant::now();
        let mut notice = RECOVERY_NOTICE;
        let mut ready_since = None;
        loop {
            if self.postmaster_ended() {
                return Err(self.start_failed("it ended while starting", log_start));
            }
            if self.says_ready()? {
                match open_database(&self.layout.socket_dir).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(error) => return Err(self.start_failed(&error.to_string(), log_start)),
                }
                if ready_since.get_or_insert_with(Instant::now).elapsed() > ANSWER_TIMEOUT {
                    return Err(self.start_failed("it is ready but does not answer on its socket", log_start));
                }
            }
            if began.elapsed() > notice {
                notice = began.elapsed() + RECOVERY_PACE;
                let (seconds, log) = (began.elapsed().as_secs(), self.layout.log.display());
                let says = tail(&self.layout.log_since(log_start), 1);
                tracing::info!(seconds, %log, says, "PostgreSQL is still starting, most likely recovering");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn says_ready(&self) -> Result<bool, EmbeddedError> {
        let cluster = &self.layout.cluster;
        // Root always may, and the file belongs to another user, so an error is a real one.
        let file = PidFile::read(cluster).map_err(EmbeddedError::at(cluster))?;
        let ours = self.processes().postmaster.as_ref().and_then(|child| i32::try_from(child.id()).ok());
        Ok(file.is_some_and(|file| file.ready && Some(file.pid) == ours))
    }

    /// True if the postmaster has ended. The check also reaps it: a zombie would look alive to the next one.
    pub(super) fn postmaster_ended(&self) -> bool {
        let mut processes = self.processes();
        let ended = processes.postmaster.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            processes.postmaster = None;
        }
        ended
    }

    /// Waits for the postmaster to end, at most for `limit`.
    pub(super) async fn wait_for_end(&self, limit: Duration) -> bool {
        wait_for(limit, || self.postmaster_ended()).await
    }

    pub(super) fn told(&self, tell: impl FnOnce(&mut Watcher) -> std::io::Result<()>) {
        if let Err(error) = tell(&mut self.processes().watcher) {
            tracing::warn!(%error, "the watcher of PostgreSQL has ended");
        }
    }

    fn start_failed(&self, reason: &str, log_start: u64) -> EmbeddedError {
        let text = self.layout.log_since(log_start);
        no_room(&String::from_utf8_lossy(&text), &self.layout.data_dir).unwrap_or_else(|| EmbeddedError::StartFailed {
            reason: reason.to_owned(),
            log: self.layout.log.clone(),
            tail: tail(&text, TAIL_LINES),
        })
    }
}

/// The settings of every private cluster.
const COMMON: &[&str] = &[
    // No TCP: access to the socket directory is the whole access control.
    "listen_addresses=",
    "unix_socket_permissions=0700",
    // Everything goes to standard error, which is the log file; messages are in English, for `no_room` and for
    // searches.
    "logging_collector=off",
    "log_destination=stderr",
    "log_line_prefix=%m [%p] ",
    "lc_messages=C",
    "timezone=UTC",
    "log_timezone=UTC",
    // Statements are short: compiling them costs more than running them.
    "jit=off",
    // Fewer checkpoints and so fewer full page images, for a load of mostly small commits.
    "max_wal_size=4GB",
    "checkpoint_timeout=15min",
    "wal_compression=on",
];

const DURABLE: &[&str] =
    &["fsync=on", "full_page_writes=on", "synchronous_commit=on", "max_connections=100", "shared_buffers=256MB"];

/// Settings for tests, which open many small pools and keep nothing.
const DISPOSABLE: &[&str] =
    &["fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200", "shared_buffers=64MB"];

/// Waits for a child in a thread of its own, because its owner may not block.
fn reap(wait: impl FnOnce() -> std::io::Result<()> + Send + 'static) {
    let thread = std::thread::Builder::new().name("holdfast-reaper".to_owned()).spawn(move || {
        if let Err(error) = wait() {
            tracing::warn!(%error, "a child process could not be waited for");
        }
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "a child process stays unreaped");
    }
}

pub(super) async fn wait_for(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if began.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}
