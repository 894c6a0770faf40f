-- Store jobs; NULLs where all of them were added, else an answer for each. For others who are about
-- to store the same it waits as p_lock_timeout says; where that is NULL, as the caller's settings do.
CREATE FUNCTION jobmill.add(
    p_queue text, p_now double precision, p_whole boolean,
    p_ids text[], p_names text[], p_payloads bytea[], p_policies bytea[], p_priorities bigint[],
    p_delays double precision[], p_run_ats double precision[], p_unique_keys text[],
    p_metadata bytea[], p_keep_results double precision[], p_keep_faileds double precision[],
    p_lock_timeout text DEFAULT {{LOCK_TIMEOUT}},
    OUT statuses text[], OUT job_ids text[]
)
LANGUAGE plpgsql {{INDEXES}} AS $$
DECLARE
    v_now double precision := jobmill.instant(p_now);
    v_count integer := coalesce(array_length(p_ids, 1), 0);
    v_fresh text[] := '{}';
    v_added integer[];
    v_open integer[];
    v_there record;
    v_holder text;
    v_place integer;
    v_still integer[];
BEGIN
    IF p_lock_timeout IS NOT NULL THEN
        PERFORM set_config('lock_timeout', p_lock_timeout, TRUE);
    END IF;
    -- ON CONFLICT waits for whoever is about to store the same id or key, and takes the jobs of
    -- one call one by one. What it left is looked up, and tried again if the other has gone.
    LOOP
        WITH stored AS (
            INSERT INTO jobmill.jobs (
                queue, id, name, state, priority, run_at, enqueued_at, unique_key, policy,
                metadata, payload, keep_result, keep_failed
            )
            SELECT
                p_queue, n.id, n.name,
                CASE WHEN n.due > v_now THEN 'delayed' ELSE 'pending' END,
                n.priority, greatest(n.due, v_now), v_now, n.unique_key, n.policy, n.metadata,
                n.payload, n.keep_result, n.keep_failed
            FROM (
                SELECT u.*, coalesce(v_now + u.delay, u.run_at, v_now) AS due
                FROM unnest(
                    p_ids, p_names, p_payloads, p_policies, p_priorities, p_delays, p_run_ats,
                    p_unique_keys, p_metadata, p_keep_results, p_keep_faileds
                ) WITH ORDINALITY AS u (
                    id, name, payload, policy, priority, delay, run_at, unique_key, metadata,
                    keep_result, keep_failed, ord
                )
                WHERE v_open IS NULL OR u.ord = ANY (v_open)
            ) AS n
            ORDER BY n.ord
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        SELECT coalesce(array_agg(s.id), '{}') INTO v_fresh FROM stored AS s;
        IF v_open IS NULL AND coalesce(array_length(v_fresh, 1), 0) = v_count THEN
            RETURN;
        END IF;
        IF v_open IS NULL THEN
            v_open := ARRAY(SELECT generate_series(1, v_count));
            statuses := array_fill(NULL::text, ARRAY[v_count]);
            job_ids := p_ids;
        END IF;
        v_still := '{}';
        FOREACH v_place IN ARRAY v_open LOOP
            SELECT j.name, j.payload, j.unique_key INTO v_there FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.id = p_ids[v_place];
            IF FOUND AND p_ids[v_place] <> ALL (v_fresh) THEN
                statuses[v_place] := CASE
                    WHEN v_there.name = p_names[v_place] AND v_there.payload = p_payloads[v_place]
                    THEN 'same' ELSE 'conflict' END;
                CONTINUE;
            END IF;
            IF FOUND AND v_there.name = p_names[v_place]
                AND v_there.unique_key IS NOT DISTINCT FROM p_unique_keys[v_place]
            THEN
                v_fresh := array_remove(v_fresh, p_ids[v_place]);
                v_added := v_added || v_place;
                statuses[v_place] := 'added';
                CONTINUE;
            END IF;
            -- Its id is not there, or only because a later one of this call has it.
            SELECT j.id INTO v_holder FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.name = p_names[v_place]
                AND j.unique_key = p_unique_keys[v_place] AND j.unique_key IS NOT NULL
                AND j.state IN ('delayed', 'pending', 'processing');
            IF FOUND THEN
                statuses[v_place] := 'held';
                job_ids[v_place] := v_holder;
            ELSE
                v_still := v_still || v_place;
            END IF;
        END LOOP;
        EXIT WHEN array_length(v_still, 1) IS NULL;
        v_open := v_still;
    END LOOP;
    IF p_whole AND v_added IS NOT NULL AND 'conflict' = ANY (statuses) THEN
        DELETE FROM jobmill.jobs AS j
        WHERE j.queue = p_queue
            AND j.id = ANY (ARRAY(SELECT p_ids[a] FROM unnest(v_added) AS a));
        FOR v_place IN 1 .. v_count LOOP
            IF statuses[v_place] <> 'conflict'
                AND job_ids[v_place] = ANY (ARRAY(SELECT p_ids[a] FROM unnest(v_added) AS a))
            THEN
                statuses[v_place] := 'dropped';
                job_ids[v_place] := p_ids[v_place];
            END IF;
        END LOOP;
    END IF;
END
$$;
