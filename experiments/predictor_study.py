"""How the predictor's settings change the student, on the teacher outputs that a training left in the store.

    python experiments/predictor_study.py MODEL DATASET [--seeds 3] [--candidates random:16] [--split dev] [-o FILE]

Each variant trains the predictor anew (seconds to minutes) and is measured on one split over the whole corpus, by
default on dev, by which variants are to be chosen; what was chosen is confirmed once with ``--only NAME --split test``.
The teacher is not asked again as long as the candidates are those of the training.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from rabtriever import Dataset, DistillConfig, Reranker
from rabtriever.base_models import cache_dir
from rabtriever.files import write_json
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.progress import SilentProgress, on_stderr
from rabtriever.training.candidates import training_queries
from rabtriever.training.pairs import DevSet, PairSet
from rabtriever.training.predictor_loop import PredictorLoop
from rabtriever.training.teacher_outputs import TeacherOutputs

_TEACHER: dict[str, Any] = {"label_weight": 0.0}
"""The teacher's outputs alone."""

_PAIRWISE: dict[str, Any] = {"ranking_weight": 0.0, "label_weight": 0.0}
"""The paper's loss, which looks at one pair at a time; its ablations follow."""

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "3 labels": {"label_weight": 3.0},
    "labels alone": {"mse_weight": 0.0, "kl_weight": 0.0, "ranking_weight": 0.0},
    "labels and ranking": {"mse_weight": 0.0, "kl_weight": 0.0},
    "labels, no MSE": {"mse_weight": 0.0},
    "labels, rank 64": {"predictor": PredictorConfig(rank=64)},
    "labels, dropout 0.3": {"predictor": PredictorConfig(dropout=0.3)},
    "no labels": _TEACHER,
    "no labels, 10 ranking": {**_TEACHER, "ranking_weight": 10.0},
    "no labels, forward": {**_TEACHER, "kl": "forward"},
    "no labels, no MSE": {**_TEACHER, "mse_weight": 0.0},
    "no labels, ranking alone": {**_TEACHER, "mse_weight": 0.0, "kl_weight": 0.0},
    "no labels, rank 64": {**_TEACHER, "predictor": PredictorConfig(rank=64)},
    "no labels, no MSE, rank 64": {**_TEACHER, "mse_weight": 0.0, "predictor": PredictorConfig(rank=64)},
    "no ranking, no labels": _PAIRWISE,
    "paper: raw MSE + 0.25 KL, plain init": {
        **_PAIRWISE,
        "kl_weight": 0.25,
        "normalize_target": False,
        "predictor": PredictorConfig(standardize=False, zero_init=False),
    },
    "raw MSE + 0.25 KL": {**_PAIRWISE, "kl_weight": 0.25, "normalize_target": False},
    "normalised MSE + 0.25 KL": {**_PAIRWISE, "kl_weight": 0.25},
    "normalised MSE + 10 KL": {**_PAIRWISE, "kl_weight": 10.0},
    "normalised MSE + 100 KL": {**_PAIRWISE, "kl_weight": 100.0},
    "no KL": {**_PAIRWISE, "kl_weight": 0.0},
    "forward KL": {**_PAIRWISE, "kl": "forward"},
    "no multiplication": {**_PAIRWISE, "predictor": PredictorConfig(multiply=False)},
    "one layer": {**_PAIRWISE, "predictor": PredictorConfig(layers=1)},
    "three layers": {**_PAIRWISE, "predictor": PredictorConfig(layers=3)},
    "plain init": {**_PAIRWISE, "predictor": PredictorConfig(zero_init=False)},
    "inputs not standardised": {**_PAIRWISE, "predictor": PredictorConfig(standardize=False)},
    "dropout 0.2": {**_PAIRWISE, "predictor": PredictorConfig(dropout=0.2)},
    "rank 64": {**_PAIRWISE, "predictor": PredictorConfig(rank=64)},
    "rank 256": {**_PAIRWISE, "predictor": PredictorConfig(rank=256)},
    "rank 256, dropout 0.2": {**_PAIRWISE, "predictor": PredictorConfig(rank=256, dropout=0.2)},
    "learning rate 3e-4": {**_PAIRWISE, "learning_rate": 3e-4},
    "learning rate 3e-3": {**_PAIRWISE, "learning_rate": 3e-3},
    "no MSE, dropout 0.2": {**_PAIRWISE, "mse_weight": 0.0, "predictor": PredictorConfig(dropout=0.2)},
    "no MSE, weight decay 0.3": {**_PAIRWISE, "mse_weight": 0.0, "weight_decay": 0.3},
}


def measure(
    predictor: Predictor, teacher: Reranker, dataset: Dataset, outputs: TeacherOutputs, split: str
) -> dict[str, float]:
    """R@1, R@3 and MRR over the whole corpus; ties count against the student."""
    queries = dataset.split(split)
    e_q = outputs.queries([query.text for query in queries])
    e_d = outputs.documents([document.content for document in dataset.corpus.values()])
    place = {document_id: i for i, document_id in enumerate(dataset.corpus)}
    with torch.inference_mode():
        folded = predictor.fold(e_q, teacher.rows.direction)
        scores = (folded @ predictor.document(e_d).T).numpy()
    ranks = []
    for row, query in zip(scores, queries, strict=True):
        right = [place[i] for i in dataset.relevant(split, query.id)]
        others = np.delete(row, right)
        ranks.append(1 + int((others >= row[right].max()).sum()))
    found = np.array(ranks)
    return {"R@1": float((found == 1).mean()), "R@3": float((found <= 3).mean()), "MRR": float((1 / found).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--candidates", default="random:16")
    parser.add_argument("--queries", type=int, default=None)
    parser.add_argument("--only", default="", help="variants whose name holds this")
    parser.add_argument("--split", default="dev", help="dev to choose by, test to confirm one choice")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    teacher = Reranker.from_pretrained(options.model)
    dataset = Dataset.example() if options.dataset == "example" else Dataset.load(options.dataset)
    outputs = TeacherOutputs(teacher, cache_dir() / "teacher-outputs", on_stderr())
    queries = training_queries(dataset, "train", options.queries, 0)
    pairs = PairSet(dataset, queries, outputs, options.candidates, 0)
    dev = DevSet.of(dataset, outputs, DistillConfig(), 0)
    results = []
    for name, changes in VARIANTS.items():
        if options.only not in name:
            continue
        config = DistillConfig(candidates=options.candidates, **changes)
        runs = []
        for seed in range(options.seeds):
            begin = time.perf_counter()
            with TemporaryDirectory() as folder:  # the seeds share the pairs: they change start and order
                loop = PredictorLoop(teacher, pairs, dev, config, seed, Path(folder), SilentProgress())
                report, predictor = loop.run(), loop.best_predictor()
            runs.append(
                {
                    "seed": seed,
                    options.split: measure(predictor, teacher, dataset, outputs, options.split),
                    "correlation": report["correlation"],
                    "effective_rank": report["effective_rank"],
                    "kl": report["kl"],
                    "mse": report["mse"],
                    "best_epoch": report["best_epoch"],
                    "seconds": time.perf_counter() - begin,
                }
            )
        results.append({"variant": name, "config": config.model_dump(), "runs": runs})
        mean = {m: np.mean([r[options.split][m] for r in runs]) for m in ("R@1", "R@3", "MRR")}
        print(
            f"{name:40s} {options.split} R@1 {mean['R@1']:.3f} R@3 {mean['R@3']:.3f} MRR {mean['MRR']:.3f}"
            f"   corr {np.mean([r['correlation'] for r in runs]):.3f}"
            f"   epoch {np.mean([r['best_epoch'] for r in runs]):.0f}   {np.mean([r['seconds'] for r in runs]):.0f} s",
            flush=True,
        )
    if options.output:
        data = {"dataset": dataset.name, "data": dataset.fingerprint, "model": teacher.fingerprint, "results": results}
        write_json(options.output, data)


if __name__ == "__main__":
    main()
