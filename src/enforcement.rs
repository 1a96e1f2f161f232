//! The enforcement layer: no request that the go-live state forbids reaches a handler.
//!
//! - [`path`]: parses a path into its one spelling, or refuses it.
//! - [`RouteClass`] and [`rules`]: the class of a request. [`routes`]: the one table of Holdfast's own routes.
//! - [`gate`]: the tower layer around the finished router, and the decision.
//! - [`feed`]: the state that the gate uses, and its age. [`kill_file`]: the switch that needs no database.
//! - [`instance`]: the instances on this database.
//! - [`authz`] and [`ofrep`]: the same decision for services in any language.
//!
//! Invariant: an unknown state admits nothing. A state older than the lease blocks every request that is not exempt.
//!
//! # In a service of your own
//!
//! Any service on tower can mount the gate itself, here one on axum. The gate reads its state from a [`Source`].
//! [`feed::Feed`] is the source that reads Holdfast's database; the one below first knows nothing and then says that
//! production is live:
//!
//! ```
//! use axum::{Router, body::Body, http::Request, routing::get};
//! use holdfast::enforcement::{Enforcement, EnforcementScope, GateLayer, Rules, Source, View};
//! use std::sync::Arc;
//! use tokio::sync::watch;
//! use tower::{Layer, ServiceExt};
//!
//! #[derive(Clone)]
//! struct Known(watch::Receiver<View>);
//!
//! impl Source for Known {
//!     fn view(&self) -> View {
//!         *self.0.borrow()
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (say, known) = watch::channel(View::Stale);
//! // The finished router goes in, so that no route is outside: neither those merged later nor the fallback.
//! let router = Router::new().route("/api/deals", get(|| async { "sold" }));
//! let gate = GateLayer::new(Known(known), Enforcement::On(EnforcementScope::All), Arc::new(Rules::default()));
//! let service = gate.layer(router);
//!
//! let sell = || Request::get("/api/deals").body(Body::empty());
//! let refused = service.clone().oneshot(sell()?).await?;
//! assert_eq!(refused.status(), 503); // STATE_STALE, as application/problem+json
//!
//! say.send(View::Fresh { version: 2, go_live_enabled: true, kill_switch_engaged: false })?;
//! assert_eq!(service.oneshot(sell()?).await?.status(), 200);
//! # Ok(())
//! # }
//! ```
//!
//! With the real feed, on the database that `DATABASE_URL` names:
//!
//! ```no_run
//! # use axum::{Router, ServiceExt, extract::Request, routing::get};
//! # use std::sync::Arc;
//! # use tower::Layer;
//! use holdfast::clock::Clock;
//! use holdfast::db::Database;
//! use holdfast::enforcement::feed::Feed;
//! use holdfast::enforcement::instance::{Configuration, Instance, LEASE_MAX};
//! use holdfast::enforcement::{Enforcement, EnforcementScope, GateLayer, Rules};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let db = Database::open("postgres://holdfast@localhost/holdfast".parse()?).await?;
//! // This is the text that GET /api/governance/instances shows of this service.
//! let configuration = Configuration {
//!     enforcement: "all",
//!     execution_classes: None,
//!     state_lease_ms: 2_000,
//!     required_packs: Vec::new(),
//! };
//! let instance = Instance::new("deals", &configuration);
//! let feed = Feed::new(Clock::system(), LEASE_MAX, instance, None, db.history().clone());
//! tokio::spawn(feed.clone().run(db.clone()));
//! tokio::spawn(feed.clone().listen(db));
//!
//! let router = Router::new().route("/api/deals", get(|| async { "sold" }));
//! let gate = GateLayer::new(feed, Enforcement::On(EnforcementScope::All), Arc::new(Rules::default()));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8001").await?;
//! axum::serve(listener, ServiceExt::<Request>::into_make_service(gate.layer(router))).await?;
//! # Ok(())
//! # }
//! ```

pub mod authz;
pub mod feed;
pub mod gate;
pub mod http;
pub mod instance;
pub mod kill_file;
pub mod near;
pub mod ofrep;
pub mod outside;
pub mod path;
pub mod routes;
pub mod rules;

pub use crate::types::{Block, ExecutionClass, RouteClass};
pub use gate::{Enforcement, EnforcementScope, GateLayer, Source, View};
pub use rules::Rules;
