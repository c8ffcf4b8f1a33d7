r"""A smaller backbone: the lower layers of a model and its final norm, as a base model of its own.

    python experiments/cut.py smollm2-135m models/half --layers 15
    rabtriever train models/saycan-swapped -o models/saycan-half --base models/half --config experiments/saycan.yaml \
        --set teacher.freeze_layers=6

Nothing is trained to make up for what was cut, so stage I starts from a worse language model than its size could be.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rabtriever.base_models import resolve_base


def cut(base: str, output: Path, layers: int) -> None:
    """Write the lowest so many layers of a base model to a folder."""
    folder = resolve_base(base)
    config = copy.deepcopy((model := AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)).config)
    if not 0 < layers < config.num_hidden_layers:
        raise SystemExit(f"{base} has {config.num_hidden_layers} layers; keep fewer, and one at least")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    smaller = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    wanted = smaller.state_dict().keys()
    smaller.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in wanted})
    smaller.save_pretrained(output)
    AutoTokenizer.from_pretrained(folder).save_pretrained(output)
    print(f"{output}: {sum(p.numel() for p in smaller.parameters()):,} of {model.num_parameters():,} weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, required=True)
    options = parser.parse_args()
    cut(options.base, options.output, options.layers)


if __name__ == "__main__":
    main()
