//! `holdfast audit verify`, timed.

use super::numbers::real;
use super::place::program;
use super::{Result, machine};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::Instant;

/// One verification, from the start of the command to its end.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) took: Duration,
    pub(crate) peak_kib: u64,
}

impl Verified {
    /// The events a second, if it verified so many.
    pub(crate) fn rate(&self, events: u64) -> f64 {
        real(events) / self.took.as_secs_f64()
    }
}

/// Runs `holdfast audit verify` to its end.
pub(crate) async fn verify(data: &Path, arguments: &[&str]) -> Result<Verified> {
    let began = Instant::now();
    let mut child = Command::new(program())
        .args(["audit", "verify", "--data-dir"])
        .arg(data)
        .args(arguments)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().ok_or("it has not been waited for")?;
    let mut peak_kib = 0;
    let status = loop {
        // The peak is gone with the process, so it is looked at until then.
        peak_kib = machine::memory_kib(pid, "VmHWM").unwrap_or(0).max(peak_kib);
        if let Some(status) = child.try_wait()? {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    if !status.success() {
        return Err(format!("holdfast audit verify ended with {status}").into());
    }
    Ok(Verified { took: began.elapsed(), peak_kib })
}
