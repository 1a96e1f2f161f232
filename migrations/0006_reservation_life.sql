-- The whole life of a reservation: it may be released, extended, or expire; and a book that does not balance stops itself.

-- How long a hold stands that names no time of its own. Null: until somebody ends it.
ALTER TABLE risk_policy
    ADD COLUMN default_ttl_seconds bigint CHECK (default_ttl_seconds BETWEEN 1 AND 2592000),
    -- GLOBAL holds nothing itself.
    ADD CHECK (engine <> 'GLOBAL' OR default_ttl_seconds IS NULL);

-- When a hold is due. Null: never. What is due and not yet expired still counts: conservative, and never wrong.
ALTER TABLE risk_reservation
    ADD COLUMN expires_at timestamptz CHECK (expires_at > created_at AND isfinite(expires_at));
-- What is due, oldest first; every batch of the writer asks, so it holds nothing but open holds that can expire.
CREATE INDEX risk_reservation_due ON risk_reservation (expires_at, seq) WHERE status = 'OPEN' AND expires_at IS NOT NULL;

-- PostgreSQL reads a table's CHECKs anew for every statement that inserts: for a batch of one, those of the two largest tables
-- were a quarter of its time, and under load the patterns alone a tenth. What a row says about the ledger is still checked here;
-- how long a text is and what a name is made of, its one parser has checked before.
ALTER TABLE risk_event
    DROP CONSTRAINT risk_event_engine_check,
    DROP CONSTRAINT risk_event_principal_check,
    DROP CONSTRAINT risk_event_actor_check,
    DROP CONSTRAINT risk_event_request_id_check,
    DROP CONSTRAINT risk_event_correlation_id_check,
    DROP CONSTRAINT risk_event_reason_check;
ALTER TABLE risk_reservation
    DROP CONSTRAINT risk_reservation_engine_check,
    DROP CONSTRAINT risk_reservation_correlation_id_check,
    ADD CHECK (engine <> 'GLOBAL');
ALTER TABLE risk_open
    DROP CONSTRAINT risk_open_engine_check;
ALTER TABLE risk_ledger_day
    DROP CONSTRAINT risk_ledger_day_engine_check;

-- What the new actions may move, in as few words as it takes. Only a reserve counts; a loss comes with a settle or a correction.
ALTER TABLE risk_event
    ADD CHECK (actions_delta = 0 OR action = 'RESERVE'),
    ADD CHECK (loss_delta = 0 OR action IN ('SETTLE', 'ADJUST')),
    -- It did not happen, or nobody told in time: all the risk comes back.
    ADD CHECK (action NOT IN ('RELEASE', 'EXPIRE') OR open_delta = -amount),
    -- A correction says why, and is never of what is outstanding.
    ADD CHECK (action <> 'ADJUST' OR (open_delta = 0 AND reason IS NOT NULL)),
    ADD CHECK (reservation_id IS NOT NULL OR action IN ('DENY', 'SETTLE', 'ADJUST'));

-- The book does not balance: new reserves are refused until it was repaired. One row while that is so.
CREATE TABLE risk_halt (
    id          boolean PRIMARY KEY DEFAULT true CHECK (id),
    at          timestamptz NOT NULL,
    -- What differs, as JSON; the control event RISK_HALT says the same.
    differences text NOT NULL
);
