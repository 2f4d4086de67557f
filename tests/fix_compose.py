"""The set-ups of compose/, started in earnest: their nodes are killed, paused and cut off, and what their program was acknowledged is counted."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COMPOSE = Path(__file__).parent.parent / "compose"

#: Images are named for this copy of the sources, so that two copies on one engine don't take each other's.
TAG = hashlib.sha256(str(COMPOSE).encode()).hexdigest()[:8]

#: Each wait ends as soon as what it waits for is there; a machine with other work is slow to start containers.
PATIENCE = 120.0

NODES = ("primary", "standby")

_ACKNOWLEDGED = re.compile(r"^acknowledged (\S+) (\d+)$", re.MULTILINE)


@functools.cache
def compose_command() -> tuple[str, ...]:
    """``docker compose`` or ``docker-compose``, whichever is installed; empty: neither is."""
    if shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else ()


def other(node: str) -> str:
    return NODES[1 - NODES.index(node)]


def docker_errors() -> type[Exception]:
    """What the engine answers for a container that doesn't run."""
    import docker

    return docker.errors.DockerException  # type: ignore[no-any-return]


def until(what: str, done: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What ``done`` says as soon as it says something true.

    Raises:
        AssertionError: it never did.
    """
    deadline = time.monotonic() + seconds
    while not (said := done()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.1)
    return said


class SetUp:
    """One of the files, started.

    Args:
        file: its name in compose/.
        variables: for the file.
    """

    def __init__(self, file: str, variables: dict[str, str] | None = None) -> None:
        import docker

        self.file, self.project = COMPOSE / file, f"replstore-test-{TAG}-{os.getpid()}-{file.removesuffix('.yaml')}"
        images = {"REPLSTORE_IMAGE": f"replstore-program:{TAG}", "REPLSTORE_PATRONI_IMAGE": f"replstore-patroni:{TAG}"}
        # The classic builder: an old docker-compose has no other, a new one takes no notice.
        self._environment = {**os.environ, "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0", **images, **(variables or {})}
        self._docker = docker.from_env()

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run the command on this set-up; what it printed."""
        command = [*compose_command(), "-p", self.project, "-f", str(self.file), *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False, timeout=900)
        assert not check or not done.returncode, f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def begin(self) -> None:
        """Build what has to be built, one test process at a time, and start everything; returns when the program has written."""
        with (Path(tempfile.gettempdir()) / f"replstore-compose-{TAG}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.compose("build")
        self.compose("up", "-d")
        self.go_on()

    def end(self) -> None:
        self.compose("down", "-v", "--remove-orphans", "-t", "1", check=False)

    def container(self, service: str) -> Any:
        labels = [f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}"]
        (found,) = self._docker.containers.list(all=True, filters={"label": labels})
        return found

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in a container; what it printed."""
        code, said = self.container(service).exec_run(list(command))
        assert not check or not code, said.decode()
        return str(said.decode(errors="replace"))

    def sql(self, service: str, statement: str) -> list[str]:
        """The rows of a statement, as the superuser, beside the program's network."""
        return self.execute(service, "psql", "-U", "postgres", "-d", "app", "-AtXc", statement).splitlines()

    # --- faults

    def kill(self, service: str) -> None:
        self.container(service).kill()

    def start(self, service: str) -> None:
        self.container(service).start()

    def restart(self, service: str) -> None:
        self.container(service).restart(timeout=10)

    @contextlib.contextmanager
    def paused(self, service: str) -> Iterator[None]:
        """Every process of a node stands still."""
        container = self.container(service)
        container.pause()
        try:
            yield
        finally:
            container.unpause()

    @contextlib.contextmanager
    def cut_off(self, service: str) -> Iterator[None]:
        """A node runs and reaches nobody: ``docker network disconnect``."""
        container, network = self.container(service), self._docker.networks.get(f"{self.project}_default")
        network.disconnect(container)
        try:
            yield
        finally:
            network.connect(container, aliases=[service])

    def promoted(self, node: str) -> None:
        """Returns when a standby has become a writer."""
        until(f"{node} is promoted", lambda: self.sql(node, "SELECT pg_is_in_recovery()") == ["f"])

    # --- what the program has done

    def acknowledged(self) -> list[tuple[str, str]]:
        """Run and number of each row that was acknowledged, in order."""
        return _ACKNOWLEDGED.findall(self.container("program").logs(stderr=False).decode())

    def go_on(self, count: int = 5) -> None:
        """Returns when so many more rows were acknowledged."""
        before = len(self.acknowledged())
        try:
            until(f"{count} more rows acknowledged", lambda: len(self.acknowledged()) >= before + count)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.container('program').logs(tail=20).decode()}\n{self.status()}") from None

    def status(self) -> dict[str, Any]:
        """What ``replstore status`` says in the program's container; empty: it couldn't say."""
        said = self.execute("program", "replstore", "status", "--format", "json", check=False)
        try:
            return dict(json.loads(said))
        except ValueError:
            return {"said": said}

    def in_order(self) -> str:
        """Returns when one node writes and the other one may take over; the name of the one that writes."""
        writer = self._writer_of_journal if self.file.name == "journal.yaml" else self._writer_of_stream
        try:
            return str(until("one writes, the other may take over", writer))
        except AssertionError as late:
            raise AssertionError(f"{late}: {self.status()}") from None

    def _writer_of_journal(self) -> str:
        status = self.status()
        states = [node.get("state", "") for node in status.get("nodes", {}).values()]
        return str(status["writer"]) if "in sync; it may take over" in states and status.get("decision") == "write" else ""

    def _writer_of_stream(self) -> str:
        """Asked of the servers: the command takes a second of two cores each time."""
        look = "SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND usename = 'replicator')"
        seen = {node: self._look(node, look) for node in NODES}
        writers = [node for node, (said, *_) in seen.items() if said == "f|t"]
        return writers[0] if len(writers) == 1 and seen[other(writers[0])] == ["t|f"] else ""

    def _look(self, node: str, statement: str) -> list[str]:
        try:
            return self.sql(node, statement) or [""]
        except (AssertionError, docker_errors()):
            return [""]

    def count(self) -> int:
        """Stops the program and compares what it acknowledged with what both nodes have; how many rows it was.

        Raises:
            AssertionError: an acknowledged row is missing, or one is there twice.
        """
        writer = self.in_order()
        if self.file.name == "journal.yaml":
            self.execute("program", "replstore", "check")  # ends with 0 only if the nodes are equal, while the program goes on
        self.compose("stop", "-t", "2", "program")
        acknowledged = {f"{run}|{number}" for run, number in self.acknowledged()}
        rows = self.sql(writer, "SELECT run, number FROM entry")
        assert len(rows) == len(set(rows)), "rows that are there twice"
        assert acknowledged <= set(rows), f"acknowledged and lost: {sorted(acknowledged - set(rows))[:10]}"
        until("the follower has the same rows", lambda: sorted(self.sql(other(writer), "SELECT run, number FROM entry")) == sorted(rows))
        return len(acknowledged)


@pytest.fixture
def set_up() -> Iterator[Callable[..., SetUp]]:
    """``set_up("journal.yaml")`` builds and starts a file of compose/; everything of it is removed afterwards."""
    if not compose_command():
        pytest.skip("neither `docker compose` nor docker-compose is installed")
    begun: list[SetUp] = []

    def begin(file: str, **variables: str) -> SetUp:
        begun.append(SetUp(file, variables))
        begun[-1].begin()
        return begun[-1]

    yield begin
    for each in begun:
        each.end()
