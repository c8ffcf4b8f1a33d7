"""``index.json``: what an index folder says about itself, and the model that belongs to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

import rabtriever
from rabtriever.artifacts import check_same
from rabtriever.errors import DataError, InputError, MismatchError
from rabtriever.files import read_json, write_json
from rabtriever.index.passages import Passages
from rabtriever.index.protocol import Encoder
from rabtriever.shipped import model_place

__all__ = ["FORMAT_VERSION", "Description", "ModelIdentity"]

FORMAT_VERSION = 3
_OLDEST = 2
"""What is read still: without ``document_fingerprint``."""

_NAME = "index.json"


class ModelIdentity(BaseModel):
    """The model whose vectors an index holds.

    Args:
        path: Its folder, as it was given; none for a model that was never saved.
        relative_path: The same folder seen from the index, so that both may move together.
        fingerprint: The student's fingerprint.
        prompt_hash: The hash of its prompt, which is part of the fingerprint too.
        document_fingerprint: Of what its documents' vectors depend on; none where an older version wrote the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None
    relative_path: str | None
    fingerprint: str
    prompt_hash: str
    document_fingerprint: str | None = None

    @property
    def of_vectors(self) -> str:
        """What identifies the vectors of documents, as far as is known."""
        return self.document_fingerprint or self.fingerprint


class Description(BaseModel):
    """The content of ``index.json``.

    Args:
        format_version: Of the folder's layout; newer ones than :data:`FORMAT_VERSION` are refused, and 1.
        kind: Always ``index``.
        library_version: The version of this package that made the index.
        model: The model that its vectors come from.
        dimension: Width of the vectors.
        bias: What is added to an inner product to make it the log-odds.
        table: The name of the table that holds the documents.
        passages: How long documents are cut; none are where this is None.
        pending: The table that a move to another model is building, if one is under way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    kind: Literal["index"] = "index"
    library_version: str = rabtriever.__version__
    model: ModelIdentity
    dimension: int = Field(ge=1)
    bias: FiniteFloat
    table: str = Field(default="documents", pattern=r"^[a-z0-9_]+$")
    passages: Passages | None = None
    pending: str | None = Field(default=None, pattern=r"^[a-z0-9_]+$")

    @classmethod
    def of(cls, student: Encoder, folder: Path, passages: Passages | None = None) -> Description:
        """Describe an index that will stand in ``folder`` and hold the vectors of ``student``."""
        path = None if student.path is None else str(student.path)
        relative = os.path.relpath(path, folder) if path is not None and Path(path).exists() else None
        model = ModelIdentity(
            path=path,
            relative_path=relative,
            fingerprint=student.fingerprint,
            prompt_hash=student.reranker.prompt.hash,
            document_fingerprint=student.document_fingerprint,
        )
        return cls(model=model, dimension=student.dimension, bias=float(student.bias), passages=passages)

    @classmethod
    def read(cls, folder: Path) -> Description:
        """Read and check ``index.json``.

        Raises:
            InputError: There is no index in ``folder``, or another version of this package made it.
            DataError: The file is malformed; the message names line or key.
        """
        path = folder / _NAME
        if not path.is_file():
            state = f"holds no {_NAME}" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
            raise InputError(
                f"{folder} is not an index: it {state}",
                hint="make one with `rabtriever index MODEL CORPUS -o INDEX`",
                code="no_index",
            )
        content = read_json(path)
        version = content.get("format_version") if isinstance(content, dict) else None
        if type(version) is int and version > FORMAT_VERSION:
            raise InputError(
                f"{path}: format_version is {version}, and this Rabtriever reads up to {FORMAT_VERSION}",
                hint=f"install Rabtriever {content.get('library_version', 'in a newer version')} or newer",
            )
        if type(version) is int and version < _OLDEST:
            raise InputError(
                f"{path}: format_version is {version}, and this Rabtriever reads {_OLDEST} to {FORMAT_VERSION}",
                hint="index the documents again into a new folder: rabtriever index MODEL CORPUS -o NEW",
                code="old_format",
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DataError(
                f"{path}: {key} is wrong: {first['msg']}", hint="restore the file, or index the documents again"
            ) from None

    def write(self, folder: Path) -> None:
        """Write ``index.json``, atomically."""
        write_json(folder / _NAME, self.model_dump(mode="json") | {"format_version": FORMAT_VERSION})

    def check(self, student: Encoder, folder: Path) -> None:
        """Refuse a model that the vectors in ``folder`` do not come from.

        Raises:
            MismatchError: Its prompt or anything else that determines vectors differs; the message says which.
        """
        check_same("prompt", student.reranker.prompt.hash, self.model.prompt_hash, folder)
        if student.fingerprint != self.model.fingerprint:
            same = student.document_fingerprint == self.model.document_fingerprint
            raise MismatchError(
                f"{folder} was made with another model: {_name(self.model)}, not {_name(student)}",
                hint="they read documents alike: `rabtriever reindex INDEX MODEL` moves it to this one at once"
                if same
                else "open it with the model that it was made with, or index the documents again with this one",
            )

    def model_folder(self, folder: Path) -> str:
        """Where the model is now: where it was when the index was made, or in the same place relative to the index.

        Raises:
            InputError: It is in neither place, or was never saved.
        """
        place = model_place(self.model.path, self.model.relative_path, folder)
        if place is not None:
            return place
        known = f"it was {self.model.path}" if self.model.path else "it was never saved"
        raise InputError(
            f"the model of the index {folder} is not to be found: {known}",
            hint="open the index with the model: Index.open(path, student)",
        )


def _name(model: ModelIdentity | Encoder) -> str:
    return f"{model.path or 'one that was never saved'} (fingerprint {model.fingerprint[:12]})"
