-- name: jobs
SELECT seq, id, name, state, run_at, suspect, asked, attempts, lapses, token, started_at,
    unique_key, fingerprint, last_line, policy, asked_error, asked_fingerprint
FROM main.jobmill_jobs INDEXED BY jobmill_jobs_id WHERE queue = ? AND id IN (?*)

-- name: settle
UPDATE main.jobmill_jobs
SET state = ?, run_at = ?, suspect = ?, asked = ?, attempts = ?, lapses = ?, fingerprint = ?,
    ended_at = ?, expires_at = ?, result = ?, memo = ?, lease_until = NULL
WHERE seq = ?

-- name: change
UPDATE main.jobmill_jobs
SET state = ?, run_at = ?, fingerprint = ?, ended_at = ?, expires_at = ?
WHERE seq = ?

-- name: start_over
UPDATE main.jobmill_jobs
SET state = ?, run_at = ?, fingerprint = ?, generation = generation + 1,
    attempts = 0, lapses = 0, suspect = 0, asked = 0, asked_error = NULL,
    asked_fingerprint = NULL, taken_over = 0, worker = NULL, lease_until = NULL,
    started_at = NULL, ended_at = NULL, expires_at = NULL, result = NULL, progress = NULL,
    progress_note = NULL, last_line = NULL, memo = NULL
WHERE seq = ?

-- name: forget_lines
DELETE FROM main.jobmill_job_lines WHERE job = ?

-- name: ask
UPDATE main.jobmill_jobs SET asked = 1, asked_error = ?, asked_fingerprint = ? WHERE seq = ?

-- name: error
INSERT INTO main.jobmill_job_errors (job, n, error)
SELECT job, (SELECT coalesce(max(n), 0) + 1 FROM main.jobmill_job_errors AS before WHERE before.job = given.job), what
FROM (SELECT ? AS job, ? AS what) AS given

-- name: trim_errors
DELETE FROM main.jobmill_job_errors
WHERE job = ?
    AND n <= (SELECT max(n) FROM main.jobmill_job_errors AS last WHERE last.job = jobmill_job_errors.job) - ?

-- name: progress
UPDATE main.jobmill_jobs SET progress = ?, progress_note = ? WHERE seq = ?

-- name: line
INSERT INTO main.jobmill_job_lines (job, n, line)
SELECT job, (SELECT coalesce(max(n), 0) + 1 FROM main.jobmill_job_lines AS before WHERE before.job = given.job), what
FROM (SELECT ? AS job, ? AS what) AS given

-- name: trim_lines
DELETE FROM main.jobmill_job_lines
WHERE job = ?
    AND n <= (SELECT max(n) FROM main.jobmill_job_lines AS last WHERE last.job = jobmill_job_lines.job) - ?

-- name: last_line
UPDATE main.jobmill_jobs SET last_line = ? WHERE seq = ?
