-- name: doc
INSERT INTO main.jobmill_numbers (queue, doc) VALUES (?, ?)
ON CONFLICT (queue) DO UPDATE SET doc = doc + excluded.doc RETURNING doc

-- name: event
INSERT INTO main.jobmill_numbers (queue, event) VALUES (?, ?)
ON CONFLICT (queue) DO UPDATE SET event = event + excluded.event RETURNING event

-- name: last_doc
SELECT doc FROM main.jobmill_numbers WHERE queue = ?
