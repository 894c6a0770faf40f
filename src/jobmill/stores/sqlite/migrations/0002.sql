-- How many starts and slots each key has in each second (level 1), and in each 64th of one (level
-- 0): so that one is found by its place from the end without a look at all after it. The triggers
-- see to it whoever writes; starts and slots are added and removed, never changed.
CREATE TABLE main.jobmill_rate_counts (
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    level INTEGER NOT NULL,
    part INTEGER NOT NULL,
    starts INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    PRIMARY KEY (queue, key, level, part)
) WITHOUT ROWID;

INSERT INTO main.jobmill_rate_counts (queue, key, level, part, starts, slots)
SELECT r.queue, r.key, l.level, CAST(r.at * l.parts AS INTEGER) AS part, sum(r.start), sum(r.slot)
FROM (
    SELECT queue, key, at, 1 AS start, 0 AS slot FROM main.jobmill_rate_starts
    UNION ALL
    SELECT queue, key, at, 0, 1 FROM main.jobmill_rate_slots
) AS r CROSS JOIN (SELECT 0 AS level, 64 AS parts UNION ALL SELECT 1, 1) AS l
GROUP BY r.queue, r.key, l.level, CAST(r.at * l.parts AS INTEGER);

CREATE TRIGGER main.jobmill_rate_starts_added AFTER INSERT ON jobmill_rate_starts
BEGIN
    INSERT INTO jobmill_rate_counts (queue, key, level, part, starts, slots) VALUES
        (new.queue, new.key, 0, CAST(new.at * 64 AS INTEGER), 1, 0),
        (new.queue, new.key, 1, CAST(new.at AS INTEGER), 1, 0)
    ON CONFLICT (queue, key, level, part) DO UPDATE SET starts = starts + 1;
END;

CREATE TRIGGER main.jobmill_rate_slots_added AFTER INSERT ON jobmill_rate_slots
BEGIN
    INSERT INTO jobmill_rate_counts (queue, key, level, part, starts, slots) VALUES
        (new.queue, new.key, 0, CAST(new.at * 64 AS INTEGER), 0, 1),
        (new.queue, new.key, 1, CAST(new.at AS INTEGER), 0, 1)
    ON CONFLICT (queue, key, level, part) DO UPDATE SET slots = slots + 1;
END;

CREATE TRIGGER main.jobmill_rate_starts_removed AFTER DELETE ON jobmill_rate_starts
BEGIN
    UPDATE jobmill_rate_counts SET starts = starts - 1
    WHERE queue = old.queue AND key = old.key AND level = 0 AND part = CAST(old.at * 64 AS INTEGER);
    UPDATE jobmill_rate_counts SET starts = starts - 1
    WHERE queue = old.queue AND key = old.key AND level = 1 AND part = CAST(old.at AS INTEGER);
    DELETE FROM jobmill_rate_counts
    WHERE queue = old.queue AND key = old.key AND level = 0 AND part = CAST(old.at * 64 AS INTEGER)
        AND starts = 0 AND slots = 0;
    DELETE FROM jobmill_rate_counts
    WHERE queue = old.queue AND key = old.key AND level = 1 AND part = CAST(old.at AS INTEGER)
        AND starts = 0 AND slots = 0;
END;

CREATE TRIGGER main.jobmill_rate_slots_removed AFTER DELETE ON jobmill_rate_slots
BEGIN
    UPDATE jobmill_rate_counts SET slots = slots - 1
    WHERE queue = old.queue AND key = old.key AND level = 0 AND part = CAST(old.at * 64 AS INTEGER);
    UPDATE jobmill_rate_counts SET slots = slots - 1
    WHERE queue = old.queue AND key = old.key AND level = 1 AND part = CAST(old.at AS INTEGER);
    DELETE FROM jobmill_rate_counts
    WHERE queue = old.queue AND key = old.key AND level = 0 AND part = CAST(old.at * 64 AS INTEGER)
        AND starts = 0 AND slots = 0;
    DELETE FROM jobmill_rate_counts
    WHERE queue = old.queue AND key = old.key AND level = 1 AND part = CAST(old.at AS INTEGER)
        AND starts = 0 AND slots = 0;
END;
