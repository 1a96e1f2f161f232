-- A writer that is alone need not hold the risk head while it decides: it reads the head with everything else, and its one statement
-- writes only if the head still stands there. So whatever a reserve rests on has to move the head, also where it is no event of the
-- stream: policies, throttles and the halt move its turn. (Switches do not: what is decided meanwhile is covered by guaranteed_by.)
ALTER TABLE audit_head ADD COLUMN turn bigint NOT NULL DEFAULT 0;

CREATE OR REPLACE FUNCTION holdfast_guard_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.stream = OLD.stream THEN
        IF NEW.seq > OLD.seq AND NEW.at > OLD.at AND NEW.turn >= OLD.turn
           OR NEW.turn > OLD.turn AND (NEW.seq, NEW.hash, NEW.at) = (OLD.seq, OLD.hash, OLD.at) THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'heads of the audit trail only move forward (% of %)', TG_OP, OLD.stream
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- In the database, so that no program can forget it, an older one neither.
CREATE FUNCTION holdfast_turn_risk_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE audit_head SET turn = turn + 1 WHERE stream = 'risk';
    RETURN NULL;
END
$$;

-- A row that is not there moves nothing: an erasure that looks for a reason in every table holds the control head, behind which nobody
-- may wait for the risk head.
CREATE TRIGGER turn          AFTER INSERT OR UPDATE OR DELETE ON risk_policy   FOR EACH ROW       EXECUTE FUNCTION holdfast_turn_risk_head();
CREATE TRIGGER turn          AFTER INSERT OR UPDATE OR DELETE ON risk_throttle FOR EACH ROW       EXECUTE FUNCTION holdfast_turn_risk_head();
CREATE TRIGGER turn_truncate AFTER TRUNCATE                   ON risk_policy   FOR EACH STATEMENT EXECUTE FUNCTION holdfast_turn_risk_head();
CREATE TRIGGER turn_truncate AFTER TRUNCATE                   ON risk_throttle FOR EACH STATEMENT EXECUTE FUNCTION holdfast_turn_risk_head();
-- A repair sets counters and lifts the halt, whether there is one or not: by that it moves the turn.
CREATE TRIGGER turn AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON risk_halt  FOR EACH STATEMENT EXECUTE FUNCTION holdfast_turn_risk_head();
ALTER TABLE risk_policy   ENABLE ALWAYS TRIGGER turn, ENABLE ALWAYS TRIGGER turn_truncate;
ALTER TABLE risk_throttle ENABLE ALWAYS TRIGGER turn, ENABLE ALWAYS TRIGGER turn_truncate;
ALTER TABLE risk_halt     ENABLE ALWAYS TRIGGER turn;
