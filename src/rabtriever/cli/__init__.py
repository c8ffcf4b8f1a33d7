"""The ``rabtriever`` command: the library's verbs, typed by hand.

Everything is imported when it is needed, so that ``rabtriever --help`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0, 2 (bad usage or input), 1 (our failure), 130 (Ctrl-C).

    Args:
        argv: The arguments after the program's name; those of this process when left out.

    Example:
        >>> main(["--version"])
        rabtriever ...
        0
    """
    from rabtriever.cli.app import run

    return run(list(sys.argv[1:] if argv is None else argv))
