-- What asking for a second person costs does not grow with what was asked and refused before.

-- The requests of the last day, and those that wait. That of 0012 served only the ones that were not approved.
CREATE INDEX approval_expires ON approval (expires_at);
DROP INDEX approval_waiting;
-- Whether anything was done about a thing since it was asked for. Refusals are not among them.
CREATE INDEX control_event_subject ON control_event (subject, seq DESC) WHERE subject IS NOT NULL AND ok;
