//! The second person's decision: approves a waiting change and does it, or rejects it. [`approval`] decides which
//! changes wait.

pub mod http;
mod reach;

use crate::approval::model::{ApprovalAction, ApprovalRecord, Standing};
use crate::approval::{self, Loosened, refuse_ended, second_person, store};
use crate::audit::{ControlEvent, Origin, Stream};
use crate::db::{self, Database, to_json};
use crate::error::{Error, Result};
use crate::go_live::GoLive;
use crate::go_live::model::Switch;
use crate::heimdall::{Heimdall, PromoteRequest};
use crate::idempotency::{Asked, Once};
use crate::regression::{BaselineRequest, RearmRequest, Regression, WireRequest};
use crate::risk::Risk;
use crate::risk::http::AdjustAnswer;
use crate::risk::operation::{Answered, CorrectionAsked};
use crate::types::{ControlAction, Principal, Reason, Scope};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The answer of an approval: the change was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct Approved {
    /// The id of the request.
    pub id: i64,
    /// The action that was approved and done.
    pub action: ApprovalAction,
    /// The change's own answer.
    #[schema(value_type = Object)]
    pub answer: Box<RawValue>,
}

/// The service of approvals and rejections.
#[derive(Debug, Clone)]
pub struct Approve {
    /// The database of the requests.
    pub db: Database,
    /// Whether this instance requires a second person even if the database's setting does not.
    pub two_person: approval::Policy,
    /// Lever 1, for its approved changes.
    pub go_live: GoLive,
    /// Lever 2, for its approved changes.
    pub risk: Risk,
    /// Lever 3, for its approved changes.
    pub heimdall: Heimdall,
    /// Lever 4, for its approved changes.
    pub regression: Regression,
}

impl Approve {
    /// Whether a second person is needed, and the requests of the last day, newest first.
    async fn list(&self) -> Result<(bool, Vec<ApprovalRecord>)> {
        let mut conn = self.db.read().await?;
        let is_required =
            self.two_person == approval::Policy::Always || approval::is_required_by_database(&mut conn).await?;
        let now = self.db.history().now(&mut conn).await?;
        Ok((is_required, store::list(&mut conn, now).await?))
    }

    /// A request in its current state.
    async fn find(&self, id: i64) -> Result<ApprovalRecord> {
        let mut conn = self.db.read().await?;
        let now = self.db.history().now(&mut conn).await?;
        store::find(&mut conn, id, now).await
    }

    /// Approves a request and does its change, in one transaction.
    pub async fn approve(&self, id: i64, approver: Origin) -> Result<Approved> {
        approver.authority.require(Scope::Release, "an approval")?;
        let record = self.find(id).await?;
        second_person(&record, &approver)?;
        let reason: Option<Reason> =
            record.reason.as_deref().map(str::parse).transpose().map_err(|_| unreadable(id))?;
        let origin = Origin {
            principal: Principal::stored(record.requested_by.clone()),
            authority: approver.authority.clone(),
            actor: record.actor.as_deref().map(str::parse).transpose().map_err(|_| unreadable(id))?,
            request_id: approver.request_id.clone(),
            correlation_id: None,
        };
        let asked = Asked { origin, intent: None, approves: Some(id), approver: Some(approver) };
        let answer = self.execute(&record, reason.as_ref(), &asked).await?;
        Ok(Approved { id, action: record.action, answer })
    }

    async fn execute(&self, record: &ApprovalRecord, reason: Option<&Reason>, asked: &Asked) -> Result<Box<RawValue>> {
        let required = || reason.ok_or_else(|| unreadable(record.id));
        match record.action {
            ApprovalAction::Enable => done(self.go_live.loosen(Switch::Enable, None, reason, asked).await?),
            ApprovalAction::Release => done(self.go_live.loosen(Switch::Release, None, reason, asked).await?),
            ApprovalAction::RaiseCap => done(self.risk.upsert_policy(&record.parsed()?, reason, asked).await?),
            ApprovalAction::Correct => {
                let correction: CorrectionAsked = record.parsed()?;
                let booked = self.risk.correct(&correction, required()?, asked).await?;
                Ok(to_json(&AdjustAnswer::from(Answered {
                    outcome: booked,
                    replayed: false,
                    standing: None,
                    stops: Vec::new(),
                })))
            }
            ApprovalAction::Charter => done(self.heimdall.upsert_policy(&record.parsed()?, reason, asked).await?),
            ApprovalAction::Promote => {
                let PromoteRequest { domain } = record.parsed()?;
                done(self.heimdall.promote(&domain, required()?, asked).await?)
            }
            ApprovalAction::Wire => {
                let WireRequest { wire, force } = record.parsed()?;
                done(self.regression.upsert_wire(&wire, force, reason, asked).await?)
            }
            ApprovalAction::Rearm => {
                let RearmRequest { domain, metric, baseline } = record.parsed()?;
                done(self.regression.rearm((&domain, &metric), baseline, required()?, asked).await?)
            }
            ApprovalAction::Rebase => {
                let BaselineRequest { domain, metric, source, force } = record.parsed()?;
                done(self.regression.reset_baseline((&domain, &metric), source, force, reason, asked).await?)
            }
        }
    }

    /// Rejects a waiting request. The requester may, and every caller with operate or release whose token reaches its
    /// subject. It needs no second person.
    pub async fn reject(&self, id: i64, reason: Option<&Reason>, origin: &Origin) -> Result<ApprovalRecord> {
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Control).await?;
        let stamp = head.next();
        let mut record = store::find(&mut tx, id, stamp.at).await?;
        if record.requested_by != origin.principal.as_str() {
            reach::require(&mut tx, &record, origin).await?;
        }
        refuse_ended(&record)?;
        let by = origin.principal.as_str();
        store::reject(&mut tx, id, stamp.at, by).await?;
        let detail = RejectDetail { id, action: record.action, requested_by: &record.requested_by };
        let subject = id.to_string();
        let event = ControlEvent::new(ControlAction::ApprovalReject).about(&subject).because(reason).detail(&detail);
        event.append(&mut tx, &mut head, origin).await?;
        db::commit(tx).await?;
        (record.rejected_at, record.rejected_by) = (Some(stamp.at), Some(by.to_owned()));
        record.standing = Standing::Rejected;
        Ok(record)
    }
}

/// A rejection, for the audit trail.
#[derive(Serialize)]
struct RejectDetail<'a> {
    id: i64,
    action: ApprovalAction,
    requested_by: &'a str,
}

fn unreadable(id: i64) -> Error {
    Error::Inconsistent(format!("approval {id} cannot be read"))
}

fn done<T: Serialize>(loosened: Loosened<T>) -> Result<Box<RawValue>> {
    match loosened {
        Loosened::Done(Once::Done(answer)) => Ok(to_json(&answer)),
        Loosened::Done(Once::Replayed(_)) | Loosened::Waiting(_) => {
            Err(Error::Inconsistent("what was approved was not done".into()))
        }
    }
}
