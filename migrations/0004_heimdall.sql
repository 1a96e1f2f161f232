-- Lever 3: has this AI domain earned the right to act in production?
-- Confidences have up to 18 decimals, so that what a JSON encoder prints for a double is taken as written; their sums
-- stay exact.

CREATE TABLE heimdall_policy (
    domain                   text PRIMARY KEY CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    min_confidence_prod      numeric(7,6) NOT NULL CHECK (min_confidence_prod BETWEEN 0 AND 1),
    min_sandbox_trials       bigint       NOT NULL CHECK (min_sandbox_trials BETWEEN 0 AND 1000000000),
    min_sandbox_success_rate numeric(7,6) NOT NULL CHECK (min_sandbox_success_rate BETWEEN 0 AND 1),
    prod_use_enabled         boolean NOT NULL DEFAULT false,
    changed_by               text CHECK (char_length(changed_by) BETWEEN 1 AND 200),
    reason                   text CHECK (char_length(reason) <= 1000),
    updated_at               timestamptz NOT NULL,
    version                  bigint NOT NULL DEFAULT 1 CHECK (version > 0)
);
INSERT INTO heimdall_policy (domain, min_confidence_prod, min_sandbox_trials, min_sandbox_success_rate, changed_by, reason, updated_at) VALUES
    ('WHOLESALE_OFFER',      0.92,  75, 0.82, 'migration', 'Seeded', holdfast_now()),
    ('BUYER_MATCH',          0.90,  50, 0.80, 'migration', 'Seeded', holdfast_now()),
    ('CAPITAL_ROUTE',        0.95, 100, 0.85, 'migration', 'Seeded', holdfast_now()),
    ('FOLLOWUP_NEXT_ACTION', 0.90,  60, 0.80, 'migration', 'Seeded', holdfast_now());

-- The day's sandbox trials of a domain, as integers and an exact sum; rates are derived when they are read.
CREATE TABLE heimdall_scorecard_day (
    day            date NOT NULL,
    domain         text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    trials         bigint NOT NULL CHECK (trials > 0),
    successes      bigint NOT NULL CHECK (successes BETWEEN 0 AND trials),
    confidence_sum numeric(38,18) NOT NULL CHECK (confidence_sum BETWEEN 0 AND trials),
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (day, domain)
) WITH (fillfactor = 50);

-- Trials, recommendations and uses, one row each; a trial is its event, the scorecard is their sum. Column order is the
-- order of the hashed bytes; `reason`, `recommendation`, `evidence` and `detail` enter by their SHA-256.
CREATE TABLE heimdall_event (
    seq               bigint PRIMARY KEY CHECK (seq > 0),
    at                timestamptz NOT NULL,
    principal         text NOT NULL CHECK (char_length(principal) BETWEEN 1 AND 200),
    actor             text CHECK (char_length(actor) BETWEEN 1 AND 200),
    request_id        text CHECK (char_length(request_id) BETWEEN 1 AND 64),
    correlation_id    text CHECK (char_length(correlation_id) BETWEEN 1 AND 200),
    domain            text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    action            text NOT NULL CHECK (action IN ('TRIAL', 'RECOMMEND', 'REQUIRE', 'REVOKE')),
    ok                boolean NOT NULL,
    confidence        numeric(19,18) CHECK (confidence BETWEEN 0 AND 1),
    success           boolean,
    recommendation_id bigint CHECK (recommendation_id > 0),
    gate_reason       text CHECK (gate_reason ~ '^[a-z_]{1,80}$'),
    model_version     text CHECK (char_length(model_version) BETWEEN 1 AND 200),
    reason            text CHECK (char_length(reason) <= 1000),
    recommendation    text,
    evidence          text,
    detail            text,
    hash              bytea NOT NULL CHECK (octet_length(hash) = 32),
    CHECK (action <> 'TRIAL' OR (success IS NOT NULL AND confidence IS NOT NULL)),
    CHECK (action NOT IN ('RECOMMEND', 'REQUIRE') OR (recommendation_id IS NOT NULL AND gate_reason IS NOT NULL)),
    -- A trial is about no recommendation; a use is allowed exactly when the gate passes.
    CHECK (action <> 'TRIAL' OR (ok AND recommendation_id IS NULL AND gate_reason IS NULL)),
    CHECK (action <> 'REQUIRE' OR ok = (gate_reason = 'gate_pass'))
);
-- GET /heimdall/events by domain, newest first.
CREATE INDEX heimdall_event_domain ON heimdall_event (domain, seq DESC);
CREATE INDEX heimdall_event_recommendation ON heimdall_event (recommendation_id, seq) WHERE recommendation_id IS NOT NULL;

-- The verdict at creation, with what it was made from. The recommendation's own text stands in its event, whose sequence
-- number is the id. A verdict never changes: use is checked again, every time (docs/API.md).
CREATE TABLE heimdall_recommendation (
    id                 bigint PRIMARY KEY CHECK (id > 0),
    domain             text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    confidence         numeric(19,18) NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    prod_eligible      boolean NOT NULL,
    gate_reason        text NOT NULL CHECK (gate_reason ~ '^[a-z_]{1,80}$'),
    policy_snapshot    text,
    scorecard_snapshot text,
    created_at         timestamptz NOT NULL,
    CHECK (prod_eligible = (gate_reason = 'gate_pass')),
    -- Whoever is eligible was judged by something.
    CHECK (NOT prod_eligible OR (policy_snapshot IS NOT NULL AND scorecard_snapshot IS NOT NULL))
);
-- GET /heimdall/recommendations by domain, newest first.
CREATE INDEX heimdall_recommendation_domain ON heimdall_recommendation (domain, id DESC);
