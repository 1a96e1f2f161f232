//! The start of programs, and the recognition of a running PostgreSQL.

use std::{
    env,
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use rustix::{
    fs::OFlags,
    io::Errno,
    process::{Pid, Signal},
};

use super::user::RunAs;
use crate::owner;

/// Root does not follow a link that the owner of the directory made.
const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits().cast_signed();

/// The environment variables that PostgreSQL's programs get: they find programs and libraries. `PG*` variables would
/// change settings, and our secrets are not for them.
const PASSED_ON: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// A PostgreSQL program: as the right user, in its own process group (a Ctrl-C in the terminal must reach Holdfast,
/// which then stops PostgreSQL in order), in a directory that every user can enter.
pub(super) fn command(program: &Path, run_as: Option<&RunAs>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(PASSED_ON.iter().filter_map(|name| Some((*name, env::var_os(name)?))))
        .env("LC_ALL", "C")
        // Freed memory is kept for the next statement: returning a few hundred KiB to the kernel and taking them back
        // was a seventh of a small batch's time. These are glibc's names; elsewhere they have no effect.
        .env("MALLOC_TRIM_THRESHOLD_", "67108864")
        .env("MALLOC_TOP_PAD_", "4194304")
        .env("MALLOC_MMAP_THRESHOLD_", "33554432")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null());
    if let Some(user) = run_as {
        command.uid(user.uid).gid(user.gid);
    }
    command
}

/// Runs a short program to its end. It is killed after `limit`; `started` gets its process id.
pub(super) async fn output(command: Command, limit: Duration, started: impl FnOnce(u32)) -> io::Result<Output> {
    let mut command = tokio::process::Command::from(command);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    // The pipe ends with this process, not earlier.
    let _stdin = child.stdin.take();
    if let Some(pid) = child.id() {
        started(pid);
    }
    tokio::time::timeout(limit, child.wait_with_output())
        .await
        .unwrap_or_else(|_| Err(io::Error::other(format!("no end after {} seconds", limit.as_secs()))))
}

/// The last lines of a program's output, joined into one line.
pub(super) fn tail(text: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(text);
    let kept: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    kept[kept.len().saturating_sub(lines)..].join(" | ")
}

/// The content of `postmaster.pid`, which PostgreSQL fills line by line while it starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PidFile {
    pub(super) pid: i32,
    pub(super) port: Option<u16>,
    pub(super) socket_dir: Option<PathBuf>,
    /// True if line 8 is `ready`: connections are accepted.
    pub(super) ready: bool,
}

impl PidFile {
    /// The pid file of a cluster; `None` if there is none, or none that names a process yet.
    pub(super) fn read(cluster: &Path) -> io::Result<Option<Self>> {
        match fs::read(cluster.join("postmaster.pid")) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the number of a gone PostgreSQL, which now belongs to something else, such as a thread of this process,
    /// by our own. PostgreSQL would take the old number for an earlier server that still runs. It takes its parent's
    /// number for stale, and uses the rest of the file to check whether the data is still in use.
    pub(super) fn disown(cluster: &Path) -> io::Result<()> {
        let Some(stale) = Self::read(cluster)?.filter(|file| stands_elsewhere(file.pid, cluster)) else {
            return Ok(());
        };
        let path = cluster.join("postmaster.pid");
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(NOFOLLOW).open(&path)?;
        owner::refuse_planted(&file, &path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        // Not shorter, so that nothing has to be cut off; in one write, so that nobody reads half of it.
        let ours = format!("{:>end$}", std::process::id()).into_bytes();
        file.rewind()?;
        file.write_all(&[&ours, &text[end..]].concat())?;
        tracing::warn!(
            pid = stale.pid,
            "postmaster.pid belongs to a PostgreSQL that has ended, and names a process that does not use this data"
        );
        Ok(())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
        let number = |line: usize| str::from_utf8(lines.get(line)?).ok()?.parse::<i32>().ok();
        Some(Self {
            // A negative number is a single-user postgres, which is never one of our servers.
            pid: number(0).filter(|pid| *pid > 0)?,
            port: number(3).and_then(|port| u16::try_from(port).ok()),
            socket_dir: lines.get(4).filter(|dir| !dir.is_empty()).map(|dir| PathBuf::from(OsStr::from_bytes(dir))),
            ready: lines.get(7).is_some_and(|status| status.starts_with(b"ready")),
        })
    }
}

/// True if this process is alive and is a PostgreSQL of this cluster. A stale pid file may name a number that another
/// process has since got, so the command line must have `-D <cluster>`. If it cannot be read, the answer is false, and
/// PostgreSQL's own lock decides.
pub(super) fn serves(pid: i32, cluster: &Path) -> bool {
    let arguments = if cfg!(target_os = "linux") {
        fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
    } else {
        let ps = Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).stderr(Stdio::null()).output();
        ps.map(|output| output.stdout).unwrap_or_default()
    };
    names_cluster(&arguments, cluster)
}

/// True if the number certainly belongs to something else than a PostgreSQL of this cluster: a process or a thread,
/// except this process, which PostgreSQL knows. Every process of a PostgreSQL has its cluster as its working directory,
/// from before it writes its number, whatever the name of its program.
fn stands_elsewhere(pid: i32, cluster: &Path) -> bool {
    let is_ours = u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
    let place = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    // A zombie has no directory and may have been anything. Only root can see the directory of another user's process.
    let (Ok(stands), Ok(cluster)) = (place(Path::new(&format!("/proc/{pid}/cwd"))), place(cluster)) else {
        return false;
    };
    !is_ours && stands != cluster
}

/// True if a process may be a PostgreSQL of this cluster, for callers that only connect to it. If its program cannot be
/// read, any live process counts.
pub(super) fn may_serve(pid: i32, cluster: &Path) -> bool {
    if cfg!(target_os = "linux") && fs::metadata("/proc/self/cmdline").is_err() {
        let alive = Pid::from_raw(pid).map(rustix::process::test_kill_process);
        return alive.is_some_and(|asked| matches!(asked, Ok(()) | Err(Errno::PERM)));
    }
    serves(pid, cluster)
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

/// The same test as `serves` in `watcher.sh`; NUL or white space separates arguments.
fn names_cluster(arguments: &[u8], cluster: &Path) -> bool {
    let spaced = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().map(|byte| if matches!(byte, 0 | b'\n') { b' ' } else { *byte }).chain([b' ']).collect()
    };
    let needle = spaced(&[b" -D ", cluster.as_os_str().as_bytes()].concat());
    contains(&spaced(arguments), &needle)
}

/// Sends a signal. A process that has already ended is not an error.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(target) = Pid::from_raw(pid)
        && let Err(error) = rustix::process::kill_process(target, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid, ?signal, %error, "PostgreSQL could not be signalled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_understood_at_every_stage_of_a_start() {
        let whole = b"412\n/d/pg\n1790000000\n5432\n/d/run\n\n  123 4\nready   \n";
        let file = PidFile::parse(whole).expect("a whole file");
        assert_eq!(file, PidFile { pid: 412, port: Some(5432), socket_dir: Some("/d/run".into()), ready: true });
        let early = PidFile::parse(b"412\n/d/pg\n1790000000\n5432\n").expect("an early file");
        assert_eq!((early.socket_dir, early.ready), (None, false));
        let stopping = PidFile::parse(b"412\n/d/pg\n1\n5432\n/d/run\n\n1 2\nstopping\n").expect("a stopping file");
        assert!(!stopping.ready);
        assert_eq!(PidFile::parse(b""), None);
        assert_eq!(PidFile::parse(b"-412\n/d/pg\n"), None);
    }

    #[test]
    fn only_a_process_started_on_this_cluster_is_ours() {
        let cluster = Path::new("/d/pg");
        assert!(names_cluster(b"/usr/bin/postgres\0-D\0/d/pg\0-c\0port=1\0", cluster));
        assert!(names_cluster(b"postgres -D /d/pg\n", cluster));
        assert!(!names_cluster(b"/usr/bin/postgres\0-D\0/d/pg2\0", cluster));
        assert!(!names_cluster(b"tail\0-f\0/d/pg/log\0", cluster));
        assert!(!names_cluster(b"", cluster));
        assert!(!serves(i32::try_from(std::process::id()).expect("a process id"), cluster));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_number_of_whatever_does_not_stand_in_the_cluster_is_replaced_by_ours_and_the_rest_stays() {
        let dir = env::temp_dir().join(format!("holdfast-stale-{}", std::process::id()));
        fs::create_dir(&dir).expect("a new directory");
        let file = dir.join("postmaster.pid");
        // A program's name proves nothing, whether it is PostgreSQL's or not.
        let start = |name: &str, place: &Path| {
            let mut sleep = Command::new("/bin/sleep");
            sleep.arg0(name).arg("60").current_dir(place).spawn().expect("it starts")
        };
        let mut other = start("/opt/postgres/bin/postgres", Path::new("/"));
        let mut ours = start("edb", &dir);
        let rest = "\n/d/pg\n1790000000\n5432\n/d/run\n\n  123 4\nready   \n";
        for (pid, stays) in [(other.id(), false), (ours.id(), true), (std::process::id(), true), (4_194_304, true)] {
            let before = format!("{pid}{rest}");
            fs::write(&file, &before).expect("a file");
            PidFile::disown(&dir).expect("it can be written");
            let after = fs::read_to_string(&file).expect("a file");
            assert_eq!(after == before, stays, "{after}");
            let (number, kept) = after.split_at(after.find('\n').expect("lines"));
            assert_eq!(kept, rest);
            assert_eq!(number.trim() == pid.to_string(), stays);
        }
        for program in [&mut other, &mut ours] {
            program.kill().and_then(|()| program.wait()).expect("ours");
        }
        fs::remove_dir_all(dir).expect("ours");
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        assert_eq!(tail(b"one\n\ntwo\n three\n", 2), "two | three");
        assert_eq!(tail(b"", 2), "");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended() {
        let mut sleeper = command(Path::new("/bin/sleep"), None);
        sleeper.arg("60");
        let mut pid = 0;
        let result = output(sleeper, Duration::from_millis(50), |started| pid = started).await;
        assert!(result.is_err());
        assert_ne!(pid, 0);
    }
}
