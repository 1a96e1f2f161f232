//! The body and the headers of an error response.

use super::{Blocker, Error, FieldError, Row};
use crate::types::ReservationStatus;
use axum::http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

/// Seconds that a caller should wait after a 503 before it tries again.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The name of the member that repeats how the reservation was closed.
const fn closed_as(status: ReservationStatus) -> &'static str {
    match status {
        ReservationStatus::Released => "released",
        ReservationStatus::Expired => "expired",
        ReservationStatus::Settled | ReservationStatus::Open => "settled",
    }
}

fn same_detail<F: AsRef<str>>(fields: &[F], detail: &'static str) -> Vec<(&'static str, Box<RawValue>)> {
    let errors: Vec<_> = fields.iter().map(|field| FieldError::new(field.as_ref(), detail)).collect();
    vec![("errors", raw(&errors))]
}

impl Error {
    /// The members of the body beyond those that every problem has and those of the table.
    fn extensions(&self) -> Vec<(&'static str, Box<RawValue>)> {
        match self {
            Self::Contradictory(_, field) => vec![("errors", raw(&[field]))],
            Self::Invalid(fields) => vec![("errors", raw(fields))],
            Self::Blocked { block, exec_class, path, state_version } => {
                vec![
                    ("message", raw(block.message())),
                    ("exec_class", raw(exec_class.as_str())),
                    ("path", raw(crate::types::bounded(path))),
                    ("state_version", raw(state_version)),
                ]
            }
            Self::InsufficientScope { needed, .. } => vec![("scope", raw(needed))],
            Self::NotProdEligible { id, domain, gate_reason } => {
                vec![
                    ("id", raw(id)),
                    ("domain", raw(domain)),
                    ("prod_eligible", raw(&false)),
                    ("gate_reason", raw(gate_reason)),
                ]
            }
            Self::AlreadyClosed { reservation_id, status, closed_at, outcome } => {
                vec![
                    ("reservation_id", raw(reservation_id)),
                    ("closed_at", raw(closed_at)),
                    (closed_as(*status), outcome.clone()),
                ]
            }
            Self::AskedTooOften { limit, .. } => vec![("limit", raw(limit))],
            Self::LimitReached { limit, setting, .. } => vec![("limit", raw(limit)), ("setting", raw(setting))],
            Self::NeverExpires { reservation_id } => vec![("reservation_id", raw(reservation_id))],
            Self::ReservationExists { reservation_id, fields } => {
                vec![("reservation_id", raw(reservation_id)), ("fields", raw(fields))]
            }
            Self::ReservationDenied { members, .. } | Self::ExtensionDenied { members, .. } => members.clone(),
            Self::AdjustmentOutOfRange { engine, counter, .. } => {
                vec![("engine", raw(engine)), ("counter", raw(counter))]
            }
            Self::StillUsed { uses, .. } => vec![("uses", raw(uses))],
            Self::AdjustmentBeyondEvent { corrects_seq, engine, counter, left } => {
                vec![
                    ("engine", raw(engine)),
                    ("counter", raw(counter)),
                    ("corrects_seq", raw(corrects_seq)),
                    ("left", raw(left)),
                ]
            }
            Self::IdempotencyKeyReused { fields, .. } => same_detail(
                fields,
                "differs from the first request with this key: send the same value, or use a new key",
            ),
            Self::TrailDamaged(finding) => {
                vec![("stream", raw(&finding.stream)), ("seq", raw(&finding.seq)), ("kind", raw(&finding.kind))]
            }
            Self::Archived { stream, first, last, file, .. } => {
                vec![("stream", raw(stream)), ("first", raw(first)), ("last", raw(last)), ("file", raw(file))]
            }
            Self::WireTripped { trip_id, .. } => vec![("trip_id", raw(trip_id))],
            Self::BaselineWorse { drop, .. } => vec![("drop_fraction", raw(drop))],
            Self::EngineThrottled { trips, .. } => vec![("throttled_by", raw(trips))],
            Self::EventIdReused { fields, .. } => vec![("fields", raw(fields))],
            Self::ChecklistFailed { blockers, checklist } => {
                vec![("blockers", raw(blockers)), ("checklist", checklist.clone())]
            }
            Self::EvidenceInsufficient { domain, blockers, checks } => {
                vec![("domain", raw(domain)), ("blockers", raw(blockers)), ("checks", checks.clone())]
            }
            Self::VersionMismatch { actual, .. } => vec![
                ("blockers", raw(&[Blocker { id: "version".into(), detail: self.to_string() }])),
                ("version", raw(actual)),
            ],
            Self::ZeroMeansUnlimited { fields } => {
                same_detail(fields, "0 means no cap: send allow_unlimited=true if that is intended")
            }
            Self::SeriesKind { wanted, .. } => {
                vec![("errors", raw(&[FieldError::new(*wanted, self.to_string())]))]
            }
            Self::NotDisabled(cause) => cause.extensions(),
            _ => Vec::new(),
        }
    }

    /// The `WWW-Authenticate` header (RFC 6750).
    fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Self::Unauthenticated => Some(HeaderValue::from_static(r#"Bearer realm="holdfast""#)),
            Self::InvalidToken(_) => {
                Some(HeaderValue::from_static(r#"Bearer realm="holdfast", error="invalid_token""#))
            }
            Self::InsufficientScope { needed, .. } => {
                let scope = needed.as_str();
                HeaderValue::from_str(&format!(
                    r#"Bearer realm="holdfast", error="insufficient_scope", scope="{scope}""#
                ))
                .ok()
            }
            _ => None,
        }
    }

    /// The problem as the caller reads it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let row = self.row();
        // The table holds only valid statuses.
        let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // The log has the cause of a 500; the caller gets the request id to quote.
        let is_opaque = status == StatusCode::INTERNAL_SERVER_ERROR && !matches!(self, Self::NotDisabled(_));
        let detail = if is_opaque {
            "the service failed: read the state before trying again, and quote request_id when you report this"
                .to_owned()
        } else {
            self.to_string()
        };
        let mut extensions = self.extensions();
        if row.retry_same_key {
            extensions.push(("retry_same_key", raw(&true)));
        }
        Problem { row, status, detail, extensions }
    }
}

fn raw<T: Serialize + ?Sized>(value: &T) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("strings, numbers and lists of them serialise")
}

/// An error on its way out. The outermost middleware renders it as `application/problem+json`.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The row of the error table.
    pub row: Row,
    /// The HTTP status, 400 to 599: the row's, except in an answer to a proxy's question.
    pub status: StatusCode,
    /// The explanation of this occurrence, with the fix.
    pub detail: String,
    /// Further members of the body, by name; each code has its own.
    pub extensions: Vec<(&'static str, Box<RawValue>)>,
}

impl Problem {
    /// The problem as JSON without the members that belong to a request: for one operation of a batch.
    #[must_use]
    pub fn members(&self) -> Box<RawValue> {
        let own = [
            ("title", raw(self.row.title)),
            ("status", raw(&self.status.as_u16())),
            ("detail", raw(&self.detail)),
            ("error", raw(self.row.code)),
        ];
        let all: std::collections::BTreeMap<_, _> = own.into_iter().chain(self.extensions.iter().cloned()).collect();
        raw(&all)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = self.problem();
        if problem.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %self, source = ?std::error::Error::source(&self), "request failed");
        } else if problem.status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!(error = %self, source = ?std::error::Error::source(&self), "request refused");
        }
        let mut response = problem.status.into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if problem.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if let Self::RateLimited { wait } = &self {
            // The header has whole seconds; one more, so that the wait is never too short.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        if let Some(challenge) = self.challenge() {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(problem);
        response
    }
}
