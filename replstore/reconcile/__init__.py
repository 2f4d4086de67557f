"""The reconciler: are the two nodes equal, and if not, where do they differ and why; and how they become equal again."""

from replstore.reconcile.compare import check
from replstore.reconcile.repair import Outcome, listed, repair_pair, undo
from replstore.reconcile.report import Report
from replstore.reconcile.saved import Repair
from replstore.reconcile.strangers import check_databases
from replstore.reconcile.wishes import Wishes

__all__ = ["Outcome", "Repair", "Report", "Wishes", "check", "check_databases", "listed", "repair_pair", "undo"]
