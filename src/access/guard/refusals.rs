//! Refusals of the guard and of the handlers behind it. All are counted; those of changes of the control plane are also
//! recorded as events.

use crate::access::Access;
use crate::access::holder::Holder;
use crate::access::meter::RefusalKind;
use crate::audit::Origin;
use crate::enforcement::routes::Route;
use crate::error::{COUNTED, Problem};
use crate::identity::Authority;
use crate::types::{RequestId, Scope};
use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The parts of a refusal's event.
#[derive(Debug)]
pub(super) struct Note {
    route: String,
    path: String,
    kind: RefusalKind,
    origin: Origin,
    holder: Arc<Holder>,
}

/// Whether a refusal is an event: true for changes of the control plane, false for traffic.
pub(super) fn is_control(needed: Scope, method: &Method) -> bool {
    matches!(needed, Scope::Operate | Scope::Release | Scope::Admin | Scope::Kill)
        && !matches!(*method, Method::GET | Method::HEAD)
}

pub(super) fn note_of(request: &Request, row: &Route, holder: &Arc<Holder>) -> Note {
    Note {
        route: format!("{} {}", request.method(), row.template),
        path: request.uri().path().to_owned(),
        kind: RefusalKind::of(row.template),
        origin: Origin {
            principal: holder.grant.principal.clone(),
            authority: Authority::Token(Arc::clone(&holder.grant)),
            actor: None,
            request_id: request.extensions().get::<RequestId>().cloned(),
            correlation_id: None,
        },
        holder: Arc::clone(holder),
    }
}

/// The time that a refusal waits for its event before it is answered without one.
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);

fn refusals(code: &'static str) -> metrics::Counter {
    metrics::counter!("holdfast_access_refused_total", "error" => code)
}

/// Begins all counters at 0, since a counter that begins with its first event shows no increase at that event.
pub(crate) fn begin_counting() {
    for row in COUNTED {
        refusals(row.code).increment(0);
    }
}

/// Counts a refusal, and records it as an event if that is due.
pub(super) fn noting(
    access: &Access,
    response: &Response,
    note: Option<Box<Note>>,
) -> Option<impl Future<Output = ()> + Send + use<>> {
    let row = response.extensions().get::<Problem>()?.row;
    if row.is_counted {
        refusals(row.code).increment(1);
    }
    if row.is_disk_full {
        access.db.disk().note_full();
    }
    let note = note.filter(|_| row.is_noted)?;
    // The rate keeps a runaway token from filling the trail.
    access.register().meter_refusal(&note.holder, note.kind).ok()?;
    let access = access.clone();
    Some(async move {
        let noted = access.note_refusal(&note.route, &note.path, row.code, &note.origin);
        match tokio::time::timeout(NOTE_TIMEOUT, noted).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a refused attempt could not be recorded"),
            Err(_) => tracing::error!("a refused attempt could not be recorded in time"),
        }
    })
}
