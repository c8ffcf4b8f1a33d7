"""LoRA adapters on disk: peft's own two files, readable by other releases of peft than the one that wrote them."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rabtriever.errors import InputError
from rabtriever.files import write_json

__all__ = ["ADAPTER", "adapter_state", "fill_adapter", "merge_adapter", "read_adapter", "save_adapter"]

ADAPTER = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_ALWAYS = ("peft_type", "r", "lora_alpha", "lora_dropout", "bias", "base_model_name_or_path", "revision")
"""Written even where they are what peft takes by itself, which may change."""


def adapter_state(adapted: Any) -> dict[str, Any]:
    """An adapted model's adapter, its tensors detached and copied."""
    from peft import get_peft_model_state_dict

    # No embedding is adapted; left to find that out by itself, peft would ask the model hub for the base's config.
    found = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {key: value.detach().cpu().clone() for key, value in found.items()}


def fill_adapter(adapted: Any, state: Mapping[str, Any]) -> None:
    """Put an adapter's tensors into a model that has been adapted with its settings.

    Raises:
        InputError: If they do not fit it.
    """
    from peft import set_peft_model_state_dict

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers for what has a new name, and tells what it mends
            found: Any = set_peft_model_state_dict(adapted, dict(state))
    except (AttributeError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"does not fit the language model: {str(error).strip().splitlines()[0]}") from error
    absent = [name for name in found.missing_keys if ".lora_" in name]
    if absent or found.unexpected_keys:
        raise InputError(f"does not fit the language model: {(absent or found.unexpected_keys)[0]} has no counterpart")


def save_adapter(folder: Path, state: dict[str, Any], settings: Any, base: str, revision: str | None) -> None:
    """Write an adapter, and of its settings what differs from peft's own.

    An older peft warns of every setting that it does not know, and most of a newer one's are not in use.

    Args:
        folder: Where to.
        state: The tensors.
        settings: Its ``LoraConfig``.
        base: Where others find the base model; peft would name the folder in this machine's cache.
        revision: The base model's revision, if it has one.
    """
    from safetensors.torch import save_file

    save_file(state, folder / ADAPTER)
    written = copy.copy(settings)
    written.base_model_name_or_path, written.revision, written.inference_mode = base, revision, True
    plain, found = type(settings)().to_dict(), written.to_dict()
    kept = {key: value for key, value in found.items() if key in _ALWAYS or value != plain.get(key)}
    kept["target_modules"] = sorted(kept["target_modules"])
    write_json(folder / _CONFIG, json.loads(json.dumps(kept, sort_keys=True)))


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Say of whatever goes wrong that the folder does not load."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{folder} does not load as a LoRA adapter: {reason}", hint="copy the model folder again"
        ) from error


def read_adapter(folder: Path) -> tuple[dict[str, Any], Any]:
    """The tensors and the settings of an adapter that :func:`save_adapter` wrote.

    Raises:
        InputError: If a file is missing or malformed.
    """
    from peft import LoraConfig
    from safetensors.torch import load_file

    with _loading(folder):
        return load_file(folder / ADAPTER), LoraConfig.from_pretrained(str(folder))


def merge_adapter(model: Any, folder: Path) -> tuple[Any, dict[str, Any], Any]:
    """Add an adapter to a model's weights, in the format they compute in; training does the same at its end.

    Args:
        model: The base model, whose weights change.
        folder: The adapter's.

    Returns:
        The model, the adapter's tensors and its settings.

    Raises:
        InputError: If it is no adapter of this model.
    """
    from peft import PeftModel

    with _loading(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for what has a new name there
        adapted = PeftModel.from_pretrained(model, str(folder))
    state, config = adapter_state(adapted), adapted.peft_config["default"]
    return adapted.merge_and_unload(), state, config
