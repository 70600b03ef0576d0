"""Progress with an ETA: a bar on a terminal, a line every ten seconds in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Meter:
    """Counts finished units of one stage and shows them; use it as a context manager.

    total: units expected (None if unknown); start: units finished by an earlier run.
    """

    def __init__(self, description: str, total: int | None, start: int = 0):
        self.description, self.total, self.done, self._first = description, total, start, start
        self._console = Console(stderr=True)
        self._bar = None

    def __enter__(self) -> "Meter":
        self._begin = self._last_line = time.monotonic()
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task(
                self.description, total=self.total, completed=self.done, note=""
            )
        return self

    def __exit__(self, kind, value, trace) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, units: int = 1, note: str = "") -> None:
        """Adds finished units; `note` is a short text shown beside them, e.g. the loss."""
        self.done += units
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            print(self._line(now, note), file=sys.stderr, flush=True)

    def _line(self, now: float, note: str) -> str:
        if not self.total:
            return f"  {self.description}: {self.done} {note}".rstrip()
        rate = (self.done - self._first) / max(now - self._begin, 1e-9)
        left = (self.total - self.done) / rate if rate else 0
        eta = timedelta(seconds=round(left))
        share = 100 * self.done / self.total
        text = f"  {self.description}: {share:3.0f}% ({self.done}/{self.total}) eta {eta} {note}"
        return text.rstrip()


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Iterates and shows progress; `total` defaults to the length where there is one."""
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    with Meter(description, total) as meter:
        for item in iterable:
            yield item
            meter.advance()
