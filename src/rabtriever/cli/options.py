"""What several verbs share: their common options, and reading what the user named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rabtriever.cli.settings import Setting
    from rabtriever.data import Dataset
    from rabtriever.training.config import TrainConfig

__all__ = [
    "Config",
    "Corpus",
    "DatasetName",
    "Json",
    "ModelOfIndex",
    "Seed",
    "Set",
    "load_dataset",
    "read_bytes",
    "read_settings",
    "train_config",
]

Json = Annotated[bool, typer.Option("--json", help="Write one JSON object to stdout.")]
ModelOfIndex = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="The index's model from another place, or what it was exported to."),
]
DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="A folder in BEIR layout, or 'example' for the one that comes along.")
]
Corpus = Annotated[
    str | None,
    typer.Option("--corpus", metavar="FILE", help="Another corpus in DATASET's folder, whose ids the judgements know."),
]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings as YAML.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as teacher.epochs=2; may be repeated."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seeds every draw; the same as --set seed=N.")]


def load_dataset(name: str, corpus: str | None = None) -> Dataset:
    """Read the dataset that the user named; ``example`` is the bundled one (``./example`` a folder of that name).

    Args:
        name: The folder, or ``example``.
        corpus: The corpus file in the folder, if not the usual one.

    Raises:
        DataError: If a file is missing or malformed.
        InputError: If another corpus is asked for of the bundled one.

    Example:
        >>> load_dataset("example").name
        'household'
    """
    from rabtriever.data import Dataset

    if name != "example":
        return Dataset.load(name) if corpus is None else Dataset.load(name, corpus=corpus)
    if corpus is not None:
        from rabtriever.errors import InputError

        raise InputError("--corpus: the bundled example has one corpus", hint="name a dataset's folder")
    return Dataset.example()


def read_bytes(option: str, value: str) -> int:
    """A number of bytes as people write it.

    Raises:
        InputError: It is none.

    Example:
        >>> read_bytes("--memory", "500MB"), read_bytes("--memory", "2 GiB")
        (500000000, 2147483648)
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from rabtriever.errors import InputError

    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        raise InputError(f"{option} must be a number of bytes, found {value!r}", hint="as in 500MB or 2GiB") from None


def read_settings(file: Path | None, assignments: list[str] | None, **options: object) -> list[Setting]:
    """Collect settings: the file first, then each ``--set``, then options of their own name that were given.

    Raises:
        InputError: If a key is unknown or the YAML malformed.

    Example:
        >>> [(s.key, s.value, s.place) for s in read_settings(None, ["seed=1"], seed=2)]
        [('seed', 1, '--set'), ('seed', 2, '--seed')]
    """
    from rabtriever.cli.settings import Setting, from_assignment, from_file
    from rabtriever.training.config import TrainConfig

    settings = [] if file is None else from_file(file, TrainConfig)
    for assignment in assignments or []:
        settings += from_assignment(assignment, TrainConfig)
    return settings + [Setting(name, value, f"--{name}") for name, value in options.items() if value is not None]


def train_config(settings: list[Setting]) -> TrainConfig:
    """Check the settings and put them over the defaults.

    Raises:
        InputError: If a value does not fit.

    Example:
        >>> train_config(read_settings(None, ["teacher.epochs=2"])).teacher.epochs
        2.0
    """
    from rabtriever.cli.settings import build
    from rabtriever.training.config import TrainConfig

    return build(TrainConfig, settings)
