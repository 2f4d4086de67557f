#!/bin/sh
# In a new cluster, after roles.sql: the roles get their passwords, the program its database, and the other node may replicate.
set -eu
psql --quiet -v ON_ERROR_STOP=1 -U postgres -d "$POSTGRES_DB" <<'SQL'
\set app `cat /secrets/app`
\set replicator `cat /secrets/replicator`
SET log_statement = none;
ALTER ROLE app PASSWORD :'app';
ALTER ROLE replicator PASSWORD :'replicator';
SELECT format('ALTER DATABASE %I OWNER TO app', current_database()) \gexec
-- Applying the journal then costs no change of the follower's constraints.
GRANT SET ON PARAMETER session_replication_role TO app;
SQL
echo 'host replication replicator all scram-sha-256' >> "$PGDATA/pg_hba.conf"
