"""A pair of one SQLite file and one PostgreSQL database: types, guards, canonical values, tables and carriers.

Both nodes describe their tables with PostgreSQL's names and types: ``sqlite.py`` and ``postgresql.py`` are the two databases as a mixed pair sees them,
so that nothing above this package knows that the pair is mixed.  ``docs/types.md`` is the table that ``kinds.py`` implements.
"""
