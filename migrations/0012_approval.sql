-- The second person. While two_person_release is on, what lets more happen than before waits for another person's word.

-- A row a request that waits or waited. Its id is the sequence number of its control event APPROVAL_REQUEST, so that whether
-- something was tightened since is a look at the events behind it.
CREATE TABLE approval (
    id           bigint PRIMARY KEY CHECK (id > 0),
    action       text NOT NULL CHECK (action IN ('GO_LIVE_ENABLE', 'KILL_SWITCH_RELEASE', 'RISK_POLICY_UPSERT')),
    -- What is asked for, as JSON: it is done as it was asked, whatever is sent with the approval.
    input        text NOT NULL,
    actor        text CHECK (char_length(actor) BETWEEN 1 AND 200),
    reason       text CHECK (char_length(reason) <= 1000),
    requested_by text NOT NULL CHECK (char_length(requested_by) BETWEEN 1 AND 200),
    -- The person behind the request; the approval needs another one.
    owner        text NOT NULL CHECK (char_length(owner) BETWEEN 1 AND 200),
    requested_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL CHECK (expires_at > requested_at),
    approved_at  timestamptz,
    approved_by  text CHECK (char_length(approved_by) BETWEEN 1 AND 200),
    CHECK ((approved_at IS NULL) = (approved_by IS NULL))
);
-- Those that wait: few, and looked for by every request that would be one more.
CREATE INDEX approval_waiting ON approval (expires_at) WHERE approved_at IS NULL;

INSERT INTO setting (key, value) VALUES ('two_person_release', 'off');
-- A server that knows no approvals would not wait for them.
UPDATE setting SET value = '12' WHERE key = 'schema_minimum';
