//! The watcher: a small shell process that outlives its owner by moments and ends PostgreSQL for it. `watcher.sh` is
//! its program. It is a process of its own because nothing inside a process survives `kill -9`; the kernel's
//! parent-death signal exists only on Linux, depends on the spawning thread and needs `unsafe`.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use super::{layout::Layout, user::SHELL};

const SCRIPT: &str = include_str!("watcher.sh");

/// The lifetime of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataLifetime {
    /// The data stays after the owner has ended.
    Kept,
    /// The data directory is deleted when the owner ends in any way. It must be new or empty at the start, and a
    /// process must not use one twice.
    Temporary,
}

/// The watcher of one owner. Dropping it without [`Watcher::release`] looks to it like the owner's death: it acts.
#[derive(Debug)]
pub(super) struct Watcher {
    child: Child,
    /// std opens it close-on-exec, so no other child of ours (especially postgres) keeps it open.
    pipe: Option<ChildStdin>,
    /// The last message, which a successor gets too.
    last: String,
}

impl Watcher {
    pub(super) fn spawn(layout: &Layout, lifetime: DataLifetime, log: File) -> io::Result<Self> {
        let mut child = Command::new(SHELL)
            .arg("-c")
            .arg(SCRIPT)
            .arg("holdfast-watcher")
            .arg(&layout.data_dir)
            .arg(&layout.socket_dir)
            .arg(match lifetime {
                DataLifetime::Kept => "kept",
                DataLifetime::Temporary => "temporary",
            })
            .arg(std::process::id().to_string())
            .current_dir(Path::new("/"))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe, last: "stopped".to_owned() })
    }

    /// Announces that a postgres is about to be started.
    pub(super) fn starting(&mut self) -> io::Result<()> {
        self.tell("starting".to_owned())
    }

    /// Announces that process `pid` works on `<data_dir>/<name>`.
    pub(super) fn running(&mut self, pid: u32, name: &str) -> io::Result<()> {
        self.tell(format!("{pid} {name}"))
    }

    /// Announces that nothing is running any more.
    pub(super) fn stopped(&mut self) -> io::Result<()> {
        self.tell("stopped".to_owned())
    }

    /// True if the watcher itself has been ended.
    pub(super) fn is_gone(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Replaces the watcher with a new one that gets its last message.
    pub(super) fn replace(&mut self, mut successor: Self) -> io::Result<()> {
        successor.tell(self.last.clone())?;
        *self = successor;
        Ok(())
    }

    /// Closes the pipe: the watcher does its remaining work and ends. Wait for it with [`Watcher::is_gone`].
    pub(super) fn release(&mut self) {
        self.pipe = None;
    }

    fn tell(&mut self, line: String) -> io::Result<()> {
        if let Some(pipe) = &mut self.pipe {
            // One write: a line shorter than PIPE_BUF arrives whole or not at all.
            pipe.write_all(format!("{line}\n").as_bytes())?;
        }
        self.last = line;
        Ok(())
    }
}
