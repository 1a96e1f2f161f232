//! The routes of the audit trail.

mod as_of;
mod events;

use crate::audit::checkpoint::Notary;
use crate::audit::verify::{self, Asked};
use crate::audit::{Stream, complete};
use crate::db::archived;
use crate::error::{Error, Result};
use crate::http::{Caller, Nothing, Query, errors};
use crate::trail::Trail;
use crate::types::{Count, Finding, Flag, Point, hex};
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes, relative to the base path.
pub fn router() -> OpenApiRouter<Trail> {
    OpenApiRouter::new()
        .routes(routes!(verify_audit))
        .routes(routes!(audit_checkpoint))
        .merge(events::router())
        .merge(as_of::router())
}

/// The part of the trail to verify.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    /// Only this stream; all streams if left out.
    stream: Option<Stream>,
    /// The first event of the stream to verify; the event before it is trusted.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_u64)]
    from: Option<Count>,
    /// The last event of the stream to verify.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_u64)]
    to: Option<Count>,
    /// Verifies only the events after this instance's last checkpoint, which is trusted; all events if there is none.
    incremental: Option<Flag>,
}

/// The result of the verification of one stream.
#[derive(Debug, Serialize, ToSchema)]
struct StreamVerified {
    /// The verified stream.
    stream: Stream,
    /// The number of verified events.
    events: i64,
    /// The last intact event.
    seq: i64,
    /// The hash of that event, lower-case hex.
    hash: String,
}

/// The result of a verification.
#[derive(Debug, Serialize, ToSchema)]
struct AuditVerified {
    /// True if every event is as it was appended and none is missing.
    ok: bool,
    /// The verified streams.
    streams: Vec<StreamVerified>,
    /// The first damage of each damaged stream.
    findings: Vec<Finding>,
    /// The missing parts of the book, each with the next step: unarmed guards, policies, partitions.
    missing: Vec<String>,
}

/// Recomputes the hash of every event and compares it with this instance's last checkpoint. Reports the first damage of
/// each stream and its kind. Takes up to 2 minutes; one verification runs at a time.
#[utoipa::path(
    get, path = "/audit/verify", tag = "audit", params(VerifyQuery),
    responses((status = 200, description = "`ok` is true if the trail is intact", body = AuditVerified), errors::ReadOne)
)]
async fn verify_audit(
    State(trail): State<Trail>,
    caller: Caller,
    Query(query): Query<VerifyQuery>,
) -> Result<Json<AuditVerified>> {
    if query.stream.is_none() && (query.from.is_some() || query.to.is_some()) {
        return Err(Error::invalid("stream", "is required with from and to, which count the events of one stream"));
    }
    let streams = query.stream.map_or_else(|| Stream::ALL.to_vec(), |stream| vec![stream]);
    // One at a time: each reads the whole trail.
    let _turn = trail.verifying.take(caller.principal).await?;
    let mut conn = trail.db().connect_long_snapshot().await?;
    archived::hold(&mut conn).await?;
    let signed = trail.notary().and_then(Notary::last);
    let incremental = query.incremental.is_some_and(|flag| flag.0);
    let missing = complete::missing(&mut conn).await?;
    let mut answer = AuditVerified { ok: missing.is_empty(), streams: Vec::new(), findings: Vec::new(), missing };
    for stream in streams {
        let known = signed.as_ref().and_then(|signed| signed.heads.get(&stream)).copied();
        let part = (query.from.map(Count::get), query.to.map(Count::get));
        let begin = verify::begin(&mut conn, stream, part).await?;
        let from = begin.or(known.filter(|_| incremental)).unwrap_or(Point::BEGINNING);
        // A part can only be compared with the events that it has.
        let known = known.filter(|known| query.to.is_none() && known.seq > from.seq);
        let asked = Asked { from, to: query.to.map(Count::get), known };
        let verified = verify::verify_kept(&mut conn, &mut Vec::new(), stream, asked).await?;
        answer.ok &= verified.finding.is_none();
        answer.findings.extend(verified.finding);
        let end = verified.end;
        answer.streams.push(StreamVerified { stream, events: verified.events, seq: end.seq, hash: hex(&end.hash) });
    }
    Ok(Json(answer))
}

/// Signs the last event of every stream: a C2SP note, to be kept where the database's owner has no access. It first
/// verifies the events since the last checkpoint, which takes up to 2 minutes.
#[utoipa::path(
    get, path = "/audit/checkpoint", tag = "audit",
    responses(
        (status = 200, description = "The note", body = String, content_type = "text/plain"),
        errors::ReadOfTrail
    )
)]
async fn audit_checkpoint(State(trail): State<Trail>, caller: Caller, _: Query<Nothing>) -> Result<impl IntoResponse> {
    let no_key = || Error::NotFound { what: "key to sign with", id: "(CHECKPOINT_KEY)".into() };
    let notary = trail.notary().ok_or_else(no_key)?;
    // One at a time, like every verification.
    let _turn = trail.verifying.take(caller.principal).await?;
    let db = trail.db();
    let mut conn = db.connect_long_snapshot().await?;
    archived::hold(&mut conn).await?;
    let (_, note) = notary.sign(&mut conn, db.history()).await?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], note))
}
