//! After every row: is the ledger what its events say, does it hold what was answered, and does the chain hold? In SQL, which
//! knows nothing of the service's code. A figure of a ledger that is wrong is worth nothing, so the first difference ends the
//! run.

use crate::Result;
use crate::numbers::grouped;
use crate::place::Instance;
use crate::script::Counts;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::fmt;
use uuid::Uuid;

/// Hashes that are recomputed after a row, from its last event backwards: seconds of SQL.
const CHAIN_MAX: i64 = 200_000;

/// The stocks and what the open reservations add up to, where they differ.
const STOCKS: &str = "
    WITH engine AS (SELECT engine, sum(open_amount) AS held FROM risk_reservation WHERE status = 'OPEN' GROUP BY engine),
    held AS (SELECT * FROM engine UNION ALL SELECT 'GLOBAL', sum(held) FROM engine)
    SELECT format('the stock of %s is %s, its open reservations hold %s', engine, open_amount, held)
    FROM held FULL JOIN risk_open USING (engine)
    WHERE COALESCE(open_amount, 0) <> COALESCE(held, 0)";

/// The flows of a day and what its events moved, where they differ.
const FLOWS: &str = "
    WITH engine AS (SELECT day, engine, sum(exposure_delta) AS exposure, sum(loss_delta) AS loss, sum(actions_delta) AS actions
                    FROM risk_event WHERE action <> 'DENY' GROUP BY day, engine),
    moved AS (SELECT * FROM engine
              UNION ALL SELECT day, 'GLOBAL', sum(exposure), sum(loss), sum(actions) FROM engine GROUP BY day)
    SELECT format('the flows of %s on %s are %s/%s/%s, its events moved %s/%s/%s', engine, day,
                  exposure_used, realized_loss, actions_count, exposure, loss, actions)
    FROM moved FULL JOIN risk_ledger_day USING (day, engine)
    WHERE (COALESCE(exposure_used, 0), COALESCE(realized_loss, 0), COALESCE(actions_count, 0))
       <> (COALESCE(exposure, 0), COALESCE(loss, 0), COALESCE(actions, 0))";

/// Gaps, a head that is not the end, reservations without an event.
const STREAM: &str = "
    WITH event AS (SELECT count(*) AS events, COALESCE(min(seq), 1) AS lowest, COALESCE(max(seq), 0) AS highest,
                          count(*) FILTER (WHERE action = 'RESERVE') AS reserves FROM risk_event),
    made AS (SELECT count(*) AS reservations FROM risk_reservation),
    ending AS (SELECT head.seq AS head, head.seq = 0 OR event.hash = head.hash AS same
               FROM audit_head AS head LEFT JOIN risk_event AS event USING (seq) WHERE head.stream = 'risk')
    SELECT format('%s events from %s to %s, head %s (its hash: %s), %s reserves, %s reservations',
                  events, lowest, highest, head, same, reserves, reservations)
    FROM event, made, ending
    WHERE NOT (lowest = 1 AND highest = events AND head = events AND COALESCE(same, false) AND reserves = reservations)";

/// The state at the beginning of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(i64);

impl Mark {
    pub(crate) async fn now(db: &mut PgConnection) -> Result<Self> {
        let head = sqlx::query("SELECT seq FROM audit_head WHERE stream = 'risk'");
        Ok(Self(head.fetch_one(db).await?.get(0)))
    }
}

/// The findings of a row's check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    /// Events of the row.
    pub(crate) events: i64,
    /// How many of their hashes were recomputed.
    pub(crate) hashes: i64,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (events, hashes) = (grouped(self.events.unsigned_abs()), grouped(self.hashes.unsigned_abs()));
        write!(f, "{events} events, {hashes} hashes recomputed, 0 differences")
    }
}

/// Checks the books against what was answered since the mark. `ids`: the reservations that were granted; empty where they
/// were not kept. An error names what is wrong.
pub(crate) async fn check(
    db: &mut PgConnection,
    service: &Instance,
    mark: Mark,
    counts: Counts,
    ids: &[u128],
) -> Result<Checked> {
    let mut wrong = Vec::new();
    for sql in [STREAM, STOCKS, FLOWS] {
        let rows = sqlx::query(sql).fetch_all(&mut *db).await?;
        wrong.extend(rows.iter().map(|row| row.get::<String, _>(0)));
    }
    let events = answered(db, mark, counts, &mut wrong).await?;
    if !ids.is_empty() && ids.len() as u64 != counts.allowed {
        wrong.push(format!("{} approvals named {} reservations", counts.allowed, ids.len()));
    }
    granted(db, mark, ids, &mut wrong).await?;
    let hashes = chain(db, mark, &mut wrong).await?;
    reconciliation(service, &mut wrong).await?;
    if wrong.is_empty() {
        return Ok(Checked { events, hashes });
    }
    wrong.truncate(20);
    Err(format!("THE BOOKS ARE WRONG:\n{}", wrong.join("\n")).into())
}

/// Every answer has its event. With nothing unknown, every event has its answer, too. Gives the number of events.
async fn answered(db: &mut PgConnection, mark: Mark, counts: Counts, wrong: &mut Vec<String>) -> Result<i64> {
    let mut sum = 0;
    for (action, answers) in [("RESERVE", counts.allowed), ("DENY", counts.denied), ("SETTLE", counts.settled)] {
        let query = sqlx::query("SELECT count(*) FROM risk_event WHERE seq > $1 AND action = $2");
        let events: i64 = query.bind(mark.0).bind(action).fetch_one(&mut *db).await?.get(0);
        sum += events;
        let answers = i64::try_from(answers)?;
        if answers > events || (answers < events && counts.all_known()) {
            wrong.push(format!("{answers} answers to {events} {action} events"));
        }
    }
    Ok(sum)
}

/// Every reservation that was granted is there, and none was granted twice.
async fn granted(db: &mut PgConnection, mark: Mark, ids: &[u128], wrong: &mut Vec<String>) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let query = sqlx::query("SELECT reservation_id FROM risk_event WHERE seq > $1 AND action = 'RESERVE'");
    let rows = query.bind(mark.0).fetch_all(db).await?;
    let mut there: Vec<u128> = rows.iter().map(|row| row.get::<Uuid, _>(0).as_u128()).collect();
    there.sort_unstable();
    wrong.extend(
        there.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("two events made {:x}", pair[0])),
    );
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    wrong.extend(
        ids.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("{:x} was granted twice", pair[0])),
    );
    let lost = ids.iter().filter(|id| there.binary_search(id).is_err());
    wrong.extend(lost.map(|id| format!("{id:x} was granted and is not there")));
    Ok(())
}

/// Recomputes the hashes of the row's last events from their columns and compares. Gives how many there were.
async fn chain(db: &mut PgConnection, mark: Mark, wrong: &mut Vec<String>) -> Result<i64> {
    let head = Mark::now(db).await?;
    let from = mark.0.max(head.0 - CHAIN_MAX);
    let sql = format!(
        "WITH link AS (
             SELECT seq, hash, {} AS canonical, lag(at) OVER w < at AS later, lag(seq, 1, 0::bigint) OVER w AS seq_before,
                    lag(hash, 1, decode(repeat('00', 32), 'hex')) OVER w AS hash_before
             FROM risk_event WHERE seq >= $1 WINDOW w AS (ORDER BY seq))
         SELECT count(*), min(seq) FILTER (WHERE NOT (seq_before = seq - 1 AND later IS NOT FALSE
                                                      AND hash = sha256(hash_before || canonical)))
         FROM link WHERE seq > $1",
        canonical()
    );
    let row = sqlx::query(AssertSqlSafe(sql)).bind(from).fetch_one(db).await?;
    if let Some(seq) = row.get::<Option<i64>, _>(1) {
        wrong.push(format!("the chain breaks at risk event {seq}"));
    }
    Ok(row.get(0))
}

/// The canonical form of a risk event as an SQL expression, as docs/AUDIT.md describes it.
fn canonical() -> String {
    let field = |value: &str| {
        format!("COALESCE(int4send(octet_length({value})) || convert_to({value}, 'UTF8'), '\\xFFFFFFFF'::bytea)")
    };
    let exact = |column: &str| field(&format!("trim_scale({column})::text"));
    // A digest has 64 digits.
    let free = |column: &str| {
        let digest = format!("encode(sha256(convert_to({column}, 'UTF8')), 'hex')");
        format!("COALESCE('\\x00000040'::bytea || convert_to({digest}, 'UTF8'), '\\xFFFFFFFF'::bytea)")
    };
    [
        "'\\x01'::bytea".to_owned(),
        field("'risk'::text"),
        field("seq::text"),
        field("trunc(extract(epoch FROM at) * 1000000)::bigint::text"),
        field("principal"),
        field("actor"),
        field("request_id"),
        field("correlation_id"),
        field("engine"),
        field("action"),
        field("ok::text"),
        exact("amount"),
        field("denial"),
        field("scope"),
        field("reservation_id::text"),
        field("to_char(day, 'YYYY-MM-DD')"),
        exact("exposure_delta"),
        exact("open_delta"),
        exact("loss_delta"),
        field("actions_delta::text"),
        free("reason"),
        free("metadata"),
        free("detail"),
    ]
    .join(" || ")
}

/// The service's own reconciliation agrees.
async fn reconciliation(service: &Instance, wrong: &mut Vec<String>) -> Result<()> {
    let (status, body) = service.get(&format!("{}/risk/reconciliation", crate::http::BASE)).await?;
    if status != 200 || !body.contains(r#""differences":[]"#) {
        wrong.push(format!("GET /risk/reconciliation was answered {status}: {body}"));
    }
    Ok(())
}

/// The outstanding amount of an engine, and the number of reserves that it was ever granted: never above its cap.
pub(crate) async fn under_cap(db: &mut PgConnection, engine: &str, cap: u64, answers: u64) -> Result<()> {
    let query = sqlx::query(
        "SELECT (SELECT open_amount::bigint FROM risk_open WHERE engine = $1),
                (SELECT count(*) FROM risk_event WHERE engine = $1 AND action = 'RESERVE')",
    );
    let row = query.bind(engine).fetch_one(db).await?;
    let (stock, events) = (row.get::<Option<i64>, _>(0).unwrap_or_default(), row.get::<i64, _>(1));
    let cap = i64::try_from(cap)?;
    let answers = i64::try_from(answers)?;
    // Denied reserves were denied because the cap was reached, which the books show exactly.
    if stock == cap && events == cap && answers <= cap {
        return Ok(());
    }
    let cap = grouped(cap.unsigned_abs());
    Err(format!("THE BOOKS ARE WRONG: a cap of {cap} and {answers} approvals, {events} reserves, a stock of {stock}")
        .into())
}
