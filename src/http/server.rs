//! Connections: their service, their time limits, and their end. [`super::connections`] limits their number.
//!
//! Every connection costs a file and some memory, so each has limits before its caller is known. The head of a request
//! must arrive in time, which also ends idle connections; a body has 5 s (`input`); an answer that nobody reads ends
//! with the socket's timeout. When all places are taken, waiting connections make room. A few more places are reserved
//! for one request each, so that the kill switch can always be reached.

use super::connections::{self, Connection, Connections, For, Kind, Limits, OpenConnection};
use super::drain::drained;
use crate::clock::Clock;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::io::Errno;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tower::{Service, ServiceExt};

/// How long the head of a request may take, counted from the answer before it; this is also how long a connection may
/// be idle. It is longer than common client pools keep a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// The same on a connection that is reserved for the switches.
const KEPT_HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest head of a request, in bytes; a larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long the kernel retries unacknowledged data, in milliseconds.
const UNTAKEN_TIMEOUT_MS: u32 = 30_000;
/// How long accepting pauses when the process is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The shortest time between two such warnings, in milliseconds.
const WARN_EVERY_MS: u64 = 10_000;

fn refusals() -> metrics::Counter {
    metrics::counter!("holdfast_connections_refused_total")
}

/// Creates the counter at the start: otherwise its first event would show no increase.
pub(crate) fn begin_counting() {
    refusals().increment(0);
    connections::made_room().increment(0);
}

/// Serves until a stop is requested, then lets the requests in flight finish for at most `drain`.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    stop: impl Future<Output = ()>,
    drain: Duration,
) where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let graceful = GracefulShutdown::new();
    let connections = Connections::new(limits);
    let mut warned = Warned::default();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that its client gave up is skipped; a lack of resources concerns every connection.
                if !concerns_one(&error) {
                    refusals().increment(1);
                    warned.warn(&error);
                    let _ = connections.make_room(Kind::Staying);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Some(open) = connections.admit(peer.ip()).await else {
            refusals().increment(1);
            continue;
        };
        prepare(&stream);
        let serving = watched(service.clone(), Arc::clone(open.connection()));
        let connection = builder_of(&open).serve_connection(TokioIo::new(stream), serving);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = connection => ended,
                () = open.ended() => return,
            };
            // A fault of the client was answered, or there is nobody to answer.
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    drop(listener);
    let mut ended = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(drain, &mut ended).await.is_err() {
        tracing::warn!("some connections did not end in time: closing them");
        connections.end_all();
        ended.await;
    }
}

/// The service of one connection, which makes no room while a request is served.
fn watched<S>(
    service: S,
    connection: Arc<Connection>,
) -> impl hyper::service::Service<
    axum::http::Request<Incoming>,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send,
> + Send
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    hyper::service::service_fn(move |request: axum::http::Request<Incoming>| {
        let (service, connection) = (service.clone(), Arc::clone(&connection));
        async move {
            if !connection.works() {
                // It has made room: no request is started on it any more.
                std::future::pending::<()>().await;
            }
            let (parts, body) = request.into_parts();
            let body = drained(&parts, body);
            let mut request = Request::from_parts(parts, body);
            request.extensions_mut().insert(Arc::clone(&connection));
            let mut answered = service.oneshot(request).await;
            if let Ok(response) = &mut answered
                && connection.ends()
            {
                super::end_connection(response);
            }
            // This does not depend on whether the answer can be sent.
            connection.works();
            connection.waits(For::Request);
            answered
        }
    })
}

/// Warns that no connection can be accepted, at most once per interval.
#[derive(Debug, Default)]
struct Warned(Option<u64>);

impl Warned {
    fn warn(&mut self, error: &std::io::Error) {
        let now_ms = Clock::system().now_ms();
        if self.0.is_none_or(|last| now_ms - last >= WARN_EVERY_MS) {
            self.0 = Some(now_ms);
            if is_out_of_files(error) {
                tracing::warn!(%error, "no file is left for a connection: raise the limit of open files, or find out who holds them");
            } else {
                tracing::warn!(%error, "no connection can be accepted: find out which resource the system lacks");
            }
        }
    }
}

fn is_out_of_files(error: &std::io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error())
}

/// True if a failure to accept concerns only that connection: the next is accepted at once.
fn concerns_one(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::NetworkDown
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
    ) || error.raw_os_error() == Some(Errno::PROTO.raw_os_error())
}

fn builder_of(open: &OpenConnection) -> http1::Builder {
    if !open.connection().is_kept() {
        return builder(HEAD_TIMEOUT);
    }
    let mut builder = builder(KEPT_HEAD_TIMEOUT);
    builder.keep_alive(false);
    builder
}

fn builder(head_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_BYTES_MAX);
    builder
}

/// Errors are ignored: an option that cannot be set makes a connection slower, not wrong.
fn prepare(stream: &TcpStream) {
    // An answer is written whole: waiting for more data gains nothing.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, UNTAKEN_TIMEOUT_MS);
    #[cfg(not(target_os = "linux"))]
    let _ = UNTAKEN_TIMEOUT_MS;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};
    use tower::service_fn;

    #[test]
    fn what_a_caller_gave_up_delays_nobody_and_what_runs_out_pauses() {
        let error = |errno: Errno| std::io::Error::from_raw_os_error(errno.raw_os_error());
        for errno in [Errno::CONNABORTED, Errno::CONNRESET, Errno::PROTO, Errno::INTR, Errno::HOSTUNREACH] {
            assert!(concerns_one(&error(errno)), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::INVAL] {
            assert!(!concerns_one(&error(errno)), "{errno}");
        }
    }

    #[tokio::test]
    async fn connections_that_do_not_end_in_time_are_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, (stop, stopped)) = (Arc::new(Notify::new()), oneshot::channel::<()>());
        let held = Arc::new(());
        let (in_service, watched) = ((Arc::clone(&begun), Arc::clone(&held)), Arc::downgrade(&held));
        drop(held);
        let service = service_fn(move |_: Request| {
            let (begun, held) = in_service.clone();
            async move {
                begun.notify_one();
                let answered = std::future::pending().await;
                drop(held);
                answered
            }
        });
        let until = async { stopped.await.unwrap() };
        let serving = tokio::spawn(serve(listener, service, Limits { staying: 8, kept: 8 }, until, Duration::ZERO));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        begun.notified().await;
        stop.send(()).unwrap();
        serving.await.unwrap();
        assert!(watched.upgrade().is_none(), "the work of a connection is left");
        assert_eq!(client.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    }
}
