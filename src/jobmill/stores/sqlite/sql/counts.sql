-- name: add
INSERT INTO main.jobmill_counts (queue, name, state, n) VALUES (?, ?, ?, ?)
ON CONFLICT (queue, name, state) DO UPDATE SET n = n + excluded.n

-- name: stored
SELECT name, state, n FROM main.jobmill_counts
WHERE queue = :queue AND (:name IS NULL OR name = :name) AND n > 0

-- name: ripe
SELECT name, count(*), min(run_at) FROM main.jobmill_jobs INDEXED BY jobmill_jobs_delayed
WHERE queue = :queue AND state = 'delayed' AND run_at <= :now AND (:name IS NULL OR name = :name)
GROUP BY name

-- name: oldest
WITH RECURSIVE head (name, suspect, priority, run_at) AS (
    SELECT * FROM (
        SELECT name, suspect, priority, run_at
        FROM main.jobmill_jobs INDEXED BY jobmill_jobs_ready
        WHERE queue = :queue AND state = 'pending' AND suspect = 0
        ORDER BY priority, run_at LIMIT 1
    )
    UNION ALL
    SELECT * FROM (
        SELECT name, suspect, priority, run_at
        FROM main.jobmill_jobs INDEXED BY jobmill_jobs_ready
        WHERE queue = :queue AND state = 'pending' AND suspect = 1
        ORDER BY priority, run_at LIMIT 1
    )
    UNION ALL
    SELECT jobs.name, jobs.suspect, jobs.priority, jobs.run_at
    FROM head JOIN main.jobmill_jobs AS jobs ON jobs.seq = (
        SELECT seq FROM main.jobmill_jobs INDEXED BY jobmill_jobs_ready
        WHERE queue = :queue AND state = 'pending'
            AND suspect = head.suspect AND priority > head.priority
        ORDER BY priority, run_at LIMIT 1
    )
)
SELECT name, min(run_at) FROM head HAVING count(*)

-- name: oldest_of_name
WITH RECURSIVE head (name, suspect, priority, run_at) AS (
    SELECT * FROM (
        SELECT name, suspect, priority, run_at
        FROM main.jobmill_jobs INDEXED BY jobmill_jobs_lane
        WHERE queue = :queue AND name = :name AND state = 'pending' AND suspect = 0
        ORDER BY priority, run_at LIMIT 1
    )
    UNION ALL
    SELECT * FROM (
        SELECT name, suspect, priority, run_at
        FROM main.jobmill_jobs INDEXED BY jobmill_jobs_lane
        WHERE queue = :queue AND name = :name AND state = 'pending' AND suspect = 1
        ORDER BY priority, run_at LIMIT 1
    )
    UNION ALL
    SELECT jobs.name, jobs.suspect, jobs.priority, jobs.run_at
    FROM head JOIN main.jobmill_jobs AS jobs ON jobs.seq = (
        SELECT seq FROM main.jobmill_jobs INDEXED BY jobmill_jobs_lane
        WHERE queue = :queue AND name = :name AND state = 'pending'
            AND suspect = head.suspect AND priority > head.priority
        ORDER BY priority, run_at LIMIT 1
    )
)
SELECT name, min(run_at) FROM head HAVING count(*)
