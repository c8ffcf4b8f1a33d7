"""``python -m rabtriever``: the same as the ``rabtriever`` command."""

from __future__ import annotations

import sys

from rabtriever.cli import main

if __name__ == "__main__":
    sys.exit(main())
