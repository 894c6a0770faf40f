-- name: these
SELECT seq, name, state, run_at, unique_key, fingerprint
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_id WHERE queue = ? AND id IN (?*)

-- name: jobs
DELETE FROM main.jobmill_jobs WHERE seq IN (SELECT value FROM json_each(?)) RETURNING name, state

-- name: errors
DELETE FROM main.jobmill_job_errors WHERE job IN (SELECT value FROM json_each(?))

-- name: lines
DELETE FROM main.jobmill_job_lines WHERE job IN (SELECT value FROM json_each(?))
