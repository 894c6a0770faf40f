-- name: bucket
SELECT bucket FROM main.jobmill_metrics WHERE queue = ? AND minute = ? AND job_name = ?

-- name: put_bucket
INSERT OR REPLACE INTO main.jobmill_metrics (queue, minute, job_name, bucket) VALUES (?, ?, ?, ?)

-- name: event
INSERT INTO main.jobmill_events (queue, seq, at, job_id, job_name, kind) VALUES (?, ?, ?, ?, ?, ?)

-- name: error
INSERT INTO main.jobmill_error_groups
    (queue, fingerprint, job_name, count, first_seen, last_seen, last_job_id, last_error)
VALUES (?, ?, ?, 1, ?, ?, ?, ?)
ON CONFLICT (queue, fingerprint) DO UPDATE SET
    job_name = excluded.job_name,
    count = count + 1,
    last_seen = excluded.last_seen,
    last_job_id = excluded.last_job_id,
    last_error = excluded.last_error
