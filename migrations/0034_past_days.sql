-- The open risk at the end of the days before 0033: the sum of all that was reserved and returned until then. It reads
-- every event once, in a migration of its own, so that the version before reserves meanwhile: nothing is locked.
INSERT INTO risk_open_day (engine, day, open_amount)
SELECT engine, past.day, past.open_amount
FROM (SELECT COALESCE(engine, 'GLOBAL') AS engine,
             day,
             sum(sum(open_delta)) OVER (PARTITION BY COALESCE(engine, 'GLOBAL') ORDER BY day) AS open_amount
      FROM risk_event
      -- GLOBAL moves with every engine.
      GROUP BY GROUPING SETS ((engine, day), (day))) AS past
JOIN risk_open USING (engine)
WHERE past.day < (risk_open.updated_at AT TIME ZONE 'UTC')::date
ON CONFLICT (engine, day) DO NOTHING;
