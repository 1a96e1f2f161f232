-- Silence begins with the last measurement, with a re-arm, or when the wire was switched on, whichever is the latest. `updated_at` moves
-- with every setting, so that a change of a threshold would hide a silence that has begun.
--
-- Of wires that are here already nobody knows when they were switched on: no later than they were last changed. The version before
-- writes wires without this column: a new one takes the default, and one that it switches on counts from when it was on before.
ALTER TABLE regression_policy
    ADD enabled_at timestamptz NOT NULL DEFAULT holdfast_now()
        -- An infinite time is none that the service can read.
        CHECK (isfinite(enabled_at));
UPDATE regression_policy SET enabled_at = updated_at;
