-- name: expired
SELECT seq FROM main.jobmill_jobs INDEXED BY jobmill_jobs_expiry
WHERE queue = ? AND expires_at <= ? AND expires_at IS NOT NULL ORDER BY expires_at, seq LIMIT ?

-- name: events
DELETE FROM main.jobmill_events
WHERE queue = ? AND seq <= (
    SELECT max(seq) FROM (
        SELECT seq, at FROM main.jobmill_events WHERE queue = ? ORDER BY seq LIMIT ?
    ) WHERE at <= ?
)

-- name: metrics
DELETE FROM main.jobmill_metrics WHERE queue = ? AND minute < ?

-- name: error_groups
DELETE FROM main.jobmill_error_groups WHERE queue = ? AND last_seen < ?

-- name: zeros
DELETE FROM main.jobmill_counts WHERE queue = ? AND n = 0
