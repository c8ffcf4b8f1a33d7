"""Where in the frozen model to read: last position or the text's own tokens, final state or a middle layer.

    python experiments/taps.py MODEL DATASET -o experiments/results/taps-NAME.json [--queries 3000]

For each choice of query states and document states a predictor of the paper's form (or with a document map of rank k)
is trained on the queries' labels over the whole corpus, which is enough to rank as well as the whole loss does
(``ablations.py``), three seeds, and ranks the corpus for dev and test. All of it is as frozen, as cacheable and as
foldable as the paper's choice, which is the reference: the final state at the last position on both sides.
"""

from __future__ import annotations

import argparse
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_report import mrr
from torch import Tensor, nn

from rabtriever import Dataset, Reranker
from rabtriever.backbone import Backbone
from rabtriever.data.records import Query
from rabtriever.files import write_json
from rabtriever.progress import on_stderr
from rabtriever.training.candidates import training_queries

LAYERS = (6, 12, 18, 24)
FINAL = "final last"
POOLS = ("last", "mean")

VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {},
    **{f"query: layer {layer}, last": {"query": [f"{layer} last"]} for layer in LAYERS},
    **{f"query: layer {layer}, mean": {"query": [f"{layer} mean"]} for layer in LAYERS},
    "query: final, mean": {"query": ["final mean"]},
    **{f"query: final, last + layer {layer}, mean": {"query": [FINAL, f"{layer} mean"]} for layer in (12, 18, 24)},
    **{f"document: layer {layer}, mean": {"document": [f"{layer} mean"]} for layer in LAYERS},
    "document: final, mean": {"document": ["final mean"]},
    "rank 256": {"rank": 256},
    "rank 256, both final, last + layer 18, mean": {
        "query": [FINAL, "18 mean"],
        "document": [FINAL, "18 mean"],
        "rank": 256,
    },
}


@torch.inference_mode()
def states(backbone: Backbone, rows: list[list[int]], empty: list[int], title: str) -> dict[str, Tensor]:
    """Of each sequence the states at its last position, and their mean over its own tokens, by layer: ``(n, d)``."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out: dict[str, Tensor] = {}
    with on_stderr().task(title, total=len(rows), unit="texts") as task:
        for start in range(0, len(rows), 16):
            part = order[start : start + 16]
            hidden = backbone.blocks(
                **backbone.pad([rows[i] for i in part]), output_hidden_states=True, use_cache=False
            )
            named = {"final": hidden.last_hidden_state, **{str(n): hidden.hidden_states[n] for n in LAYERS}}
            for name, state in named.items():
                for place, i in enumerate(part):
                    first, end = _own(rows[i], empty)
                    for pool, row in (
                        ("last", state[place, len(rows[i]) - 1]),
                        ("mean", state[place, first:end].mean(0)),
                    ):
                        key = f"{name} {pool}"
                        out.setdefault(key, torch.empty(len(rows), backbone.hidden_size))[i] = row.float()
            task.advance(len(part))
    return out


def _own(ids: list[int], empty: list[int]) -> tuple[int, int]:
    """Where a text's own tokens are: between what it shares with the empty text's start and end."""
    first = next((i for i, (a, b) in enumerate(zip(ids, empty, strict=False)) if a != b), len(empty))
    rest = min(len(empty) - first, len(ids) - first - 1)
    return first, len(ids) - rest


class Student(nn.Module):
    """``MLP(e_Q) . g(e_D)``, with standardised inputs and the MLP's last layer at zero, as the package has it."""

    def __init__(self, query: Tensor, document: Tensor, rank: int | None) -> None:
        super().__init__()
        self.mean, self.std = query.mean(0), _deviation(query)
        width = rank or document.shape[1]
        self.mlp = nn.Sequential(nn.Linear(query.shape[1], 2304), nn.ReLU(), nn.Linear(2304, width))
        nn.init.zeros_(self.mlp[2].weight)
        nn.init.zeros_(self.mlp[2].bias)
        self.map = nn.Linear(document.shape[1], width) if rank else nn.Identity()
        if rank:
            nn.init.orthogonal_(self.map.weight)
            nn.init.ones_(self.map.bias)
        self.documents = (document - document.mean(0)) / _deviation(document)

    def forward(self, query: Tensor) -> Tensor:
        """Scores of the whole corpus, ``(b, n)``."""
        vectors = self.map(self.documents)
        return self.mlp((query - self.mean) / self.std) @ vectors.T / math.sqrt(vectors.shape[1])


def _deviation(states: Tensor) -> Tensor:
    std = states.std(0)
    return torch.maximum(std, 0.01 * std.median())


def fit(student: Student, query: Tensor, right: Tensor, dev: tuple[Tensor, Tensor], seed: int, epochs: int) -> int:
    """Train on the labels; leave the student as it was after the best epoch by dev MRR, and tell which that was."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    steps = epochs * -(-len(query) // 16)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: (s + 1) / warm if s < warm else 0.5 * (1 + math.cos(math.pi * (s - warm) / (steps - warm)))
    )
    best, epoch, kept = -1.0, 0, {}
    generator = torch.Generator().manual_seed(seed)
    for number in range(epochs):
        for rows in torch.split(torch.randperm(len(query), generator=generator), 16):
            weight = right[rows]
            loss = -(weight * student(query[rows]).log_softmax(1)).sum(1).div(weight.sum(1)).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        found = float(np.mean([1 / rank for rank in ranks(student, *dev)]))
        if found > best:
            best, epoch, kept = found, number, {k: v.clone() for k, v in student.state_dict().items()}
    student.load_state_dict(kept)
    return epoch


@torch.inference_mode()
def ranks(student: Student, query: Tensor, right: Tensor) -> list[int]:
    """The place of each query's best right document, ties counted against it."""
    scores = student(query)
    best = scores.masked_fill(right == 0, -torch.inf).amax(1, keepdim=True)
    return (1 + ((right == 0) & (scores >= best)).sum(1)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--queries", type=int, default=None)
    parser.add_argument("--test-queries", type=int, default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    teacher, dataset = Reranker.from_pretrained(options.model), Dataset.load(options.dataset)
    prompt, backbone = teacher.prompt, teacher.backbone
    limits = {"train": options.queries, "dev": None, "test": options.test_queries}
    queries = {split: training_queries(dataset, split, limit, 0) for split, limit in limits.items()}
    e_d = states(
        backbone,
        [prompt.document_ids(d.content) for d in dataset.corpus.values()],
        prompt.document_ids(""),
        "documents",
    )
    e_q = {
        split: states(backbone, [prompt.query_ids(q.text) for q in found], prompt.query_ids(""), f"{split} queries")
        for split, found in queries.items()
    }
    right = {split: _right(dataset, split, found) for split, found in queries.items()}
    found = {
        "dataset": dataset.name,
        "data": dataset.fingerprint,
        "model": teacher.fingerprint,
        "epochs": options.epochs,
    }
    found |= {"queries": {split: len(some) for split, some in queries.items()}, "runs": []}
    for variant, choice in VARIANTS.items():
        for seed in range(options.seeds):
            begin = time.perf_counter()
            torch.manual_seed(seed)
            inputs = {s: torch.cat([e_q[s][tap] for tap in choice.get("query", [FINAL])], 1) for s in queries}
            document = torch.cat([e_d[tap] for tap in choice.get("document", [FINAL])], 1)
            student = Student(inputs["train"], document, choice.get("rank"))
            dev = inputs["dev"], right["dev"]
            epoch = fit(student, inputs["train"], right["train"], dev, seed, options.epochs)
            run: dict[str, Any] = {"group": "taps", "variant": variant, "seed": seed, "best_epoch": epoch}
            run |= {s: " ".join(map(str, ranks(student, inputs[s], right[s]))) for s in ("dev", "test")}
            run |= {"seconds": round(time.perf_counter() - begin, 1)}
            found["runs"].append(run | {"time": datetime.now(UTC).isoformat(timespec="seconds")})
            write_json(options.output, found)
        last = found["runs"][-options.seeds :]
        dev_mrr, test_mrr = (np.mean([mrr(run, split) for run in last]) for split in ("dev", "test"))
        print(f"{variant:50s} MRR dev {dev_mrr:.3f} test {test_mrr:.3f}", flush=True)


def _right(dataset: Dataset, split: str, queries: list[Query]) -> Tensor:
    rows = [dataset.relevant(split, query.id) for query in queries]
    return torch.tensor([[float(id_ in row) for id_ in dataset.corpus] for row in rows])


if __name__ == "__main__":
    main()
