"""Adapters for the query side, as after training for what matters here: random, and large enough to be seen."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from rabtriever.adapters import adapter_state
from rabtriever.backbone import Backbone
from rabtriever.training.config import LoraConfig
from rabtriever.training.trained_weights import lora_settings


def random_adapter(backbone: Backbone, freeze_layers: int = 1, seed: int = 0) -> tuple[dict[str, Tensor], Any]:
    """An adapter's tensors and settings for the maps of all layers above the lowest ones."""
    from peft import get_peft_model

    settings = lora_settings(backbone, LoraConfig(rank=4, alpha=8), freeze_layers)
    torch.manual_seed(seed)
    adapted = get_peft_model(copy.deepcopy(backbone.model), copy.copy(settings))
    state = {name: 0.3 * torch.randn_like(tensor) for name, tensor in adapter_state(adapted).items()}
    return state, settings
