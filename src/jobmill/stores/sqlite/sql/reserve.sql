-- name: started
SELECT 1 FROM main.jobmill_rate_starts WHERE queue = ? AND key = ? AND job_id = ? AND token = ?

-- name: own_slot
SELECT at FROM main.jobmill_rate_slots WHERE queue = ? AND key = ? AND job_id = ?

-- name: starts
SELECT at FROM main.jobmill_rate_starts INDEXED BY jobmill_rate_starts_at
WHERE queue = ? AND key = ? ORDER BY at DESC LIMIT ?

-- name: slots
SELECT at FROM main.jobmill_rate_slots INDEXED BY jobmill_rate_slots_at
WHERE queue = ? AND key = ? AND job_id <> ? ORDER BY at DESC LIMIT ?

-- name: start
INSERT INTO main.jobmill_rate_starts (queue, key, job_id, token, at, until)
VALUES (?, ?, ?, ?, ?, ?)

-- name: slot
INSERT INTO main.jobmill_rate_slots (queue, key, job_id, at, until) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (queue, key, job_id) DO UPDATE SET at = excluded.at, until = excluded.until

-- name: no_slot
DELETE FROM main.jobmill_rate_slots WHERE queue = ? AND key = ? AND job_id = ?

-- name: forget_starts
DELETE FROM main.jobmill_rate_starts WHERE queue = ? AND until <= ?

-- name: forget_slots
DELETE FROM main.jobmill_rate_slots WHERE queue = ? AND until <= ?
