"""The server of a data directory for one reader: nobody else reaches it, and it changes nothing by itself but what its own recovery needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from replstore.local import system
from replstore.local.data_directory import DataDirectory

#: Its port names the socket only.
PORT = 5432


@contextmanager
def isolated(node: DataDirectory) -> Iterator[str]:
    """Starts a stopped server so that it is reached by a socket in a directory of its owner's, and nowhere else; stops it at the end of the block.

    Whoever may open the socket (the owner and root) is trusted, as any role.  A primary that crashed recovers.  It sends and receives nothing, archives
    nothing, vacuums nothing, removes no log, and its transactions are read-only unless they say otherwise.

    Yields:
        The directory, for ``host`` in a connection string; the port is :data:`PORT`.

    Raises:
        ReplstoreError: it doesn't start.
    """
    directory = system.private_directory()
    os.chown(directory, *node.owner)
    watchdog = system.watch(directory)  # ends the server if this program dies
    try:
        access = directory / "access.conf"
        access.write_text("local all all trust\n")
        os.chown(access, *node.owner)
        try:
            node.start(once=_settings(str(directory), str(access)))
            (directory / "running").write_text(str(node.pid))
            yield str(directory)
        finally:
            node.stop()
    finally:
        system.end_watch(watchdog)
        shutil.rmtree(directory, ignore_errors=True)


def _settings(directory: str, access: str) -> list[str]:
    return [
        "listen_addresses=",
        f"unix_socket_directories={directory}",
        "unix_socket_permissions=0700",
        f"port={PORT}",
        f"hba_file={access}",
        "default_transaction_read_only=on",
        "autovacuum=off",
        "archive_mode=off",
        "wal_keep_size=1TB",  # pg_rewind needs it
        "primary_conninfo=",
        "synchronous_standby_names=",
    ]
