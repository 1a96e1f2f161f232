-- The floor everything stands on: the clock, the heads of the four event streams, and the control stream.

-- The only clock that decides anything. Business days, event times and latches derive from it, never from an
-- application server's clock, so that any number of instances agree. Tests replace this function in their template
-- database; nothing else may.
CREATE FUNCTION holdfast_now() RETURNS timestamptz
    LANGUAGE sql VOLATILE
    AS 'SELECT clock_timestamp()';

-- Facts about this installation that are not policy. `schema_minimum` is the newest migration a server has to know in
-- order to run on this schema.
CREATE TABLE setting (
    key   text PRIMARY KEY,
    value text NOT NULL
);
INSERT INTO setting (key, value) VALUES ('schema_minimum', '1');

-- One row per event stream: the mutex of that stream. A writer locks its row FOR UPDATE, alone in its statement, before
-- it reads anything; so sequences have no gaps, times strictly increase and the chain cannot fork. Writers that need
-- several heads take them in the order kpi, heimdall, risk, control and never backwards, which makes deadlock impossible.
-- fillfactor leaves room for HOT updates: these are the hottest rows of the database and carry no index but the key.
CREATE TABLE audit_head (
    stream text PRIMARY KEY CHECK (stream IN ('control', 'risk', 'heimdall', 'kpi')),
    seq    bigint      NOT NULL CHECK (seq >= 0),
    hash   bytea       NOT NULL CHECK (octet_length(hash) = 32),
    at     timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO audit_head (stream, seq, hash, at)
SELECT stream, 0, decode(repeat('00', 32), 'hex'), timestamptz '1970-01-01 00:00:00+00'
FROM unnest(ARRAY['control', 'risk', 'heimdall', 'kpi']) AS stream;

-- Changes of the control plane and refused attempts: go-live, kill switch, policies, packs, trips and re-arms.
-- Column order is the order of the hashed bytes. `reason` and `detail` enter the hash by their own SHA-256, so that
-- personal data in them can be erased later without breaking the chain. JSON is text, never jsonb, which would reorder
-- keys and drop the spelling of numbers.
CREATE TABLE control_event (
    seq            bigint PRIMARY KEY CHECK (seq > 0),
    at             timestamptz NOT NULL,
    principal      text NOT NULL CHECK (char_length(principal) BETWEEN 1 AND 200),
    actor          text CHECK (char_length(actor) BETWEEN 1 AND 200),
    request_id     text CHECK (char_length(request_id) BETWEEN 1 AND 64),
    correlation_id text CHECK (char_length(correlation_id) BETWEEN 1 AND 200),
    action         text NOT NULL CHECK (action ~ '^[A-Z_]{1,50}$'),
    subject        text CHECK (char_length(subject) BETWEEN 1 AND 200),
    ok             boolean NOT NULL,
    error          text CHECK (error ~ '^[A-Z_]{1,50}$'),
    reason         text CHECK (char_length(reason) <= 1000),
    detail         text,
    hash           bytea NOT NULL CHECK (octet_length(hash) = 32),
    -- A refusal names its error; a change has none.
    CHECK (ok = (error IS NULL))
);
-- GET /go-live/events and the review's "who changed what": newest first within a group of actions.
CREATE INDEX control_event_action ON control_event (action, seq DESC);
-- The review reads a period.
CREATE INDEX control_event_at ON control_event (at);
