"""The weights that stage I changes, and how the model is given back after it."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rabtriever.adapters import adapter_state
from rabtriever.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.backbone import Backbone
    from rabtriever.reranker import Reranker
    from rabtriever.training.config import TeacherConfig

__all__ = ["TrainedWeights"]


class TrainedWeights:
    """The weights that stage I changes: adapters, or the upper layers in float32 under autocast.

    Args:
        backbone: Its model is changed in place, until :meth:`settle` or :meth:`abandon`.
        config: Which weights.
        seed: Of the adapters' start.

    Attributes:
        parameters: What is trained, by name.
        reference: The model as it was, for DPO, or None.
    """

    def __init__(self, backbone: Backbone, config: TeacherConfig, seed: int) -> None:
        self.backbone, self.config = backbone, config
        self.dtype = backbone.dtype
        self.reference = copy.deepcopy(backbone.model) if config.objective == "dpo" else None
        layers = backbone.layers
        if config.freeze_layers >= len(layers):
            raise InputError(
                f"teacher.freeze_layers={config.freeze_layers} leaves nothing to train in {len(layers)} layers",
                hint=f"freeze at most {len(layers) - 1}",
            )
        backbone.model.requires_grad_(False)
        self.adapted: Any = None
        self._before: dict[str, Tensor] = {}
        if config.lora is None:
            trained = {id(p) for layer in layers[config.freeze_layers :] for p in layer.parameters()}
            named = backbone.model.named_parameters()
            self._before = {name: p.detach().clone() for name, p in named if id(p) in trained}
            backbone.model.to(torch.float32)  # type: ignore[arg-type]  # transformers wraps it without types
            for layer in layers[config.freeze_layers :]:
                layer.requires_grad_(True)
        else:
            torch.manual_seed(seed)
            self.adapted = _add_adapters(backbone, config)
        self.parameters = {n: p for n, p in backbone.model.named_parameters() if p.requires_grad}

    def autocast(self) -> torch.autocast:
        """What a training's forward passes run under: the format that the model computes in."""
        low = self.dtype if self.dtype != torch.float32 else torch.bfloat16
        return torch.autocast(self.backbone.device.type, dtype=low, enabled=self.dtype != torch.float32)

    def score(self, teacher: Reranker, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Log-odds by the weights as they are now: without dropout, and without documents read by former weights."""
        self.backbone.model.train(False)
        teacher.forget()
        with self.autocast():
            scores = teacher.score_pairs(pairs)
        teacher.forget()
        return scores

    def settle(self, teacher: Reranker) -> None:
        """Give the model back as it will be loaded: adapters merged, weights in the format it computes in."""
        # An adapter says how weights differ from the base model's own: on top of any others it would mean nothing.
        on_base = teacher.base is not None and teacher.weights_hash == teacher.base.fingerprint
        teacher.adapter = teacher.adapter_config = None
        if self.adapted is not None:
            trained = adapter_state(self.adapted)
            if on_base:
                teacher.adapter, teacher.adapter_config = trained, self.adapted.peft_config["default"]
            self.backbone.model = self.adapted.merge_and_unload()
        else:
            self._to_dtype()
            trained = {n: p for n, p in self.backbone.model.named_parameters() if n in self.parameters}
        self.backbone.model.requires_grad_(False).train(False)
        teacher.weights_hash = _hash(teacher.weights_hash, trained)
        teacher.forget()

    def abandon(self, teacher: Reranker) -> None:
        """Give the model back as it was before."""
        if self.adapted is not None:
            self.backbone.model = self.adapted.unload()
        else:
            self._to_dtype()
            for name, parameter in self.backbone.model.named_parameters():
                if name in self._before:
                    parameter.data = self._before[name]
        self.backbone.model.requires_grad_(False).train(False)
        teacher.forget()

    def _to_dtype(self) -> None:
        for parameter in self.backbone.model.parameters():  # not buffers: rotary frequencies are float32 in any format
            parameter.data = parameter.data.to(self.dtype)
            parameter.grad = None


def _hash(before: str, trained: Mapping[str, Tensor]) -> str:
    """Identifies the new weights: the old ones' hash and all that was trained, as it is stored."""
    digest = hashlib.sha256(before.encode())
    for name, tensor in sorted(trained.items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _add_adapters(backbone: Backbone, config: TeacherConfig) -> Any:
    from peft import LoraConfig, get_peft_model

    assert config.lora is not None
    chosen = {id(m) for layer in backbone.layers[config.freeze_layers :] for m in layer.modules()}
    names = [
        name
        for name, module in backbone.model.named_modules()
        if id(module) in chosen and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]
    lora = LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=names,
        bias="none",
    )
    return get_peft_model(backbone.model, lora)
