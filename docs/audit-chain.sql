-- Per stream, whether every event gives its hash and the head is the last event (docs/AUDIT.md): run it after audit-bytes.sql.
WITH event AS (
  SELECT 'control' AS stream, * FROM control_bytes
  UNION ALL SELECT 'heimdall', * FROM heimdall_bytes
  UNION ALL SELECT 'kpi', * FROM kpi_bytes
  UNION ALL SELECT 'risk', * FROM risk_bytes
), link AS (
  SELECT stream, seq, hash, seq = row_number() OVER this AND hash = sha256(
           COALESCE(lag(hash) OVER this, decode(repeat('00', 32), 'hex')) || canonical) AS holds
  FROM event WINDOW this AS (PARTITION BY stream ORDER BY seq)
)
SELECT stream, head.seq, encode(head.hash, 'hex') AS head, COALESCE(bool_and(holds), true) AS events_hold,
       head.seq = 0 AND count(link.seq) = 0 OR (max(link.seq), bool_or(link.hash = head.hash)) = (head.seq, true) AS head_holds
FROM audit_head AS head LEFT JOIN link USING (stream)
GROUP BY stream, head.seq, head.hash ORDER BY stream;
