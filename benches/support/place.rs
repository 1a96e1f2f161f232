//! A directory of its own for a round, and the service that runs on it. Both are gone with it, however it ends.

use super::Result;
use super::http::{self, Connection};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs::{self, DirBuilder, File, Permissions};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

/// A start creates a cluster and migrates; an end writes a checkpoint. Both take seconds.
const PATIENCE: Duration = Duration::from_mins(1);
/// The name of a socket has at most 107 bytes; below the directory it is `data/run/.s.PGSQL.5432`.
const ROOT_BYTES_MAX: usize = 80;
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The program that is measured, once it is built.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Builds it, as `cargo build --release` does: for a benchmark cargo builds the library alone.
pub(super) fn build() -> Result<()> {
    // Cargo starts a benchmark in the folder of its package; the paths that it is given are seen from the root.
    std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--release", "--package=holdfast", "--message-format=json-render-diagnostics"]);
    let output = cargo.stderr(Stdio::inherit()).output()?;
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>();
    let program = messages.flatten().filter_map(|message| message["executable"].as_str().map(PathBuf::from)).last();
    let built = program.filter(|_| output.status.success()).ok_or("the program could not be built")?;
    PROGRAM.set(built).map_err(|_| "the program was built already".into())
}

/// The program that is measured.
pub(crate) fn program() -> &'static Path {
    PROGRAM.get().expect("a run begins with building it")
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    pub(crate) fn new(round: u32) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("holdfast-bench-{}-{round}", std::process::id()));
        if root.as_os_str().len() > ROOT_BYTES_MAX {
            return Err(
                format!("{} is too long a path for a socket: set TMPDIR to a shorter one", root.display()).into()
            );
        }
        DirBuilder::new().create(&root).map_err(|error| format!("cannot create {}: {error}", root.display()))?;
        let place = Self { root };
        // PostgreSQL runs as another user when this is root, and has to be able to enter.
        fs::set_permissions(&place.root, Permissions::from_mode(0o711))?;
        Ok(place)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Starts the service with its own PostgreSQL.
    pub(crate) async fn serve(&self) -> Result<Instance> {
        let data = ("DATA_DIR", self.data().display().to_string());
        Instance::start(self, "first", free_address()?, &[data]).await
    }

    /// The data of the service and of its PostgreSQL.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// A database of the private PostgreSQL, as a URL for another program.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://holdfast@localhost/{database}?host={}", self.socket_dir().display())
    }

    /// The directory of PostgreSQL's socket.
    pub(crate) fn socket_dir(&self) -> PathBuf {
        self.data().join("run")
    }

    /// The first process of the private PostgreSQL.
    pub(crate) fn postmaster(&self) -> Option<Pid> {
        let file = fs::read_to_string(self.data().join("pg/postmaster.pid")).ok()?;
        Pid::from_raw(file.lines().next()?.parse().ok()?)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The service stops its PostgreSQL; where that was killed, its watcher does.
        let ended = wait_until(|| self.postmaster().is_none_or(|pid| test_kill_process(pid).is_err()));
        let removed = fs::remove_dir_all(&self.root);
        if !ended || removed.is_err() {
            eprintln!("{} could not be cleaned up: ended {ended}, removed {removed:?}", self.root.display());
        }
    }
}

/// Blocks until the condition holds; `false` if it did not within the patience.
fn wait_until(mut is_so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !is_so() {
        if began.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// A process of the service; ended when dropped.
#[derive(Debug)]
pub(crate) struct Instance {
    child: Child,
    log: PathBuf,
    pub(crate) addr: SocketAddr,
}

impl Instance {
    /// Starts one at an address, in the default configuration but for these variables, and waits until it is ready.
    pub(crate) async fn start(
        place: &Place,
        name: &str,
        addr: SocketAddr,
        variables: &[(&str, String)],
    ) -> Result<Self> {
        let log = place.root.join(format!("{name}.log"));
        let mut command = Command::new(program());
        // Nothing of the caller's environment but where programs are: the figures are those of the default configuration.
        command.arg("serve").env_clear().current_dir(&place.root);
        #[expect(clippy::disallowed_methods, reason = "where programs are is all that the child inherits")]
        for name in ["PATH", "HOME", "PG_BIN_DIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // Its files beside the database go with the directory.
        command.env("DATA_DIR", place.root.join(format!("{name}.data")));
        command
            .env("BIND_ADDR", addr.to_string())
            .env("DRAIN_SECONDS", "0")
            .envs(variables.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).spawn()?;
        let mut instance = Self { child, log, addr };
        instance.until_ready().await?;
        Ok(instance)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    async fn until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        loop {
            self.check_alive()?;
            if self.get("/readyz").await.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("the service is not ready after {PATIENCE:?}:\n{}", self.log_tail()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Fails if the process has ended.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("the service has ended with {status}:\n{}", self.log_tail()).into()),
        }
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Status and body of a `GET`, on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String)> {
        self.call(&http::get(path)).await
    }

    /// Status and body of a request, on a connection of its own.
    pub(crate) async fn call(&self, request: &[u8]) -> Result<(u16, String)> {
        let mut connection = Connection::open(self.addr).await?;
        let answer = connection.exchange(request).await?;
        Ok((answer.status, String::from_utf8_lossy(answer.body).into_owned()))
    }

    /// Sends a `POST` below the base path that has to succeed.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Result<()> {
        Connection::open(self.addr).await?.succeed(&http::post(path, "", body)).await.map(drop)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        let _ = kill_process(self.pid(), Signal::TERM);
        if !wait_until(|| !matches!(self.child.try_wait(), Ok(None))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An address that nothing listens on. Below the ports that outgoing connections are given, so that none of them takes it.
pub(crate) fn free_address() -> Result<SocketAddr> {
    let first = 20_000 + u16::try_from(std::process::id() % 10_000)?;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..first + 2_000).find(free).ok_or_else(|| format!("no free port from {first}"))?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port)))
}
