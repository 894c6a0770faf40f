-- name: doc
INSERT INTO main.jobmill_numbers (queue, doc) VALUES (?, ?)
ON CONFLICT (queue) DO UPDATE SET doc = doc + excluded.doc RETURNING doc

-- name: heed
INSERT INTO main.jobmill_numbers (queue, heed) VALUES (?, ?)
ON CONFLICT (queue) DO UPDATE SET heed = heed + excluded.heed RETURNING heed

-- name: event
INSERT INTO main.jobmill_numbers (queue, event) VALUES (?, ?)
ON CONFLICT (queue) DO UPDATE SET event = event + excluded.event RETURNING event

-- name: last_heed
SELECT heed FROM main.jobmill_numbers WHERE queue = ?
