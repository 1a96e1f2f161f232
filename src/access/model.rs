//! The settings of a new token, and the record of a token that is shown.

use crate::types::Scope;
use crate::types::{Actor, Amount, Domain, Engine, Lifetime, List, Rate, TokenId, TokenName};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// A bound of a token. A bound that is given but empty is refused, since an unset variable of a script would otherwise
/// create a token without the bound.
pub(super) trait Bound {
    /// The text of the refusal, with the fix.
    const EMPTY: &'static str;
}

impl Bound for List<Engine> {
    const EMPTY: &'static str = "is empty: name the engines that the token may change, or leave it out for no bound";
}

impl Bound for List<Domain> {
    const EMPTY: &'static str = "is empty: name the domains that the token may change, or leave it out for no bound";
}

impl Bound for Lifetime {
    const EMPTY: &'static str =
        "is empty: send a lifetime like 12h or 30d, or leave it out for a token that lasts until it is revoked";
}

impl Bound for Rate {
    const EMPTY: &'static str = "is empty: send the requests per second, or leave it out for 20000";
}

impl Bound for Amount {
    const EMPTY: &'static str = "is empty: send the largest loss of one settle, or leave it out for no bound";
}

/// The settings of a token to create.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The token's name in events.
    pub name: TokenName,
    /// The person responsible for the token.
    pub owner: Option<Actor>,
    /// The token's scopes; at least one.
    pub scopes: Vec<Scope>,
    /// The only engines that the token may change; none for all, and never an empty list.
    pub engines: Option<Vec<Engine>>,
    /// The only domains that the token may change; none for all, and never an empty list.
    pub domains: Option<Vec<Domain>>,
    /// The token's lifetime; none if it lasts until it is revoked.
    pub expires_in: Option<Lifetime>,
    /// The most requests per second on each instance; none for the server's own limit.
    pub rate_per_second: Option<i64>,
    /// The largest loss of one settle or correction; none for no bound.
    pub max_loss: Option<Amount>,
}

/// The record of a token, without the token itself.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenRecord {
    /// The token's id, the part between `hf_` and the secret.
    pub id: String,
    /// The token's name; events say `name:id`.
    pub name: String,
    /// The person responsible for the token; null if it has none.
    pub owner: Option<String>,
    /// The token's scopes.
    pub scopes: Vec<Scope>,
    /// The only engines that the token may change; null for all.
    pub engines: Option<Vec<String>>,
    /// The only domains that the token may change; null for all.
    pub domains: Option<Vec<String>>,
    /// The most requests per second on each instance; null for the server's own limit.
    pub rate_per_second: Option<i64>,
    /// The largest loss of one settle or correction; null for no bound.
    pub max_loss: Option<Amount>,
    /// The time of the creation.
    pub created_at: DateTime<Utc>,
    /// The caller who created the token.
    pub created_by: String,
    /// The time at which the token expires; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// The time of the revocation; null if the token is not revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// The caller who revoked the token; null if it is not revoked.
    pub revoked_by: Option<String>,
    /// The time of the last use, in whole minutes and up to a minute late; null for never.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A page of the tokens, newest first.
#[derive(Debug)]
pub struct TokenPage {
    /// The tokens of the page.
    pub tokens: Vec<TokenRecord>,
    /// The token after which the next page begins; none on the last page.
    pub next: Option<TokenId>,
}

/// A token that was just created. It is shown only this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// The token: send it as `Authorization: Bearer <token>`. It is stored nowhere.
    pub token: String,
    /// The token's record.
    #[serde(flatten)]
    pub record: TokenRecord,
    /// Warnings to read before the token is handed out.
    pub warnings: Vec<String>,
}

/// The warnings about a token with these scopes, which is created all the same.
pub(super) fn warnings(scopes: &[Scope]) -> Vec<String> {
    let warning = "this token may both measure and recommend, so an AI that holds it grades itself: give the AI recommend, \
                   and what measures it measure";
    Scope::grade_themselves(scopes).then(|| warning.to_owned()).into_iter().collect()
}
