"""The reconciler: are the two nodes equal, and if not, where do they differ and why."""

from replstore.reconcile.compare import check
from replstore.reconcile.report import Report
from replstore.reconcile.strangers import check_databases
from replstore.reconcile.wishes import Wishes

__all__ = ["Report", "Wishes", "check", "check_databases"]
