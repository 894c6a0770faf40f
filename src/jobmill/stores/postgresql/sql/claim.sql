-- Settle, make due jobs pending, take over what lapsed, and hand out jobs. The first row is the
-- head (kind 0), then come the claims (1), the lapsed (2), and the leases that were asked (3).
CREATE FUNCTION jobmill.claim(
    p_queue text, p_now double precision, p_worker text, p_token text, p_limit integer,
    p_lease double precision, p_names text[], p_room text, p_repeat boolean, p_turns integer[],
    p_events text[], p_ids text[], p_tokens text[], p_delays double precision[],
    p_results bytea[], p_errors bytea[], p_fingerprints text[],
    p_lapsed boolean[], p_untried boolean[], p_memos bytea[],
    p_progress double precision[], p_progress_notes text[],
    p_line_moves integer[], p_line_numbers bigint[], p_lines bytea[]
)
RETURNS TABLE (
    kind integer, id text, token text, name text, payload bytea, policy bytea, attempt integer,
    lapses integer, priority bigint, enqueued_at double precision, run_at double precision,
    started_at double precision, suspect boolean, asked boolean, unique_key text, metadata bytea,
    memo bytea,
    now double precision, next_due double precision, suspect_waits boolean, docs bigint,
    wakes boolean, ends boolean, statuses text[], job_ids text[], states text[], dead bigint
)
LANGUAGE plpgsql {{PLANS}} AS $$
#variable_conflict use_column
DECLARE
    v_now double precision := jobmill.instant(p_now);
    v_moved record;
    v_due double precision;
    v_over double precision;
    v_paused text[];
    v_open text[];
    v_suspect record;
    v_first record;
    v_seqs bigint[];
    v_dead bigint := jobmill.dead_passed();
    v_survey record;
    v_least_due double precision;
    v_least_lease double precision;
BEGIN
    -- Until its whole answer is taken, a claim is not committed, and holds what it handed out. So a
    -- client that is frozen, or cut off, is given up, after twice the time that it waits itself.
    PERFORM set_config('tcp_user_timeout', '10000', TRUE);
    IF p_events IS NULL THEN
        -- What is lost here at worst is a claim, and then the job is pending as before. A claim
        -- that carries moves waits for the disk, as every end does.
        PERFORM set_config('synchronous_commit', 'off', TRUE);
        SELECT FALSE AS wakes, FALSE AS ends, NULL::text[] AS statuses, NULL::text[] AS job_ids,
            NULL::text[] AS states INTO v_moved;
    ELSE
        SELECT a.* INTO v_moved FROM jobmill.apply(
            p_queue, v_now, p_turns, p_events, p_ids, p_tokens, p_delays, p_results, p_errors,
            p_fingerprints, p_lapsed, p_untried, p_memos, p_progress, p_progress_notes,
            p_line_moves, p_line_numbers, p_lines
        ) AS a;
    END IF;

    SELECT s.* INTO v_survey FROM jobmill.surveys AS s
    WHERE s.queue = p_queue AND s.until > extract(epoch FROM clock_timestamp())
        -- One that is believed for longer was written before the server's clock was set back.
        AND s.until < extract(epoch FROM clock_timestamp()) + 2 * {{SURVEY_HOLDS}}
    ORDER BY s.until DESC LIMIT 1;
    v_least_due := coalesce(v_survey.due, '-Infinity');
    v_least_lease := coalesce(v_survey.lease_until, '-Infinity');

    SELECT j.run_at INTO v_due FROM jobmill.jobs AS j
    WHERE j.queue = p_queue AND j.state = 'delayed' AND j.run_at >= v_least_due
    ORDER BY j.run_at LIMIT 1;
    IF v_due <= v_now THEN
        UPDATE jobmill.jobs AS j SET state = {{MATURE}}
        WHERE j.seq = ANY (ARRAY(
            SELECT d.seq FROM jobmill.jobs AS d
            WHERE d.queue = p_queue AND d.state = 'delayed' AND d.run_at <= v_now
                AND d.run_at >= v_least_due
            ORDER BY d.run_at, d.seq LIMIT {{MATURE_LIMIT}} FOR UPDATE SKIP LOCKED
        ));
        SELECT j.run_at INTO v_due FROM jobmill.jobs AS j
        WHERE j.queue = p_queue AND j.state = 'delayed' AND j.run_at >= v_least_due
        ORDER BY j.run_at LIMIT 1;
    END IF;

    IF NOT p_repeat THEN
        v_over := CASE WHEN p_now IS NULL THEN jobmill.over_until(v_now) ELSE v_now END;
        RETURN QUERY
        -- Materialized: a join may run a subquery again, and then its limit is no limit.
        WITH lapsed AS MATERIALIZED (
            SELECT l.seq, l.lease_until FROM jobmill.jobs AS l
            WHERE l.queue = p_queue AND l.state = 'processing' AND l.lease_until <= v_over
                AND l.lease_until >= v_least_lease
            ORDER BY l.lease_until, l.seq LIMIT {{TAKEOVER_LIMIT}} FOR UPDATE SKIP LOCKED
        ),
        taken AS (
            UPDATE jobmill.jobs AS j SET
                token = p_token, worker = p_worker, lease_until = v_now + p_lease,
                taken_over = TRUE, last_line = NULL
            FROM lapsed WHERE j.seq = ANY (ARRAY[lapsed.seq])
            RETURNING j.*, lapsed.lease_until AS lapsed_at
        )
        SELECT
            2, t.id, t.token, t.name, t.payload, t.policy, t.attempts, t.lapses, t.priority,
            t.enqueued_at, t.run_at, t.started_at, t.suspect, t.asked, t.unique_key, t.metadata,
            t.memo, NULL::double precision, NULL::double precision, NULL::boolean, NULL::bigint,
            NULL::boolean, NULL::boolean, NULL::text[], NULL::text[], NULL::text[],
            NULL::bigint
        FROM taken AS t ORDER BY t.lapsed_at, t.seq;
    END IF;

    -- v_open: the names that may be handed out; NULL where all may.
    SELECT array_agg(convert_from(d.key, 'UTF8')) INTO v_paused
    FROM jobmill.docs AS d WHERE d.queue = p_queue AND d.space = 'pauses';
    IF '*' = ANY (v_paused) THEN
        v_open := '{}';
    ELSIF p_names IS NOT NULL THEN
        v_open := ARRAY(
            SELECT DISTINCT n FROM unnest(p_names) AS n
            WHERE v_paused IS NULL OR 'job:' || n <> ALL (v_paused)
        );
    ELSIF v_paused IS NOT NULL THEN
        v_open := ARRAY(
            WITH RECURSIVE there (name) AS (
                SELECT (
                    SELECT j.name FROM jobmill.jobs AS j
                    WHERE j.queue = p_queue AND j.state = 'pending' AND NOT j.suspect
                    ORDER BY j.name LIMIT 1
                )
                UNION ALL
                SELECT (
                    SELECT j.name FROM jobmill.jobs AS j
                    WHERE j.queue = p_queue AND j.state = 'pending' AND NOT j.suspect
                        AND j.name > there.name
                    ORDER BY j.name LIMIT 1
                )
                FROM there WHERE there.name IS NOT NULL
            )
            SELECT there.name FROM there
            WHERE there.name IS NOT NULL AND 'job:' || there.name <> ALL (v_paused)
            UNION
            SELECT j.name FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.state = 'pending' AND j.suspect
                AND 'job:' || j.name <> ALL (v_paused)
        );
    END IF;

    IF p_repeat THEN
        RETURN QUERY
        SELECT
            CASE WHEN t.taken_over THEN 2 ELSE 1 END, t.id, t.token, t.name, t.payload, t.policy,
            t.attempts, t.lapses, t.priority, t.enqueued_at, t.run_at, t.started_at, t.suspect,
            t.asked, t.unique_key, t.metadata, t.memo,
            NULL::double precision, NULL::double precision, NULL::boolean, NULL::bigint,
            NULL::boolean, NULL::boolean, NULL::text[], NULL::text[], NULL::text[],
            NULL::bigint
        FROM (
            -- In the order of the index that leads to what runs.
            SELECT * FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.state = 'processing' AND j.token = p_token
                AND j.lease_until >= v_least_lease
            ORDER BY j.lease_until, j.seq OFFSET 0
        ) AS t
        ORDER BY t.priority, t.run_at, t.seq;
    ELSIF p_limit > 0 THEN
        IF p_room <> 'busy' THEN
            SELECT j.seq, j.priority, j.run_at INTO v_suspect FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.state = 'pending' AND j.suspect
                AND (v_open IS NULL OR j.name = ANY (v_open))
            ORDER BY j.priority, j.run_at, j.seq LIMIT 1 FOR UPDATE SKIP LOCKED;
            IF FOUND THEN
                SELECT NULL::bigint AS seq, NULL::bigint AS priority, NULL::double precision AS run_at
                INTO v_first;
                IF p_room <> 'alone' THEN
                    IF v_open IS NULL AND v_survey.newest IS NOT NULL THEN
                        SELECT l.* INTO v_first
                        FROM unnest(v_survey.priorities, v_survey.run_ats, v_survey.seqs)
                            AS f (priority, run_at, seq)
                        CROSS JOIN LATERAL (
                            SELECT j.seq, j.priority, j.run_at FROM jobmill.jobs AS j
                            WHERE j.queue = p_queue AND j.priority = f.priority
                                AND j.state = 'pending' AND NOT j.suspect AND j.seq > 0
                                AND (j.run_at, j.seq) >= (f.run_at, f.seq)
                            ORDER BY j.run_at, j.seq LIMIT 1
                        ) AS l
                        ORDER BY l.priority, l.run_at, l.seq LIMIT 1;
                    ELSIF v_open IS NULL THEN
                        SELECT j.seq, j.priority, j.run_at INTO v_first FROM jobmill.jobs AS j
                        WHERE j.queue = p_queue AND j.state = 'pending' AND NOT j.suspect
                            AND j.seq > 0
                        ORDER BY j.priority, j.run_at, j.seq LIMIT 1;
                    ELSE
                        SELECT l.* INTO v_first FROM unnest(v_open) AS o (name)
                        CROSS JOIN LATERAL (
                            SELECT j.seq, j.priority, j.run_at FROM jobmill.jobs AS j
                            WHERE j.queue = p_queue AND j.name = o.name AND j.state = 'pending'
                                AND NOT j.suspect
                            ORDER BY j.priority, j.run_at, j.seq LIMIT 1
                        ) AS l
                        ORDER BY l.priority, l.run_at, l.seq LIMIT 1;
                    END IF;
                END IF;
                IF p_room = 'alone' OR v_first.seq IS NULL
                    OR (v_suspect.priority, v_suspect.run_at, v_suspect.seq)
                        < (v_first.priority, v_first.run_at, v_first.seq)
                THEN
                    v_seqs := ARRAY[v_suspect.seq];
                END IF;
            END IF;
        END IF;
        IF v_seqs IS NULL THEN
            v_seqs := jobmill.ready(
                p_queue, p_limit, v_open, v_survey.newest, v_survey.priorities, v_survey.run_ats,
                v_survey.seqs
            );
        END IF;
        RETURN QUERY
        -- One by one in their order, which is that of the answer: to sort it would be to copy it.
        UPDATE jobmill.jobs AS j SET
            state = 'processing', token = p_token, worker = p_worker,
            -- It may have been added since the instant of this claim was taken.
            lease_until = v_now + p_lease, started_at = greatest(v_now, j.run_at),
            attempts = j.attempts + 1,
            taken_over = FALSE, last_line = NULL
        FROM unnest(v_seqs) AS u (seq) WHERE j.seq = ANY (ARRAY[u.seq])
        RETURNING
            1, j.id, j.token, j.name, j.payload, j.policy, j.attempts, j.lapses, j.priority,
            j.enqueued_at, j.run_at, j.started_at, j.suspect, j.asked, j.unique_key, j.metadata,
            j.memo, NULL::double precision, NULL::double precision, NULL::boolean, NULL::bigint,
            NULL::boolean, NULL::boolean, NULL::text[], NULL::text[], NULL::text[],
            NULL::bigint;
    END IF;

    RETURN QUERY
    SELECT
        3, j.id, j.token, NULL::text, NULL::bytea, NULL::bytea, NULL::integer, NULL::integer,
        NULL::bigint, NULL::double precision, NULL::double precision, NULL::double precision,
        NULL::boolean, NULL::boolean, NULL::text, NULL::bytea, NULL::bytea,
        NULL::double precision, NULL::double precision, NULL::boolean, NULL::bigint,
        NULL::boolean, NULL::boolean, NULL::text[], NULL::text[], NULL::text[],
            NULL::bigint
    FROM jobmill.jobs AS j
    WHERE j.queue = p_queue AND j.worker = p_worker AND j.asked AND j.state = 'processing'
    ORDER BY j.seq;

    IF p_now IS NULL THEN
        PERFORM jobmill.keep_time(v_now);
    END IF;
    RETURN QUERY
    SELECT
        0, NULL::text, NULL::text, NULL::text, NULL::bytea, NULL::bytea, NULL::integer,
        NULL::integer, NULL::bigint, NULL::double precision, NULL::double precision,
        NULL::double precision, NULL::boolean, NULL::boolean, NULL::text, NULL::bytea, NULL::bytea,
        v_now, v_due,
        EXISTS (
            SELECT 1 FROM jobmill.jobs AS j
            WHERE j.queue = p_queue AND j.state = 'pending' AND j.suspect
                AND (v_open IS NULL OR j.name = ANY (v_open))
        ),
        coalesce((SELECT k.heed FROM jobmill.numbers AS k WHERE k.queue = p_queue), 0),
        v_moved.wakes, v_moved.ends, v_moved.statuses, v_moved.job_ids, v_moved.states,
        jobmill.dead_passed() - v_dead;
END
$$;

-- Hold leases, and store the notes of those that are not lost.
CREATE FUNCTION jobmill.renew(
    p_queue text, p_now double precision, p_lease double precision, p_ids text[], p_tokens text[],
    p_progress double precision[], p_progress_notes text[],
    p_line_leases integer[], p_line_numbers bigint[], p_lines bytea[]
)
RETURNS text[]
LANGUAGE plpgsql {{PLANS}} AS $$
DECLARE
    v_until double precision := jobmill.instant(p_now) + p_lease;
    v_held record;
    v_seqs bigint[];
    v_beats text[];
BEGIN
    PERFORM set_config('synchronous_commit', 'off', TRUE);
    WITH held AS MATERIALIZED (
        SELECT j.seq, j.asked, l.ord, l.progress, l.note
        FROM (
            SELECT * FROM unnest(p_ids, p_tokens, p_progress, p_progress_notes)
                WITH ORDINALITY AS u (id, token, progress, note, ord)
            ORDER BY u.id COLLATE "C"
        ) AS l
        CROSS JOIN LATERAL (
            -- The offset keeps the conditions below out, which would offer other indexes.
            SELECT * FROM jobmill.jobs AS k WHERE k.queue = p_queue AND k.id = l.id
            OFFSET 0 FOR UPDATE
        ) AS j
        WHERE j.state = 'processing' AND j.token = l.token
    ),
    kept AS (
        UPDATE jobmill.jobs AS j SET
            lease_until = v_until,
            progress = coalesce(h.progress, j.progress),
            progress_note = CASE WHEN h.progress IS NULL THEN j.progress_note ELSE h.note END
        FROM held AS h WHERE j.seq = ANY (ARRAY[h.seq])
    )
    SELECT array_agg(h.ord) AS ords, array_agg(h.seq) AS seqs, array_agg(h.asked) AS asked
    INTO v_held FROM held AS h;
    v_seqs := array_fill(NULL::bigint, ARRAY[array_length(p_ids, 1)]);
    v_beats := array_fill('lost'::text, ARRAY[array_length(p_ids, 1)]);
    FOR v_place IN 1 .. coalesce(array_length(v_held.ords, 1), 0) LOOP
        v_seqs[v_held.ords[v_place]] := v_held.seqs[v_place];
        v_beats[v_held.ords[v_place]] := CASE WHEN v_held.asked[v_place] THEN 'abort' ELSE 'ok' END;
    END LOOP;
    IF p_line_leases IS NOT NULL THEN
        PERFORM jobmill.write_lines(
            array_agg(v_seqs[l.lease] ORDER BY l.ord), p_queue,
            array_agg(l.number ORDER BY l.ord), array_agg(l.line ORDER BY l.ord)
        )
        FROM unnest(p_line_leases, p_line_numbers, p_lines)
            WITH ORDINALITY AS l (lease, number, line, ord)
        WHERE v_seqs[l.lease] IS NOT NULL
        HAVING count(*) > 0;
    END IF;
    RETURN v_beats;
END
$$;
