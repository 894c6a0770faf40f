-- name: by_id
SELECT seq, id, name, state, priority, run_at, suspect, asked, attempts, lapses, generation,
    token, worker, lease_until, enqueued_at, started_at, ended_at, expires_at, unique_key,
    fingerprint, progress, progress_note, policy, metadata, memo, payload, result
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_id WHERE queue = ? AND id IN (?*)

-- name: by_seq
SELECT seq, id, name, state, priority, run_at, suspect, asked, attempts, lapses, generation,
    token, worker, lease_until, enqueued_at, started_at, ended_at, expires_at, unique_key,
    fingerprint, progress, progress_note, policy, metadata, memo, payload, result
FROM main.jobmill_jobs WHERE seq IN (SELECT value FROM json_each(?))

-- name: errors
SELECT job, error FROM main.jobmill_job_errors
WHERE job IN (SELECT value FROM json_each(?)) ORDER BY job, n

-- name: lines
SELECT job, line FROM main.jobmill_job_lines
WHERE job IN (SELECT value FROM json_each(?)) ORDER BY job, n
