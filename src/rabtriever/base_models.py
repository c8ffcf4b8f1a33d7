"""Base language models by name: embedded ones, local folders and model-hub ids."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from rabtriever.embedded_models import EMBEDDED, cache_dir, prepare_embedded
from rabtriever.errors import InputError
from rabtriever.files import read_json
from rabtriever.fingerprints import weight_files
from rabtriever.hub import fetch, split_revision

__all__ = ["EMBEDDED", "at_revision", "base_name", "cache_dir", "is_hub_id", "resolve_base"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[A-Za-z0-9][\w./-]*)?")
_HUB_FILES = ["*.json", "model*.safetensors", "tokenizer*", "*.model", "*.jinja", "*.txt"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def base_name(base: str | Path) -> str:
    """The name to record for a base model, by which :func:`resolve_base` finds it again from any working folder.

    An embedded name or hub id stays as it is; a local folder becomes an absolute path.

    Example:
        >>> base_name("smollm2-135m"), base_name("Qwen/Qwen3-0.6B")
        ('smollm2-135m', 'Qwen/Qwen3-0.6B')
    """
    name = os.fspath(base)
    folder = Path(name).expanduser()
    return name if name in EMBEDDED or not folder.is_dir() else str(folder.resolve())


def is_hub_id(name: str | Path) -> bool:
    """Whether this means a model in the hub: it looks like an id, and no folder here is called so.

    Example:
        >>> is_hub_id("Qwen/Qwen3-0.6B"), is_hub_id("Qwen/Qwen3-0.6B@v1.0"), is_hub_id("smollm2-135m")
        (True, True, False)
    """
    return bool(_HUB_ID.fullmatch(os.fspath(name))) and not Path(name).exists()


def at_revision(name: str | Path, revision: str | None) -> str | Path:
    """The name of a hub's model at a revision, by which it is found again.

    Raises:
        InputError: If a revision is given for something else than a hub id without one.

    Example:
        >>> at_revision("org/my-model", "v1.0"), at_revision("org/my-model", None)
        ('org/my-model@v1.0', 'org/my-model')
    """
    if revision is None:
        return name
    if not is_hub_id(name) or split_revision(str(name))[1]:
        raise InputError(
            f"{name} has no revision {revision!r}: only models of the hub have", hint="give a hub id such as org/name"
        )
    return f"{name}@{revision}"


def resolve_base(base: str | Path, *, progress: Callable[[str], None] | None = None) -> Path:
    """Find, fetch or convert a base model.

    Args:
        base: An embedded name (``smollm2-135m``), a folder in Hugging Face's format, or a hub id (``org/name``, or
            ``org/name@revision``).
        progress: Called with one line before each slow step; by default they go to stderr.

    Returns:
        A folder with ``config.json``, safetensors and tokenizer files.

    Raises:
        InputError: If it is none of these, if it cannot be fetched, or if the folder is incomplete or has only
            pickled weights.

    Example:
        >>> resolve_base("smollm2-135m")  # doctest: +SKIP
        PosixPath('/home/me/.cache/rabtriever/base_models/smollm2-135m')
    """
    name, say = os.fspath(base), progress or _to_stderr
    if name in EMBEDDED:
        return prepare_embedded(name, say)
    folder = Path(name).expanduser()
    if name and folder.is_dir():  # an empty name would mean the working folder
        return _checked(folder)
    if folder.is_file():
        raise InputError(
            f"{folder} is a file, but a base model is a folder",
            hint="give the folder with its config.json and safetensors",
        )
    if is_hub_id(name):
        return _checked(_from_hub(name, say))
    if folder.is_absolute():
        raise InputError(
            f"the base model's folder {folder} does not exist",
            hint="put it back there, or give the path where it is now",
        )
    known = ", ".join(EMBEDDED)
    close = difflib.get_close_matches(name.lower(), EMBEDDED, n=1, cutoff=0.5)
    raise InputError(
        f"{name!r} is neither an embedded base model ({known}), nor a folder that exists, nor a hub id like org/name",
        hint=f"did you mean {close[0]}?" if close else "check the name or path",
    )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _from_hub(name: str, say: Callable[[str], None]) -> Path:
    say(f"{name}: looking it up in the model hub (what is already in its cache is not fetched again)")
    return fetch(name, _HUB_FILES, ["*/*"])


def _checked(folder: Path) -> Path:
    """``folder``, if it is a complete model that can be loaded without unpickling anything."""
    config = read_json(folder / "config.json")
    if not isinstance(config, dict) or "model_type" not in config:
        raise InputError(
            f"{folder / 'config.json'} names no model_type: this is not a language model in Hugging Face's format",
            hint="give the folder that `save_pretrained` wrote",
        )
    safe = any((folder / file).is_file() for file in ("model.safetensors", "model.safetensors.index.json"))
    pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
    if not safe and pickles:
        raise InputError(
            f"{folder} has its weights only as {pickles[0]}, a pickle, which can run any code when it is loaded",
            hint="if you trust it, convert it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
            ", and save its tokenizer there too",
        )
    if not safe:
        raise InputError(f"{folder} holds no model.safetensors", hint="give the folder of a complete model")
    weight_files(folder)
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise InputError(
            f"{folder} holds no tokenizer (none of {', '.join(_TOKENIZER_FILES)})",
            hint="save the model's tokenizer into the same folder",
        )
    return folder
