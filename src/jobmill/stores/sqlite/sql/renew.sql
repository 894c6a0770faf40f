-- name: running
SELECT id, seq, token, asked, last_line FROM main.jobmill_jobs INDEXED BY jobmill_jobs_id
WHERE queue = ? AND id IN (?*) AND state = 'processing'

-- name: hold
UPDATE main.jobmill_jobs SET lease_until = ? WHERE seq = ?
