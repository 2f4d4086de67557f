#!/bin/sh
# Starts a node under Patroni; its name is NODE. The passwords go from the shared volume into the environment of this process alone.
set -eu
PATRONI_SUPERUSER_PASSWORD=$(cat /secrets/postgres)
PATRONI_REPLICATION_PASSWORD=$(cat /secrets/replicator)
PATRONI_REWIND_PASSWORD=$PATRONI_REPLICATION_PASSWORD
export PATRONI_SUPERUSER_PASSWORD PATRONI_REPLICATION_PASSWORD PATRONI_REWIND_PASSWORD
export PATRONI_NAME="$NODE" PATRONI_RESTAPI_CONNECT_ADDRESS="$NODE:8008" PATRONI_POSTGRESQL_CONNECT_ADDRESS="$NODE:5432"
mkdir -p "$PGDATA" && chmod 700 "$PGDATA"
exec patroni /patroni/patroni.yml
