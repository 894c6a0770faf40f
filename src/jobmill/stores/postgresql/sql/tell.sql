-- Wake who listens: that jobs came, and that jobs ended, the latter where somebody shares the lock
-- that says so; the answer is whether somebody does. It cannot be had beside them, nor beside
-- another who tells at this moment, which does no harm. Nothing is lost where a hint is, so that it
-- waits for no disk.
CREATE FUNCTION jobmill.tell(
    p_jobs text, p_ends text, p_lock_class integer, p_lock_number integer
)
RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'off', TRUE);
    IF p_jobs IS NOT NULL THEN
        PERFORM pg_notify(p_jobs, '');
    END IF;
    IF p_ends IS NULL OR pg_try_advisory_xact_lock(p_lock_class, p_lock_number) THEN
        RETURN FALSE;
    END IF;
    PERFORM pg_notify(p_ends, '');
    RETURN TRUE;
END
$$;

-- Whether one of the jobs has ended already, so that nobody will tell of it.
CREATE FUNCTION jobmill.any_over(p_queue text, p_ids text[]) RETURNS boolean
LANGUAGE plpgsql STABLE {{PLANS}} AS $$
BEGIN
    RETURN EXISTS (
        SELECT 1 FROM unnest(p_ids) AS u (id) CROSS JOIN LATERAL (
            SELECT j.state FROM jobmill.jobs AS j WHERE j.queue = p_queue AND j.id = u.id OFFSET 0
        ) AS l
        WHERE l.state = ANY ({{ENDED}})
    );
END
$$;
