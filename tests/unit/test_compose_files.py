"""The files of compose/ without an engine: what they mount and build is there, their scripts are well formed, and none of them holds a password."""

from __future__ import annotations

import py_compile
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from replstore import Settings
from replstore.local.streaming import ROLES, STREAMING_SETTINGS

COMPOSE = Path(__file__).parent.parent.parent / "compose"
SET_UPS = ("journal.yaml", "patroni.yaml", "streaming.yaml")


def services(file: str) -> dict[str, Any]:
    return dict(yaml.safe_load((COMPOSE / file).read_text())["services"])


def test_there_is_a_set_up_for_each_kind():
    assert sorted(file.name for file in COMPOSE.glob("*.yaml")) == list(SET_UPS)


@pytest.mark.parametrize("file", SET_UPS)
def test_what_a_set_up_mounts_and_builds_is_there(file: str):
    volumes = yaml.safe_load((COMPOSE / file).read_text())["volumes"]
    for service in services(file).values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in volumes or (COMPOSE / source).exists(), mount
        if build := service.get("build"):
            context = COMPOSE / build["context"]
            assert (context / build["dockerfile"]).exists()


@pytest.mark.parametrize("file", SET_UPS)
def test_each_set_up_has_two_nodes_and_a_program_that_waits_for_both(file: str):
    found = services(file)
    for node in ("primary", "standby"):
        assert "pg_isready" in found[node]["healthcheck"]["test"]
    waits = found["program"]["depends_on"]
    assert {node: condition["condition"] for node, condition in waits.items()} == dict.fromkeys(("primary", "standby"), "service_healthy")
    assert "HEALTHCHECK" in (COMPOSE / "program.Dockerfile").read_text()


@pytest.mark.parametrize("file", SET_UPS)
def test_the_program_is_given_settings_that_there_are(file: str):
    given = {name: value for name, value in services(file)["program"]["environment"].items() if name.startswith("REPLSTORE_")}
    values = {name.removeprefix("REPLSTORE_").lower(): re.sub(r"\$\{\w+:-(\w*)\}", r"\1", str(value)) for name, value in given.items()}
    settings = Settings(**values)  # refuses what it doesn't know
    assert settings.replication == ("journal" if file == "journal.yaml" else "native")
    assert settings.promote == (file == "streaming.yaml")


def test_every_set_up_makes_the_same_roles_as_a_local_pair():
    for file in SET_UPS:
        mounted = {(COMPOSE / mount.split(":")[0]).resolve() for mount in services(file)["primary"]["volumes"] if mount.startswith(".")}
        assert ROLES.resolve() in mounted, file


@pytest.mark.parametrize("file", ["streaming.yaml", "patroni/patroni.yml"])
def test_a_promotion_waits_for_no_default(file: str):
    """5 s by default, in a standby that is promoted right after its primary's death."""
    text = (COMPOSE / file).read_text()
    for name in ("wal_retrieve_retry_interval", "wal_log_hints", "hot_standby_feedback"):
        assert re.search(rf'{name}(=|: "?){STREAMING_SETTINGS[name]}\b', text), name


def test_no_file_holds_a_password():
    for file in COMPOSE.rglob("*"):
        if file.is_file() and file.suffix not in (".py", ".pyc"):
            text = file.read_text()
            assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", text), file
            assert not re.search(r"(?i)password\w*(:\s|=)\s*['\"]?\w", text), file


@pytest.mark.parametrize("script", sorted(str(file.relative_to(COMPOSE)) for file in COMPOSE.rglob("*.sh")))
def test_a_script_is_well_formed_and_stops_at_the_first_fault(script: str):
    done = subprocess.run(["/bin/sh", "-n", str(COMPOSE / script)], capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    assert "\nset -eu\n" in (COMPOSE / script).read_text()


def test_the_program_compiles(tmp_path: Path):
    py_compile.compile(str(COMPOSE / "program.py"), cfile=str(tmp_path / "program.pyc"), doraise=True)


def test_a_build_sees_what_it_copies_and_no_more():
    seen = {line[1:] for line in (COMPOSE.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (COMPOSE / "program.Dockerfile").read_text(), re.MULTILINE)
    names = {name.split("/")[0] for line in copied for name in line.split()}
    assert names == seen
    assert all((COMPOSE.parent / name).exists() for name in names)
