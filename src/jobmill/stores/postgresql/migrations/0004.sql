-- How many starts and slots each key has in each second (level 1), and in each 64th of one (level
-- 0): so that one is found by its place from the end without a look at all after it. The triggers
-- see to it whoever writes, functions of any release.
CREATE TABLE jobmill.rate_counts (
    queue text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    level smallint NOT NULL,
    part bigint NOT NULL,
    starts integer NOT NULL,
    slots integer NOT NULL,
    PRIMARY KEY (queue, key, level, part)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

CREATE FUNCTION jobmill.count_rate() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    v_starts integer := (TG_ARGV[0] = 'starts')::integer;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE jobmill.rate_counts AS c
        SET starts = c.starts - v_starts, slots = c.slots - 1 + v_starts
        WHERE c.queue = OLD.queue AND c.key = OLD.key AND c.level = 0
            AND c.part = floor(OLD.at * 64)::bigint;
        UPDATE jobmill.rate_counts AS c
        SET starts = c.starts - v_starts, slots = c.slots - 1 + v_starts
        WHERE c.queue = OLD.queue AND c.key = OLD.key AND c.level = 1
            AND c.part = floor(OLD.at)::bigint;
        DELETE FROM jobmill.rate_counts AS c
        WHERE c.queue = OLD.queue AND c.key = OLD.key AND c.level = 0
            AND c.part = floor(OLD.at * 64)::bigint AND c.starts = 0 AND c.slots = 0;
        DELETE FROM jobmill.rate_counts AS c
        WHERE c.queue = OLD.queue AND c.key = OLD.key AND c.level = 1
            AND c.part = floor(OLD.at)::bigint AND c.starts = 0 AND c.slots = 0;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO jobmill.rate_counts AS c (queue, key, level, part, starts, slots) VALUES
            (NEW.queue, NEW.key, 0, floor(NEW.at * 64)::bigint, v_starts, 1 - v_starts),
            (NEW.queue, NEW.key, 1, floor(NEW.at)::bigint, v_starts, 1 - v_starts)
        ON CONFLICT (queue, key, level, part) DO UPDATE
        SET starts = c.starts + excluded.starts, slots = c.slots + excluded.slots;
    END IF;
    RETURN NULL;
END
$$;

LOCK TABLE jobmill.rate_starts, jobmill.rate_slots IN SHARE ROW EXCLUSIVE MODE;
CREATE TRIGGER counted AFTER INSERT OR DELETE OR UPDATE OF at ON jobmill.rate_starts
FOR EACH ROW EXECUTE FUNCTION jobmill.count_rate('starts');
CREATE TRIGGER counted AFTER INSERT OR DELETE OR UPDATE OF at ON jobmill.rate_slots
FOR EACH ROW EXECUTE FUNCTION jobmill.count_rate('slots');
INSERT INTO jobmill.rate_counts (queue, key, level, part, starts, slots)
SELECT r.queue, r.key, l.level, floor(r.at * l.parts)::bigint, sum(r.start), sum(r.slot)
FROM (
    SELECT s.queue, s.key, s.at, 1 AS start, 0 AS slot FROM jobmill.rate_starts AS s
    UNION ALL
    SELECT s.queue, s.key, s.at, 0, 1 FROM jobmill.rate_slots AS s
) AS r CROSS JOIN (VALUES (0, 64), (1, 1)) AS l (level, parts)
GROUP BY r.queue, r.key, l.level, floor(r.at * l.parts)::bigint;
