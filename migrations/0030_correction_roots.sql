-- A correction of a correction counts against the event at the root of both.

-- Of a correction, the event that it goes back to. A row's sums are then the corrections that name its event and, where the event is no
-- correction itself, all that go back to it. The version before leaves this empty: it counts only the corrections that name an event.
ALTER TABLE risk_correction ADD COLUMN root bigint CHECK (root > 0);

-- None is booked between the sums and the end of this.
LOCK TABLE risk_event IN SHARE MODE;
DELETE FROM risk_correction;
WITH RECURSIVE correction AS MATERIALIZED (
    SELECT seq, (detail::json ->> 'corrects_seq')::bigint AS target, loss_delta AS loss, exposure_delta AS exposure
    FROM risk_event
    WHERE action = 'ADJUST' AND detail IS NOT NULL
), chain AS (
    SELECT seq, target, loss, exposure, target AS root FROM correction
    UNION ALL
    SELECT chain.seq, chain.target, chain.loss, chain.exposure, parent.target
    FROM chain
    JOIN correction AS parent ON parent.seq = chain.root
), rooted AS (
    SELECT * FROM chain WHERE NOT EXISTS (SELECT FROM correction AS parent WHERE parent.seq = chain.root)
)
INSERT INTO risk_correction (corrects_seq, loss, exposure, root)
SELECT seq, sum(loss), sum(exposure), max(root)
FROM (SELECT target AS seq, loss, exposure, NULL::bigint AS root FROM rooted
      UNION ALL
      SELECT root, loss, exposure, NULL FROM rooted WHERE root <> target
      UNION ALL
      SELECT seq, 0, 0, root FROM rooted) AS part
GROUP BY seq;
