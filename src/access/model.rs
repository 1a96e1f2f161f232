//! The settings of a new token, and the record that is shown of one.

use crate::types::Scope;
use crate::types::{Actor, Amount, Domain, Engine, Lifetime, List, Rate, TokenId, TokenName};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

/// A bound of a token. One that is given and empty is refused: the variable of a script that was never set would make a token without
/// the bound.
pub(super) trait Bound {
    /// The refusal, with the fix.
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
    const EMPTY: &'static str = "is empty: send the requests a second, or leave it out for 20000";
}

impl Bound for Amount {
    const EMPTY: &'static str = "is empty: send the largest loss of one settle, or leave it out for no bound";
}

/// A token that is to be created.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name in events.
    pub name: TokenName,
    /// The person who answers for it.
    pub owner: Option<Actor>,
    /// Its scopes; at least one.
    pub scopes: Vec<Scope>,
    /// The only engines that it may change; none for all, and never an empty list.
    pub engines: Option<Vec<Engine>>,
    /// The only domains that it may change; none for all, and never an empty list.
    pub domains: Option<Vec<Domain>>,
    /// How long it lasts; none for until it is revoked.
    pub expires_in: Option<Lifetime>,
    /// Requests a second and an instance; none for the server's own limit.
    pub rate_per_second: Option<i64>,
    /// The most that one settle or correction may lose; none for no bound.
    pub max_loss: Option<Amount>,
}

/// The record of a token: everything but the token.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TokenRecord {
    /// Its id, the part between `hf_` and the secret.
    pub id: String,
    /// Its name; events say `name:id`.
    pub name: String,
    /// The person who answers for it.
    pub owner: Option<String>,
    /// Its scopes.
    pub scopes: Vec<Scope>,
    /// The only engines that it may change; null for all.
    pub engines: Option<Vec<String>>,
    /// The only domains that it may change; null for all.
    pub domains: Option<Vec<String>>,
    /// Requests a second and an instance; null for the server's own limit.
    pub rate_per_second: Option<i64>,
    /// The most that one settle or correction may lose; null for no bound.
    pub max_loss: Option<Amount>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
    /// When it ends by itself; null for never.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked; null while it was not.
    pub revoked_at: Option<DateTime<Utc>>,
    /// By whom.
    pub revoked_by: Option<String>,
    /// When it was last used, to the minute and a minute late; null for never.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// A page of the tokens, newest first.
#[derive(Debug)]
pub struct TokenPage {
    /// The tokens.
    pub tokens: Vec<TokenRecord>,
    /// The token that the next page begins after; none on the last page.
    pub next: Option<TokenId>,
}

/// A token that was created. This is the only time that it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedToken {
    /// The token: send it as `Authorization: Bearer <token>`. It is kept nowhere.
    pub token: String,
    /// Its record.
    #[serde(flatten)]
    pub record: TokenRecord,
    /// Points to think of before it is handed out.
    pub warnings: Vec<String>,
}

/// The faults of a token of these scopes, although it can be made.
pub(super) fn warnings(scopes: &[Scope]) -> Vec<String> {
    let warning = "whoever holds this token may both measure and recommend, so an AI that holds it grades itself: give the AI recommend, \
                   and what measures it measure";
    Scope::grade_themselves(scopes).then(|| warning.to_owned()).into_iter().collect()
}
