//! Wiring: the services on one database, and the router around them.

use crate::clock::Clock;
use crate::config::{ChecklistConfig, EnforcementConfig};
use crate::db::Database;
use crate::enforcement::feed::Feed;
use crate::enforcement::gate::{Enforcement, Gate, GateLayer};
use crate::go_live::GoLive;
use crate::govern::Govern;
use crate::heimdall::Heimdall;
use crate::middleware::Stack;
use crate::middleware::access_log::NoteRoute;
use crate::risk::Risk;
use crate::types::PackId;
use axum::Router;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
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
    pub govern: Govern,
    /// What this instance knows of the state.
    pub feed: Feed,
    /// What this instance enforces.
    pub enforcement: Enforcement,
    /// Why it does not, if it does not.
    pub enforcement_off: Option<&'static str>,
    /// What it has counted.
    pub metrics: PrometheusHandle,
    shutting_down: AtomicBool,
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
    pub fn new(db: &Database, clock: Clock, enforcement: &EnforcementConfig, required_packs: Vec<PackId>) -> Self {
        let feed = Feed::new(clock.clone());
        let checklist = ChecklistConfig { required_packs, enforcement_off: enforcement.off_because() };
        Self(Arc::new(Parts {
            go_live: GoLive::new(db.clone(), feed.clone(), Arc::new(checklist)),
            risk: Risk::new(db.clone(), clock, enforcement),
            heimdall: Heimdall::new(db.clone(), enforcement),
            govern: Govern::new(db.clone(), feed.clone()),
            feed,
            enforcement: enforcement.enforcement(),
            enforcement_off: enforcement.off_because(),
            metrics: recorder(),
            shutting_down: AtomicBool::new(false),
        }))
    }

    /// The whole service: the stack, the gate, the router.
    #[must_use]
    pub fn router(&self) -> Service {
        self.serve(crate::http::router(self.clone()))
    }

    /// The stack and the gate around any router: whatever is mounted in it is behind the gate.
    #[must_use]
    pub fn serve(&self, router: Router) -> Service {
        let routed = router.layer(NoteRoute);
        Stack::new(GateLayer::new(self.feed.clone(), self.enforcement).layer(routed))
    }

    /// From now on `/readyz` says 503, so that load balancers look elsewhere.
    pub fn begin_shutdown(&self) {
        self.shutting_down.store(true, Ordering::SeqCst);
    }

    /// Whether the instance is on its way out.
    #[must_use]
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::SeqCst)
    }

    /// Sets the gauges to what is known now.
    pub fn report_gauges(&self) {
        use crate::enforcement::gate::{Source, View};
        let number = |flag: bool| if flag { 1.0 } else { 0.0 };
        #[expect(clippy::cast_precision_loss, reason = "ages and versions are far below 2^52")]
        let float = |whole: i64| whole as f64;
        let age = self.feed.age_ms().and_then(|age| i64::try_from(age).ok()).unwrap_or(-1);
        metrics::gauge!("holdfast_state_age_ms").set(float(age));
        let fresh = self.feed.view();
        metrics::gauge!("holdfast_state_fresh").set(number(fresh != View::Stale));
        if let View::Fresh { version, go_live_enabled, kill_switch_engaged } = fresh {
            metrics::gauge!("holdfast_state_version").set(float(version));
            metrics::gauge!("holdfast_go_live_enabled").set(number(go_live_enabled));
            metrics::gauge!("holdfast_kill_switch_engaged").set(number(kill_switch_engaged));
        }
        let policies = self.feed.policies();
        for (engine, active) in policies.engines {
            metrics::gauge!("holdfast_engine_enabled", "engine" => engine).set(number(active));
        }
        for (domain, enabled) in policies.domains {
            metrics::gauge!("holdfast_domain_prod_use_enabled", "domain" => domain).set(number(enabled));
        }
        for (wire, tripped) in policies.wires {
            metrics::gauge!("holdfast_wire_tripped", "wire" => wire).set(number(tripped));
        }
        self.metrics.run_upkeep();
    }
}

/// Request times, seconds: from a cached read to the deadline.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

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
