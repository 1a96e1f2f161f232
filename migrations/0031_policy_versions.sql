-- The caps of a decision follow from the version of its policy, as long as every version is kept. So an event need not
-- repeat them.

-- The caps of a policy's versions. `since` is the first event that they can have decided. An event goes by the row of its
-- level and version with the greatest `since` up to its own number. Versions can repeat, since a policy that was removed
-- and set up anew begins at 1 again, and a hand can change caps without a new version: `since` tells these apart. The
-- primary key serves the look-up.
CREATE TABLE risk_policy_version (
    engine              text   NOT NULL CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    version             bigint NOT NULL CHECK (version > 0),
    since               bigint NOT NULL CHECK (since > 0),
    max_daily_loss      numeric(20,6) NOT NULL CHECK (max_daily_loss     BETWEEN 0 AND 1000000000000),
    max_daily_exposure  numeric(20,6) NOT NULL CHECK (max_daily_exposure BETWEEN 0 AND 1000000000000),
    max_open_risk       numeric(20,6) NOT NULL CHECK (max_open_risk      BETWEEN 0 AND 1000000000000),
    max_actions_per_day bigint        NOT NULL CHECK (max_actions_per_day BETWEEN 0 AND 1000000000000),
    PRIMARY KEY (engine, version, since)
);

-- A trigger keeps them, so that the version before, which does not know the table, fills it too. A change of a policy
-- moves the revision of the risk head (0017), and an event is written only if the head still has the revision that was
-- read. So under the head's lock, the next event is the first one that the change can decide. Caps that change twice
-- before any event have decided nothing in between: the last ones stay.
CREATE FUNCTION holdfast_keep_policy_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND (NEW.engine, NEW.version, NEW.max_daily_loss, NEW.max_daily_exposure, NEW.max_open_risk, NEW.max_actions_per_day)
         = (OLD.engine, OLD.version, OLD.max_daily_loss, OLD.max_daily_exposure, OLD.max_open_risk, OLD.max_actions_per_day)
    THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        'INSERT INTO %1$I.risk_policy_version
             (engine, version, since, max_daily_loss, max_daily_exposure, max_open_risk, max_actions_per_day)
         SELECT $1, $2, seq + 1, $3, $4, $5, $6 FROM %1$I.audit_head WHERE stream = $7 FOR UPDATE
         ON CONFLICT (engine, version, since) DO UPDATE
         SET max_daily_loss = excluded.max_daily_loss,
             max_daily_exposure = excluded.max_daily_exposure,
             max_open_risk = excluded.max_open_risk,
             max_actions_per_day = excluded.max_actions_per_day', TG_TABLE_SCHEMA)
    USING NEW.engine, NEW.version, NEW.max_daily_loss, NEW.max_daily_exposure, NEW.max_open_risk,
          NEW.max_actions_per_day, 'risk';
    RETURN NULL;
END
$$;
-- An ordinary trigger, like those of 0020: logical replication brings the rows that the trigger made elsewhere.
CREATE TRIGGER version AFTER INSERT OR UPDATE ON risk_policy
    FOR EACH ROW EXECUTE FUNCTION holdfast_keep_policy_version();

-- Caps that can have decided an event are as final as the event.
CREATE FUNCTION holdfast_guard_policy_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    decided boolean;
BEGIN
    IF TG_OP = 'UPDATE' AND (NEW.engine, NEW.version, NEW.since) = (OLD.engine, OLD.version, OLD.since) THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %I.audit_head WHERE stream = $1 AND seq >= $2)', TG_TABLE_SCHEMA)
            INTO decided USING 'risk', OLD.since;
        IF NOT decided THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'caps that have decided are never changed or deleted (% of % version %)',
        TG_OP, OLD.engine, OLD.version USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON risk_policy_version
    FOR EACH ROW EXECUTE FUNCTION holdfast_guard_policy_version();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON risk_policy_version
    FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
ALTER TABLE risk_policy_version ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;

-- A dump that holds only data is loaded with the triggers armed, the policies first: a version of theirs that arrives once
-- more is skipped.
CREATE FUNCTION holdfast_skip_kept_policy_version() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_kept boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.risk_policy_version AS kept
                                   WHERE (engine, version, since) = ($1, $2, $3)
                                     AND (max_daily_loss, max_daily_exposure, max_open_risk, max_actions_per_day)
                                         = ($4, $5, $6, $7))', TG_TABLE_SCHEMA)
        INTO is_kept
        USING NEW.engine, NEW.version, NEW.since, NEW.max_daily_loss, NEW.max_daily_exposure, NEW.max_open_risk,
              NEW.max_actions_per_day;
    IF is_kept THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER skip_kept BEFORE INSERT ON risk_policy_version
    FOR EACH ROW EXECUTE FUNCTION holdfast_skip_kept_policy_version();

-- The policies that are there now. The events before this migration hold their caps themselves.
INSERT INTO risk_policy_version
    (engine, version, since, max_daily_loss, max_daily_exposure, max_open_risk, max_actions_per_day)
SELECT policy.engine, policy.version, head.seq + 1, policy.max_daily_loss, policy.max_daily_exposure,
       policy.max_open_risk, policy.max_actions_per_day
FROM risk_policy AS policy, audit_head AS head
WHERE head.stream = 'risk';

-- The newest migration that an instance's program knows. The programs before this one leave it null.
ALTER TABLE instance ADD COLUMN newest_migration bigint CHECK (newest_migration > 0);

-- When a setting was last changed, for a setting whose age matters.
ALTER TABLE setting ADD COLUMN changed_at timestamptz
    CHECK (changed_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00');

-- The version before cannot read the shorter events. A fresh schema, on which no instance ever ran, gets them from its
-- first event on, so the version before may not start on it. On any other schema, a server raises this minimum once no
-- instance of the version before runs.
UPDATE setting SET value = '31'
WHERE key = 'schema_minimum'
  AND NOT EXISTS (SELECT FROM instance)
  AND EXISTS (SELECT FROM audit_head WHERE stream = 'risk' AND seq = 0);
