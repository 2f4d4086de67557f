"""Which node writes: the decision (``decide``, pure) and the rooms that act on it.

``view`` holds what one process knows, ``decide`` and ``alone`` turn it into one decision; everything else in this package
reads databases to build a view, or carries a decision out by compare-and-set.
"""
