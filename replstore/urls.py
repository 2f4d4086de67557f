"""Database URLs: which ones replstore accepts, how they are shown, and when two of them name the same database.

No message here repeats a URL that could not be parsed: nobody knows where in it the password is.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from replstore.errors import ConfigError

SUPPORTED = "sqlite:///file.db or postgresql://user@host:5432/database"
#: URL parameters that hold a secret.
_SECRET_PARAMETERS = frozenset({"password", "sslpassword", "passwd", "oauth_client_secret"})
#: Rights are those under which files are opened, where the system tells them apart.
_EFFECTIVE = os.access in os.supports_effective_ids
_LOCAL_HOSTS = frozenset({"", "localhost", "127.0.0.1", "::1", "/tmp", "/var/run/postgresql", "/run/postgresql"})
#: A directory for sockets that isn't there.
_NOWHERE = "/nowhere/replstore"
#: Letters beyond ASCII as a URL writes them.
_ENCODED = re.compile(r"(?:%[89A-F][0-9A-F])+")
_PASSWORD_IN_TEXT = re.compile(
    r"(?<=/)([^/\s:@]*):[^\s]*@|\b((?:ssl)?passw(?:or)?d)\s*=\s*(?:\\'.*?(?:\\'|$)|''.+?''|'(?:\\.|''|[^'\\])*(?:'|$)|(?:\\.|[^\s&\\])+\\?)",
    re.IGNORECASE,
)
#: What PostgreSQL's client says of a connection string that it can't read: with the piece that it stumbled over, which may be one of a password.
_UNREADABLE = re.compile(
    r'(missing "=" after |invalid connection option |invalid integer value |invalid port number: |in URI [^"\n]*"?[^"\n]*"?[^"\n]*: |'
    r'URI query parameter: |percent-encoded (?:token|value): |unexpected spaces found in )"(?:[^"\n]*)"'
)


@dataclass(frozen=True)
class _Backend:
    drivername: str
    drivers: frozenset[str]  #: names after the ``+`` that mean the same
    module: str
    remedy: str  #: what to do if the module can't be imported
    check: Callable[[URL], URL]
    identity: Callable[[URL], str]
    obstacle: Callable[[URL], str]


def parse(url: str | URL) -> URL:
    """A database URL, checked and in one form: driver named, a SQLite path absolute, a password where SQLAlchemy hides it.

    Args:
        url: SQLAlchemy URL; ``postgresql://`` and ``postgres://`` mean psycopg 3.

    Raises:
        ConfigError: it is no URL, names an unsupported database, or the driver isn't installed.  The message never contains a password.
    """
    parsed = _parsed(url)
    name, _, driver = parsed.drivername.partition("+")
    backend = _BACKENDS.get("postgresql" if name == "postgres" else name)
    if backend is None:
        raise ConfigError(f"{name}: this kind of database isn't supported; replstore takes {SUPPORTED}")
    if driver not in backend.drivers:
        raise ConfigError(
            f"{name}+{driver}: this driver isn't supported; write {backend.drivername.partition('+')[0]}:// and replstore chooses the driver"
        )
    try:
        import_module(backend.module)
    except ImportError:
        raise ConfigError(f"the driver {backend.module} isn't installed: {backend.remedy}") from None
    return backend.check(parsed.set(drivername=backend.drivername))


def shown(url: URL) -> str:
    """The URL as it may be printed: every password in it is ``***``, and letters are letters."""
    secret = {name: "***" for name in url.query if name.lower() in _SECRET_PARAMETERS}
    text = url.update_query_dict(secret).render_as_string(hide_password=True).replace("%2A%2A%2A", "***")
    return _ENCODED.sub(_letters, text)


def _letters(found: re.Match[str]) -> str:
    letters = unquote(found[0], errors="replace")
    return letters if letters.isprintable() and "\ufffd" not in letters else found[0]


def redact(text: str) -> str:
    """A text without what looks like a password in a URL or a connection string: the last line of defence, not the first."""
    text = _UNREADABLE.sub(r'\1"***"', text)
    return _PASSWORD_IN_TEXT.sub(lambda found: f"{found[2]}=***" if found[2] else f"{found[1]}:***@", text)


def obstacle(url: URL) -> str:
    """What keeps this program from using, or making, the file that a parsed URL names; empty: nothing that is known. Of a server it knows nothing."""
    return _BACKENDS[url.get_backend_name()].obstacle(url)


def several_hosts(url: URL) -> bool:
    """Whether a parsed URL names several hosts, of which the driver takes the first that suits."""
    return url.get_backend_name() == "postgresql" and "," in _hosts(url)


def same_database(one: URL, other: URL) -> bool:
    """Whether two parsed URLs surely name the same database.

    False is no proof: a host may have two names.  What is certain is the node's uuid, which is compared on every connect.
    """
    if one.drivername != other.drivername:
        return False
    if one.database and other.database and os.path.exists(one.database) and os.path.exists(other.database):
        return os.path.samefile(one.database, other.database)  # hard links too
    identity = _BACKENDS[one.get_backend_name()].identity
    return identity(one) == identity(other)


def _parsed(url: str | URL) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError, TypeError):  # a wrong port is a ValueError, with half of the URL in its text
        parsed = None
    if parsed is None:
        raise ConfigError(
            f"not a database URL (not shown, it may hold a password); write {SUPPORTED}, with %40 for an @ and %2F for a / in the password"
        )
    if "@" in (parsed.host or ""):
        raise ConfigError("the URL has more than one @ (it isn't shown); an @ in the password is written %40")
    return parsed


def _check_sqlite(url: URL) -> URL:
    path = url.database or ""
    if url.host:
        raise ConfigError(f"a SQLite URL has no host: write sqlite:///{url.host}/… for a path from here, sqlite:////… for one from the root")
    if not path or path == ":memory:" or path.startswith("file:"):
        raise ConfigError("SQLite in memory can't be a node: name a file, sqlite:///file.db (a plain path, not file:)")
    if unknown := sorted(set(url.query) - {"timeout"}):
        raise ConfigError(f"the URL parameter {unknown[0]!r} isn't known for SQLite; there is only timeout")
    if "timeout" in url.query and not _is_number(url.query["timeout"]):
        raise ConfigError("the URL parameter 'timeout' is a number of seconds")
    if path.startswith("~") and not os.path.isdir(path.partition("/")[0]):
        raise ConfigError(f"{path}: a ~ isn't expanded in a URL; write the directory in full, {_in_full(path)}")
    if os.path.isdir(path):
        raise ConfigError(f"{path} is a directory: a SQLite URL names a file")
    return url.set(database=os.path.abspath(path))  # a program that changes its directory must not lose its database


def _in_full(path: str) -> str:
    full = os.path.expanduser(path)
    return f"sqlite:///{full}" if os.path.isabs(full) else "sqlite:////home/…"


def _sqlite_obstacle(url: URL) -> str:
    path = str(url.database)
    directory = os.path.dirname(path)
    if os.path.exists(path):
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=_EFFECTIVE):
            return f"the file {path} can't be {'written' if os.access(path, os.R_OK, effective_ids=_EFFECTIVE) else 'read'}"
        if not os.path.exists(f"{path}-wal") and not os.access(directory, os.W_OK | os.X_OK, effective_ids=_EFFECTIVE):
            return f"the directory {directory} can't be written, where SQLite keeps its log"
        return ""
    if not os.path.isdir(directory):
        return f"the directory {directory} isn't there"
    try:  # what the access rights say isn't all: the file system may be full, read-only or none for files
        with tempfile.TemporaryFile(dir=directory):
            return ""
    except PermissionError:
        return f"the directory {directory} can't be written"
    except OSError as error:
        return f"the directory {directory} can't be written ({error.strerror})"


def _no_obstacle(url: URL) -> str:
    return ""


def _is_number(value: object) -> bool:
    try:
        return float(str(value)) >= 0
    except ValueError:
        return False


def _check_postgresql(url: URL) -> URL:
    if url.port is not None and not 0 < url.port < 65536:
        raise ConfigError(f"{url.port} isn't a port: there are 1 to 65535")
    password = url.query.get("password")
    if isinstance(password, str):
        url = url.difference_update_query(["password"]).set(password=password)
    from psycopg import pq

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    if unknown := sorted(set(url.query) - known):
        raise ConfigError(f"the URL parameter {unknown[0]!r} isn't one of PostgreSQL's")
    _refuse_values(url)
    return url


def _refuse_values(url: URL) -> None:
    """Lets PostgreSQL's client look at the parameters' values, which it does before it looks for the server: here there is none."""
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    given: dict[str, Any] = {name: value for name, value in url.query.items() if name not in ("host", "hostaddr", "port")}
    if not given:
        return
    connection = pq.PGconn.connect_start(make_conninfo("", **given, host=_NOWHERE).encode())
    message = connection.error_message.decode(errors="replace").strip()
    connection.finish()
    if message and _NOWHERE not in message:
        raise ConfigError(f"the URL's parameters: {redact(message)}")


def _sqlite_identity(url: URL) -> str:
    return os.path.realpath(url.database or "")


def _hosts(url: URL) -> str:
    hosts = url.query.get("host") or url.host or os.environ.get("PGHOST", "")
    return (hosts if isinstance(hosts, str) else ",".join(hosts)).lower()


def _postgresql_identity(url: URL) -> str:
    host = _hosts(url)
    if several_hosts(url):  # which one is meant, the attributes say
        host = f"{host} {url.query.get('target_session_attrs', '')}"
    port = url.port or url.query.get("port") or os.environ.get("PGPORT") or 5432
    user = url.username or url.query.get("user") or os.environ.get("PGUSER") or os.environ.get("USER", "")
    name = url.database or url.query.get("dbname") or os.environ.get("PGDATABASE") or user
    return f"{'localhost' if host.rstrip('/') in _LOCAL_HOSTS else host}:{port}/{name}"


_BACKENDS = {
    "sqlite": _Backend(
        drivername="sqlite",
        drivers=frozenset({"", "pysqlite", "replstore"}),
        module="sqlite3",
        remedy="this Python was built without SQLite",
        check=_check_sqlite,
        identity=_sqlite_identity,
        obstacle=_sqlite_obstacle,
    ),
    "postgresql": _Backend(
        drivername="postgresql+psycopg",
        drivers=frozenset({"", "psycopg", "replstore"}),
        module="psycopg",
        remedy='pip install "replstore[postgresql]"',
        check=_check_postgresql,
        identity=_postgresql_identity,
        obstacle=_no_obstacle,
    ),
}
