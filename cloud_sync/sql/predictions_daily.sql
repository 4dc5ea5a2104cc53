-- Each equipment by the day: how probable its failure became, and which alarms came of it. DuckDB and Spark alike.
-- `predictions`, `alarms` hold whole days; `settings` holds one row with the threshold.
WITH said AS (
    SELECT event_date, enterprise, site, area, line, cell, equipment,
           count(*) AS predictions,
           max(probability) AS max_probability,
           max_by(event_ts, (probability, event_ts, seq)) AS max_probability_at,
           min(CASE WHEN probability >= threshold THEN event_ts END) AS first_above_at,
           max(threshold) AS threshold,
           min(health) AS min_health,
           max_by(mode, (probability, event_ts, seq)) AS mode,
           max_by(model, (probability, event_ts, seq)) AS model,
           max_by(message_id, (probability, event_ts, seq)) AS max_message_id
    FROM predictions CROSS JOIN settings
    WHERE equipment IS NOT NULL AND abs(probability) <= 1
    GROUP BY event_date, enterprise, site, area, line, cell, equipment
), raised AS (
    SELECT event_date, enterprise, site, area, line, cell, equipment,
           sum(CASE WHEN key = 'prediction' THEN 1 ELSE 0 END) AS alarms_raised,
           sum(CASE WHEN key <> 'prediction' THEN 1 ELSE 0 END) AS limit_alarms_raised,
           min(event_ts) AS first_alarm_at
    FROM alarms
    WHERE equipment IS NOT NULL AND state = 'raised'
    GROUP BY event_date, enterprise, site, area, line, cell, equipment
)
SELECT event_date, enterprise, site, area, line, cell, equipment,
       coalesce(predictions, 0) AS predictions, max_probability, max_probability_at, first_above_at,
       coalesce(said.threshold, settings.threshold) AS threshold, min_health, mode, model,
       coalesce(alarms_raised, 0) AS alarms_raised, coalesce(limit_alarms_raised, 0) AS limit_alarms_raised,
       first_alarm_at, max_message_id
FROM said FULL OUTER JOIN raised USING (event_date, enterprise, site, area, line, cell, equipment)
     CROSS JOIN settings
ORDER BY enterprise, site, area, line, cell, equipment, event_date
