"""The witness: a third small SQL database with one row that is changed only by compare-and-set.  No lease, no clock.

Going solo takes the other node out of ``in_sync``; a takeover raises the term and is open only to a node that is in ``in_sync``; so exactly one of the
two can win.  ``req`` is the writer's count of "follower required": a resync counts only if it is newer than the solo that it ends (HAZARDS 2).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any
from uuid import uuid4

from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, String, Table, Text, create_engine, event, insert, inspect, select, update
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from replstore.errors import ConfigError, NotAPair
from replstore.node import one_line
from replstore.pair.decide import Reach, Term, WitnessView
from replstore.urls import obstacle, shown

metadata = MetaData()
witness = Table(
    "replstore_witness",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("pair", String(36), nullable=False),
    Column("identity", String(36), nullable=False),
    Column("term_no", BigInteger, nullable=False),
    Column("term_uuid", String(36), nullable=False),
    Column("writer", Text, nullable=False),
    Column("in_sync", Text, nullable=False),
    Column("req", BigInteger, nullable=False),
)


class Witness:
    """The witness of one pair.

    Args:
        url: where it is kept; a machine other than the two nodes' for a pair of servers.
        seconds: limit for an answer.
    """

    def __init__(self, url: URL, *, seconds: float = 1.0) -> None:
        self._url = url
        self.error = ""
        """Why it didn't answer the last time; empty: it did."""
        self.identity = ""
        """The row's own, as last read: an empty database that takes a lost one's place under the same URL has another."""
        arguments: dict[str, Any] = {"connect_timeout": 2} if url.get_backend_name() == "postgresql" else {"timeout": seconds}
        self.engine: Engine = create_engine(url, connect_args=arguments, pool_pre_ping=True)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=FULL"))

    def open(self) -> None:
        """Makes sure that it can be asked, or made; makes nothing.

        Raises:
            ConfigError: it can't; the message names it.
        """
        reason = obstacle(self._url)
        if not reason and not self._is_to_make():
            try:
                inspect(self.engine).has_table(witness.name)
            except SQLAlchemyError as error:
                reason = one_line(error)
        if reason:
            raise ConfigError(f"witness {shown(self._url)} can't be opened: {reason}")

    def _is_to_make(self) -> bool:
        """Whether it is a file that isn't there yet: to connect would make it."""
        return self._url.get_backend_name() == "sqlite" and not os.path.exists(str(self._url.database))

    @property
    def shown(self) -> str:
        """Its URL, without password."""
        return shown(self._url)

    def create(self, pair: str, term: Term, writer: str) -> str:
        """Creates the table and its row, if there is none, with the writer alone.

        Returns:
            The row's identity.

        Raises:
            NotAPair: the witness is another pair's.
            ConfigError: it doesn't answer.
        """
        self.open()
        metadata.create_all(self.engine)
        values = {"pair": pair, "identity": str(uuid4()), "term_no": term.number, "term_uuid": term.uuid, "writer": writer}
        with suppress(IntegrityError), self.engine.begin() as connection:
            connection.execute(insert(witness).values(id=1, in_sync=writer, req=-1, **values))
        with self.engine.connect() as connection:
            found = connection.execute(select(witness.c.pair, witness.c.identity)).one()
        if found.pair != pair:
            raise NotAPair(f"the witness {self.shown} belongs to another pair: give each pair a witness of its own")
        return str(found.identity)

    def view(self, pair: str | None = None) -> WitnessView:
        """What the witness says now; silent if it doesn't answer, or belongs to another pair.

        Args:
            pair: uuid of the pair; None: not known.
        """
        row, self.error = None, ""
        try:
            if self._is_to_make():
                self.error = "its file isn't there"
            else:
                with self.engine.connect() as connection:
                    row = connection.execute(select(witness)).one_or_none()
                if row is None:
                    self.error = (
                        "it knows no pair; `replstore migrate` makes it this one's, or `replstore migrate --replace witness` if the pair has had one"
                    )
                elif pair is not None and row.pair != pair:
                    row, self.error = None, "it belongs to another pair"
        except SQLAlchemyError as error:
            self.error = one_line(error)
        if row is None:
            return WitnessView(Reach.SILENT, Term(0, ""), "", frozenset(), 0)
        self.identity = row.identity
        return WitnessView(Reach.UP, Term(row.term_no, row.term_uuid), row.writer, frozenset(filter(None, row.in_sync.split(","))), row.req)

    def grant_solo(self, term: Term, writer: str, both: frozenset[str], req: int) -> bool:
        """Compare-and-set ``in_sync``: both nodes, or the writer alone already → the writer alone, as of ``req``."""
        return self._set(term, writer, (both, frozenset({writer})), {"in_sync": writer, "req": req})

    def grant_takeover(self, term: Term, writer: str, seen: WitnessView, new: Term, candidate: str) -> bool:
        """Compare-and-set the term, if the candidate is in sync."""
        if candidate not in seen.in_sync:
            return False
        values = {"term_no": new.number, "term_uuid": new.uuid, "writer": candidate, "in_sync": candidate, "req": -1}
        return self._set(term, writer, (seen.in_sync,), values)

    def grant_resync(self, term: Term, writer: str, both: frozenset[str], req: int) -> bool:
        """Compare-and-set ``in_sync``: back to both nodes, if the follower was required again since the solo."""
        with self.engine.begin() as connection:
            done = connection.execute(
                update(witness)
                .where(witness.c.term_no == term.number, witness.c.term_uuid == term.uuid, witness.c.writer == writer, witness.c.req < req)
                .values(in_sync=_text(both), req=req)
            )
            return done.rowcount == 1

    def force(self, new: Term, writer: str) -> None:
        """A person's decision: the term and the writer are what they say."""
        with self.engine.begin() as connection:
            connection.execute(update(witness).values(term_no=new.number, term_uuid=new.uuid, writer=writer, in_sync=writer, req=-1))

    def _set(self, term: Term, writer: str, in_sync: tuple[frozenset[str], ...], values: dict[str, Any]) -> bool:
        with self.engine.begin() as connection:
            done = connection.execute(
                update(witness)
                .where(
                    witness.c.term_no == term.number,
                    witness.c.term_uuid == term.uuid,
                    witness.c.writer == writer,
                    witness.c.in_sync.in_([_text(names) for names in in_sync]),
                )
                .values(values)
            )
            return done.rowcount == 1

    def close(self) -> None:
        """Closes its connections."""
        self.engine.dispose()


def _text(names: frozenset[str]) -> str:
    return ",".join(sorted(names))
