-- Lever 1: is production switched on, and is the kill switch out?

-- One row. Go-live and kill switch have their own columns, so that pulling one never hides who moved the other; the
-- top-level three (changed_by, reason, updated_at) are those of the last change of either, as in the original.
CREATE TABLE go_live_state (
    id                  boolean PRIMARY KEY DEFAULT true CHECK (id),
    version             bigint  NOT NULL CHECK (version > 0),
    go_live_enabled     boolean NOT NULL,
    go_live_at          timestamptz,
    go_live_by          text CHECK (char_length(go_live_by) BETWEEN 1 AND 200),
    go_live_reason      text CHECK (char_length(go_live_reason) <= 1000),
    kill_switch_engaged boolean NOT NULL,
    kill_switch_at      timestamptz,
    kill_switch_by      text CHECK (char_length(kill_switch_by) BETWEEN 1 AND 200),
    kill_switch_reason  text CHECK (char_length(kill_switch_reason) <= 1000),
    changed_by          text CHECK (char_length(changed_by) BETWEEN 1 AND 200),
    reason              text CHECK (char_length(reason) <= 1000),
    updated_at          timestamptz NOT NULL CHECK (isfinite(updated_at)),
    -- What is on was switched on at some time.
    CHECK (NOT go_live_enabled OR go_live_at IS NOT NULL),
    CHECK (NOT kill_switch_engaged OR kill_switch_at IS NOT NULL)
) WITH (fillfactor = 50);
-- A fresh install is off, and not killed: nothing runs until somebody passes the checklist.
INSERT INTO go_live_state (version, go_live_enabled, kill_switch_engaged, updated_at)
VALUES (1, false, false, holdfast_now());

-- Components that must be in place before go-live. The four levers are installed by these migrations; upstream
-- components report themselves.
CREATE TABLE pack (
    id         text PRIMARY KEY CHECK (id ~ '^[a-z0-9_.-]{1,64}$'),
    name       text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    version    text NOT NULL CHECK (char_length(version) BETWEEN 1 AND 64),
    status     text NOT NULL CHECK (status IN ('installed', 'missing')),
    changed_by text CHECK (char_length(changed_by) BETWEEN 1 AND 200),
    updated_at timestamptz NOT NULL
);
INSERT INTO pack (id, name, version, status, changed_by, updated_at) VALUES
    ('go_live',    'Go-live state',       '1', 'installed', 'migration', holdfast_now()),
    ('risk',       'Risk guard',          '1', 'installed', 'migration', holdfast_now()),
    ('heimdall',   'Heimdall charter',    '1', 'installed', 'migration', holdfast_now()),
    ('regression', 'Regression tripwire', '1', 'installed', 'migration', holdfast_now());
