"""What a command says: one result on stdout, everything else on stderr."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

from rabtriever.errors import RabtrieverError
from rabtriever.progress import Progress, on_stderr

__all__ = ["Interrupted", "Output", "one_line", "session", "table", "to_json", "write"]


class Interrupted(RabtrieverError):
    """The user pressed Ctrl-C; the message says what was kept."""

    code = "interrupted"
    exit_code = 130


class Output:
    """Where a command sends its result and its progress.

    Args:
        as_json: Whether the result is one JSON object (``--json``) or text.
        stdout: The stream of the result.
    """

    def __init__(self, as_json: bool, stdout: TextIO | None) -> None:
        self.as_json = as_json
        self.progress: Progress = on_stderr()
        self._stdout = stdout

    def emit(self, payload: Mapping[str, Any], text: str) -> None:
        """Write the command's result, once: ``payload`` with ``--json``, ``text`` without."""
        write(to_json(payload) if self.as_json else text, self._stdout)


@contextmanager
def session(as_json: bool, interrupted: str = "stopped; nothing was changed") -> Iterator[Output]:
    """Run a command's body with stdout reserved for its result.

    Whatever a library prints meanwhile goes to stderr, so that ``--json`` stays one object.

    Args:
        as_json: Whether ``--json`` was given.
        interrupted: What to tell the user after Ctrl-C: what is kept, how to go on.

    Raises:
        Interrupted: In place of ``KeyboardInterrupt``.
        RabtrieverError: In place of a ``BrokenPipeError``, which outside of this block means that a reader of stdout
            has gone, and is no failure.
    """
    stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield Output(as_json, stdout)
    except KeyboardInterrupt as error:
        raise Interrupted(interrupted) from error
    except BrokenPipeError as error:
        raise RabtrieverError("a pipe to another process, or stderr, closed before the work was done") from error


def to_json(payload: Mapping[str, Any]) -> str:
    r"""Write one line of strict JSON: no NaN, no numpy types; ASCII, so that every terminal and pipe carries it.

    Example:
        >>> to_json({"path": Path("a"), "score": float("nan"), "text": "é"})
        '{"path": "a", "score": null, "text": "\\u00e9"}'
    """
    return json.dumps(_plain(payload), allow_nan=False)


def _plain(value: Any) -> Any:
    """Replace what JSON has no word for: paths, numpy scalars and arrays, sets, NaN and infinities."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array; numpy itself is not imported for this
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def write(text: str, stream: TextIO | None) -> None:
    """Write a line that a full disk cannot hide and a closed pipe (``| head``) cannot turn into an error.

    Raises:
        OSError: If the stream cannot take the text, other than because its reader has gone.
    """
    if stream is None:  # started with stdout closed
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        _silence(stream)
    except OSError as error:
        _silence(stream)
        raise OSError(error.errno, error.strerror, "standard output") from error


def _silence(stream: TextIO) -> None:
    """Point the stream at nothing, since Python flushes it once more at exit and would print a traceback."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def one_line(text: str, width: int = 100) -> str:
    r"""Shorten a text to one line without control characters, which a document could use to repaint the terminal.

    Example:
        >>> one_line("find a\n  sponge \x1b[31m", 13)
        'find a spong…'
    """
    shown = text[: 4 * width]
    visible = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in shown)
    words = " ".join(visible.split())
    return words if len(words) <= width and len(text) == len(shown) else words[: width - 1].rstrip() + "…"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> str:
    """Lay out a table as text; the first column stands left, the others right.

    Example:
        >>> print(table(["system", "R@1"], [["bm25", "0.120"]]))
          system     R@1
         ────────────────
          bm25     0.120
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE, title=Text(title) if title else None, title_justify="left", show_edge=False)
    for position, column in enumerate(columns):
        grid.add_column(Text(column), justify="right" if position else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*map(Text, row))
    buffer = io.StringIO()
    Console(file=buffer, width=200, color_system=None, legacy_windows=False).print(grid)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines() if line.strip())
