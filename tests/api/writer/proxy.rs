//! A proxy between the writer and PostgreSQL that breaks a connection at a commit.

use super::{connect, uncapped};
use crate::support::{Service, Setup};
use serde_json::json;
use sqlx::PgPool;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// How a reserve is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By its one statement, without holding the head: nobody else writes.
    Free,
    /// By a COMMIT, under the locked head: another instance wrote a moment ago.
    Locked,
}

impl Way {
    pub(super) const ALL: [Self; 2] = [Self::Free, Self::Locked];

    /// The bytes that only a committing message to PostgreSQL has.
    const fn commit(self) -> &'static [u8] {
        match self {
            // The action of the event that it inserts.
            Self::Free => b"RESERVE",
            Self::Locked => b"COMMIT\0",
        }
    }
}

/// The proxy's treatment of the next commit that it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Armed {
    /// Nothing.
    No,
    /// Cuts both sides; the server never sees it.
    BeforeCommit,
    /// Cuts the client's side; the server never sees it, nor that its client is gone.
    Silently,
    /// Passes it on and cuts the client's side at once; the server may still be at it.
    AfterCommit,
    /// The same, and takes no new connections from then on.
    AfterCommitForGood,
    /// Takes no new connections.
    Away,
    /// Cuts the client's side and passes it on later, as a buffer on the way may.
    Late,
    /// Keeps both sides open and passes nothing on, as a half-open connection does.
    HalfOpen,
    /// Passes it on, and its answer later, as a slow flush does.
    Slow,
    /// Passes it on, and answers as `PgBouncer` does once it has lost its server: with an error like any other.
    LostServer,
}

/// How much later that is: new decisions are long made.
pub(super) const LATE: Duration = Duration::from_millis(300);

/// How much later the answer comes: less than the second that a reading may be old.
pub(super) const SLOW: Duration = Duration::from_millis(600);

/// Stands between a service and PostgreSQL.
pub(super) struct Proxy {
    way: Way,
    other: Service,
    armed: Arc<AtomicU8>,
    directory: PathBuf,
}

impl Proxy {
    /// A service on a database of its own, behind a proxy; the test itself looks at the database directly.
    pub(super) async fn between(way: Way) -> (Self, Service) {
        let other = uncapped().await;
        let direct = other.options.clone();
        let directory = std::env::temp_dir().join(format!("holdfast-proxy-{}", direct.get_database().unwrap()));
        let directory = directory.with_extension(std::process::id().to_string());
        std::fs::create_dir(&directory).unwrap();
        let name = format!(".s.PGSQL.{}", direct.get_port());
        let server = direct.get_socket().unwrap().join(&name);
        let listener = UnixListener::bind(directory.join(&name)).unwrap();
        let proxy = Self { way, other, armed: Arc::new(AtomicU8::new(Armed::No as u8)), directory };
        let armed = Arc::clone(&proxy.armed);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if armed.load(Ordering::SeqCst) == Armed::Away as u8 {
                    continue;
                }
                let server = UnixStream::connect(&server).await.unwrap();
                tokio::spawn(relay(client, server, way, Arc::clone(&armed)));
            }
        });
        let mut service = Service::on(direct.clone().socket(&proxy.directory), Setup::default()).await;
        service.pool = PgPool::connect_lazy_with(direct.clone());
        service.options = direct;
        (proxy, service)
    }

    /// Gives the writer its connection, and has the next hundred reserves committed in this way.
    pub(super) async fn lead(&self, service: &Service) {
        connect(service).await;
        if self.way == Way::Locked {
            // A denial: no reservation that a test would have to know of.
            let off = json!({"engine": "OFF", "max_daily_loss": 0, "max_daily_exposure": 0, "max_open_risk": 0,
                "allow_unlimited": true, "enabled": false});
            self.other.post("/risk/policies/upsert", &off).await.ok();
            let denied = json!({"engine": "OFF", "amount": 1});
            assert_eq!(self.other.post("/risk/check-and-reserve", &denied).await.ok()["ok"], false);
            connect(service).await;
        }
    }

    pub(super) fn arm(&self, armed: Armed) {
        self.armed.store(armed as u8, Ordering::SeqCst);
    }

    /// Whether it has cut, as it does once each time it is armed.
    pub(super) fn has_cut(&self) -> bool {
        [Armed::No as u8, Armed::Away as u8].contains(&self.armed.load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Passes bytes both ways until one side ends or the proxy does what it is armed for.
async fn relay(client: UnixStream, server: UnixStream, way: Way, armed: Arc<AtomicU8>) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let back_now = Arc::new(AtomicU8::new(Back::Passed as u8));
    let back = tokio::spawn(pass(from_server, to_client, Arc::clone(&back_now)));
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
        let is_commit = bytes[..count].windows(way.commit().len()).any(|window| window == way.commit());
        let now = if is_commit { armed.load(Ordering::SeqCst) } else { Armed::No as u8 };
        if now == Armed::No as u8 || now == Armed::Away as u8 {
            if to_server.write_all(&bytes[..count]).await.is_err() {
                break;
            }
            continue;
        }
        let then = if now == Armed::AfterCommitForGood as u8 { Armed::Away } else { Armed::No };
        armed.store(then as u8, Ordering::SeqCst);
        if now == Armed::Slow as u8 {
            back_now.store(Back::Held as u8, Ordering::SeqCst);
            to_server.write_all(&bytes[..count]).await.unwrap();
            let back_now = Arc::clone(&back_now);
            tokio::spawn(async move {
                tokio::time::sleep(SLOW).await;
                back_now.store(Back::Passed as u8, Ordering::SeqCst);
            });
            continue;
        }
        if now == Armed::LostServer as u8 {
            back_now.store(Back::Replaced as u8, Ordering::SeqCst);
            to_server.write_all(&bytes[..count]).await.unwrap();
            continue;
        }
        if now == Armed::HalfOpen as u8 {
            std::future::pending::<()>().await;
        }
        // The client's side is cut before the server has anything to answer, so that no answer gets through.
        back.abort();
        let _ = back.await;
        drop(from_client);
        if now == Armed::Silently as u8 {
            // The server's side stays open: only the server's own limits end that transaction.
            std::future::pending::<()>().await;
        }
        if now == Armed::Late as u8 {
            tokio::time::sleep(LATE).await;
        }
        if now != Armed::BeforeCommit as u8 {
            to_server.write_all(&bytes[..count]).await.unwrap();
        }
        return;
    }
    back.abort();
}

/// The treatment of the server's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Back {
    Passed,
    Held,
    Replaced,
}

/// An error of the severity of an ordinary one, in PostgreSQL's protocol.
const LOST_SERVER: &[u8] = b"E\0\0\0\x28SERROR\0C08P01\0Mserver conn crashed\0\0";

/// Passes the server's bytes.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, now: Arc<AtomicU8>) {
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        while now.load(Ordering::SeqCst) == Back::Held as u8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if now.load(Ordering::SeqCst) == Back::Replaced as u8 {
            let _ = to.write_all(LOST_SERVER).await;
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
