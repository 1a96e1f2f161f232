-- The second person at every door: what else may wait, how a request ends without being done, and answers that say that something
-- waits, kept under their key like any other.

-- The routes of all that loosens. Each is the name of the change's own event, but for a correction, whose event is the ledger's.
ALTER TABLE approval
    DROP CONSTRAINT approval_action_check,
    ADD CONSTRAINT approval_action_check CHECK (action IN (
        'GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE', 'RISK_POLICY_UPSERT', 'RISK_ADJUST', 'HEIMDALL_POLICY_UPSERT', 'HEIMDALL_PROMOTE',
        'REGRESSION_POLICY_UPSERT', 'REGRESSION_REARM', 'REGRESSION_BASELINE_RESET')),
    -- What it is about, as the events of its lever name it: a newer one cancels it. Null where it is the whole system, and in rows
    -- of the version before, whose input names the engine.
    ADD COLUMN subject     text CHECK (octet_length(subject) BETWEEN 1 AND 200),
    -- Somebody said no, or the one who asked took it back.
    ADD COLUMN rejected_at timestamptz CHECK (isfinite(rejected_at)),
    ADD COLUMN rejected_by text CHECK (char_length(rejected_by) BETWEEN 1 AND 200),
    ADD CONSTRAINT approval_rejected_whole CHECK ((rejected_at IS NULL) = (rejected_by IS NULL)),
    ADD CONSTRAINT approval_ends_once CHECK (approved_at IS NULL OR rejected_at IS NULL);

-- Whether a kept answer is a 202: replayed, it says again that the change waits, and is not taken for one that is done.
ALTER TABLE idempotency_key ADD COLUMN waits boolean NOT NULL DEFAULT false;

-- The original settle asks whether anything was ever denied in its thread. Denials alone: nothing else pays for it.
CREATE INDEX risk_event_denied ON risk_event (correlation_id) WHERE action = 'DENY' AND correlation_id IS NOT NULL;
