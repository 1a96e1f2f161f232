//! The first process of a container. Orphans of the whole container become its children, and only it can reap them. So
//! it runs the server as its child, waits for it, and passes on the signals that stop it.

use super::stop::Signals;
use rustix::process::{Pid, WaitOptions, WaitStatus, kill_process, wait};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The time that the watcher of a server that was killed or failed has to end PostgreSQL. All processes end with the
/// first one.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(40);

/// Whether this process is the first one.
pub(super) fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs this program again as a child, until the child ends.
pub(super) fn run() -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(stand_by())
}

async fn stand_by() -> io::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut ends = signal(SignalKind::child())?;
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| "holdfast".into());
    let mut server = Command::new(std::env::current_exe().unwrap_or_else(|_| name.clone().into()));
    // The child has a group of its own, so a terminal's signal reaches it only once, from here.
    let server = server.arg0(name).args(words).process_group(0).spawn()?;
    let server = i32::try_from(server.id()).ok().and_then(Pid::from_raw);
    loop {
        if let Some(status) = server.and_then(reap_until) {
            let code = status.exit_status().and_then(|code| u8::try_from(code).ok());
            // A server that ended with 0 has left nothing. Any other may have left processes that it started.
            if code != Some(0) {
                let _ = tokio::time::timeout(LEFTOVER_TIMEOUT, reap_all(&mut ends)).await;
            }
            if let Some(code) = code {
                return Ok(ExitCode::from(code));
            }
            let signal = status.terminating_signal().and_then(|signal| u8::try_from(signal).ok());
            return Ok(ExitCode::from(128 + signal.unwrap_or(0)));
        }
        tokio::select! {
            _ = ends.recv() => {}
            (signal, _) = signals.next() => {
                if let Some(server) = server {
                    // An error means that the server has just ended.
                    let _ = kill_process(server, signal);
                }
            }
        }
    }
}

/// Reaps ended children. Returns the server's status if it is among them.
fn reap_until(server: Pid) -> Option<WaitStatus> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == server {
            return Some(status);
        }
    }
    None
}

/// Reaps until no child is left.
async fn reap_all(ends: &mut Signal) {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => _ = ends.recv().await,
            Err(_) => return,
        }
    }
}
