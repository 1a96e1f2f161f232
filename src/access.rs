//! Tokens, their scopes, and the refusals before a handler runs. The guard of the business's own routes is not here,
//! but in [`crate::enforcement`].
//!
//! Invariants:
//! - Deny by default: a caller needs the scope in the route's row of [`crate::enforcement::routes`]; a route without a
//!   row refuses every caller.
//! - A token has 256 random bits; the database holds its SHA-256. The token is shown once and stored nowhere, not in
//!   events, logs or kept answers.
//! - Creating and revoking a token are control events. Refused attempts of authenticated callers are events, too; other
//!   refusals are only counted.
//! - While no token was ever created, a service on a loopback address is open ([`guard`]), but to no web page and no
//!   proxy.
//!
//! Statements: none per request ([`register`]); 5 to create or revoke (lock, time, row, event, head), and one that
//! counts before a token is created.

pub mod guard;
mod holder;
pub mod http;
mod meter;
pub mod model;
pub mod open;
pub mod person;
pub mod rate;
pub mod register;
pub mod store;
pub mod token;

use crate::audit::{ControlEvent, Origin, Stream};
use crate::clock::Clock;
use crate::db::{self, Database};
use crate::enforcement::feed::Feed;
use crate::error::{Error, Result, require_room};
use crate::types::{Amount, ControlAction, Domain, Engine, List, PageSize, Reason, TokenId};
use chrono::{DateTime, Utc};
use model::{Bound, CreatedToken, NewToken, TokenPage, TokenRecord};
use register::Register;
use serde::Serialize;
use sqlx::PgConnection;
use std::sync::Arc;
use std::time::Duration;
use store::Wanted;
use token::Token;

/// The service of the tokens.
#[derive(Debug, Clone)]
pub struct Access {
    db: Database,
    feed: Feed,
    register: Register,
    tokens_max: usize,
}

impl Access {
    /// The service on this database. The feed renews its register; its own changes reach the register at once.
    #[must_use]
    pub fn new(db: Database, clock: Clock, feed: Feed, tokens_max: usize) -> Self {
        let register = Register::new(clock, feed.lease());
        let feed = feed.followed_by(Arc::new(register.clone()));
        Self { db, feed, register, tokens_max }
    }

    /// The tokens as this instance knows them.
    #[must_use]
    pub const fn register(&self) -> &Register {
        &self.register
    }

    /// Creates a token. The result holds the only copy of it.
    pub async fn create(&self, new: &NewToken, reason: Option<&Reason>, origin: &Origin) -> Result<CreatedToken> {
        let created = create(&self.db, new, Some(self.tokens_max), reason, origin).await?;
        self.feed.publish_access(&self.db).await;
        Ok(created)
    }

    /// Revokes a token. A token that was revoked before stays as it is.
    pub async fn revoke(&self, id: TokenId, reason: Option<&Reason>, origin: &Origin) -> Result<TokenRecord> {
        let revoked = revoke(&self.db, id, reason, origin).await?;
        self.feed.publish_access(&self.db).await;
        Ok(revoked)
    }

    /// A page of all tokens ever created, newest first, after this one.
    pub async fn list(&self, after: Option<TokenId>, limit: PageSize) -> Result<TokenPage> {
        list(&self.db, after, limit).await
    }

    /// Records that an authenticated caller was refused a change of the control plane.
    pub async fn note_refusal(&self, route: &str, path: &str, code: &'static str, origin: &Origin) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let mut head = self.db.history().lock(&mut tx, Stream::Control).await?;
        let event = ControlEvent::new(ControlAction::AccessRefused)
            .about(route)
            .refused(code)
            .detail(&RefusalDetail { path: crate::types::bounded(path) });
        event.append(&mut tx, &mut head, origin).await?;
        db::commit(tx).await
    }
}

/// The interval at which the last uses of tokens are written to the database.
const USES_EVERY: Duration = Duration::from_mins(1);

/// Writes the last uses of tokens to the database, until the task is ended. A crash loses up to a minute of them.
pub async fn note_uses(register: Register, db: Database) {
    let mut turns = tokio::time::interval(USES_EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let noted = async { register.note_uses(&mut *db.work().await?).await };
        if let Err(error) = noted.await {
            tracing::warn!(%error, "the last uses of tokens could not be written: this is tried again");
        }
    }
}

/// The refused request, for the audit trail.
#[derive(Serialize)]
struct RefusalDetail<'a> {
    path: &'a str,
}

/// A page of all tokens ever created, newest first: after this one, or from the newest on.
pub async fn list(db: &Database, after: Option<TokenId>, limit: PageSize) -> Result<TokenPage> {
    let shown = usize::try_from(limit.get()).unwrap_or(usize::MAX);
    // One more token than the page holds tells whether there is a next page.
    let mut tokens = store::list(&mut *db.read().await?, Wanted::From(after, limit.get() + 1)).await?;
    if let Some(id) = after {
        if tokens.first().is_none_or(|first| first.id != id.to_string()) {
            return Err(Error::invalid(
                "after",
                "is not the id of a token: send the id of the last token on the previous page",
            ));
        }
        tokens.remove(0);
    }
    let has_more = tokens.len() > shown;
    tokens.truncate(shown);
    let last = tokens.last().filter(|_| has_more);
    let next = last.map(|last| last.id.parse()).transpose();
    let next = next.map_err(|error| Error::Inconsistent(format!("a token's id cannot be read: {error}")))?;
    Ok(TokenPage { tokens, next })
}

/// The tokens that are valid now and may both measure and recommend, as events name them.
pub async fn grade_themselves(conn: &mut PgConnection, now: DateTime<Utc>) -> Result<Vec<String>> {
    let valid = store::grants(conn, now, 0).await?;
    Ok(valid.iter().filter_map(store::GrantRow::grades_itself).collect())
}

/// Creates a token if fewer than `limit` are valid; none sets no limit. The limit exists since each change reads all
/// valid tokens.
pub async fn create(
    db: &Database,
    new: &NewToken,
    tokens_max: Option<usize>,
    reason: Option<&Reason>,
    origin: &Origin,
) -> Result<CreatedToken> {
    if new.scopes.is_empty() {
        return Err(Error::invalid("scopes", "is empty: name at least one scope"));
    }
    if let Some((one, other)) = new.owner.as_ref().and_then(|owner| person::mixed(owner.as_str())) {
        let detail = format!("mixes {one} and {other} letters, some of which look alike: write it in one alphabet");
        return Err(Error::invalid("owner", detail));
    }
    if let Some(letter) = new.owner.as_ref().and_then(|owner| person::unfit(owner.as_str())) {
        let detail = format!(
            "has U+{:04X}, which looks like another character or like nothing: write it in letters of a language in use today, with \
             accents, digits 0 to 9, spaces and plain punctuation",
            u32::from(letter)
        );
        return Err(Error::invalid("owner", detail));
    }
    if new.engines.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::invalid("engines", List::<Engine>::EMPTY));
    }
    if new.domains.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::invalid("domains", List::<Domain>::EMPTY));
    }
    if new.max_loss.is_some_and(Amount::is_zero) {
        return Err(Error::invalid("max_loss", "is 0: send the largest loss of one settle, or leave it out"));
    }
    let token = Token::generate()?;
    let mut tx = db.begin().await?;
    let mut head = db.history().lock(&mut tx, Stream::Control).await?;
    let at = head.next().at;
    if let Some(limit) = tokens_max {
        require_room("valid tokens", store::count_valid(&mut tx, at).await?, limit, "TOKENS_MAX")?;
    }
    let expires_at = match &new.expires_in {
        Some(lifetime) => Some(lifetime.after(at).ok_or_else(|| Error::invalid("expires_in", "is too far ahead"))?),
        None => None,
    };
    let record = TokenRecord {
        id: token.id().to_string(),
        name: new.name.to_string(),
        owner: new.owner.as_ref().map(ToString::to_string),
        scopes: new.scopes.clone(),
        engines: new.engines.as_ref().map(|list| list.iter().map(ToString::to_string).collect()),
        domains: new.domains.as_ref().map(|list| list.iter().map(ToString::to_string).collect()),
        rate_per_second: new.rate_per_second,
        max_loss: new.max_loss,
        created_at: at,
        created_by: origin.principal.as_str().to_owned(),
        expires_at,
        revoked_at: None,
        revoked_by: None,
        last_used_at: None,
    };
    store::insert(&mut tx, token.id(), &token.digest(), new, &record).await?;
    let event = ControlEvent::new(ControlAction::TokenCreate).about(&record.id).because(reason).detail(&record);
    event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    let warnings = model::warnings(&record.scopes);
    Ok(CreatedToken { token: token.expose().to_owned(), record, warnings })
}

/// Revokes a token, for the service and for the shell. A token that was revoked before stays as it is.
pub async fn revoke(db: &Database, id: TokenId, reason: Option<&Reason>, origin: &Origin) -> Result<TokenRecord> {
    let _lane = db.switch_lane(&origin.principal).await?;
    // Revoking only tightens, so it also works where events are lost.
    let mut tx = db.begin_switch().await?;
    let mut head = db.history().lock_to_tighten(&mut tx, Stream::Control).await?;
    let found = store::list(&mut tx, Wanted::One(id)).await?.into_iter().next();
    let mut record = found.ok_or_else(|| Error::NotFound { what: "token", id: id.to_string() })?;
    if record.revoked_at.is_some() {
        db::confirm(tx).await?;
        return Ok(record);
    }
    let (at, by) = (head.next().at, origin.principal.as_str());
    store::revoke(&mut tx, id, at, by).await?;
    (record.revoked_at, record.revoked_by) = (Some(at), Some(by.to_owned()));
    let event = ControlEvent::new(ControlAction::TokenRevoke).about(&record.id).because(reason).detail(&record);
    event.append(&mut tx, &mut head, origin).await?;
    db::commit(tx).await?;
    Ok(record)
}
