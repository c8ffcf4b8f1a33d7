"""How far a teacher's own states go without a predictor: the cosine of e_Q and e_D, each read apart.

    python experiments/cosine.py MODEL DATASET [--split test] -o FILE [--join FILE]

What a student adds to it is order, log-odds or nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from baselines import save_report
from torch import Tensor

from rabtriever import Dataset, Reranker
from rabtriever.evaluation import evaluate
from rabtriever.evaluation.systems import StudentSystem


class States:
    """A teacher's last states of texts that are read alone, of length 1."""

    def __init__(self, teacher: Reranker) -> None:
        self.teacher = teacher

    def encode_document(self, texts: list[str]) -> Tensor:
        """``(n, d)``."""
        return _unit(self.teacher.document_states(texts))

    def encode_query(self, texts: list[str]) -> Tensor:
        """``(m, d)``."""
        return _unit(self.teacher.query_states(texts))

    def similarity(self, queries: Tensor, documents: Tensor) -> Tensor:
        """``(m, n)`` cosines."""
        return queries @ torch.as_tensor(documents).T


def _unit(states: Tensor) -> Tensor:
    return torch.nn.functional.normalize(states.float().cpu(), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--split", default="test")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--join", type=Path, help="an earlier report, whose systems stand first")
    options = parser.parse_args()
    system = StudentSystem(States(Reranker.from_pretrained(options.model)), "the cosine of the teacher's e_Q and e_D")
    report = evaluate({"cosine": system}, Dataset.load(options.dataset), options.split)
    save_report(report, options.output, options.join)


if __name__ == "__main__":
    main()
