-- name: there
SELECT id, name, payload FROM main.jobmill_jobs INDEXED BY jobmill_jobs_id
WHERE queue = ? AND id IN (?*)

-- name: holder
SELECT id FROM main.jobmill_jobs INDEXED BY jobmill_jobs_key
WHERE queue = ? AND name = ? AND unique_key = ? AND unique_key IS NOT NULL
    AND state IN ('delayed', 'pending', 'processing')

-- name: insert
INSERT INTO main.jobmill_jobs
    (queue, id, name, state, priority, run_at, enqueued_at, unique_key, policy, metadata, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
