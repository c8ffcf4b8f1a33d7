"""A LoRA on the query side alone: the student learns to read queries, and documents and teacher stay as they are.

    python experiments/query_lora.py MODEL DATASET -o FOLDER --report REPORT [--tokens 500000] [--join REPORT]

The trained student is the start. Adapters on the upper layers are in use while queries are read, and switched off for
documents and for the teacher, so that an index stays valid and one model in memory still serves both. What is learnt
is each query's labels, by a softmax over the whole corpus: one backward pass a query, not one a pair. The predictor
learns along. The budget counts the tokens of queries read; the best state by MRR on dev is kept. Needs the extras
`train` and `eval`.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import given, save_report
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from rabtriever import Dataset, Retriever
from rabtriever.data import Query
from rabtriever.data.dataset import sample
from rabtriever.evaluation import StudentSystem, evaluate
from rabtriever.files import write_json
from rabtriever.losses import label_cross_entropy
from rabtriever.progress import on_stderr


class QuerySide:
    """A student whose queries are read with adapters and its documents without; an encoder for ``evaluate``."""

    def __init__(self, student: Retriever, dataset: Dataset, rank: int, freeze_layers: int) -> None:
        self.student, self.backbone = student, student.reranker.backbone
        self.ids = list(dataset.corpus)
        self.documents = torch.tensor(student.encode_document([d.content for d in dataset.corpus.values()]))
        upper = {module for layer in self.backbone.layers[freeze_layers:] for module in layer.modules()}
        named = self.backbone.model.named_modules()
        names = [name for name, module in named if module in upper and isinstance(module, nn.Linear)]
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
        self.adapted: PeftModel = get_peft_model(self.backbone.model, lora)
        self.adapters = [p for p in self.adapted.parameters() if p.requires_grad]

    def scores(self, ids: Sequence[list[int]]) -> Tensor:
        """Log-odds of queries with the whole corpus, ``(b, n)``, with gradients."""
        with torch.autocast("cpu", torch.bfloat16):
            states = self.backbone.forward_alike(ids)
        folded = self.student.predictor.fold(states.float(), self.student.reranker.rows.direction)
        return folded @ self.documents.T

    def encode_document(self, texts: list[str]) -> NDArray[np.float32]:
        """As before the training."""
        with self.adapted.disable_adapter():
            return self.student.encode_document(texts)

    def encode_query(self, texts: list[str]) -> NDArray[np.float32]:
        """With the adapters."""
        return self.student.encode_query(texts)

    def similarity(self, queries: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Log-odds ``(m, n)``."""
        return self.student.similarity(queries, documents)

    def state(self) -> list[Tensor]:
        """All that is trained, copied."""
        return [p.detach().clone() for p in (*self.adapters, *self.student.predictor.parameters())]

    def restore(self, state: list[Tensor]) -> None:
        """Go back to a state."""
        for parameter, kept in zip((*self.adapters, *self.student.predictor.parameters()), state, strict=True):
            parameter.data.copy_(kept)


def batches(lengths: list[int], size: int, tokens: int, seed: int) -> Iterator[list[int]]:
    """Rows of queries of similar length, until so many tokens are read; every query once before any comes again."""
    rng, read = np.random.default_rng(seed), 0
    while True:
        order = rng.permutation(len(lengths))
        groups = [order[start : start + 8 * size] for start in range(0, len(order), 8 * size)]
        for group in groups:
            rows = sorted(group.tolist(), key=lambda row: lengths[row])
            parts = [rows[start : start + size] for start in range(0, len(rows), size)]
            for place in rng.permutation(len(parts)):
                if read >= tokens:
                    return
                read += sum(lengths[row] for row in parts[place])
                yield parts[place]


def right_of(dataset: Dataset, split: str, queries: Sequence[Query], ids: list[str]) -> Tensor:
    """Which documents are labelled for each query, ``(m, n)`` bool."""
    rows = [dataset.relevant(split, query.id) for query in queries]
    return torch.tensor([[id_ in row for id_ in ids] for row in rows])


@torch.inference_mode()
def dev_mrr(side: QuerySide, queries: Sequence[Query], right: Tensor) -> float:
    """Over the whole corpus, ties counted against the student."""
    side.student.predictor.eval()
    scores = torch.tensor(side.encode_query([query.text for query in queries])) @ side.documents.T
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    return float((1 / (1 + ((scores >= best) & ~right).sum(1))).mean())


def train(side: QuerySide, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Train until the tokens are spent; leave the best state, which may be the start."""
    queries = sample(dataset.split("train"), options.queries, options.seed)
    dev = sample(dataset.split("dev"), options.dev_queries, 0)
    right, dev_right = (right_of(dataset, *of, side.ids) for of in (("train", queries), ("dev", dev)))
    ids = [side.student.reranker.prompt.query_ids(query.text) for query in queries]
    steps = list(batches([len(row) for row in ids], options.batch, options.tokens, options.seed))
    predictor = side.student.predictor
    groups = [
        {"params": side.adapters, "lr": options.learning_rate},
        {"params": list(predictor.parameters()), "lr": options.predictor_rate},
    ]
    optimizer, warm = torch.optim.AdamW(groups, weight_decay=0.01, fused=True), max(1, len(steps) // 10)

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, len(steps) - warm)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    every, begin = max(1, len(steps) // options.evaluations), time.perf_counter()
    found, losses = [dev_mrr(side, dev, dev_right)], []
    kept = side.state()
    with on_stderr().task("queries alone", total=len(steps), unit="steps") as task:
        for number, rows in enumerate(steps, 1):
            predictor.train()
            loss = label_cross_entropy(side.scores([ids[row] for row in rows]), right[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            task.advance(1)
            task.note(f"loss {np.mean(losses[-10:]):.3f}, dev MRR {found[-1]:.3f}")
            if number % every == 0 or number == len(steps):
                found.append(dev_mrr(side, dev, dev_right))
                if found[-1] > max(found[:-1]):
                    kept = side.state()
                    side.adapted.save_pretrained(options.output / "adapter")
                    predictor.save(options.output / "predictor.safetensors")
    side.restore(kept)
    predictor.eval()
    return {
        "settings": given(options),
        "data": dataset.fingerprint,
        "student": side.student.path,
        "steps": len(steps),
        "tokens": sum(len(ids[row]) for rows in steps for row in rows),
        "dev_mrr": found,
        "loss": [round(float(np.mean(losses[i : i + every])), 4) for i in range(0, len(losses), every)],
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the student to start from")
    parser.add_argument("dataset")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a folder for adapter and predictor")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--join", type=Path, help="an earlier report, whose systems stand first")
    parser.add_argument("--queries", type=int, default=None, help="of the training queries, so many")
    parser.add_argument("--tokens", type=int, default=500_000, help="tokens of queries to read")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--predictor-rate", type=float, default=1e-4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--freeze-layers", type=int, default=12)
    parser.add_argument("--evaluations", type=int, default=4)
    parser.add_argument("--dev-queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.output.mkdir(parents=True, exist_ok=True)
    dataset, student = Dataset.load(options.dataset), Retriever.from_pretrained(options.model)
    side = QuerySide(student, dataset, options.rank, options.freeze_layers)
    training = train(side, dataset, options)
    write_json(options.output / "training.json", training)
    print(training["dev_mrr"], flush=True)
    system = StudentSystem(side, "student, LoRA on the query side")
    save_report(evaluate({"query-lora": system}, dataset, progress=on_stderr()), options.report, options.join)


if __name__ == "__main__":
    main()
