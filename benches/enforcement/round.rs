//! A round: everything anew, then the rows that are wanted.

use crate::decision::{self, Decision};
use crate::faults::{self, FAULTS};
use crate::figures::Figure;
use crate::fleet::{ASK, Fleet};
use crate::machine::{self, Facts};
use crate::numbers::{percentile, real, rounded};
use crate::propagation::{self, Propagation};
use crate::proxy::Loses;
use crate::rate::{self, Compared, Target};
use crate::report::RoundReport;
use crate::server::{Pair, ROUTE};
use crate::{Options, Result, flood, http, recovery};
use holdfast::clock::Clock;
use holdfast::db::Database;
use holdfast::enforcement::feed::Feed;
use holdfast::enforcement::instance::{Configuration, Instance, LEASE_MAX};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::task::AbortHandle;

/// A row that can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// Nanoseconds and allocations of one decision.
    Decision,
    /// A trivial route with the layer against without.
    Layer,
    /// Forward-auth against `/livez`.
    ForwardAuth,
    /// Engage to the last instance blocking.
    Propagation,
    /// The same without notifications.
    Cut,
    /// Engage while everything else is taken.
    Flood,
    /// Admissions after `guaranteed_by`.
    Faults,
    /// After an outage of the database.
    Recovery,
}

/// Everything of one round.
pub(crate) struct Round<'a> {
    options: &'a Options,
    report: RoundReport,
    fleet: Fleet,
}

/// A feed of this process on the round's database, kept fresh until dropped.
struct Fresh {
    feed: Feed,
    tasks: [AbortHandle; 2],
}

impl Drop for Fresh {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl<'a> Round<'a> {
    pub(crate) async fn begin(options: &'a Options, number: u32) -> Result<Self> {
        let busy = machine::busy();
        println!("== round {number} of {}, load average {busy}", options.rounds);
        Ok(Self { options, report: RoundReport::new(number, busy), fleet: Fleet::start(number).await? })
    }

    pub(crate) async fn facts(&self) -> Result<Facts> {
        let mut db = PgConnection::connect_with(&self.fleet.postgres.connect_options()).await?;
        Facts::gather(self.fleet.place().root(), &mut db).await
    }

    /// Measures every row that is wanted.
    pub(crate) async fn run(mut self) -> Result<RoundReport> {
        let options = self.options;
        let wants = |row| options.wants(row);
        if wants(Row::Decision) || wants(Row::Layer) {
            let fresh = self.fresh().await?;
            if wants(Row::Decision) {
                self.decision(&fresh)?;
            }
            if wants(Row::Layer) {
                self.layer(&fresh).await?;
            }
        }
        if wants(Row::ForwardAuth) {
            self.forward_auth().await?;
        }
        if wants(Row::Propagation) {
            self.propagation().await?;
        }
        if wants(Row::Cut) {
            self.cut().await?;
        }
        if wants(Row::Flood) {
            self.flood().await?;
        }
        if wants(Row::Faults) {
            self.faults().await?;
        }
        if wants(Row::Recovery) {
            self.recovery().await?;
        }
        Ok(self.report)
    }

    async fn fresh(&self) -> Result<Fresh> {
        let db = Database::open(self.fleet.postgres.connect_options()).await?;
        let configuration = Configuration {
            enforcement: "all",
            execution_classes: None,
            state_lease_ms: 2_000,
            required_packs: Vec::new(),
        };
        let feed =
            Feed::new(Clock::system(), LEASE_MAX, Instance::new("bench", &configuration), None, db.history().clone());
        feed.refresh(&db).await?;
        let run = tokio::spawn(feed.clone().run(db.clone()));
        let listen = tokio::spawn(feed.clone().listen(db));
        Ok(Fresh { feed, tasks: [run.abort_handle(), listen.abort_handle()] })
    }

    fn decision(&mut self, fresh: &Fresh) -> Result<()> {
        let measured = decision::measure(&fresh.feed)?;
        let Decision { median, parts: [path, class, view], single_median, single_p99, clock, allocations } = measured;
        println!(
            "decision: median {median:.1} ns in batches (path {path:.1}, class {class:.1}, view {view:.1}); one by one median {single_median:.0}, p99 {single_p99:.0} ns \
             ({clock:.0} ns for the clock subtracted); {allocations} allocations"
        );
        self.report.sample(Figure::DecisionMedian, median);
        self.report.sample(Figure::DecisionP99, single_p99);
        self.report.sample(Figure::Allocations, real(allocations));
        self.report.detail(
            "decision_ns",
            json!({"median": median, "path": path, "class": class, "view": view, "single_median": single_median, "single_p99": single_p99, "clock": clock}),
        );
        Ok(())
    }

    async fn layer(&mut self, fresh: &Fresh) -> Result<()> {
        let pair = Pair::start(fresh.feed.clone()).await?;
        let target = |addr| Target { addr, request: http::get(ROUTE).into() };
        let compared = rate::compare(&target(pair.gated), &target(pair.bare), self.options.seconds).await?;
        self.compared("layer", "with the layer", "without", Figure::Layer, compared);
        Ok(())
    }

    async fn forward_auth(&mut self) -> Result<()> {
        let addr = self.fleet.addresses()[0];
        let auth = Target { addr, request: ASK.into() };
        let livez = Target { addr, request: http::get("/livez").into() };
        let compared = rate::compare(&auth, &livez, self.options.seconds).await?;
        self.compared("forward-auth", "forward-auth", "/livez", Figure::ForwardAuth, compared);
        Ok(())
    }

    fn compared(&mut self, row: &'static str, one: &str, other: &str, figure: Figure, compared: Compared) {
        let Compared { ratio, middle: [low, high], one: first, other: second } = compared;
        println!(
            "{row}: {one} {}/s, {other} {}/s, ratio {ratio:.3}, half of them {low:.3} to {high:.3}",
            rounded(first),
            rounded(second)
        );
        self.report.sample(figure, ratio);
        self.report.detail(row, json!({"ratio": ratio, "middle_half": [low, high], one: first, other: second}));
    }

    async fn propagation(&mut self) -> Result<()> {
        self.fleet.until_notified(true).await?;
        let measured = propagation::measure(&self.fleet, self.options.trials).await?;
        self.propagated("propagation", measured);
        self.report.sample(Figure::PropagationP50, measured.p50);
        self.report.sample(Figure::PropagationP99, measured.p99);
        Ok(())
    }

    async fn cut(&mut self) -> Result<()> {
        self.fleet.lose_everywhere(Loses::Notifications);
        self.fleet.until_notified(false).await?;
        let measured = propagation::measure(&self.fleet, self.options.trials.div_ceil(3)).await?;
        self.fleet.lose_everywhere(Loses::Nothing);
        self.propagated("notifications cut", measured);
        self.report.sample(Figure::CutP99, measured.p99);
        Ok(())
    }

    fn propagated(&mut self, row: &'static str, measured: Propagation) {
        let Propagation { trials, p50, p99, max, answered_p50, answered_p99 } = measured;
        println!(
            "{row}: {trials} kills, the last instance blocking after p50 {p50:.2}, p99 {p99:.2}, max {max:.2} ms; \
             answered after p50 {answered_p50:.2}, p99 {answered_p99:.2} ms"
        );
        self.report.detail(
            row,
            json!({"trials": trials, "p50_ms": p50, "p99_ms": p99, "max_ms": max,
                   "answered_p50_ms": answered_p50, "answered_p99_ms": answered_p99}),
        );
    }

    async fn flood(&mut self) -> Result<()> {
        let flood::Flooded { mut engages_ms, reserves } =
            flood::measure(&self.fleet, self.options.trials.div_ceil(3)).await?;
        let (p50, max) = (percentile(&mut engages_ms, 50), percentile(&mut engages_ms, 100));
        println!(
            "flood: {} engages answered after p50 {p50:.1}, max {max:.1} ms, while 512 connections were answered {} reserves/s",
            engages_ms.len(),
            rounded(reserves)
        );
        self.report.sample(Figure::Flooded, max);
        self.report.detail("flood", json!({"engages_ms": engages_ms, "reserves_per_s": reserves}));
        Ok(())
    }

    async fn faults(&mut self) -> Result<()> {
        let mut admitted_after = 0;
        for fault in FAULTS {
            let outcome = faults::run(&mut self.fleet, fault).await?;
            println!(
                "fault: {}: after guaranteed_by {} admitted, {} refused; the last of {} admissions was sent {} ms before it",
                fault.name(),
                outcome.admitted_after,
                outcome.refused_after,
                outcome.admitted,
                outcome.margin_ms
            );
            admitted_after += outcome.admitted_after;
            self.report.outcomes.push(outcome);
        }
        self.report.sample(Figure::Admissions, real(admitted_after as u64));
        Ok(())
    }

    async fn recovery(&mut self) -> Result<()> {
        self.fleet.release().await?;
        let outage = self.options.outage();
        let hung = recovery::after_a_hang(&self.fleet, outage).await?;
        let stopped = recovery::after_a_stop(&mut self.fleet, outage).await?;
        let mut last = 0.0_f64;
        for one in [hung, stopped] {
            let instances: Vec<_> = one.instances.iter().map(|ms| format!("{ms:.0}")).collect();
            println!(
                "recovery: PostgreSQL {} for {} s: {} ms after that",
                one.outage,
                outage.as_secs(),
                instances.join(", ")
            );
            last = one.instances.iter().copied().fold(last, f64::max);
            self.report.detail(one.outage, json!({"outage_s": outage.as_secs(), "recovered_ms": one.instances}));
        }
        self.report.sample(Figure::Recovery, last);
        Ok(())
    }
}
