-- Events of the risk stream and reservations that have ended are kept in partitions, so that old ones can be archived and
-- dropped without touching the rest. The existing rows become the first partition as they are: they are read once, for its bounds, and
-- not rewritten. Open reservations get a partition of their own, which stays as small as what is outstanding.
--
-- The version before runs on: the tables keep their names and columns.
LOCK TABLE risk_event, risk_reservation IN ACCESS EXCLUSIVE MODE;

-- The events, by number.
ALTER TABLE risk_event RENAME TO risk_event_1;
ALTER INDEX risk_event_pkey RENAME TO risk_event_1_pkey;
ALTER INDEX risk_event_engine RENAME TO risk_event_1_engine;
ALTER INDEX risk_event_correlation RENAME TO risk_event_1_correlation;
ALTER INDEX risk_event_denied_engine RENAME TO risk_event_1_denied_engine;
ALTER INDEX risk_event_denied_principal RENAME TO risk_event_1_denied_principal;
-- Times are found by their numbers.
DROP INDEX risk_event_at;
-- The partitioned table has the row trigger, and gives it to each partition.
DROP TRIGGER guard ON risk_event_1;

CREATE TABLE risk_event (LIKE risk_event_1, PRIMARY KEY (seq)) PARTITION BY RANGE (seq);
ALTER TABLE risk_event
    ADD CONSTRAINT risk_event_engine_check1 CHECK (engine <> 'GLOBAL'),
    ADD CONSTRAINT risk_event_hash_check CHECK (octet_length(hash) = 32),
    ADD CONSTRAINT risk_event_seq_check CHECK (seq > 0),
    -- Not validated on the rows of the first partition either.
    ADD CONSTRAINT risk_event_is_sound CHECK (holdfast_risk_event_is_sound(
        at, day, action, ok, amount, denial, scope, reservation_id, exposure_delta, open_delta, loss_delta, actions_delta)) NOT VALID;
-- GET /risk/events by correlation, newest first. By engine, each partition has an index of its own: rising numbers fill its
-- pages, which falling ones, as in the first partition of an older book, leave half empty.
CREATE INDEX risk_event_correlation ON risk_event (correlation_id, seq DESC) WHERE correlation_id IS NOT NULL;
-- The original settle asks whether its correlation was ever denied to its engine or its caller.
CREATE INDEX risk_event_denied_engine ON risk_event (correlation_id, engine) WHERE action = 'DENY' AND correlation_id IS NOT NULL;
CREATE INDEX risk_event_denied_principal ON risk_event (correlation_id, principal) WHERE action = 'DENY' AND correlation_id IS NOT NULL;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON risk_event FOR EACH ROW EXECUTE FUNCTION holdfast_guard_event('risk');
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON risk_event FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
ALTER TABLE risk_event ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;

-- The reservations, by whether they are open; the ended ones by the event that ended them. So a reservation that ends
-- always has a place, however old its reserve is.
ALTER TABLE risk_reservation RENAME TO risk_reservation_1;
ALTER INDEX risk_reservation_pkey RENAME TO risk_reservation_1_pkey;
ALTER INDEX risk_reservation_seq_key RENAME TO risk_reservation_1_seq_key;
ALTER INDEX risk_reservation_correlation RENAME TO risk_reservation_1_correlation;
DROP INDEX risk_reservation_due, risk_reservation_open;
-- Rows that have ended do not change, but for a late settle.
ALTER TABLE risk_reservation_1 SET (fillfactor = 100);

CREATE TABLE risk_reservation (LIKE risk_reservation_1) PARTITION BY LIST (status);
ALTER TABLE risk_reservation
    ADD CONSTRAINT risk_reservation_engine_check CHECK (engine <> 'GLOBAL'),
    ADD CONSTRAINT risk_reservation_seq_check CHECK (seq > 0),
    ADD CONSTRAINT risk_reservation_is_sound CHECK (holdfast_reservation_is_sound(
        amount, open_amount, status, day, created_at, expires_at, closed_at, seq, closed_seq)) NOT VALID;
-- The original settle asks whether any reservation ever carried its correlation; GET /risk/reservations filters by it.
CREATE INDEX risk_reservation_correlation ON risk_reservation (correlation_id, engine, seq) WHERE correlation_id IS NOT NULL;

CREATE TABLE risk_reservation_open PARTITION OF risk_reservation (PRIMARY KEY (id)) FOR VALUES IN ('OPEN');
-- The original settle, oldest first; the reconciliation of the stock; GET /risk/reservations?status=OPEN.
CREATE INDEX risk_reservation_open_engine ON risk_reservation_open (engine, seq);
-- Due holds, oldest first; every batch of the writer asks.
CREATE INDEX risk_reservation_open_due ON risk_reservation_open (expires_at, seq) WHERE expires_at IS NOT NULL;
-- Each reservation leaves a dead row here when it ends: a small table that is cleaned often stays small.
ALTER TABLE risk_reservation_open SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 1, autovacuum_vacuum_cost_delay = 0);

-- Not made as a partition: its condition would be valid, and could not be given to a partition where it is not.
CREATE TABLE risk_reservation_closed (LIKE risk_reservation) PARTITION BY RANGE (closed_seq);
ALTER TABLE risk_reservation_closed
    ADD CONSTRAINT risk_reservation_engine_check CHECK (engine <> 'GLOBAL'),
    ADD CONSTRAINT risk_reservation_seq_check CHECK (seq > 0),
    ADD CONSTRAINT risk_reservation_is_sound CHECK (holdfast_reservation_is_sound(
        amount, open_amount, status, day, created_at, expires_at, closed_at, seq, closed_seq)) NOT VALID;
ALTER TABLE risk_reservation
    ATTACH PARTITION risk_reservation_closed FOR VALUES IN ('SETTLED', 'RELEASED', 'EXPIRED');

-- A reservation that ends is deleted from one partition and inserted into another: logical replication of the whole table
-- finds the first by its status. It costs nothing but where wal_level is logical.
ALTER TABLE risk_reservation REPLICA IDENTITY FULL;
ALTER TABLE risk_reservation_closed REPLICA IDENTITY FULL;
ALTER TABLE risk_reservation_open REPLICA IDENTITY FULL;
ALTER TABLE risk_reservation_1 REPLICA IDENTITY FULL;

WITH gone AS (DELETE FROM risk_reservation_1 WHERE status = 'OPEN' RETURNING *)
INSERT INTO risk_reservation_open SELECT * FROM gone;

-- Where there are no rows yet, the first partition is made like the next ones. Lists go by the events, so an ended
-- reservation is only looked up by its id; the version before needs the other index of its rows.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM risk_reservation_1) THEN
        ALTER TABLE risk_reservation_1 DROP CONSTRAINT risk_reservation_1_seq_key;
    END IF;
    IF NOT EXISTS (SELECT FROM risk_event_1) THEN
        DROP INDEX risk_event_1_engine;
        CREATE INDEX risk_event_1_engine ON risk_event_1 (engine, seq);
    END IF;
END
$$;

-- The first partition ends ten million events from here; a server makes the next ones long before.
DO $$
DECLARE
    bound bigint := ((SELECT seq FROM audit_head WHERE stream = 'risk') / 1000000 + 11) * 1000000 + 1;
BEGIN
    EXECUTE format('ALTER TABLE risk_event ATTACH PARTITION risk_event_1 FOR VALUES FROM (MINVALUE) TO (%s)', bound);
    EXECUTE format('ALTER TABLE risk_reservation_closed ATTACH PARTITION risk_reservation_1 FOR VALUES FROM (MINVALUE) TO (%s)', bound);
END
$$;
ALTER TABLE risk_event_1 ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
