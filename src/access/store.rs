//! The SQL of the tokens.

use super::holder::Holder;
use super::meter::Meter;
use super::model::{NewToken, TokenRecord};
use crate::error::{Error, Result};
use crate::identity::Grant;
use crate::types::{Actor, Amount, Domain, Engine, Principal, Scope, TokenId};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use std::str::FromStr;
use std::sync::Arc;

/// The columns of a token that admission needs.
#[derive(Debug)]
pub(super) struct GrantRow {
    pub(super) id: TokenId,
    digest: [u8; 32],
    name: String,
    owner: Option<Actor>,
    scopes: Vec<Scope>,
    engines: Option<Vec<Engine>>,
    domains: Option<Vec<Domain>>,
    pub(super) rate_per_second: Option<u64>,
    max_loss: Option<Amount>,
    expires_at: Option<DateTime<Utc>>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
}

impl GrantRow {
    /// The token's name in events, if it may both measure and recommend.
    pub(super) fn grades_itself(&self) -> Option<String> {
        Scope::grade_themselves(&self.scopes).then(|| Principal::token(&self.name, self.id).as_str().to_owned())
    }

    pub(super) fn holder(self, meter: Arc<Meter>) -> Holder {
        let grant = Grant {
            principal: Principal::token(&self.name, self.id),
            owner: self.owner,
            scopes: self.scopes,
            engines: self.engines,
            domains: self.domains,
            max_loss: self.max_loss,
        };
        Holder {
            id: self.id,
            digest: self.digest,
            grant: Arc::new(grant),
            expires_at: self.expires_at,
            revoked_at: self.revoked_at,
            meter,
        }
    }
}

/// Parses a row's text. An unreadable text is an error.
fn stored<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::Inconsistent(format!("a token's row says {text:?}")))
}

fn stored_list<T: FromStr>(list: &[String]) -> Result<Vec<T>> {
    list.iter().map(|text| stored(text)).collect()
}

fn bound(decimal: Decimal) -> Result<Amount> {
    Amount::from_decimal(decimal).ok_or_else(|| Error::Inconsistent(format!("a token's row says {decimal}")))
}

/// The tokens that are valid at a time, and the last `ended` of those that had ended.
pub(super) async fn grants(conn: &mut PgConnection, at: DateTime<Utc>, ended: i64) -> Result<Vec<GrantRow>> {
    // Two reads of one index: tokens that ended long ago cost nothing, however many there are.
    let rows = sqlx::query!(
        r#"SELECT id     AS "id!",
                  digest AS "digest!",
                  name   AS "name!",
                  owner,
                  scopes AS "scopes!",
                  engines,
                  domains,
                  rate_per_second,
                  max_loss,
                  expires_at,
                  revoked_at
           FROM (SELECT * FROM access_token
                 WHERE COALESCE(LEAST(revoked_at, expires_at), 'infinity') > $1
                 UNION ALL
                 (SELECT * FROM access_token
                  WHERE COALESCE(LEAST(revoked_at, expires_at), 'infinity') <= $1
                  ORDER BY COALESCE(LEAST(revoked_at, expires_at), 'infinity') DESC
                  LIMIT $2)) AS token"#,
        at,
        ended
    )
    .fetch_all(conn)
    .await?;
    // A row that this version cannot read admits no caller, and refuses no other.
    let read = rows.into_iter().map(|row| {
        Ok::<_, Error>(GrantRow {
            id: stored(&row.id)?,
            digest: row.digest.try_into().map_err(|_| Error::Inconsistent("a token has no SHA-256".into()))?,
            name: row.name,
            owner: row.owner.as_deref().map(stored).transpose()?,
            scopes: stored_list(&row.scopes)?,
            engines: row.engines.as_deref().map(stored_list).transpose()?,
            domains: row.domains.as_deref().map(stored_list).transpose()?,
            rate_per_second: row.rate_per_second.and_then(|rate| rate.try_into().ok()),
            max_loss: row.max_loss.map(bound).transpose()?,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        })
    });
    Ok(read
        .filter_map(|row| {
            row.inspect_err(|error| tracing::error!(%error, "a token's row cannot be read: the token is refused")).ok()
        })
        .collect())
}

/// The number of tokens that are valid at a time.
pub(super) async fn count_valid(conn: &mut PgConnection, at: DateTime<Utc>) -> Result<usize> {
    let count = sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM access_token WHERE COALESCE(LEAST(revoked_at, expires_at), 'infinity') > $1"#,
        at
    )
    .fetch_one(conn)
    .await?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Whether a token was ever created.
pub async fn any(conn: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM access_token) AS "any!""#).fetch_one(conn).await?)
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    id: TokenId,
    digest: &[u8; 32],
    new: &NewToken,
    record: &TokenRecord,
) -> Result<()> {
    let id = id.to_string();
    let scopes: Vec<_> = new.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO access_token
             (id, digest, name, owner, scopes, engines, domains, rate_per_second, created_at, created_by, expires_at,
              max_loss)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        id,
        &digest[..],
        new.name.as_str(),
        new.owner.as_ref().map(Actor::as_str),
        &scopes,
        record.engines.as_deref(),
        record.domains.as_deref(),
        record.rate_per_second,
        record.created_at,
        record.created_by,
        record.expires_at,
        record.max_loss.map(Amount::to_decimal)
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The tokens to read, newest first.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// The token with this id.
    One(TokenId),
    /// This number of tokens after the given one, or from the newest on. Tokens are never deleted, so the place always
    /// exists.
    From(Option<TokenId>, i64),
}

/// Reads the wanted tokens.
pub(super) async fn list(conn: &mut PgConnection, wanted: Wanted) -> Result<Vec<TokenRecord>> {
    let (one, from, limit) = match wanted {
        Wanted::One(id) => (Some(id), None, 1),
        Wanted::From(from, limit) => (None, from, limit + i64::from(from.is_some())),
    };
    let rows = sqlx::query!(
        "SELECT id,
                name,
                owner,
                scopes,
                engines,
                domains,
                rate_per_second,
                max_loss,
                created_at,
                created_by,
                expires_at,
                revoked_at,
                revoked_by,
                last_used_at
         FROM access_token
         WHERE ($1::text IS NULL OR id = $1)
           AND ($2::text IS NULL OR (created_at, id) <= (SELECT created_at, id FROM access_token WHERE id = $2))
         ORDER BY created_at DESC, id DESC
         LIMIT $3",
        one.map(|id| id.to_string()),
        from.map(|id| id.to_string()),
        limit
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TokenRecord {
                id: row.id,
                name: row.name,
                owner: row.owner,
                scopes: stored_list(&row.scopes)?,
                engines: row.engines,
                domains: row.domains,
                rate_per_second: row.rate_per_second,
                max_loss: row.max_loss.map(bound).transpose()?,
                created_at: row.created_at,
                created_by: row.created_by,
                expires_at: row.expires_at,
                revoked_at: row.revoked_at,
                revoked_by: row.revoked_by,
                last_used_at: row.last_used_at,
            })
        })
        .collect()
}

pub(super) async fn revoke(conn: &mut PgConnection, id: TokenId, at: DateTime<Utc>, by: &str) -> Result<()> {
    let revoked = sqlx::query!(
        "UPDATE access_token
         SET revoked_at = $2, revoked_by = $3
         WHERE id = $1 AND revoked_at IS NULL",
        id.to_string(),
        at,
        by
    )
    .execute(conn)
    .await?;
    if revoked.rows_affected() == 1 {
        Ok(())
    } else {
        Err(Error::Inconsistent(format!("token {id} was revoked meanwhile")))
    }
}

pub(super) async fn note_uses(
    conn: &mut PgConnection,
    uses: impl Iterator<Item = (TokenId, DateTime<Utc>)>,
) -> Result<()> {
    let (ids, times): (Vec<_>, Vec<_>) = uses.map(|(id, at)| (id.to_string(), at)).unzip();
    sqlx::query!(
        "UPDATE access_token AS token
         SET last_used_at = used.at
         FROM unnest($1::text[], $2::timestamptz[]) AS used (id, at)
         WHERE token.id = used.id AND (token.last_used_at IS NULL OR token.last_used_at < used.at)",
        &ids,
        &times
    )
    .execute(conn)
    .await?;
    Ok(())
}
