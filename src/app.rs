//! Wires the services to one database and puts the router around them. It holds no rule of a lever.

mod health;
mod openapi;
mod policies;
mod router;
mod routes;

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
use crate::enforcement::instance::{Configuration, Instance};
use crate::enforcement::kill_file::KillFile;
use crate::enforcement::outside::Outside;
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

/// The services and settings that the wiring shares. Cheap to clone: every clone points to the same parts.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// The complete HTTP service: the stack, the gate and a router.
pub type Service = Stack<Gate<Router, Feed>>;

/// The parts of an [`App`].
#[derive(Debug)]
pub struct Parts {
    /// Lever 1: the go-live state and the kill switch.
    pub go_live: GoLive,
    /// Lever 2: the risk ledger.
    pub risk: Risk,
    /// Lever 3: the charter of AI domains.
    pub heimdall: Heimdall,
    /// Lever 4: the regression tripwire, and the changes that span two levers.
    pub regression: Regression,
    /// The state as this instance knows it.
    pub feed: Feed,
    /// The settings of this instance's gate.
    pub enforcement: Enforcement,
    /// The classes that are blocked while go-live is off. Forward-auth applies them even where this instance's gate is
    /// off.
    pub scope: EnforcementScope,
    /// The class of each method and path.
    pub rules: Arc<Rules>,
    /// The reason why this instance's gate is off; none when it is on.
    pub enforcement_off: Option<&'static str>,
    /// Whether this instance requires a second person even if the database's setting does not.
    pub two_person: approval::Policy,
    /// The tokens and the check of each caller.
    pub access: Access,
    /// The reads of the audit trail.
    pub trail: Trail,
    guard: GuardLayer,
    db: Database,
    /// The process's metrics, as `/metrics` renders them.
    pub metrics: PrometheusHandle,
    /// The current stage, an index into [`Stage::ALL`].
    stage: AtomicU8,
}

/// The stages of an instance from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The database is being opened.
    Opening,
    /// The database is away, and the instance waits for it.
    WaitingForDatabase,
    /// Migrations run.
    Migrating,
    /// Migrations wait for a lock in the database.
    WaitingToMigrate,
    /// The instance serves requests.
    Serving,
    /// A stop was announced. The instance may still serve clients that have not noticed.
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

    /// Whether the instance has not begun to serve.
    #[must_use]
    pub fn is_start(self) -> bool {
        self < Self::Serving
    }

    /// The reason why a started process is not ready; none while it serves.
    #[must_use]
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Opening => Some("starting: the database is being opened"),
            Self::WaitingForDatabase => Some("starting: the database is away; see the log for the cause"),
            Self::Migrating => Some("starting: migrations run"),
            Self::WaitingToMigrate => Some("starting: migrations wait for a lock; see the log for its holder"),
            Self::Serving => None,
            Self::Stopping => Some("shutting down"),
        }
    }
}

/// The configuration of an instance at its start.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// The configuration of the gate.
    pub enforcement: EnforcementConfig,
    /// The class of each method and path.
    pub rules: Rules,
    /// The kill file; none without a data directory.
    pub kill_file: Option<PathBuf>,
    /// The components that go-live requires beyond the levers.
    pub required_packs: Vec<PackId>,
    /// The instance's name for people.
    pub name: String,
    /// The machines that can reach the instance.
    pub exposure: Exposure,
    /// The host names that a request may name in open mode.
    pub hosts: Hosts,
    /// The signer of checkpoints; none where its key has no place.
    pub notary: Option<Notary>,
    /// The limits of memory and of rows.
    pub limits: LimitsConfig,
    /// Whether this instance requires a second person even if the database's setting does not.
    pub two_person: approval::Policy,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Builds the services on this database.
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

    /// The stack and the gate around any router: every route in it is behind the gate.
    #[must_use]
    pub fn serve(&self, router: Router) -> Service {
        let routed = router.layer(NoteRoute);
        let gate = GateLayer::new(self.feed.clone(), self.enforcement, Arc::clone(&self.rules));
        Stack::new(gate.layer(routed))
    }

    /// Whether the writers of the ledger and of the measurements still run.
    #[must_use]
    pub fn writers_run(&self) -> bool {
        self.risk.writer_runs() && self.regression.writer_runs()
    }

    /// Waits until a writer has ended, which only a fault of this program causes.
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

    /// The current stage, which `/readyz` reports to load balancers.
    #[must_use]
    pub fn stage(&self) -> Stage {
        Stage::ALL[usize::from(self.stage.load(Ordering::Acquire))]
    }

    /// Goes on to a stage. [`Stage::Stopping`] is final.
    pub fn enter(&self, stage: Stage) {
        let unless_stopping = |here| (here != Stage::Stopping as u8).then_some(stage as u8);
        let _ = self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, unless_stopping);
    }

    /// Sets the gauges to the values that are known now.
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
        // The last known policies at any age, as for the state above.
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

/// The recorder. Every counter whose labels are known in advance begins at 0.
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
