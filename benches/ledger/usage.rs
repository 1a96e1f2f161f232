//! The resources that the processes used. Linux shows them in `/proc`; elsewhere they are left out.

use crate::machine::children;
use rustix::process::{Pid, Resource, getpid, getrlimit, setrlimit};
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Raises the limit of open files as far as this user may: a connection is one, here and in the service. Gives the limit.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    // A limit that cannot be raised stays as it is, and the row that needs more reports that.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(most)
}

/// Processor time that was used between two moments; zero where the system does not say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// By this process.
    pub(crate) generator: Duration,
    /// By the (first) service.
    pub(crate) service: Duration,
    /// By the processes of its PostgreSQL that were there at the end.
    pub(crate) postgres: Duration,
}

/// A moment.
#[derive(Debug)]
pub(crate) struct Moment {
    generator: Duration,
    service: Duration,
    postgres: HashMap<Pid, Duration>,
}

impl Moment {
    pub(crate) fn now(service: Pid, postmaster: Option<Pid>) -> Self {
        let postgres = postmaster.and_then(|pid| children(pid).ok()).into_iter().flatten();
        Self {
            generator: cpu(getpid()),
            service: cpu(service),
            postgres: postgres.map(|pid| (pid, cpu(pid))).collect(),
        }
    }

    /// The use since an earlier reading.
    pub(crate) fn since(&self, before: &Self) -> Cpu {
        // One that is new began at zero.
        let before_of = |pid| before.postgres.get(pid).copied().unwrap_or_default();
        Cpu {
            generator: self.generator.saturating_sub(before.generator),
            service: self.service.saturating_sub(before.service),
            postgres: self.postgres.iter().map(|(pid, used)| used.saturating_sub(before_of(pid))).sum(),
        }
    }
}

/// Of all threads of a process that still run.
fn cpu(pid: Pid) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let used = |thread: fs::DirEntry| -> Option<Duration> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
    };
    threads.filter_map(used).sum()
}
