//! The routes of the tokens.

use super::Access;
use super::model::{Bound, CreatedToken, NewToken, TokenPage, TokenRecord};
use crate::error::Result;
use crate::http::numbers::AsText;
use crate::http::{Caller, CanStop, Input, Off, Query, Segment, Stopping, errors};
use crate::idempotency::Once;
use crate::types::Scope;
use crate::types::{Actor, Amount, Domain, Engine, Lifetime, List, PageSize, Rate, Reason, TokenId, TokenName};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LINK;
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The routes below the base path.
pub fn router() -> OpenApiRouter<Access> {
    OpenApiRouter::new().routes(routes!(list_tokens, create_token)).routes(routes!(revoke_token))
}

/// Which tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TokensQuery {
    /// At most so many, 1 to 1000; 1000 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The id of the last token that was shown: those after it are.
    #[param(inline)]
    after: Option<TokenId>,
}

/// Every token there ever was, newest first, a page at a time. The tokens themselves are shown nowhere.
#[utoipa::path(
    get, path = "/access/tokens", tag = "access", params(TokensQuery),
    responses(
        (status = 200, description = "Newest first. Where there are more, Link names the next page", body = Vec<TokenRecord>,
         headers(("Link" = Option<String>, description = "Where there are more: `<?limit=N&after=ID>; rel=\"next\"`, with `numbers=string` where the answer has it"))),
        errors::Read
    )
)]
async fn list_tokens(
    State(access): State<Access>,
    Query(query): Query<TokensQuery>,
    as_text: Option<Extension<AsText>>,
) -> Result<Response> {
    let limit = query.limit.unwrap_or(PageSize::MAX);
    let TokenPage { tokens, next } = access.list(query.after, limit).await?;
    let numbers = as_text.map_or("", |_| "&numbers=string");
    let link = next.map(|last| [(LINK, format!("<?limit={}&after={last}{numbers}>; rel=\"next\"", limit.get()))]);
    Ok((link.map(AppendHeaders), Json(tokens)).into_response())
}

/// A token to create. Lists are JSON arrays, or names with commas between them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenInput {
    /// Its name in events.
    name: TokenName,
    /// Its scopes; at least one.
    #[schema(schema_with = List::<Scope>::schema)]
    scopes: List<Scope>,
    /// The person who answers for it. A second person is one with another owner.
    owner: Option<Actor>,
    /// The only engines that it may change; all when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(schema_with = List::<Engine>::schema, required = false)]
    engines: Option<List<Engine>>,
    /// The only domains that it may change; all when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(schema_with = List::<Domain>::schema, required = false)]
    domains: Option<List<Domain>>,
    /// How long it lasts, like `12h` or `30d`; until it is revoked when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(value_type = Lifetime, required = false)]
    expires_in: Option<Lifetime>,
    /// Requests a second and an instance, 1 to 1000000; 20000 when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(value_type = Rate, required = false)]
    rate_per_second: Option<Rate>,
    /// The most that one settle or correction may lose; no bound when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(value_type = Amount, required = false)]
    max_loss: Option<Amount>,
    /// The actor.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
}

/// A bound that is there or not, but never blank.
fn bound<'de, D, T>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Bound,
{
    let blank = || serde::de::Error::custom(T::EMPTY);
    Option::<T>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

/// Creates a token, and shows it this once. It takes no idempotency key, since no answer of it is kept: one whose answer was lost
/// is revoked. The first token ends the open mode.
#[utoipa::path(
    post, path = "/access/tokens", tag = "access", request_body = TokenInput,
    responses((status = 201, description = "The token", body = CreatedToken), errors::Change)
)]
async fn create_token(
    State(access): State<Access>,
    caller: Caller,
    Input(input): Input<TokenInput>,
) -> Result<(StatusCode, Json<CreatedToken>)> {
    let new = NewToken {
        name: input.name,
        owner: input.owner,
        scopes: input.scopes.0,
        engines: input.engines.map(|list| list.0),
        domains: input.domains.map(|list| list.0),
        expires_in: input.expires_in,
        rate_per_second: input.rate_per_second.map(Rate::get),
        max_loss: input.max_loss,
    };
    let created = access.create(&new, input.reason.as_ref(), &caller.origin(input.actor, None)).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// The actor and the reason of a revocation.
#[derive(Debug, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct RevokeQuery {
    /// Who.
    actor: Option<Actor>,
    /// Why.
    reason: Option<Reason>,
}

impl CanStop for RevokeQuery {
    const OFF: Option<Off> = None;
    const IN_PATH: bool = true;
}

/// Ends a token, never refused for its words, on every instance within the state lease. One that was revoked before stays as it is.
#[utoipa::path(
    delete, path = "/access/tokens/{id}", tag = "access",
    params(("id" = inline(TokenId), Path, description = "The token's id: 16 hex digits"), RevokeQuery),
    responses((status = 200, description = "The token as it is known now", body = TokenRecord), errors::ReadOne)
)]
async fn revoke_token(
    State(access): State<Access>,
    caller: Caller,
    Segment(id): Segment<TokenId>,
    Stopping { input, ignored, .. }: Stopping<RevokeQuery>,
) -> Result<Response> {
    let revoked = access.revoke(id, input.reason.as_ref(), &caller.origin(input.actor, None)).await?;
    Ok(ignored.beside(Once::Done(revoked)))
}
