-- Time, switches, the head and the levels of engines. $1: the engines; $2: the day of the flows, or the day it is.
WITH clock AS MATERIALIZED (SELECT holdfast_now() AS now),
instant AS MATERIALIZED (
    SELECT clock.now,
           COALESCE($2, (clock.now AT TIME ZONE 'UTC')::date) AS day,
           head.seq,
           head.hash,
           head.at,
           head.turn,
           state.version,
           state.kill_switch_engaged,
           state.go_live_enabled,
           (SELECT at FROM risk_halt) AS halted_at,
           (SELECT min(expires_at) FROM risk_reservation WHERE status = 'OPEN') AS next_due
    FROM clock, go_live_state AS state, audit_head AS head
    WHERE head.stream = 'risk')
SELECT instant.now                AS "now!",
       instant.day                AS "day!",
       instant.version            AS "switches_version!",
       instant.kill_switch_engaged AS "kill_switch_engaged!",
       instant.go_live_enabled    AS "go_live_enabled!",
       instant.halted_at          AS "halted_at?",
       instant.next_due           AS "next_due?",
       instant.seq                AS "seq!",
       instant.hash               AS "hash!",
       instant.at                 AS "at!",
       instant.turn               AS "turn!",
       asked.engine               AS "engine!",
       policy.max_daily_loss      AS "max_daily_loss?",
       policy.max_daily_exposure  AS "max_daily_exposure?",
       policy.max_open_risk       AS "max_open_risk?",
       policy.max_actions_per_day AS "max_actions_per_day?",
       policy.default_ttl_seconds AS "default_ttl_seconds?",
       policy.enabled             AS "enabled?",
       policy.changed_by          AS "changed_by?",
       policy.reason              AS "reason?",
       policy.updated_at          AS "policy_updated_at?",
       policy.version             AS "version?",
       ARRAY(SELECT trip_id FROM risk_throttle WHERE risk_throttle.engine = asked.engine ORDER BY trip_id)
           AS "throttled_by!",
       stock.open_amount          AS "open_amount?",
       flow.exposure_used         AS "exposure_used?",
       flow.realized_loss         AS "realized_loss?",
       flow.actions_count         AS "actions_count?",
       GREATEST(stock.updated_at, flow.updated_at) AS "usage_updated_at?"
FROM instant
CROSS JOIN unnest($1::text[]) AS asked (engine)
LEFT JOIN risk_policy AS policy ON policy.engine = asked.engine
LEFT JOIN risk_open AS stock ON stock.engine = asked.engine
LEFT JOIN risk_ledger_day AS flow ON flow.engine = asked.engine AND flow.day = instant.day
