-- One intent, one effect: what a caller's key stands for, committed together with its effect.

-- A ledger decision is kept as a pointer to its event, which holds the answer; other routes keep the answer itself.
-- `fields` says what was asked, field by field as digests, so that another input under the same key is refused by name.
-- Partitioned by the day of the effect, so that forgetting a day is dropping a table. The day is part of the key only
-- because PostgreSQL wants it so: a look-up sees the last seven days, under the head that the effect takes.
CREATE TABLE idempotency_key (
    day       date NOT NULL,
    principal text NOT NULL CHECK (char_length(principal) BETWEEN 1 AND 200),
    key       text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    route     text NOT NULL CHECK (octet_length(route) BETWEEN 1 AND 1024),
    fields    text NOT NULL,
    risk_seq  bigint CHECK (risk_seq > 0),
    answer    text,
    at        timestamptz NOT NULL,
    PRIMARY KEY (key, principal, day),
    CHECK ((risk_seq IS NULL) <> (answer IS NULL)),
    CHECK (day = (at AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (day);
-- Days that have no partition of their own, so that a key is never refused because upkeep is late.
CREATE TABLE idempotency_key_other PARTITION OF idempotency_key DEFAULT;
