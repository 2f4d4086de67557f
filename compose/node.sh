#!/bin/sh
# Starts a node of streaming.yaml, as the primary or as its standby: whichever it has to be. Runs as the user postgres in the image postgres.
#
#   NODE   its name, PEER the other one's. The node named primary makes the cluster; the other one copies it.
#   REJOIN what becomes of a former writer, that is, of a node whose history ends where the other one's went on without it:
#          keep (default): its directory is moved aside, to ….before-<time>, and it is copied anew: nothing that only it has vanishes
#          rewind: pg_rewind takes back what only it has: fast, and what was never on the other node is gone
#
# Decided once, when the container starts. A writer that was only cut off goes on: restart it when the other one has taken over.
set -eu

export PGPASSFILE=/secrets/replicator.pgpass
peer="host=$PEER user=replicator dbname=app connect_timeout=3"

say() { echo "$NODE: $*" >&2; }
peer_writes() { [ "$(psql -AtX -d "$peer" -c 'SELECT pg_is_in_recovery()' 2>/dev/null)" = f ]; }

copy() {
    say "copying $PEER"
    rm -rf "$PGDATA.new"
    pg_basebackup -d "$peer" -D "$PGDATA.new" --checkpoint=fast
    [ ! -d "$PGDATA" ] || rmdir "$PGDATA"
    mv "$PGDATA.new" "$PGDATA"
}

rejoin() {
    psql -qX -d "$peer" -c CHECKPOINT
    if pg_rewind --dry-run -D "$PGDATA" --source-server="$peer" 2>&1 | grep -q 'no rewind required'; then
        say "the other node went on exactly where this one had stopped"
    elif [ "${REJOIN:-keep}" = rewind ]; then
        say "taking back what only this node has"
        pg_rewind -D "$PGDATA" --source-server="$peer"
    else
        aside="$PGDATA.before-$(date +%s)"
        say "this node may have what the other one hasn't: its directory is kept as $aside"
        mv "$PGDATA" "$aside"
        copy
    fi
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ "$NODE" = primary ] && ! peer_writes; then
        exec "$(command -v docker-entrypoint.sh || command -v entrypoint.sh)" postgres "$@"
    fi
    until peer_writes; do say "waiting for $PEER"; sleep 1; done
    copy
    touch "$PGDATA/standby.signal"
elif [ ! -e "$PGDATA/standby.signal" ] && peer_writes; then
    say "$PEER writes now: this node follows it"
    rejoin
    touch "$PGDATA/standby.signal"
fi
# Read by a standby only. The password comes from the file; no slot, because one that nobody reads keeps log until the disk is full.
exec postgres -c primary_conninfo="host=$PEER user=replicator passfile=$PGPASSFILE application_name=$NODE" "$@"
