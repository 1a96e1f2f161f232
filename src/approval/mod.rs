//! The second person: while `two_person_release` is on, a kill-switch release, an enable and a higher cap wait for the word of
//! another person.
//!
//! Invariants:
//! - Whether it is on is read inside the transaction of the change, under the control head; so is whether an approval stands. An
//!   instance's environment may only tighten.
//! - What is done is what was asked for, by whoever may approve it; no field of any body skips the wait.
//! - Persons are owners of tokens: whoever has none can neither ask nor approve.
//! - An approval stands for 15 minutes and once, and a newer engage or disable cancels it; that of a policy also a newer trip, and a
//!   newer upsert of the same policy.
//!
//! The change's event names who asked; `APPROVAL_APPROVE`, before it in the same transaction, names who agreed.
//!
//! Statements: one where it is off; 3 more to wait, 4 more to approve.

pub mod http;
pub mod model;
mod store;

pub use store::{is_required_by_database, list};

use crate::access::scope::Scope;
use crate::audit::{self, ControlEvent, Head, Origin, Stream};
use crate::db::{self, Database, to_json};
use crate::error::{Error, Result};
use crate::go_live::GoLive;
use crate::go_live::model::{Change, GoLiveState};
use crate::idempotency::{self, Asked, Once};
use crate::risk::{Risk, RiskPolicyUpserted};
use crate::types::{Actor, Principal, Reason};
use chrono::TimeDelta;
use model::{ApprovalAction, ApprovalRecord, Standing};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

/// How long a request waits for the second person.
const STANDS: TimeDelta = TimeDelta::minutes(15);

/// Whether this instance asks for a second person whatever the database says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// As the database says.
    #[default]
    OfDatabase,
    /// Always.
    Always,
}

/// What came of a change that may have to wait.
#[derive(Debug)]
pub enum Loosened<T> {
    /// It is done, or was before.
    Done(Once<T>),
    /// It waits for the second person.
    Waiting(ApprovalRecord),
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The change.
    pub action: ApprovalAction,
    /// Its input, as JSON.
    pub input: &'a str,
    /// Why.
    pub reason: Option<&'a Reason>,
}

/// What the gate says of a change.
#[derive(Debug)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// It waits; the transaction holds the request and is to be committed.
    Wait(ApprovalRecord),
}

/// Whether a change may be done now, inside its transaction, which holds the control head.
pub async fn gate(
    conn: &mut PgConnection,
    head: &mut Head,
    policy: Policy,
    asked: &Asked,
    wanted: Wanted<'_>,
) -> Result<Verdict> {
    if let Some(id) = asked.approves {
        // What the approver's own request checked before may have changed since.
        approve_in_tx(conn, head, id, asked).await?;
        return Ok(Verdict::Pass);
    }
    if policy == Policy::OfDatabase && !is_required_by_database(conn).await? {
        return Ok(Verdict::Pass);
    }
    let record = wait_in_tx(conn, head, asked, wanted).await?;
    // Whatever becomes of it: the same key never asks twice.
    idempotency::keep_waiting(conn, asked.intent.as_ref(), head.next(), &record).await?;
    Ok(Verdict::Wait(record))
}

/// What waits, for the audit trail.
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
    wanted: Wanted<'_>,
) -> Result<ApprovalRecord> {
    let origin = &asked.origin;
    let nobody = "asks for a second person, and whoever has no owner is no first one: use a token with an owner";
    let owner = origin.authority.owner().ok_or(Error::ApprovalRefused(nobody))?;
    let stamp = head.next();
    let input = serde_json::value::RawValue::from_string(wanted.input.to_owned())
        .map_err(|error| Error::Inconsistent(format!("an input has no JSON form: {error}")))?;
    // The same request again is the one that waits.
    let waiting = store::list(&mut *conn, stamp.at).await?.into_iter().find(|known| {
        known.standing == Standing::Waiting
            && known.action == wanted.action
            && known.requested_by == origin.principal.as_str()
            && known.input.get() == wanted.input
    });
    if let Some(waiting) = waiting {
        return Ok(waiting);
    }
    let record = ApprovalRecord {
        id: stamp.seq,
        action: wanted.action,
        input: input.clone(),
        actor: origin.actor.as_ref().map(ToString::to_string),
        reason: wanted.reason.map(ToString::to_string),
        requested_by: origin.principal.as_str().to_owned(),
        owner: owner.to_string(),
        requested_at: stamp.at,
        expires_at: stamp.at + STANDS,
        approved_at: None,
        approved_by: None,
        standing: Standing::Waiting,
    };
    store::insert(&mut *conn, &record).await?;
    let detail = Some(to_json(&RequestDetail { action: wanted.action, input: &input, owner }).get().to_owned());
    let subject = Some(wanted.action.as_str());
    let event = ControlEvent { action: "APPROVAL_REQUEST", subject, error: None, reason: wanted.reason, detail };
    event.append(conn, head, origin).await?;
    Ok(record)
}

/// Who agreed to what, for the audit trail.
#[derive(Serialize)]
struct ApproveDetail<'a> {
    id: i64,
    requested_by: &'a str,
    owner: &'a str,
    approved_by: &'a str,
    approving_owner: &'a Actor,
}

/// Takes the second person's word, inside the transaction of the change.
async fn approve_in_tx(conn: &mut PgConnection, head: &mut Head, id: i64, asked: &Asked) -> Result<()> {
    let stamp = head.next();
    let record = find(&mut *conn, id, stamp.at).await?;
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
    let (subject, detail) = (id.to_string(), Some(to_json(&detail).get().to_owned()));
    let event = ControlEvent { action: "APPROVAL_APPROVE", subject: Some(&subject), error: None, reason: None, detail };
    event.append(conn, head, approver).await?;
    Ok(())
}

async fn find(conn: &mut PgConnection, id: i64, now: chrono::DateTime<chrono::Utc>) -> Result<ApprovalRecord> {
    let found = store::list(conn, now).await?.into_iter().find(|known| known.id == id);
    found.ok_or_else(|| Error::NotFound { what: "approval", id: id.to_string() })
}

/// The person behind an approver, if it is another one than the first, and the request still waits.
fn second_person<'a>(record: &ApprovalRecord, approver: &'a Origin) -> Result<&'a Actor> {
    let nobody = "needs a second person, and whoever has no owner is none: use a token with an owner";
    let owner = approver.authority.owner().ok_or(Error::ApprovalRefused(nobody))?;
    let same = |text: &str| text.trim().to_lowercase();
    if same(owner.as_str()) == same(&record.owner) {
        return Err(Error::ApprovalRefused("needs a second person, and this is the first one again"));
    }
    match record.standing {
        Standing::Waiting => Ok(owner),
        standing => Err(Error::ApprovalClosed { id: record.id, standing: standing.as_str() }),
    }
}

/// What was done after the second person agreed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Approved {
    /// The approval.
    pub id: i64,
    /// What was done.
    pub action: ApprovalAction,
    /// What the change itself answered.
    #[schema(value_type = Object)]
    pub answer: Box<serde_json::value::RawValue>,
}

/// Approves a request, and does what it asks for.
pub async fn approve(go_live: &GoLive, risk: &Risk, id: i64, approver: Origin) -> Result<Approved> {
    approver.authority.require(Scope::Release, "an approval")?;
    let record = {
        let mut conn = go_live.db().read().await?;
        let now = store::now(&mut conn).await?;
        find(&mut conn, id, now).await?
    };
    second_person(&record, &approver)?;
    let unreadable = |_| Error::Inconsistent(format!("approval {id} cannot be read"));
    let origin = Origin {
        principal: Principal::stored(record.requested_by.clone()),
        authority: approver.authority.clone(),
        actor: record.actor.as_deref().map(str::parse).transpose().map_err(unreadable)?,
        request_id: approver.request_id.clone(),
        correlation_id: None,
    };
    let reason: Option<Reason> = record.reason.as_deref().map(str::parse).transpose().map_err(unreadable)?;
    let asked = Asked { origin, intent: None, approves: Some(id), approver: Some(approver) };
    let answer = match record.action {
        ApprovalAction::Enable => state(go_live.loosen(Change::Enable, None, reason.as_ref(), &asked).await?)?,
        ApprovalAction::Release => state(go_live.loosen(Change::Release, None, reason.as_ref(), &asked).await?)?,
        ApprovalAction::RaiseCap => {
            let request = serde_json::from_str(record.input.get())
                .map_err(|error| Error::Inconsistent(format!("approval {id} cannot be read: {error}")))?;
            policy(risk.upsert_policy(&request, reason.as_ref(), &asked).await?)?
        }
    };
    Ok(Approved { id, action: record.action, answer })
}

fn state(done: Loosened<GoLiveState>) -> Result<Box<serde_json::value::RawValue>> {
    match done {
        Loosened::Done(Once::Done(state)) => Ok(to_json(&state)),
        Loosened::Done(Once::Replayed(_)) | Loosened::Waiting(_) => {
            Err(Error::Inconsistent("what was approved was not done".into()))
        }
    }
}

fn policy(done: Loosened<RiskPolicyUpserted>) -> Result<Box<serde_json::value::RawValue>> {
    match done {
        Loosened::Done(Once::Done(upserted)) => Ok(to_json(&upserted)),
        Loosened::Done(Once::Replayed(_)) | Loosened::Waiting(_) => {
            Err(Error::Inconsistent("what was approved was not done".into()))
        }
    }
}

/// From what to what, for the audit trail.
#[derive(Serialize)]
struct SettingDetail {
    from: bool,
    to: bool,
}

/// Switches `two_person_release`: for the shell. Says whether that changed anything.
pub async fn require_second_person(db: &Database, on: bool, reason: Option<&Reason>, origin: &Origin) -> Result<bool> {
    let mut tx = db.begin().await?;
    let mut head = audit::lock(&mut tx, Stream::Control).await?;
    let before = is_required_by_database(&mut tx).await?;
    if before == on {
        db::confirm(tx).await?;
        return Ok(false);
    }
    store::set_required(&mut tx, on).await?;
    let detail = Some(to_json(&SettingDetail { from: before, to: on }).get().to_owned());
    let subject = Some(store::SETTING);
    let event = ControlEvent { action: "SETTING_CHANGE", subject, error: None, reason, detail };
    event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    Ok(true)
}
