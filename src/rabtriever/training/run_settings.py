"""What the state in a folder was trained with: a run goes on with the settings it began with, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rabtriever.errors import InputError
from rabtriever.files import read_json, write_json

__all__ = ["check_settings"]


def check_settings(folder: Path, settings: dict[str, Any], shown: Path | None = None) -> None:
    """Remember a run's settings beside its state, or refuse to go on with others.

    Args:
        folder: Where the state is kept; it is made if need be.
        settings: Everything that decides what comes out: JSON values, nested as they like.
        shown: The folder that the user named, where that is another.

    Raises:
        InputError: If the folder holds a run with other settings; the first that differs is named.

    Example:
        >>> check_settings(Path("household/runs"), {"seed": 0})      # doctest: +SKIP
    """
    path = folder / "run.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
        return
    before, now = _flat(read_json(path)), _flat(settings)
    odd = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if odd:
        key = odd[0]
        raise InputError(
            f"{shown or folder} holds a run with other settings: {key} was {before.get(key)!r} and is now "
            f"{now.get(key)!r}",
            hint="repeat the former settings to go on, or choose another output folder",
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, as they are written in a configuration."""
    if not isinstance(value, dict):
        return {prefix: value}
    out: dict[str, Any] = {}
    for key, inner in value.items():
        out.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key).removeprefix("config")))
    return {key.removeprefix("config."): inner for key, inner in out.items()}
