-- A clock that was ahead once leaves an event at a time that is still to come. Whoever has looked accepts the clock that is right again.

-- `since` is what the clock said then, `up_to` an hour after the last event. Read only while the clock is behind.
CREATE TABLE risk_clock (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    up_to     timestamptz NOT NULL
              CHECK (up_to BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00'),
    since     timestamptz NOT NULL
              CHECK (since BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00')
);
