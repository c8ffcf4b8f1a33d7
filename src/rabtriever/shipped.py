"""Trained models that come with the package, each by its name."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["model_place", "shipped_folder", "shipped_models"]

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


def model_place(path: str | None, relative: str | None, folder: Path) -> str | None:
    """Where a model is that another folder was made with; None where it is in neither place.

    Args:
        path: Where it was: a folder, or the name of one that comes with the package.
        relative: The same seen from ``folder``, so that both may have moved together.
        folder: What was made with it.

    Example:
        >>> model_place("gone", None, Path("index")) is None
        True
    """
    near = None if relative is None else folder / relative
    for place in (path, near):
        if place is not None and (shipped_folder(place) or Path(place).is_dir()):
            return str(place)
    return None
