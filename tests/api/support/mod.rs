//! The harness: one private cluster a test process, a migrated template cloned for each test, the real router, and a clock
//! that stands still. When a test ends, the books it leaves behind must balance.

mod answer;
mod chain;
mod cluster;
mod ledger;
mod proxy;

pub use answer::{Answer, all, as_first};
pub use chain::broken_links;
pub use ledger::{level, reservation, snapshot};
pub use proxy::Proxy;

use axum::body::Body;
use axum::http::{HeaderName, Method, Request};
use holdfast::access::guard::Exposure;
use holdfast::access::open::Hosts;
use holdfast::app::App;
use holdfast::approval::Policy;
use holdfast::audit::checkpoint::Notary;
use holdfast::clock::Clock;
use holdfast::config::{EnforcementConfig, LimitsConfig, ScopeName};
use holdfast::db::Database;
use holdfast::enforcement::Rules;
use holdfast::types::Flag;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tower::ServiceExt;

/// The prefix of every governance route.
pub const BASE: &str = "/api/governance";

/// A service on a database of its own.
pub struct Service {
    pub app: App,
    pub router: holdfast::app::Service,
    pub db: Database,
    /// For looking behind the service, and for moving its time.
    pub pool: PgPool,
    /// The clock that measures the gate's lease.
    pub clock: Clock,
    pub options: PgConnectOptions,
}

/// How a service is set up; the default is what a fresh install is.
pub struct Setup {
    pub env: Option<&'static str>,
    pub enforce: bool,
    pub scope: ScopeName,
    pub required_packs: Vec<&'static str>,
    pub rules: Rules,
    pub kill_file: Option<PathBuf>,
    pub name: &'static str,
    pub exposure: Exposure,
    pub hosts: Hosts,
    pub notary: Option<Notary>,
    pub two_person: Policy,
    pub limits: LimitsConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            env: None,
            enforce: true,
            scope: ScopeName::All,
            required_packs: Vec::new(),
            rules: Rules::default(),
            kill_file: None,
            name: "test",
            exposure: Exposure::Loopback,
            hosts: Hosts::default(),
            notary: None,
            two_person: Policy::OfDatabase,
            limits: LimitsConfig::default(),
        }
    }
}

impl Service {
    /// A fresh install.
    pub async fn fresh() -> Self {
        Self::with(Setup::default()).await
    }

    /// A fresh install with go-live enabled.
    pub async fn live() -> Self {
        let service = Self::fresh().await;
        service.post("/go-live/enable", &serde_json::json!({"actor": "test"})).await.ok();
        service
    }

    /// A fresh install set up in a special way.
    pub async fn with(setup: Setup) -> Self {
        Self::on(cluster::clone_template().await, setup).await
    }

    /// A service on a database that exists: a restart, or a second instance.
    pub async fn on(options: PgConnectOptions, setup: Setup) -> Self {
        let db = Database::open(options.clone()).await.expect("the test's database opens");
        db.migrate().await.expect("the template is migrated");
        let enforcement = EnforcementConfig {
            env: setup.env.map(str::to_owned),
            app_env: None,
            go_live_enforce: Flag(setup.enforce),
            enforcement_scope: setup.scope,
            ..EnforcementConfig::default()
        };
        let clock = Clock::manual(1_000_000);
        let app = App::new(
            &db,
            clock.clone(),
            holdfast::app::Setup {
                enforcement,
                rules: setup.rules,
                kill_file: setup.kill_file,
                required_packs: setup.required_packs.iter().map(|id| id.parse().unwrap()).collect(),
                name: setup.name.to_owned(),
                exposure: setup.exposure,
                hosts: setup.hosts,
                notary: setup.notary,
                two_person: setup.two_person,
                limits: setup.limits,
            },
        );
        app.feed.refresh(&db).await.expect("the state can be read");
        app.risk.choose_form().await;
        let pool = PgPool::connect_lazy_with(options.clone());
        Self { router: app.router(), app, db, pool, clock, options }
    }

    /// An instance that has read nothing yet, on a database that exists.
    pub async fn blind(options: PgConnectOptions) -> Self {
        let mut service = Self::on(options, Setup::default()).await;
        let setup = holdfast::app::Setup { name: "blind".to_owned(), ..Default::default() };
        service.app = App::new(&service.db, service.clock.clone(), setup);
        service.router = service.app.router();
        service
    }

    /// Sends a request as it is.
    #[track_caller]
    pub fn send(&self, request: Request<Body>) -> impl Future<Output = Answer> + use<> {
        let caller = std::panic::Location::caller();
        let router = self.router.clone();
        async move {
            let response = router.oneshot(request).await.expect("the router is infallible");
            Answer::read(response, caller).await
        }
    }

    /// `GET` below the base path.
    #[track_caller]
    pub fn get(&self, path: &str) -> impl Future<Output = Answer> + use<> {
        self.send(request(Method::GET, &format!("{BASE}{path}"), None, ""))
    }

    /// `GET` of an absolute path.
    #[track_caller]
    pub fn get_root(&self, path: &str) -> impl Future<Output = Answer> + use<> {
        self.send(request(Method::GET, path, None, ""))
    }

    /// `POST` of JSON below the base path.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> impl Future<Output = Answer> + use<> {
        self.post_text(path, "application/json", &body.to_string())
    }

    /// `POST` of any body below the base path.
    #[track_caller]
    pub fn post_text(&self, path: &str, content_type: &str, body: &str) -> impl Future<Output = Answer> + use<> {
        self.send(request(Method::POST, &format!("{BASE}{path}"), Some(content_type), body))
    }

    /// `POST` of any bytes, with any content type or none, below the base path.
    #[track_caller]
    pub fn post_bytes<B: Into<Body>>(
        &self,
        path: &str,
        content_type: Option<&str>,
        body: B,
    ) -> impl Future<Output = Answer> + use<B> {
        let mut request = request(Method::POST, &format!("{BASE}{path}"), content_type, "");
        *request.body_mut() = body.into();
        self.send(request)
    }

    /// `POST` of a form below the base path.
    #[track_caller]
    pub fn post_form(&self, path: &str, body: &str) -> impl Future<Output = Answer> + use<> {
        self.post_text(path, "application/x-www-form-urlencoded", body)
    }

    /// `POST` with everything in the query.
    #[track_caller]
    pub fn post_query(&self, path: &str, query: &str) -> impl Future<Output = Answer> + use<> {
        self.send(request(Method::POST, &format!("{BASE}{path}?{query}"), None, ""))
    }

    /// `POST` of JSON with a header.
    #[track_caller]
    pub fn post_with(
        &self,
        path: &str,
        header: (&'static str, &str),
        body: &Value,
    ) -> impl Future<Output = Answer> + use<> {
        let mut request = request(Method::POST, &format!("{BASE}{path}"), Some("application/json"), &body.to_string());
        request.headers_mut().insert(HeaderName::from_static(header.0), header.1.parse().unwrap());
        self.send(request)
    }

    /// Reserves; the answer says whether it was allowed.
    #[track_caller]
    pub fn reserve(&self, engine: &str, amount: &str) -> impl Future<Output = Answer> + use<> {
        self.post_text(
            "/risk/check-and-reserve",
            "application/json",
            &format!(r#"{{"engine":"{engine}","amount":{amount},"actor":"test"}}"#),
        )
    }

    /// Records `count` measurements, of which every `every`-th (counted from 1) is a failure; 0 means none is.
    pub async fn kpis(&self, domain: &str, metric: &str, count: usize, every: usize) {
        for number in 1..=count {
            let success = every == 0 || number % every != 0;
            let body = serde_json::json!({"domain": domain, "metric": metric, "success": success, "actor": "seed"});
            self.post("/regression/kpi", &body).await.ok();
        }
    }

    /// Moves time: the database's, for good, and this service's own clock as far ahead, so that it is time that passes and not
    /// a clock that jumps. Back, only the database's moves: time does not run back.
    pub async fn set_skew(&self, interval: &str) {
        let ahead_ms: i64 = sqlx::query_scalar(
            "SELECT GREATEST(0, extract(epoch FROM $1::text::interval - skew) * 1000)::bigint FROM test_clock",
        )
        .bind(interval)
        .fetch_one(&self.pool)
        .await
        .unwrap();
        self.jump(interval).await;
        self.clock.advance(ahead_ms.unsigned_abs());
        self.app.feed.refresh(&self.db).await.expect("the state can be read");
    }

    /// Moves the database's time alone: its clock jumps.
    pub async fn jump(&self, interval: &str) {
        sqlx::query("UPDATE test_clock SET skew = $1::text::interval")
            .bind(interval)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// One number out of the database.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query(sql).fetch_one(&self.pool).await.unwrap().get(0)
    }

    /// A digest of every table, by name: what a refused request must leave as it was. Not of the instances' heartbeats, which
    /// are nobody's request.
    pub async fn everything(&self) -> BTreeMap<String, String> {
        let tables: Vec<String> =
            sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'instance' ORDER BY tablename")
                .fetch_all(&self.pool)
                .await
                .unwrap();
        let digests: Vec<String> = tables
            .iter()
            .map(|table| {
                format!("SELECT '{table}', md5(COALESCE(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t")
            })
            .collect();
        let rows = sqlx::query(AssertSqlSafe(digests.join(" UNION ALL "))).fetch_all(&self.pool).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Rows in all event streams together: what a refused request must leave as it was.
    pub async fn events(&self) -> i64 {
        self.count(
            "SELECT (SELECT count(*) FROM control_event) + (SELECT count(*) FROM risk_event)
                  + (SELECT count(*) FROM heimdall_event) + (SELECT count(*) FROM kpi_event)",
        )
        .await
    }
}

impl Drop for Service {
    /// The books balance after every test. The check is here, so that no test can forget it.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            cluster::check_books(self.options.clone());
        }
    }
}

/// A request.
pub fn request(method: Method, uri: &str, content_type: Option<&str>, body: &str) -> Request<Body> {
    let mut builder = Request::builder().method(method).uri(uri);
    if let Some(content_type) = content_type {
        builder = builder.header("content-type", content_type);
    }
    builder.body(Body::from(body.to_owned())).expect("the test's request is well-formed")
}
