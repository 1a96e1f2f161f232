//! A TCP proxy in front of PostgreSQL's socket, one an instance, that can lose what it carries as a network does: silently.
//!
//! A connection that was lost stays lost. It is kept open, nothing passes in either direction any more, and what its client
//! still sends is read and dropped: that is a half-open connection, as a firewall leaves behind that has forgotten it.

use crate::Result;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The messages that the proxy loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loses {
    Nothing,
    /// Connections that listen for notifications, from the moment that they say so.
    Notifications,
    /// Every connection, and new ones are accepted and never answered.
    Everything,
}

/// A running proxy; it and all its connections end when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    loses: watch::Sender<Loses>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(socket: PathBuf) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let (loses, losing) = watch::channel(Loses::Nothing);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    connections.spawn(carry(client, socket.clone(), losing.clone()));
                }
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, loses, task })
    }

    pub(crate) fn lose(&self, what: Loses) {
        self.loses.send_replace(what);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, until either end closes it.
async fn carry(mut client: TcpStream, socket: PathBuf, mut losing: watch::Receiver<Loses>) {
    let _ = client.set_nodelay(true);
    let loses = *losing.borrow_and_update();
    if loses == Loses::Everything {
        return swallow(client).await;
    }
    // A server that is away: the client sees its connection closed, which is what a refusal is to it.
    let Ok(mut server) = UnixStream::connect(&socket).await else { return };
    let (mut asked, mut answered) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut listens = false;
    loop {
        let mut bytes = 0;
        let mut from_client = false;
        tokio::select! {
            // The loss first: nothing passes after it.
            biased;
            changed = losing.changed() => if changed.is_err() { return },
            read = client.read(&mut asked) => {
                let Ok(1..) = read else { return };
                (bytes, from_client) = (read.unwrap_or(0), true);
            }
            read = server.read(&mut answered) => {
                let Ok(1..) = read else { return };
                bytes = read.unwrap_or(0);
            }
        }
        listens |= from_client && asked[..bytes].windows(LISTEN.len()).any(|window| window == LISTEN);
        let lost = match *losing.borrow() {
            Loses::Nothing => false,
            Loses::Notifications => listens,
            Loses::Everything => true,
        };
        if lost {
            // The server's end stays open as well, until the client gives up.
            return swallow(client).await;
        }
        let passed = if from_client {
            server.write_all(&asked[..bytes]).await
        } else {
            client.write_all(&answered[..bytes]).await
        };
        if passed.is_err() {
            return;
        }
    }
}

/// How a client says that it wants notifications.
const LISTEN: &[u8] = b"LISTEN ";

/// Takes what comes and answers nothing.
async fn swallow(mut client: TcpStream) {
    let mut bytes = [0; 1024];
    while let Ok(1..) = client.read(&mut bytes).await {}
}
