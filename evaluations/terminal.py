"""A run in the terminal: a progress bar with the tokens of a cell in flight, and the table of columns."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from evaluations.events import CellTokens, RunEvent, RunProgressed, run_event
from evaluations.reports import ColumnReport
from evaluations.schemas import versioned

_TOKENS_SHOWN = 100
_WIDTH = 110
_CELLS_REMEMBERED = 64


class RunDisplay:
    """Listens to one run's events and draws them; safe to call from the run's thread."""

    def __init__(self, run_id: UUID, total: int, title: str) -> None:
        self._run_id = run_id
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=32),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[counts]}"),
        )
        self._task = self._progress.add_task(title, total=total, counts="")
        self._texts: dict[tuple[int, int, int], str] = {}
        self._last: tuple[int, int, int] | None = None

    def receive(self, event: RunEvent, **_: Any) -> None:
        """The signal's receiver."""
        if event.run_id != self._run_id:
            return
        if isinstance(event, CellTokens):
            self._add_tokens(event)
        elif isinstance(event, RunProgressed):
            counts = f"{event.passed} passed, {event.failed} failed, {event.errors} errors"
            self._progress.update(self._task, completed=event.done, counts=counts)

    def _add_tokens(self, event: CellTokens) -> None:
        cell = (event.case, event.column, event.repeat)
        if cell not in self._texts and len(self._texts) >= _CELLS_REMEMBERED:
            self._texts.clear()
        self._texts[cell] = self._texts.get(cell, "") + event.text
        self._last = cell

    def __rich__(self) -> Group:
        text = self._texts.get(self._last, "") if self._last else ""
        line = " ".join(text.split())[-_TOKENS_SHOWN:]
        where = f"  case {self._last[0]}, column {self._last[1] + 1} › " if self._last else "  "
        return Group(self._progress, Text(where + line, style="dim", no_wrap=True, overflow="ellipsis"))


@contextmanager
def watching(run_id: UUID, total: int, *, title: str, console: Console) -> Iterator[None]:
    """Draw the run while the block executes it; on a pipe only its beginning and end are written."""
    display = RunDisplay(run_id, total, title)
    run_event.connect(display.receive, weak=False)
    try:
        if console.is_terminal:
            with Live(display, console=console, refresh_per_second=10):
                yield
        else:
            console.print(f"{title}: {total} cells …")
            yield
    finally:
        run_event.disconnect(display.receive)


def new_console() -> Console:
    """Standard output, 110 columns wide and without colours where it is no terminal."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(width=_WIDTH, no_color=True, highlight=False)


class Picture:
    """The same lines on the terminal and, without what moves, in an SVG file for the documentation."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._copy = Console(record=True, file=io.StringIO(), width=_WIDTH, highlight=False)

    def print(self, content: Any) -> None:
        self.console.print(content)
        self._copy.print(content)

    def save(self, path: Path, *, title: str) -> None:
        """Write the SVG."""
        self._copy.save_svg(str(path), title=title)


def percent(value: float | None) -> str:
    """A share as a percentage; an unknown one as a dash."""
    return "–" if value is None else f"{value:.1%}"


def column_table(columns: list[ColumnReport], *, title: str) -> Table:
    """The columns of a report side by side, one measure a row."""
    table = Table(title=title, title_justify="left", header_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(f"{versioned(column)}\n{column.model}", justify="right")
    for name, show in _ROWS:
        table.add_row(name, *(show(column) for column in columns))
    return table


def _interval(pair: Any) -> str:
    return "" if pair is None else f" [{pair[0]:.1%}, {pair[1]:.1%}]"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f} ms"


_ROWS: tuple[tuple[str, Callable[[ColumnReport], str]], ...] = (
    ("pass rate [95 % interval]", lambda c: percent(c.pass_rate) + _interval(c.pass_rate_ci95)),
    ("passed / failed / errors", lambda c: f"{c.passed} / {c.failed} / {c.errors}"),
    ("mean score", lambda c: "–" if c.mean_score is None else f"{c.mean_score:.3f}"),
    ("latency p50", lambda c: _ms(c.latency_ms.p50)),
    ("latency p95", lambda c: _ms(c.latency_ms.p95)),
    ("tokens in / out", lambda c: f"{c.tokens.input:,} / {c.tokens.output:,}"),
    ("cost", lambda c: f"${c.cost_usd:.4f}"),
    ("saved by cache", lambda c: f"${c.saved_usd:.4f}"),
    ("from cache", lambda c: f"{c.cache_hits} of {c.cells}"),
)
