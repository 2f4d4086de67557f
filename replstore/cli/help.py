"""How ``--help`` looks: plain text in titled sections.  (typer's own frames need rich, whose import costs more time than everything else together.)"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

CONTEXT = {"max_content_width": 100, "help_option_names": ["--help", "-h"]}


def _sections(records: list[tuple[str, tuple[str, str]]], formatter: Any) -> None:
    """Writes (title, (name, help)) records, one section a title, in the order in which the titles come."""
    titles = list(dict.fromkeys(title for title, _ in records))
    width = max((len(name) for _, (name, _) in records), default=0)
    for title in titles:
        with formatter.section(title):
            formatter.write_dl([(name.ljust(width), text) for section, (name, text) in records if section == title], col_max=34)


class SectionedCommand(TyperCommand):
    """A command whose options stand under the titles that they carry (``rich_help_panel``): arguments first, what all commands share last."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records = [(self._title(each), self._record(each, ctx)) for each in self.get_params(ctx) if each.get_help_record(ctx) is not None]
        own = ["Arguments", "Options"]
        _sections(sorted(records, key=lambda record: own.index(record[0]) if record[0] in own else len(own)), formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def _title(self, parameter: Any) -> str:
        if parameter.param_type_name == "argument":
            return "Arguments"
        return getattr(parameter, "rich_help_panel", None) or "Options"

    def _record(self, parameter: Any, ctx: Any) -> tuple[str, str]:
        name, text = parameter.get_help_record(ctx)
        return (parameter.metavar or parameter.name, text) if parameter.param_type_name == "argument" else (name, text)


class SectionedGroup(TyperGroup):
    """A group whose commands stand under the titles that they carry."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name)) is not None and not command.hidden]
        records = [
            (getattr(command, "rich_help_panel", None) or "Commands", (command.name or "", command.get_short_help_str(200))) for command in commands
        ]
        _sections(records, formatter)
