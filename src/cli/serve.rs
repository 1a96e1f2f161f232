//! `holdfast serve`: a database, the service on it, and an orderly end.

use super::database::{parse_url, settings};
use super::{Failure, ServeArgs};
use crate::access;
use crate::access::guard::Exposure;
use crate::access::register::Mode;
use crate::app::{App, Setup};
use crate::approval::Policy;
use crate::audit::checkpoint::Notary;
use crate::audit::told::Changes;
use crate::clock::Clock;
use crate::config::{DatabaseConfig, EnforcementConfig, ServerConfig};
use crate::db::Database;
use crate::db::embedded::EmbeddedPostgres;
use crate::enforcement::instance;
use crate::http::server;
use crate::panics;
use crate::types::Lifetime;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long requests in flight may take after a shutdown was asked for; a little more than their deadline.
const DRAIN: Duration = Duration::from_secs(11);

pub(super) async fn serve(args: ServeArgs, database: DatabaseConfig) -> Result<(), Failure> {
    let setup = setup(&args, &database)?;
    // Signals first: from here on, a stop is orderly.
    let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (stop, stopping) = watch::channel(false);
    // The address before the database: a port that is taken should not cost a start of PostgreSQL.
    let addr = args.server.bind_addr;
    let listener =
        listen(addr).map_err(|error| format!("cannot listen on {addr}: {error}: stop what does, or set BIND_ADDR"))?;
    let metrics = match args.server.metrics_addr {
        Some(addr) => Some(
            listen(addr)
                .map_err(|error| format!("cannot listen on {addr}: {error}: stop what does, or set METRICS_ADDR"))?,
        ),
        None => None,
    };
    raise_file_limit();
    tokio::spawn(announce_stop(interrupt, terminate, stop));
    let Some(url) = database.url() else {
        let postgres = EmbeddedPostgres::start(settings(&database)?).await?;
        let options = postgres.connect_options();
        let (served, ()) = {
            // PostgreSQL is watched until the service has drained, then stopped.
            let (drained, draining) = watch::channel(false);
            let service = async {
                let served = run(listener, metrics, options, &args, &database, setup, stopping).await;
                let _ = drained.send(true);
                served
            };
            tokio::join!(service, postgres.supervise(until(draining)))
        };
        postgres.stop().await?;
        return served;
    };
    run(listener, metrics, parse_url(url)?, &args, &database, setup, stopping).await
}

/// Connections that may wait to be accepted: a burst of clients is not turned away by the kernel.
const BACKLOG: u32 = 4_096;

fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As std does: a restart does not wait for connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

async fn until(mut flag: watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends the waiting as well.
    let _ = flag.wait_for(|set| *set).await;
}

async fn announce_stop(mut interrupt: Signal, mut terminate: Signal, stop: watch::Sender<bool>) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let _ = stop.send(true);
}

/// Where the service can be reached from.
fn exposure(server: &ServerConfig) -> Exposure {
    match (server.bind_addr.ip().is_loopback(), server.insecure) {
        (true, _) => Exposure::Loopback,
        (false, true) => Exposure::Insecure,
        (false, false) => Exposure::Network,
    }
}

/// Refuses to let everybody in from elsewhere.
async fn check_address(server: &ServerConfig, db: &Database) -> Result<(), Failure> {
    if exposure(server) != Exposure::Network {
        return Ok(());
    }
    let mut conn = db.read().await?;
    if access::store::any(&mut conn).await? {
        return Ok(());
    }
    Err(format!(
        "BIND_ADDR={} is not a loopback address, and there are no tokens: anybody who reaches it could move the switches; create \
         one (holdfast token create --name admin --scopes admin,read,operate,release), bind 127.0.0.1, or say --insecure if the \
         port is published on loopback only",
        server.bind_addr
    )
    .into())
}

/// What the instance is told, resolved; whatever is wrong with it stops the start.
fn setup(args: &ServeArgs, database: &DatabaseConfig) -> Result<Setup, Failure> {
    let host = rustix::system::uname();
    let kill_file = args.enforcement.kill_file(database);
    if let Some(file) = &kill_file {
        tracing::info!(file = %file.display(), "the kill file of this instance");
    } else {
        tracing::warn!("HOME, DATA_DIR and KILL_FILE are not set: this instance has no kill file");
    }
    Ok(Setup {
        enforcement: args.enforcement.clone(),
        rules: args.enforcement.rules()?,
        kill_file,
        required_packs: args.checklist.required_packs.iter().flatten().cloned().collect(),
        name: format!("{} {}", host.nodename().to_string_lossy(), args.server.bind_addr),
        exposure: exposure(&args.server),
        notary: None,
        two_person: if args.server.two_person_release.0 { Policy::Always } else { Policy::OfDatabase },
    })
}

/// What signs checkpoints. Only now, so that a start that fails leaves nothing behind.
async fn notary(args: &ServeArgs, database: &DatabaseConfig) -> Option<Notary> {
    let opened = super::audit::notary(&args.checkpoint, database).await;
    opened.inspect_err(|error| tracing::warn!(%error, "no checkpoints of the audit trail are signed")).ok()
}

fn announce(addr: SocketAddr, app: &App, enforcement: &EnforcementConfig) {
    match app.feed.register().mode() {
        Mode::Tokens => {}
        Mode::Unknown => tracing::warn!("it is not known yet which tokens there are: nobody is let in until it is"),
        Mode::Open => tracing::warn!(
            "OPEN MODE: there are no tokens, and callers are not authenticated; events will say UNAUTHENTICATED; holdfast token \
             create ends it"
        ),
    }
    if let Some(why) = enforcement.off_because() {
        tracing::warn!("ENFORCEMENT IS OFF on this instance ({why}): requests pass whatever the go-live state says");
        if enforcement.is_production() {
            tracing::warn!("this environment calls itself production, and nothing is enforced");
        }
    }
    tracing::info!(%addr, version = env!("CARGO_PKG_VERSION"), "serving http://{addr} (API documentation at http://{addr}/docs/)");
}

async fn run(
    listener: TcpListener,
    metrics: Option<TcpListener>,
    options: sqlx::postgres::PgConnectOptions,
    args: &ServeArgs,
    database: &DatabaseConfig,
    setup: Setup,
    stopping: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let open = async {
        let db = Database::open(options).await?;
        db.migrate().await?;
        check_address(&args.server, &db).await?;
        Ok::<_, Failure>(db)
    };
    // Migrations may wait for another instance for as long as that takes; a stop does not.
    let db = tokio::select! {
        opened = open => opened?,
        () = until(stopping.clone()) => {
            tracing::info!("stopped before the database was ready");
            return Ok(());
        }
    };
    let notary = notary(args, database).await;
    let app = App::new(&db, Clock::system(), Setup { notary, ..setup });
    // Known before the first request, so that a start is not a second of 503s.
    if let Err(error) = app.feed.refresh(&db).await {
        tracing::warn!(%error, "the go-live state could not be read yet: blocking until it is");
    }
    let changes = Changes::from_now_on(db.clone()).await;
    let background = start_tasks(&app, &db, &changes, args.server.checkpoint_every);
    announce(listener.local_addr()?, &app, &args.enforcement);
    serve_until(listener, metrics, &app, stopping).await;
    for task in background {
        task.abort();
    }
    changes.finish().await;
    // Who ends in order is not looked for.
    let left = async { instance::leave(&mut *db.read().await?, app.feed.instance().id()).await };
    if let Ok(Err(error)) = tokio::time::timeout(LEAVE_TIMEOUT, left).await {
        tracing::warn!(%error, "this instance stays on the list for a day");
    }
    let is_whole = app.writers_run();
    db.close().await;
    tracing::info!("stopped");
    if is_whole {
        Ok(())
    } else {
        Err("a writer's thread ended by a panic that nothing caught: see the log, and start again".into())
    }
}

/// Starts what goes on beside the requests. What panics begins anew.
fn start_tasks(app: &App, db: &Database, changes: &Changes, checkpoint_every: Lifetime) -> Vec<JoinHandle<Infallible>> {
    let (feed, listening) = (app.feed.clone(), app.feed.clone());
    let (risk, govern, register) = (app.risk.clone(), app.govern.clone(), app.feed.register().clone());
    let (metrics, changes) = (app.metrics.clone(), changes.clone());
    // Each has a database of its own to begin with.
    let [of_feed, of_listener, of_watch, of_keys, of_uses, of_notary] = std::array::from_fn(|_| db.clone());
    let mut tasks = vec![
        keep("feed", move || feed.clone().run(of_feed.clone())),
        keep("listener", move || listening.clone().listen(of_listener.clone())),
        keep("metrics", move || keep_metrics_small(metrics.clone())),
        keep("expiry", move || risk.clone().tick()),
        keep("silence", move || govern.clone().tick()),
        keep("reconciliation", move || crate::risk::reconcile::watch(of_watch.clone())),
        keep("keys", move || crate::idempotency::run(of_keys.clone())),
        keep("changes", move || changes.clone().watch()),
        keep("uses of tokens", move || access::note_uses(register.clone(), of_uses.clone())),
    ];
    if let Some(notary) = app.notary.clone() {
        let verifying = Arc::clone(&app.verifying);
        let run = move || notary.clone().run(of_notary.clone(), checkpoint_every, Arc::clone(&verifying));
        tasks.push(keep("checkpoints", run));
    }
    tasks
}

fn keep<F>(task: &'static str, begin: impl Fn() -> F + Send + 'static) -> JoinHandle<Infallible>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(panics::kept_running(task, begin))
}

/// How long an end waits for the database to hear of it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often samples are folded into their buckets.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Samples are kept one by one until somebody folds them: where nobody scrapes, this does.
async fn keep_metrics_small(metrics: metrics_exporter_prometheus::PrometheusHandle) {
    let mut turns = tokio::time::interval(METRICS_UPKEEP);
    loop {
        turns.tick().await;
        metrics.run_upkeep();
    }
}

/// Waits for a stop that was asked for, or for the end of what cannot be served without.
async fn stop_of(app: &App, stopping: watch::Receiver<bool>) {
    tokio::select! {
        () = until(stopping) => {}
        () = app.writer_ended() => tracing::error!("a writer has ended: this process ends, too"),
    }
}

/// Serves until a stop is asked for, then lets the requests in flight finish.
async fn serve_until(listener: TcpListener, metrics: Option<TcpListener>, app: &App, stopping: watch::Receiver<bool>) {
    let stop = {
        let (app, stopping) = (app.clone(), stopping.clone());
        async move {
            stop_of(&app, stopping).await;
            app.begin_shutdown();
            tracing::info!("stopping: finishing the requests in flight");
        }
    };
    let counters = async {
        if let Some(listener) = metrics {
            server::serve(listener, app.metrics_router(), stop_of(app, stopping), DRAIN).await;
        }
    };
    tokio::join!(server::serve(listener, app.router(), stop, DRAIN), counters);
}

/// Every connection is a file: as many as the system lets this process have.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // One that is lower serves fewer connections at once.
    let _ = setrlimit(Resource::Nofile, limit);
}
