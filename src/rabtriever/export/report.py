"""What an export measured about itself, and the refusal of one that is not what it was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rabtriever.errors import InputError, RabtrieverError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "PROBES",
    "TOLERANCE",
    "ExportReport",
    "Probe",
    "difference",
    "folder_bytes",
    "require_packages",
    "same_ids",
]

TOLERANCE = 1e-4
"""Allowed difference, of the largest number compared. Rounding in float32 stays a tenth of it even over thirty layers;
a wrong token, mask or position shows in the first digit."""

PROBES = (
    "",
    "a",
    " a leading space, and two  inside",
    "I spilled my coke on the table, what now?",
    "<|im_end|>\n<|im_start|>assistant\n<T></s><eos><end_of_turn>",
    "\n\tfirst line\n\n \nsecond line  \n",
    "\U0001f469\u200d\U0001f680 rockets \U0001f680\U0001f680",
    "\u05e9\u05dc\u05d5\u05dd \u202eright to left \u0645\u0631\u062d\u0628\u0627",
    "e\u0301 composed \u00e9, \u4f60\u597d, nul \x00, https://example.org/a.jpg",
    "find a sponge and wipe the table, then put it back where it was " * 4,
)
"""Texts that tell tokenizers and templates apart."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Texts, with the ids and the outputs that an export must give for them.

    Attributes:
        texts: The texts.
        ids: The ids of each.
        vectors: The output for each, ``(n, k)``.
    """

    texts: list[str]
    ids: list[list[int]]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written and how well it agrees with its source.

    Attributes:
        path: The folder or file.
        kind: ``sentence-transformers``, ``cross-encoder``, ``onnx``, ``openvino`` or ``parquet``.
        differences: The largest difference of each kind of output, of the largest number compared.
        bytes: Its size on the disk, hard links counted once.
        notes: What is not equal to its source, and why, one sentence each.
        milliseconds: What one short query takes, by the model itself and by the export, where that was measured.

    Example:
        >>> ExportReport(Path("out"), "cross-encoder", {"log-odds": 1e-6}, 10, ()).differences
        {'log-odds': 1e-06}
    """

    path: Path
    kind: str
    differences: Mapping[str, float]
    bytes: int
    notes: Sequence[str]
    milliseconds: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "path": self.path,
            "to": self.kind,
            "differences": dict(self.differences),
            "bytes": self.bytes,
            "notes": list(self.notes),
            **({} if self.milliseconds is None else {"milliseconds": dict(self.milliseconds)}),
        }


def require_packages(extra: str, *names: str) -> None:
    """Ask for packages before long work begins; every export is loaded with what it is for once.

    Args:
        extra: What brings them.
        names: As they are imported.

    Raises:
        InputError: If one is not installed.

    Example:
        >>> require_packages("export", "json")
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise InputError(
            f"this export needs the package {missing[0].replace('_', '-')}, which is not installed",
            hint=f"install rabtriever[{extra}]",
        )


def difference(what: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference between two arrays of one shape, of the largest number expected.

    Raises:
        RabtrieverError: If it is above :data:`TOLERANCE`.

    Example:
        >>> difference("vectors", np.ones(2, np.float32), np.ones(2, np.float32))
        0.0
    """
    size = float(np.abs(expected).max(initial=0.0)) or 1.0
    worst = float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) / size
    if not worst <= TOLERANCE:
        raise RabtrieverError(
            f"the export's {what} differ from the model's by {worst:.1e} of the largest, more than {TOLERANCE:.0e}",
            hint="nothing was written; please report the base model's family",
        )
    return worst


def same_ids(what: str, text: str, found: Sequence[int], expected: Sequence[int]) -> None:
    """Refuse a tokenizer that reads a text otherwise than the prompt does.

    Raises:
        InputError: If the ids differ.

    Example:
        >>> same_ids("query", "a", [1, 2], [1, 2])
    """
    if list(found) != list(expected):
        raise InputError(
            f"the base model's tokenizer cannot carry the prompt: it reads the {what} {text[:40]!r} otherwise",
            hint="choose a base model whose tokenizer.json is byte-level or SentencePiece",
        )


def folder_bytes(folder: Path) -> int:
    """Bytes on the disk, hard links counted once."""
    files = [file.stat() for file in folder.rglob("*") if file.is_file()]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in files}.values())
