"""How long work reports itself: a bar on a terminal, plain lines in a log, nothing in a library.

Functions that take a while accept ``progress: Progress | None = None`` and use :func:`default` when they get none.
Everything goes to stderr, so that stdout stays free for results.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["PlainProgress", "Progress", "RichProgress", "SilentProgress", "default", "format_duration", "on_stderr"]


_WORTH_A_LINE = 1.0
"""Tasks that take fewer seconds leave no line behind."""


class Task(Protocol):
    """One piece of work in progress."""

    def advance(self, n: int = 1) -> None:
        """Count ``n`` more units as done."""

    def note(self, text: str) -> None:
        """Show a short text beside the count, for instance the current loss."""


class Progress(Protocol):
    """Where long work reports itself.

    Example:
        >>> with default().task("encode documents", total=2, unit="documents") as task:
        ...     task.advance(2)
    """

    def task(self, description: str, total: int | None = None, unit: str = "steps") -> AbstractContextManager[Task]:
        """Open a task of ``total`` units (``None``: not known); it ends with the ``with`` block."""

    def say(self, message: str) -> None:
        """Tell the user one line that is worth keeping."""


def default() -> Progress:
    """Return what library functions use when the caller gives no progress: silence.

    Example:
        >>> default().say("nobody reads this")
    """
    return SilentProgress()


def on_stderr() -> Progress:
    """Return a bar when stderr is a terminal and plain lines when it is not.

    Example:
        >>> on_stderr().say("")
    """
    if sys.stderr is None:  # started with stderr closed
        return SilentProgress()
    return RichProgress() if sys.stderr.isatty() else PlainProgress()


def format_duration(seconds: float) -> str:
    """Write a duration in its two largest units.

    Example:
        >>> [format_duration(s) for s in (0.31, 8, 187, 7500)]
        ['0.3s', '8s', '3m07s', '2h05m']
    """
    if seconds < 1:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def format_rate(rate: float, unit: str) -> str:
    """Write a rate, turned over (seconds per unit) where the unit is slow.

    Example:
        >>> format_rate(120.4, "pairs"), format_rate(2.5, "steps"), format_rate(0.25, "steps")
        ('120 pairs/s', '2.5 steps/s', '4.0 s per step')
    """
    if rate >= 10:
        return f"{rate:,.0f} {unit}/s"
    if rate >= 1:
        return f"{rate:.1f} {unit}/s"
    single = f"{unit[:-3]}y" if unit.endswith("ies") else unit.removesuffix("s")
    return f"{1 / rate:.1f} s per {single}" if rate > 0 else ""


class SilentProgress:
    """Reports nothing.

    Example:
        >>> with SilentProgress().task("train", total=3) as task:
        ...     task.note("loss 0.7")
    """

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "steps") -> Iterator[Task]:
        """Open a task that reports nothing."""
        yield _SilentTask()

    def say(self, message: str) -> None:
        """Drop the message."""


class _SilentTask:
    def advance(self, n: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class PlainProgress:
    """Plain lines, for logs and pipes: at most one every ``interval`` seconds, and one when a task of some length ends.

    Args:
        stream: Where the lines go; stderr when left out.
        interval: Seconds between two lines of running tasks.

    Example:
        >>> with PlainProgress(sys.stdout, interval=0).task("read", total=2, unit="files") as task:
        ...     task.advance()
        read: 1/2 files
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream = stream
        self._interval = interval
        self._last_line = time.monotonic()

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "steps") -> Iterator[Task]:
        """Open a task; it ends with a line if it took a second or more and no error ended it."""
        task = _PlainTask(self, description, total, unit)
        yield task
        if task.seconds >= _WORTH_A_LINE:
            self.say(task.summary())

    def say(self, message: str) -> None:
        """Write the message as a line of its own."""
        self._last_line = time.monotonic()
        _write_line(sys.stderr if self._stream is None else self._stream, message)

    def is_due(self) -> bool:
        """Whether enough time has passed since the last line."""
        return time.monotonic() - self._last_line >= self._interval


class _PlainTask:
    def __init__(self, owner: PlainProgress, description: str, total: int | None, unit: str) -> None:
        self._owner, self._description, self._total, self._unit = owner, description, total, unit
        self._start = time.monotonic()
        self._done = 0
        self._note = ""
        # (time, done): the rate is taken over the last dozen lines. The first advance opens the window, so that what
        # a resumed run had done before, and a slow first step, do not count.
        self._window: deque[tuple[float, int]] = deque(maxlen=12)

    def advance(self, n: int = 1) -> None:
        self._done += n
        if not self._window:
            self._window.append((time.monotonic(), self._done))
        if self._owner.is_due() and self._done != self._total:  # the end has a line of its own
            self._owner.say(self._line())
            self._window.append((time.monotonic(), self._done))

    def note(self, text: str) -> None:
        self._note = text

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def summary(self) -> str:
        return f"{self._description}: {self._done:,} {self._unit} in {format_duration(self.seconds)}{self._noted()}"

    def _line(self) -> str:
        total = "" if self._total is None else f"/{self._total:,}"
        parts = [f"{self._description}: {self._done:,}{total} {self._unit}"]
        since, done = self._window[0]
        elapsed = time.monotonic() - since
        if self._done > done and elapsed > 0:
            rate = (self._done - done) / elapsed
            parts.append(format_rate(rate, self._unit))
            if self._total is not None:
                parts.append(f"{format_duration(max(self._total - self._done, 0) / rate)} left")
        return ", ".join(parts) + self._noted()

    def _noted(self) -> str:
        return f" ({self._note})" if self._note else ""


def _write_line(stream: TextIO, message: str) -> None:
    # A closed terminal or pipe must not end an hour of training.
    with suppress(OSError, ValueError):
        stream.write(message + "\n")
        stream.flush()


class RichProgress:
    """Bars with rate and time left on a terminal; nested tasks stand below each other and vanish when done.

    Example:
        >>> with RichProgress().task("train", total=1) as task:
        ...     task.advance()
    """

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._open = 0

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "steps") -> Iterator[Task]:
        """Open a task; the display lives as long as any task is open."""
        if self._bars is None:
            self._bars = _new_bars()
            self._bars.start()
        bars = self._bars
        self._open += 1
        task = _RichTask(bars, bars.add_task(description, total=total, unit=unit, note=""))
        start = time.monotonic()
        try:
            yield task
        finally:
            bars.remove_task(task.identity)
            self._open -= 1
            if self._open == 0:
                bars.stop()
                self._bars = None
        seconds = time.monotonic() - start
        if self._open == 0 and seconds >= _WORTH_A_LINE:
            noted = f" ({task.text})" if task.text else ""
            self.say(f"{description}: {task.done:,} {unit} in {format_duration(seconds)}{noted}")

    def say(self, message: str) -> None:
        """Write the message above the bars."""
        if self._bars is None:
            _write_line(sys.stderr, message)
        else:
            self._bars.console.print(message, markup=False, highlight=False, soft_wrap=True)


class _RichTask:
    def __init__(self, bars: Bars, identity: TaskID) -> None:
        self._bars = bars
        self.identity = identity
        self.done = 0
        self.text = ""

    def advance(self, n: int = 1) -> None:
        self.done += n
        self._bars.advance(self.identity, n)

    def note(self, text: str) -> None:
        self.text = text
        self._bars.update(self.identity, note=text)


def _new_bars() -> Bars:
    """Build the display (rich is imported here, so that a library user never pays for it)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Task as BarTask
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: BarTask) -> Text:
            total = "" if task.total is None else f"/{int(task.total):,}"
            return Text(f"{int(task.completed):,}{total} {task.fields['unit']}")

    class Rate(ProgressColumn):
        def render(self, task: BarTask) -> Text:
            return Text(format_rate(task.speed, task.fields["unit"]) if task.speed else "", style="dim")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        Count(),
        Rate(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
