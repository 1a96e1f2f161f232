-- Who runs on this database, and which history its go-live state belongs to.

-- One row an instance of the service, written with every renewal of its lease: a database that cannot commit this row (a
-- standby, a primary that was deposed) cannot keep a gate open. fillfactor leaves room for HOT updates, twice a second.
CREATE TABLE instance (
    id            uuid PRIMARY KEY,
    name          text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
    version       text NOT NULL CHECK (char_length(version) BETWEEN 1 AND 64),
    -- What it enforces and how, as JSON: instances that differ in it answer differently.
    configuration text NOT NULL,
    -- What its own gate goes by: the database's state, its kill file, or nothing since the state went backwards.
    standing      text NOT NULL CHECK (standing IN ('state', 'kill_file', 'rewound')),
    -- The state's version that it went by when it sent this.
    state_version bigint CHECK (state_version > 0),
    started_at    timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The history that the state belongs to. An instance takes a new one over only if it follows the one that it knew, or if it
-- had noticed that the state went backwards and somebody has accepted that since: `holdfast db accept-rewind`.
ALTER TABLE go_live_state
    ADD COLUMN generation uuid NOT NULL DEFAULT gen_random_uuid(),
    ADD COLUMN follows uuid;
