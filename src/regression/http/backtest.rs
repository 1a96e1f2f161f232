//! The backtest of a wire before it is enabled.

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

/// Events of one page of a history.
const PAGE: i64 = 50_000;
/// Events that one backtest replays at most.
const EVENTS_MAX: i64 = 10_000_000;
/// Shuffles where nothing else is said.
const SHUFFLES: u32 = 100;
/// Shuffles that may be asked for.
const SHUFFLES_MAX: i64 = 1_000;
/// Where the shuffles begin, so that the same question has the same answer.
const SEED: u64 = 1;

pub(super) fn router() -> OpenApiRouter<Regression> {
    OpenApiRouter::new().routes(routes!(backtest_wire))
}

/// A draft of a wire, and the history to replay. Fields left out are as the wire has them now, or as a new one starts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BacktestInput {
    /// The domain.
    domain: Domain,
    /// The metric.
    metric: Metric,
    /// Events in the recent window, 1 to 10,000.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    window_events: Option<Count>,
    /// Events in the baseline, 1 to 10,000.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10_000)]
    baseline_events: Option<Count>,
    /// Least events in either before the wire can trip.
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
    /// SEQUENTIAL: events to a false trip on average, at least, from 100; 0 means the default of the action.
    false_trip_arl: Option<Count>,
    /// SEQUENTIAL: how much worse than its baseline, as a fraction below 1, a series may be without evidence against it.
    #[schema(value_type = Option<f64>, minimum = 0, exclusive_maximum = 1)]
    tolerance_fraction: Option<Fraction>,
    /// Only events recorded at or after this time.
    from: Option<Time>,
    /// Only events recorded before this time.
    to: Option<Time>,
    /// Shuffles for the estimate of false trips, 0 to 1000; 100 when left out.
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
    /// Events that were replayed.
    events: i64,
    /// How often the wire would have tripped, re-armed right after each trip.
    trips_count: u64,
    /// The first 1000 of the trips.
    trips: Vec<ReplayedTrip>,
    /// The last events of the history; null of none.
    profile: Option<Profile>,
    /// The smallest relative drop that PLAIN's windows tell from chance; null where the effect is ABSOLUTE or nothing is known.
    min_resolvable_drop: Option<f64>,
    /// How often the draft trips by chance: the last events, shuffled; null without shuffles or events.
    chance: Option<ChanceTrips>,
    /// The same of SEQUENTIAL, where the draft is PLAIN.
    chance_sequential: Option<ChanceTrips>,
    /// A setting that the history speaks for.
    recommended: Option<Recommended>,
}

/// Replays the history of a series through a draft of its wire, with the code that decides live, and writes nothing. Takes up to 2
/// minutes, one at a time.
#[utoipa::path(
    post, path = "/regression/backtest", tag = "regression", request_body = BacktestInput,
    responses((status = 200, description = "What the wire would have done", body = BacktestAnswer), errors::ChangeOfOne)
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
    // One at a time: each reads a whole history.
    let turn = regression.replaying.take(caller.principal).await?;
    let mut tx = regression.db().begin_long_snapshot().await?;
    let existing = store::read_policy(&mut tx, &input.domain, &input.metric).await?;
    let request = read(input);
    let now = crate::db::now(&mut tx).await?;
    let (policy, _) = upsert(existing.as_ref(), &request, None, None, now)?;
    let pair: Pair = (policy.domain.clone(), policy.metric.clone());
    // Events of another kind are another series.
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
        // A page is a few milliseconds of arithmetic: not among the tasks that answer reserves.
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
    // A slip in a name would be a wire that never trips.
    let is_known = replay.is_some()
        || existing.is_some()
        || !store::read_history(&mut tx, &pair, 0, (None, None), 1).await?.is_empty();
    if !is_known {
        return Err(Error::NotFound { what: "series", id: series_name(&pair.0, &pair.1) });
    }
    drop(tx);
    // The computation ends when nobody waits for it, and the turn with it.
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
