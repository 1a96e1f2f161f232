//! A way to the database on which answers can be held up.

use sqlx::postgres::PgConnectOptions;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;

/// The part of the database's messages that the proxy passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Everything,
    /// This number of pieces, and then nothing.
    Pieces(u32),
    /// Nothing, and there is something that waits.
    Held,
}

/// A proxy before the database of a test, as long as the test's runtime runs.
pub struct Proxy {
    flow: Arc<watch::Sender<Flow>>,
    port: u16,
}

impl Proxy {
    /// One before the server of these options.
    pub async fn before(options: &PgConnectOptions) -> Self {
        let socket = options.get_socket().expect("tests use a socket").join(format!(".s.PGSQL.{}", options.get_port()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let flow = Arc::new(watch::Sender::new(Flow::Everything));
        let shared = Arc::clone(&flow);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let flow = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                tokio::spawn(async move {
                    let mut piece = vec![0; 64 * 1024];
                    while let Ok(length @ 1..) = from_server.read(&mut piece).await {
                        pass(&flow).await;
                        if to_client.write_all(&piece[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { flow, port }
    }

    /// The way through it to a database.
    pub fn options(&self, options: &PgConnectOptions) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(options.get_username())
            .database(options.get_database().expect("tests have a database"))
            .ssl_mode(sqlx::postgres::PgSslMode::Disable)
    }

    /// Lets so many more pieces of answers through, and holds up the next.
    pub fn hold_after(&self, pieces: u32) {
        self.flow.send_replace(Flow::Pieces(pieces));
    }

    /// Waits until something is held up.
    pub async fn holds(&self) {
        self.flow.subscribe().wait_for(|flow| *flow == Flow::Held).await.unwrap();
    }

    /// Lets everything through.
    pub fn let_go(&self) {
        self.flow.send_replace(Flow::Everything);
    }
}

/// Waits until the next piece may pass.
async fn pass(flow: &watch::Sender<Flow>) {
    let mut passed = false;
    flow.send_if_modified(|flow| match *flow {
        Flow::Everything => {
            passed = true;
            false
        }
        Flow::Pieces(0) | Flow::Held => {
            *flow = Flow::Held;
            true
        }
        Flow::Pieces(left) => {
            *flow = Flow::Pieces(left - 1);
            passed = true;
            true
        }
    });
    if !passed {
        flow.subscribe().wait_for(|flow| *flow == Flow::Everything).await.unwrap();
    }
}
