"""The reconciler: are the two nodes equal, and if not, where do they differ and why; and how they become equal again.

The names below are imported when they are first used: a check of two databases needs neither the repair nor what a pair is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from replstore.reconcile.compare import check as check
    from replstore.reconcile.repair import Outcome as Outcome
    from replstore.reconcile.repair import listed as listed
    from replstore.reconcile.repair import repair_pair as repair_pair
    from replstore.reconcile.repair import undo as undo
    from replstore.reconcile.report import Report as Report
    from replstore.reconcile.saved import Repair as Repair
    from replstore.reconcile.strangers import check_databases as check_databases
    from replstore.reconcile.wishes import Wishes as Wishes

_HOMES = {
    "Outcome": "repair",
    "Repair": "saved",
    "Report": "report",
    "Wishes": "wishes",
    "check": "compare",
    "check_databases": "strangers",
    "listed": "repair",
    "repair_pair": "repair",
    "undo": "repair",
}
__all__ = [*sorted(_HOMES)]


if not TYPE_CHECKING:  # else every name would be taken for one of them

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
