//! Corrections of booked amounts.

use super::answered;
use crate::approval::answer::waiting_again;
use crate::approval::model::ApprovalRecord;
use crate::error::{Error, Result};
use crate::http::{Change, errors, marked, said};
use crate::risk::Risk;
use crate::risk::model::Annotations;
use crate::risk::model::adjust::{Adjustment, Correction};
use crate::risk::operation::{AdjustRequest, Answered, Corrected};
use crate::types::{Actor, CorrelationId, Count, Engine, IdempotencyKey, JsonObject, Measured, Reason};
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

said!(with correlation_id: AdjustInput);

pub(super) fn router() -> OpenApiRouter<Risk> {
    OpenApiRouter::new().routes(routes!(adjust))
}

/// A correction of booked amounts, by exactly one of the two deltas.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AdjustInput {
    /// The event to correct: its `seq` in `GET /risk/events`.
    corrects_seq: Count,
    /// The amount to add to today's loss; negative takes back.
    loss_delta: Option<Measured>,
    /// The amount to add to today's exposure; negative takes back.
    exposure_delta: Option<Measured>,
    /// The reason for the correction; required.
    reason: Reason,
    /// The engine; must be the event's.
    engine: Option<Engine>,
    /// The acting person or program.
    actor: Option<Actor>,
    /// The caller's own id for requests that belong together.
    correlation_id: Option<CorrelationId>,
    /// Further data of the caller.
    metadata: Option<JsonObject>,
    /// The idempotency key; the header Idempotency-Key means the same.
    idempotency_key: Option<IdempotencyKey>,
}

impl AdjustInput {
    pub(super) fn request(self) -> Result<AdjustRequest> {
        let not_zero = |delta: &Measured| *delta != Measured::ZERO;
        let correction = match (self.loss_delta.filter(not_zero), self.exposure_delta.filter(not_zero)) {
            (Some(loss), None) => Correction::Loss(loss),
            (None, Some(exposure)) => Correction::Exposure(exposure),
            _ => {
                return Err(Error::invalid(
                    "loss_delta",
                    "or exposure_delta is required: send exactly one of them, and not 0",
                ));
            }
        };
        let annotations = Annotations { reason: Some(self.reason), metadata: self.metadata };
        Ok(AdjustRequest { corrects_seq: self.corrects_seq.get(), engine: self.engine, correction, annotations })
    }
}

/// Corrects booked amounts, today: a signed change of loss or exposure that names the event it corrects.
#[utoipa::path(
    post, path = "/risk/adjustments", tag = "risk", request_body = AdjustInput,
    responses(
        (status = 200, description = "Booked", body = AdjustAnswer),
        (status = 202, description = "The change waits for a second person, who approves it at Location", body = ApprovalRecord),
        errors::ChangeOfOne
    )
)]
async fn adjust(State(risk): State<Risk>, Change { input, asked }: Change<AdjustInput>) -> Result<Response> {
    let Answered { outcome, replayed, standing, stops } = risk.decide(input.request()?, asked).await?;
    Ok(match outcome {
        Corrected::Booked(outcome) => {
            answered::<_, AdjustAnswer>(Answered { outcome: *outcome, replayed, standing, stops })
        }
        Corrected::Waiting(request) => marked(replayed, waiting_again(request)),
    })
}

/// The outcome of a correction.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdjustAnswer {
    /// Always true.
    ok: bool,
    /// `Adjusted`.
    message: &'static str,
    #[serde(flatten)]
    adjustment: Adjustment,
    /// True if the same key booked it before; nothing was done this time.
    replayed: bool,
}

impl From<Answered<Adjustment>> for AdjustAnswer {
    fn from(Answered { outcome: adjustment, replayed, .. }: Answered<Adjustment>) -> Self {
        Self { ok: true, message: "Adjusted", adjustment, replayed }
    }
}
