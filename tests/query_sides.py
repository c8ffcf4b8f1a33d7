"""Adapters for the query side, as after training for what matters here: random, and large enough to be seen."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rabtriever.adapters import adapter_state
from rabtriever.backbone import Backbone


def random_adapter(backbone: Backbone, freeze_layers: int = 1, seed: int = 0) -> tuple[dict[str, Tensor], Any]:
    """An adapter's tensors and settings for the maps of all layers above the lowest ones."""
    from peft import LoraConfig, get_peft_model

    upper = {module for layer in backbone.layers[freeze_layers:] for module in layer.modules()}
    names = [
        name
        for name, module in backbone.model.named_modules()
        if module in upper and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    ]
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=names)
    torch.manual_seed(seed)
    adapted = get_peft_model(copy.deepcopy(backbone.model), copy.copy(settings))
    state = {name: 0.3 * torch.randn_like(tensor) for name, tensor in adapter_state(adapted).items()}
    return state, settings
