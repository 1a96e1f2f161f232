//! The configuration: one struct per concern, read once, from flags or from the variables of the same name.
//! `.env.example` and docs/CONFIGURATION.md list all of them; `.ci/run`, `.ci/balancer` and `.ci/forward-auth` unset them.

mod archive;
mod limits;

pub use archive::ArchiveConfig;
pub use limits::LimitsConfig;

use crate::access::open::Host;
use crate::enforcement::gate::{Enforcement, EnforcementScope};
use crate::enforcement::instance::{LEASE_MAX, LEASE_MIN};
use crate::enforcement::rules::Rules;
use crate::types::{Flag, Lifetime, PackId};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The longest announcement of a stop.
const DRAIN_SECONDS_MAX: u64 = 600;
/// The longest wait of a start for its database: one day.
const DATABASE_WAIT_SECONDS_MAX: u64 = 86_400;

/// The server's addresses, and its start and stop.
#[derive(Debug, Clone, Args)]
pub struct ServerConfig {
    /// `BIND_ADDR`: the address to listen on. It must be loopback until a token is created.
    #[arg(long, env = "BIND_ADDR", default_value = "127.0.0.1:8000", value_name = "IP:PORT", value_parser = address)]
    pub bind_addr: SocketAddr,

    /// Allow an address that is not loopback without a token, for containers whose port is published on loopback only.
    /// Everybody who can connect has every right.
    #[arg(long)]
    pub insecure: bool,

    /// `ALLOWED_HOSTS`: host names, besides localhost and IP addresses, that requests may use in open mode.
    #[arg(long, env = "ALLOWED_HOSTS", value_name = "A,B", value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<Host>>,

    /// `CHECKPOINT_EVERY`: how often new events of the audit trail are verified and a new checkpoint is signed.
    #[arg(long, env = "CHECKPOINT_EVERY", default_value = "1h", value_name = "TIME")]
    pub checkpoint_every: Lifetime,

    /// `TWO_PERSON_RELEASE`: 1 requires a second person for changes that loosen; 0 leaves that to the database's
    /// setting.
    #[arg(long, env = "TWO_PERSON_RELEASE", default_value = "0", value_name = "0|1", value_parser = flag)]
    pub two_person_release: Flag,

    /// `DRAIN_SECONDS`: how long `/readyz` announces a stop before connections are refused; 0 to 600.
    #[arg(long, env = "DRAIN_SECONDS", default_value = "5", value_name = "SECONDS", value_parser = drain_seconds)]
    pub drain_seconds: u64,

    /// `DATABASE_WAIT_SECONDS`: how long a start waits for a database that is away; 0 to 86400.
    #[arg(
        long,
        env = "DATABASE_WAIT_SECONDS",
        default_value = "300",
        value_name = "SECONDS",
        value_parser = database_wait_seconds
    )]
    pub database_wait_seconds: u64,

    /// `METRICS_ADDR`: a second address that answers /metrics and the probes without a token.
    #[arg(long, env = "METRICS_ADDR", value_name = "IP:PORT", value_parser = address)]
    pub metrics_addr: Option<SocketAddr>,
}

/// The names of the libpq variables that are set.
#[must_use]
pub fn libpq_variables() -> Vec<OsString> {
    let is_libpq = |name: &OsString| name.as_encoded_bytes().starts_with(b"PG") && name != "PG_BIN_DIR";
    std::env::vars_os().map(|(name, _)| name).filter(is_libpq).collect()
}

/// The database that the program uses.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`: the PostgreSQL to use. Without it Holdfast runs a private one.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL", global = true)]
    pub database_url: Option<String>,

    /// `DATA_DIR`: the private PostgreSQL and local files. Default: /var/lib/holdfast for root, else the user's data
    /// directory.
    #[arg(long, env = "DATA_DIR", value_name = "DIR", global = true, value_parser = path)]
    pub data_dir: Option<PathBuf>,

    /// `PG_BIN_DIR`: the directory of the private PostgreSQL's programs, if they are not in a usual place.
    #[arg(long, env = "PG_BIN_DIR", value_name = "DIR", global = true, value_parser = path)]
    pub pg_bin_dir: Option<PathBuf>,
}

/// Parses an address in numbers, or `localhost`.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    // Another name may belong to another machine, or to several addresses.
    let numbers = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numbers.as_deref().unwrap_or(text).parse().map_err(|_| {
        "it must be an IP address and a port from 0 to 65535, such as 127.0.0.1:8000, [::1]:8000 or localhost:8000"
            .to_owned()
    })
}

/// Parses a directory or file; a blank one counts as none, as in a shell's `DATA_DIR= holdfast`.
#[expect(clippy::unnecessary_wraps, reason = "the shape of a value parser")]
pub(crate) fn path(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(text.trim().into())
}

/// The files of the audit trail's checkpoints.
#[derive(Debug, Clone, Args)]
pub struct CheckpointConfig {
    /// `CHECKPOINT_KEY`: the file of the key that signs checkpoints, made if it is missing. Default: checkpoint.key in
    /// the data directory.
    #[arg(long, env = "CHECKPOINT_KEY", value_name = "FILE", value_parser = path)]
    pub checkpoint_key: Option<PathBuf>,

    /// `CHECKPOINT_DIR`: the directory of scheduled checkpoints. Default: checkpoints in the data directory.
    #[arg(long, env = "CHECKPOINT_DIR", value_name = "DIR", value_parser = path)]
    pub checkpoint_dir: Option<PathBuf>,
}

impl CheckpointConfig {
    /// The key's file and the directory.
    pub fn paths(&self, database: &DatabaseConfig) -> Result<(PathBuf, PathBuf), NoDataDir> {
        let said = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let or = |said: Option<PathBuf>, name: &str| said.map_or_else(|| Ok(database.data_dir()?.join(name)), Ok);
        Ok((or(said(&self.checkpoint_key), "checkpoint.key")?, or(said(&self.checkpoint_dir), "checkpoints")?))
    }
}

/// The error when no lasting place for the data is known.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("neither HOME nor XDG_DATA_HOME is set, so the data has no place: set DATA_DIR")]
pub struct NoDataDir;

impl DatabaseConfig {
    /// The directory of the private PostgreSQL's programs; none if it is not set.
    #[must_use]
    pub fn pg_bin_dir(&self) -> Option<PathBuf> {
        self.pg_bin_dir.clone().filter(|dir| !dir.as_os_str().is_empty())
    }

    /// The URL; a blank one counts as none, as in a shell's `DATABASE_URL= holdfast`.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.database_url.as_deref().map(str::trim).filter(|url| !url.is_empty())
    }

    /// The kill file: the given one, else the one in the data directory.
    pub fn kill_file(&self, said: Option<PathBuf>) -> Result<PathBuf, NoDataDir> {
        match said.filter(|file| !file.as_os_str().is_empty()) {
            Some(file) => Ok(file),
            None => Ok(self.data_dir()?.join("KILL")),
        }
    }

    /// The data directory: the given one, else the user's default.
    #[expect(clippy::disallowed_methods, reason = "this is the configuration")]
    pub fn data_dir(&self) -> Result<PathBuf, NoDataDir> {
        let set = |path: &PathBuf| !path.as_os_str().is_empty();
        if let Some(dir) = self.data_dir.clone().filter(set) {
            return Ok(dir);
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from("/var/lib/holdfast"));
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(set);
        let home = || variable("HOME").ok_or(NoDataDir);
        if cfg!(target_os = "macos") {
            return Ok(home()?.join("Library/Application Support/holdfast"));
        }
        let share = variable("XDG_DATA_HOME").map_or_else(|| Ok(home()?.join(".local/share")), Ok)?;
        Ok(share.join("holdfast"))
    }
}

/// The settings of this instance's gate.
#[derive(Debug, Clone, Args)]
pub struct EnforcementConfig {
    /// `ENV`: `development`, `dev` or `test` switches enforcement off. Any other name enforces.
    #[arg(long, env = "ENV", value_name = "NAME")]
    pub env: Option<String>,

    /// `APP_ENV`: the same as `ENV`, used where `ENV` is not set.
    #[arg(long, env = "APP_ENV", value_name = "NAME")]
    pub app_env: Option<String>,

    /// `GO_LIVE_ENFORCE`: 0 switches this instance's gate off. Reserves still check the go-live state.
    #[arg(long, env = "GO_LIVE_ENFORCE", default_value = "1", value_name = "0|1", value_parser = flag)]
    pub go_live_enforce: Flag,

    /// `ENFORCEMENT_SCOPE`: the classes that are blocked while go-live is off: `all`, or `prod_exec` alone.
    #[arg(long, env = "ENFORCEMENT_SCOPE", default_value = "all", value_name = "SCOPE")]
    pub enforcement_scope: ScopeName,

    /// `EXECUTION_CLASSES`: a TOML file with more rules for the class of a method and a path.
    #[arg(long, env = "EXECUTION_CLASSES", value_name = "FILE", value_parser = path)]
    pub execution_classes: Option<PathBuf>,

    /// `STATE_LEASE_MS`: the age up to which the go-live state admits requests; 200 to 2000.
    #[arg(long, env = "STATE_LEASE_MS", default_value = "2000", value_name = "MS", value_parser = lease)]
    pub state_lease_ms: u64,

    /// `KILL_FILE`: while it exists, this instance blocks. Default: KILL in the data directory.
    #[arg(long, env = "KILL_FILE", value_name = "FILE", value_parser = path)]
    pub kill_file: Option<PathBuf>,
}

fn lease(text: &str) -> Result<u64, String> {
    let bounds = LEASE_MIN.as_millis()..=LEASE_MAX.as_millis();
    let lease = text.trim().parse().ok().filter(|ms: &u64| bounds.contains(&u128::from(*ms)));
    lease.ok_or_else(|| format!("it must be a number of milliseconds from {} to {}", bounds.start(), bounds.end()))
}

fn drain_seconds(text: &str) -> Result<u64, String> {
    seconds(text, DRAIN_SECONDS_MAX)
}

fn database_wait_seconds(text: &str) -> Result<u64, String> {
    seconds(text, DATABASE_WAIT_SECONDS_MAX)
}

fn seconds(text: &str, max: u64) -> Result<u64, String> {
    let seconds = text.trim().parse().ok().filter(|seconds: &u64| *seconds <= max);
    seconds.ok_or_else(|| format!("it must be a number of seconds from 0 to {max}"))
}

fn flag(text: &str) -> Result<Flag, String> {
    text.parse().map_err(|error: crate::types::ParseNumberError| error.to_string())
}

/// The values of `ENFORCEMENT_SCOPE`.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum ScopeName {
    /// Requests of every class.
    All,
    /// Requests that execute production work.
    ProdExec,
}

impl EnforcementConfig {
    /// The environment's name in lower case; a blank variable counts as none.
    fn name(&self) -> Option<String> {
        let set = |name: &Option<String>| {
            name.as_deref().map(str::trim).filter(|name| !name.is_empty()).map(str::to_ascii_lowercase)
        };
        set(&self.env).or_else(|| set(&self.app_env))
    }

    fn environment(&self) -> Option<&str> {
        match self.name()?.as_str() {
            "development" => Some("ENV=development"),
            "dev" => Some("ENV=dev"),
            "test" => Some("ENV=test"),
            _ => None,
        }
    }

    /// Whether this is a development environment, whose gate is off.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.environment().is_some()
    }

    /// The reason why this instance's gate is off; none when it is on.
    #[must_use]
    pub fn off_because(&self) -> Option<&'static str> {
        match self.environment() {
            Some("ENV=development") => Some("ENV=development"),
            Some("ENV=dev") => Some("ENV=dev"),
            Some(_) => Some("ENV=test"),
            None => (!self.go_live_enforce.0).then_some("GO_LIVE_ENFORCE=0"),
        }
    }

    /// Whether the environment is named production.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.name().is_some_and(|name| ["production", "prod", "live"].contains(&name.as_str()))
    }

    /// The classes that are blocked while go-live is off.
    #[must_use]
    pub const fn scope(&self) -> EnforcementScope {
        match self.enforcement_scope {
            ScopeName::All => EnforcementScope::All,
            ScopeName::ProdExec => EnforcementScope::ProdExec,
        }
    }

    /// The enforcement of the gate under this configuration.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        if self.off_because().is_some() { Enforcement::Off } else { Enforcement::On(self.scope()) }
    }

    /// The longest age of a state that still admits a request.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        Duration::from_millis(self.state_lease_ms)
    }

    /// The rules that classify requests, with those of the file if it is set.
    pub fn rules(&self) -> Result<Rules, String> {
        let Some(file) = self.execution_classes.as_ref().filter(|file| !file.as_os_str().is_empty()) else {
            return Ok(Rules::default());
        };
        let refused = |reason: String| format!("EXECUTION_CLASSES={}: {reason}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| refused(format!("it cannot be read: {error}")))?;
        Rules::with_file(&text).map_err(|error| refused(error.to_string()))
    }

    /// The kill file: the given one, else the one in the data directory; none without a data directory.
    #[must_use]
    pub fn kill_file(&self, database: &DatabaseConfig) -> Option<PathBuf> {
        database.kill_file(self.kill_file.clone()).ok()
    }
}

/// The defaults of a fresh install.
impl Default for EnforcementConfig {
    fn default() -> Self {
        Self {
            env: None,
            app_env: None,
            go_live_enforce: Flag(true),
            enforcement_scope: ScopeName::All,
            execution_classes: None,
            state_lease_ms: 2_000,
            kill_file: None,
        }
    }
}

/// The components that go-live requires.
#[derive(Debug, Clone, Args)]
pub struct ChecklistArgs {
    /// `REQUIRED_PACKS`: components that must be installed before go-live, separated by commas.
    #[arg(long, env = "REQUIRED_PACKS", value_delimiter = ',', value_name = "ID,…", value_parser = pack_id)]
    pub required_packs: Vec<Option<PackId>>,
}

/// Parses a component's id. A blank entry, as in `REQUIRED_PACKS=`, is none.
fn pack_id(text: &str) -> Result<Option<PackId>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: crate::types::ParseTextError| error.to_string())
}

/// The part of the configuration that the go-live checklist judges.
#[derive(Debug, Clone, Default)]
pub struct ChecklistConfig {
    /// The components that must be installed, beyond the levers.
    pub required_packs: Vec<PackId>,
    /// The reason why this instance's gate is off; none when it is on.
    pub enforcement_off: Option<&'static str>,
}

/// The default filter of the log.
const RUST_LOG_DEFAULT: &str = "info,sqlx::postgres::notice=warn,sqlx_core::pool::inner=off";

/// The settings of the log.
#[derive(Debug, Clone, Args)]
pub struct LogConfig {
    /// `LOG_FORMAT`: `text` or `json`. Default: text on a terminal, JSON otherwise.
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", global = true)]
    pub log_format: Option<LogFormat>,

    /// `RUST_LOG`: the log's filter, such as `info,sqlx=warn`.
    #[arg(
        long,
        env = "RUST_LOG",
        default_value = RUST_LOG_DEFAULT,
        value_name = "FILTER",
        global = true
    )]
    pub rust_log: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { log_format: None, rust_log: RUST_LOG_DEFAULT.to_owned() }
    }
}

/// The values of `LOG_FORMAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Readable text.
    Text,
    /// One JSON object per line.
    Json,
}
