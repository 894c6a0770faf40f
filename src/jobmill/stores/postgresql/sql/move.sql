-- Events applied to jobs by the table of states. `p_turns` tells which moves go at once: those of
-- one turn touch no job twice, and bring none back beside others that end.
CREATE FUNCTION jobmill.apply(
    p_queue text, p_now double precision, p_turns integer[],
    p_events text[], p_ids text[], p_tokens text[], p_delays double precision[],
    p_results bytea[], p_errors bytea[], p_fingerprints text[],
    p_lapsed boolean[], p_untried boolean[], p_memos bytea[],
    p_progress double precision[], p_progress_notes text[],
    p_line_moves integer[], p_line_numbers bigint[], p_lines bytea[],
    OUT statuses text[], OUT job_ids text[], OUT states text[], OUT wakes boolean, OUT ends boolean
)
LANGUAGE plpgsql AS $$
DECLARE
    v_slot integer := pg_backend_pid() % {{SLOTS}};
    v_some record;
    v_all record;
BEGIN
    wakes := FALSE;
    ends := FALSE;
    FOR v_turn IN 1 .. coalesce(p_turns[array_length(p_turns, 1)], 1) LOOP
        WITH told AS (
            SELECT m.*
            FROM unnest(
                p_events, p_ids, p_tokens, p_delays, p_results, p_errors, p_fingerprints,
                p_lapsed, p_untried, p_memos, p_progress, p_progress_notes
            ) WITH ORDINALITY AS m (
                event, id, token, delay, result, error, fingerprint,
                lapsed, untried, memo, progress, progress_note, ord
            )
            WHERE p_turns IS NULL OR p_turns[m.ord] = v_turn
            -- Whoever locks many jobs locks them in the order of their ids.
            ORDER BY m.id COLLATE "C"
        ),
        held AS MATERIALIZED (
            SELECT
                j.seq, j.name, j.run_at, j.started_at, j.asked, j.asked_error,
                j.asked_fingerprint, j.suspect, j.unique_key, j.keep_result, j.keep_failed,
                j.token AS last_token,
                CASE WHEN j.state = 'delayed' AND j.run_at <= p_now
                    THEN {{MATURE}} ELSE j.state END AS state,
                told.ord, told.id, told.event, told.token, told.result, told.error,
                told.fingerprint, told.memo, told.progress, told.progress_note,
                coalesce(told.delay, 0) AS delay,
                coalesce(told.lapsed, FALSE) AS lapsed,
                coalesce(told.untried, FALSE) AS untried
            FROM told CROSS JOIN LATERAL (
                SELECT * FROM jobmill.jobs AS l WHERE l.queue = p_queue AND l.id = told.id
                FOR UPDATE
            ) AS j
        ),
        -- Few of them, because the join below looks at each for every move.
        rules AS MATERIALIZED (
            SELECT * FROM (VALUES {{RULES}}) AS v (
                event, before, after, token, due, attempt, lapses, if_asked, asks, suspect, fresh
            )
            WHERE v.event = ANY (p_events)
        ),
        -- OFFSET 0 keeps what is told of a move from being worked out again for each use of it.
        ruled AS (
            SELECT
                held.*, r.after, r.due, r.attempt, r.lapses, r.if_asked, r.asks, r.fresh,
                r.token AS fenced, r.suspect AS suspects,
                held.asked AND r.if_asked IS NOT NULL AS diverted,
                held.event = ANY ({{NEEDS_TOKEN}}) AS needs_token,
                CASE WHEN r.event IS NOT NULL AND held.state = ANY ({{ENDED}})
                    AND held.unique_key IS NOT NULL
                THEN coalesce(
                    (
                        SELECT h.id FROM jobmill.jobs AS h
                        WHERE h.queue = p_queue AND h.name = held.name
                            AND h.unique_key = held.unique_key AND h.unique_key IS NOT NULL
                            AND h.state IN ('delayed', 'pending', 'processing')
                    ),
                    (
                        SELECT h.id FROM held AS h
                        WHERE h.name = held.name AND h.unique_key = held.unique_key
                            AND h.event = held.event AND h.state = ANY ({{ENDED}})
                            AND h.ord < held.ord
                        ORDER BY h.ord LIMIT 1
                    )
                ) END AS holder
            FROM held LEFT JOIN rules AS r ON r.event = held.event AND r.before = held.state
            OFFSET 0
        ),
        decided AS MATERIALIZED (
            SELECT
                d.*,
                d.status = 'applied' AND NOT d.asks AS changes,
                d.status = 'applied' AND NOT d.asks AND d.new_state = ANY ({{ENDED}}) AS over,
                CASE d.due
                    WHEN 'now' THEN p_now
                    WHEN 'after_delay' THEN CASE WHEN d.diverted THEN d.run_at
                        ELSE p_now + d.delay END
                    ELSE d.run_at
                END AS new_run_at,
                -- The move's own error, unless that of the cancel takes its place.
                d.status = 'applied' AND NOT d.asks AND d.error IS NOT NULL AND NOT (
                    d.diverted AND d.if_asked = d.after AND d.asked_error IS NOT NULL
                ) AS fails,
                d.status = 'applied' AND d.diverted AND d.asked_error IS NOT NULL AS fails_as_asked
            FROM (
                SELECT
                    ruled.*,
                    CASE WHEN ruled.diverted THEN ruled.if_asked ELSE ruled.after END AS new_state,
                    CASE
                        WHEN ruled.needs_token AND ruled.token IS DISTINCT FROM ruled.last_token
                            OR ruled.needs_token AND ruled.token IS NULL THEN 'stale'
                        WHEN ruled.needs_token AND ruled.state <> 'processing' THEN 'already'
                        WHEN ruled.after IS NULL OR ruled.event = 'mature' THEN 'refused'
                        WHEN ruled.holder IS NOT NULL THEN 'held'
                        ELSE 'applied'
                    END AS status
                FROM ruled OFFSET 0
            ) AS d
        ),
        changed AS (
            UPDATE jobmill.jobs AS j SET
                state = d.new_state,
                run_at = d.new_run_at,
                suspect = CASE
                    WHEN d.fresh THEN FALSE
                    WHEN d.fenced THEN d.suspects OR d.suspect AND d.untried
                    ELSE j.suspect
                END,
                asked = d.asks OR j.asked AND NOT (d.fresh OR d.over),
                asked_error = CASE
                    WHEN d.asks AND NOT d.asked THEN d.error
                    WHEN d.fresh OR d.over THEN NULL
                    ELSE j.asked_error
                END,
                asked_fingerprint = CASE
                    WHEN d.asks AND NOT d.asked THEN d.fingerprint
                    WHEN d.fresh OR d.over THEN NULL
                    ELSE j.asked_fingerprint
                END,
                attempts = CASE WHEN d.fresh THEN 0 ELSE j.attempts + d.attempt END,
                lapses = CASE WHEN d.fresh THEN 0
                    ELSE j.lapses + greatest(d.lapses, d.lapsed::integer) END,
                generation = j.generation + d.fresh::integer,
                worker = CASE WHEN NOT d.fresh THEN j.worker END,
                lease_until = CASE WHEN NOT (d.fresh OR d.fenced) THEN j.lease_until END,
                started_at = CASE WHEN NOT d.fresh THEN j.started_at END,
                ended_at = CASE WHEN d.over THEN p_now END,
                expires_at = CASE WHEN d.over THEN p_now + CASE d.new_state
                    WHEN 'completed' THEN d.keep_result ELSE d.keep_failed END END,
                result = CASE WHEN d.fenced THEN d.result WHEN NOT d.fresh THEN j.result END,
                memo = CASE WHEN d.fenced THEN d.memo WHEN NOT d.fresh THEN j.memo END,
                progress = CASE
                    WHEN d.fenced AND d.progress IS NOT NULL THEN d.progress
                    WHEN NOT d.fresh THEN j.progress
                END,
                progress_note = CASE
                    WHEN d.fenced AND d.progress IS NOT NULL THEN d.progress_note
                    WHEN NOT d.fresh THEN j.progress_note
                END,
                last_line = CASE WHEN NOT d.fresh THEN j.last_line END,
                taken_over = j.taken_over AND NOT d.fresh,
                fingerprint = CASE
                    WHEN d.fails_as_asked THEN d.asked_fingerprint
                    WHEN d.fails THEN d.fingerprint
                    ELSE j.fingerprint
                END
            FROM decided AS d
            WHERE j.seq = ANY (ARRAY[d.seq]) AND d.status = 'applied'
        ),
        told_of AS (
            INSERT INTO jobmill.events (queue, n, at, job_ids, job_names, kinds)
            SELECT p_queue, count(*), p_now, array_agg(e.id), array_agg(e.name), array_agg(e.kind)
            FROM (
                SELECT d.id, d.name, CASE WHEN d.over THEN d.new_state ELSE 'retried' END AS kind
                FROM decided AS d
                WHERE d.over OR d.changes AND d.event = 'retry'
                ORDER BY d.ord
            ) AS e
            HAVING count(*) > 0
        ),
        counted AS (
            INSERT INTO jobmill.ended AS c (queue, name, state, slot, n)
            SELECT p_queue, e.name, e.state, v_slot, sum(e.by)
            FROM (
                SELECT d.name, d.new_state AS state, 1 AS by FROM decided AS d WHERE d.over
                UNION ALL
                SELECT d.name, d.state, -1 FROM decided AS d
                WHERE d.changes AND d.state = ANY ({{ENDED}})
            ) AS e
            GROUP BY e.name, e.state
            ORDER BY e.name COLLATE "C", e.state COLLATE "C"
            ON CONFLICT (queue, name, state, slot) DO UPDATE SET n = c.n + excluded.n
        ),
        measured AS (
            INSERT INTO jobmill.metrics AS m (
                queue, minute, job_name, slot, started, completed, failed, retried, cancelled,
                lapsed, run_sum, wait_sum, runs, waits
            )
            SELECT
                p_queue, floor(p_now / 60) * 60, e.name, v_slot,
                count(*) FILTER (WHERE e.starts),
                count(*) FILTER (WHERE e.over AND e.new_state = 'completed'),
                count(*) FILTER (WHERE e.over AND e.new_state = 'failed'),
                count(*) FILTER (WHERE NOT e.over AND e.event = 'retry'),
                count(*) FILTER (WHERE e.over AND e.new_state = 'cancelled'),
                count(*) FILTER (WHERE e.lapsing),
                coalesce(sum(e.ran) FILTER (WHERE e.timed), 0),
                coalesce(sum(e.waited) FILTER (WHERE e.starts), 0),
                jobmill.bars(array_agg(e.ran) FILTER (WHERE e.timed)),
                jobmill.bars(array_agg(e.waited) FILTER (WHERE e.starts))
            FROM (
                SELECT
                    d.name, d.over, d.new_state, d.event, s.starts, s.lapsing,
                    s.starts AND d.event = ANY ({{TIMED}}) AND NOT s.lapsing AS timed,
                    greatest(0, d.started_at - d.run_at) AS waited,
                    greatest(0, p_now - d.started_at) AS ran
                FROM decided AS d CROSS JOIN LATERAL (
                    SELECT
                        d.fenced AND d.started_at IS NOT NULL AND NOT d.untried AS starts,
                        d.lapsed OR d.event = 'lapse' AS lapsing
                ) AS s
                WHERE d.changes AND (d.fenced OR d.over)
            ) AS e
            GROUP BY e.name
            ORDER BY e.name COLLATE "C"
            ON CONFLICT (queue, minute, job_name, slot) DO UPDATE SET
                started = m.started + excluded.started,
                completed = m.completed + excluded.completed,
                failed = m.failed + excluded.failed,
                retried = m.retried + excluded.retried,
                cancelled = m.cancelled + excluded.cancelled,
                lapsed = m.lapsed + excluded.lapsed,
                run_sum = m.run_sum + excluded.run_sum,
                wait_sum = m.wait_sum + excluded.wait_sum,
                runs = jobmill.plus(m.runs, excluded.runs),
                waits = jobmill.plus(m.waits, excluded.waits)
        )
        SELECT
            array_agg(a.ord) AS ords,
            array_agg(a.status) AS statuses,
            array_agg(a.job_id) AS job_ids,
            array_agg(a.new_state) AS states,
            bool_or(a.wakes) AS wakes,
            bool_or(a.over) AS over,
            array_agg(a.seq) FILTER (WHERE a.status = 'applied' AND a.fresh) AS fresh,
            bool_or(a.fails OR a.fails_as_asked) AS fails,
            array_agg(a.seq) AS seqs,
            array_agg(a.job_id) FILTER (WHERE a.fails OR a.fails_as_asked) AS error_ids,
            array_agg(a.seq) FILTER (WHERE a.fails OR a.fails_as_asked) AS error_jobs,
            array_agg(a.name) FILTER (WHERE a.fails OR a.fails_as_asked) AS error_names,
            array_agg(CASE WHEN a.fails THEN a.error END)
                FILTER (WHERE a.fails OR a.fails_as_asked) AS errors,
            array_agg(a.fingerprint) FILTER (WHERE a.fails OR a.fails_as_asked) AS fingerprints,
            array_agg(CASE WHEN a.fails_as_asked THEN a.asked_error END)
                FILTER (WHERE a.fails OR a.fails_as_asked) AS asked_errors,
            array_agg(a.asked_fingerprint)
                FILTER (WHERE a.fails OR a.fails_as_asked) AS asked_fingerprints
        INTO v_some
        FROM (
            SELECT
                d.ord, d.status, d.over OR d.changes AND d.event = 'retry' AS over,
                d.fails, d.fails_as_asked,
                CASE WHEN d.status = 'held' THEN d.holder ELSE d.id END AS job_id,
                CASE
                    WHEN d.status IN ('already', 'refused') THEN d.state
                    WHEN d.status = 'applied' THEN
                        CASE WHEN d.new_state = 'delayed' AND d.new_run_at <= p_now
                            THEN {{MATURE}} ELSE d.new_state END
                END AS new_state,
                d.status = 'applied' AND (
                    d.asks OR d.new_state = 'pending'
                    OR d.new_state = 'delayed' AND d.new_run_at <= p_now
                ) AS wakes,
                CASE WHEN d.status = 'applied' THEN d.seq END AS seq,
                d.fenced, d.fresh, d.name, d.error, d.fingerprint, d.asked_error,
                d.asked_fingerprint
            FROM decided AS d
            ORDER BY d.ord
        ) AS a;

        SELECT v_some.statuses, v_some.job_ids, v_some.states INTO v_all;
        IF coalesce(array_length(v_some.ords, 1), 0) < coalesce(
            array_length(array_positions(p_turns, v_turn), 1), array_length(p_ids, 1)
        ) THEN
            SELECT
                array_agg(coalesce(a.status, 'missing') ORDER BY m.ord) AS statuses,
                array_agg(coalesce(a.job_id, m.id) ORDER BY m.ord) AS job_ids,
                array_agg(a.state ORDER BY m.ord) AS states
            INTO v_all
            FROM unnest(p_ids) WITH ORDINALITY AS m (id, ord)
            LEFT JOIN unnest(v_some.ords, v_some.statuses, v_some.job_ids, v_some.states)
                AS a (ord, status, job_id, state) USING (ord)
            WHERE p_turns IS NULL OR p_turns[m.ord] = v_turn;
        END IF;
        statuses := statuses || v_all.statuses;
        job_ids := job_ids || v_all.job_ids;
        states := states || v_all.states;
        wakes := wakes OR coalesce(v_some.wakes, FALSE);
        ends := ends OR coalesce(v_some.over, FALSE);
        IF v_some.fresh IS NOT NULL THEN
            DELETE FROM jobmill.job_lines AS o WHERE o.job = ANY (v_some.fresh);
        END IF;
        IF v_some.fails THEN
            PERFORM jobmill.write_errors(
                p_queue, p_now, array_agg(e.job), array_agg(e.id), array_agg(e.name),
                array_agg(e.error), array_agg(e.fingerprint)
            )
            FROM (
                SELECT u.job, u.id, u.name, o.error, o.fingerprint
                FROM unnest(
                    v_some.error_jobs, v_some.error_ids, v_some.error_names, v_some.errors,
                    v_some.fingerprints, v_some.asked_errors, v_some.asked_fingerprints
                ) WITH ORDINALITY AS u (
                    job, id, name, error, fingerprint, asked_error, asked_fingerprint, ord
                )
                CROSS JOIN LATERAL (
                    VALUES (1, u.error, u.fingerprint), (2, u.asked_error, u.asked_fingerprint)
                ) AS o (place, error, fingerprint)
                WHERE o.error IS NOT NULL
                ORDER BY u.ord, o.place
            ) AS e;
        END IF;
        IF p_line_moves IS NOT NULL THEN
            PERFORM jobmill.write_lines(
                array_agg(e.job), p_queue, array_agg(e.number), array_agg(e.line)
            )
            FROM (
                SELECT a.seq AS job, l.number, l.line
                FROM unnest(p_line_moves, p_line_numbers, p_lines)
                    WITH ORDINALITY AS l (move, number, line, ord)
                JOIN unnest(v_some.ords, v_some.seqs) AS a (ord, seq) ON a.ord = l.move
                WHERE a.seq IS NOT NULL
                ORDER BY l.ord
            ) AS e
            HAVING count(*) > 0;
        END IF;
    END LOOP;
END
$$;

CREATE FUNCTION jobmill.move(
    p_queue text, p_now double precision, p_turns integer[],
    p_events text[], p_ids text[], p_tokens text[], p_delays double precision[],
    p_results bytea[], p_errors bytea[], p_fingerprints text[],
    p_lapsed boolean[], p_untried boolean[], p_memos bytea[],
    p_progress double precision[], p_progress_notes text[],
    p_line_moves integer[], p_line_numbers bigint[], p_lines bytea[],
    OUT statuses text[], OUT job_ids text[], OUT states text[], OUT wakes boolean, OUT ends boolean
)
LANGUAGE plpgsql {{PLANS}} AS $$
BEGIN
    SELECT a.* INTO statuses, job_ids, states, wakes, ends
    FROM jobmill.apply(
        p_queue, jobmill.instant(p_now), p_turns, p_events, p_ids, p_tokens, p_delays, p_results,
        p_errors, p_fingerprints, p_lapsed, p_untried, p_memos, p_progress, p_progress_notes,
        p_line_moves, p_line_numbers, p_lines
    ) AS a;
END
$$;
