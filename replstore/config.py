"""The settings of a Store: keyword arguments, environment, settings file, in this order.

The names are the same everywhere: ``Store(ack_timeout=5)``, ``REPLSTORE_ACK_TIMEOUT=5``, ``ack_timeout = 5`` in ``replstore.toml`` or under
``[tool.replstore]`` in ``pyproject.toml``.  Every default is meant for production; its reason stands in the field's description, which is also what
``replstore init`` writes into the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import URL

from replstore import config_file
from replstore.config_faults import PREFIX, URLS, refuse_misspelt, refuse_unknown, sentence
from replstore.errors import ConfigError, SettingsDiffer
from replstore.urls import parse, same_database, several_hosts, shown

#: Settings that belong to the pair: they are kept in its control tables and must be equal in every Store.
PAIR_SETTINGS = ("replication", "durability", "takeover", "on_follower_down", "rejoin", "refused_means_dead", "detection_time", "marker_retention")

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*([a-z]*)\s*")


def _seconds(value: Any) -> Any:
    """A duration in seconds: a number, or text with a unit ("500ms", "10 s", "24h")."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number of seconds, it is {str(value).lower()}")
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value.lower())
    if found is None or found[2] not in _UNITS:
        raise ValueError('must be a number of seconds, or a text with a unit such as "500ms", "10s", "5m", "24h", "7d"')
    return float(found[1]) * _UNITS[found[2]]


def _no_flag(value: Any) -> Any:
    """A whole number; Python takes true for 1."""
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, it is {str(value).lower()}")
    return value


def _url_text(value: Any) -> Any:
    """A SQLAlchemy URL object as text, password and all (its ``str`` would hide it)."""
    return value.render_as_string(hide_password=False) if isinstance(value, URL) else value


Seconds = Annotated[float, BeforeValidator(_seconds)]
Count = Annotated[int, BeforeValidator(_no_flag)]
DatabaseURL = Annotated[SecretStr, BeforeValidator(_url_text)]


class Settings(BaseSettings):
    """What a Store, or a command, works with.

    ``Settings(primary=…, standby=…)`` takes keywords and the environment; :meth:`load` takes the settings file too.

    Raises:
        ConfigError: one sentence for each fault, without passwords.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)

    primary: DatabaseURL = Field(
        description="URL of the node named primary, which writes first: sqlite:///file.db (counted from where the program starts; "
        "sqlite:////var/lib/file.db from the root) or postgresql://user@host:5432/database. The name stays when the roles change. "
        "A password is better kept in REPLSTORE_PRIMARY or ~/.pgpass than in a file."
    )
    standby: DatabaseURL = Field(description="URL of the node named standby, which follows first: another database, of the same kind or the other.")
    witness: DatabaseURL | None = Field(
        default=None,
        description="URL of a third small database with one row that decides who may go on alone when the nodes don't see each other. For two "
        "servers it belongs on a third machine. Without one, only a node that is surely dead is replaced or left behind without a person.",
    )
    replication: Literal["journal", "native"] = Field(
        default="journal",
        description='How changes reach the follower. "journal": replstore copies them itself through plain SQL, without special rights. '
        '"native": PostgreSQL\'s own streaming replication copies them; replstore finds out who writes, waits or promotes, and proves commits.',
    )
    durability: Literal["replicated", "async", "server"] = Field(
        default="replicated",
        description='When a commit is acknowledged. "replicated": when it is on both nodes, so that it survives the loss of either; the default, '
        'because losing acknowledged data must be a choice. "async": when it is on the writer; faster, and a lost writer takes its '
        'last commits with it. With native replication, and there the default, "server": when the server says so, by its own settings.',
    )
    takeover: Literal["auto", "manual"] = Field(
        default="auto",
        description='Who makes the follower the writer when the writer is lost. "auto": any Store, in a second or two, under rules that lose '
        'nothing. "manual": a person, by `replstore takeover`.',
    )
    rejoin: Literal["auto", "manual"] = Field(
        default="auto",
        description='Who brings a former writer back as the follower. "auto": whichever Store finds it; what it had committed alone is recorded '
        'first. "manual": a person, by `replstore rejoin`.',
    )
    promote: bool = Field(
        default=False,
        description="Native replication: whether a Store promotes the standby itself once the primary is surely lost. False: it waits for whoever "
        "does (Patroni, the provider, a person), because two that promote may make two primaries. The role needs EXECUTE on pg_promote.",
    )
    max_data_loss_bytes: Count = Field(
        default=0,
        ge=0,
        description="Native replication with promote: bytes of the write-ahead log that a promotion may leave behind, measured against the last place at "
        "which this program has seen the primary's durable log, at most probe_interval before it was lost. 0: the standby must have all of that.",
    )
    commit_marker: bool = Field(
        default=True,
        description="Native replication: whether each transaction writes a row that proves afterwards that it was committed. True: a COMMIT whose answer "
        "is lost is decided, and repeated if it did not happen. False: a small write less, and such a COMMIT ends in CommitUnknown.",
    )
    primary_data: str | None = Field(
        default=None,
        examples=["/var/lib/postgresql/18/main"],
        description="Native replication: the data directory of the node named primary, where it is on this machine. `replstore switchover`, `rejoin` and "
        "`orphans export` then stop, start, promote and rewind that server by themselves, as its owner or as root; without it they print the commands.",
    )
    standby_data: str | None = Field(
        default=None,
        examples=["/var/lib/postgresql/18/standby"],
        description="Native replication: the data directory of the node named standby, likewise.",
    )
    postgresql_bin: str | None = Field(
        default=None,
        examples=["/usr/lib/postgresql/18/bin"],
        description="Directory of the programs for these data directories (pg_ctl, pg_rewind, …). By default those with which the server was started last.",
    )
    replication_user: str | None = Field(
        default=None,
        examples=["replicator"],
        description="The role by which a follower connects to the writer, and may rewind. By default the one in the primary_conninfo of a node's "
        "configuration, else the URL's. Its password belongs into the .pgpass of the server's user, or into primary_conninfo.",
    )
    on_follower_down: Literal["solo", "block"] = Field(
        default="solo",
        description='What a writer does when its follower is surely dead. "solo": it goes on alone and says so, because one lost node must not '
        'stop the program. "block": it acknowledges nothing until the follower is back.',
    )
    refused_means_dead: bool = Field(
        default=True,
        description="Whether a refused connection proves that the server is dead. True for direct connections; set it to false behind a proxy, a "
        "load balancer or a virtual address, where it proves nothing: then only silence, the witness or a person decides.",
    )
    ack_timeout: Seconds = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Seconds that a commit waits for the follower before it ends in CommittedNotReplicated. Long enough for a restart of the "
        "follower, short enough for a web request.",
    )
    detection_time: Seconds = Field(
        default=1.5,
        ge=0.1,
        le=300,
        description="Seconds of silence after which the writer counts as lost. More than two probe intervals, so that one late heartbeat is no "
        "alarm; at 1.5 s a hung writer is replaced within 2.5 s.",
    )
    marker_retention: Seconds = Field(
        default=86400.0,
        ge=60,
        le=366 * 86400,
        description="Seconds for which a commit's marker without a key is kept after it is on both nodes. Whoever is in doubt about a commit finds "
        "it out by the marker, at most half as long after the transaction began; then it is CommitUnknown. A day is longer than any transaction "
        "should be open, and short enough to keep the table small. Keys are kept for ever.",
    )
    journal_kept: Count = Field(
        default=1_000_000,
        ge=0,
        description="How many changed rows, which the follower has long got, the journal still names for `replstore check --since last`; beyond it "
        "a whole check is needed. Every program of a pair needs the same, for each of them prunes. A million is some 100 MB. 0: none.",
    )
    max_backlog: Count = Field(
        default=1_000_000,
        ge=0,
        description="How many journal entries (a changed row on SQLite, a changing statement on PostgreSQL) may wait for the follower before "
        "transactions with durability async wait too: as much as a lost writer can take with it. 0: no limit, until the disk is full. A writer that "
        "is solo isn't limited.",
    )
    on_backlog: Literal["wait", "fail"] = Field(
        default="wait",
        description='What such a transaction does then, before it begins. "wait": it helps to ship, and goes on when there is room, which slows '
        'writers down to what the follower takes; after ack_timeout it ends in BacklogFull. "fail": BacklogFull at once.',
    )
    probe_interval: Seconds = Field(
        default=0.5, ge=0.02, le=60, description="Seconds between two looks at the nodes, each with a heartbeat; two a second cost a server nothing."
    )
    probe_timeout: Seconds = Field(
        default=1.0,
        ge=0.05,
        le=60,
        description="Seconds within which a node must answer one look, and one statement of replstore's own must end. A healthy server needs "
        "milliseconds.",
    )
    takeover_timeout: Seconds = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="Seconds that a call waits for a writer, while one is lost and not yet replaced, before it raises NoWriter. Several times "
        "what a takeover needs.",
    )
    ship_interval: Seconds = Field(
        default=0.2,
        ge=0.01,
        le=60,
        description="Seconds that the background shipper rests between two batches. It carries what other programs, and transactions with "
        "durability async, have written; replicated commits don't wait for it.",
    )
    pool_size: Count = Field(
        default=5,
        ge=1,
        le=1000,
        description="Connections kept open to each node for the program's transactions; up to 10 more for a while. SQLAlchemy's own default.",
    )
    _explicit: frozenset[str] = PrivateAttr(default=frozenset())

    def __init__(self, *, file: Mapping[str, Any] | None = None, file_name: str = "", **settings: Any) -> None:
        """Validates the settings.

        Args:
            file: the content of a settings file, below the environment in rank.
            file_name: its name, for messages.
            settings: by name, above the environment in rank; None means not given.
        """
        given = {name: value for name, value in settings.items() if value is not None}
        refuse_unknown(given, type(self).model_fields, "")
        refuse_unknown(file or {}, type(self).model_fields, file_name)
        refuse_misspelt(os.environ, type(self).model_fields)
        environment = {name: value for name, value in EnvSettingsSource(type(self))().items() if value != ""}
        sources = (("", given), (PREFIX, environment), (file_name, file or {}))
        merged = {**sources[2][1], **environment, **given}
        faults: list[ErrorDetails] = []
        native = {"durability": "server"} if merged.get("replication") == "native" else {}
        try:
            super().__init__(**{**native, **merged})
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=True)
        if faults:  # raised here: pydantic's own error holds what was given, passwords too, and must not come along as the context
            raise ConfigError("; ".join(sentence(fault, sources) for fault in faults))
        self._explicit = frozenset(merged)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, **overrides: Any) -> Settings:
        """The settings from keywords, the environment and the settings file.

        Args:
            path: a TOML file; None: ``replstore.toml`` in the current directory, else ``[tool.replstore]`` of its ``pyproject.toml``, else no file.
            overrides: settings by name; None means not given.

        Raises:
            ConfigError: the file can't be read, or as for the class.
        """
        file, name = config_file.read(path) if path is not None else config_file.find()
        return cls(file=file, file_name=name, **overrides)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The sources have been merged already, so that a message can say where a value came from."""
        return (init_settings,)

    @property
    def explicit(self) -> frozenset[str]:
        """The names that the user set, wherever; the others have their defaults or the pair's values."""
        return self._explicit

    @cached_property
    def primary_url(self) -> URL:
        """The primary's URL; prints without its password."""
        return parse(self.primary.get_secret_value())

    @cached_property
    def standby_url(self) -> URL:
        """The standby's URL; prints without its password."""
        return parse(self.standby.get_secret_value())

    @property
    def urls(self) -> dict[str, URL]:
        """Both nodes' URLs, by name."""
        return {"primary": self.primary_url, "standby": self.standby_url}

    @cached_property
    def witness_url(self) -> URL | None:
        """The witness's URL; prints without its password."""
        return None if self.witness is None else parse(self.witness.get_secret_value())

    def engine_options(self, node: str) -> dict[str, Any]:
        """What ``create_engine`` gets for the program's transactions on a node."""
        return {"pool_size": self.pool_size}

    def pair_values(self) -> dict[str, str]:
        """The settings of the pair as text, as its control tables hold them."""
        return {name: _text(getattr(self, name)) for name in PAIR_SETTINGS}

    def adopt(self, held: Mapping[str, str]) -> Settings:
        """These settings with the pair's values wherever the user said nothing.

        Args:
            held: by name, what the pair's control tables hold; names that this version doesn't know are left alone.

        Raises:
            SettingsDiffer: the user set another value than the pair holds.
        """
        mine = self.pair_values()
        held = {name: value for name, value in held.items() if name in mine}
        for name, value in held.items():
            if name in self.explicit and value != mine[name]:
                raise SettingsDiffer(
                    f"{name} is {mine[name]} here and {value} in the pair's control tables: every Store of a pair needs the same; "
                    "leave it out to take the pair's"
                )
        given = {name: getattr(self, name) for name in self.explicit}
        if "probe_interval" not in given and "detection_time" in held:  # the pair's, for which this program's default may be too slow
            given["probe_interval"] = min(self.probe_interval, float(held["detection_time"]) / 4)
        adopted = Settings(**{**given, **held})
        adopted._explicit = self._explicit
        return adopted

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, shown(parse(value.get_secret_value())) if isinstance(value, SecretStr) else value

    @field_validator("primary", "standby", "witness")
    @classmethod
    def _url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        fault = ""
        try:
            return SecretStr(parse(value.get_secret_value()).render_as_string(hide_password=False))
        except ConfigError as error:
            fault = str(error)
        raise ValueError(fault)

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        urls = {name: parse(value.get_secret_value()) for name in URLS if (value := getattr(self, name)) is not None}
        for one, other in (("primary", "standby"), ("primary", "witness"), ("standby", "witness")):
            if other in urls and same_database(urls[one], urls[other]):
                raise ValueError(f"{one} and {other} name the same database, {shown(urls[one])}: each needs its own")
        self._refuse_several_hosts(urls)
        if self.replication == "native":
            self._refuse_for_native(urls)
        elif self.durability == "server":
            raise ValueError('durability "server" belongs to native replication: the journal has "replicated" and "async"')
        elif not self.commit_marker:
            raise ValueError("commit_marker can be false with native replication only: the journal's transactions are told apart by their markers")
        if self.detection_time <= 2 * self.probe_interval:
            raise ValueError(
                f"detection_time ({self.detection_time:g} s) must be more than twice probe_interval ({self.probe_interval:g} s): "
                "one late heartbeat is no dead node"
            )
        return self

    def _refuse_several_hosts(self, urls: Mapping[str, URL]) -> None:
        for name, url in urls.items():
            if several_hosts(url) and (self.replication == "journal" or name == "witness"):
                raise ValueError(
                    f"{name}: the URL names several hosts: a node is one server, the other one is the pair's other node"
                    + ("" if name == "witness" else '; with replication "native", which is to be named then, a URL may')
                )

    def _refuse_for_native(self, urls: Mapping[str, URL]) -> None:
        for name in ("primary", "standby"):
            if urls[name].get_backend_name() != "postgresql":
                raise ValueError(f'replication "native" is PostgreSQL\'s own, and {name} is {shown(urls[name])}')
        if self.witness is not None:
            raise ValueError('replication "native" has no witness: who promotes the standby decides which node writes')
        if self.durability == "async":
            raise ValueError('durability "async" belongs to the journal: with replication "native" write "server", which leaves it to the server')


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)
