"""A primary/standby pair of SQL databases as one data-access object that survives the loss of either.

>>> from replstore import Repository, Store
>>> store = Store(primary="sqlite:///a.db", standby="sqlite:///b.db")  # doctest: +SKIP

The names below are imported when they are first used, so that ``import replstore`` is quick.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replstore.config import Settings as Settings
    from replstore.errors import BacklogFull as BacklogFull
    from replstore.errors import CannotCheck as CannotCheck
    from replstore.errors import CannotRepair as CannotRepair
    from replstore.errors import CannotReplicate as CannotReplicate
    from replstore.errors import CommittedNotReplicated as CommittedNotReplicated
    from replstore.errors import CommitUnknown as CommitUnknown
    from replstore.errors import ConfigError as ConfigError
    from replstore.errors import DurabilityUnavailable as DurabilityUnavailable
    from replstore.errors import KeyReused as KeyReused
    from replstore.errors import MigrationFailed as MigrationFailed
    from replstore.errors import NeedsCopy as NeedsCopy
    from replstore.errors import NodeLost as NodeLost
    from replstore.errors import NotAPair as NotAPair
    from replstore.errors import NotTheWriter as NotTheWriter
    from replstore.errors import NoWriter as NoWriter
    from replstore.errors import OrphansNotExported as OrphansNotExported
    from replstore.errors import RepairBrokeOff as RepairBrokeOff
    from replstore.errors import ReplicationStopped as ReplicationStopped
    from replstore.errors import ReplstoreError as ReplstoreError
    from replstore.errors import ResultNotSerializable as ResultNotSerializable
    from replstore.errors import SettingsDiffer as SettingsDiffer
    from replstore.errors import StaleRead as StaleRead
    from replstore.errors import StoreClosed as StoreClosed
    from replstore.errors import SwitchoverFailed as SwitchoverFailed
    from replstore.errors import TakeoverRefused as TakeoverRefused
    from replstore.errors import TokenLost as TokenLost
    from replstore.errors import TransactionLost as TransactionLost
    from replstore.migrate import Migrated as Migrated
    from replstore.pair.status import NodeStatus as NodeStatus
    from replstore.pair.status import Status as Status
    from replstore.pair.token import Token as Token
    from replstore.reconcile.report import Report as Report
    from replstore.repository import Repository as Repository
    from replstore.store import Store as Store

logging.getLogger("replstore").addHandler(logging.NullHandler())  # what is logged is the program's choice

__version__ = "0.1.0"

_ERRORS = (
    "BacklogFull",
    "CannotCheck",
    "CannotRepair",
    "CannotReplicate",
    "CommitUnknown",
    "CommittedNotReplicated",
    "ConfigError",
    "DurabilityUnavailable",
    "KeyReused",
    "MigrationFailed",
    "NeedsCopy",
    "NoWriter",
    "NodeLost",
    "NotAPair",
    "NotTheWriter",
    "OrphansNotExported",
    "RepairBrokeOff",
    "ReplicationStopped",
    "ReplstoreError",
    "ResultNotSerializable",
    "SettingsDiffer",
    "StaleRead",
    "StoreClosed",
    "SwitchoverFailed",
    "TakeoverRefused",
    "TokenLost",
    "TransactionLost",
)
_HOMES = {
    **dict.fromkeys(_ERRORS, "replstore.errors"),
    "Migrated": "replstore.migrate",
    "NodeStatus": "replstore.pair.status",
    "Report": "replstore.reconcile.report",
    "Repository": "replstore.repository",
    "Settings": "replstore.config",
    "Status": "replstore.pair.status",
    "Store": "replstore.store",
    "Token": "replstore.pair.token",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'replstore' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
