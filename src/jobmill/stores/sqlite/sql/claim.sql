-- name: next_due
SELECT run_at FROM main.jobmill_jobs INDEXED BY jobmill_jobs_delayed
WHERE queue = ? AND state = 'delayed' ORDER BY run_at LIMIT 1

-- name: mature
UPDATE main.jobmill_jobs SET state = ?
WHERE seq IN (
    SELECT seq FROM main.jobmill_jobs INDEXED BY jobmill_jobs_delayed
    WHERE queue = ? AND state = 'delayed' AND run_at <= ? ORDER BY run_at, seq LIMIT ?
)
RETURNING name

-- name: lapsed
SELECT seq FROM main.jobmill_jobs INDEXED BY jobmill_jobs_lease
WHERE queue = ? AND state = 'processing' AND lease_until <= ? ORDER BY lease_until, seq LIMIT ?

-- name: take_over
UPDATE main.jobmill_jobs
SET token = ?, worker = ?, lease_until = ?, taken_over = 1, last_line = NULL
WHERE seq IN (SELECT value FROM json_each(?))
RETURNING seq, id, name, attempts, lapses, priority, enqueued_at, run_at, started_at, token,
    suspect, asked, unique_key, policy, metadata, memo, payload

-- name: pauses
SELECT key FROM main.jobmill_docs WHERE queue = ? AND space = 'pauses'

-- name: names
WITH RECURSIVE there (name) AS (
    SELECT (
        SELECT name FROM main.jobmill_jobs INDEXED BY jobmill_jobs_lane
        WHERE queue = ? AND state = 'pending' ORDER BY name LIMIT 1
    )
    UNION ALL
    SELECT (
        SELECT jobs.name FROM main.jobmill_jobs AS jobs INDEXED BY jobmill_jobs_lane
        WHERE jobs.queue = ? AND jobs.state = 'pending' AND jobs.name > there.name
        ORDER BY jobs.name LIMIT 1
    )
    FROM there WHERE there.name IS NOT NULL
)
SELECT name FROM there WHERE name IS NOT NULL

-- name: ready
SELECT priority, run_at, seq FROM main.jobmill_jobs INDEXED BY jobmill_jobs_ready
WHERE queue = ? AND state = 'pending' AND suspect = ? ORDER BY priority, run_at, seq LIMIT ?

-- name: lane
SELECT priority, run_at, seq FROM main.jobmill_jobs INDEXED BY jobmill_jobs_lane
WHERE queue = ? AND name = ? AND state = 'pending' AND suspect = ?
ORDER BY priority, run_at, seq LIMIT ? OFFSET ?

-- name: hand_out
UPDATE main.jobmill_jobs
SET state = 'processing', token = ?, worker = ?, lease_until = ?, started_at = ?,
    attempts = attempts + 1, taken_over = 0, last_line = NULL
WHERE seq IN (SELECT value FROM json_each(?))
RETURNING seq, id, name, attempts, lapses, priority, enqueued_at, run_at, started_at, token,
    suspect, asked, unique_key, policy, metadata, memo, payload

-- name: collect
SELECT seq, id, name, attempts, lapses, priority, enqueued_at, run_at, started_at, token,
    suspect, asked, unique_key, policy, metadata, memo, payload, taken_over
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_lease
WHERE queue = ? AND state = 'processing' AND token = ?

-- name: asked
SELECT id, token FROM main.jobmill_jobs INDEXED BY jobmill_jobs_asked
WHERE queue = ? AND state = 'processing' AND asked AND worker = ?
