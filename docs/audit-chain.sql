-- Per stream, whether every event gives its hash and the head is the last event (docs/AUDIT.md): run it after audit-bytes.sql.
-- Where events are in the archive, the chain goes on from the hash of the last one, which audit_archive has.
WITH event AS (
  SELECT 'control' AS stream, seq, hash, canonical, NULL::bigint AS first_seq, NULL::bytea AS hash_before FROM control_bytes
  UNION ALL SELECT 'heimdall', seq, hash, canonical, NULL, NULL FROM heimdall_bytes
  UNION ALL SELECT 'kpi', seq, hash, canonical, NULL, NULL FROM kpi_bytes
  UNION ALL SELECT 'risk', seq, hash, canonical, NULL, NULL FROM risk_bytes
  UNION ALL SELECT stream, last_seq, last_hash, NULL, first_seq, hash_before FROM audit_archive WHERE restored_at IS NULL
), link AS (
  SELECT stream, seq, hash, COALESCE(first_seq, seq) = COALESCE(lag(seq) OVER this, 0) + 1 AND CASE
           WHEN first_seq IS NULL THEN hash = sha256(COALESCE(lag(hash) OVER this, decode(repeat('00', 32), 'hex')) || canonical)
           ELSE hash_before = COALESCE(lag(hash) OVER this, decode(repeat('00', 32), 'hex')) END AS holds
  FROM event WINDOW this AS (PARTITION BY stream ORDER BY seq)
)
SELECT stream, head.seq, encode(head.hash, 'hex') AS head, COALESCE(bool_and(holds), true) AS events_hold,
       head.seq = 0 AND count(link.seq) = 0 OR (max(link.seq), bool_or(link.hash = head.hash)) = (head.seq, true) AS head_holds
FROM audit_head AS head LEFT JOIN link USING (stream)
GROUP BY stream, head.seq, head.hash ORDER BY stream;
