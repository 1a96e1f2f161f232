//! A server's stop. Signals request it, and it has two steps, so that load balancers have time to react.

use crate::app::{App, Stage};
use crate::process_status;
use rustix::process;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The phases of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StopPhase {
    /// No stop is requested.
    No,
    /// `/readyz` announces the stop. Clients are still served.
    Announced,
    /// New connections are refused.
    Closing,
}

pub(super) async fn until(mut stopping: watch::Receiver<StopPhase>, phase: StopPhase) {
    // An error means that the sender is gone, which also ends the wait.
    let _ = stopping.wait_for(|now| *now >= phase).await;
}

/// The signals that request a stop. Nothing can be reloaded, so a hang-up is one of them.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    /// The hang-up signal; none if this process was started with hang-ups ignored, as by nohup.
    hangup: Option<Signal>,
}

impl Signals {
    /// Takes over the signals: from here on they do not end the process by themselves.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: if hangup_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for the next signal, and returns it with its name.
    pub(super) async fn next(&mut self) -> (process::Signal, &'static str) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => (process::Signal::INT, "SIGINT"),
            _ = self.terminate.recv() => (process::Signal::TERM, "SIGTERM"),
            _ = self.quit.recv() => (process::Signal::QUIT, "SIGQUIT"),
            _ = hangup => (process::Signal::HUP, "SIGHUP"),
        }
    }
}

/// Whether this process was started with hang-ups ignored; false if that cannot be read.
fn hangup_is_ignored() -> bool {
    // Signal 1 is the lowest bit.
    process_status::mask("SigIgn").is_some_and(|ignored| ignored & 1 == 1)
}

/// Announces a stop at the first signal. The stop begins after the announced time, or at the second signal.
///
/// The end of a writer also causes a stop, without an announcement, since the service needs it.
pub(super) async fn announce_stop(
    mut signals: Signals,
    app: App,
    mut announced: Duration,
    stop: watch::Sender<StopPhase>,
) {
    tokio::select! {
        (_, name) = signals.next() => tracing::info!("{name}: stopping"),
        () = app.writer_ended() => {
            tracing::error!("a writer has ended: this process ends, too");
            announced = Duration::ZERO;
        }
    }
    let was_ready = app.stage() == Stage::Serving;
    app.enter(Stage::Stopping);
    let _ = stop.send(StopPhase::Announced);
    if was_ready && !announced.is_zero() {
        let seconds = announced.as_secs();
        tracing::info!("stopping: not ready, but still serving for {seconds} s; a second signal stops at once");
        tokio::select! {
            () = tokio::time::sleep(announced) => {}
            _ = signals.next() => {}
        }
    }
    tracing::info!("stopping: finishing the requests in flight");
    let _ = stop.send(StopPhase::Closing);
}
