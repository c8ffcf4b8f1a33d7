"""What a saved model says about itself, checked when it is loaded.

A model is a folder: ``config.json`` (:class:`ArtifactConfig`), the backbone's weights or adapter, for a retriever the
predictor, and a generated ``README.md``. The helpers that write it atomically (:mod:`rabtriever.files`) and identify
its parts (:mod:`rabtriever.fingerprints`) are offered here too.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rabtriever import __version__
from rabtriever.errors import DataError, InputError, MismatchError
from rabtriever.files import atomic_folder, has_format_version, read_json, write_json, write_text, writing
from rabtriever.fingerprints import fingerprint_folder, tokenizer_fingerprint

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONFIG_NAME",
    "FORMAT_VERSION",
    "ArtifactConfig",
    "BaseIdentity",
    "atomic_folder",
    "check_finite",
    "check_same",
    "fingerprint_folder",
    "installed_versions",
    "is_artifact",
    "read_json",
    "tokenizer_fingerprint",
    "write_json",
    "write_text",
    "writing",
]

CONFIG_NAME = "config.json"
FORMAT_VERSION = 2
"""The newest layout that is read. It has an adapter for queries; a folder without one is written in the first."""
_KINDS = ("reranker", "retriever")
_HIDDEN_SIZE_KEYS = ("hidden_size", "n_embd", "d_model")
_CHUNK = 1 << 24
"""Numbers checked at once: bounds the memory that the check itself takes."""


def installed_versions() -> dict[str, str]:
    """The versions that determine a model's numbers, by package, without importing them."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in ("torch", "transformers")}}


class BaseIdentity(BaseModel):
    """The language model that an artefact was made from.

    Args:
        name: :func:`rabtriever.base_models.base_name`: an embedded name, a hub id, or a folder's path.
        fingerprint: :func:`rabtriever.fingerprints.fingerprint_folder` of its files.
        architecture: The model class, such as ``LlamaForCausalLM``.
        hidden_size: The width ``d`` of its hidden states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    fingerprint: str
    architecture: str
    hidden_size: int = Field(ge=1)

    @classmethod
    def of_folder(cls, folder: Path | str, name: str) -> Self:
        """Identify the model in ``folder`` from its ``config.json`` and weights.

        Raises:
            InputError: If a file is missing.
            DataError: If a file is malformed or the configuration gives no architecture or width.
        """
        path = Path(folder) / CONFIG_NAME
        config = read_json(path)
        if not isinstance(config, dict):
            raise DataError(f"{path}: expected a JSON object")
        text = config.get("text_config") or config  # models that also read images nest their language model
        architectures = config.get("architectures") or [None]
        width = next((text[key] for key in _HIDDEN_SIZE_KEYS if key in text), None)
        if architectures[0] is None or width is None:
            missing = "architectures" if architectures[0] is None else "hidden_size"
            raise DataError(f"{path} does not say the model's {missing}", hint="save the model with transformers")
        return cls(
            name=name, fingerprint=fingerprint_folder(folder), architecture=architectures[0], hidden_size=int(width)
        )


class ArtifactConfig(BaseModel):
    """Everything a model folder's ``config.json`` holds.

    Args:
        format_version: Of the folder's layout; a newer one than :data:`FORMAT_VERSION` is refused.
        kind: ``reranker`` (teacher) or ``retriever`` (teacher's language model and a predictor).
        library_version: The version of this package that wrote it.
        versions: :func:`installed_versions` when it was written.
        base: The language model it was made from.
        weights_hash: Identifies the weights after training; the base's own fingerprint if untrained.
        parts: Identifies what lies in the folder, by name: the weights in ``backbone/`` and the predictor.
        tokenizer_fingerprint: :func:`rabtriever.fingerprints.tokenizer_fingerprint`.
        prompt: The prompt's settings, and ``prompt_hash``, which covers the constant ids they lead to.
        true_id: The token that answers "relevant", and ``false_id``, the one that answers "not relevant".
        adapter: Whether ``backbone/`` holds a LoRA adapter on the base model, or a whole model.
        query_adapter: Whether ``query/`` holds a LoRA adapter that queries are read with.
        predictor: The predictor's settings; none for a reranker.
        training: Seed, data fingerprint, settings and results, for people and for the model card.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1
    kind: Literal["reranker", "retriever"]
    library_version: str = __version__
    versions: dict[str, str] = Field(default_factory=installed_versions)
    base: BaseIdentity
    weights_hash: str
    parts: dict[str, str] = Field(default_factory=dict)
    tokenizer_fingerprint: str
    prompt: dict[str, Any]
    prompt_hash: str
    true_id: int = Field(ge=0)
    false_id: int = Field(ge=0)
    adapter: bool
    query_adapter: bool = False
    predictor: dict[str, Any] | None = None
    training: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """Read and check a model folder's ``config.json``.

        Raises:
            InputError: If there is no such folder, if it is no model of this package, or if a newer version wrote it.
            DataError: If the file is malformed; the message names the key.
        """
        folder = Path(folder)
        path = folder / CONFIG_NAME
        if not path.is_file():
            raise _no_model(folder)
        content = read_json(path)
        if not isinstance(content, dict) or "format_version" not in content:
            raise InputError(
                f"{path} has no format_version: {folder} is not a model that Rabtriever saved",
                hint="give the folder that `rabtriever train -o` wrote",
            )
        version = content["format_version"]
        if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
            raise InputError(
                f"{path}: format_version is {version!r}, and Rabtriever {__version__} reads up to {FORMAT_VERSION}",
                hint=f"install Rabtriever {content.get('library_version', 'in a newer version')} or newer",
            )
        if content.get("kind") not in _KINDS:
            raise DataError(f"{path}: kind is {content.get('kind')!r}, expected {' or '.join(_KINDS)}")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{path}: {key} is wrong: {first['msg']}", hint="save the model anew") from error

    def write(self, folder: Path | str) -> None:
        """Write ``config.json`` into ``folder``, atomically."""
        left_out = set() if self.query_adapter else {"query_adapter"}  # unknown to those who read the first layout
        version = FORMAT_VERSION if self.query_adapter else 1
        content = self.model_copy(update={"format_version": version}).model_dump(mode="json", exclude=left_out)
        write_json(Path(folder) / CONFIG_NAME, content)


def is_artifact(folder: Path | str) -> bool:
    """Whether ``folder`` is a model that this package saved (rather than a plain Hugging Face model)."""
    return has_format_version(Path(folder) / CONFIG_NAME)


def check_same(what: str, found: str, expected: str, where: Path | str) -> None:
    """Refuse two parts that do not belong together.

    Args:
        what: The part, such as ``"base model"``, ``"prompt"`` or ``"tokenizer"``.
        found: Its identity here and now.
        expected: The identity that ``where`` was made with.
        where: The artefact that depends on it.

    Raises:
        MismatchError: If the identities differ.

    Example:
        >>> check_same("prompt", "9f2c", "9f2c", "models/household")
    """
    if found != expected:
        raise MismatchError(
            f"{where} was made with another {what}: it expects {_short(expected)}, but found {_short(found)}",
            hint=f"use the {what} that it was made with, or make it anew with this one",
        )


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], where: Path | str) -> None:
    """Refuse weights that hold NaN or an infinity.

    Args:
        tensors: Names and tensors, such as ``module.named_parameters()`` or ``state_dict.items()``.
        where: The file or folder they come from.

    Raises:
        InputError: Naming the first tensor that holds one (code ``not_finite``).
    """
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        if not all(chunk.isfinite().all() for chunk in tensor.detach().reshape(-1).split(_CHUNK)):  # type: ignore[no-untyped-call]
            raise InputError(
                f"{where}: the weights {name} hold NaN or infinite numbers",
                hint="the file is damaged or its training diverged: use another copy, or a lower learning rate",
                code="not_finite",
            )


def _no_model(folder: Path) -> InputError:
    aside = sorted(folder.parent.glob(f"{folder.name}.old-*")) if not folder.exists() else []
    if aside:
        return InputError(
            f"{folder} does not exist, but an interrupted save left {aside[-1].name} beside it",
            hint=f"rename {aside[-1]} to {folder.name}",
        )
    if folder.is_dir():
        return InputError(
            f"{folder} holds no {CONFIG_NAME}, so it is not a model",
            hint="give the folder that `rabtriever train -o` wrote",
        )
    state = "is a file, not a folder" if folder.exists() else "does not exist"
    return InputError(f"the model {folder} {state}", hint="give the folder that `rabtriever train -o` wrote")


def _short(identity: str) -> str:
    """Enough of a hash to compare by eye; anything shorter or unlike a hash stays whole."""
    return f"{identity[:12]}…" if len(identity) >= 32 and " " not in identity else identity
