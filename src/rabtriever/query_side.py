"""Queries read with an adapter of their own, while documents and teacher keep the language model as it is.

Document vectors, and what the teacher says, do not depend on it. The score is an inner product all the same.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rabtriever.adapters import fill_adapter, read_adapter
from rabtriever.artifacts import check_finite
from rabtriever.backbone import Backbone
from rabtriever.errors import InputError
from rabtriever.fingerprints import fingerprint_tensors

__all__ = ["QuerySide"]

_WRAPPED = "base_model.model."
"""What peft puts before the names of the model's own modules."""


class QuerySide:
    """The language model as queries are read by it.

    The maps that the adapter changes are copied, and it is merged into the copies; all else is shared with the model
    that documents are read by. So both can be asked at once, and neither waits for the other to be switched.

    Args:
        backbone: The teacher's; it stays as it is.
        state: The adapter's tensors by peft's names, float32.
        settings: Its ``LoraConfig``.

    Attributes:
        backbone: Reads query parts.

    Raises:
        InputError: If it is no adapter of this model.

    Example:
        >>> side = QuerySide.load(teacher.backbone, Path("model/query"))         # doctest: +SKIP
        >>> side.backbone.last_states([teacher.prompt.query_ids("a query")])     # doctest: +SKIP
    """

    def __init__(self, backbone: Backbone, state: Mapping[str, Tensor], settings: Any) -> None:
        self.state, self.settings = dict(state), settings
        merged = _merged(backbone.model, self.state, settings)
        self.backbone = Backbone(merged, backbone.tokenizer, backbone.batch_tokens)

    @classmethod
    def load(cls, backbone: Backbone, folder: Path) -> QuerySide:
        """Read an adapter that a model folder holds.

        Raises:
            InputError: If the files do not load, hold numbers that are not finite, or belong to another model.
        """
        state, settings = read_adapter(folder)
        check_finite(state.items(), folder)
        try:
            return cls(backbone, state, settings)
        except InputError as error:
            raise InputError(f"{folder} {error.message}", hint="copy the model folder again") from error

    @property
    def hash(self) -> str:
        """Identifies the adapter: its tensors, and by how much they count."""
        return fingerprint_tensors(f"{self.settings.r} {self.settings.lora_alpha}", self.state)


def _merged(model: Any, state: Mapping[str, Tensor], settings: Any) -> Any:
    """A model with the adapter in it, which shares every tensor that the adapter does not change."""
    from peft import get_peft_model

    try:
        changed = {name.partition(".lora_")[0].removeprefix(_WRAPPED) for name in state}
        own = {id(tensor) for name in changed for tensor in model.get_submodule(name).parameters()}
        shared = {id(t): t for t in (*model.parameters(), *model.buffers()) if id(t) not in own}
        unnamed = copy.copy(settings)
        unnamed.base_model_name_or_path = None  # peft would complain that the model has another name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft asks transformers for what has a new name, and tells what it mends
            adapted = get_peft_model(copy.deepcopy(model, shared), unnamed)
    except (AttributeError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"does not fit the language model: {str(error).strip().splitlines()[0]}") from error
    fill_adapter(adapted, state)
    with torch.no_grad():
        merged = adapted.merge_and_unload()
    return merged.requires_grad_(False).train(False)
