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

-- Names are read by one parser before they come here. Matching them against a pattern once more took a tenth of PostgreSQL's
-- time under load; their length still bounds a row.
ALTER TABLE risk_event
    DROP CONSTRAINT risk_event_engine_check,
    ADD CHECK (octet_length(engine) BETWEEN 1 AND 50);
ALTER TABLE risk_reservation
    DROP CONSTRAINT risk_reservation_engine_check,
    ADD CHECK (octet_length(engine) BETWEEN 1 AND 50 AND engine <> 'GLOBAL');

-- What each action may move, in one CASE so that a row pays for one check.
ALTER TABLE risk_event ADD CHECK (
    CASE action
        -- It did not happen: risk, and today's exposure, come back.
        WHEN 'RELEASE' THEN reservation_id IS NOT NULL AND open_delta = -amount AND exposure_delta <= 0
                            AND loss_delta = 0 AND actions_delta = 0
        -- It may have happened: only the risk comes back.
        WHEN 'EXPIRE' THEN reservation_id IS NOT NULL AND open_delta = -amount AND exposure_delta = 0
                           AND loss_delta = 0 AND actions_delta = 0
        WHEN 'EXTEND' THEN reservation_id IS NOT NULL AND open_delta = 0 AND exposure_delta = 0
                           AND loss_delta = 0 AND actions_delta = 0
        -- A correction is of loss or of exposure, never of what is outstanding, and says why.
        WHEN 'ADJUST' THEN open_delta = 0 AND actions_delta = 0 AND reason IS NOT NULL
                           AND (loss_delta = 0) <> (exposure_delta = 0)
                           AND amount = abs(loss_delta + exposure_delta)
        ELSE true
    END);

-- The book does not balance: new reserves are refused until it was repaired. One row while that is so.
CREATE TABLE risk_halt (
    id          boolean PRIMARY KEY DEFAULT true CHECK (id),
    at          timestamptz NOT NULL,
    -- What differs, as JSON; the control event RISK_HALT says the same.
    differences text NOT NULL
);
