//! The HTTP route of the backtest of a wire before it is enabled.

use crate::error::{Error, Result};
use crate::http::{Caller, Input, errors};
use crate::regression::Regression;
use crate::regression::advice::Profile;
use crate::regression::backtest::{ChanceTrips, Recommended, Replay, ReplayedTrip, SHUFFLED_MAX, by_chance, recommend};
use crate::regression::model::{
    Action, Detector, Direction, Effect, Measurement, PolicyUpsert, RegressionPolicy, series_name, upsert,
};
use crate::regression::store::{self, Pair};
use crate::types::{Amount, Count, Domain, Fraction, Metric, Time, TimeRange};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The number of events in one page of a history.
const PAGE: i64 = 50_000;
/// The most events that one backtest replays.
const EVENTS_MAX: i64 = 10_000_000;
/// The default number of shuffles.
const SHUFFLES: u32 = 100;
/// The most shuffles of one request.
const SHUFFLES_MAX: i64 = 1_000;
/// The seed of the shuffles, so that the same request has the same answer.
const SEED: u64 = 1;

pub(super) fn router() -> OpenApiRouter<Regression> {
    OpenApiRouter::new().routes(routes!(backtest_wire))
}

/// A draft of a wire, and the history to replay. Fields that are left out have the wire's current value, or that of a
/// new wire.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BacktestInput {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// The number of events in the recent window, 1 to 10,000.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    window_events: Option<Count>,
    /// The number of events in the baseline, 1 to 10,000.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    baseline_events: Option<Count>,
    /// The least number of events in either window before the wire can trip.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    min_events_to_enforce: Option<Count>,
    /// The drop that trips, as a fraction of the baseline.
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1)]
    max_drop_fraction: Option<Fraction>,
    /// The effect of a trip; it decides the defaults of `false_trip_arl` and `tolerance_fraction`.
    action: Option<Action>,
    /// PLAIN or SEQUENTIAL.
    detector: Option<Detector>,
    /// `HIGHER_IS_BETTER` or `LOWER_IS_BETTER`.
    direction: Option<Direction>,
    /// RELATIVE or ABSOLUTE.
    effect: Option<Effect>,
    /// ABSOLUTE: the drop that trips, in the metric's own units.
    max_drop_value: Option<Amount>,
    /// SEQUENTIAL: the least mean number of events to a false trip, from 100; 0 for the default of the action.
    false_trip_arl: Option<Count>,
    /// SEQUENTIAL: the drop below the baseline, as a fraction below 1, that counts as no evidence.
    #[schema(value_type = Option<f64>, minimum = 0, exclusive_maximum = 1)]
    tolerance_fraction: Option<Fraction>,
    /// Only events recorded at or after this time.
    from: Option<Time>,
    /// Only events recorded before this time.
    to: Option<Time>,
    /// The number of shuffles for the estimate of false trips, 0 to 1000; 100 when left out.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 1_000)]
    shuffles: Option<Count>,
}

/// The result of the replay.
#[derive(Debug, Serialize, ToSchema)]
struct BacktestAnswer {
    /// Always true; a failure is an error instead.
    ok: bool,
    /// The draft as it was replayed.
    policy: RegressionPolicy,
    /// The number of replayed events.
    events: i64,
    /// The number of trips, with the wire re-armed right after each.
    trips_count: u64,
    /// The first 1000 of the trips.
    trips: Vec<ReplayedTrip>,
    /// The profile of the last events of the history; null if there are none.
    profile: Option<Profile>,
    /// The smallest relative drop that PLAIN's windows can tell from chance; null if the effect is ABSOLUTE or nothing
    /// is known.
    min_resolvable_drop: Option<f64>,
    /// The trips of the draft by chance, on the last events, shuffled; null without shuffles or events.
    chance: Option<ChanceTrips>,
    /// The same for SEQUENTIAL, if the draft is PLAIN.
    chance_sequential: Option<ChanceTrips>,
    /// A setting that the history supports; null if it supports none.
    recommended: Option<Recommended>,
}

/// Replays the history of a series through a draft of its wire, with the code that decides live.
///
/// It writes nothing, takes up to 2 minutes, and runs one at a time.
#[utoipa::path(
    post, path = "/regression/backtest", tag = "regression", request_body = BacktestInput,
    responses((status = 200, description = "The trips that the wire would have made", body = BacktestAnswer), errors::ChangeOfOne)
)]
async fn backtest_wire(
    State(regression): State<Regression>,
    caller: Caller,
    Input(input): Input<BacktestInput>,
) -> Result<Json<BacktestAnswer>> {
    let shuffles = match input.shuffles.map_or(i64::from(SHUFFLES), Count::get) {
        shuffles @ 0..=SHUFFLES_MAX => u32::try_from(shuffles).unwrap_or(SHUFFLES),
        other => {
            let detail = format!("is {other}: send a whole number from 0 to {SHUFFLES_MAX}");
            return Err(Error::invalid("shuffles", detail));
        }
    };
    let TimeRange { from, to } = TimeRange::new(input.from, input.to)?;
    // Backtests run one at a time, since each reads a whole history.
    let turn = regression.replaying.take(caller.principal).await?;
    let mut tx = regression.db().begin_long_snapshot().await?;
    let existing = store::read_policy(&mut tx, &input.domain, &input.metric).await?;
    let request = read(input);
    let now = crate::db::now(&mut tx).await?;
    let (policy, _) = upsert(existing.as_ref(), &request, None, None, now)?;
    let pair: Pair = (policy.domain.clone(), policy.metric.clone());
    // Events of another kind belong to another series.
    let since = store::read_end(&mut tx, &pair.0, &pair.1).await?.map_or(0, |end| end.since);
    let (mut replay, mut after, mut last): (Option<Replay>, i64, Vec<Measurement>) = (None, since, Vec::new());
    loop {
        let page = store::read_history(&mut tx, &pair, after, (from, to), PAGE).await?;
        let Some((first, _, measurement)) = page.first() else {
            break;
        };
        let boolean = matches!(measurement, Measurement::Success(_));
        let mut going = replay.take().unwrap_or_else(|| Replay::new(&policy, boolean, first - 1));
        after = page.last().map_or(after, |(place, ..)| *place);
        last.extend(page.iter().map(|(.., measurement)| *measurement));
        last.drain(..last.len().saturating_sub(SHUFFLED_MAX));
        // A page takes a few milliseconds of arithmetic, so it runs outside the tasks that answer reserves.
        let met = tokio::task::spawn_blocking(move || {
            let met = page.iter().try_for_each(|(_, at, measurement)| going.meet(*measurement, || *at));
            met.map(|()| going)
        });
        let met = met.await.map_err(|error| Error::Inconsistent(error.to_string()))?;
        let going = met.map_err(|sum| Error::Inconsistent(format!("a replay lacks the sum of {} events", sum.0)))?;
        let is_enough = going.events() >= EVENTS_MAX;
        replay = Some(going);
        if is_enough {
            break;
        }
    }
    // A misspelt name would otherwise be a wire that never trips.
    let is_known = replay.is_some()
        || existing.is_some()
        || !store::read_history(&mut tx, &pair, 0, (None, None), 1).await?.is_empty();
    if !is_known {
        return Err(Error::NotFound { what: "series", id: series_name(&pair.0, &pair.1) });
    }
    drop(tx);
    // When the caller stops waiting, the computation and the turn end.
    let waiting = Arc::new(());
    let waited_for = Arc::downgrade(&waiting);
    let computing = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        report(policy, replay, &last, shuffles, || waited_for.strong_count() > 0)
    });
    let answer = computing.await;
    drop(waiting);
    Ok(Json(answer.map_err(|error| Error::Inconsistent(error.to_string()))?))
}

fn read(input: BacktestInput) -> PolicyUpsert {
    PolicyUpsert {
        domain: input.domain,
        metric: input.metric,
        window_events: input.window_events,
        baseline_events: input.baseline_events,
        min_events_to_enforce: input.min_events_to_enforce,
        max_drop_fraction: input.max_drop_fraction,
        action: input.action,
        engine: None,
        detector: input.detector,
        direction: input.direction,
        effect: input.effect,
        max_drop_value: input.max_drop_value,
        mode: None,
        on_stale: None,
        stale_after_seconds: None,
        false_trip_arl: input.false_trip_arl,
        tolerance_fraction: input.tolerance_fraction,
        enabled: Some(true),
    }
}

fn report(
    policy: RegressionPolicy,
    replay: Option<Replay>,
    last: &[Measurement],
    shuffles: u32,
    is_wanted: impl Fn() -> bool,
) -> BacktestAnswer {
    let events = replay.as_ref().map_or(0, Replay::events);
    let (trips_count, trips) = replay.map(Replay::trips).unwrap_or_default();
    let profile = Profile::of(last, policy.direction);
    let chance_of = |policy: &RegressionPolicy| {
        if shuffles == 0 { None } else { by_chance(policy, last, shuffles, SEED, &is_wanted) }
    };
    let chance = chance_of(&policy);
    let sequential = RegressionPolicy { detector: Detector::Sequential, ..policy.clone() };
    let chance_sequential = if policy.detector == Detector::Plain { chance_of(&sequential) } else { None };
    let recommended =
        profile.zip(chance).map(|(profile, chance)| recommend(&policy, &profile, chance, chance_sequential));
    let min_resolvable_drop = profile.and_then(|profile| profile.min_resolvable_drop(&policy));
    BacktestAnswer {
        ok: true,
        policy,
        events,
        trips_count,
        trips,
        profile,
        min_resolvable_drop,
        chance,
        chance_sequential,
        recommended,
    }
}
