//! What the processes used. Linux says it in `/proc`; elsewhere it is left out.

use crate::machine::{field, read};
use rustix::process::{Resource, getrlimit, setrlimit};
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Raises the limit of open files as far as this user may: a connection is one, here and in the service. Gives the limit.
pub(crate) fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    // What cannot be raised stays as it is, and the row that needs more says so.
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
    postgres: HashMap<u32, Duration>,
}

impl Moment {
    pub(crate) fn now(service: u32, postmaster: Option<u32>) -> Self {
        let children = postmaster.map(|pid| read(&format!("/proc/{pid}/task/{pid}/children"))).unwrap_or_default();
        let postgres = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        Self {
            generator: cpu(std::process::id()),
            service: cpu(service),
            postgres: postgres.map(|pid| (pid, cpu(pid))).collect(),
        }
    }

    /// What was used since an earlier one.
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
fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let used = |thread: fs::DirEntry| -> Option<Duration> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
    };
    threads.filter_map(used).sum()
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Option<u64> {
    field(&format!("/proc/{pid}/status"), "VmRSS")?.split(' ').next()?.parse().ok()
}
