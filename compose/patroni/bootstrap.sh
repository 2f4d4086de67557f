#!/bin/sh
# Patroni runs this on the first leader of a new cluster: the same roles as everywhere in this directory, and the program's database.
set -eu
export POSTGRES_DB=app PGPASSFILE=/secrets/postgres.pgpass
psql -qX -v ON_ERROR_STOP=1 -U postgres -d postgres -c "CREATE DATABASE $POSTGRES_DB"
psql -qX -v ON_ERROR_STOP=1 -U postgres -d "$POSTGRES_DB" -f /scripts/roles.sql
sh /scripts/passwords.sh
