//! The HTTP routes of the tokens. The guard that checks tokens is in [`super::guard`].

use super::Access;
use super::model::{Bound, CreatedToken, NewToken, TokenPage, TokenRecord};
use crate::error::Result;
use crate::http::places::AsText;
use crate::http::{Caller, CanStop, Input, Off, Query, Segment, Stopping, errors, said};
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

said!(RevokeQuery);

/// The routes of the tokens, relative to the base path.
pub fn router() -> OpenApiRouter<Access> {
    OpenApiRouter::new().routes(routes!(list_tokens, create_token)).routes(routes!(revoke_token))
}

/// The page of tokens to read.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TokensQuery {
    /// The largest number of tokens, 1 to 1000; 1000 when left out.
    #[param(inline)]
    limit: Option<PageSize>,
    /// The id of the last token on the previous page. The page begins after it.
    #[param(inline)]
    after: Option<TokenId>,
}

/// Lists every token that was ever created, newest first, page by page. The tokens themselves are not shown.
#[utoipa::path(
    get, path = "/access/tokens", tag = "access", params(TokensQuery),
    responses(
        (status = 200, description = "Newest first. If there are more, Link names the next page", body = Vec<TokenRecord>,
         headers(("Link" = Option<String>, description = "If there are more: `<?limit=N&after=ID>; rel=\"next\"`, with `numbers=string` if the request had it"))),
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

/// A token to create. Lists are JSON arrays, or names separated by commas.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenInput {
    /// The token's name in events.
    name: TokenName,
    /// The token's scopes; at least one.
    #[schema(schema_with = List::<Scope>::schema)]
    scopes: List<Scope>,
    /// The person responsible for the token. The second person of an approval must be another owner.
    owner: Option<Actor>,
    /// The only engines that the token may change; all when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(schema_with = List::<Engine>::schema, required = false)]
    engines: Option<List<Engine>>,
    /// The only domains that the token may change; all when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(schema_with = List::<Domain>::schema, required = false)]
    domains: Option<List<Domain>>,
    /// The token's lifetime, such as `12h` or `30d`; unlimited when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(value_type = Lifetime, required = false)]
    expires_in: Option<Lifetime>,
    /// The most requests per second on each instance, 1 to 1000000; 20000 when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(value_type = Rate, required = false)]
    rate_per_second: Option<Rate>,
    /// The largest loss of one settle or correction; no bound when left out, and never blank.
    #[serde(default, deserialize_with = "bound")]
    #[schema(value_type = Amount, required = false)]
    max_loss: Option<Amount>,
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
}

/// Reads a bound, which may be absent but not blank.
fn bound<'de, D, T>(deserializer: D) -> std::result::Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Bound,
{
    let blank = || serde::de::Error::custom(T::EMPTY);
    Option::<T>::deserialize(deserializer)?.map(Some).ok_or_else(blank)
}

/// Creates a token, and shows it this once.
///
/// This route takes no idempotency key, since its answer is not kept. If the answer is lost, revoke the token. The
/// first token ends the open mode.
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
    /// The person or program that acts, as the caller claims.
    actor: Option<Actor>,
    /// The reason, in the caller's words.
    reason: Option<Reason>,
}

impl CanStop for RevokeQuery {
    const OFF: Option<Off> = None;
    const IN_PATH: bool = true;
}

/// Revokes a token on every instance, within the state lease.
///
/// An unreadable actor or reason is ignored. A token that was revoked before stays as it is.
#[utoipa::path(
    delete, path = "/access/tokens/{id}", tag = "access",
    params(("id" = inline(TokenId), Path, description = "The token's id: 16 hex digits"), RevokeQuery),
    responses((status = 200, description = "The token after the revocation", body = TokenRecord), errors::ReadOne)
)]
async fn revoke_token(
    State(access): State<Access>,
    Segment(id): Segment<TokenId>,
    Stopping { input, asked, ignored }: Stopping<RevokeQuery>,
) -> Result<Response> {
    let revoked = access.revoke(id, input.reason.as_ref(), &asked.origin).await?;
    Ok(ignored.beside(Once::Done(revoked)))
}
