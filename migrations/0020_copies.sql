-- A copy of a book works like the book. What copies it (pg_dump, pg_restore, logical replication) works with an empty search path, and
-- may put the tables into another schema: the trigger functions that look elsewhere name the schema of their table. They do so
-- at run time, since a schema that is written down here would be wrong in the copy. None of them is on the path of a decision.
CREATE OR REPLACE FUNCTION holdfast_guard_event() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before jsonb;
    after  jsonb;
    field  text;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        before := to_jsonb(OLD);
        after := to_jsonb(NEW);
        FOR field IN EXECUTE format('SELECT field FROM %I.audit_erasure WHERE stream = $1 AND seq = $2', TG_TABLE_SCHEMA)
            USING TG_ARGV[0], OLD.seq
        LOOP
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

CREATE OR REPLACE FUNCTION holdfast_turn_risk_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('UPDATE %I.audit_head SET turn = turn + 1 WHERE stream = $1', TG_TABLE_SCHEMA) USING 'risk';
    RETURN NULL;
END
$$;

-- Ordinary triggers from here on: where a change is applied a second time, as by logical replication, the head that it moved arrives
-- by itself, and one that was moved here as well would stand in its way for ever. Guards stay ALWAYS: what they refuse, nobody may do.
ALTER TABLE risk_policy   ENABLE TRIGGER turn, ENABLE TRIGGER turn_truncate;
ALTER TABLE risk_throttle ENABLE TRIGGER turn, ENABLE TRIGGER turn_truncate;
ALTER TABLE risk_halt     ENABLE TRIGGER turn;
