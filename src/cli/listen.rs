//! Listens on the addresses, sizes the number of connections, and serves until a stop.

use super::output::Failure;
use super::stop::{StopPhase, until};
use crate::app::{App, Stage};
use crate::config::ServerConfig;
use crate::http::connections::{CONNECTIONS_MAX, Limits};
use crate::http::{end_connection, server};
use axum::response::Response;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tower::ServiceExt;

/// The time for requests in flight after new ones are refused; a little more than their deadline.
const DRAIN: Duration = Duration::from_secs(11);
/// The connections that may wait to be accepted, so that the kernel does not refuse a burst of clients.
const BACKLOG: u32 = 4_096;

/// The listeners of a server, and the limits of its connections.
pub(super) struct Listeners {
    service: TcpListener,
    /// The listener of the counters.
    metrics: Option<TcpListener>,
    limits: Limits,
}

impl Listeners {
    /// Listens on the configured addresses.
    pub(super) fn open(config: &ServerConfig) -> Result<Self, Failure> {
        let service = listen(config.bind_addr, "BIND_ADDR")?;
        let metrics = config.metrics_addr.map(|addr| listen(addr, "METRICS_ADDR")).transpose()?;
        Ok(Self { service, metrics, limits: room_for_connections() })
    }

    /// The address at which the service can be reached.
    pub(super) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.service.local_addr()
    }

    /// Serves until a stop is requested, then lets the requests in flight finish.
    pub(super) async fn serve_until(self, app: App, stopping: watch::Receiver<StopPhase>) {
        let stopped = until(stopping.clone(), StopPhase::Closing);
        let (metrics, router) = (self.metrics, app.metrics_router());
        let counters = async {
            if let Some(listener) = metrics {
                let stopped = until(stopping, StopPhase::Closing);
                server::serve(listener, router, Limits::METRICS, stopped, DRAIN).await;
            }
        };
        // While a stop is announced, each connection ends with its answer, so that no connection closes under a
        // request.
        let leaving = app.clone();
        let service = app.router().map_response(move |mut response: Response| {
            if leaving.stage() == Stage::Stopping {
                end_connection(&mut response);
            }
            response
        });
        tokio::join!(server::serve(self.service, service, self.limits, stopped, DRAIN), counters);
    }
}

/// Listens on an address. `variable` is the setting that the address comes from.
fn listen(addr: SocketAddr, variable: &str) -> Result<TcpListener, Failure> {
    let bind = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The standard library does the same, so a restart does not wait for connections of the process before.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error: std::io::Error| {
        format!("cannot listen on {addr}: {error}: stop the program that uses this address, or set {variable}").into()
    })
}

/// Allows as many connections as the process may open files, and warns if they are few.
fn room_for_connections() -> Limits {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // If the limit cannot be raised, fewer connections are served at once.
    let _ = setrlimit(Resource::Nofile, limit);
    // None means that there is no limit.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limits = Limits::of_files(files);
    if limits.staying < CONNECTIONS_MAX {
        let wanted = Limits::files_wanted();
        tracing::warn!(
            "this process may open {files} files: {} connections stay at most, and {} more are kept for the switches; let it open \
             {wanted} (LimitNOFILE, ulimit -Hn, --ulimit nofile) for {CONNECTIONS_MAX}",
            limits.staying,
            limits.kept
        );
    }
    limits
}
