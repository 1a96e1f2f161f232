//! The rows of the table, each a method.

use crate::answers;
use crate::books::{self, Mark};
use crate::figures::{Figure, Sample};
use crate::http;
use crate::load::{Load, Pace};
use crate::machine::{self, Facts};
use crate::numbers::real;
use crate::place::{Instance, Place, free_address};
use crate::report::{Outcome, RoundReport, Run};
use crate::script::{Counts, Work};
use crate::usage::Moment;
use crate::yardstick::Yardstick;
use crate::{Options, Result};
use sqlx::{Connection, Executor, PgConnection, Row as _};
use std::path::Path;
use std::time::Duration;

/// The connections that throughput is measured with.
pub(crate) const MANY: usize = 256;
/// The share of the peak that an open loop offers.
pub(crate) const OPEN_SHARE: f64 = 0.7;
/// Before a measurement counts.
const WARM_UP: Duration = Duration::from_secs(1);
/// The hot engine; it and GLOBAL have no caps.
pub(crate) const ENGINE: &str = "BENCH";
/// An engine with a cap on its open risk.
const CAPPED: &str = "BENCH_CAPPED";
const CAP: u64 = 1_000;
/// How often two instances are compared with one; odd, so that there is a median.
const TURNS: usize = 15;
/// Operations of a batch, and how many callers send batches.
const BATCH: usize = 500;
const BATCH_CALLERS: usize = 8;

/// A row that can be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Row {
    /// Bytes per lifecycle, on disk and of WAL.
    Bytes,
    /// Reserves a second, 256 connections.
    Reserves,
    /// Lifecycles a second, 256 connections.
    Lifecycles,
    /// Median latency of one connection.
    P50,
    /// Operations a second in batches.
    Batch,
    /// 99th percentile at 64 connections.
    P99,
    /// 99th percentile at a fixed rate.
    OpenLoop,
    /// Two instances against one.
    TwoInstances,
    /// Reserves a second that carry idempotency keys.
    Keys,
    /// Ten times the connections.
    Overload,
    /// Denials a second, and the cap.
    Denials,
    /// Memory over minutes.
    Soak,
}

/// Everything of one round. Fields are dropped in order: the service before the directory that it runs in.
pub(crate) struct Round<'a> {
    pub(crate) options: &'a Options,
    pub(crate) report: RoundReport,
    pub(crate) service: Instance,
    pub(crate) db: PgConnection,
    place: Place,
}

impl<'a> Round<'a> {
    /// Starts everything, and opens the ledger for business.
    pub(crate) async fn begin(options: &'a Options, number: u32) -> Result<Self> {
        let busy = machine::busy();
        println!("== round {number} of {}, load average {busy}", options.rounds);
        let place = Place::new(number)?;
        let service = place.serve().await?;
        let db = PgConnection::connect(&place.url("holdfast")).await?;
        service.post("/go-live/enable", r#"{"actor":"bench"}"#).await?;
        for (engine, max_open_risk) in [("GLOBAL", 0), (ENGINE, 0), (CAPPED, CAP)] {
            let policy = format!(
                r#"{{"engine":"{engine}","max_daily_loss":0,"max_daily_exposure":0,"max_open_risk":{max_open_risk},
                    "allow_unlimited":true,"actor":"bench","reason":"benchmark"}}"#
            );
            service.post("/risk/policies/upsert", &policy).await?;
        }
        Ok(Self { options, report: RoundReport::new(number, busy), service, db, place })
    }

    pub(crate) async fn facts(&mut self) -> Result<Facts> {
        Facts::gather(self.place.root(), &mut self.db).await
    }

    /// Measures every row that is wanted.
    pub(crate) async fn run(mut self, pgbench: &Path, is_last: bool) -> Result<RoundReport> {
        let options = self.options;
        let wants = |row| options.wants(row);
        // First, while every page is new: free space in old pages would hide growth.
        if wants(Row::Bytes) {
            self.bytes().await?;
        }
        for row in
            [Row::Reserves, Row::Lifecycles, Row::P50, Row::Batch, Row::Keys].into_iter().filter(|row| wants(*row))
        {
            if self.report.yardsticks.is_empty() {
                self.yardstick(pgbench).await?;
            }
            match row {
                Row::Reserves => {
                    let per_second = self.reserves().await?;
                    self.sample(Sample::absolute(Figure::Reserves, per_second));
                }
                Row::Lifecycles => {
                    let per_second = self.lifecycles().await?;
                    self.sample(Sample::absolute(Figure::Lifecycles, per_second));
                }
                Row::P50 => self.p50().await?,
                Row::Batch => self.batch().await?,
                _ => self.keys().await?,
            }
            self.yardstick(pgbench).await?;
        }
        if wants(Row::P99) {
            self.p99().await?;
        }
        if wants(Row::OpenLoop) {
            self.open_loop().await?;
        }
        if wants(Row::TwoInstances) {
            self.two_instances().await?;
        }
        if wants(Row::Overload) {
            self.overload().await?;
        }
        if wants(Row::Denials) {
            self.denials().await?;
        }
        if is_last && wants(Row::Soak) {
            self.soak().await?;
        }
        self.report.compare();
        Ok(self.report)
    }

    async fn yardstick(&mut self, pgbench: &Path) -> Result<()> {
        let yardstick = Yardstick::run(pgbench, &self.place, &mut self.db, self.options.seconds).await?;
        println!(
            "yardstick: {:.0} tps and {:.3} ms with 1 client, {:.0} tps with 32",
            yardstick.tps_1, yardstick.latency_1_ms, yardstick.tps_32
        );
        self.report.yardsticks.push(yardstick);
        Ok(())
    }

    pub(crate) fn sample(&mut self, sample: Sample) {
        let after_yardstick = self.report.yardsticks.len().saturating_sub(1);
        self.report.samples.push(Sample { after_yardstick, ..sample });
    }

    /// A closed loop on this service.
    pub(crate) fn closed(&self, connections: usize, work: Work) -> Load {
        Load {
            targets: vec![self.service.addr],
            connections,
            work,
            pace: Pace::Closed,
            warm_up: WARM_UP,
            duration: self.options.duration(),
            keep_ids: true,
        }
    }

    /// Runs a load, says what came of it, checks the books and keeps all of that.
    async fn measure(&mut self, name: &'static str, load: &Load) -> Result<Outcome> {
        self.measure_in_turn(&[(name, load)]).await?.pop().ok_or_else(|| "a load has an outcome".into())
    }

    /// The same with several loads, one after the other, and one check of the books for all of them.
    async fn measure_in_turn(&mut self, loads: &[(&'static str, &Load)]) -> Result<Vec<Outcome>> {
        let mark = Mark::now(&mut self.db).await?;
        let (mut all, mut ids, mut outcomes) = (Counts::default(), Vec::new(), Vec::new());
        for (name, load) in loads {
            let mut run = self.load(name, load).await?;
            outcomes.push(run.outcome());
            all += run.tally.all;
            ids.append(&mut run.tally.ids);
            self.report.runs.push(run);
        }
        let checked = books::check(&mut self.db, &self.service, mark, all, &ids).await?;
        println!("    books: {checked}");
        if let Some(last) = self.report.runs.last_mut() {
            last.checked = Some(checked);
        }
        Ok(outcomes)
    }

    /// Runs a load and prints what came of it.
    pub(crate) async fn load(&mut self, name: &'static str, load: &Load) -> Result<Run> {
        let moment = || Moment::now(self.service.pid(), self.place.postmaster());
        let before = moment();
        let tally = load.run().await?;
        let used = moment().since(&before);
        self.service.check_alive()?;
        let run = Run::new(name, load, tally, used);
        println!("{run}");
        Ok(run)
    }

    async fn reserves(&mut self) -> Result<f64> {
        let load = self.closed(MANY, Work::Reserve { engine: ENGINE });
        Ok(self.measure("reserves", &load).await?.per_second)
    }

    pub(crate) async fn lifecycles(&mut self) -> Result<f64> {
        let load = self.closed(MANY, Work::Lifecycle { engine: ENGINE });
        Ok(self.measure("lifecycles", &load).await?.per_second)
    }

    async fn p50(&mut self) -> Result<()> {
        let load = self.closed(1, Work::Reserve { engine: ENGINE });
        let measured = self.measure("reserves, one at a time", &load).await?;
        self.sample(Sample::absolute(Figure::P50, measured.p50_ms));
        Ok(())
    }

    async fn p99(&mut self) -> Result<()> {
        let load = self.closed(64, Work::Reserve { engine: ENGINE });
        let measured = self.measure("reserves", &load).await?;
        self.sample(Sample::value(Figure::P99, measured.p99_ms));
        Ok(())
    }

    async fn open_loop(&mut self) -> Result<()> {
        let known = self.report.samples.iter().find(|sample| sample.figure == Figure::Reserves);
        let peak = match known.and_then(|sample| sample.absolute) {
            Some(peak) => peak,
            None => self.reserves().await?,
        };
        let pace = Pace::Open { per_second: peak * OPEN_SHARE };
        let load = Load { pace, ..self.closed(MANY, Work::Reserve { engine: ENGINE }) };
        let measured = self.measure("reserves at 70 % of the peak", &load).await?;
        self.sample(Sample::value(Figure::P99Open, measured.p99_ms));
        Ok(())
    }

    async fn batch(&mut self) -> Result<()> {
        let load = self.closed(BATCH_CALLERS, Work::Batch { engine: ENGINE, operations: BATCH });
        let measured = self.measure("operations in batches of 500", &load).await?;
        self.sample(Sample::absolute(Figure::Batch, measured.per_second));
        Ok(())
    }

    async fn two_instances(&mut self) -> Result<()> {
        let database = ("DATABASE_URL", self.place.url("holdfast"));
        let second = Instance::start(&self.place, "second", free_address()?, &[database]).await?;
        let closed = self.closed(MANY, Work::Reserve { engine: ENGINE });
        let one = Load { warm_up: WARM_UP / 2, duration: closed.duration / 5, ..closed };
        let two = Load { targets: vec![self.service.addr, second.addr], ..one.clone() };
        let (one, two) = (("reserves, one instance", &one), ("reserves, two instances", &two));
        // One, two, two, one: what drifts meets both alike. Short and often: what PostgreSQL and the service do once in a while, for
        // a second, spoils one turn, and the median does not see it.
        let rates: Vec<f64> =
            self.measure_in_turn(&[one, two, two, one].repeat(TURNS)).await?.iter().map(|one| one.per_second).collect();
        let mut found: Vec<_> = rates
            .chunks_exact(4)
            .map(|turn| {
                let (alone, both) = (turn[0] + turn[3], turn[1] + turn[2]);
                (both / alone, both / 2.0)
            })
            .collect();
        found.sort_by(|one, other| one.0.total_cmp(&other.0));
        println!(
            "    two instances ÷ one: {}",
            found.iter().map(|(ratio, _)| format!("{ratio:.2}")).collect::<Vec<_>>().join(" ")
        );
        let (ratio, rate) = found[TURNS / 2];
        self.sample(Sample { absolute: Some(rate), ..Sample::value(Figure::TwoInstances, ratio) });
        Ok(())
    }

    async fn bytes(&mut self) -> Result<()> {
        self.db.execute("CHECKPOINT").await?;
        let (wal, disk) = (self.number(WAL).await?, self.number(DISK).await?);
        let load = self.closed(MANY, Work::Lifecycle { engine: ENGINE });
        let measured = self.measure("lifecycles, for their size", &load).await?;
        let wal = self.number(WAL).await? - wal;
        self.db.execute("CHECKPOINT").await?;
        let disk = self.number(DISK).await? - disk;
        let lifecycles = real(measured.all.settled.max(1));
        self.sample(Sample::value(Figure::Disk, disk / lifecycles));
        self.sample(Sample::value(Figure::Wal, wal / lifecycles));
        Ok(())
    }

    async fn number(&mut self, sql: &'static str) -> Result<f64> {
        Ok(sqlx::query(sql).fetch_one(&mut self.db).await?.get(0))
    }

    async fn keys(&mut self) -> Result<()> {
        let probe = http::post(answers::RESERVE, "Idempotency-Key: bench-probe\r\n", &answers::reserve_of_one(ENGINE));
        let id =
            |body: &str| serde_json::from_str::<serde_json::Value>(body).map(|answer| answer["reservation_id"].clone());
        let (_, first) = self.service.call(&probe).await?;
        let (_, again) = self.service.call(&probe).await?;
        if id(&first)? != id(&again)? {
            return Err(format!("THE BOOKS ARE WRONG: one key had two effects:\n{first}\n{again}").into());
        }
        let load = self.closed(MANY, Work::Keyed { engine: ENGINE });
        let measured = self.measure("reserves with keys", &load).await?;
        self.sample(Sample::absolute(Figure::Keys, measured.per_second));
        Ok(())
    }

    async fn overload(&mut self) -> Result<()> {
        let load = self.closed(MANY, Work::Reserve { engine: ENGINE });
        let peak = self.measure("reserves, before the overload", &load).await?.per_second;
        let load = Load { connections: MANY * 10, ..load };
        let goodput = self.measure("reserves, overload", &load).await?.per_second;
        self.sample(Sample { absolute: Some(goodput), ..Sample::value(Figure::Overload, goodput / peak) });
        Ok(())
    }

    async fn denials(&mut self) -> Result<()> {
        let load = self.closed(MANY, Work::Reserve { engine: CAPPED });
        let measured = self.measure("reserves against a cap", &load).await?;
        books::under_cap(&mut self.db, CAPPED, CAP, measured.all.allowed).await?;
        let denied = real(measured.measured.denied) / self.options.duration().as_secs_f64();
        self.sample(Sample::value(Figure::Denials, denied));
        Ok(())
    }
}

/// The position of PostgreSQL's log, in bytes.
const WAL: &str = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::float8";
/// The size of the database with its indexes, in bytes.
const DISK: &str = "SELECT pg_database_size(current_database())::float8";
