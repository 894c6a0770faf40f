-- Records, the last accepted first. `state` is the one told: a delayed job that is due is pending.
-- A search for a name, to which no index of the ended leads, walks by windows of jobs, and may end after
-- p_within seconds: then a last row without an id has the seq before which it goes on.
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
-- Planned for each call, by which of the conditions are given.
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_now double precision := jobmill.instant(p_now);
    v_stored text[] := CASE WHEN 'pending' = ANY (p_states) THEN p_states || 'delayed'::text
        ELSE p_states END;
    v_state text := CASE WHEN array_length(v_stored, 1) = 1 THEN v_stored[1] END;
    -- The walk is along the ends of one state, or else along all jobs.
    v_ended text := CASE WHEN v_state = ANY ({{ENDED}}) THEN v_state END;
    -- Which of the delayed jobs: those that are due, and so pending, or the others; NULL for all.
    v_due boolean := CASE
        WHEN ('pending' = ANY (p_states)) <> ('delayed' = ANY (p_states))
        THEN 'pending' = ANY (p_states)
    END;
    v_walks boolean := p_within IS NOT NULL AND p_name IS NOT NULL AND p_ids IS NULL
        AND p_unique_key IS NULL AND p_fingerprint IS NULL
        AND (p_states IS NULL OR p_states && {{ENDED}});
    v_until timestamptz := pg_catalog.clock_timestamp() + p_within * interval '1 second';
    v_before bigint := p_before;
    v_floor bigint;
    v_left bigint := p_limit;
    v_found bigint;
    v_seen bigint;
BEGIN
    LOOP
        IF v_walks THEN
            SELECT min(w.seq), count(*) INTO v_floor, v_seen FROM (
                SELECT j.seq FROM jobmill.jobs AS j
                WHERE j.queue = p_queue AND j.seq > 0
                    AND (v_ended IS NULL OR j.state = v_ended)
                    AND (v_before IS NULL OR j.seq < v_before)
                ORDER BY j.seq DESC LIMIT {{WINDOW}}
            ) AS w;
            EXIT WHEN v_floor IS NULL;
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
        FROM jobmill.jobs AS j
        WHERE j.queue = p_queue AND j.seq > 0
            AND (p_ids IS NULL OR j.id = ANY (p_ids))
            AND (v_state IS NULL OR j.state = v_state)
            AND (v_state IS NOT NULL OR p_states IS NULL OR j.state = ANY (v_stored))
            AND (v_due IS NULL OR j.state <> 'delayed' OR (j.run_at <= v_now) = v_due)
            AND (p_name IS NULL OR j.name = p_name)
            AND (p_unique_key IS NULL OR j.unique_key = p_unique_key)
            AND (p_fingerprint IS NULL OR j.fingerprint = p_fingerprint)
            AND (v_before IS NULL OR j.seq < v_before)
            AND (v_floor IS NULL OR j.seq >= v_floor)
        ORDER BY j.seq DESC LIMIT v_left;
        GET DIAGNOSTICS v_found = ROW_COUNT;
        v_left := v_left - v_found;
        v_before := v_floor;
        -- A window that is not full is the last one.
        EXIT WHEN NOT v_walks OR v_left <= 0 OR v_seen < {{WINDOW}};
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
