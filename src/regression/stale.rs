//! Trips the wires with `on_stale` TRIP whose series have gone silent.

use super::trip::{self, Cause, Heads, Tripping};
use super::{Regression, load};
use crate::audit::{Origin, Stream};
use crate::db;
use crate::error::{Error, Result};
use crate::panics;
use crate::regression::model::{OnStale, Reading, RegressionPolicy, Verdict, Window};
use crate::regression::store::{self, Silent};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::time::Duration;

/// The interval of checks for silent series, and so the largest delay of a trip.
const TICK: Duration = Duration::from_secs(5);

/// The warning about a wire that will trip by a silence that began before its current settings.
pub(super) async fn warning(
    conn: &mut PgConnection,
    policy: &RegressionPolicy,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    if !policy.enabled || policy.on_stale != OnStale::Trip {
        return Ok(None);
    }
    let silent = store::silent(conn, now).await?;
    let ours = silent.into_iter().find(|wire| (&wire.domain, &wire.metric) == (&policy.domain, &policy.metric));
    Ok(ours.filter(|wire| !wire.is_latched).map(|wire| {
        let Silent { silent_seconds, stale_after_seconds, .. } = wire;
        format!(
            "the series has been silent for {silent_seconds} s and stale_after_seconds is {stale_after_seconds}: the wire trips within {} s \
             unless an event arrives",
            TICK.as_secs()
        )
    }))
}

impl Regression {
    /// Trips the wires whose series have been silent for too long, and returns their number. A wire that fails is
    /// logged and skipped.
    pub async fn trip_silent(&self) -> Result<usize> {
        let silent = {
            let mut conn = self.db.work().await?;
            let now = self.db.history().now(&mut conn).await?;
            store::silent(&mut conn, now).await?
        };
        let mut tripped = 0;
        for wire in silent.into_iter().filter(|wire| wire.on_stale == OnStale::Trip && !wire.is_latched) {
            // A wire that cannot be judged, or whose rows cause a panic, does not keep others from tripping.
            match panics::caught(self.trip_one(&wire)).await.unwrap_or(Err(Error::Panicked)) {
                Ok(has_tripped) => tripped += usize::from(has_tripped),
                Err(error) => {
                    let (domain, metric) = (wire.domain.as_str(), wire.metric.as_str());
                    tracing::error!(%error, domain, metric, "a silent wire cannot be tripped now: this is tried again");
                }
            }
        }
        Ok(tripped)
    }

    async fn trip_one(&self, found: &Silent) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let head = self.db.history().lock(&mut tx, Stream::Kpi).await?;
        let now = head.next();
        // Under the head the silence is checked again: an event may have arrived, or another instance may have been
        // first.
        let still = store::silent(&mut tx, head.now()).await?.into_iter().find(|wire| {
            (&wire.domain, &wire.metric) == (&found.domain, &found.metric)
                && wire.on_stale == OnStale::Trip
                && !wire.is_latched
        });
        let (Some(wire), Some(policy)) = (still, store::read_policy(&mut tx, &found.domain, &found.metric).await?)
        else {
            return Ok(false);
        };
        let state = store::read_state(&mut tx, &policy.domain, &policy.metric).await?;
        let (mut held, series) = load::wire(&mut tx, &policy, state).await?;
        let nothing = Window::default();
        let verdict = Verdict::InsufficientEvents { recent: 0, baseline: 0 };
        let reading = Reading { baseline: nothing, recent: nothing, drop: None, evidence: None, verdict };
        let cause = Cause::Stale { seconds: wire.silent_seconds };
        let tripping = Tripping { reading, end: series.end, kpi_seq: series.seq, cause, by_event: false };
        let origin = Origin::system(None);
        let mut heads = Heads::lock_to_trip(self.db.history(), &mut tx, trip::throttles(&policy)).await?;
        let (tripped, killed) = trip::act(&mut tx, &mut heads, &policy, &mut held.state, &tripping, &origin).await?;
        store::write_states(&mut tx, &[&held.state], now.at).await?;
        db::commit(tx).await?;
        trip::publish(&self.feed, &self.db, &tripped, killed.as_ref());
        Ok(true)
    }

    /// Checks for silent series until the task is ended.
    pub async fn tick(self) {
        let mut turns = tokio::time::interval(TICK);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            if let Err(error) = self.trip_silent().await {
                tracing::debug!(%error, "the check for silent series failed");
            }
        }
    }
}
