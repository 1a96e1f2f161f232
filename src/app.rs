//! Wiring: the services on one database, and the router around them.

mod health;
mod openapi;
mod policies;
mod router;

pub use openapi::{document, document_text};

use crate::access::Access;
use crate::access::guard::{Exposure, GuardLayer, Means};
use crate::access::open::Hosts;
use crate::approval;
use crate::approve::Approve;
use crate::audit::checkpoint::Notary;
use crate::clock::Clock;
use crate::config::{ChecklistConfig, EnforcementConfig, LimitsConfig};
use crate::db::Database;
use crate::enforcement::feed::Feed;
use crate::enforcement::gate::{Enforcement, EnforcementScope, Gate, GateLayer};
use crate::enforcement::http::Outside;
use crate::enforcement::instance::{Configuration, Instance};
use crate::enforcement::kill_file::KillFile;
use crate::enforcement::rules::Rules;
use crate::go_live::GoLive;
use crate::heimdall::Heimdall;
use crate::http::places::Places;
use crate::middleware::Stack;
use crate::middleware::access_log::NoteRoute;
use crate::regression::Regression;
use crate::review;
use crate::risk::Risk;
use crate::trail::Trail;
use crate::types::PackId;
use axum::Router;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use tower::Layer;

/// Everything a handler needs. Cheap to clone, which happens several times a request: all clones are one.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// What answers requests: the stack, the gate, a router.
pub type Service = Stack<Gate<Router, Feed>>;

/// What an [`App`] consists of.
#[derive(Debug)]
pub struct Parts {
    /// Lever 1.
    pub go_live: GoLive,
    /// Lever 2.
    pub risk: Risk,
    /// Lever 3.
    pub heimdall: Heimdall,
    /// Lever 4, and what changes two levers.
    pub regression: Regression,
    /// What this instance knows of the state.
    pub feed: Feed,
    /// What this instance enforces.
    pub enforcement: Enforcement,
    /// What is blocked while go-live is off; forward-auth goes by it also where this instance enforces nothing itself.
    pub scope: EnforcementScope,
    /// Which class a method and a path are of.
    pub rules: Arc<Rules>,
    /// Why it does not, if it does not.
    pub enforcement_off: Option<&'static str>,
    /// Whether this instance asks for a second person whatever the database says.
    pub two_person: approval::Policy,
    /// The tokens.
    pub access: Access,
    /// The trail, as it is read.
    pub trail: Trail,
    /// The guard around each route.
    guard: GuardLayer,
    /// The database.
    db: Database,
    /// What it has counted.
    pub metrics: PrometheusHandle,
    /// Where in [`Stage::ALL`] it is.
    stage: AtomicU8,
}

/// How far an instance is between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its database is not there yet.
    Opening,
    /// It is away.
    WaitingForDatabase,
    /// The migrations run.
    Migrating,
    /// They wait.
    WaitingToMigrate,
    /// It serves.
    Serving,
    /// It is on its way out. It may still serve, for those who have not heard of that.
    Stopping,
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Opening,
        Self::WaitingForDatabase,
        Self::Migrating,
        Self::WaitingToMigrate,
        Self::Serving,
        Self::Stopping,
    ];

    /// Whether it has not begun to serve.
    #[must_use]
    pub fn is_start(self) -> bool {
        self < Self::Serving
    }

    /// Why an instance that is here is not ready, if it is not.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Opening => Some("starting: the database is being opened"),
            Self::WaitingForDatabase => Some("starting: the database is away: the log says why"),
            Self::Migrating => Some("starting: migrations run"),
            Self::WaitingToMigrate => Some("starting: migrations wait for a lock: the log says whose"),
            Self::Serving => None,
            Self::Stopping => Some("shutting down"),
        }
    }
}

/// What an instance is told at its start.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// What it enforces.
    pub enforcement: EnforcementConfig,
    /// Which class a method and a path are of.
    pub rules: Rules,
    /// Where its kill file is; none where there is no place for one.
    pub kill_file: Option<PathBuf>,
    /// What go-live requires beyond the levers.
    pub required_packs: Vec<PackId>,
    /// Its name, for people.
    pub name: String,
    /// Where it can be reached from.
    pub exposure: Exposure,
    /// By which names it is asked while nobody is authenticated.
    pub hosts: Hosts,
    /// What signs checkpoints; none where there is no place for its key.
    pub notary: Option<Notary>,
    /// How much it keeps in memory, and how much in rows.
    pub limits: LimitsConfig,
    /// Whether it asks for a second person whatever the database says.
    pub two_person: approval::Policy,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// The services on this database.
    #[must_use]
    pub fn new(db: &Database, clock: Clock, setup: Setup) -> Self {
        let Setup { enforcement, rules, kill_file, required_packs, name, exposure, hosts, notary, limits, two_person } =
            setup;
        let configuration = Configuration {
            enforcement: enforcement.enforcement().as_str(),
            execution_classes: rules.digest().map(str::to_owned),
            state_lease_ms: enforcement.state_lease_ms,
            required_packs: required_packs.iter().map(ToString::to_string).collect(),
        };
        let instance = Instance::new(&name, &configuration);
        let history = db.history().clone();
        let feed = Feed::new(clock.clone(), enforcement.lease(), instance, kill_file.map(KillFile::new), history)
            .reading_policies(policies::read);
        let access = Access::new(db.clone(), clock.clone(), feed.clone(), limits.tokens_max);
        let places = Places::new(limits.body_bytes(), limits.answer_bytes());
        let guard = GuardLayer::new(Means { access: access.clone(), exposure, hosts, places });
        let checklist = ChecklistConfig { required_packs, enforcement_off: enforcement.off_because() };
        Self(Arc::new(Parts {
            go_live: GoLive::new(
                db.clone(),
                clock.clone(),
                feed.clone(),
                Arc::new(checklist),
                two_person,
                limits.packs_max,
            ),
            risk: Risk::new(db.clone(), clock.clone(), feed.clone(), &enforcement, two_person, limits.engines_max),
            heimdall: Heimdall::new(
                db.clone(),
                feed.clone(),
                !enforcement.is_development(),
                two_person,
                limits.domains_max,
            ),
            regression: Regression::new(db.clone(), clock, feed.clone(), two_person, &limits),
            access,
            guard,
            trail: Trail::new(db.clone(), notary),
            db: db.clone(),
            two_person,
            feed,
            enforcement: enforcement.enforcement(),
            scope: enforcement.scope(),
            rules: Arc::new(rules),
            enforcement_off: enforcement.off_because(),
            metrics: counting(),
            stage: AtomicU8::new(Stage::Serving as u8),
        }))
    }

    /// The whole service: the stack, the gate, the router.
    #[must_use]
    pub fn router(&self) -> Service {
        self.serve(router::router(self))
    }

    /// The counters alone, for a listener of their own that answers whoever reaches it.
    #[must_use]
    pub fn metrics_router(&self) -> Service {
        self.serve(router::metrics_router(self))
    }

    /// The stack and the gate around any router: whatever is mounted in it is behind the gate.
    #[must_use]
    pub fn serve(&self, router: Router) -> Service {
        let routed = router.layer(NoteRoute);
        let gate = GateLayer::new(self.feed.clone(), self.enforcement, Arc::clone(&self.rules));
        Stack::new(gate.layer(routed))
    }

    /// Whether what decides still runs.
    #[must_use]
    pub fn writers_run(&self) -> bool {
        self.risk.writer_runs() && self.regression.writer_runs()
    }

    /// Waits until something that decides has ended, which it only does by a fault of this program.
    pub async fn writer_ended(&self) {
        tokio::select! {
            () = self.risk.writer_ended() => {}
            () = self.regression.writer_ended() => {}
        }
    }

    fn review(&self) -> review::Source {
        let reused = self.regression.reused().clone();
        review::Source { db: self.db.clone(), feed: self.feed.clone(), reused, trail: self.trail.clone() }
    }

    fn approve(&self) -> Approve {
        Approve {
            db: self.db.clone(),
            two_person: self.two_person,
            go_live: self.go_live.clone(),
            risk: self.risk.clone(),
            heimdall: self.heimdall.clone(),
            regression: self.regression.clone(),
        }
    }

    fn outside(&self) -> Outside {
        Outside { feed: self.feed.clone(), rules: Arc::clone(&self.rules), scope: self.scope }
    }

    /// How far it is; by that `/readyz` tells load balancers whether to look elsewhere.
    #[must_use]
    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Acquire))]
    }

    /// Goes on to a stage. A stop is the last.
    pub fn enter(&self, stage: Stage) {
        let unless_stopping = |here| (here != Stage::Stopping as u8).then_some(stage as u8);
        let _ = self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, unless_stopping);
    }

    /// Sets the gauges to what is known now.
    pub fn report_gauges(&self) {
        use crate::enforcement::gate::{Source, View};
        let number = |flag: bool| if flag { 1.0 } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "ages and versions are far below 2^52")]
        let float = |whole: i64| whole as f64;
        let age = self.feed.age().and_then(|age| i64::try_from(age.as_millis()).ok()).unwrap_or(-1);
        metrics::gauge!("holdfast_state_age_ms").set(float(age));
        metrics::gauge!("holdfast_state_lease_ms")
            .set(float(i64::try_from(self.feed.lease().as_millis()).unwrap_or(0)));
        metrics::gauge!("holdfast_state_notified").set(number(self.feed.is_listening()));
        metrics::gauge!("holdfast_state_rewound").set(number(self.feed.is_rewound()));
        let disk = self.db.disk();
        metrics::gauge!("holdfast_disk_full").set(number(disk.is_full()));
        if let Some(bytes) = disk.free_bytes() {
            #[expect(clippy::cast_precision_loss, reason = "a disk of 2^53 bytes or less is counted exactly")]
            metrics::gauge!("holdfast_disk_free_bytes").set(bytes as f64);
        }
        metrics::gauge!("holdfast_clock_doubted").set(number(self.feed.belief().doubt().is_some()));
        metrics::gauge!("holdfast_kill_file").set(number(self.feed.is_killed_locally()));
        let fresh = self.feed.view();
        metrics::gauge!("holdfast_state_fresh").set(number(matches!(fresh, View::Fresh { .. })));
        if let Some((version, go_live_enabled, kill_switch_engaged)) = self.feed.last_known() {
            metrics::gauge!("holdfast_state_version").set(float(version));
            metrics::gauge!("holdfast_go_live_enabled").set(number(go_live_enabled));
            metrics::gauge!("holdfast_kill_switch_engaged").set(number(kill_switch_engaged));
        }
        // However old, as the state above.
        let policies = self.feed.last_policies().unwrap_or_default();
        for (engine, active) in &policies.engines {
            metrics::gauge!("holdfast_engine_enabled", "engine" => engine.clone()).set(number(*active));
        }
        for (domain, enabled) in &policies.domains {
            metrics::gauge!("holdfast_domain_prod_use_enabled", "domain" => domain.clone()).set(number(*enabled));
        }
        for (wire, tripped) in &policies.wires {
            metrics::gauge!("holdfast_wire_tripped", "wire" => wire.clone()).set(number(*tripped));
        }
        self.metrics.run_upkeep();
    }
}

/// Request times, seconds: from a cached read to the deadline.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// The recorder, with every counter whose labels are known beforehand at 0.
fn counting() -> PrometheusHandle {
    let recorder = recorder();
    crate::access::guard::begin_counting();
    crate::regression::begin_counting();
    crate::http::server::begin_counting();
    crate::log::begin_counting();
    crate::middleware::access_log::begin_counting();
    crate::risk::http::begin_counting();
    recorder
}

/// The process's one metrics recorder.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let builder = PrometheusBuilder::new().set_buckets(&BUCKETS).expect("the buckets are not empty");
            builder.install_recorder().expect("nothing else in this process installs a recorder")
        })
        .clone()
}
