-- A histogram of times, by the bounds of the contract; NULL of none.
CREATE FUNCTION jobmill.bars(p_times double precision[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_bars bigint[];
    v_time double precision;
    v_bar integer;
BEGIN
    IF p_times IS NULL THEN
        RETURN NULL;
    END IF;
    v_bars := array_fill(0, ARRAY[{{BARS}}]);
    FOREACH v_time IN ARRAY p_times LOOP
        -- A time that equals a bound belongs below it, and width_bucket puts it above: so
        -- everything is turned round.
        v_bar := {{BARS}} - width_bucket(-v_time, {{BOUNDS_TURNED}});
        v_bars[v_bar] := v_bars[v_bar] + 1;
    END LOOP;
    RETURN v_bars;
END
$$;

-- The sum of two histograms, of which each may be NULL.
CREATE FUNCTION jobmill.plus(p_bars bigint[], p_more bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    -- Written out: a loop costs more than the rest of settling one job.
    RETURN CASE WHEN p_bars IS NULL THEN p_more WHEN p_more IS NULL THEN p_bars ELSE ARRAY[
        {{SUMMED_BARS}}
    ] END;
END
$$;

-- Append errors to their jobs, and count them into their groups; in the order given.
CREATE FUNCTION jobmill.write_errors(
    p_queue text, p_now double precision, p_jobs bigint[], p_ids text[], p_names text[],
    p_errors bytea[], p_fingerprints text[]
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO jobmill.job_errors (job, n, error)
    SELECT
        e.job,
        row_number() OVER (PARTITION BY e.job ORDER BY e.ord)
            + coalesce((SELECT max(b.n) FROM jobmill.job_errors AS b WHERE b.job = e.job), 0),
        e.error
    FROM unnest(p_jobs, p_errors) WITH ORDINALITY AS e (job, error, ord);
    DELETE FROM jobmill.job_errors AS o
    USING (SELECT DISTINCT job FROM unnest(p_jobs) AS u (job)) AS e
    WHERE o.job = ANY (ARRAY[e.job]) AND o.n <= (
        SELECT max(l.n) FROM jobmill.job_errors AS l WHERE l.job = e.job
    ) - {{KEPT_ERRORS}};
    INSERT INTO jobmill.error_groups AS g
        (queue, fingerprint, job_name, count, first_seen, last_seen, last_job_id, last_error)
    SELECT
        p_queue,
        e.fingerprint,
        (array_agg(e.name ORDER BY e.ord DESC))[1],
        count(*),
        p_now,
        p_now,
        (array_agg(e.id ORDER BY e.ord DESC))[1],
        (array_agg(e.error ORDER BY e.ord DESC))[1]
    FROM unnest(p_ids, p_names, p_errors, p_fingerprints)
        WITH ORDINALITY AS e (id, name, error, fingerprint, ord)
    WHERE e.fingerprint IS NOT NULL
    GROUP BY e.fingerprint
    ORDER BY e.fingerprint COLLATE "C"
    ON CONFLICT (queue, fingerprint) DO UPDATE SET
        job_name = excluded.job_name,
        count = g.count + excluded.count,
        last_seen = excluded.last_seen,
        last_job_id = excluded.last_job_id,
        last_error = excluded.last_error;
END
$$;

-- Append log lines to their jobs, but for those whose number is stored already.
CREATE FUNCTION jobmill.write_lines(
    p_jobs bigint[], p_queue text, p_numbers bigint[], p_lines bytea[]
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO jobmill.job_lines (job, n, line)
    SELECT
        e.job,
        row_number() OVER (PARTITION BY e.job ORDER BY e.ord)
            + coalesce((SELECT max(b.n) FROM jobmill.job_lines AS b WHERE b.job = e.job), 0),
        e.line
    FROM unnest(p_jobs, p_numbers, p_lines) WITH ORDINALITY AS e (job, number, line, ord)
    CROSS JOIN LATERAL (
        SELECT k.last_line FROM jobmill.jobs AS k WHERE k.seq = e.job OFFSET 0
    ) AS j
    WHERE (j.last_line IS NULL OR e.number > j.last_line)
        AND NOT EXISTS (
            SELECT 1 FROM unnest(p_jobs, p_numbers) WITH ORDINALITY AS o (job, number, ord)
            WHERE o.job = e.job AND o.ord < e.ord AND o.number >= e.number
        );
    UPDATE jobmill.jobs AS j SET last_line = greatest(j.last_line, e.last)
    FROM (
        SELECT u.job, max(u.number) AS last FROM unnest(p_jobs, p_numbers) AS u (job, number)
        GROUP BY u.job
    ) AS e
    WHERE j.seq = ANY (ARRAY[e.job]);
    DELETE FROM jobmill.job_lines AS o
    USING (SELECT DISTINCT job FROM unnest(p_jobs) AS u (job)) AS e
    WHERE o.job = ANY (ARRAY[e.job]) AND o.n <= (
        SELECT max(l.n) FROM jobmill.job_lines AS l WHERE l.job = e.job
    ) - {{KEPT_LINES}};
END
$$;

-- Count ended jobs that came or went: pairs of name and state, and by how many.
CREATE FUNCTION jobmill.count_ended(p_queue text, p_names text[], p_states text[], p_by integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO jobmill.ended AS c (queue, name, state, slot, n)
    SELECT p_queue, e.name, e.state, pg_backend_pid() % {{SLOTS}}, p_by * count(*)
    FROM unnest(p_names, p_states) AS e (name, state)
    GROUP BY e.name, e.state
    ORDER BY e.name COLLATE "C", e.state COLLATE "C"
    ON CONFLICT (queue, name, state, slot) DO UPDATE SET n = c.n + excluded.n;
END
$$;
