-- History: the open risk at the end of each day, and the versions of a policy.

-- The outstanding amount when a day ended, for the days in which it moved; until the next such day it stays the same. The
-- last day of an engine has no row: its stock is in risk_open, which says since when. Flows need nothing new: their rows
-- have a day.
CREATE TABLE risk_open_day (
    engine      text NOT NULL,
    day         date NOT NULL CHECK (day BETWEEN '0001-01-01' AND '9999-12-31'),
    -- Kept as it was, so that nothing about it can refuse a decision; the bounds only keep NaN out.
    open_amount numeric(38,6) NOT NULL CHECK (open_amount BETWEEN -1e22 AND 1e22),
    -- In the order of the one question: the last row of an engine on or before a day.
    PRIMARY KEY (engine, day)
);

-- Kept when the first movement of a later day replaces it. In the database, so that the version before, which may still
-- run, keeps it as well, and so does a repair. A day is kept once: for every other update the condition is all it costs.
-- A repair under a clock that went back may end a day twice; the later one counts.
CREATE FUNCTION holdfast_end_open_day() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.risk_open_day (engine, day, open_amount) VALUES ($1, $2, $3)
                    ON CONFLICT (engine, day) DO UPDATE SET open_amount = excluded.open_amount', TG_TABLE_SCHEMA)
        USING OLD.engine, (OLD.updated_at AT TIME ZONE 'UTC')::date, OLD.open_amount;
    RETURN NULL;
END
$$;
CREATE TRIGGER end_day AFTER UPDATE ON risk_open FOR EACH ROW
    WHEN ((OLD.updated_at AT TIME ZONE 'UTC')::date < (NEW.updated_at AT TIME ZONE 'UTC')::date)
    EXECUTE FUNCTION holdfast_end_open_day();

-- The changes of one policy, newest first, among any number of changes of other things, or of the same name by another
-- lever. By the negative number, which nothing else is ordered by: where PostgreSQL expects to find enough of them at the
-- end of the stream, it would read the stream backwards, and all of it if it is wrong.
CREATE INDEX control_event_of_subject ON control_event (subject, action, (-seq)) WHERE subject IS NOT NULL AND ok;
