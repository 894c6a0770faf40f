-- How any client puts a job into a queue: psql, a trigger, another language. Its name and its
-- arguments stay as they are across releases. It refuses what `enqueue` in Python refuses, and runs
-- with the rights of its owner, so that whoever may call it need not see the tables.
CREATE FUNCTION jobmill.enqueue(
    job_name text,
    payload jsonb DEFAULT NULL,
    queue text DEFAULT 'default',
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    priority integer DEFAULT 0,
    max_attempts integer DEFAULT NULL,
    timeout interval DEFAULT NULL,
    unique_key text DEFAULT NULL,
    job_id text DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    wake boolean DEFAULT FALSE,
    options jsonb DEFAULT NULL,
    max_payload_bytes integer DEFAULT 1048576
)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET standard_conforming_strings = on AS $$
DECLARE
    v_payload jsonb := coalesce(payload, 'null');
    v_metadata jsonb := nullif(metadata, '{}');
    v_options jsonb := coalesce(options, '{}');
    v_seconds numeric := trim_scale(extract(epoch FROM timeout)::numeric);
    v_wrong text;
    v_bytes bytea;
    v_policy jsonb;
    v_id text := job_id;
    v_key text;
    v_now double precision;
    v_due double precision;
    v_past double precision;
    v_there record;
    v_holder text;
BEGIN
    v_wrong := CASE
        WHEN (job_name COLLATE "C" ~ '^[A-Za-z0-9_.:-]{1,200}$') IS NOT TRUE
            THEN 'job_name: give 1 to 200 characters out of A-Z a-z 0-9 _ . : -'
        WHEN (queue COLLATE "C" ~ '^[A-Za-z0-9_.-]{1,100}$') IS NOT TRUE
            THEN 'queue: give 1 to 100 characters out of A-Z a-z 0-9 _ . -'
        WHEN job_id COLLATE "C" !~ '^[A-Za-z0-9_.:-]{1,200}$'
            THEN 'job_id: give 1 to 200 characters out of A-Z a-z 0-9 _ . : -'
        WHEN char_length(unique_key) NOT BETWEEN 1 AND 500
            THEN 'unique_key: give 1 to 500 characters'
        WHEN delay IS NOT NULL AND run_at IS NOT NULL
            THEN 'run_at: delay is given too; give one of them'
        WHEN extract(epoch FROM delay) NOT BETWEEN 0 AND 316224000
            THEN 'delay: give at least 0 seconds and at most 10 years'
        WHEN NOT (run_at >= '0001-01-01 00:00:00+00' AND run_at < '10000-01-01 00:00:00+00')
            THEN 'run_at: give an instant from year 1 to 9999 in UTC'
        WHEN priority IS NULL
            THEN 'priority: give a whole number'
        WHEN max_attempts < 1
            THEN 'max_attempts: give a whole number from 1 to 2147483647'
        WHEN v_seconds <= 0 OR v_seconds > 1e16  -- PostgreSQL 17 has infinite ones
            THEN 'timeout: give more than 0 seconds, and an end'
        WHEN (max_payload_bytes >= 1) IS NOT TRUE
            THEN 'max_payload_bytes: give a whole number from 1 to 2147483647'
        WHEN jsonb_typeof(v_metadata) <> 'object'
            THEN 'metadata: give an object of strings'
        WHEN jsonb_typeof(v_options) <> 'object'
            THEN 'options: give an object'
    END;
    IF v_wrong IS NULL AND v_metadata IS NOT NULL THEN
        v_wrong := CASE
            WHEN EXISTS (
                SELECT 1 FROM jsonb_each(v_metadata) AS m
                WHERE jsonb_typeof(m.value) <> 'string'
            )
                THEN 'metadata: give strings as values'
            WHEN octet_length(convert_to(v_metadata::text, 'UTF8')) > 16384
                THEN 'metadata: its JSON is too long; the limit is 16384 bytes'
        END;
    END IF;
    IF v_wrong IS NULL AND v_options <> '{}' THEN
        SELECT min('options: ' || o.key || ': ' || CASE
            WHEN o.key IN ('retry_delay', 'max_retry_delay', 'keep_result', 'keep_failed',
                'abort_grace')
                THEN CASE WHEN jsonb_typeof(o.value) <> 'number'
                    OR o.value NOT BETWEEN '0' AND '1e308' THEN 'give at least 0 seconds' END
            WHEN o.key = 'jitter'
                THEN CASE WHEN jsonb_typeof(o.value) <> 'number'
                    OR o.value NOT BETWEEN '0' AND '1' THEN 'give a number from 0 to 1' END
            WHEN o.key = 'max_lapses'
                THEN CASE WHEN o.value::text !~ '^[0-9]{1,10}$'
                    OR o.value NOT BETWEEN '1' AND '2147483647'
                    THEN 'give a whole number from 1 to 2147483647' END
            WHEN o.key = 'backoff'
                THEN CASE WHEN o.value NOT IN ('"fixed"', '"linear"', '"exponential"')
                    THEN 'give "fixed", "linear" or "exponential"' END
            WHEN o.key = 'on_lapse'
                THEN CASE WHEN o.value NOT IN ('"retry"', '"fail"')
                    THEN 'give "retry" or "fail"' END
            ELSE 'there is no such option; there are retry_delay, backoff, max_retry_delay, '
                'jitter, keep_result, keep_failed, max_lapses, on_lapse, abort_grace'
        END) INTO v_wrong FROM jsonb_each(v_options) AS o;
    END IF;
    v_bytes := convert_to(v_payload::text, 'UTF8');
    v_wrong := coalesce(v_wrong, CASE
        WHEN octet_length(v_bytes) > max_payload_bytes
            THEN format('payload: %s bytes of JSON are too many; the limit is %s',
                octet_length(v_bytes), max_payload_bytes)
        WHEN jsonb_path_exists(v_payload,
            'strict $.**{64} ? (@.type() == "array" || @.type() == "object")')
            THEN 'payload: nested deeper than 64'
        -- Such a number has more digits than this.
        WHEN octet_length(v_bytes) > 308 AND jsonb_path_exists(v_payload,
            'strict $.** ? (@.type() == "number" && (@ > 1e308 || @ < -1e308))')
            THEN 'payload: a number is out of range'
    END);
    IF v_wrong IS NOT NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = v_wrong;
    END IF;

    v_policy := jsonb_strip_nulls(
        v_options || jsonb_build_object('max_attempts', max_attempts, 'timeout', v_seconds)
    );
    -- Text as the store keeps it, where chr(26) begins an escape.
    v_key := replace(unique_key, chr(26), chr(26) || 'e');
    -- The store's clock, which never goes back.
    v_now := extract(epoch FROM clock_timestamp())::double precision;
    SELECT c.at + greatest(0, v_now - c.wall) / 2 INTO v_past
    FROM jobmill.clock AS c WHERE c.id = 1 AND c.at > v_now;
    v_now := coalesce(v_past, v_now);
    v_due := coalesce(
        v_now + extract(epoch FROM delay)::double precision,
        extract(epoch FROM run_at)::double precision,
        v_now
    );
    IF v_id IS NULL THEN
        -- A UUID of version 7: milliseconds, and the random part of one of version 4.
        v_id := lpad(to_hex(floor(v_now * 1000)::bigint), 12, '0');
        v_id := substr(v_id, 1, 8) || '-' || substr(v_id, 9) || '-7'
            || substr(gen_random_uuid()::text, 16);
    END IF;

    -- As `add` does: ON CONFLICT waits for whoever is about to store the same id or key.
    LOOP
        INSERT INTO jobmill.jobs (
            queue, id, name, state, priority, run_at, enqueued_at, unique_key, policy, metadata,
            payload, keep_result, keep_failed
        ) VALUES (
            queue, v_id, job_name, CASE WHEN v_due > v_now THEN 'delayed' ELSE 'pending' END,
            priority, greatest(v_due, v_now), v_now, v_key, convert_to(v_policy::text, 'UTF8'),
            convert_to(v_metadata::text, 'UTF8'), v_bytes,
            coalesce((v_options ->> 'keep_result')::double precision, 86400),
            coalesce((v_options ->> 'keep_failed')::double precision, 604800)
        )
        ON CONFLICT DO NOTHING;
        EXIT WHEN FOUND;
        SELECT j.name, j.payload INTO v_there FROM jobmill.jobs AS j
        WHERE j.queue = enqueue.queue AND j.id = v_id;
        IF FOUND THEN
            IF v_there.name = job_name AND v_there.payload = v_bytes THEN
                RETURN v_id;
            END IF;
            RAISE unique_violation USING MESSAGE =
                'job_id: ' || v_id || ' is taken by a job with another name or payload';
        END IF;
        SELECT j.id INTO v_holder FROM jobmill.jobs AS j
        WHERE j.queue = enqueue.queue AND j.name = job_name AND j.unique_key = v_key
            AND j.unique_key IS NOT NULL AND j.state IN ('delayed', 'pending', 'processing');
        IF FOUND THEN
            RETURN v_holder;
        END IF;
    END LOOP;
    IF wake THEN
        -- The channel is a digest of the names of schema and queue; see channels.py.
        PERFORM pg_notify('jobmill_' || encode(substr(sha256(
            convert_to(n.nspname::text, 'UTF8') || decode('00', 'hex')
            || convert_to(enqueue.queue, 'UTF8')
        ), 1, 12), 'hex') || '_jobs', '')
        FROM jobmill.clock AS k
        JOIN pg_class AS c ON c.oid = k.tableoid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE k.id = 1;
    END IF;
    RETURN v_id;
END
$$;
REVOKE ALL ON FUNCTION jobmill.enqueue FROM PUBLIC;
COMMENT ON FUNCTION jobmill.enqueue IS
    'Put a job into a queue; its id. There when the transaction commits, gone when it rolls back.';
