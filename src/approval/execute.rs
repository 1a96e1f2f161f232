//! Doing what was asked for, once the second person agreed.

use super::model::{ApprovalAction, ApprovalRecord};
use super::{Loosened, second_person, store};
use crate::app::App;
use crate::audit::Origin;
use crate::db::to_json;
use crate::error::{Error, Result};
use crate::go_live::model::Change;
use crate::govern::{BaselineRequest, RearmRequest, WireRequest};
use crate::idempotency::{Asked, Once};
use crate::risk::http::AdjustAnswer;
use crate::risk::operation::CorrectionAsked;
use crate::risk::operation::Done;
use crate::types::Scope;
use crate::types::{Domain, Principal, Reason};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What was done after the second person agreed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Approved {
    /// The approval.
    pub id: i64,
    /// What was done.
    pub action: ApprovalAction,
    /// What the change itself answered.
    #[schema(value_type = Object)]
    pub answer: Box<RawValue>,
}

/// Which domain is promoted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PromoteRequest {
    pub(crate) domain: Domain,
}

/// Approves a request, and does what it asks for, in the transaction of the change.
pub async fn approve(app: &App, id: i64, approver: Origin) -> Result<Approved> {
    approver.authority.require(Scope::Release, "an approval")?;
    let record = {
        let db = app.go_live.db();
        let mut conn = db.read().await?;
        let now = db.history().now(&mut conn).await?;
        store::find(&mut conn, id, now).await?
    };
    second_person(&record, &approver)?;
    let reason: Option<Reason> = record.reason.as_deref().map(str::parse).transpose().map_err(|_| unreadable(id))?;
    let origin = Origin {
        principal: Principal::stored(record.requested_by.clone()),
        authority: approver.authority.clone(),
        actor: record.actor.as_deref().map(str::parse).transpose().map_err(|_| unreadable(id))?,
        request_id: approver.request_id.clone(),
        correlation_id: None,
    };
    let asked = Asked { origin, intent: None, approves: Some(id), approver: Some(approver) };
    let answer = execute(app, &record, reason.as_ref(), &asked).await?;
    Ok(Approved { id, action: record.action, answer })
}

async fn execute(app: &App, record: &ApprovalRecord, reason: Option<&Reason>, asked: &Asked) -> Result<Box<RawValue>> {
    let required = || reason.ok_or_else(|| unreadable(record.id));
    match record.action {
        ApprovalAction::Enable => done(app.go_live.loosen(Change::Enable, None, reason, asked).await?),
        ApprovalAction::Release => done(app.go_live.loosen(Change::Release, None, reason, asked).await?),
        ApprovalAction::RaiseCap => done(app.risk.upsert_policy(&input(record)?, reason, asked).await?),
        ApprovalAction::Correct => {
            let correction: CorrectionAsked = input(record)?;
            let booked = app.risk.correct(&correction, required()?, asked).await?;
            Ok(to_json(&AdjustAnswer::from(Done {
                outcome: booked,
                replayed: false,
                standing: None,
                stops: Vec::new(),
            })))
        }
        ApprovalAction::Charter => done(app.heimdall.upsert_policy(&input(record)?, reason, asked).await?),
        ApprovalAction::Promote => {
            let PromoteRequest { domain } = input(record)?;
            done(app.heimdall.promote(&domain, required()?, asked).await?)
        }
        ApprovalAction::Wire => {
            let WireRequest { wire, force } = input(record)?;
            done(app.govern.upsert_wire(&wire, force, reason, asked).await?)
        }
        ApprovalAction::Rearm => {
            let RearmRequest { domain, metric, baseline } = input(record)?;
            done(app.govern.rearm((&domain, &metric), baseline, required()?, asked).await?)
        }
        ApprovalAction::Rebase => {
            let BaselineRequest { domain, metric, source, force } = input(record)?;
            done(app.govern.reset_baseline((&domain, &metric), source, force, reason, asked).await?)
        }
    }
}

fn unreadable(id: i64) -> Error {
    Error::Inconsistent(format!("approval {id} cannot be read"))
}

pub(super) fn input<T: DeserializeOwned>(record: &ApprovalRecord) -> Result<T> {
    serde_json::from_str(record.input.get())
        .map_err(|error| Error::Inconsistent(format!("approval {} cannot be read: {error}", record.id)))
}

fn done<T: Serialize>(loosened: Loosened<T>) -> Result<Box<RawValue>> {
    match loosened {
        Loosened::Done(Once::Done(answer)) => Ok(to_json(&answer)),
        Loosened::Done(Once::Replayed(_)) | Loosened::Waiting(_) => {
            Err(Error::Inconsistent("what was approved was not done".into()))
        }
    }
}
