//! Connections: how many, for how long, and how they end.
//!
//! Every connection costs a file and some memory, whoever holds it, so each is bounded before anything is known of its caller: the
//! head of a request has to arrive in time, which also ends connections that are idle; a body has 5 s (`input`); an answer that
//! nobody takes ends with the socket's own timeout. Beyond [`CONNECTIONS_MAX`] a few more are served for one request each, so that
//! whoever comes to pull the kill switch finds a place that nobody can keep.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt};

/// Connections that may stay.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections beyond those, for one request each.
pub const CONNECTIONS_BRIEF: usize = 1_024;
/// How long the head of a request may take, from the answer before it: also how long a connection may be idle. Longer than common
/// pools of clients keep one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The same for a brief one.
const BRIEF_HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest head of a request, bytes; beyond it the answer is 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long the kernel keeps trying to hand over what nobody acknowledges, milliseconds.
const UNTAKEN_TIMEOUT_MS: u32 = 30_000;
/// How long accepting pauses when the process is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn refusals() -> metrics::Counter {
    metrics::counter!("holdfast_connections_refused_total")
}

/// A counter that begins with its first event has no increase at that: it is there from the start.
pub(crate) fn begin_counting() {
    refusals().increment(0);
}

/// Serves until a stop is asked for, then lets the requests in flight finish, for as long as `drain`.
pub async fn serve<S>(listener: TcpListener, service: S, stop: impl Future<Output = ()>, drain: Duration)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let graceful = GracefulShutdown::new();
    let staying = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let brief = Arc::new(Semaphore::new(CONNECTIONS_BRIEF));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // One that was given up before it was accepted concerns nobody; running out of files concerns everybody.
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (place, builder) = if let Ok(place) = Arc::clone(&staying).try_acquire_owned() {
            (place, builder(HEAD_TIMEOUT))
        } else if let Ok(place) = Arc::clone(&brief).try_acquire_owned() {
            let mut builder = builder(BRIEF_HEAD_TIMEOUT);
            builder.keep_alive(false);
            (place, builder)
        } else {
            refusals().increment(1);
            continue;
        };
        prepare(&stream);
        let service = service.clone().map_request(|request: axum::http::Request<Incoming>| request.map(Body::new));
        let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _place = place;
            // What the other end did wrong was answered, or there is nobody to answer.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time: closing them");
    }
}

fn builder(head_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_BYTES_MAX);
    builder
}

/// What cannot be set makes a connection slower, not wrong.
fn prepare(stream: &TcpStream) {
    // An answer is complete when it is written: nothing is gained by waiting for more to send with it.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, UNTAKEN_TIMEOUT_MS);
    #[cfg(not(target_os = "linux"))]
    let _ = UNTAKEN_TIMEOUT_MS;
}
