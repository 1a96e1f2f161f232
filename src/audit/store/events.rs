//! SQL of the events of any stream. Column names come from [`super::super::layout`], so it cannot be checked at compile
//! time.

use crate::audit::Stream;
use crate::audit::events::{Cursor, EventRecord, Filter, Found, Merged, Order, Rest, Stretch, json_of, merge};
use crate::audit::layout::{Column, Kind};
use crate::db::archived;
use crate::error::{Error, Result};
use crate::types::STRETCH;
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Postgres, QueryBuilder, Row};
use std::collections::BTreeMap;

/// A page of the list. The connection must be in a transaction that sees one instant of the database.
///
/// Statements: the heads; for each wanted stream a search for `from` and `to`, its rows, and the time at the end of its
/// range; the erased texts of the rows.
pub(crate) async fn page(
    conn: &mut PgConnection,
    filter: &Filter,
    order: Order,
    cursor: Option<Cursor>,
    limit: i64,
) -> Result<Merged> {
    let heads = head_seqs(&mut *conn).await?;
    let begin = Stream::ALL.map(|stream| if order == Order::Desc { heads[&stream] + 1 } else { 0 });
    let cursor = cursor.unwrap_or(Cursor { order, places: begin });
    let (mut found, mut archived) = ([const { None }; 4], Vec::new());
    for ((stream, place), found) in Stream::ALL.into_iter().zip(cursor.places).zip(&mut found) {
        let Some(wanted) = filter.of(stream) else { continue };
        let (first, last) = within(&mut *conn, stream, heads[&stream], filter.from, filter.to).await?;
        let first = first.max(made_by(&mut *conn, &wanted).await?);
        archived.extend(archived::since(&mut *conn, stream, filter.from).await?);
        let length = (!leads(stream, &wanted)).then_some(STRETCH);
        let stretch = Stretch::new(order, place, (first, last), length);
        *found = Some(look(&mut *conn, stream, &wanted, order, (stretch, place), limit).await?);
    }
    let mut merged = merge(cursor, found, usize::try_from(limit).unwrap_or(usize::MAX));
    note_erased(conn, &mut merged.rows).await?;
    merged.archived = archived;
    Ok(merged)
}

/// True if an index leads to these events, however far apart they are.
fn leads(stream: Stream, wanted: &[(Column, Vec<&str>)]) -> bool {
    let indexed: &[&str] = match stream {
        Stream::Control => &["action"],
        Stream::Risk => &["engine"],
        Stream::Heimdall | Stream::Kpi => &["domain"],
    };
    match wanted {
        [] => true,
        [(only, _)] if indexed.contains(&only.name) => true,
        // So few events share one correlation id that the other conditions can be checked on each.
        _ => wanted.iter().any(|(column, _)| column.name == "correlation_id"),
    }
}

pub(super) async fn head_seqs(conn: &mut PgConnection) -> Result<BTreeMap<Stream, i64>> {
    let rows = sqlx::query!("SELECT stream, seq FROM audit_head").fetch_all(conn).await?;
    let heads: BTreeMap<_, _> =
        rows.into_iter().filter_map(|row| Some((Stream::named(&row.stream)?, row.seq))).collect();
    if heads.len() == Stream::ALL.len() { Ok(heads) } else { Err(Error::Inconsistent("a stream has no head".into())) }
}

/// The first and the last event of a stream that the database has from `from` on and before `to`. The last is before the
/// first if there are none.
pub(crate) async fn between(
    conn: &mut PgConnection,
    stream: Stream,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<(i64, i64)> {
    let head = super::head_seq(&mut *conn, stream).await?;
    within(conn, stream, head, from, to).await
}

async fn within(
    conn: &mut PgConnection,
    stream: Stream,
    head: i64,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<(i64, i64)> {
    let first = match from {
        Some(from) => first_at(&mut *conn, stream, head, from).await?,
        None => 1,
    };
    let last = match to {
        Some(to) => first_at(&mut *conn, stream, head, to).await? - 1,
        None => head,
    };
    Ok((first.max(first_kept(conn, stream, head).await?), last))
}

/// The first event that is not archived; the number after the head if there is none.
async fn first_kept(conn: &mut PgConnection, stream: Stream, head: i64) -> Result<i64> {
    let sql = AssertSqlSafe(format!("SELECT seq FROM {} ORDER BY seq LIMIT 1", stream.table()));
    let first: Option<i64> = sqlx::query_scalar(sql).fetch_optional(conn).await?;
    Ok(first.unwrap_or(head + 1))
}

/// The first event at or after this time; the number after the head if there is none. Times rise with the numbers, so a
/// binary search by the key finds it in a few dozen steps.
pub(crate) async fn first_at(conn: &mut PgConnection, stream: Stream, head: i64, at: DateTime<Utc>) -> Result<i64> {
    let sql = format!(
        "WITH RECURSIVE search (low, high) AS (
             SELECT 1::bigint, $2 + 1
             UNION ALL
             SELECT CASE WHEN probe.at < $1 THEN probe.middle + 1 ELSE low END,
                    CASE WHEN probe.at < $1 THEN high ELSE probe.middle END
             FROM search,
                  LATERAL (SELECT (low + high) / 2 AS middle,
                                  (SELECT at FROM {table} WHERE seq >= (low + high) / 2 ORDER BY seq LIMIT 1) AS at) AS probe
             WHERE low < high
         )
         SELECT low FROM search WHERE low = high",
        table = stream.table()
    );
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).bind(at).bind(head).fetch_one(conn).await?)
}

/// The event that made the wanted reservation: no earlier event concerns it. 1 if no reservation is asked for.
async fn made_by(conn: &mut PgConnection, wanted: &[(Column, Vec<&str>)]) -> Result<i64> {
    let asked = wanted.iter().find(|(column, _)| column.kind == Kind::Uuid);
    let Some(id) = asked.and_then(|(_, ids)| ids.first().copied()) else {
        return Ok(1);
    };
    let made = sqlx::query_scalar!("SELECT seq FROM risk_reservation WHERE id = $1::text::uuid", id);
    // Restored events may tell of a reservation that is gone.
    Ok(made.fetch_optional(conn).await?.unwrap_or(1))
}

/// The wanted events in a range of a stream.
async fn look(
    conn: &mut PgConnection,
    stream: Stream,
    wanted: &[(Column, Vec<&str>)],
    order: Order,
    (stretch, place): (Stretch, i64),
    limit: i64,
) -> Result<Found> {
    let reached = stretch.reached(order, place);
    if stretch.low > stretch.high {
        return Ok(Found { rows: [].into(), reached, rest: Rest::Nothing });
    }
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new(select(stream));
    sql.push(" WHERE seq BETWEEN ").push_bind(stretch.low).push(" AND ").push_bind(stretch.high);
    for (column, values) in wanted {
        sql.push(" AND ").push(column.name).push(" = ");
        // With a single value the plan can follow the order of an index.
        match values.as_slice() {
            [one] => sql.push_bind(*one),
            several => sql.push("ANY(").push_bind(several.to_vec()).push(")"),
        };
        if column.kind == Kind::Uuid {
            sql.push("::uuid");
        }
    }
    sql.push(if order == Order::Desc { " ORDER BY seq DESC LIMIT " } else { " ORDER BY seq LIMIT " });
    sql.push_bind(limit + 1);
    // Planned for these values: a generic plan would not know how rare they are.
    let rows = sql.build().persistent(false).fetch_all(&mut *conn).await?;
    let rest = match (i64::try_from(rows.len()).is_ok_and(|count| count <= limit), stretch.last) {
        (false, _) => Rest::Rows,
        (true, true) => Rest::Nothing,
        (true, false) => edge(conn, stream, order, stretch).await?.map_or(Rest::Nothing, Rest::Unseen),
    };
    let rows = rows.iter().map(|row| record(stream, row)).collect::<Result<_>>()?;
    Ok(Found { rows, reached, rest })
}

/// The time of the event at the end of a range.
async fn edge(
    conn: &mut PgConnection,
    stream: Stream,
    order: Order,
    stretch: Stretch,
) -> Result<Option<DateTime<Utc>>> {
    let (seq, by) = match order {
        Order::Desc => (stretch.low, "seq >= $1 ORDER BY seq"),
        Order::Asc => (stretch.high, "seq <= $1 ORDER BY seq DESC"),
    };
    let sql = AssertSqlSafe(format!("SELECT at FROM {} WHERE {by} LIMIT 1", stream.table()));
    Ok(sqlx::query_scalar(sql).bind(seq).fetch_optional(conn).await?)
}

/// Every column as text, so that numbers and times of all kinds are shown exactly.
fn select(stream: Stream) -> String {
    let columns = stream.columns().iter().skip(2).map(|column| match column.kind {
        Kind::Decimal => format!("trim_scale({})::text", column.name),
        Kind::Day => format!("to_char({}, 'YYYY-MM-DD')", column.name),
        _ => format!("{}::text", column.name),
    });
    let columns: Vec<_> = columns.collect();
    format!("SELECT seq, at, encode(hash, 'hex'), {} FROM {}", columns.join(", "), stream.table())
}

fn record(stream: Stream, row: &PgRow) -> Result<EventRecord> {
    let columns = (3..).zip(stream.columns().iter().skip(2)).map(|(at, column)| {
        let text: Option<String> = row.try_get(at)?;
        Ok((column.name, text.map(|text| json_of(stream, *column, &text))))
    });
    Ok(EventRecord {
        stream,
        seq: row.try_get(0)?,
        at: row.try_get(1)?,
        columns: columns.collect::<Result<_>>()?,
        hash: row.try_get(2)?,
        erased: Vec::new(),
    })
}

/// Makes [`copy`] follow the index until the transaction ends: without fresh statistics PostgreSQL would sort a table
/// that is already in order, and on disk.
pub(crate) async fn read_in_order(conn: &mut PgConnection) -> Result<()> {
    conn.execute(
        "SET LOCAL enable_seqscan = off;
         SET LOCAL enable_bitmapscan = off;
         SET LOCAL enable_sort = off;
         SET LOCAL max_parallel_workers_per_gather = 0",
    )
    .await?;
    Ok(())
}

/// The COPY statement for every column and the hash of the events after `behind`, up to and including `to`, in order.
pub(crate) fn copy(stream: Stream, behind: i64, to: Option<i64>) -> String {
    let columns: Vec<_> = stream.columns().iter().map(|column| column.name).collect();
    let to = to.map_or_else(String::new, |to| format!("AND seq <= {to} "));
    // From the beginning, include rows that were put before the first event.
    let behind = if behind == 0 { i64::MIN } else { behind };
    format!(
        "COPY (SELECT {}, hash FROM {} WHERE seq > {behind} {to}ORDER BY seq) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        stream.table()
    )
}

async fn note_erased(conn: &mut PgConnection, rows: &mut [EventRecord]) -> Result<()> {
    let found = sqlx::query!(
        "SELECT stream,
                seq,
                field
         FROM audit_erasure
         WHERE (stream, seq) IN (SELECT * FROM unnest($1::text[], $2::bigint[]))
         ORDER BY field",
        &rows.iter().map(|row| row.stream.as_str().to_owned()).collect::<Vec<_>>(),
        &rows.iter().map(|row| row.seq).collect::<Vec<_>>()
    )
    .fetch_all(conn)
    .await?;
    for erased in found {
        if let Some(row) = rows.iter_mut().find(|row| (row.stream.as_str(), row.seq) == (&erased.stream, erased.seq)) {
            row.erased.push(erased.field);
        }
    }
    Ok(())
}
