"""A real TCP proxy on the loopback, to break a network in the ways in which networks break."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Literal

import pytest
from sqlalchemy import make_url

from replstore.local import free_port

MakeProxy = Callable[[str], "Proxy"]


class Mode(Enum):
    """What the proxy does with connections and bytes."""

    PASS = "pass"
    REFUSE = "refuse"
    BLACK_HOLE = "black hole"


class Proxy:
    """Forwards 127.0.0.1:``port`` to a server on 127.0.0.1; use it through the fixture ``proxy``.

    Args:
        url: SQLAlchemy URL of the server behind the proxy.

    Attributes:
        url: the same URL, through the proxy.
        cut: set once the cut that ``cut_after`` has armed has happened.
    """

    def __init__(self, url: str) -> None:
        behind = make_url(url)
        assert behind.port is not None
        self.target = (behind.host or "127.0.0.1", behind.port)
        self.port = free_port()
        self.url = behind.set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)
        self.cut = threading.Event()
        self._changed = threading.Condition()
        self._mode = Mode.REFUSE
        self._delay = 0.0
        self._trap: _Trap | None = None
        self._closed = False
        self._listener: socket.socket | None = None
        self._links: set[_Link] = set()
        self.restore()

    # --- what a test calls

    def restore(self) -> None:
        """Forward everything again. Bytes held by a black hole arrive now, as TCP would send them again."""
        if self._listener is None:
            listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self._listener = listener
            threading.Thread(target=self._accept, args=(listener,), name=f"proxy-{self.port}", daemon=True).start()
        self._switch(Mode.PASS)

    def refuse(self) -> None:
        """Close the listening socket and reset all connections: whoever connects gets ECONNREFUSED."""
        self._switch(Mode.REFUSE)
        listener, self._listener = self._listener, None
        if listener:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # close() alone would not wake accept()
            listener.close()
        self.disconnect()

    def black_hole(self) -> None:
        """Silence: connections stay open and new ones are accepted, but no byte and no end of a connection gets through, either way."""
        self._switch(Mode.BLACK_HOLE)

    def disconnect(self) -> None:
        """Reset the connections that are open; new ones are served as the mode says."""
        with self._changed:
            links = list(self._links)
        for link in links:
            link.reset()

    def delay(self, seconds: float) -> None:
        """Make each direction slower by so many seconds from now on."""
        self._delay = seconds

    def cut_after(
        self,
        what: bytes | int,
        *,
        forward: bool,
        then: Literal["pass", "refuse", "black hole"] = "pass",
    ) -> None:
        """Arm one cut: the first connection whose client sends this is cut there; the event ``cut`` is set.

        Args:
            what: a byte string, or how many bytes from client to server (counted per connection from now on).
            forward: True: the server still gets it, and its answer is lost; False: it is lost itself.
            then: ``pass``: only that connection is reset; ``refuse``: and the proxy refuses from now on; ``black hole``: nothing is reset, the proxy
                falls silent at this moment, and what was held (the answer, or without ``forward`` the message) arrives late, at ``restore``.
        """
        self.cut.clear()
        with self._changed:
            for link in self._links:
                link.seen, link.tail = 0, b""
            self._trap = _Trap(what, forward, Mode(then))

    def close(self) -> None:
        """End the proxy and its threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.refuse()

    # --- how it does it

    def _switch(self, mode: Mode) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            link = _Link(self, client)
            with self._changed:
                self._links.add(link)
                refused = self._mode is Mode.REFUSE  # it had got in just before the listening socket was closed
            if refused:
                link.reset()
            threading.Thread(target=link.run, name=f"proxy-{self.port}-link", daemon=True).start()

    def _wait_for_passage(self, link: _Link) -> bool:
        """Wait until bytes may pass; False: the link is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or link.over or self._mode is not Mode.BLACK_HOLE)
            return not (self._closed or link.over)

    def _springs(self, link: _Link, data: bytes) -> _Trap | None:
        """The armed trap, if these bytes of the client set it off; it works once."""
        with self._changed:
            trap = self._trap
            if trap is None:
                return None
            link.seen += len(data)
            window = link.tail + data
            hit = link.seen >= trap.what if isinstance(trap.what, int) else trap.what in window
            if not hit:
                link.tail = window[-(len(trap.what) - 1) :] if isinstance(trap.what, bytes) and len(trap.what) > 1 else b""
                return None
            self._trap = None
            return trap


class _Trap:
    def __init__(self, what: bytes | int, forward: bool, then: Mode) -> None:
        self.what, self.forward, self.then = what, forward, then


class _Link:
    """One connection through the proxy, pumped by two threads."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server: socket.socket | None = None
        self.over = False
        self.cut = False  #: the client is gone; the server still reads what it was sent
        self.seen = 0
        self.tail = b""

    def run(self) -> None:
        if not self.proxy._wait_for_passage(self):
            return self.reset()
        try:
            self.server = socket.create_connection(self.proxy.target, timeout=10)
        except OSError:
            return self.reset()
        self.server.settimeout(None)
        if self.over:
            return self.reset()
        for end in (self.client, self.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._pump, args=(self.server, self.client), name="proxy-pump", daemon=True).start()
        return self._pump(self.client, self.server)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = source.recv(65536)
                if self.proxy._delay:
                    time.sleep(self.proxy._delay)
                trap = self.proxy._springs(self, data) if source is self.client and data else None
                if trap and trap.then is not Mode.BLACK_HOLE:
                    return self._cut(trap, data, target)
                if trap:
                    self.proxy.black_hole()  # first of all: the answer may not get through
                    self.proxy.cut.set()
                if not (trap and trap.forward) and not self.cut and not self.proxy._wait_for_passage(self):
                    break
                if not data:
                    break
                if not self.cut:
                    target.sendall(data)
        return self.reset()

    def _cut(self, trap: _Trap, data: bytes, server: socket.socket) -> None:
        self.cut = True
        self._forget()
        self._end(self.client)
        with contextlib.suppress(OSError):
            if trap.forward:
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)  # in order: after a reset the server would not read what it was sent
        if trap.then is Mode.REFUSE:
            self.proxy.refuse()
        self.proxy.cut.set()

    def reset(self) -> None:
        """End both connections with a reset, as a host that has forgotten them would."""
        self._forget()
        for end in (self.client, self.server):
            if end:
                self._end(end)

    def _forget(self) -> None:
        with self.proxy._changed:
            self.over = True
            self.proxy._links.discard(self)
            self.proxy._changed.notify_all()

    @staticmethod
    def _end(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RD)  # wakes the thread that reads from it
        end.close()


@pytest.fixture
def proxy() -> Iterator[MakeProxy]:
    """Puts a proxy in front of a server: ``proxy(pair.primary_url).url`` goes through it. All of them end with the test."""
    with contextlib.ExitStack() as stack:

        def make(url: str) -> Proxy:
            made = Proxy(url)
            stack.callback(made.close)
            return made

        yield make
