-- Remove jobs with all that is theirs; how many.
CREATE FUNCTION jobmill.remove(p_queue text, p_seqs bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    v_gone bigint;
BEGIN
    DELETE FROM jobmill.job_errors AS e WHERE e.job = ANY (p_seqs);
    DELETE FROM jobmill.job_lines AS l WHERE l.job = ANY (p_seqs);
    WITH gone AS (
        DELETE FROM jobmill.jobs AS j WHERE j.seq = ANY (p_seqs)
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

CREATE FUNCTION jobmill.drop(
    p_queue text, p_now double precision, p_ids text[], p_states text[], p_name text,
    p_unique_key text, p_fingerprint text, p_limit bigint
)
RETURNS bigint
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET jit = off
SET lock_timeout = '4s' AS $$
DECLARE
    v_now double precision := jobmill.instant(p_now);
    v_stored text[] := CASE WHEN 'pending' = ANY (p_states) THEN p_states || 'delayed'::text
        ELSE p_states END;
    v_state text := CASE WHEN array_length(v_stored, 1) = 1 THEN v_stored[1] END;
    -- Which of the delayed jobs: those that are due, and so pending, or the others; NULL for all.
    v_due boolean := CASE
        WHEN ('pending' = ANY (p_states)) <> ('delayed' = ANY (p_states))
        THEN 'pending' = ANY (p_states)
    END;
BEGIN
    RETURN jobmill.remove(p_queue, ARRAY(
        SELECT j.seq FROM jobmill.jobs AS j
        WHERE j.queue = p_queue AND j.seq > 0 AND j.state <> 'processing'
            AND (p_ids IS NULL OR j.id = ANY (p_ids))
            AND (v_state IS NULL OR j.state = v_state)
            AND (v_state IS NOT NULL OR p_states IS NULL OR j.state = ANY (v_stored))
            AND (v_due IS NULL OR j.state <> 'delayed' OR (j.run_at <= v_now) = v_due)
            AND (p_name IS NULL OR j.name = p_name)
            AND (p_unique_key IS NULL OR j.unique_key = p_unique_key)
            AND (p_fingerprint IS NULL OR j.fingerprint = p_fingerprint)
        ORDER BY j.seq LIMIT p_limit FOR UPDATE
    ));
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
