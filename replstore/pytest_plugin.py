"""Fixtures for the tests of programs that use replstore; see :mod:`replstore.local`."""
