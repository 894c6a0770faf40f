-- 0 where the job may start, which is recorded; else the seconds until its slot. Without windows a
-- recorded start is given back.
CREATE FUNCTION jobmill.reserve(
    p_queue text, p_now double precision, p_key text, p_job_id text, p_token text,
    p_limits integer[], p_seconds double precision[]
)
RETURNS double precision
LANGUAGE plpgsql {{PLANS}} AS $$
DECLARE
    v_now double precision;
    v_longest double precision := coalesce((SELECT max(s) FROM unnest(p_seconds) AS s), 0);
    v_own double precision;
    v_come boolean;
    v_at double precision;
    v_slot double precision;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(p_queue || ' ' || p_key, {{RATE_LOCK}}));
    v_now := jobmill.instant(p_now);
    PERFORM jobmill.forget_starts(p_queue, p_key, v_now);
    PERFORM jobmill.forget_slots(p_queue, p_key, v_now);
    -- By the order only the primary key can lead, also in a table without statistics.
    SELECT r.at INTO v_at FROM jobmill.rate_starts AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.job_id BETWEEN p_job_id AND p_job_id
        AND r.token = p_token
    ORDER BY r.job_id LIMIT 1;
    IF cardinality(p_limits) = 0 THEN
        DELETE FROM jobmill.rate_starts AS r
        WHERE r.ctid = ANY (ARRAY(
            SELECT o.ctid FROM jobmill.rate_starts AS o
            WHERE o.queue = p_queue AND o.key = p_key AND o.job_id BETWEEN p_job_id AND p_job_id
                AND o.token = p_token
            ORDER BY o.job_id LIMIT 1
        ));
        RETURN 0;
    END IF;
    IF v_at IS NOT NULL THEN
        RETURN 0;
    END IF;
    SELECT r.at INTO v_own FROM jobmill.rate_slots AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.job_id BETWEEN p_job_id AND p_job_id
    ORDER BY r.job_id LIMIT 1;
    IF v_own IS NOT NULL THEN
        DELETE FROM jobmill.rate_slots AS r
        WHERE r.ctid = ANY (ARRAY(
            SELECT o.ctid FROM jobmill.rate_slots AS o
            WHERE o.queue = p_queue AND o.key = p_key AND o.job_id BETWEEN p_job_id AND p_job_id
            ORDER BY o.job_id LIMIT 1
        ));
    END IF;
    v_come := coalesce(v_own <= v_now, FALSE);
    v_at := jobmill.earliest(p_queue, p_key, NOT v_come, p_limits, p_seconds, v_now, 0);
    IF v_at <= v_now THEN
        INSERT INTO jobmill.rate_starts (queue, key, job_id, token, at, until)
        VALUES (p_queue, p_key, p_job_id, p_token, v_now, v_now + v_longest);
        RETURN 0;
    END IF;
    v_slot := jobmill.earliest(p_queue, p_key, TRUE, p_limits, p_seconds, v_now, {{SLACK}});
    IF v_own IS NOT NULL AND NOT v_come THEN
        v_slot := least(v_slot, v_own);
    END IF;
    INSERT INTO jobmill.rate_slots (queue, key, job_id, at, until)
    VALUES (p_queue, p_key, p_job_id, v_slot, v_slot + v_longest);
    RETURN v_slot - v_now;
END
$$;

-- The first instant, not before `p_now`, at which one start more keeps every window: beside the
-- starts, and with `p_slots` beside the slots too.
CREATE FUNCTION jobmill.earliest(
    p_queue text, p_key text, p_slots boolean,
    p_limits integer[], p_seconds double precision[], p_now double precision,
    p_slack double precision
)
RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    v_at double precision := p_now;
BEGIN
    FOR v_window IN 1 .. cardinality(p_limits) LOOP
        v_at := greatest(
            v_at,
            jobmill.from_end(p_queue, p_key, p_slots, p_limits[v_window]) + p_seconds[v_window]
            + p_slack
        );
    END LOOP;
    RETURN v_at;
END
$$;

-- The start, or with `p_slots` the start or slot, at a place from the end, counted from 1; NULL
-- where there are fewer. Its second is found by counts, its part of that by counts, and it among
-- those of that part.
CREATE FUNCTION jobmill.from_end(p_queue text, p_key text, p_slots boolean, p_place integer)
RETURNS double precision
LANGUAGE plpgsql AS $$
DECLARE
    v_left integer := p_place;
    v_second bigint;
    v_part bigint;
    v_count record;
BEGIN
    FOR v_count IN
        SELECT c.part, c.starts + CASE WHEN p_slots THEN c.slots ELSE 0 END AS here
        FROM jobmill.rate_counts AS c
        WHERE c.queue = p_queue AND c.key = p_key AND c.level = 1 ORDER BY c.part DESC
    LOOP
        IF v_count.here >= v_left THEN
            v_second := v_count.part;
            EXIT;
        END IF;
        v_left := v_left - v_count.here;
    END LOOP;
    FOR v_count IN
        SELECT c.part, c.starts + CASE WHEN p_slots THEN c.slots ELSE 0 END AS here
        FROM jobmill.rate_counts AS c
        WHERE c.queue = p_queue AND c.key = p_key AND c.level = 0
            AND c.part >= v_second * 64 AND c.part < (v_second + 1) * 64
        ORDER BY c.part DESC
    LOOP
        IF v_count.here >= v_left THEN
            v_part := v_count.part;
            EXIT;
        END IF;
        v_left := v_left - v_count.here;
    END LOOP;
    RETURN (
        SELECT t.at FROM (
            (
                SELECT r.at FROM jobmill.rate_starts AS r
                WHERE r.queue = p_queue AND r.key = p_key
                    AND r.at >= v_part / 64::double precision
                    AND r.at < (v_part + 1) / 64::double precision
                ORDER BY r.at DESC LIMIT v_left
            ) UNION ALL (
                SELECT r.at FROM jobmill.rate_slots AS r
                WHERE p_slots AND r.queue = p_queue AND r.key = p_key
                    AND r.at >= v_part / 64::double precision
                    AND r.at < (v_part + 1) / 64::double precision
                ORDER BY r.at DESC LIMIT v_left
            )
        ) AS t ORDER BY t.at DESC OFFSET v_left - 1 LIMIT 1
    );
END
$$;

-- Remove the starts of a key that mean nothing any more, from the first on.
CREATE FUNCTION jobmill.forget_starts(p_queue text, p_key text, p_now double precision)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_first double precision;
BEGIN
    SELECT r.at INTO v_first FROM jobmill.rate_starts AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.until > p_now ORDER BY r.at LIMIT 1;
    -- Found in the order of one index, so that no other leads; nobody else changes the key's rows.
    DELETE FROM jobmill.rate_starts AS r
    WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM jobmill.rate_starts AS o
        WHERE o.queue = p_queue AND o.key = p_key AND o.at < coalesce(v_first, 'infinity')
        ORDER BY o.at
    ));
END
$$;

-- The same of the slots.
CREATE FUNCTION jobmill.forget_slots(p_queue text, p_key text, p_now double precision)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_first double precision;
BEGIN
    SELECT r.at INTO v_first FROM jobmill.rate_slots AS r
    WHERE r.queue = p_queue AND r.key = p_key AND r.until > p_now ORDER BY r.at LIMIT 1;
    -- Found in the order of one index, so that no other leads; nobody else changes the key's rows.
    DELETE FROM jobmill.rate_slots AS r
    WHERE r.ctid = ANY (ARRAY(
        SELECT o.ctid FROM jobmill.rate_slots AS o
        WHERE o.queue = p_queue AND o.key = p_key AND o.at < coalesce(v_first, 'infinity')
        ORDER BY o.at
    ));
END
$$;

-- The same of all keys of a queue that nobody asks for at this moment.
CREATE FUNCTION jobmill.forget_rates(p_queue text, p_now double precision) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_key text;
BEGIN
    FOR v_key IN
        SELECT r.key FROM jobmill.rate_starts AS r WHERE r.queue = p_queue AND r.until <= p_now
        UNION
        SELECT r.key FROM jobmill.rate_slots AS r WHERE r.queue = p_queue AND r.until <= p_now
    LOOP
        IF pg_try_advisory_xact_lock(hashtextextended(p_queue || ' ' || v_key, {{RATE_LOCK}})) THEN
            PERFORM jobmill.forget_starts(p_queue, v_key, p_now);
            PERFORM jobmill.forget_slots(p_queue, v_key, p_now);
        END IF;
    END LOOP;
END
$$;
