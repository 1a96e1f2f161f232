//! A service of somebody else's with one trivial route, on a thread of its own: once bare, once behind the gate.

use crate::Result;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Router, ServiceExt};
use holdfast::enforcement::feed::Feed;
use holdfast::enforcement::{Enforcement, EnforcementScope, GateLayer, Rules};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::{Layer, Service};

/// The two; ended when dropped.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) bare: SocketAddr,
    pub(crate) gated: SocketAddr,
    /// Its end is what the thread waits for.
    _end: oneshot::Sender<()>,
}

impl Pair {
    pub(crate) async fn start(feed: Feed) -> Result<Self> {
        let (end, ended) = oneshot::channel::<()>();
        let (told, tell) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listeners = async {
                    let bare = TcpListener::bind(("127.0.0.1", 0)).await?;
                    let gated = TcpListener::bind(("127.0.0.1", 0)).await?;
                    Ok::<_, std::io::Error>((bare.local_addr()?, gated.local_addr()?, bare, gated))
                };
                let (bare_addr, gated_addr, bare, gated) = match listeners.await {
                    Ok(listeners) => listeners,
                    Err(error) => {
                        let _ = told.send(Err(error));
                        return;
                    }
                };
                let gate = GateLayer::new(feed, Enforcement::On(EnforcementScope::All), Arc::new(Rules::default()));
                tokio::spawn(serve(bare, router()));
                tokio::spawn(serve(gated, gate.layer(router())));
                let _ = told.send(Ok((bare_addr, gated_addr)));
                // Nobody sends anything: it ends when the sender is gone.
                let _ = ended.await;
            });
        });
        let (bare, gated) = tell.await??;
        Ok(Self { bare, gated, _end: end })
    }
}

/// The route that is measured.
pub(crate) const ROUTE: &str = "/api/deals";

fn router() -> Router {
    Router::new().route(ROUTE, get(|| async { "sold" }))
}

/// Both are served alike, so that the layer is all in which they differ.
async fn serve<S>(listener: TcpListener, service: S)
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    // The server ends with its runtime, and has no error to report.
    let _ = axum::serve(listener, ServiceExt::<Request>::into_make_service(service)).await;
}
