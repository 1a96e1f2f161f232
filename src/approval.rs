//! The second person: while `two_person_release` is on, a change that [loosens](ApprovalAction) waits until another
//! person approves it.
//!
//! Invariants:
//! - Each lever's `model` says which of its changes loosen, and as which [`ApprovalAction`]. [`gate`] checks both the
//!   scope and the second person.
//! - The setting is read inside the transaction of the change, under the control head (for a correction: held until it
//!   commits); the approval is read there, too. An instance's environment may only tighten.
//! - An approval does exactly the requested change; no field of any body skips the wait.
//! - Persons are owners of tokens ([`crate::access::person`]): a token without an owner can neither request nor
//!   approve.
//! - A request is valid for 15 minutes and for one approval. A newer engage or disable cancels it. If it concerns less
//!   than the whole system, a newer trip or a newer change of the same subject cancels it as well. Every operator whose
//!   token reaches its subject can reject it.
//!
//! The change's event names the person who requested; `APPROVAL_APPROVE`, before it in the same transaction, names the
//! person who approved.
//!
//! Statements: one while the setting is off; 3 more to wait, 4 more to approve.

pub mod answer;
pub mod end;
pub mod model;
mod shown;
pub(crate) mod store;

pub(crate) use shown::WithChanges;
pub use store::{hold_required_by_database, is_required_by_database, waiting, waits_for};

use crate::access::person;
use crate::audit::{ControlEvent, Head, Origin, Stream};
use crate::db::{self, Database};
use crate::error::{Error, Result};
use crate::idempotency::{self, Asked, Once};
use crate::types::{Actor, ControlAction, Reason, Scope};
use model::{ApprovalAction, ApprovalRecord, STANDS, Standing};
use serde::Serialize;
use sqlx::PgConnection;

/// Whether this instance requires a second person even if the database's setting does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// The database's setting decides.
    #[default]
    OfDatabase,
    /// A second person is always required.
    Always,
}

/// The outcome of a change that may have to wait.
#[derive(Debug)]
pub enum Loosened<T> {
    /// The change was done, now or before.
    Done(Once<T>),
    /// The change waits for the second person.
    Waiting(Box<ApprovalRecord>),
}

/// The requested change.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The subject, as the lever's events name it; none for the whole system.
    pub subject: Option<&'a str>,
    /// The input, as JSON. For an upsert, its changes are included.
    pub input: &'a str,
    /// The reason, in the caller's words.
    pub reason: Option<&'a Reason>,
}

/// The gate's decision on a change.
#[derive(Debug)]
pub enum Gated {
    /// The change may go on.
    Pass,
    /// The change waits. The transaction holds the request, and the caller must commit it.
    Wait(Box<ApprovalRecord>),
}

/// Decides whether a change may be done now, inside its transaction, which holds the control head. Call it for every
/// change that could loosen, before any write.
pub async fn gate(
    conn: &mut PgConnection,
    head: &mut Head,
    policy: Policy,
    asked: &Asked,
    loosening: Option<ApprovalAction>,
    wanted: Wanted<'_>,
) -> Result<Gated> {
    if let Some(action) = loosening {
        asked.origin.authority.require(Scope::Release, action.what())?;
    }
    if let Some(id) = asked.approves {
        // The approver's own request checked these facts before, and they may have changed since.
        approve_in_tx(conn, head, id, asked).await?;
        return Ok(Gated::Pass);
    }
    let Some(action) = loosening else {
        return Ok(Gated::Pass);
    };
    if policy == Policy::OfDatabase && !is_required_by_database(conn).await? {
        return Ok(Gated::Pass);
    }
    let record = wait_in_tx(conn, head, asked, action, wanted).await?;
    // The key is kept whatever becomes of the request, so that it never requests twice.
    idempotency::keep_waiting(conn, asked.intent.as_ref(), head.next(), &record).await?;
    Ok(Gated::Wait(Box::new(record)))
}

/// The most open requests of one token: each new request re-judges all of them.
const ASKED_MAX: usize = 100;

/// A waiting request, for the audit trail.
#[derive(Serialize)]
struct RequestDetail<'a> {
    action: ApprovalAction,
    input: &'a serde_json::value::RawValue,
    owner: &'a Actor,
}

async fn wait_in_tx(
    conn: &mut PgConnection,
    head: &mut Head,
    asked: &Asked,
    action: ApprovalAction,
    wanted: Wanted<'_>,
) -> Result<ApprovalRecord> {
    let origin = &asked.origin;
    let nobody =
        "asks for a second person: this token has no owner, so it cannot request an approval; create one with --owner";
    let owner = origin.authority.owner().ok_or(Error::ApprovalRefused(nobody))?;
    let stamp = head.next();
    let input = serde_json::value::RawValue::from_string(wanted.input.to_owned())
        .map_err(|error| Error::Inconsistent(format!("an input has no JSON form: {error}")))?;
    // A repeated request is the one that waits already.
    let waiting = store::waiting(&mut *conn, stamp.at).await?.into_iter().find(|known| {
        known.action == action
            && known.subject.as_deref() == wanted.subject
            && known.requested_by == origin.principal.as_str()
            && known.input.get() == wanted.input
    });
    if let Some(waiting) = waiting {
        return Ok(waiting);
    }
    if store::asked_by(&mut *conn, origin.principal.as_str(), stamp.at).await? >= ASKED_MAX {
        return Err(Error::AskedTooOften { limit: ASKED_MAX, minutes: STANDS.num_minutes() });
    }
    let record = ApprovalRecord {
        id: stamp.seq,
        action,
        subject: wanted.subject.map(str::to_owned),
        changes: shown::changes(&input),
        input: input.clone(),
        actor: origin.actor.as_ref().map(ToString::to_string),
        reason: wanted.reason.map(ToString::to_string),
        requested_by: origin.principal.as_str().to_owned(),
        owner: owner.to_string(),
        requested_at: stamp.at,
        expires_at: stamp.at + STANDS,
        approved_at: None,
        approved_by: None,
        rejected_at: None,
        rejected_by: None,
        cancelled_by: None,
        standing: Standing::Waiting,
    };
    store::insert(&mut *conn, &record).await?;
    let event = ControlEvent::new(ControlAction::ApprovalRequest)
        .about(action.as_str())
        .because(wanted.reason)
        .detail(&RequestDetail { action, input: &input, owner });
    event.append(conn, head, origin).await?;
    Ok(record)
}

/// An approval, for the audit trail.
#[derive(Serialize)]
struct ApproveDetail<'a> {
    id: i64,
    requested_by: &'a str,
    owner: &'a str,
    approved_by: &'a str,
    approving_owner: &'a Actor,
}

/// Records the second person's approval, inside the transaction of the change.
async fn approve_in_tx(conn: &mut PgConnection, head: &mut Head, id: i64, asked: &Asked) -> Result<()> {
    let stamp = head.next();
    let record = store::find(&mut *conn, id, stamp.at).await?;
    let approver = asked.approver.as_ref().ok_or_else(|| Error::Inconsistent("nobody approves".into()))?;
    let owner = second_person(&record, approver)?;
    store::approve(&mut *conn, id, stamp.at, approver.principal.as_str()).await?;
    let detail = ApproveDetail {
        id,
        requested_by: &record.requested_by,
        owner: &record.owner,
        approved_by: approver.principal.as_str(),
        approving_owner: owner,
    };
    let subject = id.to_string();
    let event = ControlEvent::new(ControlAction::ApprovalApprove).about(&subject).detail(&detail);
    event.append(conn, head, approver).await?;
    Ok(())
}

/// The person behind an approver, if it differs from the requester and the request still waits.
pub(crate) fn second_person<'a>(record: &ApprovalRecord, approver: &'a Origin) -> Result<&'a Actor> {
    let nobody = "needs a second person: this token has no owner, so it cannot approve; create one with --owner";
    let owner = approver.authority.owner().ok_or(Error::ApprovalRefused(nobody))?;
    if person::is_same(owner.as_str(), &record.owner) {
        return Err(Error::ApprovalRefused(
            "needs a second person, but this token has the same owner as the request: another owner must approve",
        ));
    }
    refuse_ended(record)?;
    Ok(owner)
}

pub(crate) fn refuse_ended(record: &ApprovalRecord) -> Result<()> {
    let id = record.id;
    record.ended().map_or(Ok(()), |how| Err(Error::ApprovalClosed { id, how }))
}

/// The old and the new setting, for the audit trail.
#[derive(Serialize)]
struct SettingDetail {
    from: bool,
    to: bool,
}

/// Switches `two_person_release`, for the shell. Returns whether the setting changed.
pub async fn require_second_person(db: &Database, on: bool, reason: Option<&Reason>, origin: &Origin) -> Result<bool> {
    let mut tx = db.begin().await?;
    let mut head = db.history().lock(&mut tx, Stream::Control).await?;
    let before = is_required_by_database(&mut tx).await?;
    if before == on {
        db::confirm(tx).await?;
        return Ok(false);
    }
    store::set_required(&mut tx, on).await?;
    let event = ControlEvent::new(ControlAction::SettingChange)
        .about(store::SETTING)
        .because(reason)
        .detail(&SettingDetail { from: before, to: on });
    event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    Ok(true)
}
