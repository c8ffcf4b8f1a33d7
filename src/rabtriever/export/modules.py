"""The parts of an exported folder, each a sub-folder that sentence-transformers reads: backbone, pooling, dense layers.

The files are in the layout of version 5.7. Versions before 5.4 would read a text otherwise without saying so; the
modules carry the names that they have since then, so that an older version finds no such module and stops.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rabtriever.files import read_json, write_json

if TYPE_CHECKING:
    from rabtriever.backbone import Backbone
    from rabtriever.export.tokenizer import TowerTokenizer
    from rabtriever.predictor import Predictor

__all__ = [
    "TYPES",
    "Layer",
    "document_layers",
    "link_weights",
    "query_layers",
    "write_backbone",
    "write_dense",
    "write_pooling",
    "write_tokenizer",
]

TYPES = {
    "Router": "sentence_transformers.base.modules.router.Router",
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}
"""Where the library has the modules."""

Layer = tuple[Tensor, Tensor]
"""A linear layer's weight ``(out, in)`` and bias ``(out,)``."""


def query_layers(predictor: Predictor, direction: Tensor) -> list[Layer]:
    """The linear layers whose composition, with a ReLU after each but the last, is :meth:`Predictor.fold`.

    The statistics that standardise ``e_Q`` go into the first layer, the direction ``(d,)`` into the last.

    Returns:
        Float32 weights and biases, the last ``(vector_size, width)`` and ``(vector_size,)``.

    Example:
        >>> from rabtriever.predictor import Predictor, PredictorConfig
        >>> [tuple(weight.shape) for weight, _ in query_layers(Predictor(8, PredictorConfig(rank=None)), torch.ones(8))]
        [(32, 8), (8, 32)]
    """
    linears = [module for module in predictor.mlp if isinstance(module, nn.Linear)]
    layers = [(linear.weight.detach().double(), linear.bias.detach().double()) for linear in linears]
    scale = predictor.query_scale
    layers[0] = _standardized(layers[0], scale.mean, scale.std)
    weight, bias = layers[-1]
    along = direction.double()
    if not predictor.config.multiply:
        layers[-1] = (along @ weight)[None], (along @ bias)[None]
    else:
        if predictor.config.rank is not None:
            along = (along * predictor.document_scale.std.double()) @ predictor.u.weight.detach().double()
        layers[-1] = along[:, None] * weight, along * bias
    return [(weight.float(), bias.float()) for weight, bias in layers]


def document_layers(predictor: Predictor) -> list[Layer]:
    """The linear layer that is :meth:`Predictor.document`; none where documents stand as they are.

    Example:
        >>> from rabtriever.predictor import Predictor, PredictorConfig
        >>> document_layers(Predictor(8, PredictorConfig(rank=None)))
        []
    """
    if not predictor.config.multiply:
        return [(torch.zeros(1, predictor.hidden_size), torch.ones(1))]
    if predictor.config.rank is None:
        return []
    scale = predictor.document_scale
    layer = predictor.g.weight.detach().double(), predictor.g.bias.detach().double()
    weight, bias = _standardized(layer, scale.mean, scale.std)
    return [(weight.float(), bias.float())]


def write_backbone(folder: Path, backbone: Backbone) -> None:
    """Write the language model without its head, in the smallest number format that holds its weights exactly.

    It loads in float32 whatever it is stored in: the dense layers after it are float32.

    Raises:
        InputError: If the disk is full.
    """
    state = backbone.blocks.state_dict()
    dtype = _exact_dtype(state)
    stored = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    backbone.blocks.save_pretrained(folder, state_dict=stored)  # type: ignore[operator]  # an nn.Module to mypy
    config = read_json(folder / "config.json")
    config.pop("torch_dtype", None)
    write_json(folder / "config.json", config | {"dtype": "float32"})


def write_tokenizer(folder: Path, tokenizer: TowerTokenizer) -> None:
    """Write the tokenizer, and the settings that make the folder a ``Transformer`` module.

    Raises:
        InputError: If the disk is full.
    """
    tokenizer.save(folder)
    length = tokenizer.config["model_max_length"]
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})


def link_weights(source: Path, target: Path) -> bool:
    """Give ``target`` the configuration and the weights of ``source``, without storing the weights again if possible.

    Returns:
        Whether every weight file is a hard link; a copy where the file system has none.
    """
    target.mkdir()
    linked = True
    for file in sorted(source.iterdir()):
        if file.suffix == ".safetensors":
            try:
                os.link(file, target / file.name)
                continue
            except OSError:
                linked = False
        shutil.copyfile(file, target / file.name)
    return linked


def write_pooling(folder: Path, hidden_size: int) -> None:
    """Write the module that takes the state of the last real token.

    Raises:
        InputError: If the disk is full.
    """
    settings = {"embedding_dimension": hidden_size, "pooling_mode": "lasttoken", "include_prompt": True}
    write_json(folder / "config.json", settings)


def write_dense(folder: Path, layer: Layer, *, relu: bool = False, output: str | None = None) -> None:
    """Write a dense layer.

    Args:
        folder: Where to.
        layer: Weight ``(out, in)`` and bias ``(out,)``.
        relu: Whether a ReLU follows.
        output: The name of the module's output, where it is not the sentence's embedding.

    Raises:
        InputError: If the disk is full.
    """
    weight, bias = layer
    activation = "activation.ReLU" if relu else "linear.Identity"
    settings = {
        "in_features": weight.shape[1],
        "out_features": weight.shape[0],
        "bias": True,
        "activation_function": f"torch.nn.modules.{activation}",
    }
    if output is not None:
        settings |= {"module_input_name": "sentence_embedding", "module_output_name": output}
    write_json(folder / "config.json", settings)
    save_file({"linear.weight": weight.contiguous(), "linear.bias": bias.contiguous()}, folder / "model.safetensors")


def _standardized(layer: Layer, mean: Tensor, std: Tensor) -> Layer:
    """The layer on ``x`` that the given one is on ``(x - mean) / std``."""
    weight, bias = layer
    scaled = weight / std.double()
    return scaled, bias - scaled @ mean.double()


def _exact_dtype(state: dict[str, Tensor]) -> torch.dtype:
    tensors: Sequence[Tensor] = [tensor for tensor in state.values() if tensor.is_floating_point()]
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in tensors):
            return dtype
    return torch.float32
