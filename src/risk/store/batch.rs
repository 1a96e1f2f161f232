//! The writes of a batch of decisions. One statement writes nearly every batch: its events, reservations, counters,
//! denials, keys and head. Lists are `UNNEST`ed, so a single decision uses the same statement. Late settles and
//! corrections take one more each.

use super::corrections::{self, Corrected};
use crate::audit::{Head, Origin, Stamp};
use crate::error::{Error, Result};
use crate::idempotency::store::NewKeys;
use crate::risk::model::{DenialReason, Level, Reservation, RiskEvent, Usage};
use crate::types::{Actor, CorrelationId, Engine, JsonObject, Point, Reason, RequestId, Total};
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::PgConnection;
use std::borrow::Cow;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A sealed decision: its place, its origin, and its hash.
#[derive(Debug)]
pub struct Recorded<'a> {
    /// The place in the stream.
    pub stamp: Stamp,
    /// The caller; the ledger itself for an expiry.
    pub origin: Cow<'a, Origin>,
    /// The decision.
    pub event: RiskEvent,
    /// The hash of the event, 32 bytes.
    pub hash: Vec<u8>,
}

/// Denials by requested engine, level and reason.
pub type Denials = BTreeMap<(Engine, String, DenialReason), i64>;

/// The facts that a batch has read besides the head.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The version of the switches; none if they were read after every operation of the batch had arrived, so that no
    /// change of them can have been answered before an operation was sent.
    pub switches_version: Option<i64>,
    /// The database's time of the read; none if the head has been locked since.
    pub at: Option<DateTime<Utc>>,
}

/// Everything that a batch changes.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The events, at least one, all of one day.
    pub recorded: &'a [Recorded<'a>],
    /// The levels that moved.
    pub levels: Vec<(&'a Engine, &'a Level)>,
    /// Their counters before the batch.
    pub usage_before: Vec<Usage>,
    /// The last event before the batch.
    pub before: Point,
    /// The new reservations, as they are at the end of the batch.
    pub new: Vec<&'a Reservation>,
    /// The changed reservations that were open before the batch.
    pub changed: Vec<&'a Reservation>,
    /// The changed reservations that had expired before the batch.
    pub late: Vec<&'a Reservation>,
    /// The new keys.
    pub keys: &'a NewKeys,
    /// Denials by requested engine, level and reason.
    pub denials: &'a Denials,
    /// The corrected events after the batch, by number.
    pub corrected: &'a BTreeMap<i64, Corrected>,
}

impl Batch<'_> {
    /// True if one statement writes the batch.
    #[must_use]
    pub fn is_one_statement(&self) -> bool {
        self.late.is_empty() && self.corrected.is_empty()
    }

    /// True if it changes reservations, tallies denials, or keeps keys. A table that a statement names costs it something
    /// even without a change: a lone reserve a tenth for these three.
    fn has_further_parts(&self) -> bool {
        !(self.changed.is_empty() && self.denials.is_empty() && self.keys.keys.is_empty())
    }

    fn events<T>(&self, column: impl Fn(&Recorded<'_>) -> T) -> Vec<T> {
        self.recorded.iter().map(column).collect()
    }

    fn origins(&self, column: impl Fn(&Origin) -> Option<&str>) -> Vec<Option<String>> {
        self.recorded.iter().map(|one| column(&one.origin).map(str::to_owned)).collect()
    }

    fn counters(&self, column: fn(&Level) -> Decimal) -> Vec<Decimal> {
        self.levels.iter().map(|(_, level)| column(level)).collect()
    }

    fn counters_before(&self, column: fn(&Usage) -> Total) -> Vec<Decimal> {
        self.usage_before.iter().map(|usage| column(usage).to_decimal()).collect()
    }

    fn denied(&self, column: impl Fn(&Engine, &str, DenialReason) -> String) -> Vec<String> {
        self.denials.keys().map(|(engine, scope, reason)| column(engine, scope, *reason)).collect()
    }
}

fn of<T>(reservations: &[&Reservation], column: impl Fn(&Reservation) -> T) -> Vec<T> {
    reservations.iter().map(|one| column(one)).collect()
}

type Times = [Option<DateTime<Utc>>];
type Texts = [Option<String>];

/// Writes a batch.
///
/// Writes nothing and returns none unless the facts in `read` still hold; else the database's time. The head must be at
/// the event before the batch's first and at the same revision, so no fact that moves it has changed; the switches,
/// which do not move it, must be unchanged too. An optimistic batch also writes nothing if its read is more than a
/// second old, if a counter that it moves is another, or if another transaction holds the head. So it does not wait for
/// the head, and a process that was paused in between does nothing that was forbidden meanwhile.
///
/// A batch that is not [one statement](Batch::is_one_statement) needs a transaction.
///
/// # Errors
/// [`Error::IdempotencyKeyReused`] if another route has taken one of the keys meanwhile; decided again, the batch finds
/// that key.
pub async fn write_batch(
    conn: &mut PgConnection,
    batch: &Batch<'_>,
    head: &Head,
    read: Moment,
) -> Result<Option<DateTime<Utc>>> {
    let written = record(&mut *conn, batch, head, read).await;
    let Some(now) = written.map_err(|error| batch.keys.refused(error))? else {
        return Ok(None);
    };
    if !batch.late.is_empty() {
        settle_late(&mut *conn, &batch.late).await?;
    }
    if !batch.corrected.is_empty() {
        corrections::write(conn, batch.corrected).await?;
    }
    Ok(Some(now))
}

/// Settles reservations that had expired.
async fn settle_late(conn: &mut PgConnection, late: &[&Reservation]) -> Result<()> {
    let settled = sqlx::query!(
        "UPDATE risk_reservation AS kept
         SET status = r.status,
             closed_at = r.closed_at,
             closed_seq = r.closed_seq
         FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::bigint[]) AS r (id, status, closed_at, closed_seq)
         WHERE kept.id = r.id AND kept.status = 'EXPIRED' AND kept.closed_seq < r.closed_seq",
        &of(late, |one| one.id),
        &of(late, |one| one.status.as_str().to_owned()),
        &of(late, |one| one.closed.map(|stamp| stamp.at)) as &Times,
        &of(late, |one| one.closed.map(|stamp| stamp.seq)) as &[Option<i64>]
    )
    .execute(conn)
    .await?
    .rows_affected();
    if usize::try_from(settled).ok() == Some(late.len()) {
        return Ok(());
    }
    Err(Error::Inconsistent(format!("a batch settled {settled} of {} expired reservations", late.len())))
}

/// Writes everything but late settles and corrections, if the head has not moved.
#[expect(clippy::too_many_lines, reason = "one statement, one line a column")]
async fn record(
    conn: &mut PgConnection,
    batch: &Batch<'_>,
    head: &Head,
    read: Moment,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let (head_seq, head_hash, head_at) = head.stored();
    let optional = |text: Option<&str>| text.map(str::to_owned);
    // The parts that every batch has, and maybe further ones: the text of a checked query is a literal.
    macro_rules! statement {
        ($further:literal, $proven:literal $(, $value:expr)*) => {
            sqlx::query!(
                r#"WITH
                head AS (
                    UPDATE audit_head
                    SET seq = $38, hash = $39, at = $32
                    WHERE stream = (
                        SELECT stream
                        FROM audit_head
                        WHERE stream = 'risk' AND seq = $41 AND turn = $42 AND hash = $45
                          AND ($43::bigint IS NULL OR EXISTS (SELECT FROM go_live_state WHERE version = $43))
                          AND ($44::timestamptz IS NULL
                               OR holdfast_now() BETWEEN $44 - interval '1 s' AND $44 + interval '1 s'
                                  AND NOT EXISTS (
                                      SELECT
                                      FROM unnest($33::text[], $46::numeric[], $47::numeric[], $48::numeric[], $49::bigint[],
                                                  $50::timestamptz[])
                                           AS l (engine, exposure_used, realized_loss, open_amount, actions_count, updated_at)
                                      LEFT JOIN risk_open AS stock ON stock.engine = l.engine
                                      LEFT JOIN risk_ledger_day AS flow ON flow.day = $1 AND flow.engine = l.engine
                                      WHERE COALESCE(stock.open_amount, 0) <> l.open_amount
                                         OR COALESCE(flow.exposure_used, 0) <> l.exposure_used
                                         OR COALESCE(flow.realized_loss, 0) <> l.realized_loss
                                         OR COALESCE(flow.actions_count, 0) <> l.actions_count
                                         OR GREATEST(stock.updated_at, flow.updated_at) IS DISTINCT FROM l.updated_at))
                        FOR UPDATE SKIP LOCKED)
                    RETURNING seq),
                events AS (
                    INSERT INTO risk_event
                        (seq, at, principal, actor, request_id, correlation_id, engine, action, ok, amount, denial, scope,
                         reservation_id, day, exposure_delta, open_delta, loss_delta, actions_delta, reason, metadata, detail, hash)
                    SELECT e.seq, e.at, e.principal, e.actor, e.request_id, e.correlation_id, e.engine, e.action,
                           e.denial IS NULL, e.amount, e.denial, e.scope, e.reservation_id, $1, e.exposure_delta, e.open_delta,
                           e.loss_delta, e.actions_delta, e.reason, e.metadata, e.detail, e.hash
                    FROM unnest($2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                                $9::text[], $10::numeric[], $11::text[], $12::text[], $13::uuid[], $14::numeric[],
                                $15::numeric[], $16::numeric[], $17::bigint[], $18::text[], $19::text[], $20::text[],
                                $21::bytea[])
                         AS e (seq, at, principal, actor, request_id, correlation_id, engine, action, amount, denial, scope,
                               reservation_id, exposure_delta, open_delta, loss_delta, actions_delta, reason, metadata, detail,
                               hash)
                    WHERE EXISTS (SELECT FROM head)),
                made AS (
                    INSERT INTO risk_reservation
                        (id, seq, engine, amount, open_amount, status, day, correlation_id, created_at, expires_at, closed_at,
                         closed_seq)
                    SELECT r.id, r.seq, r.engine, r.amount, r.open_amount, r.status, $1, r.correlation_id, r.created_at,
                           r.expires_at, r.closed_at, r.closed_seq
                    FROM unnest($22::uuid[], $23::bigint[], $24::text[], $25::numeric[], $26::numeric[], $27::text[],
                                $28::text[], $29::timestamptz[], $30::timestamptz[], $31::bigint[], $40::timestamptz[])
                         AS r (id, seq, engine, amount, open_amount, status, correlation_id, created_at, closed_at, closed_seq,
                               expires_at)
                    WHERE EXISTS (SELECT FROM head)),
                flows AS (
                    INSERT INTO risk_ledger_day (day, engine, exposure_used, realized_loss, actions_count, updated_at)
                    SELECT $1, l.engine, l.exposure_used, l.realized_loss, l.actions_count, $32
                    FROM unnest($33::text[], $34::numeric[], $35::numeric[], $36::bigint[])
                         AS l (engine, exposure_used, realized_loss, actions_count)
                    WHERE EXISTS (SELECT FROM head)
                    ON CONFLICT (day, engine) DO UPDATE
                    SET exposure_used = excluded.exposure_used,
                        realized_loss = excluded.realized_loss,
                        actions_count = excluded.actions_count,
                        updated_at = excluded.updated_at),
                stocks AS (
                    INSERT INTO risk_open (engine, open_amount, updated_at)
                    SELECT l.engine, l.open_amount, $32
                    FROM unnest($33::text[], $37::numeric[]) AS l (engine, open_amount)
                    WHERE EXISTS (SELECT FROM head)
                    ON CONFLICT (engine) DO UPDATE
                    SET open_amount = excluded.open_amount, updated_at = excluded.updated_at)
                "# + $further + r#"
                SELECT holdfast_now() AS "now!", "# + $proven + r#" AS "proven!" FROM head"#,
                batch.recorded[0].stamp.day(),
                &batch.events(|one| one.stamp.seq),
                &batch.events(|one| one.stamp.at),
                &batch.events(|one| one.origin.principal.as_str().to_owned()),
                &batch.origins(|origin| origin.actor.as_ref().map(Actor::as_str)) as &Texts,
                &batch.origins(|origin| origin.request_id.as_ref().map(RequestId::as_str)) as &Texts,
                &batch.origins(|origin| origin.correlation_id.as_ref().map(CorrelationId::as_str)) as &Texts,
                &batch.events(|one| one.event.engine.to_string()),
                &batch.events(|one| one.event.action.as_str().to_owned()),
                &batch.events(|one| one.event.amount.to_decimal()),
                &batch.events(|one| optional(one.event.denial.as_ref().map(|(reason, _)| reason.as_str()))) as &Texts,
                &batch.events(|one| one.event.denial.as_ref().map(|(_, scope)| scope.clone())) as &Texts,
                &batch.events(|one| one.event.reservation_id) as &[Option<Uuid>],
                &batch.events(|one| one.event.movement.exposure.to_decimal()),
                &batch.events(|one| one.event.movement.open.to_decimal()),
                &batch.events(|one| one.event.movement.loss.to_decimal()),
                &batch.events(|one| one.event.movement.actions),
                &batch.events(|one| optional(one.event.annotations.reason.as_ref().map(Reason::as_str))) as &Texts,
                &batch.events(|one| optional(one.event.annotations.metadata.as_ref().map(JsonObject::as_str))) as &Texts,
                &batch.events(|one| one.event.detail.clone()),
                &batch.events(|one| one.hash.clone()),
                &of(&batch.new, |one| one.id),
                &of(&batch.new, |one| one.seq),
                &of(&batch.new, |one| one.engine.to_string()),
                &of(&batch.new, |one| one.amount.to_decimal()),
                &of(&batch.new, |one| one.open_amount.to_decimal()),
                &of(&batch.new, |one| one.status.as_str().to_owned()),
                &of(&batch.new, |one| one.correlation_id.clone()) as &Texts,
                &of(&batch.new, |one| one.created_at),
                &of(&batch.new, |one| one.closed.map(|stamp| stamp.at)) as &Times,
                &of(&batch.new, |one| one.closed.map(|stamp| stamp.seq)) as &[Option<i64>],
                head_at,
                &batch.levels.iter().map(|(engine, _)| engine.to_string()).collect::<Vec<_>>(),
                &batch.counters(|level| level.usage.exposure_used.to_decimal()),
                &batch.counters(|level| level.usage.realized_loss.to_decimal()),
                &batch.levels.iter().map(|(_, level)| level.usage.actions_count).collect::<Vec<_>>(),
                &batch.counters(|level| level.usage.open_risk_reserved.to_decimal()),
                head_seq,
                &head_hash[..],
                &of(&batch.new, |one| one.expires_at) as &Times,
                batch.before.seq,
                head.revision(),
                read.switches_version,
                read.at,
                &batch.before.hash[..],
                &batch.counters_before(|usage| usage.exposure_used),
                &batch.counters_before(|usage| usage.realized_loss),
                &batch.counters_before(|usage| usage.open_risk_reserved),
                &batch.usage_before.iter().map(|usage| usage.actions_count).collect::<Vec<_>>(),
                &batch.usage_before.iter().map(|usage| usage.updated_at).collect::<Vec<_>>() as &Times
                $(, $value)*
            )
            .fetch_optional(conn)
            .await?
            .map(|row| row.now)
        };
    }
    if !batch.has_further_parts() {
        return Ok(statement!("", "true"));
    }
    Ok(statement!(
        r#",
        changed AS (
            UPDATE risk_reservation AS kept
            SET open_amount = r.open_amount,
                status = r.status,
                expires_at = r.expires_at,
                closed_at = r.closed_at,
                closed_seq = r.closed_seq
            FROM unnest($51::uuid[], $52::numeric[], $53::text[], $54::timestamptz[], $55::timestamptz[], $56::bigint[])
                 AS r (id, open_amount, status, expires_at, closed_at, closed_seq)
            WHERE kept.id = r.id AND kept.status = 'OPEN' AND EXISTS (SELECT FROM head)
            RETURNING kept.id),
        tallied AS (
            INSERT INTO risk_denial_day (day, engine, scope, reason, denied)
            SELECT $1, d.engine, d.scope, d.reason, d.denied
            FROM unnest($57::text[], $58::text[], $59::text[], $60::bigint[]) AS d (engine, scope, reason, denied)
            WHERE EXISTS (SELECT FROM head)
            ON CONFLICT (day, engine, scope, reason) DO UPDATE
            SET denied = risk_denial_day.denied + excluded.denied),
        keyed AS (
            INSERT INTO idempotency_key (day, principal, key, route, fields, risk_seq, at)
            SELECT $1, n.principal, n.key, n.route, n.fields, n.risk_seq, n.at
            FROM unnest($61::text[], $62::text[], $63::text[], $64::text[], $65::bigint[], $66::timestamptz[])
                 AS n (principal, key, route, fields, risk_seq, at)
            WHERE EXISTS (SELECT FROM head))"#,
        "holdfast_require((SELECT count(*) FROM changed) = cardinality($51),
                          'a reservation that the batch changes is not open')",
        &of(&batch.changed, |one| one.id),
        &of(&batch.changed, |one| one.open_amount.to_decimal()),
        &of(&batch.changed, |one| one.status.as_str().to_owned()),
        &of(&batch.changed, |one| one.expires_at) as &Times,
        &of(&batch.changed, |one| one.closed.map(|stamp| stamp.at)) as &Times,
        &of(&batch.changed, |one| one.closed.map(|stamp| stamp.seq)) as &[Option<i64>],
        &batch.denied(|engine, _, _| engine.to_string()),
        &batch.denied(|_, scope, _| scope.to_owned()),
        &batch.denied(|_, _, reason| reason.as_str().to_owned()),
        &batch.denials.values().copied().collect::<Vec<_>>(),
        &batch.keys.principals,
        &batch.keys.keys,
        &batch.keys.routes,
        &batch.keys.fields,
        &batch.keys.seqs,
        &batch.keys.ats
    ))
}
