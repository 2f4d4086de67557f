"""What native replication is measured on: a PostgreSQL primary and its streaming standby, and the ways to them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, create_engine, make_url

from benchmarks.ground import SETTINGS
from benchmarks.model import Base, fill
from replstore import Store
from replstore.local import StreamingPair, streaming_pair
from replstore.local.pairs import Name

#: Module of the driver wrapper that is measured beside; it is an optional dependency (the extra ``bench``).
WRAPPER = "aws_advanced_python_wrapper"


class Streaming:
    """A pair with fsync, with the table and its rows.  Close it, or use it in a ``with`` block.

    Args:
        synchronous: every commit waits until the standby has applied it.
        durability: the pair's.
        settings: for both servers, on top of ``SETTINGS``.
    """

    pair: StreamingPair

    def __init__(self, *, synchronous: bool = False, durability: str = "server", settings: Mapping[str, str] | None = None) -> None:
        self.closing = ExitStack()
        applied = {"synchronous_commit": "remote_apply"} if synchronous else {}
        self.pair = self.closing.enter_context(
            streaming_pair("wheel", user="app", settings={**SETTINGS, **applied, **(settings or {})}, synchronous=synchronous)
        )
        with Store(primary=self.pair.url("primary"), standby=self.pair.url("standby"), replication="native", durability=durability) as store:
            store.migrate(Base.metadata)
            store.run(fill)
            store.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()

    @property
    def urls(self) -> list[str]:
        """Of primary and standby."""
        return [self.pair.url("primary"), self.pair.url("standby")]

    def store(self, *, primary: str | None = None, **settings: Any) -> Store:
        """A Store on the pair, with default settings for native replication unless others are given.

        Args:
            primary: URL of the primary, if not the direct one.
        """
        urls = self.urls
        store = Store(primary=primary or urls[0], standby=urls[1], replication="native", **settings)
        self.closing.callback(store.close)
        return store

    def plain(self, url: str | None = None, **options: Any) -> Engine:
        """An engine of SQLAlchemy alone, by default on the primary."""
        engine = create_engine(url or self.urls[0], **options)
        self.closing.callback(engine.dispose)
        return engine

    def wrapped(self, plugins: str | None) -> Engine | None:
        """An engine through the driver wrapper; None: it isn't installed.

        Args:
            plugins: their names, with commas between; None: the wrapper's default.
        """
        if find_spec(WRAPPER) is None:
            return None
        options = {} if plugins is None else {"plugins": plugins}
        url = make_url(self.urls[0]).set(drivername="postgresql+aws_wrapper_psycopg").update_query_dict({"wrapper_dialect": "pg", **options})
        engine = create_engine(url)
        self.closing.callback(engine.dispose)
        return engine

    def superuser(self, node: Name) -> str:
        """Where a node is, for who may do anything there."""
        return f"host=127.0.0.1 port={self.pair.server(node).port} user=postgres dbname={self.pair.database}"


class Relay:
    """A proxy in a process of its own, so that it costs the measured one nothing.  Close it, or use it in a ``with`` block.

    Args:
        url: of the server behind it.
        seconds: by how much it makes each round trip longer, half of it in each direction.

    Attributes:
        url: the same through the proxy.
    """

    def __init__(self, url: str, seconds: float = 0.0) -> None:
        behind = make_url(url)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            command = [sys.executable, "-m", "benchmarks.delay", str(listener.fileno()), str(behind.port), str(seconds)]
            self._process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, pass_fds=[listener.fileno()])
        self.url = behind.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """From now on it passes nothing on: the system takes connections and bytes for it, and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It passes on again, first what it has been sent meanwhile."""
        self._process.send_signal(signal.SIGCONT)
