-- The roles of a streaming pair. replstore.local and compose/ run this file in a new cluster's template1 and in the program's database: roles are the
-- cluster's, rights on functions are each database's own. It may run any number of times. Passwords are given elsewhere.

DO $$
BEGIN
    -- Copies the log, and the blocks that pg_rewind asks for.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'replicator') THEN
        CREATE ROLE replicator LOGIN REPLICATION;
    END IF;
    -- The program's: it owns its database, and has no right beyond those below.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app') THEN
        CREATE ROLE app LOGIN;
    END IF;
END
$$;

-- promote=True: a Store may make the standby the writer. Whether it still receives, and who streams from whom, is shown to few.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_promote(boolean, integer) TO app;
GRANT pg_read_all_stats TO app, replicator;

-- pg_rewind: reads the new writer's files, and begins at a checkpoint of the new timeline.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO replicator;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO replicator;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO replicator;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO replicator;
GRANT pg_checkpoint TO replicator;  -- since PostgreSQL 15
