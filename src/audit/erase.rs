//! Erasure of a free text, which the law may ask for: the text goes, its digest stays, and the chain holds.
//!
//! In one transaction the digest is kept, the text set to null where it stands and where a lever keeps it in a column of its own, and
//! the control event `AUDIT_ERASE` says who did it and why, without a word of the text. Twice is safe. Copies inside JSON that belong to
//! something else are not touched; they are found and told.
//!
//! Locks: the heads of the levers whose rows are touched, then control. Their writers hold these before they take a row.

use super::layout::Kind;
use super::{ControlEvent, Origin, Stream, lock, store};
use crate::db::{self, Database};
use crate::error::{Error, Result};
use crate::types::Reason;
use crate::types::hex;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A text: a column of an event.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The stream.
    pub stream: Stream,
    /// The event.
    pub seq: i64,
    /// The column.
    pub field: &'static str,
}

impl Target {
    /// The text of this name, if the stream has such a one and it may be erased.
    pub fn new(stream: Stream, seq: i64, field: &str) -> Result<Self> {
        let known = stream.columns().iter().find(|column| column.kind == Kind::Free && column.name == field);
        let target = known.map(|column| Self { stream, seq, field: column.name });
        match target {
            // Replays are answered from it.
            Some(_) if (stream, field) == (Stream::Risk, "detail") => Err(Error::NotFound {
                what: "text of a caller's",
                id: format!("{}/{seq}/{field}, which holds numbers alone", stream.as_str()),
            }),
            Some(target) => Ok(target),
            None => Err(Error::NotFound { what: "free text", id: format!("{}/{seq}/{field}", stream.as_str()) }),
        }
    }

    /// Its name in the trail.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}/{}", self.stream.as_str(), self.seq, self.field)
    }
}

/// A copy of a text that was not erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// The table and the column.
    pub column: String,
    /// The row.
    pub row: String,
}

/// The result of an erasure.
#[derive(Debug)]
pub enum Erased {
    /// It is erased now.
    Now {
        /// SHA-256 of the text, lower-case hex.
        digest: String,
        /// The control event that says so.
        seq: i64,
        /// Columns of levers that held it, too.
        columns: Vec<&'static str>,
        /// Where it still is.
        copies: Vec<Remains>,
        /// Whether `GET /audit/as-of` needs it.
        as_of: bool,
    },
    /// It was erased before; nothing was done.
    Already {
        /// SHA-256 of the text, lower-case hex.
        digest: String,
    },
}

/// An erasure, for the audit trail.
#[derive(Serialize)]
struct EraseDetail<'a> {
    digest: &'a str,
    columns: &'a [&'static str],
}

/// The streams whose writers write the rows in which an action's reason stands, too, in lock order.
fn lever_of(action: Option<&str>) -> &'static [Stream] {
    match action {
        Some("RISK_POLICY_UPSERT") => &[Stream::Risk],
        Some("HEIMDALL_POLICY_UPSERT" | "HEIMDALL_PROMOTE" | "HEIMDALL_DEMOTE") => &[Stream::Heimdall],
        Some("REGRESSION_POLICY_UPSERT") => &[Stream::Kpi],
        Some("REGRESSION_REARM") => &[Stream::Kpi, Stream::Risk],
        _ => &[],
    }
}

/// Erases a text.
pub async fn erase(db: &Database, target: Target, reason: &Reason, origin: &Origin) -> Result<Erased> {
    let mut tx = db.begin().await?;
    // The action of an event never changes, so it may be read before the heads are held.
    let action = store::erase::action(&mut tx, target).await?;
    if target.field == "detail" && matches!(action.as_deref(), Some("AUDIT_ERASE" | "SETTING_CHANGE")) {
        let id = format!("{}, which holds what it did alone", target.name());
        return Err(Error::NotFound { what: "text of a caller's", id });
    }
    for stream in lever_of(action.as_deref()) {
        let _held = lock(&mut tx, *stream).await?;
    }
    let mut head = db.history().lock(&mut tx, Stream::Control).await?;
    if let Some(digest) = store::erase::digest(&mut tx, target).await? {
        db::confirm(tx).await?;
        return Ok(Erased::Already { digest });
    }
    let text = store::erase::text(&mut tx, target).await?;
    let text = text.ok_or_else(|| Error::NotFound { what: "text to erase", id: target.name() })?;
    let digest = hex(&Sha256::digest(text.as_bytes()));
    store::erase::keep_digest(&mut tx, target, &digest, head.next().at).await?;
    store::erase::erase_text(&mut tx, target).await?;
    let columns = match target {
        Target { stream: Stream::Control, field: "reason", seq } => {
            store::erase::erase_lever_reasons(&mut tx, seq, &text).await?
        }
        _ => Vec::new(),
    };
    let name = target.name();
    let event = ControlEvent::new("AUDIT_ERASE")
        .about(&name)
        .because(reason)
        .detail(&EraseDetail { digest: &digest, columns: &columns });
    let stamp = event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    // Afterwards, since it takes long, and the kill switch waits for the head.
    let mut tx = db.begin_unlimited_snapshot().await?;
    let copies = store::erase::copies(&mut tx, &text).await?;
    let told = action.is_some_and(|action| {
        super::as_of::LAST.contains(&action.as_str()) || super::as_of::EACH.contains(&action.as_str())
    });
    Ok(Erased::Now { digest, seq: stamp.seq, columns, copies, as_of: told && target.field == "detail" })
}
