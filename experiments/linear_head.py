"""A reranker with a linear scoring head on the same backbone and training queries, by sentence-transformers.

    python experiments/linear_head.py DATASET -o FOLDER --report REPORT [--learning-rate 2e-4] [--limit N]

RankLLaMA's recipe: query, document and an end token, whose state one new row turns into a score; softmax
cross-entropy of the right document against wrong ones drawn at random. Lower layers, queries, wrong documents and steps
are those of our stage I; the best state by MRR on dev is kept. Needs the extra `eval`, and `datasets`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from baselines import given, plain_base, save_report, trainer_settings
from datasets import Dataset as Table
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
from sentence_transformers.cross_encoder.losses import ListNetLoss
from tokenizers.processors import TemplateProcessing

from rabtriever import Dataset
from rabtriever.data import Query
from rabtriever.data.dataset import sample
from rabtriever.evaluation import TeacherSystem, evaluate
from rabtriever.files import write_json
from rabtriever.progress import on_stderr
from rabtriever.training.candidates import WrongDocuments

_SURE = 100.0
"""ListNet puts its labels through a softmax: so large a one makes it the right document's cross-entropy."""


class LinearHead:
    """Scores pairs, each read by itself; a reranker for ``evaluate``."""

    def __init__(self, model: CrossEncoder, max_query_tokens: int, keep_end: bool) -> None:
        self.model, self._limit, self._keep_end = model, max_query_tokens, keep_end

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Scores ``(n,)``."""
        texts = [(self.query(query), f"document: {document}") for query, document in pairs]
        with torch.autocast("cpu", torch.bfloat16):
            found = self.model.predict(texts, batch_size=16, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    def query(self, text: str) -> str:
        """The query as it is read; of a long one an end is left out."""
        tokenizer = self.model.tokenizer
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) > self._limit:
            text = tokenizer.decode(ids[-self._limit :] if self._keep_end else ids[: self._limit])
        return f"query: {text}\n"


def build(base: str, max_tokens: int, freeze_layers: int) -> CrossEncoder:
    with plain_base(base, headless=True) as plain:
        model = CrossEncoder(str(plain), num_labels=1, max_length=max_tokens)
    tokenizer, inner = model.tokenizer, model.model
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    inner.config.pad_token_id, inner.config.use_cache = tokenizer.pad_token_id, False
    end = tokenizer.eos_token
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    for part in (inner.get_input_embeddings(), *inner.base_model.layers[:freeze_layers]):
        part.requires_grad_(False)
    return model


def table(dataset: Dataset, split: str, queries: Sequence[Query], head: LinearHead, wrong: int) -> Table:
    """One right document and some wrong ones for each query."""
    rng = np.random.default_rng(0)
    others = WrongDocuments(dataset)
    rows: dict[str, list[object]] = {"query": [], "documents": [], "labels": []}
    for query in queries:
        right = sorted(dataset.relevant(split, query.id))[0]
        ids = [right, *others.draw(split, query, wrong, rng)]
        rows["query"].append(head.query(query.text))
        rows["documents"].append([f"document: {dataset.corpus[id_].content}" for id_ in ids])
        rows["labels"].append([_SURE] + [0.0] * (len(ids) - 1))
    return Table.from_dict(rows)


def train(head: LinearHead, dataset: Dataset, options: argparse.Namespace) -> dict[str, object]:
    queries = sample(dataset.split("train"), options.queries, options.seed)
    rows = table(dataset, "train", queries, head, options.wrong)
    dev = table(dataset, "dev", sample(dataset.split("dev"), options.dev_queries, 0), head, options.dev_wrong)
    samples = [
        {"query": row["query"], "positive": row["documents"][:1], "negative": row["documents"][1:]} for row in dev
    ]
    steps = round(options.epochs * len(rows) / options.batch)
    begin = time.perf_counter()
    trainer = CrossEncoderTrainer(
        head.model,
        CrossEncoderTrainingArguments(
            output_dir=str(options.output / "runs"),
            **trainer_settings(options, steps, "eval_dev_mrr@10"),
        ),
        train_dataset=rows,
        loss=ListNetLoss(head.model),
        evaluator=CrossEncoderRerankingEvaluator(samples, at_k=10, name="dev", show_progress_bar=False),
    )
    trainer.train()
    history = trainer.state.log_history
    return {
        "settings": given(options),
        "data": dataset.fingerprint,
        "steps": steps,
        "dev_mrr": [entry["eval_dev_mrr@10"] for entry in history if "eval_dev_mrr@10" in entry],
        "loss": [entry["loss"] for entry in history if "loss" in entry],
        "seconds": round(time.perf_counter() - begin, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the model's folder")
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--join", type=Path, help="an earlier report, whose systems stand first")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--queries", type=int, default=None, help="of the training queries, so many")
    parser.add_argument("--wrong", type=int, default=5, help="wrong documents for each query")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=2, help="queries a step")
    parser.add_argument("--max-query-tokens", type=int, default=128)
    parser.add_argument("--max-tokens", type=int, default=256, help="of a pair")
    parser.add_argument("--keep-end", action="store_true", help="longer queries lose their start, not their end")
    parser.add_argument("--freeze-layers", type=int, default=12)
    parser.add_argument("--evaluations", type=int, default=3)
    parser.add_argument("--dev-queries", type=int, default=32)
    parser.add_argument("--dev-wrong", type=int, default=15)
    parser.add_argument("--limit", type=int, default=None, help="answer so many of the test queries")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    dataset = Dataset.load(options.dataset)
    done = options.output / "training.json"
    base = str(options.output) if done.exists() else options.base
    head = LinearHead(
        build(base, options.max_tokens, options.freeze_layers), options.max_query_tokens, options.keep_end
    )
    if not done.exists():
        training = train(head, dataset, options)
        head.model.save_pretrained(str(options.output))
        write_json(done, training)
    system = TeacherSystem(head, "reranker with a linear head")
    report = evaluate({"linear-head": system}, dataset, teacher_limit=options.limit, progress=on_stderr())
    save_report(report, options.report, options.join)


if __name__ == "__main__":
    main()
