"""BM25 beside a dense model, as `rabtriever evaluate --systems hybrid` puts it beside the student.

    python experiments/fused.py FOLDER DATASET [--split test] [--weights 0.025,ranks] -o FILE [--join FILE]

A student's score is a log-odds, a bi-encoder's a cosine. Those trained here have learnt that 20 times it is one
(`bi_encoder.py --scale`), so that 0.025 of BM25's score is to them what half of it is to a student.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from baselines import save_report

from rabtriever import Dataset
from rabtriever.evaluation import Bm25System, DenseSystem, HybridSystem, System, evaluate
from rabtriever.fusion import parse_hybrid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a sentence-transformers model's folder or hub id")
    parser.add_argument("dataset")
    parser.add_argument("--split", default="test")
    parser.add_argument("--weights", default="0.025", help="of BM25's score, or `ranks`; with commas between")
    parser.add_argument("--alone", action="store_true", help="measure the model without BM25 too")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--join", type=Path, help="an earlier report, whose systems stand first")
    options = parser.parse_args()
    # All share one model and one BM25, which read the corpus once.
    dense, bm25 = DenseSystem(options.model, "bi-encoder"), Bm25System()
    systems: dict[str, System] = {f"dense:{options.model}": dense} if options.alone else {}
    for weight in options.weights.split(","):
        systems[f"hybrid:{weight}:{dense.name}"] = HybridSystem(dense, bm25, hybrid=parse_hybrid(weight))
    save_report(evaluate(systems, Dataset.load(options.dataset), options.split), options.output, options.join)


if __name__ == "__main__":
    main()
