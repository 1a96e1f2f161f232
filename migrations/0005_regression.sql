-- Lever 4: has performance dropped? Then throttle the engine or pull the kill switch.

-- A wire: one metric of one domain, watched. `engine` is what a THROTTLE turns off; null means the engine named like the
-- domain. Fractions have six decimals and are compared exactly.
CREATE TABLE regression_policy (
    domain                text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    metric                text NOT NULL CHECK (metric ~ '^[a-z0-9_.-]{1,64}$'),
    window_events         bigint NOT NULL CHECK (window_events   BETWEEN 1 AND 10000),
    baseline_events       bigint NOT NULL CHECK (baseline_events BETWEEN 1 AND 10000),
    min_events_to_enforce bigint NOT NULL CHECK (min_events_to_enforce BETWEEN 1 AND 10000),
    max_drop_fraction     numeric(7,6) NOT NULL CHECK (max_drop_fraction > 0 AND max_drop_fraction <= 1),
    action                text NOT NULL CHECK (action IN ('THROTTLE', 'KILL_SWITCH')),
    engine                text CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    enabled               boolean NOT NULL,
    changed_by            text CHECK (char_length(changed_by) BETWEEN 1 AND 200),
    reason                text CHECK (char_length(reason) <= 1000),
    updated_at            timestamptz NOT NULL,
    version               bigint NOT NULL DEFAULT 1 CHECK (version > 0),
    PRIMARY KEY (domain, metric),
    -- Neither window could ever hold enough events to enforce.
    CHECK (min_events_to_enforce <= window_events AND min_events_to_enforce <= baseline_events),
    -- A throttle needs an engine to hold: the one named, or one that can be named like the domain.
    CHECK (action <> 'THROTTLE' OR engine IS NOT NULL OR char_length(domain) <= 50)
);
INSERT INTO regression_policy (domain, metric, window_events, baseline_events, min_events_to_enforce, max_drop_fraction, action, enabled, changed_by, reason, updated_at) VALUES
    ('WHOLESALE',   'contract_rate',     50, 200, 50, 0.20, 'THROTTLE',    false, 'migration', 'Seeded', holdfast_now()),
    ('WHOLESALE',   'offer_accept_rate', 50, 200, 50, 0.15, 'THROTTLE',    false, 'migration', 'Seeded', holdfast_now()),
    ('BUYER_MATCH', 'match_success',     50, 200, 50, 0.25, 'THROTTLE',    false, 'migration', 'Seeded', holdfast_now()),
    ('CAPITAL',     'roi_event',         50, 200, 50, 0.30, 'KILL_SWITCH', false, 'migration', 'Seeded', holdfast_now());

-- Measurements, in the order they were taken in. `series_seq` counts the events of one (domain, metric) from 1 without
-- gaps, `series_sum` is the running sum of the series up to and including this event (a success counts 1): any window is
-- the difference of two rows, so the cost of an evaluation does not depend on the history. Column order is the order of
-- the hashed bytes; `detail` enters by its SHA-256.
CREATE TABLE kpi_event (
    seq            bigint PRIMARY KEY CHECK (seq > 0),
    at             timestamptz NOT NULL,
    principal      text NOT NULL CHECK (char_length(principal) BETWEEN 1 AND 200),
    actor          text CHECK (char_length(actor) BETWEEN 1 AND 200),
    request_id     text CHECK (char_length(request_id) BETWEEN 1 AND 64),
    correlation_id text CHECK (char_length(correlation_id) BETWEEN 1 AND 200),
    domain         text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    metric         text NOT NULL CHECK (metric ~ '^[a-z0-9_.-]{1,64}$'),
    series_seq     bigint NOT NULL CHECK (series_seq > 0),
    success        boolean,
    value          numeric(20,6) CHECK (value BETWEEN -1000000000000 AND 1000000000000),
    series_sum     numeric(38,6) NOT NULL CHECK (series_sum BETWEEN -1e22 AND 1e22),
    event_id       text CHECK (char_length(event_id) BETWEEN 1 AND 200),
    detail         text CHECK (octet_length(detail) <= 4096),
    hash           bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- A measurement is a success or a value, never both, never neither.
    CHECK ((success IS NULL) <> (value IS NULL)),
    -- Windows are index reads on this key; it also makes a gap or a fork of a series impossible.
    UNIQUE (domain, metric, series_seq)
);
-- A client's own id makes an event idempotent within its series.
CREATE UNIQUE INDEX kpi_event_event_id ON kpi_event (domain, metric, event_id) WHERE event_id IS NOT NULL;

-- What stands of a wire now. `watermark` is the last event of the series before the wire was (re-)armed: older events
-- never count again. After a re-arm the baseline of the trip is kept in `pinned_*` until enough new events exist.
CREATE TABLE regression_state (
    domain            text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    metric            text NOT NULL CHECK (metric ~ '^[a-z0-9_.-]{1,64}$'),
    triggered         boolean NOT NULL,
    trip_id           bigint CHECK (trip_id > 0),
    baseline          numeric(38,12),
    current           numeric(38,12),
    drop_fraction     numeric(38,12),
    note              text NOT NULL CHECK (char_length(note) <= 200),
    last_checked_at   timestamptz NOT NULL,
    last_triggered_at timestamptz,
    watermark         bigint NOT NULL DEFAULT 0 CHECK (watermark >= 0),
    pinned_events     bigint CHECK (pinned_events > 0),
    pinned_sum        numeric(38,6),
    PRIMARY KEY (domain, metric),
    -- The latch: triggered exactly as long as a trip stands.
    CHECK (triggered = (trip_id IS NOT NULL)),
    CHECK ((pinned_events IS NULL) = (pinned_sum IS NULL))
) WITH (fillfactor = 50);

-- A trip, with the numbers that made it and what became of it. The id is the sequence of its control event.
CREATE TABLE regression_trip (
    id              bigint PRIMARY KEY CHECK (id > 0),
    domain          text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    metric          text NOT NULL CHECK (metric ~ '^[a-z0-9_.-]{1,64}$'),
    kpi_seq         bigint NOT NULL CHECK (kpi_seq > 0),
    series_seq      bigint NOT NULL CHECK (series_seq > 0),
    baseline_events bigint NOT NULL CHECK (baseline_events > 0),
    baseline_sum    numeric(38,6) NOT NULL CHECK (baseline_sum > 0),
    current_events  bigint NOT NULL CHECK (current_events > 0),
    current_sum     numeric(38,6) NOT NULL,
    drop_fraction   numeric(38,12) NOT NULL,
    action          text NOT NULL CHECK (action IN ('THROTTLE', 'KILL_SWITCH')),
    engine          text CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    actor           text CHECK (char_length(actor) BETWEEN 1 AND 200),
    tripped_at      timestamptz NOT NULL,
    rearmed_at      timestamptz CHECK (rearmed_at > tripped_at),
    rearmed_by      text CHECK (char_length(rearmed_by) BETWEEN 1 AND 200),
    rearm_reason    text CHECK (char_length(rearm_reason) <= 1000),
    -- Whether the measurement tripped the wire by arriving, rather than an evaluation later.
    by_event        boolean NOT NULL,
    CHECK (rearmed_at IS NOT NULL OR (rearmed_by IS NULL AND rearm_reason IS NULL)),
    UNIQUE (id, engine),
    CHECK ((action = 'THROTTLE') = (engine IS NOT NULL))
);
-- GET /regression/trips of a pair, newest first.
CREATE INDEX regression_trip_pair ON regression_trip (domain, metric, id DESC);
-- One standing trip per wire, at most.
CREATE UNIQUE INDEX regression_trip_standing ON regression_trip (domain, metric) WHERE rearmed_at IS NULL;

-- The trip that a state or a throttle names exists, and the throttle holds the engine that the trip was about.
ALTER TABLE regression_state ADD FOREIGN KEY (trip_id) REFERENCES regression_trip (id);
ALTER TABLE risk_throttle ADD FOREIGN KEY (trip_id, engine) REFERENCES regression_trip (id, engine);
