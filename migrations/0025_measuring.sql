-- Measuring and recommending are two scopes, a token has a bound on what one settle of it may lose, a metric has a kind that an operator can set, and an event's id is its sender's own.

ALTER TABLE access_token
    DROP CONSTRAINT access_token_scopes_check,
    ADD CONSTRAINT access_token_scopes_check CHECK (cardinality(scopes) > 0
        AND scopes <@ ARRAY['read', 'reserve', 'measure', 'recommend', 'evidence', 'operate', 'release', 'proxy', 'admin', 'kill']);

-- What the events of a series have to be behind `after_event`, as an operator said. A series without a row keeps the kind of its first
-- event. Who said it and why is in its event. Read with the end of the series, by its key.
CREATE TABLE regression_kind (
    domain      text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    metric      text NOT NULL CHECK (metric ~ '^[a-z0-9_.-]{1,64}$'),
    kind        text NOT NULL CHECK (kind IN ('BOOLEAN', 'NUMERIC')),
    after_event bigint NOT NULL CHECK (after_event >= 0),
    PRIMARY KEY (domain, metric)
);

-- An id that somebody else has used is not taken: nobody can use up the ids that another one is going to send.
CREATE UNIQUE INDEX kpi_event_sender ON kpi_event (domain, metric, event_id, principal) WHERE event_id IS NOT NULL;
DROP INDEX kpi_event_event_id;

-- What one settle or correction of this token may lose at most; null for no bound. A loss counts for all engines together.
ALTER TABLE access_token ADD max_loss numeric(20,6) CHECK (max_loss > 0 AND max_loss <= 1000000000000);

-- As 0011 has it, and the new column among what never changes.
CREATE OR REPLACE FUNCTION holdfast_guard_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND (NEW.id, NEW.digest, NEW.name, NEW.owner, NEW.scopes, NEW.engines, NEW.domains, NEW.rate_per_second,
            NEW.created_at, NEW.created_by, NEW.expires_at, NEW.max_loss)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.digest, OLD.name, OLD.owner, OLD.scopes, OLD.engines, OLD.domains, OLD.rate_per_second,
            OLD.created_at, OLD.created_by, OLD.expires_at, OLD.max_loss)
       AND (OLD.revoked_at IS NULL OR (NEW.revoked_at, NEW.revoked_by) = (OLD.revoked_at, OLD.revoked_by)) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'tokens are revoked, never changed or deleted (% of %)', TG_OP, OLD.id
        USING ERRCODE = 'insufficient_privilege';
END
$$;
