"""The progress of a check stays in one line of an ordinary terminal, however large the numbers and long the names."""

from __future__ import annotations

import pytest
from rich.console import Console

from replstore.cli import progress


@pytest.mark.parametrize("table", ["public.account", "public.order_line_with_a_rather_long_table_name_of_63_characters_xx"])
def test_progress_takes_one_line_of_eighty_columns(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(width=80, force_terminal=True, highlight=False)
    monkeypatch.setattr(progress, "console", lambda *, stderr: screen)
    now = iter(range(100))
    shown = progress._shown()
    shown.get_time = shown.console.get_time = lambda: float(next(now))
    task = shown.add_task(f"comparing {table}", total=10_000_000)
    for done in (1_572_515, 3_145_030, 9_999_999):
        shown.update(task, completed=done)
    with screen.capture() as capture:
        screen.print(shown.get_renderable())
    (line,) = capture.get().splitlines()
    assert "9,999,999 rows, " in line
    assert "rows/s" in line
    assert "comparing public." in line
