"""The interface of one kind of database: everything above this package is written against it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import sqlalchemy
from sqlalchemy import Connection, Engine, literal, select
from sqlalchemy import table as sql_table
from sqlalchemy.engine import URL

from replstore.control import Control
from replstore.databases.base import Entry, Fault, NodeState
from replstore.databases.carrier import Carrier
from replstore.databases.catalog import Difference, Table, differences
from replstore.databases.counting import Counting
from replstore.databases.digests import Digesting
from replstore.databases.replaying import Replaying
from replstore.databases.retention import Retention
from replstore.databases.suspended import Restore, bring_back, merged, stored


class Database(Digesting, Retention, Counting):
    """What replstore needs to know of a kind of database.  Stateless."""

    name: ClassVar[str]
    control: ClassVar[Control]
    learns: ClassVar[bool] = False
    """Whether ``learn`` does anything."""
    same_triggers: ClassVar[bool] = True
    """Whether both nodes of a pair have the same foreign keys and triggers; False: each has its own."""

    captures: ClassVar[bool] = True
    """Whether triggers capture what is replicated; False: the database's own replication carries everything."""
    schemas: ClassVar[bool] = True
    """Whether the ids of tables have a schema."""

    # -- connections

    @abstractmethod
    def user_engine(self, url: URL, **options: Any) -> Engine:
        """The engine of the application's transactions; ``options`` go to ``create_engine``."""

    @abstractmethod
    def service_engine(self, url: URL, *, seconds: float) -> Engine:
        """The engine of replstore's own sessions: few connections, and time limits kept by the server itself.

        Args:
            seconds: limit for connecting and for one statement.
        """

    @abstractmethod
    def carrier(self, writer: Engine, follower: Engine) -> Carrier:
        """What moves batches from one node to another of this kind; both are service engines."""

    @abstractmethod
    def is_same(self, one: Connection, other: Connection) -> bool:
        """Whether two open connections are to one and the same database, whatever their URLs call it."""

    def interrupt(self, connection: Any) -> None:
        """Makes a thread that waits on this driver connection stop waiting; never raises."""

    @abstractmethod
    def backend(self, connection: Any) -> tuple[int, str] | None:
        """Process id and start of the server's process behind a driver connection; None where there is none."""

    def end_backend(self, connection: Connection, backend: tuple[int, str]) -> bool:
        """Ends a server process if it is still the same one (HAZARDS 4); returns whether there was one to end."""
        return False

    def leads_to(self, connection: Any, boot: str) -> bool:
        """Whether a connection leads to the server that was seen under this boot identity; True where the guard in the database tells them apart."""
        return True

    def commit_here(self, connection: Connection) -> None:
        """This transaction's COMMIT waits for no other server, where the database has such a thing."""

    # -- errors

    @abstractmethod
    def classify(self, error: BaseException) -> Fault:
        """What an error means for the pair."""

    # -- state, roles, guard.  Everything below runs in the caller's transaction.

    @abstractmethod
    def state(self, connection: Connection) -> NodeState | None:
        """The node's control state; None: it has no control tables."""

    @abstractmethod
    def begin_reading(self, connection: Connection) -> NodeState | None:
        """The same as the beginning of the connection's transaction, at the least price.

        Raises:
            Exception: the driver's own error; the connection must not be used any more.
        """

    @abstractmethod
    def lock_roles(self, connection: Connection, *, seconds: float) -> None:
        """Waits until no transaction that passed the guard is open, and keeps new ones out until the end of this transaction (HAZARDS 3).

        Raises:
            Exception: a driver error of kind TIMEOUT or TRANSIENT after ``seconds``.
        """

    @abstractmethod
    def blockers(self, connection: Connection) -> list[str]:
        """Who keeps ``lock_roles`` waiting, a sentence each."""

    def end_blockers(self, connection: Connection) -> int:
        """Ends replstore's own sessions that keep ``lock_roles`` waiting (frozen shippers, HAZARDS 9)."""
        return 0

    def set_guard(self, connection: Connection, *, term_no: int, writing: bool) -> None:
        """Opens or closes the guard where it is more than the role row; the roles are locked."""

    @abstractmethod
    def position(self, connection: Connection) -> str:
        """The node's own position now: everything committed before is in it."""

    def committed(self, connection: Connection) -> str:
        """The least position that has everything that was captured and committed before."""
        return self.position(connection)

    @abstractmethod
    def covers(self, position: str, earlier: str) -> bool:
        """Whether everything that was committed at one position of a node is in another position of the same node."""

    @abstractmethod
    def mark(self, connection: Connection, mark: str | None) -> None:
        """Lets this transaction pass the guard ('migrate': still captured; 'apply': not captured either); None takes the mark off."""

    def warnings(self, connection: Connection) -> list[str]:
        """Settings of this database under which a promise doesn't hold, a sentence each."""
        return []

    # -- tables

    @abstractmethod
    def orphan_table(self, connection: Connection) -> Table:
        """The control table of orphans, which is replicated like a user's."""

    @abstractmethod
    def tables(self, connection: Connection, only: Collection[str] | None = None) -> list[Table]:
        """The user's tables."""

    @abstractmethod
    def table_ids(self, connection: Connection) -> list[str]:
        """Ids of the tables that ``tables`` describes, in their order; no table that somebody has locked is waited for."""

    def learn(self, connection: Connection, there: Sequence[Table], fresh: Collection[str]) -> list[Table]:
        """Takes over from the other node's tables what this kind of database can't say by itself.

        Args:
            there: the other node's tables.
            fresh: ids of those that somebody made or changed since replstore last saw them.

        Returns:
            Its own tables whose definition is another one now.

        Raises:
            CannotReplicate: a fresh one doesn't go together with the table here.
        """
        return []

    def differences(self, a: Table | None, b: Table | None, names: tuple[str, str] = ("primary", "standby")) -> list[Difference]:
        """In what a table differs between this node and the other one; see ``catalog.differences``."""
        return differences(a, b, names)

    @abstractmethod
    def refusal(self, connection: Connection, table: Table) -> str | None:
        """Why a table can't be replicated by journal, in a sentence that says what to add; None: it can."""

    @abstractmethod
    def create_statements(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        """The statements that make tables of ``connection``'s node on ``target``'s exactly as they are."""

    def prepare_target(self, connection: Connection, tables: Sequence[Table], target: Connection) -> list[str]:
        """Statements to commit on the target before ``create_statements`` are executed there."""
        return []

    def left_out(self, connection: Connection, tables: Sequence[Table]) -> list[str]:
        """What hangs on these tables and ``create_statements`` doesn't make, a sentence each: views, rights, publications."""
        return []

    @abstractmethod
    def drop_statements(self, tables: Sequence[Table]) -> list[str]:
        """The statements that remove tables."""

    def may_create(self, url: URL) -> bool:
        """Whether the URL names a database that doesn't exist and that ``create`` could make: a file in a folder that can be written."""
        return False

    def create(self, url: URL) -> None:
        """Makes the database itself."""
        raise NotImplementedError

    def prepare(self, connection: Connection) -> None:
        """Switches a database to what replstore needs of it, outside of any transaction.

        Raises:
            ConfigError: it can't be switched.
        """

    @abstractmethod
    def lock_migration(self, connection: Connection) -> None:
        """Lets one migration at a time run on a node, until the end of this transaction, without time limits."""

    @abstractmethod
    def one_migration(self, node: Engine) -> AbstractContextManager[None]:
        """Keeps other processes' migrations of this database out, for as long as it takes.

        Args:
            node: service engine.
        """

    @abstractmethod
    def migration_url(self, url: URL, *, mark: bool) -> URL:
        """The URL for a user's own Alembic environment; with ``mark``, its sessions pass the guard where a URL can say so."""

    def hold_mark(self, connection: Connection, mark: str | None) -> None:
        """The same where a URL can't say so: a mark that is committed, and taken off afterwards."""

    @abstractmethod
    def control_statements(self, revision: str) -> list[str]:
        """This database's own part of a revision of the control tables."""

    @abstractmethod
    def capture_statements(self, table: Table) -> list[str]:
        """The statements that put guard and capture on a table, in place of older ones."""

    @abstractmethod
    def journal_whole(self, connection: Connection, tables: Sequence[Table]) -> None:
        """Writes into the journal that every row of these tables may have changed: they are shipped whole."""

    def joined(self, table: Table, before: str, now: str) -> set[str] | None:
        """Which partitions a table has got between two fingerprints, by id; None: more than its partitions is different."""
        return None

    def journal_partitions(self, connection: Connection, table: Table, partitions: Collection[str]) -> None:
        """Writes into the journal that every row of these partitions, by id, may have changed."""

    def partition_statements(
        self, connection: Connection, wanted: Table, present: Table, fresh: Collection[str], target: Connection
    ) -> list[str] | None:
        """The statements that make or remove partitions on ``target``, where a table differs in nothing else; None: it does.

        Args:
            fresh: ids of partitions that are new, and made empty.
        """
        return None

    def storage(self, connection: Connection, tables: Sequence[Table]) -> dict[str, str]:
        """By table and partition: what changes when its rows are rewritten and no trigger fires; nothing where its fingerprint says so."""
        return {}

    @abstractmethod
    def fingerprints(self, connection: Connection, tables: Sequence[Table]) -> dict[str, str]:
        """By table: what must not change unnoticed while it is replicated."""

    @abstractmethod
    def execute_script(self, connection: Connection, statements: Sequence[str]) -> None:
        """Executes statements as they are, one by one: nothing in them is taken for a parameter."""

    # -- what would act on a follower when rows are applied (HAZARDS 7)

    @abstractmethod
    def in_force(self, connection: Connection, tables: Sequence[Table]) -> list[Restore]:
        """What brings back each foreign key or trigger that acts on these tables."""

    def restores(self, connection: Connection, tables: Sequence[Table]) -> list[Restore]:
        """The same together with what is taken off: all that these tables have when their node is the writer."""
        members = [member.id for table in tables for member in table.members]
        return merged(self.in_force(connection, tables), stored(self.control, connection), members)

    @abstractmethod
    def suspend(self, connection: Connection, tables: Sequence[Table], restores: Sequence[Restore]) -> None:
        """Takes off all of a follower's tables, as they are here, what would act when rows are applied, and keeps what brings the writer's back."""

    @abstractmethod
    def whole(self, connection: Connection, tables: Sequence[Table]) -> list[Table]:
        """Tables as they are here, together with what was taken off them."""

    @abstractmethod
    def disregard(self, table: Table, other: Table) -> Table:
        """A follower's table with those parts of the other node's that ``suspend`` sees to, so that they are no difference."""

    def resume(self, connection: Connection, *, insist: bool = True) -> list[Restore]:
        """Brings back what ``suspend`` took off; what can't come back stays where it is kept.

        Args:
            insist: a lock that isn't had in time is an error, which the caller repeats; else it is a reason to go on without.

        Returns:
            What stays away.
        """
        return bring_back(self, connection, insist=insist)

    @abstractmethod
    def hold_follower(self, connection: Connection) -> None:
        """Lets this transaction write a follower's rows past its shippers: it has their turn until its end, passes the guard, isn't captured, and nothing
        of the user's acts in it.  Comes before anything is read; ``mark(connection, None)`` comes last.

        Raises:
            ReplicationStopped: something would act on replicated rows and can't be switched off.
        """

    @abstractmethod
    def replaying(self) -> Replaying:
        """What puts back rows that a former writer had."""

    # -- reading for check and rejoin

    @abstractmethod
    def begin_snapshot(self, connection: Connection) -> None:
        """Begins one read-only snapshot on a connection of a service engine."""

    @abstractmethod
    def unshipped_keys(self, connection: Connection, since: str, *, most: int | None = None) -> Mapping[str, set[str] | None]:
        """By table, the keys that the journal names after a position, as JSON arrays (see ``same_keys``); None: the whole table.

        Args:
            most: of a table with more keys than this, the whole table; None: no matter how many.
        """

    @abstractmethod
    def same_keys(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, str]:
        """The forms under which ``stream`` may name these keys here: two keys that are equal to the database can differ in form (1.0 and 1.00).

        Args:
            keys: from a journal or an orphan's record, of either node.

        Returns:
            By form, the key as it was given.
        """

    @abstractmethod
    def entries(self, connection: Connection, since: str) -> Iterator[Entry]:
        """The journal's entries and markers after a position, in order, as they are read; keys are in the form that ``rows`` gives them."""

    @abstractmethod
    def last_changes(self, connection: Connection, table: Table, keys: Collection[str]) -> Mapping[str, Entry]:
        """By key, the last entry of the whole journal that names it, or the whole table; keys are those that can be looked up here (``lookable``).

        An entry's place is its number in the journal.
        """

    @abstractmethod
    def last_transactions(self, connection: Connection) -> Iterator[tuple[str, int]]:
        """The transactions that the journal names, as the id of the marker and a number in the journal, the last ones first."""

    @abstractmethod
    def journaled(self, connection: Connection) -> set[str]:
        """Ids of the tables that the node's own journal names."""

    # -- recording what a former writer had alone

    @abstractmethod
    def take_time(self, connection: Connection) -> None:
        """Lets the statements of a service engine's transaction take as long as they need, and makes its commit durable; comes first in it."""

    @abstractmethod
    def insert_new(self, connection: Connection, table: sqlalchemy.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Inserts rows into a control table, except those whose primary key is there.

        Args:
            rows: all with the same columns.
        """

    # -- rows

    def holds_rows(self, connection: Connection, table: Table) -> bool:
        """Whether a table of this node has any row."""
        return connection.execute(select(literal(1)).select_from(sql_table(table.name, schema=table.schema)).limit(1)).first() is not None

    @abstractmethod
    def rows(self, connection: Connection, table: Table, keys: Collection[str] | None = None) -> list[tuple[str, str]]:
        """Rows as (key, row), both JSON in text that tells any two values of a type apart.

        Args:
            keys: only these, as ``unshipped_keys`` gives them; None: all.
        """

    @abstractmethod
    def stream(self, connection: Connection, table: Table) -> Any:
        """Iterates over (sort key, key, values) of all rows in an order that Python's comparison of the sort keys reproduces.

        ``key`` is JSON as in ``rows``; ``values`` is a tuple of the data columns' texts in the table's column order.
        """
