//! The HTTP routes of the go-live state.

use super::GoLive;
use super::Tightened;
use super::model::{Checklist, GoLiveState, Pack, PackReport, PackStatus, Switch};
use crate::approval::model::ApprovalRecord;
use crate::audit::{self, ControlRecord, Stream};
use crate::error::{Error, Result};
use crate::http::{Caller, Change, Lenient, Nothing, Page, Paging, Query, errors, marked, said};
use crate::idempotency::{Earlier, Once};
use crate::types::{Actor, IdempotencyKey, Label, PackId, PageSize, Place, Reason};
use axum::Json;
use axum::extract::State;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The prefixes of the control events about this lever.
const ACTIONS: [&str; 3] = ["GO_LIVE_", "KILL_SWITCH_", "PACK_"];

said!(EnableBy, ReleaseBy, PackInput);

/// The routes of this lever, relative to the base path.
pub fn router() -> OpenApiRouter<GoLive> {
    OpenApiRouter::new()
        .routes(routes!(go_live_state))
        .routes(routes!(go_live_checklist))
        .routes(routes!(enable_go_live))
        .routes(routes!(disable_go_live))
        .routes(routes!(engage_kill_switch))
        .routes(routes!(release_kill_switch))
        .routes(routes!(list_packs, report_pack))
        .routes(routes!(go_live_events))
}

type Tagged<T> = ([(HeaderName, String); 1], Json<T>);

/// An answer with its version as the `ETag`.
fn tagged<T>(version: i64, body: T) -> Tagged<T> {
    ([(ETAG, format!("\"{version}\""))], Json(body))
}

/// The version inside a kept answer.
#[derive(Deserialize)]
struct Version {
    version: i64,
}

/// An answer with the version of the state in it, now or at the first attempt.
fn tagged_once(answer: Once<GoLiveState>) -> Result<Response> {
    match answer {
        Once::Done(state) => Ok(tagged(state.version, state).into_response()),
        Once::Replayed(Earlier::Done(answer)) => {
            let unreadable = |error| Error::Inconsistent(format!("a kept state cannot be read: {error}"));
            let Version { version } = serde_json::from_str(answer.get()).map_err(unreadable)?;
            Ok(marked(true, tagged(version, answer)))
        }
        waiting @ Once::Replayed(Earlier::Waiting(_)) => Ok(waiting.into_response()),
    }
}

/// Returns the current go-live state.
#[utoipa::path(
    get, path = "/go-live/state", tag = "go-live",
    responses((status = 200, description = "The state; its version is the ETag", body = GoLiveState), errors::Read)
)]
async fn go_live_state(State(go_live): State<GoLive>, _: Query<Nothing>) -> Result<Tagged<GoLiveState>> {
    let state = go_live.state().await?;
    Ok(tagged(state.version, state))
}

/// Returns the checklist that an enable has to pass, judged now.
#[utoipa::path(
    get, path = "/go-live/checklist", tag = "go-live",
    responses((status = 200, description = "The checklist", body = Checklist), errors::Read)
)]
async fn go_live_checklist(State(go_live): State<GoLive>, _: Query<Nothing>) -> Result<Json<Checklist>> {
    Ok(Json(go_live.checklist().await?))
}

/// The actor and the reason of an enable.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EnableBy {
    /// The person or program that acts, as the caller claims.
    actor: Actor,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// The actor and the reason of a release.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReleaseBy {
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// The `If-Match` headers as one list, however many lines they came in.
fn if_match(headers: &HeaderMap) -> Option<String> {
    // A line that is not text matches no version.
    let lines: Vec<_> = headers.get_all(IF_MATCH).iter().map(|value| value.to_str().unwrap_or("")).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Switches production on, if the checklist passes.
#[utoipa::path(
    post, path = "/go-live/enable", tag = "go-live", request_body = EnableBy,
    params(("If-Match" = Option<String>, Header, description = "The version that the caller has seen; 412 if the current one differs")),
    responses(
        (status = 200, description = "The new state", body = GoLiveState),
        (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord),
        errors::Loosen
    )
)]
async fn enable_go_live(
    State(go_live): State<GoLive>,
    headers: HeaderMap,
    Change { input, asked }: Change<EnableBy>,
) -> Result<Response> {
    let if_match = if_match(&headers);
    go_live.loosen(Switch::Enable, if_match.as_deref(), input.reason.as_ref(), &asked).await?.answer(tagged_once)
}

/// The actor and the reason of a stop. Both are optional, and an unreadable one is ignored.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used: the fields are read one by one, leniently")]
struct StopBy {
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// Ignored: a stop always acts.
    idempotency_key: Option<String>,
}

/// The new state, the instant from which it holds, and the ignored parts of the request.
#[derive(Debug, Serialize, ToSchema)]
struct Stopped {
    #[serde(flatten)]
    state: GoLiveState,
    /// From this instant on, by the database's clock, no instance that enforces admits anything that the state forbids.
    guaranteed_by: DateTime<Utc>,
    /// Live instances that do not enforce (`GO_LIVE_ENFORCE=0`, or a development `ENV`): they admit everything in any
    /// state. Null if the list could not be read.
    not_enforcing: Option<Vec<String>>,
    /// Sentences about the ignored parts of the request and about instances that do not enforce.
    warnings: Vec<String>,
}

impl Stopped {
    fn answer(tightened: Tightened, mut warnings: Vec<String>) -> Tagged<Self> {
        let Tightened { state, guaranteed_by, not_enforcing } = tightened;
        if let Some(names) = not_enforcing.as_ref().filter(|names| !names.is_empty()) {
            warnings
                .push(format!("{} do not enforce and admit everything: stop them on their machines", names.join(", ")));
        }
        tagged(state.version, Self { state, guaranteed_by, not_enforcing, warnings })
    }
}

/// The actor, the reason, and sentences about the ignored parts of the request.
fn stop_by(mut input: Lenient) -> (Option<Actor>, Option<Reason>, Vec<String>) {
    let (actor, reason) = (input.take("actor"), input.take("reason"));
    input.ignore("idempotency_key");
    (actor, reason, input.finish(&["actor", "reason"]))
}

/// Switches production off.
///
/// It always works, whatever the body contains, and ignores an idempotency key.
#[utoipa::path(
    post, path = "/go-live/disable", tag = "go-live", request_body = StopBy,
    responses((status = 200, description = "The new state", body = Stopped), errors::Act)
)]
async fn disable_go_live(State(go_live): State<GoLive>, caller: Caller, input: Lenient) -> Result<Tagged<Stopped>> {
    let (actor, reason, mut warnings) = stop_by(input);
    if actor.is_none() {
        warnings.push("no actor is recorded: name one with actor=NAME".into());
    }
    let tightened = go_live.disable(reason.as_ref(), &caller.origin(actor, None)).await?;
    Ok(Stopped::answer(tightened, warnings))
}

/// Engages the kill switch.
///
/// It always works, whatever the body contains, and ignores an idempotency key.
#[utoipa::path(
    post, path = "/go-live/kill-switch/engage", tag = "go-live", request_body = StopBy,
    responses((status = 200, description = "The new state", body = Stopped), errors::Act)
)]
async fn engage_kill_switch(State(go_live): State<GoLive>, caller: Caller, input: Lenient) -> Result<Tagged<Stopped>> {
    let (actor, reason, warnings) = stop_by(input);
    let tightened = go_live.engage(reason.as_ref(), &caller.origin(actor, None)).await?;
    Ok(Stopped::answer(tightened, warnings))
}

/// Releases the kill switch.
#[utoipa::path(
    post, path = "/go-live/kill-switch/release", tag = "go-live", request_body = ReleaseBy,
    params(("If-Match" = Option<String>, Header, description = "The version that the caller has seen; 412 if the current one differs")),
    responses(
        (status = 200, description = "The new state", body = GoLiveState),
        (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord),
        errors::Loosen
    )
)]
async fn release_kill_switch(
    State(go_live): State<GoLive>,
    headers: HeaderMap,
    Change { input, asked }: Change<ReleaseBy>,
) -> Result<Response> {
    let if_match = if_match(&headers);
    go_live.loosen(Switch::Release, if_match.as_deref(), input.reason.as_ref(), &asked).await?.answer(tagged_once)
}

/// Lists every component that has reported itself.
#[utoipa::path(
    get, path = "/go-live/packs", tag = "go-live",
    responses((status = 200, description = "The components, ordered by id", body = Vec<Pack>), errors::Read)
)]
async fn list_packs(State(go_live): State<GoLive>, _: Query<Nothing>) -> Result<Json<Vec<Pack>>> {
    Ok(Json(go_live.packs().await?))
}

/// A component's report of itself.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PackInput {
    /// The component's id.
    id: PackId,
    /// Whether the component is in place.
    status: PackStatus,
    /// The component's name for people; kept when left out.
    name: Option<Label>,
    /// The component's version; kept when left out.
    version: Option<Label>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
    /// The caller's name for this change. The header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

/// Records a component's report of itself.
#[utoipa::path(
    post, path = "/go-live/packs", tag = "go-live", request_body = PackInput,
    responses((status = 200, description = "The component after the report", body = Pack), errors::Change)
)]
async fn report_pack(State(go_live): State<GoLive>, Change { input, asked }: Change<PackInput>) -> Result<Once<Pack>> {
    let report = PackReport { id: input.id, name: input.name, version: input.version, status: input.status };
    go_live.report_pack(&report, input.reason.as_ref(), &asked).await
}

/// The page to read.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// The largest number of items, 1 to 1000; 100 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The place where the last page ended; from the first item when left out.
    cursor: Option<Place>,
}

/// Lists every change of the switches and components and every refused attempt, newest first.
#[utoipa::path(
    get, path = "/go-live/events", tag = "go-live", params(PageQuery),
    responses((status = 200, description = "A page of events", body = Page<ControlRecord>), errors::Read)
)]
async fn go_live_events(
    State(go_live): State<GoLive>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<ControlRecord>>> {
    let paging = Paging::new("/go-live/events", query.limit, query.cursor)?;
    let mut conn = go_live.db().read().await?;
    let mut page = paging.begin_within(1, audit::head_seq(&mut conn, Stream::Control).await?);
    while let Some(portion) = page.wants() {
        page.take(audit::control_events(&mut conn, &ACTIONS, None, portion).await?, |row| row.seq);
    }
    Ok(Json(page.end()))
}
