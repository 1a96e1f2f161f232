//! Commands beside a running server: they use its PostgreSQL, and never own, start or stop it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use sqlx::postgres::PgConnectOptions;

use super::{
    connect::{DATABASE, ROLE, connect_options},
    error::EmbeddedError,
    layout::CLUSTER,
    owned::OwnedBy,
    process::{PidFile, may_serve},
};

/// The connection options of the private PostgreSQL that a server runs in `data_dir`. A PostgreSQL that a command
/// started does not count, because it ends with that command.
pub fn attach(data_dir: &Path) -> Result<PgConnectOptions, EmbeddedError> {
    if OwnedBy::may_be_command(data_dir) {
        return Err(EmbeddedError::NotRunning { data_dir: data_dir.to_owned() });
    }
    attach_to_any(data_dir)
}

/// The same, also for a PostgreSQL that a command started: for callers that try again if it ends meanwhile.
pub fn attach_to_any(data_dir: &Path) -> Result<PgConnectOptions, EmbeddedError> {
    let running = Running::find(data_dir)?;
    Ok(connect_options(&running.socket_dir, running.port))
}

/// True if `data_dir` has a private PostgreSQL, running or not. Only its owner can look into it.
pub fn has_cluster(data_dir: &Path) -> Result<bool, EmbeddedError> {
    let version = data_dir.join(CLUSTER).join("PG_VERSION");
    match fs::metadata(&version) {
        Ok(found) => Ok(found.is_file()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(not_readable(data_dir)(error)),
    }
}

/// An interactive `psql` for the private PostgreSQL that a server runs in `data_dir`. The caller adds arguments and
/// runs it.
pub fn psql_command(data_dir: &Path, pg_bin_dir: Option<&Path>) -> Result<Command, EmbeddedError> {
    if OwnedBy::may_be_command(data_dir) {
        return Err(EmbeddedError::NotRunning { data_dir: data_dir.to_owned() });
    }
    let running = Running::find(data_dir)?;
    let dir = pg_bin_dir.map_or_else(|| running.bin_dir(), |dir| Some(dir.to_owned()));
    let beside = dir.as_ref().map(|dir| dir.join("psql")).filter(|program| program.is_file());
    let program = beside.or_else(psql_on_path).ok_or_else(|| EmbeddedError::NoPsql { dir: dir.unwrap_or_default() })?;
    let mut psql = Command::new(program);
    // PGOPTIONS, PGSSLMODE and similar variables are meant for other servers.
    for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        psql.env_remove(name);
    }
    psql.arg("-h").arg(&running.socket_dir).args(["-p", &running.port.to_string(), "-U", ROLE, "-d", DATABASE]);
    Ok(psql)
}

fn psql_on_path() -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join("psql")).find(|program| program.is_file())
}

fn not_readable(path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError {
    |source| EmbeddedError::NotReadable { path: path.to_owned(), source }
}

/// A live postmaster, as its pid file describes it.
struct Running {
    cluster: PathBuf,
    socket_dir: PathBuf,
    port: u16,
}

impl Running {
    fn find(data_dir: &Path) -> Result<Self, EmbeddedError> {
        let not_running = || EmbeddedError::NotRunning { data_dir: data_dir.to_owned() };
        let cluster = match data_dir.canonicalize() {
            Ok(data_dir) => data_dir.join(CLUSTER),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_running()),
            Err(error) => return Err(not_readable(data_dir)(error)),
        };
        match PidFile::read(&cluster).map_err(not_readable(&cluster))? {
            Some(PidFile { pid, port: Some(port), socket_dir: Some(socket_dir), ready: true })
                if may_serve(pid, &cluster) =>
            {
                Ok(Self { cluster, socket_dir, port })
            }
            _ => Err(not_running()),
        }
    }

    /// The directory of the running postgres program: `postmaster.opts` has its command line.
    fn bin_dir(&self) -> Option<PathBuf> {
        let line = fs::read_to_string(self.cluster.join("postmaster.opts")).ok()?;
        let program = line.split(" \"").next()?;
        Some(Path::new(program).parent()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attaching_where_nothing_runs_says_what_to_start() {
        for dir in ["/nonexistent/holdfast", "/tmp"] {
            let refused = attach(Path::new(dir)).expect_err("nothing runs there").to_string();
            assert!(refused.contains("holdfast serve"), "{refused}");
        }
    }
}
