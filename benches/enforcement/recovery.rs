//! How soon the gates open again after the database was away.

use crate::Result;
use crate::fleet::{Fleet, Postgres, admits};
use crate::http::Connection;
use crate::numbers::milliseconds;
use rustix::process::Signal;
use sqlx::{Connection as _, PgConnection};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// After the lease every instance refuses.
const LEASE: Duration = Duration::from_secs(2);
/// Far longer than it may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often an instance is asked.
const LOOK: Duration = Duration::from_millis(1);

/// From the end of an outage until each instance admits again, milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Recovery {
    pub(crate) outage: &'static str,
    pub(crate) instances: Vec<f64>,
}

/// PostgreSQL hangs, and goes on where it was.
pub(crate) async fn after_a_hang(fleet: &Fleet, outage: Duration) -> Result<Recovery> {
    fleet.until_admitting().await?;
    let paused = Postgres::pause(fleet.place())?;
    tokio::time::sleep(outage).await;
    all_refuse(fleet, outage).await?;
    drop(paused);
    let instances = recovered(fleet, Instant::now()).await?;
    Ok(Recovery { outage: "hung", instances })
}

/// PostgreSQL is stopped, and started again. The outage ends when it takes a connection.
pub(crate) async fn after_a_stop(fleet: &mut Fleet, outage: Duration) -> Result<Recovery> {
    fleet.until_admitting().await?;
    fleet.postgres.leave_alone().await?;
    Postgres::signal(fleet.place(), Signal::INT)?;
    tokio::time::sleep(outage).await;
    all_refuse(fleet, outage).await?;
    fleet.postgres.supervise();
    let options = fleet.postgres.connect_options();
    let began = Instant::now();
    while PgConnection::connect_with(&options).await.is_err() {
        if began.elapsed() > PATIENCE {
            return Err("PostgreSQL did not start again".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    let instances = recovered(fleet, Instant::now()).await?;
    Ok(Recovery { outage: "stopped", instances })
}

async fn all_refuse(fleet: &Fleet, outage: Duration) -> Result<()> {
    for addr in fleet.addresses() {
        if outage > LEASE && admits(&mut Connection::open(addr).await?).await? {
            return Err(format!("ENFORCEMENT IS WRONG: {addr} admits {outage:?} after the database went away").into());
        }
    }
    Ok(())
}

async fn recovered(fleet: &Fleet, ended: Instant) -> Result<Vec<f64>> {
    let mut probes = JoinSet::new();
    for addr in fleet.addresses() {
        probes.spawn(until_admitted(addr, ended));
    }
    probes.join_all().await.into_iter().collect()
}

async fn until_admitted(addr: SocketAddr, ended: Instant) -> Result<f64> {
    let mut connection = Connection::open(addr).await?;
    while !admits(&mut connection).await? {
        if ended.elapsed() > PATIENCE {
            return Err(format!("{addr} does not admit anything {PATIENCE:?} after the outage").into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(milliseconds(ended.elapsed()))
}
