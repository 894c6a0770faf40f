-- What an operator should know of the server and of the tables of one schema, $1, in one row.
-- A statement and no function of the schema: it has to answer whatever the schema holds.
WITH pinning AS (
    SELECT
        a.pid,
        coalesce(nullif(a.application_name, ''), a.usename::text, a.backend_type) AS who,
        a.state,
        extract(epoch FROM clock_timestamp() - a.xact_start)::double precision AS seconds
    FROM pg_stat_activity AS a
    WHERE
        a.datname = current_database() AND a.pid <> pg_backend_pid()
        AND a.backend_xmin IS NOT NULL AND a.xact_start IS NOT NULL
    ORDER BY a.xact_start
    LIMIT 1
)
SELECT
    current_setting('server_version') AS version,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('fsync') = 'on' AS fsync,
    current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on' AS autovacuum,
    current_setting('max_connections')::integer AS connections_allowed,
    (SELECT count(*) FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend')
        AS connections,
    ARRAY(
        SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE
            n.nspname = $1 AND c.relkind = 'r'
            AND EXISTS (
                SELECT 1 FROM pg_options_to_table(c.reloptions) AS o
                WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean
            )
        ORDER BY c.relname
    ) AS unvacuumed,
    (SELECT coalesce(sum(t.n_dead_tup), 0)::bigint FROM pg_stat_user_tables AS t
        WHERE t.schemaname = $1) AS dead,
    (SELECT coalesce(sum(t.n_live_tup), 0)::bigint FROM pg_stat_user_tables AS t
        WHERE t.schemaname = $1) AS live,
    (SELECT coalesce(sum(pg_total_relation_size(t.relid)), 0)::bigint
        FROM pg_stat_user_tables AS t WHERE t.schemaname = $1) AS bytes,
    (SELECT count(*) FROM pg_prepared_xacts AS x
        WHERE x.database = current_database() AND x.prepared < now() - interval '1 minute')
        AS prepared,
    p.pid, p.who, p.state, p.seconds
FROM (SELECT 1) AS one LEFT JOIN pinning AS p ON true
