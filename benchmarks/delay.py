"""A proxy that makes each round trip longer by a given time, half of it in each direction; a process of its own, so that it costs the measured one nothing.

``python -m benchmarks.delay LISTENER PORT SECONDS``: descriptor of a listening socket, port of the server on this machine.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time


def _pump(source: socket.socket, target: socket.socket, seconds: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            time.sleep(seconds)  # both sides speak in turns, so nothing waits behind this
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Until it is killed."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    port, seconds = int(sys.argv[2]), float(sys.argv[3]) / 2
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=_pump, args=(source, target, seconds), daemon=True).start()


if __name__ == "__main__":
    main()
