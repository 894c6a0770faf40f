-- name: started
SELECT 1 FROM main.jobmill_rate_starts WHERE queue = ? AND key = ? AND job_id = ? AND token = ?

-- name: own_slot
DELETE FROM main.jobmill_rate_slots WHERE queue = ? AND key = ? AND job_id = ? RETURNING at

-- name: seconds
SELECT part, starts, slots FROM main.jobmill_rate_counts
WHERE queue = ? AND key = ? AND level = 1 ORDER BY part DESC

-- name: parts
SELECT part, starts, slots FROM main.jobmill_rate_counts
WHERE queue = ? AND key = ? AND level = 0 AND part >= ? AND part < ? ORDER BY part DESC

-- name: starts
SELECT at FROM main.jobmill_rate_starts INDEXED BY jobmill_rate_starts_at
WHERE queue = ? AND key = ? AND at >= ? AND at < ? ORDER BY at DESC LIMIT ?

-- name: slots
SELECT at FROM main.jobmill_rate_slots INDEXED BY jobmill_rate_slots_at
WHERE queue = ? AND key = ? AND at >= ? AND at < ? ORDER BY at DESC LIMIT ?

-- name: start
INSERT INTO main.jobmill_rate_starts (queue, key, job_id, token, at, until)
VALUES (?, ?, ?, ?, ?, ?)

-- name: give_back
DELETE FROM main.jobmill_rate_starts WHERE queue = ? AND key = ? AND job_id = ? AND token = ?

-- name: slot
INSERT INTO main.jobmill_rate_slots (queue, key, job_id, at, until) VALUES (?, ?, ?, ?, ?)

-- name: forget_starts
DELETE FROM main.jobmill_rate_starts WHERE queue = ? AND until <= ?

-- name: forget_slots
DELETE FROM main.jobmill_rate_slots WHERE queue = ? AND until <= ?
