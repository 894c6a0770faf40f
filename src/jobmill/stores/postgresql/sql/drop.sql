-- Remove jobs with all that is theirs; how many.
CREATE FUNCTION jobmill.remove(p_queue text, p_seqs bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_gone bigint;
BEGIN
    DELETE FROM jobmill.job_errors AS e USING unnest(p_seqs) AS u (seq)
    WHERE e.job = ANY (ARRAY[u.seq]);
    DELETE FROM jobmill.job_lines AS l USING unnest(p_seqs) AS u (seq)
    WHERE l.job = ANY (ARRAY[u.seq]);
    WITH gone AS (
        DELETE FROM jobmill.jobs AS j USING unnest(p_seqs) AS u (seq)
        WHERE j.seq = ANY (ARRAY[u.seq])
        RETURNING j.name, j.state
    ),
    uncounted AS (
        SELECT jobmill.count_ended(p_queue, array_agg(g.name), array_agg(g.state), -1)
        FROM gone AS g WHERE g.state = ANY ({{ENDED}})
        HAVING count(*) > 0
    )
    SELECT count(*) + 0 * (SELECT count(u.*) FROM uncounted AS u) INTO v_gone FROM gone;
    RETURN v_gone;
END
$$;

-- Each statement is led by the order of one index, as those of find are, and for the same reasons.
CREATE FUNCTION jobmill.drop(
    p_queue text, p_now double precision, p_ids text[], p_states text[], p_name text,
    p_unique_key text, p_fingerprint text, p_limit bigint
)
RETURNS bigint
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET jit = off
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_sort = off SET max_parallel_workers_per_gather = 0
SET lock_timeout = '4s' AS $$
DECLARE
    v_now double precision := jobmill.instant(p_now);
    v_states text[] := ARRAY(
        SELECT DISTINCT s FROM unnest(coalesce(p_states, ARRAY['delayed', 'pending'] || {{ENDED}})) AS s
        WHERE s <> 'processing'
    );
    v_ended text[] := ARRAY(SELECT s FROM unnest(v_states) AS s WHERE s = ANY ({{ENDED}}));
    v_waits boolean := p_states IS NOT NULL AND v_ended <> v_states;
    v_seqs bigint[];
    v_held bigint[];
BEGIN
    IF v_states = '{}' THEN
        RETURN 0;
    END IF;
    LOOP
        IF p_ids IS NOT NULL THEN
            v_seqs := ARRAY(
                SELECT j.seq FROM (SELECT DISTINCT u.id FROM unnest(p_ids) AS u (id)) AS s
                CROSS JOIN LATERAL (
                    SELECT * FROM jobmill.jobs AS k WHERE k.queue = p_queue AND k.id = s.id OFFSET 0
                ) AS j
                WHERE (p_unique_key IS NULL OR j.unique_key = p_unique_key)
                    AND (p_fingerprint IS NULL OR j.fingerprint = p_fingerprint)
                    AND jobmill.sought(j.name, j.state, j.run_at, v_now, p_name, v_states)
                ORDER BY j.seq LIMIT p_limit
            );
        ELSIF p_unique_key IS NOT NULL THEN
            v_seqs := ARRAY(
                SELECT j.seq FROM jobmill.jobs AS j
                WHERE j.queue = p_queue AND j.unique_key BETWEEN p_unique_key AND p_unique_key
                    AND (p_fingerprint IS NULL OR j.fingerprint = p_fingerprint)
                    AND jobmill.sought(j.name, j.state, j.run_at, v_now, p_name, v_states)
                ORDER BY j.unique_key, j.seq LIMIT p_limit
            );
        ELSIF p_fingerprint IS NOT NULL THEN
            v_seqs := ARRAY(
                SELECT j.seq FROM jobmill.jobs AS j
                WHERE j.queue = p_queue AND j.fingerprint BETWEEN p_fingerprint AND p_fingerprint
                    AND jobmill.sought(j.name, j.state, j.run_at, v_now, p_name, v_states)
                ORDER BY j.fingerprint, j.seq LIMIT p_limit
            );
        ELSIF p_states IS NULL OR v_waits THEN
            -- Among the oldest jobs, or all. There may be fewer than the limit: who removes them
            -- all asks again.
            v_seqs := ARRAY(
                SELECT w.seq FROM (
                    SELECT j.queue, j.seq, j.name, j.state, j.run_at FROM jobmill.jobs AS j
                    WHERE j.queue BETWEEN p_queue AND p_queue AND j.seq > 0
                    ORDER BY j.queue, j.seq LIMIT CASE WHEN v_waits THEN {{GLANCE}} END
                ) AS w
                WHERE jobmill.sought(w.name, w.state, w.run_at, v_now, p_name, v_states)
                ORDER BY w.queue, w.seq LIMIT p_limit
            );
        ELSE
            v_seqs := '{}';
        END IF;
        -- Behind others: the indexes of the states tell.
        IF v_seqs = '{}' AND p_ids IS NULL AND p_unique_key IS NULL AND p_fingerprint IS NULL
            AND p_states IS NOT NULL
        THEN
            v_seqs := ARRAY(
                SELECT w.seq FROM (
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE 'pending' = ANY (v_states) AND j.queue = p_queue
                            AND j.state = 'pending' AND NOT j.suspect
                            AND (p_name IS NULL OR j.name = p_name)
                        ORDER BY j.name, j.priority, j.run_at, j.seq
                    )
                    UNION ALL
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE 'pending' = ANY (v_states) AND j.queue = p_queue
                            AND j.state = 'pending' AND j.suspect
                            AND (p_name IS NULL OR j.name = p_name)
                        ORDER BY j.priority, j.run_at, j.seq
                    )
                    UNION ALL
                    (
                        SELECT j.seq FROM jobmill.jobs AS j
                        WHERE v_waits AND j.queue = p_queue AND j.state = 'delayed'
                            AND jobmill.sought(j.name, j.state, j.run_at, v_now, p_name, v_states)
                        ORDER BY j.run_at, j.seq
                    )
                    UNION ALL
                    SELECT j.seq FROM unnest(v_ended) AS s (state)
                    CROSS JOIN LATERAL (
                        SELECT e.seq FROM jobmill.jobs AS e
                        WHERE e.queue = p_queue AND e.state BETWEEN s.state AND s.state
                            AND e.state = ANY ({{ENDED}})
                            AND (p_name IS NULL OR e.name = p_name)
                        ORDER BY e.state, e.seq LIMIT p_limit
                    ) AS j
                ) AS w
                ORDER BY w.seq LIMIT p_limit
            );
        END IF;
        IF v_seqs = '{}' THEN
            RETURN 0;
        END IF;
        -- What has been changed meanwhile is looked at as it is now.
        v_held := ARRAY(
            SELECT j.seq FROM unnest(v_seqs) AS s (seq)
            CROSS JOIN LATERAL (
                SELECT k.seq FROM jobmill.jobs AS k
                WHERE k.seq = s.seq
                    AND jobmill.sought(k.name, k.state, k.run_at, v_now, p_name, v_states)
                OFFSET 0 FOR UPDATE
            ) AS j
        );
        IF v_held <> '{}' THEN
            RETURN jobmill.remove(p_queue, v_held);
        END IF;
    END LOOP;
END
$$;

-- Remove what has had its time.
CREATE FUNCTION jobmill.prune(p_queue text, p_now double precision, p_limit bigint) RETURNS bigint
LANGUAGE plpgsql {{PLANS}} AS $$
DECLARE
    v_now double precision := jobmill.instant(p_now);
BEGIN
    DELETE FROM jobmill.events AS e WHERE e.row_id = ANY (ARRAY(
        SELECT o.row_id FROM jobmill.events AS o
        WHERE o.queue = p_queue AND o.at < v_now - {{EVENTS_KEPT}}
        ORDER BY o.at LIMIT 4 * greatest(p_limit, 1) FOR UPDATE SKIP LOCKED
    ));
    DELETE FROM jobmill.metrics AS m WHERE m.queue = p_queue AND m.minute < v_now - {{BUCKETS_KEPT}};
    DELETE FROM jobmill.error_groups AS g
    WHERE g.queue = p_queue AND g.last_seen < v_now - {{GROUPS_KEPT}};
    PERFORM jobmill.forget_rates(p_queue, v_now);
    RETURN jobmill.remove(p_queue, ARRAY(
        SELECT j.seq FROM jobmill.jobs AS j
        WHERE j.queue = p_queue AND j.expires_at <= v_now AND j.expires_at IS NOT NULL
        ORDER BY j.expires_at, j.seq LIMIT p_limit FOR UPDATE SKIP LOCKED
    ));
END
$$;
