-- The instant of a call: the one given, or the server's. Where the server's clock was set back,
-- time goes on at half its speed until the clock has caught up.
CREATE FUNCTION jobmill.instant(p_now double precision) RETURNS double precision
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_wall double precision;
    v_at double precision;
BEGIN
    IF p_now IS NOT NULL THEN
        RETURN p_now;
    END IF;
    v_wall := extract(epoch FROM clock_timestamp())::double precision;
    SELECT c.at + greatest(0, v_wall - c.wall) / 2 INTO v_at
    FROM jobmill.clock AS c WHERE c.id = 1 AND c.at > v_wall;
    RETURN coalesce(v_at, v_wall);
END
$$;

-- The instant until which leases must have run out to be taken over. A server that stood still
-- finds all of them run out when it goes on, and calls that nobody waits for any more among the
-- first: so whoever lives gets a second to renew what ran out while nobody claimed.
CREATE FUNCTION jobmill.over_until(p_now double precision) RETURNS double precision
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_clock record;
BEGIN
    SELECT c.* INTO v_clock FROM jobmill.clock AS c WHERE c.id = 1;
    IF v_clock.at > 0 AND p_now > v_clock.at + {{STILL}} THEN
        RETURN v_clock.at;
    END IF;
    IF p_now < v_clock.still_to + {{RENEW_FIRST}} THEN
        RETURN v_clock.still_from;
    END IF;
    RETURN p_now;
END
$$;

-- Remember the time, about twice a second, for when the clock is set back or the server stands
-- still. Nobody waits for it.
CREATE FUNCTION jobmill.keep_time(p_now double precision) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    v_wall double precision := extract(epoch FROM clock_timestamp())::double precision;
    v_clock record;
BEGIN
    SELECT c.* INTO v_clock FROM jobmill.clock AS c WHERE c.id = 1;
    IF NOT FOUND THEN
        -- Somebody emptied the table.
        INSERT INTO jobmill.clock (id, at, wall) VALUES (1, p_now, v_wall) ON CONFLICT DO NOTHING;
    ELSIF v_clock.at < p_now - 0.5 OR v_clock.wall > v_wall OR v_clock.wall < v_wall - 1 THEN
        UPDATE jobmill.clock AS c SET
            at = greatest(c.at, p_now), wall = v_wall,
            still_from = CASE WHEN c.at > 0 AND p_now > c.at + {{STILL}}
                THEN c.at ELSE c.still_from END,
            still_to = CASE WHEN c.at > 0 AND p_now > c.at + {{STILL}}
                THEN p_now ELSE c.still_to END
        WHERE c.id = (SELECT k.id FROM jobmill.clock AS k WHERE k.id = 1 FOR UPDATE SKIP LOCKED);
    END IF;
END
$$;
