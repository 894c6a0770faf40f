-- Jobs to be handed out, locked, in the order of a claim; what others have locked is passed over.
-- `p_open`: of these names only. The rest is what a survey found, or NULL.
CREATE FUNCTION jobmill.ready(
    p_queue text, p_limit integer, p_open text[],
    p_newest bigint, p_priorities bigint[], p_run_ats double precision[], p_seqs bigint[]
)
RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    v_left integer := p_limit;
    v_some record;
    v_last record;
    v_seqs bigint[] := '{}';
BEGIN
    IF p_open IS NULL AND p_newest IS NULL THEN
        RETURN ARRAY(
            SELECT j.seq FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.state = 'pending' AND NOT j.suspect AND j.seq > 0
            ORDER BY j.priority, j.run_at, j.seq LIMIT p_limit FOR UPDATE SKIP LOCKED
        );
    END IF;
    -- Found first and locked then, so that no more is locked than is handed out. Where others
    -- were faster, it goes on behind what was found.
    SELECT -9223372036854775808 AS priority, '-Infinity'::double precision AS run_at,
        0::bigint AS seq INTO v_last;
    WHILE v_left > 0 LOOP
        IF p_open IS NOT NULL THEN
            SELECT array_agg(c.seq) AS seqs, array_agg(c.priority) AS priorities,
                array_agg(c.run_at) AS run_ats
            INTO v_some FROM (
                SELECT l.* FROM unnest(p_open) AS o (name)
                CROSS JOIN LATERAL (
                    SELECT j.seq, j.priority, j.run_at FROM jobmill.jobs AS j
                    WHERE j.queue = p_queue AND j.name = o.name AND j.state = 'pending'
                        AND NOT j.suspect AND (j.priority, j.run_at, j.seq)
                            > (v_last.priority, v_last.run_at, v_last.seq)
                    ORDER BY j.priority, j.run_at, j.seq LIMIT v_left
                ) AS l
                ORDER BY l.priority, l.run_at, l.seq LIMIT v_left
            ) AS c;
        ELSE
            SELECT array_agg(c.seq) AS seqs, array_agg(c.priority) AS priorities,
                array_agg(c.run_at) AS run_ats
            INTO v_some FROM (
                SELECT l.* FROM unnest(p_priorities, p_run_ats, p_seqs)
                    AS f (priority, run_at, seq)
                CROSS JOIN LATERAL (
                    SELECT j.seq, j.priority, j.run_at FROM jobmill.jobs AS j
                    WHERE j.queue = p_queue AND j.priority = f.priority AND j.state = 'pending'
                        AND NOT j.suspect AND j.seq > 0
                        AND (j.run_at, j.seq) >= (f.run_at, f.seq)
                        AND (j.priority, j.run_at, j.seq)
                            > (v_last.priority, v_last.run_at, v_last.seq)
                    ORDER BY j.run_at, j.seq LIMIT v_left
                ) AS l
                UNION
                SELECT a.seq, a.priority, a.run_at FROM (
                    SELECT j.seq, j.priority, j.run_at, j.state, j.suspect
                    FROM jobmill.jobs AS j
                    WHERE j.queue = p_queue AND j.seq > p_newest AND j.seq > 0 OFFSET 0
                ) AS a
                WHERE a.state = 'pending' AND NOT a.suspect AND (a.priority, a.run_at, a.seq)
                    > (v_last.priority, v_last.run_at, v_last.seq)
                ORDER BY priority, run_at, seq LIMIT v_left
            ) AS c;
        END IF;
        EXIT WHEN v_some.seqs IS NULL;
        v_seqs := v_seqs || ARRAY(
            SELECT l.seq FROM unnest(v_some.seqs) AS u (seq)
            CROSS JOIN LATERAL (
                SELECT j.seq, j.state, j.suspect FROM jobmill.jobs AS j WHERE j.seq = u.seq
                OFFSET 0 FOR UPDATE SKIP LOCKED
            ) AS l
            WHERE l.state = 'pending' AND NOT l.suspect
        );
        EXIT WHEN array_length(v_some.seqs, 1) < v_left;
        v_last.priority := v_some.priorities[v_left];
        v_last.run_at := v_some.run_ats[v_left];
        v_last.seq := v_some.seqs[v_left];
        v_left := p_limit - coalesce(array_length(v_seqs, 1), 0);
    END LOOP;
    RETURN v_seqs;
END
$$;

-- How many dead entries this transaction has passed over so far in the indexes that lead a claim.
-- An index that is read past the dead, which an old snapshot keeps, tells more entries than rows.
CREATE FUNCTION jobmill.dead_passed() RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    RETURN coalesce(
        pg_stat_get_xact_tuples_returned(to_regclass('jobmill.jobs_ready'))
        - pg_stat_get_xact_tuples_fetched(to_regclass('jobmill.jobs_ready'))
        + pg_stat_get_xact_tuples_returned(to_regclass('jobmill.jobs_delayed'))
        - pg_stat_get_xact_tuples_fetched(to_regclass('jobmill.jobs_delayed'))
        + pg_stat_get_xact_tuples_returned(to_regclass('jobmill.jobs_lease'))
        - pg_stat_get_xact_tuples_fetched(to_regclass('jobmill.jobs_lease')),
        0
    );
END
$$;

-- Read past the dead, and write down for a while where the living begin, so that claims need not.
-- `p_whole`: from the beginning; else from where the last survey found them, which passes over jobs
-- that came back before it, until the next whole one. The answer: seconds until the next whole one,
-- a third of which this took at most; NULL where the dead are few, and nothing is written.
CREATE FUNCTION jobmill.survey(p_queue text, p_now double precision, p_whole boolean)
RETURNS double precision
LANGUAGE plpgsql {{PLANS}} AS $$
DECLARE
    v_began timestamptz := clock_timestamp();
    -- No place is later, so that what becomes pending from now on, or has just been, stands behind.
    v_latest double precision := jobmill.instant(p_now) - 1;
    v_dead bigint := jobmill.dead_passed();
    v_pause double precision;
    v_last record;
    v_newest bigint;
    v_from bigint := -9223372036854775808;
    v_first record;
    v_priorities bigint[] := '{}';
    v_run_ats double precision[] := '{}';
    v_seqs bigint[] := '{}';
    v_lease double precision;
    v_due double precision;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtextextended(p_queue, {{SURVEY_LOCK}})) THEN
        RETURN NULL;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', TRUE);
    SELECT s.* INTO v_last FROM jobmill.surveys AS s
    WHERE s.queue = p_queue AND s.until > extract(epoch FROM clock_timestamp())
        AND s.until < extract(epoch FROM clock_timestamp()) + 2 * {{SURVEY_HOLDS}}
    ORDER BY s.until DESC LIMIT 1;
    IF NOT FOUND AND NOT p_whole THEN
        RETURN NULL;
    END IF;
    SELECT j.seq INTO v_newest FROM jobmill.jobs AS j
    WHERE j.queue = p_queue AND j.seq > 0 ORDER BY j.seq DESC LIMIT 1;
    IF p_whole THEN
        LOOP
            SELECT j.priority, j.run_at, j.seq INTO v_first FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.state = 'pending' AND NOT j.suspect AND j.seq > 0
                AND j.priority >= v_from
            ORDER BY j.priority, j.run_at, j.seq LIMIT 1;
            EXIT WHEN NOT FOUND;
            v_priorities := v_priorities || v_first.priority;
            v_run_ats := v_run_ats || least(v_first.run_at, v_latest);
            v_seqs := v_seqs || CASE WHEN v_first.run_at > v_latest THEN 0 ELSE v_first.seq END;
            EXIT WHEN v_first.priority = 9223372036854775807;
            v_from := v_first.priority + 1;
            IF array_length(v_seqs, 1) > {{SURVEYED_PRIORITIES}} THEN
                RETURN NULL;
            END IF;
        END LOOP;
        -- Those that have just been drained, too: delayed jobs of theirs come due.
        FOR v_first IN
            SELECT o.priority FROM unnest(v_last.priorities) AS o (priority)
            WHERE o.priority <> ALL (v_priorities)
            LIMIT {{SURVEYED_PRIORITIES}} - coalesce(array_length(v_priorities, 1), 0)
        LOOP
            v_priorities := v_priorities || v_first.priority;
            v_run_ats := v_run_ats || v_latest;
            v_seqs := v_seqs || 0::bigint;
        END LOOP;
    ELSE
        SELECT coalesce(array_agg(c.priority), '{}'), coalesce(array_agg(c.run_at), '{}'),
            coalesce(array_agg(c.seq), '{}')
        INTO v_priorities, v_run_ats, v_seqs FROM (
            SELECT DISTINCT ON (f.priority) f.priority, least(f.run_at, v_latest) AS run_at,
                CASE WHEN f.run_at > v_latest THEN 0 ELSE f.seq END AS seq
            FROM (
                SELECT o.priority, coalesce(l.run_at, 'Infinity') AS run_at,
                    coalesce(l.seq, 0) AS seq
                FROM unnest(v_last.priorities, v_last.run_ats, v_last.seqs)
                    AS o (priority, run_at, seq)
                LEFT JOIN LATERAL (
                    SELECT j.run_at, j.seq FROM jobmill.jobs AS j
                    WHERE j.queue = p_queue AND j.priority = o.priority AND j.state = 'pending'
                        AND NOT j.suspect AND j.seq > 0
                        AND (j.run_at, j.seq) >= (o.run_at, o.seq)
                    ORDER BY j.run_at, j.seq LIMIT 1
                ) AS l ON TRUE
                UNION ALL
                SELECT a.priority, a.run_at, a.seq FROM (
                    SELECT j.priority, j.run_at, j.seq, j.state, j.suspect FROM jobmill.jobs AS j
                    WHERE j.queue = p_queue AND j.seq > v_last.newest AND j.seq > 0 OFFSET 0
                ) AS a
                WHERE a.state = 'pending' AND NOT a.suspect
            ) AS f
            ORDER BY f.priority, f.run_at, f.seq
        ) AS c;
    END IF;
    SELECT j.lease_until INTO v_lease FROM jobmill.jobs AS j
    WHERE j.queue = p_queue AND j.state = 'processing'
        AND j.lease_until >= CASE WHEN p_whole THEN '-Infinity' ELSE v_last.lease_until END
    ORDER BY j.lease_until LIMIT 1;
    SELECT j.run_at INTO v_due FROM jobmill.jobs AS j
    WHERE j.queue = p_queue AND j.state = 'delayed'
        AND j.run_at >= CASE WHEN p_whole THEN '-Infinity' ELSE v_last.due END
    ORDER BY j.run_at LIMIT 1;
    IF p_whole AND jobmill.dead_passed() - v_dead <= {{MANY_DEAD}} THEN
        DELETE FROM jobmill.surveys AS s WHERE s.queue = p_queue;
        RETURN NULL;
    END IF;
    DELETE FROM jobmill.surveys AS s
    WHERE s.queue = p_queue AND s.until < extract(epoch FROM clock_timestamp());
    v_pause := 1 + 3 * extract(epoch FROM clock_timestamp() - v_began);
    INSERT INTO jobmill.surveys (
        queue, until, newest, priorities, run_ats, seqs, lease_until, due
    ) VALUES (
        p_queue,
        greatest(extract(epoch FROM clock_timestamp()) + {{SURVEY_HOLDS}}, v_last.until + 0.001),
        coalesce(v_newest, 0), v_priorities, v_run_ats, v_seqs,
        least(v_lease, v_latest), least(v_due, v_latest)
    );
    RETURN v_pause;
END
$$;
