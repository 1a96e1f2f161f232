//! Erasure of a free text, which the law may require: the text is removed, its digest stays, and the chain holds.
//!
//! One transaction keeps the digest, sets the text to null in the event and in a lever's own column, and appends the
//! control event `AUDIT_ERASE` with the operator and the reason, without the text. Erasing twice is safe. Copies inside
//! the JSON of other things are not touched; they are found and reported.
//!
//! Locks: the heads of the levers whose rows are touched, then control. Their writers hold these heads before they take
//! a row.

pub(super) mod target;

pub use target::{Remains, Target};

use super::actions::row_of;
use super::{ControlEvent, Origin, Stream, lock, store};
use crate::db::{self, Database, archived};
use crate::error::{Error, Result};
use crate::types::{ControlAction, Reason, hex};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The result of an erasure.
#[derive(Debug)]
pub enum Erased {
    /// The text is erased now.
    Now {
        /// SHA-256 of the text, lower-case hex.
        digest: String,
        /// The control event of the erasure.
        seq: i64,
        /// Columns of levers that held the text too and are erased.
        columns: Vec<&'static str>,
        /// Copies that remain.
        copies: Vec<Remains>,
        /// True if `GET /audit/as-of` needs the text.
        as_of: bool,
    },
    /// The text was erased before; nothing was done.
    Already {
        /// SHA-256 of the text, lower-case hex.
        digest: String,
    },
}

#[derive(Serialize)]
struct EraseDetail<'a> {
    digest: &'a str,
    columns: &'a [&'static str],
}

/// Erases a text in one transaction, then searches for copies.
pub async fn erase(db: &Database, target: Target, reason: &Reason, origin: &Origin) -> Result<Erased> {
    let mut tx = db.begin().await?;
    // An event's action never changes, so it can be read before the heads are locked.
    let action = store::erase::action(&mut tx, target).await?;
    let is_effect = |action| {
        use ControlAction as A;
        matches!(action, A::AuditErase | A::AuditArchive | A::AuditRestore | A::SettingChange)
    };
    if target.field == "detail" && action.is_some_and(is_effect) {
        let id = format!("{}, which holds only the effect of the event", target.name());
        return Err(Error::NotFound { what: "text of a caller's", id });
    }
    let row = action.map(row_of);
    for stream in row.map_or(&[][..], |row| row.reason_in) {
        let _held = lock(&mut tx, *stream).await?;
    }
    let mut head = db.history().lock(&mut tx, Stream::Control).await?;
    if let Some(digest) = store::erase::digest(&mut tx, target).await? {
        db::confirm(tx).await?;
        return Ok(Erased::Already { digest });
    }
    let text = store::erase::text(&mut tx, target).await?;
    if text.is_none()
        && let Some(segment) = archived::of(&mut tx, target.stream, target.seq).await?
    {
        return Err(segment.refusal(target.name()));
    }
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
    let event = ControlEvent::new(ControlAction::AuditErase)
        .about(&name)
        .because(reason)
        .detail(&EraseDetail { digest: &digest, columns: &columns });
    let stamp = event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    // Searched after the commit, because it takes long and the kill switch waits for the head.
    let mut tx = db.begin_unlimited_snapshot().await?;
    let copies = store::erase::copies(&mut tx, &text).await?;
    let told = row.is_some_and(|row| row.moves.is_some());
    Ok(Erased::Now { digest, seq: stamp.seq, columns, copies, as_of: told && target.field == "detail" })
}
