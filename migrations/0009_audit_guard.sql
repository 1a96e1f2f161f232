-- The trail guards itself: events are never changed or deleted, and heads only move forward. Correctness does not depend on
-- it (some engines have no triggers), and it stops nobody who owns the tables: it stops accidents, and an application role.
-- ENABLE ALWAYS: ordinary triggers are off while session_replication_role is replica.

-- What was erased of an event: free text enters the chain by its digest, which is kept here, so that the chain still holds.
-- Each row is backed by the control event AUDIT_ERASE.
CREATE TABLE audit_erasure (
    stream text   NOT NULL CHECK (stream IN ('control', 'risk', 'heimdall', 'kpi')),
    seq    bigint NOT NULL CHECK (seq > 0),
    field  text   NOT NULL CHECK (field IN ('reason', 'detail', 'metadata', 'recommendation', 'evidence')),
    -- SHA-256 of what stood there, lower-case hex.
    digest text   NOT NULL CHECK (digest ~ '^[0-9a-f]{64}$'),
    at     timestamptz NOT NULL,
    PRIMARY KEY (stream, seq, field)
);

-- An event may lose a free text whose digest was kept, and nothing else may happen to it. The stream is the trigger's argument.
CREATE FUNCTION holdfast_guard_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before jsonb;
    after  jsonb;
    field  text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        before := to_jsonb(OLD);
        after := to_jsonb(NEW);
        FOR field IN SELECT erased.field FROM audit_erasure AS erased WHERE erased.stream = TG_ARGV[0] AND erased.seq = OLD.seq LOOP
            -- It may be there or gone; it may not be another one.
            IF after -> field = 'null'::jsonb THEN
                before := before || jsonb_build_object(field, NULL);
            END IF;
        END LOOP;
        IF before = after THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'events of the audit trail are never changed or deleted (% on %)', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE FUNCTION holdfast_guard_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is never truncated (%)', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE FUNCTION holdfast_guard_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.stream = OLD.stream AND NEW.seq > OLD.seq AND NEW.at > OLD.at THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'heads of the audit trail only move forward (% of %)', TG_OP, OLD.stream
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON control_event FOR EACH ROW EXECUTE FUNCTION holdfast_guard_event('control');
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON risk_event FOR EACH ROW EXECUTE FUNCTION holdfast_guard_event('risk');
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON heimdall_event FOR EACH ROW EXECUTE FUNCTION holdfast_guard_event('heimdall');
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON kpi_event FOR EACH ROW EXECUTE FUNCTION holdfast_guard_event('kpi');
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON audit_head FOR EACH ROW EXECUTE FUNCTION holdfast_guard_head();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON control_event FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON risk_event FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON heimdall_event FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON kpi_event FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON audit_head FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON audit_erasure FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
ALTER TABLE control_event  ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
ALTER TABLE risk_event     ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
ALTER TABLE heimdall_event ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
ALTER TABLE kpi_event      ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
ALTER TABLE audit_head     ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
ALTER TABLE audit_erasure  ENABLE ALWAYS TRIGGER guard_truncate;
