"""What is seen while the demo runs: sentences, and on a terminal a live view below them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from replstore.demo.tally import Pause, Tally

if TYPE_CHECKING:
    from replstore.demo.worker import Event

BARS = " ▁▂▃▄▅▆▇█"
#: s that one bar stands for.
STEP = 0.1


class Screen:
    """Shows the demo.

    Args:
        console: where.
        quiet: show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._began = time.monotonic()
        self._live: Live | None = None
        self._tally: Tally | None = None
        self.pause: Pause | None = None
        self.term = "term"

    def say(self, sentence: str, *, good: bool = True) -> None:
        """A step that is done."""
        self._line(sentence, "[green]✓[/green]" if good else "[red]✗[/red]")

    def mark(self, sentence: str) -> None:
        """Something that is done to the pair."""
        self._line(sentence, "[yellow]⚡[/yellow]")

    def _line(self, sentence: str, sign: str) -> None:
        if self._quiet:
            return
        line = Table.grid(padding=(0, 1))
        line.add_column(justify="right", width=6)
        line.add_column(width=2)
        line.add_column()
        line.add_row(f"[dim]{time.monotonic() - self._began:.1f} s[/dim]", sign, sentence)
        self._console.print(line)

    @contextmanager
    def busy(self, sentence: str) -> Iterator[None]:
        """Something that takes a moment."""
        if self._quiet or not self._console.is_terminal or self._live is not None:
            yield
            return
        with self._console.status(sentence):
            yield

    @contextmanager
    def live(self, tally: Tally) -> Iterator[None]:
        """The live view."""
        self._tally = tally
        if self._quiet or not self._console.is_terminal:
            yield
            return
        with Live(self._view(), console=self._console, auto_refresh=False, transient=True) as self._live:
            try:
                yield
            finally:
                self._live = None

    def refresh(self) -> None:
        """Draws the live view anew."""
        if self._live is not None:
            self._live.update(self._view(), refresh=True)

    def _view(self) -> Group:
        assert self._tally is not None
        now = time.monotonic()
        width = max(20, min(self._console.width - 32, 80))
        recent = [[event.at for event in log.acknowledged[-2000:] if event.at > now - width * STEP] for log in self._tally.logs]
        table = Table(box=None, padding=(0, 1), show_edge=False)
        table.add_column("process", justify="right")
        table.add_column("orders", justify="right")
        table.add_column("per s", justify="right")
        table.add_column(f"the last {width * STEP:g} s", no_wrap=True)
        for number, (log, times) in enumerate(zip(self._tally.logs, recent, strict=True), start=1):
            table.add_row(str(number), f"{len(log.acknowledged):,}", f"{_rate(times, now):,.0f}", bars(times, now, width))
        every = sorted(at for times in recent for at in times)
        total = sum(len(log.acknowledged) for log in self._tally.logs)
        table.add_row("all", f"{total:,}", f"{_rate(every, now):,.0f}", f"[bold]{bars(every, now, width)}[/bold]")
        return Group(Text(""), self._headline(self._tally.last), table)

    def _headline(self, last: Event | None) -> Text:
        assert self._tally is not None
        parts = [f"{last.node} writes, {self.term} {last.term}" if last else "the processes start"]
        if self.pause is not None:
            parts.append(f"last pause {self.pause.overall:,.0f} ms")
        if troubles := self._tally.troubles:
            parts.append("not acknowledged: " + ", ".join(f"{count} {name}" for name, count in troubles.items()))
        return Text(" " + "; ".join(parts), style="bold")


def _rate(times: list[float], now: float) -> float:
    return sum(1 for at in times if at > now - 1.0)


def bars(times: list[float], now: float, width: int) -> str:
    """Counts in steps of time as little bars, the latest on the right; a step without any is a gap that is seen."""
    end = int(now / STEP)
    counts = [0] * width
    for at in times:
        place = width - (end - int(at / STEP))
        if 0 <= place < width:
            counts[place] += 1
    top = max(counts) or 1
    return "".join(BARS[-(-count * (len(BARS) - 1) // top)] for count in counts)
