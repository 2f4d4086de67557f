"""What is done to a pair as a whole: its state, changes of role, migrations, check and repair.  A Store has all of it, and each command is one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from replstore.databases.base import Fault
from replstore.errors import NodeLost, ReplstoreError
from replstore.node import one_line
from replstore.pair.pair import Pair
from replstore.pair.status import Status, status
from replstore.transaction.orphans import Orphans

if TYPE_CHECKING:
    from replstore.migrate import Migrated
    from replstore.reconcile import Outcome, Repair, Report
    from replstore.reconcile.rows import Progress


class Upkeep:
    """The part of a Store that looks after the pair.

    Attributes:
        pair: the pair.
        run: see ``Store.run``.
    """

    pair: Pair
    run: Callable[..., Any]

    def status(self) -> Status:
        """Who writes, which term, how each node is and what to do next.

        Raises:
            StoreClosed: the Store was closed.
        """
        self.pair.refuse_closed()
        return status(self.pair)

    def sync(self, *, timeout: float = 60.0) -> None:
        """Ships until the follower has everything that was committed before the call.

        Raises:
            TimeoutError: it took longer than ``timeout`` s.
            NodeLost: a node doesn't answer.
            ReplicationStopped, NoWriter.
        """
        deadline = time.monotonic() + timeout
        with self._both_needed("shipping"):
            self.pair.current(deadline)
            self.pair.ship(deadline)

    def switchover(self, *, timeout: float = 10.0, told: Callable[[str], Any] | None = None) -> None:
        """Lets writer and follower change places, with no failed transaction.

        Args:
            timeout: s to wait for open transactions at most.
            told: native replication, where the settings don't name both data directories: called with what whoever runs the servers has to run, which is
                then waited for, ``timeout`` s at most; None: that ends in SwitchoverFailed.

        Raises:
            SwitchoverFailed: somebody keeps a transaction open for longer than ``timeout`` s; the message names them.
            NodeLost: a node doesn't answer.
        """
        with self._both_needed("the switchover"):
            self.pair.link.switchover(timeout, told)

    def takeover(self, node: Literal["primary", "standby"] | None = None, *, force: bool = False) -> None:
        """Makes the follower the writer although nothing, or not enough, says that the writer is lost.

        Args:
            node: the node to become the writer; by default the follower.
            force: also where the rules forbid it, because it may lose acknowledged transactions; recorded.

        Raises:
            TakeoverRefused: the rules forbid it.
            SwitchoverFailed: another thread of this program is at a change of role, or somebody keeps a transaction open on the node.
        """
        self.pair.link.takeover(node, force=force)

    @property
    def orphans(self) -> Orphans:
        """What lost writers had committed alone: ``records()``, ``plan()``, ``replay()``, ``discard()``."""
        self.pair.refuse_closed()
        return Orphans(self.pair, self.run)

    def solo(self) -> None:
        """Lets the writer acknowledge alone although the follower isn't known to be dead; recorded."""
        self.pair.link.solo()

    def rejoin(self, *, copy: bool = False, discard: bool = False) -> int:
        """Brings a former writer back as the follower.

        Args:
            copy: copy every table if the former writer's history doesn't continue the writer's; native replication: the whole server, whatever it has.
            discard: native replication: throw away what only the former writer has, although nobody has exported it.

        Returns:
            How many orphan rows were recorded; native replication: how many transactions that only it had were taken back.

        Raises:
            OrphansNotExported: native replication: it has transactions that the writer lacks.
            NodeLost: a node doesn't answer; native replication: its data directory isn't here, with what whoever runs it has to run.
        """
        with self._both_needed("the rejoin"):
            return self.pair.link.rejoin(copy=copy, discard=discard)

    @contextmanager
    def _both_needed(self, what: str) -> Iterator[None]:
        """A driver's error becomes a sentence about the pair."""
        try:
            yield
        except (ReplstoreError, TimeoutError):
            raise
        except Exception as error:
            if self.pair.primary.database.classify(error) is Fault.CALLER:
                raise
            _, decision = self.pair.look()
            step = f"; {decision.next_step}" if decision.next_step else ""
            raise NodeLost(f"{what} didn't come to its end ({one_line(error)}): {decision.reason}{step}") from error

    def migrate(
        self,
        metadata: MetaData | type[DeclarativeBase] | None = None,
        *,
        alembic_config: str | Path | None = None,
        replace: Literal["primary", "standby", "witness"] | None = None,
        drop_witness: bool = False,
    ) -> Migrated:
        """Brings control tables, the user's tables and the triggers to the same revision on both nodes, and makes a pair of two databases.

        With neither argument the tables that the primary has are adopted: made on the standby, and copied.

        Args:
            metadata: tables to create where they are missing, or a declarative base.
            alembic_config: the user's ``alembic.ini``; its environment is brought to its head on both nodes.
            replace: name of a node that was lost or dropped for good, and is made anew of an empty database, as the follower; or ``witness``, to make
                another one of the database that the settings name.
            drop_witness: the pair has no witness from now on; then leave it out of every program's settings.

        Raises:
            CannotReplicate: a table can't be replicated; the message names it.
            MigrationFailed: the user's migration failed on a node; the message says which, and how to go on.
            NotAPair, ConfigError: the databases aren't what they should be.
        """
        from replstore.migrate import migrate

        return migrate(self.pair, metadata, alembic_config=alembic_config, replace=replace, drop_witness=drop_witness)

    def check(
        self,
        *,
        tables: Collection[str] | None = None,
        exclude: Collection[str] = (),
        where: str = "",
        sample: float = 1.0,
        limit: int = 1000,
        settle: float = 1.0,
        workers: int = 2,
        max_load: float = 1.0,
        progress: Progress | None = None,
        expected: Progress | None = None,
        resume: str = "",
        since: Literal["last"] | None = None,
    ) -> Report:
        """Compares schema, sequences and rows of both nodes, while writes go on; changes nothing but what replstore remembers of the check.

        Args:
            tables: names of the tables to compare, with their schema where there is more than one of the name; None: all.
            exclude: names of tables to leave out.
            where: SQL condition for the rows to compare, the same on both nodes.
            sample: share of the rows to compare, in ranges of keys chosen by chance, the same ones each time.
            limit: how many differences of each table the report keeps; all are counted.
            settle: s to wait for a sequence that may only be late.
            workers: sessions of each node that read a large table at once, where the database can give several one snapshot.
            max_load: share of the time in which a session may keep its server busy.
            progress: called now and then with a table's name and how many of its rows were compared.
            expected: called with a table's name and about how many rows it has, before they are read.
            resume: path of a file that keeps what was found while the check runs: one that broke off goes on where it was; empty: none.
            since: ``"last"``: of each table only the rows that changed since it was last compared as a whole, or in this way; None: all rows.

        Raises:
            CannotCheck: a node doesn't answer, has no control tables, or was lost meanwhile; or what has changed since then isn't known any more.
            ConfigError: there is no such table.
        """
        from replstore.reconcile import Wishes, check

        self.pair.refuse_closed()
        return check(self.pair, Wishes(tables, exclude, where, sample, limit, settle, workers, max_load, progress, expected, resume, since))

    def repair(
        self,
        report: Report | None = None,
        *,
        source: Literal["writer", "primary", "standby", "newest"] = "writer",
        column: str | None = None,
        dry_run: bool = True,
        tables: Collection[str] | None = None,
        exclude: Collection[str] = (),
        where: str = "",
        limit: int = 100_000,
    ) -> Outcome:
        """Makes rows that differ equal.  Each is kept as it was, so that ``undo_repair`` can bring it back.

        Args:
            report: of an earlier check: only what it lists, as far as it is still so; None: everything that a check finds now.
            source: which node's rows are right; ``newest``: of each row, the one with the greater value in ``column``, and the only one there is.
            column: of ``newest``.
            dry_run: only say what would be done.
            tables, exclude, where: as for ``check``.
            limit: rows of each table that are repaired at most; they are held in memory.

        Raises:
            CannotRepair: a table, or the pair as it is, can't be repaired.
            RepairBrokeOff: a node was lost, or the roles changed, after some rows; what was repaired stays, and can be undone by the error's ``id``.
            CannotCheck, ConfigError, NoWriter, CommitUnknown, CommittedNotReplicated.
        """
        from replstore.reconcile import Wishes, repair_pair

        self.pair.refuse_closed()
        wishes = Wishes(tables, exclude, where, limit=limit)
        return repair_pair(self.pair, self.run, wishes, source, column, report, dry_run=dry_run)

    def repairs(self) -> list[Repair]:
        """The repairs that both nodes have on record, the newest first."""
        from replstore.reconcile import listed

        self.pair.refuse_closed()
        return listed(self.pair)

    def undo_repair(self, id: str) -> Outcome:
        """Gives each row that a repair changed back what it was, on the node where it was; rows that have changed since are left as they are.

        Args:
            id: of the repair, or its first letters.

        Raises:
            ConfigError: there is no such repair, or it was undone.
            CannotRepair, RepairBrokeOff, NoWriter, CommitUnknown, CommittedNotReplicated.
        """
        from replstore.reconcile import undo

        self.pair.refuse_closed()
        return undo(self.pair, self.run, id)
