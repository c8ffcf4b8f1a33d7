"""The weights that stage I changes, and how the model is given back after it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rabtriever.adapters import adapter_state
from rabtriever.errors import InputError
from rabtriever.fingerprints import fingerprint_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.backbone import Backbone
    from rabtriever.reranker import Reranker
    from rabtriever.training.config import LoraConfig, TeacherConfig

__all__ = ["TrainedWeights", "check_freeze", "lora_settings"]


def check_freeze(backbone: Backbone, freeze_layers: int, setting: str) -> None:
    """Refuse a setting that freezes all layers.

    Raises:
        InputError: If none is left to train.
    """
    layers = len(backbone.layers)
    if freeze_layers >= layers:
        raise InputError(
            f"{setting}={freeze_layers} leaves nothing to train in {layers} layers",
            hint=f"freeze at most {layers - 1}",
        )


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
        check_freeze(backbone, config.freeze_layers, "teacher.freeze_layers")
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
            from peft import get_peft_model

            self.adapted = get_peft_model(backbone.model, lora_settings(backbone, config.lora, config.freeze_layers))
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
        teacher.weights_hash = fingerprint_tensors(teacher.weights_hash, trained)
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


def lora_settings(backbone: Backbone, lora: LoraConfig, freeze_layers: int) -> Any:
    """Peft's settings for adapters on all linear maps of the layers above the frozen ones."""
    from peft import LoraConfig as PeftConfig

    chosen = {id(m) for layer in backbone.layers[freeze_layers:] for m in layer.modules()}
    names = [
        name
        for name, module in backbone.model.named_modules()
        if id(module) in chosen and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]
    return PeftConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=names, bias="none")
