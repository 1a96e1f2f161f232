-- Lever 2: is there room under GLOBAL and under this engine, today?
-- Amounts have six decimals and at most 10^12 (NUMERIC(20,6)); totals of them get room that a century cannot fill
-- (NUMERIC(38,6)).

-- Caps per engine; GLOBAL is a policy like any other. A cap of 0 means "no cap", the original's meaning. `enabled` is the
-- human flag: what is enforced is `enabled` and no row in risk_throttle.
CREATE TABLE risk_policy (
    engine              text PRIMARY KEY CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    max_daily_loss      numeric(20,6) NOT NULL CHECK (max_daily_loss     BETWEEN 0 AND 1000000000000),
    max_daily_exposure  numeric(20,6) NOT NULL CHECK (max_daily_exposure BETWEEN 0 AND 1000000000000),
    max_open_risk       numeric(20,6) NOT NULL CHECK (max_open_risk      BETWEEN 0 AND 1000000000000),
    max_actions_per_day bigint  NOT NULL DEFAULT 0 CHECK (max_actions_per_day BETWEEN 0 AND 1000000000000),
    enabled             boolean NOT NULL,
    changed_by          text CHECK (char_length(changed_by) BETWEEN 1 AND 200),
    reason              text CHECK (char_length(reason) <= 1000),
    updated_at          timestamptz NOT NULL CHECK (isfinite(updated_at)),
    version             bigint NOT NULL DEFAULT 1 CHECK (version > 0)
);
INSERT INTO risk_policy (engine, max_daily_loss, max_daily_exposure, max_open_risk, enabled, changed_by, reason, updated_at) VALUES
    ('GLOBAL',    250, 1500, 1500, true,  'migration', 'Seeded', holdfast_now()),
    ('WHOLESALE', 200, 1000, 1000, true,  'migration', 'Seeded', holdfast_now()),
    ('CAPITAL',   150,  750,  750, true,  'migration', 'Seeded', holdfast_now()),
    ('NOTIFY',      0,    0,    0, false, 'migration', 'Seeded', holdfast_now());

-- A standing throttle: this trip holds this engine off. Rows, not a flag, so that two wires can hold one engine and
-- re-arming one lifts only its own.
CREATE TABLE risk_throttle (
    engine     text   NOT NULL CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    trip_id    bigint NOT NULL CHECK (trip_id > 0),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (engine, trip_id)
);

-- The stock: what is reserved and not yet settled, now. It has no day: midnight does not close a position.
CREATE TABLE risk_open (
    engine      text PRIMARY KEY CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    -- NaN is above every number in PostgreSQL, so only an upper bound keeps it out. Totals end at 10^22.
    open_amount numeric(38,6) NOT NULL CHECK (open_amount BETWEEN 0 AND 1e22),
    updated_at  timestamptz NOT NULL
) WITH (fillfactor = 10);

-- The flows of one UTC day. A new day starts with no row, which reads as zero: that is the daily reset. The row of a
-- closed day is never written again. No secondary index, so every update stays on its page.
CREATE TABLE risk_ledger_day (
    day           date NOT NULL,
    engine        text NOT NULL CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    exposure_used numeric(38,6) NOT NULL CHECK (exposure_used BETWEEN 0 AND 1e22),
    realized_loss numeric(38,6) NOT NULL CHECK (realized_loss BETWEEN 0 AND 1e22),
    actions_count bigint        NOT NULL CHECK (actions_count >= 0),
    updated_at    timestamptz   NOT NULL,
    PRIMARY KEY (day, engine)
) WITH (fillfactor = 10);

-- The day's refusals by engine asked for, level that refused and reason: the Monday question "why was it blocked?".
CREATE TABLE risk_denial_day (
    day    date NOT NULL,
    engine text NOT NULL CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    scope  text NOT NULL CHECK (scope  ~ '^[A-Z0-9_.-]{1,50}$'),
    reason text NOT NULL CHECK (reason ~ '^[a-z_]{1,50}$'),
    denied bigint NOT NULL CHECK (denied > 0),
    PRIMARY KEY (day, engine, scope, reason)
) WITH (fillfactor = 50);

-- Every decision and every movement of a counter, one row each. Column order is the order of the hashed bytes; `reason`,
-- `metadata` and `detail` enter by their SHA-256. The deltas are what the event moved, on its engine and on GLOBAL
-- alike, on the day it names: a day's flows are the sums of that day's events.
CREATE TABLE risk_event (
    seq            bigint PRIMARY KEY CHECK (seq > 0),
    at             timestamptz NOT NULL,
    principal      text NOT NULL CHECK (char_length(principal) BETWEEN 1 AND 200),
    actor          text CHECK (char_length(actor) BETWEEN 1 AND 200),
    request_id     text CHECK (char_length(request_id) BETWEEN 1 AND 64),
    correlation_id text CHECK (char_length(correlation_id) BETWEEN 1 AND 200),
    engine         text NOT NULL CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    action         text NOT NULL CHECK (action IN ('RESERVE', 'DENY', 'SETTLE', 'RELEASE', 'EXTEND', 'EXPIRE', 'ADJUST', 'REPAIR')),
    ok             boolean NOT NULL,
    amount         numeric(20,6) NOT NULL CHECK (amount BETWEEN 0 AND 1000000000000),
    denial         text CHECK (denial ~ '^[a-z_]{1,50}$'),
    scope          text CHECK (scope ~ '^[A-Z0-9_.-]{1,50}$'),
    reservation_id uuid,
    day            date NOT NULL,
    exposure_delta numeric(38,6) NOT NULL CHECK (exposure_delta BETWEEN -1e22 AND 1e22),
    open_delta     numeric(38,6) NOT NULL CHECK (open_delta     BETWEEN -1e22 AND 1e22),
    loss_delta     numeric(38,6) NOT NULL CHECK (loss_delta     BETWEEN -1e22 AND 1e22),
    actions_delta  bigint NOT NULL,
    reason         text CHECK (char_length(reason) <= 1000),
    metadata       text,
    detail         text,
    hash           bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- A denial says why and at which level, and moves nothing.
    CHECK ((action = 'DENY') = (denial IS NOT NULL)),
    CHECK ((action = 'DENY') = (scope IS NOT NULL)),
    CHECK (ok = (action <> 'DENY')),
    CHECK (action <> 'DENY' OR (exposure_delta = 0 AND open_delta = 0 AND loss_delta = 0 AND actions_delta = 0)),
    -- An accepted reserve moves exactly its amount and one action.
    CHECK (action <> 'RESERVE' OR (exposure_delta = amount AND open_delta = amount AND loss_delta = 0
                                   AND actions_delta = 1 AND reservation_id IS NOT NULL)),
    -- A settle returns risk and books a loss; it is no action of its own.
    CHECK (action <> 'SETTLE' OR (open_delta <= 0 AND loss_delta >= 0 AND actions_delta = 0)),
    -- GLOBAL does not act, and what is booked is booked on the day of the event.
    CHECK (engine <> 'GLOBAL'),
    CHECK (day = (at AT TIME ZONE 'UTC')::date)
);
-- GET /risk/events: by engine, by correlation, by time, newest first.
CREATE INDEX risk_event_engine ON risk_event (engine, seq DESC);
CREATE INDEX risk_event_correlation ON risk_event (correlation_id, seq DESC) WHERE correlation_id IS NOT NULL;
CREATE INDEX risk_event_at ON risk_event USING brin (at);

-- A reservation. `amount` is what was reserved and never changes; `open_amount` is what is still outstanding.
-- `seq` is the event that made it, `closed_seq` the one that ended it: who, why and with what loss stands there.
-- Rows are never deleted and never reopened.
CREATE TABLE risk_reservation (
    id             uuid PRIMARY KEY,
    seq            bigint NOT NULL UNIQUE CHECK (seq > 0),
    engine         text NOT NULL CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$' AND engine <> 'GLOBAL'),
    amount         numeric(20,6) NOT NULL CHECK (amount > 0 AND amount <= 1000000000000),
    open_amount    numeric(20,6) NOT NULL CHECK (open_amount >= 0 AND open_amount <= amount),
    status         text NOT NULL CHECK (status IN ('OPEN', 'SETTLED', 'RELEASED', 'EXPIRED')),
    day            date NOT NULL,
    correlation_id text CHECK (char_length(correlation_id) BETWEEN 1 AND 200),
    created_at     timestamptz NOT NULL,
    closed_at      timestamptz,
    closed_seq     bigint CHECK (closed_seq > seq),
    -- Open means outstanding and not closed; everything else is closed, with nothing outstanding.
    CHECK ((status = 'OPEN') = (open_amount > 0)),
    CHECK ((status = 'OPEN') = (closed_at IS NULL)),
    CHECK ((closed_at IS NULL) = (closed_seq IS NULL)),
    CHECK (closed_at > created_at),
    CHECK (day = (created_at AT TIME ZONE 'UTC')::date)
) WITH (fillfactor = 70);
-- The original settle, oldest first; and the reconciliation of the stock.
CREATE INDEX risk_reservation_open ON risk_reservation (engine, seq) WHERE status = 'OPEN';
-- The original settle asks whether any reservation ever carried this correlation; GET /risk/reservations filters by it.
CREATE INDEX risk_reservation_correlation ON risk_reservation (correlation_id, engine, seq) WHERE correlation_id IS NOT NULL;
