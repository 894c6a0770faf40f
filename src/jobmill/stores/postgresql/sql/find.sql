-- Whether a job has the name and one of the states, where those are given. A delayed job that is due
-- is told as pending.
CREATE FUNCTION jobmill.sought(
    p_name text, p_state text, p_run_at double precision, p_now double precision,
    p_wanted text, p_states text[]
)
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT (p_wanted IS NULL OR p_name = p_wanted)
        AND (p_states IS NULL OR CASE WHEN p_state = 'delayed' AND p_run_at <= p_now
            THEN 'pending' ELSE p_state END = ANY (p_states))
$$;

-- Records, the last accepted first. A search for a name, to which no index of the ended leads,
-- walks by windows of jobs, and may end after p_within seconds: then a last row without an id has
-- the seq before which it goes on.
CREATE FUNCTION jobmill.find(
    p_queue text, p_now double precision, p_ids text[], p_states text[], p_name text,
    p_unique_key text, p_fingerprint text, p_before bigint, p_limit bigint,
    p_within double precision
)
RETURNS TABLE (
    seq bigint, id text, name text, state text, payload bytea, policy bytea, priority bigint,
    run_at double precision, enqueued_at double precision, attempts integer, lapses integer,
    generation integer, suspect boolean, asked boolean, token text, worker text,
    lease_until double precision, started_at double precision, ended_at double precision,
    expires_at double precision, result bytea, errors bytea[], fingerprint text,
    progress double precision, progress_note text, logs bytea[], unique_key text, metadata bytea,
    memo bytea
)
-- Planned for each call, by which of the conditions are given. Each statement asks for the order of
-- one index, and sorting counts as dear: so that this index leads also in a table that has just been
-- filled, of which there are no statistics. With = in the place of BETWEEN another would have the
-- same order.
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET max_parallel_workers_per_gather = 0 AS $$
#variable_conflict use_column
DECLARE
    v_now double precision := jobmill.instant(p_now);
    v_ended text[] := ARRAY(
        SELECT DISTINCT s FROM unnest(p_states) AS s WHERE s = ANY ({{ENDED}})
    );
    -- The walk is along the ends of one state, or else along all jobs.
    v_along text := CASE WHEN v_ended = p_states AND cardinality(v_ended) = 1 THEN v_ended[1] END;
    -- An index leads to a name only among jobs that wait or run.
    v_led boolean := p_states IS NOT NULL AND v_along IS NULL
        AND (p_name IS NULL OR v_ended = '{}');
    v_walks boolean := p_ids IS NULL AND p_unique_key IS NULL AND p_fingerprint IS NULL
        AND p_name IS NOT NULL AND NOT v_led;
    v_window bigint := CASE WHEN v_walks THEN {{WINDOW}} WHEN v_led THEN {{GLANCE}}
        ELSE p_limit END;
    v_until timestamptz := pg_catalog.clock_timestamp() + p_within * interval '1 second';
    v_before bigint := coalesce(p_before, 9223372036854775807);
    v_left bigint := p_limit;
    v_seen bigint;
    v_floor bigint;
    v_seqs bigint[];
BEGIN
    LOOP
        IF p_ids IS NOT NULL THEN
            v_seqs := ARRAY(
                SELECT j.seq FROM unnest(p_ids) AS s (id)
                CROSS JOIN LATERAL (
                    SELECT k.seq FROM jobmill.jobs AS k
                    WHERE k.queue = p_queue AND k.id = s.id OFFSET 0
                ) AS j
            );
        ELSIF p_unique_key IS NOT NULL THEN
            v_seqs := ARRAY(
                SELECT j.seq FROM jobmill.jobs AS j
                WHERE j.queue = p_queue AND j.unique_key BETWEEN p_unique_key AND p_unique_key
                    AND j.seq < v_before
                    AND (p_fingerprint IS NULL OR j.fingerprint = p_fingerprint)
                    AND jobmill.sought(j.name, j.state, j.run_at, v_now, p_name, p_states)
                ORDER BY j.unique_key DESC, j.seq DESC LIMIT v_left
            );
        ELSIF p_fingerprint IS NOT NULL THEN
            v_seqs := ARRAY(
                SELECT j.seq FROM jobmill.jobs AS j
                WHERE j.queue = p_queue AND j.fingerprint BETWEEN p_fingerprint AND p_fingerprint
                    AND j.seq < v_before
                    AND jobmill.sought(j.name, j.state, j.run_at, v_now, p_name, p_states)
                ORDER BY j.fingerprint DESC, j.seq DESC LIMIT v_left
            );
        ELSE
            SELECT
                min(w.seq), count(*),
                (array_agg(w.seq ORDER BY w.seq DESC) FILTER (
                    WHERE jobmill.sought(w.name, w.state, w.run_at, v_now, p_name, p_states)
                ))[:v_left]
            INTO v_floor, v_seen, v_seqs
            FROM (
                (
                    SELECT j.seq, j.name, j.state, j.run_at FROM jobmill.jobs AS j
                    WHERE v_along IS NULL AND j.queue BETWEEN p_queue AND p_queue
                        AND j.seq < v_before AND j.seq > 0
                    ORDER BY j.queue DESC, j.seq DESC LIMIT v_window
                )
                UNION ALL
                (
                    SELECT j.seq, j.name, j.state, j.run_at FROM jobmill.jobs AS j
                    WHERE v_along IS NOT NULL AND j.queue = p_queue
                        AND j.state BETWEEN v_along AND v_along AND j.state = ANY ({{ENDED}})
                        AND j.seq < v_before
                    ORDER BY j.state DESC, j.seq DESC LIMIT v_window
                )
            ) AS w;
            v_seqs := coalesce(v_seqs, '{}');
        END IF;
        -- Of a large backlog the first are found at a glance; what is scarce, the indexes of the
        -- states tell.
        IF v_led AND v_seen = v_window AND cardinality(v_seqs) < v_left THEN
            v_seqs := ARRAY(
                SELECT w.seq FROM (
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE 'pending' = ANY (p_states) AND j.queue = p_queue
                            AND j.state = 'pending' AND NOT j.suspect
                            AND (p_name IS NULL OR j.name = p_name)
                        ORDER BY j.name, j.priority, j.run_at, j.seq
                    )
                    UNION ALL
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE 'pending' = ANY (p_states) AND j.queue = p_queue
                            AND j.state = 'pending' AND j.suspect
                            AND (p_name IS NULL OR j.name = p_name)
                        ORDER BY j.priority, j.run_at, j.seq
                    )
                    UNION ALL
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE 'pending' = ANY (p_states) AND j.queue = p_queue
                            AND j.state = 'delayed' AND j.run_at <= v_now
                            AND (p_name IS NULL OR j.name = p_name)
                        ORDER BY j.run_at, j.seq
                    )
                    UNION ALL
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE 'delayed' = ANY (p_states) AND j.queue = p_queue
                            AND j.state = 'delayed' AND j.run_at > v_now
                            AND (p_name IS NULL OR j.name = p_name)
                        ORDER BY j.run_at, j.seq
                    )
                    UNION ALL
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE 'processing' = ANY (p_states) AND j.queue = p_queue
                            AND j.state = 'processing'
                            AND (p_name IS NULL OR j.name = p_name)
                        ORDER BY j.lease_until, j.seq
                    )
                    UNION ALL
                    SELECT j.seq FROM unnest(v_ended) AS s (state)
                    CROSS JOIN LATERAL (
                        SELECT e.seq FROM jobmill.jobs AS e
                        WHERE e.queue = p_queue AND e.state BETWEEN s.state AND s.state
                            AND e.state = ANY ({{ENDED}}) AND e.seq < v_before
                        ORDER BY e.state DESC, e.seq DESC LIMIT v_left
                    ) AS j
                ) AS w
                WHERE w.seq < v_before
                ORDER BY w.seq DESC LIMIT v_left
            );
        END IF;
        RETURN QUERY
        SELECT
            j.seq, j.id, j.name,
            CASE WHEN j.state = 'delayed' AND j.run_at <= v_now THEN 'pending' ELSE j.state END,
            j.payload, j.policy, j.priority, j.run_at, j.enqueued_at, j.attempts, j.lapses,
            j.generation, j.suspect, j.asked, j.token, j.worker, j.lease_until, j.started_at,
            j.ended_at, j.expires_at, j.result,
            ARRAY(SELECT e.error FROM jobmill.job_errors AS e WHERE e.job = j.seq ORDER BY e.n),
            j.fingerprint, j.progress, j.progress_note,
            ARRAY(SELECT l.line FROM jobmill.job_lines AS l WHERE l.job = j.seq ORDER BY l.n),
            j.unique_key, j.metadata, j.memo
        FROM unnest(v_seqs) AS s (seq)
        CROSS JOIN LATERAL (
            SELECT * FROM jobmill.jobs AS k WHERE k.seq = s.seq OFFSET 0
        ) AS j
        ORDER BY j.seq DESC;
        v_left := v_left - cardinality(v_seqs);
        v_before := v_floor;
        -- A window that is not full is the last one.
        EXIT WHEN NOT v_walks OR v_left <= 0 OR v_seen < v_window;
        IF pg_catalog.clock_timestamp() >= v_until THEN
            seq := v_floor;
            RETURN NEXT;
            EXIT;
        END IF;
    END LOOP;
END
$$;

-- How many jobs there are, by name and state as they are told, with the oldest due instant of
-- those that are pending; and the instant of the answer in the last row, without a name. Ended
-- jobs are summed from their counters, unless the query looks deeper.
CREATE FUNCTION jobmill.counts(
    p_queue text, p_now double precision, p_states text[], p_name text, p_unique_key text,
    p_fingerprint text
)
RETURNS TABLE (name text, state text, n bigint, oldest double precision)
-- Led by the partial indexes, which have all that is counted: not by a walk over the whole table,
-- which looks cheap to the planner once several workers share it.
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan SET jit = off
SET max_parallel_workers_per_gather = 0 SET random_page_cost = 1.1 AS $$
#variable_conflict use_column
DECLARE
    v_now double precision := jobmill.instant(p_now);
    v_deep boolean := p_unique_key IS NOT NULL OR p_fingerprint IS NOT NULL;
BEGIN
    RETURN QUERY
    SELECT c.name, c.state, sum(c.n)::bigint, min(c.oldest) FILTER (WHERE c.state = 'pending')
    FROM (
        -- The state as a word of its own, not the column: so that the index of lanes has it all.
        SELECT j.name, 'pending' AS state, count(*) AS n, min(j.run_at) AS oldest
        FROM jobmill.jobs AS j
        WHERE NOT v_deep AND j.queue = p_queue AND j.state = 'pending' AND NOT j.suspect
            AND (p_name IS NULL OR j.name = p_name)
        GROUP BY j.name
        UNION ALL
        SELECT j.name, j.state, count(*), min(j.run_at) FROM jobmill.jobs AS j
        WHERE NOT v_deep AND j.queue = p_queue AND j.state = 'pending' AND j.suspect
            AND (p_name IS NULL OR j.name = p_name)
        GROUP BY j.name, j.state
        UNION ALL
        SELECT
            j.name, CASE WHEN j.run_at <= v_now THEN 'pending' ELSE 'delayed' END AS told,
            count(*), min(j.run_at)
        FROM jobmill.jobs AS j
        WHERE NOT v_deep AND j.queue = p_queue AND j.state = 'delayed'
            AND (p_name IS NULL OR j.name = p_name)
        GROUP BY j.name, told
        UNION ALL
        SELECT j.name, j.state, count(*), NULL FROM jobmill.jobs AS j
        WHERE NOT v_deep AND j.queue = p_queue AND j.state = 'processing'
            AND (p_name IS NULL OR j.name = p_name)
        GROUP BY j.name, j.state
        UNION ALL
        SELECT e.name, e.state, sum(e.n), NULL FROM jobmill.ended AS e
        WHERE NOT v_deep AND e.queue = p_queue AND (p_name IS NULL OR e.name = p_name)
        GROUP BY e.name, e.state
        UNION ALL
        SELECT
            j.name,
            CASE WHEN j.state = 'delayed' AND j.run_at <= v_now THEN 'pending'
                ELSE j.state END AS told,
            count(*), min(j.run_at)
        FROM jobmill.jobs AS j
        WHERE v_deep AND j.queue = p_queue AND (p_name IS NULL OR j.name = p_name)
            AND (p_unique_key IS NULL OR j.unique_key = p_unique_key)
            AND (p_fingerprint IS NULL OR j.fingerprint = p_fingerprint)
        GROUP BY j.name, told
    ) AS c
    WHERE p_states IS NULL OR c.state = ANY (p_states)
    GROUP BY c.name, c.state
    HAVING sum(c.n) > 0;
    RETURN QUERY SELECT NULL::text, NULL::text, NULL::bigint, v_now;
END
$$;
