"""Migrated pairs as copies: a migration of two servers takes most of a second of processor time, a copy of its outcome a tenth of that.

A pair is migrated in earnest when its tables and settings are asked for the first time.  The second time a template is made, another pair that is
migrated in earnest, and this pair and all later ones are copies of it.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import MetaData

from replstore import local
from replstore.config import PAIR_SETTINGS
from replstore.databases.postgresql.state import BOOT
from replstore.databases.sqlite.dialect import file_identity
from replstore.store import Store
from tests.fix_pairs import FreshPair, plain

NODES: tuple[local.Name, local.Name] = ("primary", "standby")
Place = local.SqlitePair | FreshPair

_asked: set[Any] = set()
_templates: dict[Any, dict[local.Name, Place]] = {}


def copied(pair: local.Pair, metadata: MetaData, settings: dict[str, Any]) -> bool:
    """Makes of a pair that nobody has used yet what ``Store.migrate`` makes of it, in the way that takes less time.

    Args:
        pair: the pair.
        metadata: the tables.
        settings: of the Store; those of the pair are in its control tables.

    Returns:
        False if it must be migrated: there is nothing to copy, or somebody has used the pair.
    """
    places = {node: _place(pair, node) for node in NODES}
    if "witness" in settings or not all(_is_untouched(place, node) for node, place in places.items()):
        return False
    kinds = tuple((place.user, place.server(node)) if isinstance(place, FreshPair) else None for node, place in places.items())
    key = (metadata, kinds, *((name, settings[name]) for name in PAIR_SETTINGS if name in settings))
    if key not in _asked:
        _asked.add(key)
        return False
    if key not in _templates:
        _templates[key] = _template(places, metadata, settings)
    for node, place in places.items():
        _copy(_templates[key][node], place, node)
    _give_identity(places)
    return True


def _place(pair: local.Pair, node: local.Name) -> local.Pair:
    """Of a mixed pair, the pair that has this node."""
    kinds: dict[local.Name, local.Pair] = getattr(pair, "kinds", {})
    return kinds.get(node, pair)


def _is_untouched(place: local.Pair, node: local.Name) -> bool:
    if isinstance(place, FreshPair):
        return node not in place.made
    return isinstance(place, local.SqlitePair) and not place.path(node).exists()


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="replstore-templates-")


def _template(places: dict[local.Name, Place], metadata: MetaData, settings: dict[str, Any]) -> dict[local.Name, Place]:
    files = local.SqlitePair(tempfile.mkdtemp(dir=_directory().name))
    fresh = next((FreshPair(place, place.user) for place in places.values() if isinstance(place, FreshPair)), None)
    template = {node: fresh if fresh and isinstance(place, FreshPair) else files for node, place in places.items()}
    with Store(primary=template["primary"].url("primary"), standby=template["standby"].url("standby"), background=False, **settings) as store:
        store.migrate(metadata)
    for node, place in template.items():
        if isinstance(place, local.SqlitePair):  # what is in the log still is in this copy's file
            with contextlib.closing(sqlite3.connect(place.path(node))) as file, contextlib.closing(sqlite3.connect(_ready(place, node))) as ready:
                file.backup(ready)
    return template


def _ready(template: local.SqlitePair, node: local.Name) -> Path:
    return template.directory / f"{node}.ready"


def _copy(template: Place, place: Place, node: local.Name) -> None:
    if isinstance(place, FreshPair):
        assert isinstance(template, FreshPair)
        place.make(node, template)
    else:
        assert isinstance(template, local.SqlitePair)
        shutil.copyfile(_ready(template, node), place.path(node))


def _give_identity(places: dict[local.Name, Place]) -> None:
    """What two pairs never have in common, and the follower's boot, under which it may take over."""
    pair, term, tick = str(uuid4()), str(uuid4()), str(uuid4())
    ids = {node: str(uuid4()) for node in NODES}
    for node, place in places.items():
        control, boot = ("replstore.", BOOT) if isinstance(place, FreshPair) else ("replstore_", f"'{file_identity(str(place.path(node)))}'")
        statements = [
            f"UPDATE {control}node SET pair = '{pair}', node = '{ids[node]}'",
            f"UPDATE {control}role SET term_uuid = '{term}'",
            f"UPDATE {control}tick SET tick = '{tick}'",
            f"UPDATE {control}position SET source = '{ids['primary']}', term_uuid = '{term}', tick = '{tick}', eligible_boot = {boot}",
        ]
        if isinstance(place, FreshPair):
            with plain(place.url(node)) as connection:
                connection.execute("SET LOCAL synchronous_commit = on; " + "; ".join(statements))
        else:
            with contextlib.closing(sqlite3.connect(place.path(node))) as file:
                file.executescript("PRAGMA synchronous = OFF; BEGIN; " + "; ".join(statements) + "; COMMIT")
