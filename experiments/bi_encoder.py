"""A bi-encoder on the same backbone and training queries, by sentence-transformers: what the student has to beat.

    python experiments/bi_encoder.py DATASET -o FOLDER [--learning-rate 2e-4] [--tokens 600000] [--base smollm2-135m]
    rabtriever evaluate MODEL DATASET --systems student,dense:FOLDER

RepLLaMA's recipe: the state of an end token appended to the text, InfoNCE over the documents of the batch, in which no
text occurs twice. With --prompted a line that asks for the next text (behind queries) or for this one (behind
documents) stands in place of the end token, as in LLaMA2Vec's NEXT and SELF, without its training on texts alone. With
--words the texts stand in the words that a settings file's student reads them in. With --whole-corpus each query meets
all documents, which a step reads once: for a corpus of a few. The lowest layers stay as they are, as in stage I, and
the budget counts the tokens of queries and documents read. The best state by MRR@10 on dev is kept. Needs the extra
`eval`, and `datasets`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from baselines import plain_base, trainer_settings
from datasets import Dataset as Table
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import BatchSamplers
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Router, Transformer
from sentence_transformers.util import batch_to_device
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from rabtriever import Dataset
from rabtriever.base_models import resolve_base
from rabtriever.losses import label_cross_entropy
from rabtriever.prompt import Prompt, PromptConfig


@dataclass(frozen=True)
class Words:
    """What stands before and behind the texts of each side: where there are no endings, an end token."""

    prompts: dict[str, str]
    endings: dict[str, str] | None = None

    @classmethod
    def of(cls, settings: Path, base: str) -> Words:
        """Those that a student reads texts in by a file of settings."""
        tokenizer = AutoTokenizer.from_pretrained(resolve_base(base))
        parts = Prompt(tokenizer, PromptConfig(**yaml.safe_load(settings.read_text())["prompt"])).parts
        text = tokenizer.decode
        return cls(
            {
                "query": text(parts.query_head) + parts.query_space,
                "document": text(parts.document_head) + parts.document_space,
            },
            {"query": text(parts.query_tail), "document": text(parts.document_tail)},
        )


END = Words({"query": "query: ", "document": "passage: "})
NEXT = replace(END, endings={"query": "\nThe text that comes next:", "document": "\nThe same text once more:"})


def build(base: str, max_tokens: int, freeze_layers: int, keep_end: bool, words: Words) -> SentenceTransformer:
    """The backbone with an end token or further words behind every text; the last state is the embedding."""
    with plain_base(base) as plain:
        sides = [Transformer(str(plain), max_seq_length=max_tokens) for _ in words.endings or (None,)]
    endings = words.endings.values() if words.endings else (sides[0].tokenizer.eos_token,)
    for side, ending in zip(sides, endings, strict=True):
        side.model = sides[0].model  # one set of weights for queries and documents
        _end_with(side.tokenizer, ending, keep_end)
    model = sides[0].model
    model.config.use_cache = False
    for part in (model.get_input_embeddings(), *model.layers[:freeze_layers]):
        part.requires_grad_(False)
    first = Router.for_query_document([sides[0]], [sides[1]]) if words.endings else sides[0]
    pooling = Pooling(model.config.hidden_size, pooling_mode="lasttoken")
    return SentenceTransformer(modules=[first, pooling], prompts=words.prompts, similarity_fn_name="cosine")


def _end_with(tokenizer: Any, ending: str, keep_end: bool) -> None:
    """Let a tokenizer put this behind every text, which loses its own start or end where it is too long."""
    ids = tokenizer.encode(ending, add_special_tokens=False)
    tokenizer.truncation_side = "left" if keep_end else "right"
    last = {"id": "ENDING", "ids": ids, "tokens": tokenizer.convert_ids_to_tokens(ids)}
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="$A ENDING", special_tokens=[last])


def _shuffled(items: Sequence[Any]) -> list[Any]:
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0)).tolist()
    return [items[place] for place in order]


def pairs(dataset: Dataset, queries: int | None) -> Table:
    """A row for each query and right document."""
    found = [(q, d) for q in dataset.split("train") for d in sorted(dataset.relevant("train", q.id))]
    chosen = _shuffled(found)[:queries]
    return Table.from_list([{"anchor": q.text, "positive": dataset.corpus[d].content} for q, d in chosen])


def labelled(dataset: Dataset, queries: int | None) -> Table:
    """A row for each query, with every document of the corpus marked right or wrong."""
    rows = []
    for query in _shuffled(dataset.split("train"))[:queries]:
        right = set(dataset.relevant("train", query.id))
        rows.append({"anchor": query.text, "label": [float(id_ in right) for id_ in dataset.corpus]})
    return Table.from_list(rows)


class WholeCorpusLoss(torch.nn.Module):
    """Each query's right documents against the whole corpus, which a step reads once."""

    def __init__(self, model: SentenceTransformer, documents: list[str], scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale
        self.documents = model.preprocess([model.prompts["document"] + text for text in documents], task="document")

    def forward(self, features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
        """Labels ``(n, documents)``, 1 where right."""
        (queries,) = features
        documents = batch_to_device(dict(self.documents), labels.device)
        e_q, e_d = (
            torch.nn.functional.normalize(self.model(part)["sentence_embedding"].float(), dim=1)
            for part in (queries, documents)
        )
        return label_cross_entropy(self.scale * e_q @ e_d.T, labels > 0)


def _tokens(model: SentenceTransformer, side: str, texts: list[str]) -> float:
    """The mean length of the texts as they are read."""
    mask = model.preprocess([model.prompts[side] + text for text in texts], task=side)["attention_mask"]
    return float(mask.sum()) / len(texts)


def dev_evaluator(
    dataset: Dataset, queries: int, documents: int | None, prompts: dict[str, str]
) -> InformationRetrievalEvaluator:
    """Of the documents those that are right for one of the queries, and so many others."""
    chosen = dataset.split("dev")[:queries]
    right = {q.id: set(dataset.relevant("dev", q.id)) for q in chosen}
    searched = set().union(*right.values())
    searched.update(_shuffled([id_ for id_ in dataset.corpus if id_ not in searched])[:documents])
    return InformationRetrievalEvaluator(
        {q.id: q.text for q in chosen},
        {i: document.content for i, document in dataset.corpus.items() if i in searched},
        right,
        name="dev",
        query_prompt=prompts["query"],
        corpus_prompt=prompts["document"],
        show_progress_bar=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--tokens", type=int, default=600_000, help="tokens of queries and documents to read")
    parser.add_argument("--queries", type=int, default=None)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--whole-corpus", action="store_true", help="each query meets all documents")
    parser.add_argument("--scale", type=float, default=20.0, help="inverse temperature of the cosine")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--keep-end", action="store_true", help="longer queries lose their start, not their end")
    frame = parser.add_mutually_exclusive_group()
    frame.add_argument("--prompted", action="store_true", help="texts end with a prompt, not with an end token")
    frame.add_argument("--words", type=Path, metavar="YAML", help="texts as these settings' student reads them")
    parser.add_argument("--freeze-layers", type=int, default=12)
    parser.add_argument("--evaluations", type=int, default=6)
    parser.add_argument("--dev-queries", type=int, default=100)
    parser.add_argument("--dev-documents", type=int, help="among so many that are right for none of these; default all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    dataset = Dataset.load(options.dataset)
    words = NEXT if options.prompted else Words.of(options.words, options.base) if options.words else END
    model = build(options.base, options.max_tokens, options.freeze_layers, options.keep_end, words)
    table = (labelled if options.whole_corpus else pairs)(dataset, options.queries)
    texts = [document.content for document in dataset.corpus.values()]
    sides = {"anchor": "query"} if options.whole_corpus else {"anchor": "query", "positive": "document"}
    length = options.batch * sum(_tokens(model, side, table[column]) for column, side in sides.items())
    if options.whole_corpus:
        length += len(texts) * _tokens(model, "document", texts)
    steps = round(options.tokens / length)
    print(f"{len(table)} rows, {steps} steps of {length:.0f} tokens", flush=True)
    evaluator = dev_evaluator(dataset, options.dev_queries, options.dev_documents, words.prompts)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(options.output / "runs"),
        **trainer_settings(options, steps, "eval_dev_cosine_mrr@10"),
        prompts={column: words.prompts[side] for column, side in sides.items()},
        router_mapping=sides if words.endings else None,
        batch_sampler=BatchSamplers.BATCH_SAMPLER if options.whole_corpus else BatchSamplers.NO_DUPLICATES,
    )
    begin = time.perf_counter()
    loss: torch.nn.Module
    if options.whole_corpus:
        loss = WholeCorpusLoss(model, texts, options.scale)
    else:
        loss = MultipleNegativesRankingLoss(model, scale=options.scale)
    trainer = SentenceTransformerTrainer(model, arguments, train_dataset=table, loss=loss, evaluator=evaluator)
    trainer.train()
    model.save_pretrained(str(options.output))
    history = [
        entry["eval_dev_cosine_mrr@10"] for entry in trainer.state.log_history if "eval_dev_cosine_mrr@10" in entry
    ]
    report = {
        "options": {name: str(value) for name, value in vars(options).items() if name != "output"},
        "data": dataset.fingerprint,
        "steps": steps,
        "dev_mrr": history,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    (options.output / "training.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
