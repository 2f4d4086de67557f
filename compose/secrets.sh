#!/bin/sh
# Makes the passwords of a set-up, once, in the volume that its containers share: no file of this directory holds one.
# /secrets/ROLE for the servers (user 999 in the image postgres), /secrets/ROLE.pgpass for clients: libpq reads its password from there.
set -eu
umask 077
chmod 711 /secrets
make() { # role, user who reads the password file
    if [ ! -s "/secrets/$1" ]; then
        od -An -N16 -tx1 /dev/urandom | tr -d ' \n' > "/secrets/$1.new"
        mv "/secrets/$1.new" "/secrets/$1"
    fi
    printf '*:*:*:%s:%s\n' "$1" "$(cat "/secrets/$1")" > "/secrets/$1.pgpass"
    chown 999 "/secrets/$1"
    chown "$2" "/secrets/$1.pgpass"
}
make postgres 999
make replicator 999
make app 1000
