-- Each tag by the hour. Runs on DuckDB and Spark alike; `readings` holds whole days, the session's zone is UTC.
-- NaN and infinity are no numbers here: both engines order them beyond every bound.
SELECT event_date, date_trunc('hour', event_ts) AS hour_ts,
       enterprise, site, area, line, cell, equipment, tag,
       count(*) AS n,
       sum(CASE WHEN quality >= 192 THEN 1 ELSE 0 END) AS n_good,
       count(number) AS n_value,
       avg(number) AS avg_value,
       min(number) AS min_value,
       max(number) AS max_value,
       stddev_samp(number) AS std_value,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY number) AS p95_value,
       min_by(number, number_order) AS first_value,
       max_by(number, number_order) AS last_value,
       min_by(message_id, number_order) AS first_message_id,
       max_by(message_id, number_order) AS last_message_id
FROM (
    SELECT *, CASE WHEN abs(value) <= 1.7976931348623157E308 THEN value END AS number,
           CASE WHEN abs(value) <= 1.7976931348623157E308 THEN (event_ts, seq) END AS number_order
    FROM readings
    WHERE tag IS NOT NULL
) AS numbered
GROUP BY event_date, date_trunc('hour', event_ts), enterprise, site, area, line, cell, equipment, tag
ORDER BY enterprise, site, area, line, cell, equipment, tag, hour_ts
