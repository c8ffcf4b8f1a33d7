"""An LLM that sees all documents in one prompt and names one (the paper's Figure 7): what needs no retrieval at all.

    python experiments/classifier.py DATASET -o REPORT [--queries 3360] [--learning-rate 2e-4] [--join REPORT]

The same base model as the teacher, fine-tuned on the letter of the right document; the documents keep their order and
their letters throughout, so that it may learn them by heart, and a step reads them once for all of its queries. It
ranks by the letters' logits. Documents that do not fit the model's positions together are out of its reach. With
``--queries 0`` it is measured as it is. The best state by MRR on dev is kept. Needs the extra `eval`.
"""

from __future__ import annotations

import argparse
import itertools
import string
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from baselines import given, save_report, trainer_settings
from torch import Tensor
from transformers import EvalPrediction, Trainer, TrainingArguments

from rabtriever import Dataset
from rabtriever.backbone import Backbone
from rabtriever.base_models import resolve_base
from rabtriever.data import Document, Query
from rabtriever.data.dataset import sample
from rabtriever.evaluation import evaluate
from rabtriever.files import write_json
from rabtriever.progress import on_stderr

TASK = "\nWith which of the documents can Query be appropriately responded? Answer with its letter."
_MARK = "@@"


class Prompt:
    """All documents, each with a letter, then the query; one token answers."""

    def __init__(self, tokenizer: Any, corpus: Mapping[str, Document], max_query_tokens: int, keep_end: bool) -> None:
        self._tokenizer, self._limit, self._keep_end = tokenizer, max_query_tokens, keep_end
        self.ids = list(corpus)
        letters, self.tokens = self._letters(len(self.ids))
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": _MARK}], add_generation_prompt=True, tokenize=False
        )
        before, after = chat.split(_MARK)
        listed = "".join(f"{letter}: {corpus[id_].content}\n" for letter, id_ in zip(letters, self.ids, strict=True))
        self._before, self._after = self._encode(f"{before}{listed}Query: "), self._encode(TASK + after)

    def __call__(self, query: str) -> list[int]:
        """The token ids; of a long query one end is left out."""
        ids = self._encode(query)
        ids = ids[-self._limit :] if self._keep_end else ids[: self._limit]
        return self._before + ids + self._after

    def _letters(self, count: int) -> tuple[list[str], list[int]]:
        """So many strings of one or two letters that are one token each."""
        found: dict[int, str] = {}
        pairs = map("".join, itertools.product(string.ascii_uppercase, string.ascii_letters))
        for letter in itertools.chain(string.ascii_uppercase, pairs):
            ids = self._encode(letter)
            if len(ids) == 1:
                found.setdefault(ids[0], letter)
            if len(found) == count:
                return list(found.values()), list(found)
        raise SystemExit(f"{count} documents, but only {len(found)} letters that are one token")

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


class Classifier:
    """Ranks by the logits of the letters; a system for ``evaluate``."""

    name = "classifier"

    def __init__(self, backbone: Backbone, prompt: Prompt) -> None:
        self.backbone, self.prompt = backbone, prompt

    def rank(self, queries: Sequence[Query], corpus: Mapping[str, Document], k: int) -> dict[str, dict[str, float]]:
        """Score every document for each query."""
        self.backbone.model.eval()
        out = {}
        for start in range(0, len(queries), 8):
            part = queries[start : start + 8]
            with torch.inference_mode():
                logits = letters(self.backbone, [self.prompt(query.text) for query in part], self.prompt.tokens)
            for query, row in zip(part, logits.tolist(), strict=True):
                out[query.id] = dict(zip(self.prompt.ids, row, strict=True))
        return out


class LetterTrainer(Trainer):
    """Cross-entropy over the letters alone; several right documents share their query's weight."""

    backbone: Backbone
    tokens: list[int]

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any) -> Any:
        right = inputs.pop("labels")
        logits = letters(self.backbone, inputs["ids"], self.tokens)
        loss = -(right * logits.log_softmax(-1)).sum(-1).div(right.sum(-1)).mean()
        return (loss, {"logits": logits}) if return_outputs else loss


def letters(backbone: Backbone, prompts: Sequence[Sequence[int]], tokens: list[int]) -> Tensor:
    """Logits of the letters behind each prompt; the documents, with which all of them start, are read once."""
    with torch.autocast(backbone.device.type, torch.bfloat16):
        return backbone.full_logits(backbone.forward_alike(prompts))[:, tokens]


def examples(dataset: Dataset, prompt: Prompt, split: str, queries: Sequence[Query]) -> list[dict[str, Any]]:
    rows = []
    for query in queries:
        right = set(dataset.relevant(split, query.id))
        rows.append({"ids": prompt(query.text), "labels": [float(id_ in right) for id_ in prompt.ids]})
    return rows


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"ids": [row["ids"] for row in rows], "labels": torch.tensor([row["labels"] for row in rows])}


def mrr(prediction: EvalPrediction) -> dict[str, float]:
    logits, right = np.asarray(prediction.predictions), np.asarray(prediction.label_ids) > 0
    best = np.where(right, logits, -np.inf).max(1, keepdims=True)
    return {"mrr": float((1 / (1 + (~right & (logits >= best)).sum(1))).mean())}


def train(backbone: Backbone, prompt: Prompt, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    model = backbone.model
    for part in (model.get_input_embeddings(), *backbone.layers[: options.freeze_layers]):
        part.requires_grad_(False)
    rows = examples(dataset, prompt, "train", sample(dataset.split("train"), options.queries, options.seed))
    dev = examples(dataset, prompt, "dev", sample(dataset.split("dev"), options.dev_queries, options.seed))
    steps = round(options.epochs * len(rows) / options.batch)
    print(f"{len(rows)} queries of {np.mean([len(row['ids']) for row in rows]):.0f} tokens, {steps} steps", flush=True)
    with TemporaryDirectory() as folder:
        trainer = LetterTrainer(
            model,
            TrainingArguments(
                output_dir=folder,
                **trainer_settings(options, steps, "mrr"),
                label_names=["labels"],
                remove_unused_columns=False,
            ),
            train_dataset=rows,
            eval_dataset=dev,
            data_collator=collate,
            compute_metrics=mrr,
        )
        trainer.backbone, trainer.tokens = backbone, prompt.tokens
        trainer.train()
    history = trainer.state.log_history
    return {
        "steps": steps,
        "tokens": round(options.epochs * sum(len(row["ids"]) for row in rows)),
        "dev_mrr": [entry["eval_mrr"] for entry in history if "eval_mrr" in entry],
        "loss": [entry["loss"] for entry in history if "loss" in entry],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--join", type=Path, help="an earlier report, whose systems stand first")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--queries", type=int, default=None, help="of the training queries, so many; 0 trains nothing")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-query-tokens", type=int, default=128)
    parser.add_argument("--keep-end", action="store_true", help="longer queries lose their start, not their end")
    parser.add_argument("--freeze-layers", type=int, default=12)
    parser.add_argument("--evaluations", type=int, default=4)
    parser.add_argument("--dev-queries", type=int, default=200)
    parser.add_argument("--limit", type=int, default=None, help="answer so many of the test queries")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    dataset = Dataset.load(options.dataset)
    base = resolve_base(options.base)
    backbone = Backbone.load(base, dtype="float32")
    prompt = Prompt(backbone.tokenizer, dataset.corpus, options.max_query_tokens, options.keep_end)
    system, name, begin = Classifier(backbone, prompt), "untrained-classifier", time.perf_counter()
    if options.queries != 0:
        training, name = train(backbone, prompt, dataset, options), "classifier"
        training |= {"settings": given(options), "data": dataset.fingerprint, "seconds": time.perf_counter() - begin}
        write_json(options.output.with_name(f"{options.output.stem}-training.json"), training)
    report = evaluate({name: system}, dataset, limit=options.limit, progress=on_stderr())
    save_report(report, options.output, options.join)


if __name__ == "__main__":
    main()
