"""Repository: the everyday operations on one mapped class, each a transaction of its own with the Store's promises.

Writes take effect exactly once over a failover.  Objects come back detached and with their columns loaded, so they can be used anywhere.  What
doesn't fit here (a key, a lock, a query of its own) is what ``store.run`` and ``in_`` are for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, func, inspect, select
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.interfaces import ORMOption

from replstore.pair.token import Token
from replstore.store import ReadFrom, Store
from replstore.transaction.read import Wanted

Model = TypeVar("Model")
Result = TypeVar("Result")


class Repository(Generic[Model]):
    """Reads and writes the objects of one mapped class.

    ``node``, ``max_lag`` (seconds), ``max_lag_bytes`` and ``after`` of the reading methods are those of ``Store.query``, by which they read.
    Filters by keyword compare attributes for equality; an attribute with the name of an option is filtered by a condition: ``find(Order.node == "a")``.

    Args:
        store: the pair.
        model: the mapped class.

    >>> orders = Repository(store, Order)  # doctest: +SKIP
    >>> orders.add(Order(item="tea")).id  # doctest: +SKIP
    1
    """

    def __init__(self, store: Store, model: type[Model]) -> None:
        self.store = store
        self.model = model
        self._mapper: Mapper[Model] = inspect(model)
        self._session: Session | None = None

    def in_(self, session: Session) -> Repository[Model]:
        """The same operations within a transaction that is the caller's: nothing is committed, and objects stay in the session.

        Args:
            session: of ``store.run``, ``store.begin``, ``store.attempts`` or ``store.read``.

        >>> def place(session):
        ...     orders.in_(session).add(Order(item="tea"))
        ...     stock.in_(session).update("tea", left=Stock.left - 1)
        >>> store.run(place)  # doctest: +SKIP
        """
        bound = Repository(self.store, self.model)
        bound._session = session
        return bound

    # -- writing

    def add(self, entity: Model) -> Model:
        """Adds one object, and what hangs on it by cascade.

        Returns:
            The same object, with what the database generated.

        Raises:
            sqlalchemy.exc.IntegrityError: a constraint refuses it.
            NoWriter, CommitUnknown, CommittedNotReplicated: as ``Store.run``.
        """
        self.add_all([entity])
        return entity

    def add_all(self, entities: Iterable[Model]) -> list[Model]:
        """Adds several objects in one transaction; see ``add``."""
        added = list(entities)
        generated = [each for entity in added for each in _generated(entity)]

        def add(session: Session) -> list[Model]:
            for entity, attribute in generated:  # another writer may have given an earlier attempt's key to somebody else
                setattr(entity, attribute, None)
            session.add_all(added)
            _load(session, added)
            return added

        return self._write(add)

    def update(self, key: Any, **values: Any) -> Model:
        """Changes attributes of the object with this primary key.

        Args:
            key: the primary key; a tuple if it has several columns.
            values: by attribute; a SQL expression such as ``Order.quantity + 1`` is computed by the database.

        Returns:
            The changed object.

        Raises:
            LookupError: there is none.
            TypeError: the class has no such attribute.
            sqlalchemy.exc.IntegrityError, NoWriter, CommitUnknown, CommittedNotReplicated: as for ``add``.
        """
        self._check(values)

        def update(session: Session) -> Model:
            entity = session.get(self.model, key)
            if entity is None:
                raise LookupError(f"there is no {self.model.__name__} with key {key!r}")
            for name, value in values.items():
                setattr(entity, name, value)
            _load(session, [entity])
            return entity

        return self._write(update)

    def delete(self, key: Any) -> bool:
        """Deletes the object with this primary key.

        Returns:
            Whether there was one.

        Raises:
            sqlalchemy.exc.IntegrityError, NoWriter, CommitUnknown, CommittedNotReplicated: as for ``add``.
        """

        def delete(session: Session) -> bool:
            entity = session.get(self.model, key)
            if entity is None:
                return False
            session.delete(entity)
            session.flush()
            return True

        return self._write(delete)

    # -- reading

    def get(
        self,
        key: Any,
        *,
        options: Sequence[ORMOption] = (),
        node: ReadFrom = "writer",
        max_lag: float | None = None,
        max_lag_bytes: int | None = None,
        after: Token | None = None,
    ) -> Model | None:
        """The object with this primary key, or None.

        Args:
            key: the primary key; a tuple if it has several columns.
            options: loader options, such as ``selectinload(Order.lines)``.

        Raises:
            StaleRead, TokenLost: as ``Store.read``.
        """
        return self._read(lambda session: session.get(self.model, key, options=options), Wanted(node, max_lag, max_lag_bytes, after))

    def find(
        self,
        *conditions: ColumnElement[bool],
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        options: Sequence[ORMOption] = (),
        node: ReadFrom = "writer",
        max_lag: float | None = None,
        max_lag_bytes: int | None = None,
        after: Token | None = None,
        **filters: Any,
    ) -> list[Model]:
        """The objects that meet all conditions.

        Args:
            conditions: SQLAlchemy conditions, such as ``Order.quantity > 1``.
            order_by: an attribute, an expression, or a list of them; without it the order is the database's.
            limit, offset: how many at most, and how many to leave out before them.
            options: loader options.
            filters: by attribute, the value that it must have; None: it must be NULL.

        Raises:
            TypeError: the class has no such attribute.
            StaleRead, TokenLost: as ``Store.read``.
        """
        query = self._select(select(self.model), conditions, filters).limit(limit).offset(offset).options(*options)
        if order_by is not None:
            query = query.order_by(*(order_by if isinstance(order_by, (list, tuple)) else (order_by,)))
        return self._read(lambda session: list(session.scalars(query).unique()), Wanted(node, max_lag, max_lag_bytes, after))

    def count(
        self,
        *conditions: ColumnElement[bool],
        node: ReadFrom = "writer",
        max_lag: float | None = None,
        max_lag_bytes: int | None = None,
        after: Token | None = None,
        **filters: Any,
    ) -> int:
        """How many objects meet all conditions; see ``find``."""
        query = self._select(select(func.count()).select_from(self.model), conditions, filters)
        return self._read(lambda session: int(session.scalars(query).one()), Wanted(node, max_lag, max_lag_bytes, after))

    # -- how

    def _write(self, act: Callable[[Session], Result]) -> Result:
        return act(self._session) if self._session is not None else self.store.run(act)

    def _read(self, act: Callable[[Session], Result], wanted: Wanted) -> Result:
        if self._session is None:
            return self.store.query(act, **vars(wanted))
        if wanted != Wanted():
            raise ValueError("node, max_lag, max_lag_bytes and after are those of the session that this repository works in")
        return act(self._session)

    def _select(self, query: Select[Any], conditions: Sequence[ColumnElement[bool]], filters: dict[str, Any]) -> Select[Any]:
        self._check(filters)
        return query.where(*conditions, *(getattr(self.model, name) == value for name, value in filters.items()))

    def _check(self, names: Iterable[str]) -> None:
        known = self._mapper.all_orm_descriptors.keys()
        unknown = [name for name in names if name not in known]
        if unknown:
            raise TypeError(f"{self.model.__name__} has no attribute {', '.join(map(repr, unknown))}")


def _generated(entity: Any) -> list[tuple[Any, str]]:
    """Of an object and what comes along with it: the primary key attributes that the database is to give."""
    state: InstanceState[Any] = inspect(entity)
    states = [state, *(each[2] for each in state.mapper.cascade_iterator("save-update", state))]
    found = []
    for each in states:
        names = (each.mapper.get_property_by_column(column).key for column in each.mapper.primary_key)
        found += [(each.obj(), name) for name in names if each.transient and each.dict.get(name) is None]
    return found


def _load(session: Session, entities: Iterable[Any]) -> None:
    """Flushes, and reads what the database computed, so that it is still there when the session is gone."""
    session.flush()
    for entity in entities:
        state: InstanceState[Any] = inspect(entity)
        missing = state.expired_attributes & set(state.mapper.column_attrs.keys())
        if missing:
            session.refresh(entity, missing)
