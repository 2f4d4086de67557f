"""The demo: several processes write orders to a throw-away pair, the primary is killed in the middle, and afterwards every acknowledged order is counted.

``orders`` is the example's data, ``worker`` one process that writes, ``pairs`` the kinds of pair, ``tally`` what was acknowledged and when, ``verdict``
compares that with what the nodes hold, ``run`` is the course of events, ``screen`` and ``summary`` show them.
"""
