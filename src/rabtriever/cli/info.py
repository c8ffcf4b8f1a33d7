"""``info``: what is installed and chosen here, or what a folder holds."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from rabtriever.cli.options import Json, load_dataset
from rabtriever.cli.output import session

__all__ = ["info"]

_PACKAGES = (
    "torch",
    "transformers",
    "safetensors",
    "tokenizers",
    "numpy",
    "lancedb",
    "pyarrow",
    "peft",
    "bm25s",
    "faiss-cpu",
)

_FEATURES = ("avx", "amx", "bf16", "fp16", "i8mm", "neon", "sve")
"""What the processor multiplies fast, and so decides ``dtype`` and speed."""

_WORDS = {True: "yes", False: "no", None: "none"}


def info(
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="A model, an index or a dataset; this machine when left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell what a model, an index or a dataset holds, or what is installed and chosen on this machine."""
    with session(json) as out:
        facts = _machine() if path is None else _describe(path)
        out.emit(facts, _lines(facts))


def _machine() -> dict[str, Any]:
    import torch

    from rabtriever import __version__
    from rabtriever.base_models import EMBEDDED, cache_dir
    from rabtriever.numerics import choose_dtype, processor_abilities
    from rabtriever.shipped import shipped_models

    device = "cuda" if torch.cuda.is_available() else "cpu"
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    features = processor_abilities()
    fast = sorted(name for name, there in features.items() if there is True and name.startswith(_FEATURES))
    models = cache_dir() / "base_models"
    return {
        "kind": "machine",
        "version": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "device": device,
        "dtype": str(choose_dtype("auto", device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processor": {
            "name": features.get("cpu_name", platform.processor()),
            "cores": features.get("num_physical_cores"),
            "features": fast,
        },
        "cache": cache_dir(),
        "embedded_models": {
            name: {"hub_id": model.hub_id, "license": model.license, "cached": (models / name).is_dir()}
            for name, model in EMBEDDED.items()
        },
        "shipped_models": shipped_models(),
    }


def _describe(name: str) -> dict[str, Any]:
    from rabtriever.artifacts import is_artifact
    from rabtriever.compiled import is_compiled
    from rabtriever.errors import InputError
    from rabtriever.shipped import shipped_folder

    folder = shipped_folder(name) or Path(name)
    if name == "example" or (folder / "corpus.jsonl").is_file():
        return _dataset(name)
    if (folder / "index.json").is_file():
        return _index(folder)
    if is_artifact(folder):
        return _model(folder)
    if is_compiled(folder):
        return _compiled(folder)
    state = "is not a model, an index or a dataset" if folder.exists() else "does not exist"
    hint = "give a folder with config.json (model), index.json (index) or corpus.jsonl (dataset)"
    raise InputError(f"{name} {state}", hint=hint)


def _dataset(name: str) -> dict[str, Any]:
    dataset = load_dataset(name)
    return {
        "kind": "dataset",
        "name": dataset.name,
        "documents": len(dataset.corpus),
        "queries": len(dataset.queries),
        "splits": {split: len(dataset.split(split)) for split in dataset.splits},
        "fingerprint": dataset.fingerprint,
    }


def _index(folder: Path) -> dict[str, Any]:
    from rabtriever.index import Index

    with Index.open(folder) as index:
        described = index.description.model_dump(mode="json")
        return {"kind": "index", "documents": index.count, "version": index.version, **described}


def _model(folder: Path) -> dict[str, Any]:
    from rabtriever.artifacts import ArtifactConfig

    return {**ArtifactConfig.read(folder).model_dump(mode="json"), "bytes": _bytes(folder)}


def _compiled(folder: Path) -> dict[str, Any]:
    from rabtriever.graph_folder import GraphConfig

    config = GraphConfig.read(folder)
    kept = config.model_dump(mode="json", exclude={"parts", "prompts", "kind"})
    return {"kind": "export", "runtime": config.kind, **kept, "bytes": _bytes(folder)}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _lines(facts: Mapping[str, Any], indent: str = "") -> str:
    """Nested facts as indented ``key: value`` lines.

    Example:
        >>> print(_lines({"kind": "dataset", "splits": {"train": 3}}))
        kind: dataset
        splits:
          train: 3
    """
    lines = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:", _lines(value, indent + "  ")] if value else []
        elif isinstance(value, list):
            plain = ", ".join(map(str, value)) if value and isinstance(value[0], str) else f"{len(value)} entries"
            lines.append(f"{indent}{key}: {plain}")
        elif isinstance(value, bool | None):
            lines.append(f"{indent}{key}: {_WORDS[value]}")
        else:  # a template's line breaks would tear the list apart
            lines.append(f"{indent}{key}: {value!r}" if "\n" in str(value) else f"{indent}{key}: {value}")
    return "\n".join(lines)
