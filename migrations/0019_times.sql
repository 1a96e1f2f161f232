-- PostgreSQL's times reach from 4713 BC to the year 294276, and to either side infinity. No driver of ours reads all of that: a hand that
-- wrote updated_at = 'infinity' into risk_ledger_day stopped the ledger's writer. What no driver reads is not stored any more: a time
-- and a day are of the years 1 to 9999, which is also what RFC 3339 can say.
--
-- Not validated: every row that a version of this program wrote has such times, a scan of years of events would hold the tables while
-- it runs, and a row that a hand has spoilt must not stop the start. Whatever changes such a row has to mend it.

-- Of the hot tables these conditions are in the functions that a session reads once; see 0018.
CREATE OR REPLACE FUNCTION holdfast_risk_event_is_sound(
    at timestamptz, day date, action text, ok boolean, amount numeric, denial text, scope text, reservation_id uuid,
    exposure_delta numeric, open_delta numeric, loss_delta numeric, actions_delta bigint
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND action IN ('RESERVE', 'DENY', 'SETTLE', 'RELEASE', 'EXTEND', 'EXPIRE', 'ADJUST', 'REPAIR')
        AND day = (at AT TIME ZONE 'UTC')::date
        AND amount BETWEEN 0 AND 1000000000000
        AND exposure_delta BETWEEN -1e22 AND 1e22
        AND open_delta BETWEEN -1e22 AND 1e22
        AND loss_delta BETWEEN -1e22 AND 1e22
        -- A denial says why and at which level, and moves nothing.
        AND ok = (action <> 'DENY')
        AND (action = 'DENY') = (denial IS NOT NULL)
        AND (action = 'DENY') = (scope IS NOT NULL)
        AND denial ~ '^[a-z_]{1,50}$'
        AND scope ~ '^[A-Z0-9_.-]{1,50}$'
        AND (action <> 'DENY' OR (exposure_delta = 0 AND open_delta = 0 AND loss_delta = 0 AND actions_delta = 0))
        -- A reserve moves exposure and stock by its amount, and counts as an action; nothing else does.
        AND (action <> 'RESERVE' OR (exposure_delta = amount AND open_delta = amount AND loss_delta = 0 AND actions_delta = 1))
        AND (actions_delta = 0 OR action = 'RESERVE')
        -- What gives back gives back; losses come from settles and corrections, and a correction moves no stock.
        AND (action <> 'SETTLE' OR (open_delta <= 0 AND loss_delta >= 0))
        AND (action NOT IN ('RELEASE', 'EXPIRE') OR open_delta = -amount)
        AND (action <> 'ADJUST' OR open_delta = 0)
        AND (loss_delta = 0 OR action IN ('SETTLE', 'ADJUST'))
        -- Only what is of no reservation names none.
        AND (reservation_id IS NOT NULL OR action IN ('DENY', 'SETTLE', 'ADJUST'));
END
$$;

CREATE OR REPLACE FUNCTION holdfast_reservation_is_sound(
    amount numeric, open_amount numeric, status text, day date, created_at timestamptz, expires_at timestamptz,
    closed_at timestamptz, seq bigint, closed_seq bigint
) RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND closed_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND expires_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND status IN ('OPEN', 'SETTLED', 'RELEASED', 'EXPIRED')
        AND amount > 0 AND amount <= 1000000000000
        AND open_amount BETWEEN 0 AND amount
        AND day = (created_at AT TIME ZONE 'UTC')::date
        AND expires_at > created_at
        -- Open is what still holds something, and only what is closed says when and by which event, which is a later one.
        AND (status = 'OPEN') = (open_amount > 0)
        AND (status = 'OPEN') = (closed_at IS NULL)
        AND (closed_at IS NULL) = (closed_seq IS NULL)
        AND closed_at > created_at
        AND closed_seq > seq;
END
$$;

ALTER TABLE access_token ADD CONSTRAINT access_token_times CHECK (
        created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND expires_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND revoked_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND last_used_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE approval ADD CONSTRAINT approval_times CHECK (
        requested_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND expires_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND approved_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE audit_erasure ADD CONSTRAINT audit_erasure_times CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE audit_head ADD CONSTRAINT audit_head_times CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE control_event ADD CONSTRAINT control_event_times CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE go_live_state ADD CONSTRAINT go_live_state_times CHECK (
        go_live_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND kill_switch_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE heimdall_event ADD CONSTRAINT heimdall_event_times CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE heimdall_policy ADD CONSTRAINT heimdall_policy_times CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE heimdall_recommendation ADD CONSTRAINT heimdall_recommendation_times CHECK (
        created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND expires_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE heimdall_scorecard_day ADD CONSTRAINT heimdall_scorecard_day_times CHECK (
        day BETWEEN '0001-01-01' AND '9999-12-31'
        AND updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE heimdall_scorecard_version ADD CONSTRAINT heimdall_scorecard_version_times CHECK (
        day BETWEEN '0001-01-01' AND '9999-12-31'
        AND updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE idempotency_key ADD CONSTRAINT idempotency_key_times CHECK (
        day BETWEEN '0001-01-01' AND '9999-12-31'
        AND at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE instance ADD CONSTRAINT instance_times CHECK (
        started_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND seen_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE kpi_event ADD CONSTRAINT kpi_event_times CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE pack ADD CONSTRAINT pack_times CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE regression_baseline ADD CONSTRAINT regression_baseline_times CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE regression_policy ADD CONSTRAINT regression_policy_times CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE regression_state ADD CONSTRAINT regression_state_times CHECK (
        last_checked_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND last_triggered_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE regression_trip ADD CONSTRAINT regression_trip_times CHECK (
        tripped_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND rearmed_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'
        AND acknowledged_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE risk_denial_day ADD CONSTRAINT risk_denial_day_times CHECK (day BETWEEN '0001-01-01' AND '9999-12-31') NOT VALID;
ALTER TABLE risk_halt ADD CONSTRAINT risk_halt_times CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE risk_ledger_day ADD CONSTRAINT risk_ledger_day_times CHECK (
        day BETWEEN '0001-01-01' AND '9999-12-31'
        AND updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE risk_open ADD CONSTRAINT risk_open_times CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE risk_policy ADD CONSTRAINT risk_policy_times CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
ALTER TABLE risk_throttle ADD CONSTRAINT risk_throttle_times CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID;
