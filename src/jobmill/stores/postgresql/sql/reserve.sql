-- 0 where the job may start, which is recorded; else the seconds until its slot.
CREATE FUNCTION jobmill.reserve(
    p_queue text, p_now double precision, p_key text, p_job_id text, p_token text,
    p_limits integer[], p_seconds double precision[]
)
RETURNS double precision
LANGUAGE plpgsql {{PLANS}} AS $$
DECLARE
    v_now double precision;
    v_longest double precision := coalesce((SELECT max(s) FROM unnest(p_seconds) AS s), 0);
    v_most integer := coalesce((SELECT max(n) FROM unnest(p_limits) AS n), 0);
    v_own double precision;
    v_come boolean;
    v_starts double precision[];
    v_slots double precision[];
    v_at double precision;
    v_slot double precision;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_queue || ' ' || p_key, {{RATE_LOCK}}));
    v_now := jobmill.instant(p_now);
    DELETE FROM jobmill.rate_starts AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.until <= v_now;
    DELETE FROM jobmill.rate_slots AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.until <= v_now;
    PERFORM 1 FROM jobmill.rate_starts AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.job_id = p_job_id AND r.token = p_token;
    IF FOUND THEN
        RETURN 0;
    END IF;
    SELECT r.at INTO v_own FROM jobmill.rate_slots AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.job_id = p_job_id;
    v_come := coalesce(v_own <= v_now, FALSE);
    -- The last first.
    v_starts := ARRAY(
        SELECT r.at FROM jobmill.rate_starts AS r
        WHERE r.queue = p_queue AND r.key = p_key ORDER BY r.at DESC LIMIT v_most
    );
    v_slots := ARRAY(
        SELECT r.at FROM jobmill.rate_slots AS r
        WHERE r.queue = p_queue AND r.key = p_key AND r.job_id <> p_job_id
        ORDER BY r.at DESC LIMIT v_most
    );
    v_at := jobmill.earliest(
        v_starts, CASE WHEN v_come THEN '{}' ELSE v_slots END, p_limits, p_seconds, v_now, 0
    );
    IF v_at <= v_now THEN
        DELETE FROM jobmill.rate_slots AS r
        WHERE r.queue = p_queue AND r.key = p_key AND r.job_id = p_job_id;
        INSERT INTO jobmill.rate_starts (queue, key, job_id, token, at, until)
        VALUES (p_queue, p_key, p_job_id, p_token, v_now, v_now + v_longest);
        RETURN 0;
    END IF;
    v_slot := jobmill.earliest(v_starts, v_slots, p_limits, p_seconds, v_now, {{SLACK}});
    IF v_own IS NOT NULL AND NOT v_come THEN
        v_slot := least(v_slot, v_own);
    END IF;
    INSERT INTO jobmill.rate_slots (queue, key, job_id, at, until)
    VALUES (p_queue, p_key, p_job_id, v_slot, v_slot + v_longest)
    ON CONFLICT (queue, key, job_id) DO UPDATE SET at = excluded.at, until = excluded.until;
    RETURN v_slot - v_now;
END
$$;

-- The first instant, not before `p_now`, at which one start more keeps every window. `p_starts`
-- and `p_slots` fall, and hold the last ones.
CREATE FUNCTION jobmill.earliest(
    p_starts double precision[], p_slots double precision[],
    p_limits integer[], p_seconds double precision[], p_now double precision,
    p_slack double precision
)
RETURNS double precision
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_at double precision := p_now;
    v_taken double precision[] := ARRAY(
        SELECT t FROM unnest(p_starts || p_slots) AS t ORDER BY t DESC
    );
BEGIN
    FOR v_window IN 1 .. coalesce(array_length(p_limits, 1), 0) LOOP
        IF v_taken[p_limits[v_window]] IS NOT NULL THEN
            v_at := greatest(
                v_at, v_taken[p_limits[v_window]] + p_seconds[v_window] + p_slack
            );
        END IF;
    END LOOP;
    RETURN v_at;
END
$$;
