"""The fixtures are in ``fix_*.py``, by concern."""

pytest_plugins = (
    "tests.fix_orphans",
    "tests.fix_pairs",
    "tests.fix_proxy",
    "tests.fix_containers",
    "tests.fix_stores",
    "tests.fix_shop",
    "tests.fix_mixed",
    "tests.fix_ordinary",
)
