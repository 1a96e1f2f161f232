-- The charter: what is asked of a domain beyond the four minima, whose trials count, and what became of a recommendation after its
-- verdict. Every default is what held before.

ALTER TABLE heimdall_policy
    -- The risk policy whose throttle also stops the domain's uses. It may be there before that policy is.
    ADD COLUMN engine                     text CHECK (engine ~ '^[A-Z0-9_.-]{1,50}$'),
    -- How long a recommendation may be used, from its creation; 0 is for ever. The default is 72 h: Friday's advice survives till Monday.
    ADD COLUMN recommendation_ttl_seconds bigint  NOT NULL DEFAULT 259200 CHECK (recommendation_ttl_seconds BETWEEN 0 AND 31536000),
    ADD COLUMN single_use                 boolean NOT NULL DEFAULT false,
    ADD COLUMN scorecard_window           text    NOT NULL DEFAULT 'DAY' CHECK (scorecard_window IN ('DAY', 'ROLLING_DAYS')),
    -- Read with ROLLING_DAYS alone, but always there, so that switching back and forth loses nothing.
    ADD COLUMN window_days                bigint  NOT NULL DEFAULT 30 CHECK (window_days BETWEEN 1 AND 365),
    ADD COLUMN gate_rule                  text    NOT NULL DEFAULT 'POINT' CHECK (gate_rule IN ('POINT', 'LCB', 'ANYTIME')),
    ADD COLUMN approved_model_version     text CHECK (char_length(approved_model_version) BETWEEN 1 AND 200),
    ADD COLUMN calibration_gate           boolean NOT NULL DEFAULT false,
    -- Whether the evidence passed when production use was switched on, and the checks and sums of that moment, as JSON. Null while
    -- it is off, and where it was switched on before this was recorded.
    ADD COLUMN evidence                   text CHECK (evidence IN ('met', 'not_met')),
    ADD COLUMN promotion                  text,
    ADD CHECK (promotion IS NULL OR evidence IS NOT NULL);

-- What calibration is computed from, exact: a confidence has 18 decimals, its square 36. All three sums are of numbers up to 1.
ALTER TABLE heimdall_scorecard_day
    ADD COLUMN confidence_square_sum  numeric(56,36) NOT NULL DEFAULT 0 CHECK (confidence_square_sum BETWEEN 0 AND confidence_sum),
    -- The confidences of the trials that succeeded.
    ADD COLUMN confidence_success_sum numeric(38,18) NOT NULL DEFAULT 0 CHECK (confidence_success_sum BETWEEN 0 AND confidence_sum);
-- A trial is its event, so what was counted before is there to be summed. Trials that an older server counts after this are not in the
-- two sums: stop older servers first.
UPDATE heimdall_scorecard_day AS card
SET confidence_square_sum = trials.squares, confidence_success_sum = trials.of_successes
FROM (SELECT (at AT TIME ZONE 'UTC')::date AS day,
             domain,
             sum(confidence * confidence) AS squares,
             COALESCE(sum(confidence) FILTER (WHERE success), 0) AS of_successes
      FROM heimdall_event
      WHERE action = 'TRIAL'
      GROUP BY 1, 2) AS trials
WHERE card.day = trials.day AND card.domain = trials.domain;
-- The days of a rolling window of one domain.
CREATE INDEX heimdall_scorecard_day_domain ON heimdall_scorecard_day (domain, day);

-- The same of the trials that name a model version, each of which is also in its domain's row of the day. The key is in the order in
-- which a window of one version is read.
CREATE TABLE heimdall_scorecard_version (
    domain                 text NOT NULL CHECK (domain ~ '^[A-Z0-9_.-]{1,80}$'),
    model_version          text NOT NULL CHECK (char_length(model_version) BETWEEN 1 AND 200),
    day                    date NOT NULL,
    trials                 bigint NOT NULL CHECK (trials > 0),
    successes              bigint NOT NULL CHECK (successes BETWEEN 0 AND trials),
    confidence_sum         numeric(38,18) NOT NULL CHECK (confidence_sum BETWEEN 0 AND trials),
    confidence_square_sum  numeric(56,36) NOT NULL CHECK (confidence_square_sum BETWEEN 0 AND confidence_sum),
    confidence_success_sum numeric(38,18) NOT NULL CHECK (confidence_success_sum BETWEEN 0 AND confidence_sum),
    updated_at             timestamptz NOT NULL,
    PRIMARY KEY (domain, model_version, day)
) WITH (fillfactor = 50);

-- A revocation is about a recommendation. There is none yet, so no row needs to be looked at.
ALTER TABLE heimdall_event
    ADD CONSTRAINT heimdall_event_revoke_check CHECK (action <> 'REVOKE' OR (ok AND recommendation_id IS NOT NULL)) NOT VALID;

-- What became of a recommendation. The verdict and its snapshots still never change; these can only end it. Who revoked it and why
-- stands in the event.
ALTER TABLE heimdall_recommendation
    ADD COLUMN model_version text CHECK (char_length(model_version) BETWEEN 1 AND 200),
    -- Null: never.
    ADD COLUMN expires_at    timestamptz CHECK (expires_at > created_at),
    ADD COLUMN single_use    boolean NOT NULL DEFAULT false,
    -- The event of the first use that was allowed, and that of the revocation.
    ADD COLUMN used_seq      bigint CHECK (used_seq > id),
    ADD COLUMN revoked_seq   bigint CHECK (revoked_seq > id),
    ADD CHECK (used_seq IS NULL OR prod_eligible);
-- Those that were made before end as if they had been made under the default.
UPDATE heimdall_recommendation SET expires_at = created_at + interval '72 hours';
-- The same for their first use.
UPDATE heimdall_recommendation AS verdict
SET used_seq = uses.first
FROM (SELECT recommendation_id, min(seq) AS first FROM heimdall_event WHERE action = 'REQUIRE' AND ok GROUP BY 1) AS uses
WHERE verdict.id = uses.recommendation_id;

-- A server that knows no revocation would let a revoked recommendation pass.
UPDATE setting SET value = '16' WHERE key = 'schema_minimum';
