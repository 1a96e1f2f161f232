//! The second implementation of the chain.

use sqlx::{Executor, PgPool};

/// Recomputes every hash of the four streams and compares, in SQL alone: a second implementation of the canonical form, which
/// knows nothing of the first. Says which links are broken, and which heads do not stand where their stream ends.
pub async fn broken_links(pool: &PgPool) -> Vec<String> {
    // `field`: length, 4 bytes big-endian, then the text; null is FFFFFFFF. `free`: a free text's own digest stands for it,
    // or the one that was kept when it was erased.
    const FUNCTIONS: &str = r"
        CREATE OR REPLACE FUNCTION pg_temp.field(value text) RETURNS bytea LANGUAGE sql AS $$
            SELECT CASE WHEN value IS NULL THEN '\xFFFFFFFF'::bytea
                        ELSE int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') END $$;
        CREATE OR REPLACE FUNCTION pg_temp.free(of text, place bigint, name text, value text) RETURNS bytea LANGUAGE sql AS $$
            SELECT pg_temp.field(COALESCE(encode(sha256(convert_to(value, 'UTF8')), 'hex'),
                                          (SELECT digest FROM audit_erasure WHERE (stream, seq, field) = (of, place, name)))) $$;
        CREATE OR REPLACE FUNCTION pg_temp.flag(value boolean) RETURNS bytea LANGUAGE sql AS $$
            SELECT pg_temp.field(CASE WHEN value THEN 'true' WHEN NOT value THEN 'false' END) $$;
        CREATE OR REPLACE FUNCTION pg_temp.exact(value numeric) RETURNS bytea LANGUAGE sql AS $$
            SELECT pg_temp.field(trim_scale(value)::text) $$;
        CREATE OR REPLACE FUNCTION pg_temp.origin(stream text, seq bigint, at timestamptz, principal text, actor text,
                                                  request_id text, correlation_id text) RETURNS bytea LANGUAGE sql AS $$
            SELECT '\x01'::bytea || pg_temp.field(stream) || pg_temp.field(seq::text)
                || pg_temp.field(trunc(extract(epoch FROM at) * 1000000)::bigint::text) || pg_temp.field(principal)
                || pg_temp.field(actor) || pg_temp.field(request_id) || pg_temp.field(correlation_id) $$";
    const LINKS: &str = r"
        WITH event (stream, seq, at, hash, canonical) AS (
            SELECT 'control', seq, at, hash,
                   pg_temp.origin('control', seq, at, principal, actor, request_id, correlation_id)
                   || pg_temp.field(action) || pg_temp.field(subject) || pg_temp.flag(ok) || pg_temp.field(error)
                   || pg_temp.free('control', seq, 'reason', reason) || pg_temp.free('control', seq, 'detail', detail)
            FROM control_event
            UNION ALL
            SELECT 'risk', seq, at, hash,
                   pg_temp.origin('risk', seq, at, principal, actor, request_id, correlation_id)
                   || pg_temp.field(engine) || pg_temp.field(action) || pg_temp.flag(ok) || pg_temp.exact(amount)
                   || pg_temp.field(denial) || pg_temp.field(scope) || pg_temp.field(reservation_id::text)
                   || pg_temp.field(to_char(day, 'YYYY-MM-DD')) || pg_temp.exact(exposure_delta) || pg_temp.exact(open_delta)
                   || pg_temp.exact(loss_delta) || pg_temp.field(actions_delta::text)
                   || pg_temp.free('risk', seq, 'reason', reason) || pg_temp.free('risk', seq, 'metadata', metadata) || pg_temp.free('risk', seq, 'detail', detail)
            FROM risk_event
            UNION ALL
            SELECT 'heimdall', seq, at, hash,
                   pg_temp.origin('heimdall', seq, at, principal, actor, request_id, correlation_id)
                   || pg_temp.field(domain) || pg_temp.field(action) || pg_temp.flag(ok) || pg_temp.exact(confidence)
                   || pg_temp.flag(success) || pg_temp.field(recommendation_id::text) || pg_temp.field(gate_reason)
                   || pg_temp.field(model_version)
                   || pg_temp.free('heimdall', seq, 'reason', reason) || pg_temp.free('heimdall', seq, 'recommendation', recommendation) || pg_temp.free('heimdall', seq, 'evidence', evidence) || pg_temp.free('heimdall', seq, 'detail', detail)
            FROM heimdall_event
            UNION ALL
            SELECT 'kpi', seq, at, hash,
                   pg_temp.origin('kpi', seq, at, principal, actor, request_id, correlation_id)
                   || pg_temp.field(domain) || pg_temp.field(metric) || pg_temp.field(series_seq::text)
                   || pg_temp.flag(success) || pg_temp.exact(value) || pg_temp.exact(series_sum) || pg_temp.field(event_id)
                   || pg_temp.free('kpi', seq, 'detail', detail)
            FROM kpi_event),
        link AS (
            SELECT stream, seq, hash, canonical,
                   lag(seq, 1, 0::bigint) OVER w AS seq_before,
                   lag(hash, 1, decode(repeat('00', 32), 'hex')) OVER w AS hash_before,
                   lag(at) OVER w < at AS later
            FROM event WINDOW w AS (PARTITION BY stream ORDER BY seq))
        SELECT stream || ' ' || seq FROM link
        WHERE hash <> sha256(hash_before || canonical) OR seq <> seq_before + 1 OR NOT COALESCE(later, true)
        UNION ALL
        SELECT 'head of ' || h.stream
        FROM audit_head AS h
        LEFT JOIN (SELECT DISTINCT ON (stream) * FROM event ORDER BY stream, seq DESC) AS last USING (stream)
        WHERE (h.seq, h.hash) IS DISTINCT FROM (COALESCE(last.seq, 0), COALESCE(last.hash, decode(repeat('00', 32), 'hex')))
           OR h.at <> last.at
        ORDER BY 1";
    let mut conn = pool.acquire().await.unwrap();
    (&mut *conn).execute(FUNCTIONS).await.unwrap();
    sqlx::query_scalar(LINKS).fetch_all(&mut *conn).await.unwrap()
}
