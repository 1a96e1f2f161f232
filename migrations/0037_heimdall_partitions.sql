-- Events of the charter are kept in partitions like those of the ledger (0032), so that old ones can be archived (0035). The existing
-- rows become the first partition as they are: they are read once, for its bounds, and not rewritten. What a decision needs of an old
-- event stands in tables of its own, which stay: the scorecards have the trials, and heimdall_recommendation the verdicts and their ends.
--
-- The version before runs on: the table keeps its name and columns. It would know nothing of a recommendation whose event is archived
-- (404), but the first partition has room for ten million more events, and only a full one is archived.
LOCK TABLE heimdall_event IN ACCESS EXCLUSIVE MODE;

ALTER TABLE heimdall_event RENAME TO heimdall_event_1;
ALTER INDEX heimdall_event_pkey RENAME TO heimdall_event_1_pkey;
ALTER INDEX heimdall_event_domain RENAME TO heimdall_event_1_domain;
ALTER INDEX heimdall_event_correlation RENAME TO heimdall_event_1_correlation;
-- No query asks by recommendation: its verdict names the events that matter.
DROP INDEX heimdall_event_recommendation;
-- The partitioned table has the row trigger, and gives it to each partition.
DROP TRIGGER guard ON heimdall_event_1;

CREATE TABLE heimdall_event (LIKE heimdall_event_1 INCLUDING CONSTRAINTS, PRIMARY KEY (seq)) PARTITION BY RANGE (seq);
-- Not validated on the rows of the first partition either.
ALTER TABLE heimdall_event DROP CONSTRAINT heimdall_event_times, DROP CONSTRAINT heimdall_event_revoke_check;
ALTER TABLE heimdall_event
    ADD CONSTRAINT heimdall_event_times CHECK (at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999999+00') NOT VALID,
    ADD CONSTRAINT heimdall_event_revoke_check CHECK (action <> 'REVOKE' OR (ok AND recommendation_id IS NOT NULL)) NOT VALID;
-- GET /heimdall/events by domain, newest first.
CREATE INDEX heimdall_event_domain ON heimdall_event (domain, seq DESC);
-- GET /audit/events by correlation, newest first.
CREATE INDEX heimdall_event_correlation ON heimdall_event (correlation_id, seq DESC) WHERE correlation_id IS NOT NULL;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON heimdall_event FOR EACH ROW EXECUTE FUNCTION holdfast_guard_event('heimdall');
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON heimdall_event FOR EACH STATEMENT EXECUTE FUNCTION holdfast_guard_truncate();
ALTER TABLE heimdall_event ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;

-- The first partition ends ten million events from here; a server makes the next ones long before.
DO $$
DECLARE
    bound bigint := ((SELECT seq FROM audit_head WHERE stream = 'heimdall') / 1000000 + 11) * 1000000 + 1;
BEGIN
    EXECUTE format('ALTER TABLE heimdall_event ATTACH PARTITION heimdall_event_1 FOR VALUES FROM (MINVALUE) TO (%s)', bound);
END
$$;
ALTER TABLE heimdall_event_1 ENABLE ALWAYS TRIGGER guard, ENABLE ALWAYS TRIGGER guard_truncate;
