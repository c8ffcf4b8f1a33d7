"""Short identities of models and tokenizers, so that artefacts which do not belong together are told apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from rabtriever.errors import DataError, InputError
from rabtriever.files import read_json

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

__all__ = ["fingerprint_file", "fingerprint_folder", "fingerprint_tensors", "tokenizer_fingerprint", "weight_files"]

_INDEX = "model.safetensors.index.json"
_SAMPLE = 4096
_LONGEST_HEADER = 100_000_000
"""The format's own limit, in bytes."""
_VOLATILE = {"transformers_version", "dtype", "torch_dtype", "use_cache"}
"""Keys of config.json that say how it was saved, not what it computes; so do those that begin with an underscore."""


class _Tensor(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    size: int


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load from ``folder``, or all of them where it names none.

    Raises:
        InputError: If there is none, or if the index names one that is missing.
    """
    if (folder / _INDEX).is_file():
        index = read_json(folder / _INDEX)
        names = sorted(set(index["weight_map"].values())) if isinstance(index, dict) and "weight_map" in index else []
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise InputError(
                f"{folder / _INDEX} names {', '.join(missing) or 'no files'}, not found in the folder",
                hint="copy or download the model again, with all its parts",
            )
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise InputError(f"{folder} holds no *.safetensors file", hint="give the folder of a complete model")
    return found


def fingerprint_folder(folder: Path | str) -> str:
    """The identity of a model on disk, read without torch and in milliseconds at any size.

    It covers what ``config.json`` says about the computation, every tensor's name, type and shape, and up to 4 KiB
    from each tensor's start, middle and end. So it tells apart other architectures, other releases, other precisions
    and fine-tuned copies (training moves practically every weight); it does not notice a few weights changed
    elsewhere in a large tensor, and is no protection against forgery. How the weights are split into files, and which
    version of the library saved them, makes no difference.

    Args:
        folder: A folder with ``config.json`` and safetensors.

    Returns:
        64 hexadecimal digits.

    Raises:
        InputError: If a file is missing.
        DataError: If ``config.json`` or a safetensors header is malformed.
    """
    folder = Path(folder)
    tensors = sorted(tensor for file in weight_files(folder) for tensor in _tensors(file))
    config = json.dumps(_semantic(read_json(folder / "config.json")), sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for tensor in tensors:
        digest.update(f"\n{tensor.name}\0{tensor.dtype}\0{tensor.shape}\0".encode())
        with tensor.file.open("rb") as file:
            for sample in _samples(file, tensor):
                digest.update(sample)
    return digest.hexdigest()


def fingerprint_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="copy the folder again") from error


def fingerprint_tensors(before: str, tensors: Mapping[str, Tensor]) -> str:
    """Identifies tensors in memory, by name and by value in float32, and what they come on top of."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """The identity of a tokenizer: its whole pipeline and its chat template, as 64 hexadecimal digits.

    Padding and truncation, which calls switch on and off, are left out.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state: dict[str, Any]
    if backend is None:  # a few families come without a pipeline in Rust: their vocabulary stands for it
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    else:
        state = json.loads(backend.to_str())
        state.update(truncation=None, padding=None)
    whole = {"tokenizer": state, "chat_template": getattr(tokenizer, "chat_template", None)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def _semantic(value: Any) -> Any:
    """``config.json`` without volatile keys, at every depth (composite models nest one config per part)."""
    if isinstance(value, dict):
        return {key: _semantic(item) for key, item in value.items() if key not in _VOLATILE and not key.startswith("_")}
    return [_semantic(item) for item in value] if isinstance(value, list) else value


def _tensors(file: Path) -> Iterator[_Tensor]:
    """The tensors that a safetensors header lists: 8 bytes of length, JSON, then the data."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header_bytes = opened.read(length) if length <= min(_LONGEST_HEADER, size - 8) else b""
    try:
        header = json.loads(header_bytes)
        for name, entry in header.items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                if not 0 <= start <= end <= size - 8 - length:
                    raise ValueError(f"{name} ends beyond the file")
                yield _Tensor(name, entry["dtype"], tuple(entry["shape"]), file, 8 + length + start, end - start)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file} ({size} bytes) is not a complete safetensors file",
            hint="download or copy it again (a checkout of a git repository may need `git lfs pull`)",
        ) from error


def _samples(file: BinaryIO, tensor: _Tensor) -> Iterator[bytes]:
    if tensor.size <= 3 * _SAMPLE:
        starts, count = [0], tensor.size
    else:
        starts, count = [0, (tensor.size - _SAMPLE) // 2, tensor.size - _SAMPLE], _SAMPLE
    for start in starts:
        file.seek(tensor.start + start)
        yield file.read(count)
