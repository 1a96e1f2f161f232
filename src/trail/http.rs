//! The routes of the audit trail.

mod as_of;
mod events;

use crate::audit::checkpoint::Notary;
use crate::audit::verify::{self, Asked};
use crate::audit::{Stream, complete};
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

/// The routes below the base path.
pub fn router() -> OpenApiRouter<Trail> {
    OpenApiRouter::new()
        .routes(routes!(verify_audit))
        .routes(routes!(audit_checkpoint))
        .merge(events::router())
        .merge(as_of::router())
}

/// What is to be verified.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct VerifyQuery {
    /// Only this stream; all when left out.
    stream: Option<Stream>,
    /// Begin with this event of the stream; the one before it is taken for right.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_u64)]
    from: Option<Count>,
    /// End with this event of the stream.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_u64)]
    to: Option<Count>,
    /// Begin behind the last checkpoint that this instance has signed, which is taken for right; at the beginning where there is none.
    incremental: Option<Flag>,
}

/// What a verification found of one stream.
#[derive(Debug, Serialize, ToSchema)]
struct StreamVerified {
    /// The stream.
    stream: Stream,
    /// How many events were looked at.
    events: i64,
    /// The last event that was right.
    seq: i64,
    /// Its hash, lower-case hex.
    hash: String,
}

/// What a verification found.
#[derive(Debug, Serialize, ToSchema)]
struct AuditVerified {
    /// Whether every event is what was appended, and nothing is missing.
    ok: bool,
    /// Each stream that was looked at.
    streams: Vec<StreamVerified>,
    /// The first thing that is wrong with each damaged stream.
    findings: Vec<Finding>,
    /// What of the book is not there, each with the next step: guards that are not armed, policies, partitions.
    missing: Vec<String>,
}

/// Recomputes the hash of every event, compares it with the last checkpoint that this instance has signed, and says where a stream was
/// tampered with first, and how. Takes up to 2 minutes, one at a time.
#[utoipa::path(
    get, path = "/audit/verify", tag = "audit", params(VerifyQuery),
    responses((status = 200, description = "`ok` says whether the trail is whole", body = AuditVerified), errors::ReadOne)
)]
async fn verify_audit(
    State(trail): State<Trail>,
    caller: Caller,
    Query(query): Query<VerifyQuery>,
) -> Result<Json<AuditVerified>> {
    if query.stream.is_none() && (query.from.is_some() || query.to.is_some()) {
        return Err(Error::invalid("stream", "is missing: from and to are of one stream"));
    }
    let streams = query.stream.map_or_else(|| Stream::ALL.to_vec(), |stream| vec![stream]);
    // One at a time: each reads the whole trail.
    let _turn = trail.verifying.take(caller.principal).await?;
    let mut conn = trail.db().connect_long_snapshot().await?;
    let signed = trail.notary().and_then(Notary::last);
    let incremental = query.incremental.is_some_and(|flag| flag.0);
    let missing = complete::missing(&mut conn).await?;
    let mut answer = AuditVerified { ok: missing.is_empty(), streams: Vec::new(), findings: Vec::new(), missing };
    for stream in streams {
        let known = signed.as_ref().and_then(|signed| signed.heads.get(&stream)).copied();
        let part = (query.from.map(Count::get), query.to.map(Count::get));
        let begin = verify::begin(&mut conn, stream, part).await?;
        let from = begin.or(known.filter(|_| incremental)).unwrap_or(Point::BEGINNING);
        // Of a part, only what it holds can be compared.
        let known = known.filter(|known| query.to.is_none() && known.seq > from.seq);
        let asked = Asked { from, to: query.to.map(Count::get), known };
        let verified = verify::verify(&mut conn, stream, asked).await?;
        answer.ok &= verified.finding.is_none();
        answer.findings.extend(verified.finding);
        let end = verified.end;
        answer.streams.push(StreamVerified { stream, events: verified.events, seq: end.seq, hash: hex(&end.hash) });
    }
    Ok(Json(answer))
}

/// Where every stream stands, signed: a C2SP note, to be kept where whoever owns the database does not come. Events since the last
/// one are verified first, which takes up to 2 minutes.
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
    // One at a time, as every verification.
    let _turn = trail.verifying.take(caller.principal).await?;
    let db = trail.db();
    let mut conn = db.connect_long_snapshot().await?;
    let (_, note) = notary.sign(&mut conn, db.history()).await?;
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], note))
}
