-- GET /audit/events answers "what belongs to this thread?" over all four streams. The risk stream has had an index for it from the
-- start; these are the other three. Partial, so that an event without a correlation pays nothing. Everything else that the route
-- filters by it finds by the sequence number, in steps of bounded length: an index would cost every insert for the sake of a rare
-- question. Times need none: within a stream they rise with the sequence number, so that the key finds them.
CREATE INDEX control_event_correlation ON control_event (correlation_id, seq DESC) WHERE correlation_id IS NOT NULL;
CREATE INDEX heimdall_event_correlation ON heimdall_event (correlation_id, seq DESC) WHERE correlation_id IS NOT NULL;
CREATE INDEX kpi_event_correlation ON kpi_event (correlation_id, seq DESC) WHERE correlation_id IS NOT NULL;
