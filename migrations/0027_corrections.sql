-- A correction takes back no more than its event booked, and a thread is somebody's: its engine's and its caller's.

-- What corrections have added to what an event booked. Written with each correction, read by the key when there is another one.
CREATE TABLE risk_correction (
    corrects_seq bigint PRIMARY KEY CHECK (corrects_seq > 0),
    loss         numeric(38,6) NOT NULL CHECK (loss     BETWEEN -1e22 AND 1e22),
    exposure     numeric(38,6) NOT NULL CHECK (exposure BETWEEN -1e22 AND 1e22)
);
INSERT INTO risk_correction (corrects_seq, loss, exposure)
SELECT (detail::json ->> 'corrects_seq')::bigint, sum(loss_delta), sum(exposure_delta)
FROM risk_event
WHERE action = 'ADJUST' AND detail IS NOT NULL
GROUP BY 1;

-- The original settle asks whether anything was ever denied in its thread, on its engine or to its caller. Denials alone: nothing else pays
-- for it.
CREATE INDEX risk_event_denied_engine ON risk_event (correlation_id, engine) WHERE action = 'DENY' AND correlation_id IS NOT NULL;
CREATE INDEX risk_event_denied_principal ON risk_event (correlation_id, principal) WHERE action = 'DENY' AND correlation_id IS NOT NULL;
DROP INDEX risk_event_denied;
