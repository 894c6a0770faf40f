-- A new version for a document of a queue; `p_heeded` where workers act on it. They begin at the
-- instant's microseconds, so that none is given twice, also by a promoted standby that lacks the
-- last ones.
CREATE FUNCTION jobmill.new_version(
    p_queue text, p_now double precision, p_heeded boolean
)
RETURNS bigint
LANGUAGE sql AS $$
    INSERT INTO jobmill.numbers AS k (queue, doc, heed)
    SELECT p_queue, v.version, CASE WHEN p_heeded THEN v.version ELSE 0 END
    FROM (SELECT floor(jobmill.instant(p_now) * 1000000)::bigint AS version) AS v
    ON CONFLICT (queue) DO UPDATE SET
        doc = greatest(k.doc + 1, excluded.doc),
        heed = CASE WHEN p_heeded THEN greatest(k.doc + 1, excluded.doc) ELSE k.heed END
    RETURNING k.doc
$$;

-- Write a document, or remove it; its new version, or NULL where it had another.
CREATE FUNCTION jobmill.write(
    p_queue text, p_now double precision, p_space text, p_key bytea, p_value bytea,
    p_version bigint, OUT written bigint, OUT wakes boolean
)
LANGUAGE plpgsql {{INDEXES}} AS $$
DECLARE
    v_there bigint;
BEGIN
    wakes := FALSE;
    -- The row of numbers is locked first, so that writers of a queue come one by one.
    INSERT INTO jobmill.numbers AS k (queue, doc) VALUES (p_queue, 0)
    ON CONFLICT (queue) DO UPDATE SET doc = k.doc;
    SELECT d.version INTO v_there FROM jobmill.docs AS d
    WHERE d.queue = p_queue AND d.space = p_space AND d.key = p_key;
    v_there := coalesce(v_there, 0);
    IF p_version IS NOT NULL AND p_version <> v_there THEN
        RETURN;
    END IF;
    IF p_value IS NULL AND v_there = 0 THEN
        written := 0;
        RETURN;
    END IF;
    wakes := p_space = ANY ({{HEEDED}});
    written := jobmill.new_version(p_queue, p_now, wakes);
    IF p_value IS NULL THEN
        DELETE FROM jobmill.docs AS d
        WHERE d.queue = p_queue AND d.space = p_space AND d.key = p_key;
        written := 0;
    ELSE
        INSERT INTO jobmill.docs (queue, space, key, version, at, value)
        VALUES (p_queue, p_space, p_key, written, jobmill.instant(p_now), p_value)
        ON CONFLICT (queue, space, key) DO UPDATE SET
            version = excluded.version, at = excluded.at, value = excluded.value;
    END IF;
END
$$;

-- Fire a schedule: compare-and-set its document and, with it, add its jobs.
CREATE FUNCTION jobmill.tick(
    p_queue text, p_now double precision, p_schedule bytea, p_version bigint, p_value bytea,
    p_history text, p_entry_keys bytea[], p_entries bytea[], p_keep integer,
    p_ids text[], p_names text[], p_payloads bytea[], p_policies bytea[], p_priorities bigint[],
    p_delays double precision[], p_run_ats double precision[], p_unique_keys text[],
    p_metadata bytea[], p_keep_results double precision[], p_keep_faileds double precision[],
    OUT written bigint, OUT statuses text[], OUT job_ids text[]
)
LANGUAGE plpgsql {{PLANS}} AS $$
DECLARE
    v_now double precision := jobmill.instant(p_now);
BEGIN
    INSERT INTO jobmill.numbers AS k (queue, doc) VALUES (p_queue, 0)
    ON CONFLICT (queue) DO UPDATE SET doc = k.doc;
    PERFORM 1 FROM jobmill.docs AS d
    WHERE d.queue = p_queue AND d.space = 'schedules' AND d.key = p_schedule
        AND d.version = p_version;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    FOR v_entry IN 1 .. coalesce(array_length(p_entry_keys, 1), 0) LOOP
        PERFORM jobmill.write(
            p_queue, v_now, p_history, p_entry_keys[v_entry], p_entries[v_entry], NULL
        );
    END LOOP;
    DELETE FROM jobmill.docs AS d
    WHERE d.queue = p_queue AND d.space = p_history AND d.key <= (
        SELECT k.key FROM jobmill.docs AS k
        WHERE k.queue = p_queue AND k.space = p_history
        ORDER BY k.key DESC OFFSET p_keep LIMIT 1
    );
    SELECT w.written INTO written
    FROM jobmill.write(p_queue, v_now, 'schedules', p_schedule, p_value, p_version) AS w;
    SELECT a.statuses, a.job_ids INTO statuses, job_ids FROM jobmill.add(
        p_queue, v_now, FALSE, p_ids, p_names, p_payloads, p_policies, p_priorities, p_delays,
        p_run_ats, p_unique_keys, p_metadata, p_keep_results, p_keep_faileds
    ) AS a;
END
$$;

CREATE FUNCTION jobmill.read(p_queue text, p_space text, p_after bytea, p_limit bigint)
RETURNS TABLE (key bytea, value bytea, version bigint, at double precision)
LANGUAGE sql STABLE AS $$
    SELECT d.key, d.value, d.version, d.at FROM jobmill.docs AS d
    WHERE d.queue = p_queue AND d.space = p_space AND d.key > p_after
    ORDER BY d.key LIMIT p_limit
$$;

-- The queues that have jobs or documents, found by steps through two indexes.
CREATE FUNCTION jobmill.queues() RETURNS TABLE (queue text)
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE of_jobs (queue) AS (
        SELECT (SELECT min(j.queue) FROM jobmill.jobs AS j)
        UNION ALL
        SELECT (SELECT min(j.queue) FROM jobmill.jobs AS j WHERE j.queue > o.queue)
        FROM of_jobs AS o WHERE o.queue IS NOT NULL
    ),
    of_docs (queue) AS (
        SELECT (SELECT min(d.queue) FROM jobmill.docs AS d)
        UNION ALL
        SELECT (SELECT min(d.queue) FROM jobmill.docs AS d WHERE d.queue > o.queue)
        FROM of_docs AS o WHERE o.queue IS NOT NULL
    )
    SELECT a.queue FROM (SELECT queue FROM of_jobs UNION SELECT queue FROM of_docs) AS a
    WHERE a.queue IS NOT NULL ORDER BY a.queue COLLATE "C"
$$;
