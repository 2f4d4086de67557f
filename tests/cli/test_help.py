"""What --help of a command shows: arguments, its own options, then what the commands share; nothing is cut and nothing is called what it isn't."""

from __future__ import annotations

import pytest

from replstore.cli import main


def sections(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The help's parts by their title; the first one, without a title, by its first word."""
    assert main([*arguments, "--help"]) == 0
    found: dict[str, str] = {}
    title = "Usage"
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line.rstrip(":")
        else:
            found[title] = f"{found.get(title, '')}\n{line}"
    return {title: " ".join(text.split()) for title, text in found.items()}


@pytest.mark.parametrize("command", [("ship",), ("solo",), ("orphans", "list"), ("sync",)])
def test_what_the_commands_share_stands_last(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    assert list(sections(capsys, *command)) == ["Usage", "Options", "Settings and output"]


def test_arguments_are_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    show = sections(capsys, "orphans", "show")
    assert list(show) == ["Usage", "Arguments", "Options", "Settings and output"]
    assert show["Usage"].startswith("Usage: replstore orphans show [OPTIONS] ID ")
    assert show["Arguments"] == "ID The record's id, or the first letters of it. [required]"
    assert sections(capsys, "takeover")["Arguments"] == "NODE The node to become the writer; by default the follower."


def test_a_subcommand_is_described_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    commands = sections(capsys, "orphans")["Commands"]
    assert "whether it may have been acknowledged." in commands
    assert "…" not in commands
    assert "..." not in commands


def test_init_writes_the_file_that_config_names(capsys: pytest.CaptureFixture[str]) -> None:
    found = sections(capsys, "init")
    assert "--path, --config FILE The file to write." in found["Options"]
    assert "--config" not in found["Settings and output"]
