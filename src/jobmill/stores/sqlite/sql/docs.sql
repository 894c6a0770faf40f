-- name: read
SELECT key, value, version, at FROM main.jobmill_docs
WHERE queue = ? AND space = ? AND key > ? ORDER BY key LIMIT ?

-- name: version
SELECT version FROM main.jobmill_docs WHERE queue = ? AND space = ? AND key = ?

-- name: put
INSERT OR REPLACE INTO main.jobmill_docs (queue, space, key, value, version, at)
VALUES (?, ?, ?, ?, ?, ?)

-- name: remove
DELETE FROM main.jobmill_docs WHERE queue = ? AND space = ? AND key = ?

-- name: keep
DELETE FROM main.jobmill_docs
WHERE queue = ? AND space = ? AND key IN (
    SELECT key FROM main.jobmill_docs
    WHERE queue = ? AND space = ? ORDER BY key DESC LIMIT -1 OFFSET ?
)

-- name: queues
SELECT queue FROM main.jobmill_counts WHERE n > 0 UNION SELECT queue FROM main.jobmill_docs
ORDER BY queue

-- name: last_event
SELECT seq, at, job_id, job_name, kind FROM main.jobmill_events
WHERE queue = ? ORDER BY seq DESC LIMIT ?

-- name: events
SELECT seq, at, job_id, job_name, kind FROM main.jobmill_events
WHERE queue = ? AND seq > ? ORDER BY seq LIMIT ?

-- name: error_groups
SELECT fingerprint, job_name, count, first_seen, last_seen, last_job_id, last_error
FROM main.jobmill_error_groups INDEXED BY jobmill_error_groups_seen
WHERE queue = ? ORDER BY last_seen DESC LIMIT ?

-- name: metrics
SELECT bucket FROM main.jobmill_metrics
WHERE queue = ? AND minute >= ? ORDER BY minute, job_name
