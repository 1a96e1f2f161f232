//! Three instances on one PostgreSQL, each behind a proxy of its own, and what is asked of them.

use crate::Result;
use crate::http::{self, Connection};
use crate::machine::children;
use crate::place::{Instance, Place, free_address};
use crate::proxy::{Loses, Proxy};
use chrono::{DateTime, Utc};
use holdfast::postgres::{DataLifetime, Durability, EmbeddedPostgres, OwnedBy, Settings};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How many there are.
pub(crate) const INSTANCES: usize = 3;
/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// The request to an instance for its decision.
pub(crate) const ASK: &[u8] =
    b"GET /api/governance/authz/nginx HTTP/1.1\r\nHost: localhost\r\nX-Original-URI: /api/deals\r\n\
    X-Original-Method: POST\r\n\r\n";

/// Asks once: whether it is admitted.
pub(crate) async fn admits(connection: &mut Connection) -> Result<bool> {
    let answer = connection.exchange(ASK).await?;
    match answer.status {
        200 => Ok(true),
        403 => Ok(false),
        _ => Err(format!("forward-auth was answered {}", answer.excerpt()).into()),
    }
}

/// The answer to an engage, and its time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Engaged {
    /// Just before it was sent.
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
    pub(crate) guaranteed_by: DateTime<Utc>,
}

/// An instance, and the way to its database.
#[derive(Debug)]
struct Member {
    /// `None` while it is restarted.
    instance: Option<Instance>,
    proxy: Proxy,
    addr: SocketAddr,
}

/// All of them. Fields are dropped in order: instances, PostgreSQL, directory.
#[derive(Debug)]
pub(crate) struct Fleet {
    members: Vec<Member>,
    pub(crate) postgres: Postgres,
    place: Place,
}

impl Fleet {
    pub(crate) async fn start(round: u32) -> Result<Self> {
        let place = Place::new(round)?;
        let postgres = Postgres::start(&place).await?;
        let mut fleet = Self { members: Vec::new(), postgres, place };
        for number in 0..INSTANCES {
            let proxy = Proxy::start(fleet.place.socket_dir().join(".s.PGSQL.5432")).await?;
            fleet.members.push(Member { instance: None, proxy, addr: free_address()? });
            fleet.start_instance(number).await?;
        }
        fleet.post("/go-live/enable").await?;
        fleet.until_admitting().await?;
        Ok(fleet)
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.addr).collect()
    }

    async fn start_instance(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        let url = format!("postgres://holdfast@{}/holdfast?sslmode=disable", member.proxy.addr);
        let kill_file = self.place.root().join(format!("{number}.kill")).display().to_string();
        let variables = [("DATABASE_URL", url), ("KILL_FILE", kill_file)];
        member.instance = Some(Instance::start(&self.place, &number.to_string(), member.addr, &variables).await?);
        Ok(())
    }

    /// Ends an instance in order, and starts it again at the same address.
    pub(crate) async fn restart_instance(&mut self, number: usize) -> Result<()> {
        self.members[number].instance = None;
        self.start_instance(number).await
    }

    /// Stops an instance where it is, until the guard is dropped.
    pub(crate) fn pause_instance(&self, number: usize) -> Result<Paused> {
        let instance = self.members[number].instance.as_ref().ok_or("there is no such instance")?;
        Paused::all(vec![instance.pid()])
    }

    pub(crate) fn lose(&self, number: usize, what: Loses) {
        self.members[number].proxy.lose(what);
    }

    pub(crate) fn lose_everywhere(&self, what: Loses) {
        for member in &self.members {
            member.proxy.lose(what);
        }
    }

    /// Pulls the kill switch through an instance.
    pub(crate) async fn engage(&self, number: usize) -> Result<Engaged> {
        let mut connection = Connection::open(self.members[number].addr).await?;
        let request = http::post("/go-live/kill-switch/engage", "", r#"{"actor":"bench"}"#);
        let sent = Instant::now();
        let answer = connection.succeed(&request).await?;
        let answered = Instant::now();
        let state: serde_json::Value = serde_json::from_slice(answer.body)?;
        let receipt = state["guaranteed_by"].as_str().ok_or("the answer to an engage has no guaranteed_by")?;
        Ok(Engaged { sent, answered, guaranteed_by: receipt.parse()? })
    }

    async fn post(&self, path: &str) -> Result<()> {
        let first = self.members[0].instance.as_ref().ok_or("the first instance is away")?;
        first.post(path, r#"{"actor":"bench"}"#).await
    }

    /// Releases the kill switch, and waits until every instance admits again. After a fault it takes a while.
    pub(crate) async fn release(&self) -> Result<()> {
        let began = Instant::now();
        while let Err(error) = self.post("/go-live/kill-switch/release").await {
            if began.elapsed() > PATIENCE {
                return Err(error);
            }
            tokio::time::sleep(LOOK * 10).await;
        }
        self.until_admitting().await
    }

    pub(crate) async fn until_admitting(&self) -> Result<()> {
        for member in &self.members {
            let mut connection = Connection::open(member.addr).await?;
            let began = Instant::now();
            while !admits(&mut connection).await? {
                if began.elapsed() > PATIENCE {
                    return Err(format!("an instance does not admit anything {PATIENCE:?} after the release").into());
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Waits until every instance says whether it hears notifications as it should.
    pub(crate) async fn until_notified(&self, wanted: bool) -> Result<()> {
        for instance in self.members.iter().filter_map(|member| member.instance.as_ref()) {
            let began = Instant::now();
            loop {
                let (_, body) = instance.get("/readyz").await?;
                let body: serde_json::Value = serde_json::from_str(&body)?;
                match body["notified"].as_bool() {
                    Some(notified) if notified == wanted => break,
                    Some(_) if began.elapsed() < PATIENCE => tokio::time::sleep(LOOK * 10).await,
                    _ => return Err(format!("notifications should be {wanted}: {body}").into()),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // All at once; each is waited for when it is dropped.
        for instance in self.members.iter().filter_map(|member| member.instance.as_ref()) {
            let _ = kill_process(instance.pid(), Signal::TERM);
        }
    }
}

/// The private PostgreSQL, which is this process's own.
#[derive(Debug)]
pub(crate) struct Postgres {
    cluster: Arc<EmbeddedPostgres>,
    supervisor: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Postgres {
    async fn start(place: &Place) -> Result<Self> {
        let cluster = EmbeddedPostgres::start(Settings {
            data_dir: place.data(),
            durability: Durability::Full,
            lifetime: DataLifetime::Kept,
            pg_bin_dir: pg_bin_dir(),
            owner: OwnedBy::Server,
        });
        let mut postgres = Self { cluster: Arc::new(cluster.await?), supervisor: None };
        postgres.supervise();
        Ok(postgres)
    }

    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        self.cluster.connect_options()
    }

    /// From now on it is started whenever it has ended.
    pub(crate) fn supervise(&mut self) {
        let (end, ended) = oneshot::channel::<()>();
        let cluster = Arc::clone(&self.cluster);
        let task = tokio::spawn(async move {
            cluster.supervise(async move { _ = ended.await }).await;
        });
        self.supervisor = Some((end, task));
    }

    /// Leaves it alone, whatever becomes of it.
    pub(crate) async fn leave_alone(&mut self) -> Result<()> {
        if let Some((end, task)) = self.supervisor.take() {
            drop(end);
            task.await?;
        }
        Ok(())
    }

    /// Stops it and all its children where they are, until the guard is dropped.
    pub(crate) fn pause(place: &Place) -> Result<Paused> {
        let postmaster = postmaster(place)?;
        // First, so that there are no new children.
        let mut paused = Paused::all(vec![postmaster])?;
        for child in children(postmaster)? {
            // One that has just ended needs no stop.
            let _ = paused.add(child);
        }
        Ok(paused)
    }

    pub(crate) fn signal(place: &Place, signal: Signal) -> Result<()> {
        Ok(kill_process(postmaster(place)?, signal)?)
    }
}

fn postmaster(place: &Place) -> Result<Pid> {
    place.postmaster().ok_or_else(|| "PostgreSQL does not run".into())
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its owner gone, the watcher stops PostgreSQL; the directory waits for that.
        if let Some((_, task)) = self.supervisor.take() {
            task.abort();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark has no configuration but this")]
fn pg_bin_dir() -> Option<std::path::PathBuf> {
    std::env::var_os("PG_BIN_DIR").map(Into::into)
}

/// Processes that are stopped where they are, until this is dropped.
#[derive(Debug)]
pub(crate) struct Paused(Vec<Pid>);

impl Paused {
    fn all(pids: Vec<Pid>) -> Result<Self> {
        let mut paused = Self(Vec::new());
        for pid in pids {
            paused.add(pid)?;
        }
        Ok(paused)
    }

    fn add(&mut self, pid: Pid) -> Result<()> {
        kill_process(pid, Signal::STOP)?;
        self.0.push(pid);
        Ok(())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // Children first: the parent finds them as it left them.
        for pid in self.0.iter().rev() {
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}
