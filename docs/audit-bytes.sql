-- Rebuilds in PostgreSQL the bytes of every event that the audit chain covers. docs/AUDIT.md uses it.
--
--   { cat docs/audit-bytes.sql; echo 'SELECT seq, canonical FROM control_bytes;'; } | holdfast db psql
--
-- It creates four temporary views: control_bytes, heimdall_bytes, kpi_bytes and risk_bytes (seq, the stored hash, canonical). They
-- end with the connection. It changes nothing else.
\set ON_ERROR_STOP on
\set QUIET on

-- Overrides settings of the role or the database: the form of literals and days, and read-only transactions, which forbid views.
SET standard_conforming_strings = on;
SET datestyle = 'ISO, MDY';
SET timezone = 'UTC';
SET bytea_output = 'hex';
SET default_transaction_read_only = off;

-- The length in four big-endian bytes, then the value; null is four bytes FF.
CREATE FUNCTION pg_temp.field(value text) RETURNS bytea LANGUAGE sql AS
$$ SELECT CASE WHEN value IS NULL THEN '\xffffffff'::bytea
          ELSE int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8') END $$;

-- A free text enters by its digest: computed from the text, or kept when the text was erased.
CREATE FUNCTION pg_temp.free(stream text, seq bigint, field text, value text) RETURNS bytea LANGUAGE sql AS
$$ SELECT pg_temp.field(COALESCE(encode(sha256(convert_to(value, 'UTF8')), 'hex'),
     (SELECT digest FROM audit_erasure AS gone
      WHERE (gone.stream, gone.seq, gone.field) = (free.stream, free.seq, free.field)))) $$;

-- The fields that every event begins with.
CREATE FUNCTION pg_temp.head(stream text, seq bigint, at timestamptz, principal text, actor text, request_id text,
                             correlation_id text) RETURNS bytea LANGUAGE sql AS
$$ SELECT '\x01'::bytea || pg_temp.field(stream) || pg_temp.field(seq::text)
     || pg_temp.field((extract(epoch FROM at) * 1000000)::bigint::text)
     || pg_temp.field(principal) || pg_temp.field(actor) || pg_temp.field(request_id) || pg_temp.field(correlation_id) $$;

CREATE TEMPORARY VIEW control_bytes AS SELECT seq, hash,
  pg_temp.head('control', seq, at, principal, actor, request_id, correlation_id)
  || pg_temp.field(action) || pg_temp.field(subject) || pg_temp.field(ok::text) || pg_temp.field(error)
  || pg_temp.free('control', seq, 'reason', reason) || pg_temp.free('control', seq, 'detail', detail) AS canonical
FROM control_event;

CREATE TEMPORARY VIEW heimdall_bytes AS SELECT seq, hash,
  pg_temp.head('heimdall', seq, at, principal, actor, request_id, correlation_id)
  || pg_temp.field(domain) || pg_temp.field(action) || pg_temp.field(ok::text)
  || pg_temp.field(trim_scale(confidence)::text) || pg_temp.field(success::text)
  || pg_temp.field(recommendation_id::text) || pg_temp.field(gate_reason) || pg_temp.field(model_version)
  || pg_temp.free('heimdall', seq, 'reason', reason) || pg_temp.free('heimdall', seq, 'recommendation', recommendation)
  || pg_temp.free('heimdall', seq, 'evidence', evidence) || pg_temp.free('heimdall', seq, 'detail', detail) AS canonical
FROM heimdall_event;

CREATE TEMPORARY VIEW kpi_bytes AS SELECT seq, hash,
  pg_temp.head('kpi', seq, at, principal, actor, request_id, correlation_id)
  || pg_temp.field(domain) || pg_temp.field(metric) || pg_temp.field(series_seq::text) || pg_temp.field(success::text)
  || pg_temp.field(trim_scale(value)::text) || pg_temp.field(trim_scale(series_sum)::text) || pg_temp.field(event_id)
  || pg_temp.free('kpi', seq, 'detail', detail) AS canonical
FROM kpi_event;

CREATE TEMPORARY VIEW risk_bytes AS SELECT seq, hash,
  pg_temp.head('risk', seq, at, principal, actor, request_id, correlation_id)
  || pg_temp.field(engine) || pg_temp.field(action) || pg_temp.field(ok::text) || pg_temp.field(trim_scale(amount)::text)
  || pg_temp.field(denial) || pg_temp.field(scope) || pg_temp.field(reservation_id::text) || pg_temp.field(day::text)
  || pg_temp.field(trim_scale(exposure_delta)::text) || pg_temp.field(trim_scale(open_delta)::text)
  || pg_temp.field(trim_scale(loss_delta)::text) || pg_temp.field(actions_delta::text)
  || pg_temp.free('risk', seq, 'reason', reason) || pg_temp.free('risk', seq, 'metadata', metadata)
  || pg_temp.free('risk', seq, 'detail', detail) AS canonical
FROM risk_event;
