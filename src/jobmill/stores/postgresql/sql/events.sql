-- Ends and retries after the entry `p_after`; with NULL, the last one alone. What was committed
-- since the last look gets its numbers first, under the lock of the queue's row. They begin at the
-- server's microseconds, so that none is given twice, also by a promoted standby that lacks the
-- last ones.
CREATE FUNCTION jobmill.events(p_queue text, p_after bigint, p_limit bigint)
RETURNS TABLE (seq bigint, at double precision, job_id text, job_name text, kind text)
LANGUAGE plpgsql {{PLANS}} AS $$
#variable_conflict use_column
DECLARE
    v_next bigint;
BEGIN
    PERFORM 1 FROM jobmill.events AS e WHERE e.queue = p_queue AND e.seq IS NULL LIMIT 1;
    IF FOUND THEN
        INSERT INTO jobmill.event_numbers AS k (queue, next)
        VALUES (p_queue, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
        ON CONFLICT (queue) DO UPDATE SET next = greatest(k.next, excluded.next)
        RETURNING k.next INTO v_next;
        WITH numbered AS (
            UPDATE jobmill.events AS e SET seq = v_next + f.before
            FROM (
                SELECT o.row_id, sum(o.n) OVER (ORDER BY o.row_id) - o.n AS before
                FROM jobmill.events AS o WHERE o.queue = p_queue AND o.seq IS NULL
            ) AS f
            WHERE e.row_id = ANY (ARRAY[f.row_id])
            RETURNING e.n
        )
        UPDATE jobmill.event_numbers AS k
        SET next = k.next + coalesce((SELECT sum(u.n) FROM numbered AS u), 0)
        WHERE k.queue = p_queue;
    END IF;
    IF p_after IS NULL THEN
        RETURN QUERY
        SELECT e.seq + e.n - 1, e.at, e.job_ids[e.n], e.job_names[e.n], e.kinds[e.n]
        FROM jobmill.events AS e WHERE e.queue = p_queue AND e.seq IS NOT NULL
        ORDER BY e.seq DESC LIMIT least(p_limit, 1);
    ELSE
        RETURN QUERY
        SELECT e.seq + u.ord - 1, e.at, u.job_id, u.job_name, u.kind
        FROM (
            SELECT o.* FROM jobmill.events AS o
            WHERE o.queue = p_queue AND o.seq IS NOT NULL AND o.seq >= coalesce(
                (
                    SELECT max(b.seq) FROM jobmill.events AS b
                    WHERE b.queue = p_queue AND b.seq IS NOT NULL AND b.seq <= p_after
                ),
                0
            )
            -- The first row may lie before the entry as a whole.
            ORDER BY o.seq LIMIT p_limit + 1
        ) AS e
        CROSS JOIN LATERAL unnest(e.job_ids, e.job_names, e.kinds)
            WITH ORDINALITY AS u (job_id, job_name, kind, ord)
        WHERE e.seq + u.ord - 1 > p_after
        ORDER BY e.seq, u.ord LIMIT p_limit;
    END IF;
END
$$;

CREATE FUNCTION jobmill.errors(p_queue text, p_limit bigint)
RETURNS TABLE (
    fingerprint text, job_name text, count bigint, first_seen double precision,
    last_seen double precision, last_job_id text, last_error bytea
)
LANGUAGE sql STABLE AS $$
    SELECT
        g.fingerprint, g.job_name, g.count, g.first_seen, g.last_seen, g.last_job_id, g.last_error
    FROM jobmill.error_groups AS g WHERE g.queue = p_queue ORDER BY g.last_seen DESC LIMIT p_limit
$$;

-- The buckets of every slot; whoever asks sums them.
CREATE FUNCTION jobmill.metrics(p_queue text, p_since double precision)
RETURNS TABLE (
    minute double precision, job_name text, started bigint, completed bigint, failed bigint,
    retried bigint, cancelled bigint, lapsed bigint, run_sum double precision,
    wait_sum double precision, runs bigint[], waits bigint[]
)
LANGUAGE sql STABLE AS $$
    SELECT
        m.minute, m.job_name, m.started, m.completed, m.failed, m.retried, m.cancelled, m.lapsed,
        m.run_sum, m.wait_sum, m.runs, m.waits
    FROM jobmill.metrics AS m WHERE m.queue = p_queue AND m.minute >= p_since
    ORDER BY m.minute, m.job_name
$$;
