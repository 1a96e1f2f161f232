//! The command `holdfast serve`: opens a database, runs the service on it, and ends in order.

use super::command::ServeArgs;
use super::database::{own, parse_url};
use super::listen::Listeners;
use super::output::Failure;
use super::rewind::remember;
use super::stop::{Signals, StopPhase, announce_stop, until};
use crate::access;
use crate::access::guard::Exposure;
use crate::access::open::Hosts;
use crate::access::register::Mode;
use crate::app::{App, Setup, Stage};
use crate::approval::Policy;
use crate::audit::archive::{Directory, schedule};
use crate::audit::checkpoint::Notary;
use crate::audit::complete;
use crate::audit::told::Changes;
use crate::clock::Clock;
use crate::config::{DatabaseConfig, ServerConfig};
use crate::db::{Database, Migrating};
use crate::enforcement::instance;
use crate::panics;
use sqlx::postgres::PgConnectOptions;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(super) async fn serve(args: ServeArgs, database: DatabaseConfig) -> Result<(), Failure> {
    let setup = setup(&args, &database)?;
    // Signals come first: from here on, a stop is orderly.
    let signals = Signals::listen()?;
    let (stop, stopping) = watch::channel(StopPhase::No);
    // The address comes before the database, so that a taken port does not cost a start of PostgreSQL.
    let listeners = Listeners::open(&args.server)?;
    let db = Database::later();
    let app = App::new(&db, Clock::system(), setup);
    app.enter(Stage::Opening);
    let announced = Duration::from_secs(args.server.drain_seconds);
    tokio::spawn(announce_stop(signals, app.clone(), announced, stop));
    // From here on probes are answered. All other requests are refused until the database is open.
    let addr = listeners.addr()?;
    let serving = tokio::spawn(listeners.serve_until(app.clone(), stopping.clone()));
    let instance = Serving { app, addr, db, args: &args, database: &database };
    let Some(url) = database.url() else {
        let stop = until(stopping.clone(), StopPhase::Announced);
        let patience = Duration::from_secs(args.server.database_wait_seconds);
        instance.db.disk().look_at(database.data_dir()?);
        let Some(postgres) = own(&database, patience, stop).await? else {
            return stopped_early(serving).await;
        };
        let options = postgres.connect_options();
        let (served, ()) = {
            // PostgreSQL is watched until the service has drained, and then stopped.
            let (drained, draining) = oneshot::channel();
            let service = async {
                let served = instance.run(options, serving, stopping).await;
                let _ = drained.send(());
                served
            };
            tokio::join!(service, postgres.supervise(async { _ = draining.await }))
        };
        postgres.stop().await?;
        return served;
    };
    instance.run(parse_url(url)?, serving, stopping).await
}

async fn stopped_early(serving: JoinHandle<()>) -> Result<(), Failure> {
    serving.await?;
    tracing::info!("stopped before the database was ready");
    Ok(())
}

/// The machines that can reach the service.
fn exposure(server: &ServerConfig) -> Exposure {
    match (server.bind_addr.ip().is_loopback(), server.insecure) {
        (true, _) => Exposure::Loopback,
        (false, true) => Exposure::Insecure,
        (false, false) => Exposure::Network,
    }
}

/// Refuses an address that is not loopback while there are no tokens.
async fn check_address(server: &ServerConfig, db: &Database) -> Result<(), Failure> {
    if exposure(server) != Exposure::Network {
        return Ok(());
    }
    let mut conn = db.work().await?;
    if access::store::any(&mut conn).await? {
        return Ok(());
    }
    Err(format!(
        "BIND_ADDR={} is not a loopback address, and there are no tokens: anybody who can connect could move the switches; create a \
         token (holdfast migrate, then holdfast token create --name admin --scopes admin,read,operate,release), bind 127.0.0.1, or \
         give --insecure if the port is published on loopback only",
        server.bind_addr
    )
    .into())
}

/// Resolves the configuration of the instance. An invalid configuration stops the start.
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
        hosts: Hosts::new(args.server.allowed_hosts.iter().flatten().cloned().collect()),
        notary: None,
        limits: args.limits.clone(),
        two_person: if args.server.two_person_release.0 { Policy::Always } else { Policy::OfDatabase },
    })
}

/// Opens the signer of checkpoints. It is opened late, so that a start that fails leaves nothing behind.
async fn notary(args: &ServeArgs, database: &DatabaseConfig) -> Option<Notary> {
    let opened = super::notary::notary(&args.checkpoint, database).await;
    opened.inspect_err(|error| tracing::warn!(%error, "no checkpoints of the audit trail are signed")).ok()
}

/// A running instance and its configuration.
struct Serving<'a> {
    app: App,
    addr: SocketAddr,
    /// The database. It counts as away until it is opened.
    db: Database,
    args: &'a ServeArgs,
    database: &'a DatabaseConfig,
}

impl Serving<'_> {
    /// Opens the database, lets the service use it, and waits for the end.
    async fn run(
        self,
        options: PgConnectOptions,
        serving: JoinHandle<()>,
        stopping: watch::Receiver<StopPhase>,
    ) -> Result<(), Failure> {
        // Migrations may wait for another instance, and files for a disk. A stop waits for neither.
        let begun = async {
            self.db.become_opened(&self.open(options).await?);
            Ok::<_, Failure>(self.begin().await)
        };
        let (background, changes) = tokio::select! {
            begun = begun => begun?,
            () = until(stopping, StopPhase::Announced) => {
                return stopped_early(serving).await;
            }
        };
        self.app.enter(Stage::Serving);
        self.announce();
        let served = serving.await;
        for task in background {
            task.abort();
        }
        changes.finish().await;
        // An instance that ended in order leaves the list, so that it is not missed.
        let left = async { instance::leave(&mut *self.db.work().await?, self.app.feed.instance().id()).await };
        if let Ok(Err(error)) = tokio::time::timeout(LEAVE_TIMEOUT, left).await {
            tracing::warn!(%error, "this instance could not leave the list and stays on it for a day");
        }
        let is_whole = self.app.writers_run();
        self.db.close().await;
        match tokio::time::timeout(SAVE_TIMEOUT, self.db.history().save()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the marks of the audit trail cannot be written"),
            Err(_) => tracing::warn!("the marks of the audit trail are not written: the disk is too slow"),
        }
        served?;
        tracing::info!("stopped");
        if is_whole {
            Ok(())
        } else {
            Err("a writer's thread panicked: see the log, and start the server again".into())
        }
    }

    /// Opens the database and migrates it to this program's schema.
    async fn open(&self, options: PgConnectOptions) -> Result<Database, Failure> {
        let db = self.reach(&options).await?;
        self.app.enter(Stage::Opening);
        let tell = |now| {
            self.app.enter(match now {
                Migrating::Runs => Stage::Migrating,
                Migrating::Waits => Stage::WaitingToMigrate,
            });
        };
        db.migrate_telling(tell).await?;
        check_address(&self.args.server, &db).await?;
        remember(&db, self.database).await?;
        // No decision depends on this, but the person who restored the database has to know.
        for line in complete::missing(&mut *db.work().await?).await? {
            tracing::error!("this book is incomplete: {line}");
        }
        Ok(db)
    }

    /// Opens the database. Waits for one that is away, since server and database may start at the same time.
    async fn reach(&self, options: &PgConnectOptions) -> Result<Database, Failure> {
        let (began, patience) = (Instant::now(), Duration::from_secs(self.args.server.database_wait_seconds));
        let mut told = None;
        loop {
            let opened = Database::open_knowing(options.clone(), self.db.history().clone()).await;
            let error = match opened {
                Err(error) if error.is_away() && began.elapsed() < patience => error,
                opened => return Ok(opened?),
            };
            self.app.enter(Stage::WaitingForDatabase);
            if told.is_none_or(|told: Instant| told.elapsed() >= WAITING_NOTICE) {
                told = Some(Instant::now());
                let (waited, patience) = (began.elapsed().as_secs(), patience.as_secs());
                tracing::warn!(%error, waited_s = waited, "the database is away: waiting up to {patience} s for it (DATABASE_WAIT_SECONDS)");
            }
            tokio::time::sleep(REACH_PAUSE).await;
        }
    }

    /// Reads the state before the first request, so that a start does not begin with a second of 503s, and starts the
    /// background tasks.
    async fn begin(&self) -> (Vec<JoinHandle<Infallible>>, Changes) {
        let Self { app, db, args, database, .. } = self;
        if let Some(notary) = notary(args, database).await {
            app.trail.sign_with(notary);
        }
        if let Err(error) = app.feed.refresh(db).await {
            tracing::warn!(%error, "the go-live state cannot be read yet: everything is blocked until it can be read");
        }
        // Before the first event.
        app.risk.choose_form().await;
        let changes = Changes::from_now_on(db.clone()).await;
        (start_tasks(app, db, &changes, args, database), changes)
    }

    fn announce(&self) {
        let Self { app, args, .. } = self;
        match app.access.register().mode() {
            Mode::Tokens => {}
            Mode::Unknown => {
                tracing::warn!("the tokens are not known yet: every caller is refused until they are");
            }
            Mode::Open => tracing::warn!(
                "OPEN MODE: there are no tokens, and callers are not authenticated; events say UNAUTHENTICATED; holdfast token \
                 create ends it"
            ),
        }
        if let Some(why) = args.enforcement.off_because() {
            tracing::warn!(
                "ENFORCEMENT IS OFF on this instance ({why}): requests pass whatever the go-live state says"
            );
            if args.enforcement.is_production() {
                tracing::warn!("the environment is named production, but nothing is enforced");
            }
        }
        let addr = self.addr;
        let version = env!("CARGO_PKG_VERSION");
        tracing::info!(%addr, version, "serving http://{addr} (API documentation at http://{addr}/docs/)");
    }
}

/// Starts the background tasks. A task that panics starts again.
fn start_tasks(
    app: &App,
    db: &Database,
    changes: &Changes,
    args: &ServeArgs,
    database: &DatabaseConfig,
) -> Vec<JoinHandle<Infallible>> {
    let (feed, listening) = (app.feed.clone(), app.feed.clone());
    let (risk, regression, register) = (app.risk.clone(), app.regression.clone(), app.access.register().clone());
    let (reconciler, metrics, changes) = (app.risk.reconciler().clone(), app.metrics.clone(), changes.clone());
    let forming = app.risk.clone();
    // Each task needs a handle of its own.
    let [of_feed, of_listener, of_marks, of_keys, of_partitions, of_uses, of_notary, of_archive] =
        std::array::from_fn(|_| db.clone());
    let mut tasks = vec![
        keep("feed", move || feed.clone().run(of_feed.clone())),
        keep("listener", move || listening.clone().listen(of_listener.clone())),
        keep("metrics", move || keep_metrics_small(metrics.clone())),
        keep("expiry", move || risk.clone().tick()),
        keep("form of events", move || forming.clone().keep_form()),
        keep("silence", move || regression.clone().tick()),
        keep("reconciliation", move || reconciler.clone().watch()),
        keep("marks", move || of_marks.history().clone().keep()),
        keep("partitions", move || crate::audit::partitions::run(of_partitions.clone())),
        keep("keys", move || crate::idempotency::run(of_keys.clone())),
        keep("changes", move || changes.clone().watch()),
        keep("uses of tokens", move || access::note_uses(register.clone(), of_uses.clone())),
    ];
    if let Some(notary) = app.trail.notary().cloned() {
        let verifying = app.trail.verifying.clone();
        let checkpoint_every = args.server.checkpoint_every;
        let signer = notary.clone();
        let run = move || notary.clone().run(of_notary.clone(), checkpoint_every, verifying.clone());
        tasks.push(keep("checkpoints", run));
        if let (Some(days), Some(path)) = (args.archive.retain_events, args.archive.archive_dir.clone()) {
            let data_dir = database.url().map_or_else(|| database.data_dir().ok(), |_| None);
            let (directory, failure) = (Directory { path, data_dir }, app.trail.archiving.clone());
            let run =
                move || schedule::run(of_archive.clone(), signer.clone(), directory.clone(), days, failure.clone());
            tasks.push(keep("archive", run));
        }
    } else if args.archive.retain_events.is_some() {
        let failure =
            "RETAIN_EVENTS has no effect: a segment is signed, and the checkpoint key cannot be used; see the log";
        tracing::error!("{failure}");
        app.trail.archiving.set(failure.to_owned());
    }
    tasks
}

fn keep<F>(task: &'static str, begin: impl Fn() -> F + Send + 'static) -> JoinHandle<Infallible>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(panics::kept_running(task, begin))
}

/// The pause between two attempts to reach a database that is away.
const REACH_PAUSE: Duration = Duration::from_secs(1);
/// The interval of the log lines about it.
const WAITING_NOTICE: Duration = Duration::from_secs(30);
/// The time that the end waits until the marks are on the disk.
const SAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The time that the end waits to remove the instance from the list.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval at which samples are folded into their buckets.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Folds samples into their buckets where no scrape does it. Until then samples are kept one by one.
async fn keep_metrics_small(metrics: metrics_exporter_prometheus::PrometheusHandle) {
    let mut turns = tokio::time::interval(METRICS_UPKEEP);
    loop {
        turns.tick().await;
        metrics.run_upkeep();
    }
}
