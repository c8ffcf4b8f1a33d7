"""Trained models that come with the package, each by its name."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["shipped_folder", "shipped_models"]

_ROOT = Path(__file__).parent / "models"
_MARK = "config.json"


def shipped_models() -> list[str]:
    """The names of the models that come with the package.

    Example:
        >>> "household" in shipped_models()  # that one is example data, not a model
        False
    """
    return sorted(entry.name for entry in _ROOT.iterdir() if (entry / _MARK).is_file()) if _ROOT.is_dir() else []


def shipped_folder(name: str | Path) -> Path | None:
    """The folder of a model that comes with the package; None where this names none, or a folder here is called so.

    Example:
        >>> shipped_folder("no such model") is None
        True
    """
    return _ROOT / name if os.fspath(name) in shipped_models() and not Path(name).exists() else None
