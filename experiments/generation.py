"""Do retrieved strategies help to answer? ESConv to its end (the paper's appendix B.3).

    python experiments/generation.py MODEL DATA/esconv -o experiments/results/generation-esconv.json [--queries 200]

The student chooses a support strategy, the base model answers under it, and the supporter's actual reply is the
reference: the line that follows in the next query of the same dialogue. Four conditions: no strategy, one drawn at
random, the student's, the labelled one. Two measures: the reference's log-likelihood per token under the base model
(what the strategy tells about the reply, free of the luck of one generation), and chrF of the greedy answer. Neither
says whether an answer would help anybody: a reply may be good and unlike the reference. Needs nltk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nltk.translate.chrf_score import sentence_chrf
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from rabtriever import Dataset, Retriever
from rabtriever.base_models import resolve_base
from rabtriever.data import Query
from rabtriever.data.dataset import sample
from rabtriever.files import write_json
from rabtriever.progress import on_stderr

TASK = "Here is a conversation between a person seeking support and a supporter.\n\n{dialogue}\n\n"
PLAIN = "Write the supporter's next reply, in one or two sentences."
GUIDED = "Write the supporter's next reply, in one or two sentences, by this strategy: {strategy}"
SUPPORTER = "Supporter: "
CONDITIONS = ("none", "random", "retrieved", "labelled")


def references(dataset: Dataset, split: str) -> dict[str, str]:
    """Query id -> the supporter's reply, for those whose dialogue goes on in a later query."""
    queries = dataset.split(split)
    found = {}
    for query, following in itertools.pairwise(queries):
        if query.id.rpartition("-")[0] != following.id.rpartition("-")[0]:
            continue
        last, lines = query.text.splitlines()[-1], following.text.splitlines()
        place = max((i for i, line in enumerate(lines[:-1]) if line == last), default=None)
        if place is not None and lines[place + 1].startswith(SUPPORTER):
            found[query.id] = lines[place + 1].removeprefix(SUPPORTER).strip()
    return {id_: reply for id_, reply in found.items() if len(reply.split()) >= 3}


def strategies(model: str, dataset: Dataset, queries: Sequence[Query], seed: int) -> dict[str, list[str | None]]:
    """For each condition and query the id of the strategy to answer by."""
    student, ids = Retriever.from_pretrained(model), list(dataset.corpus)
    documents = student.encode_document([document.content for document in dataset.corpus.values()])
    scores = student.similarity(student.encode_query([query.text for query in queries]), documents)
    drawn = np.random.default_rng(seed).integers(len(ids), size=len(queries))
    return {
        "none": [None] * len(queries),
        "random": [ids[i] for i in drawn],
        "retrieved": [ids[i] for i in scores.argmax(1)],
        "labelled": [min(dataset.relevant("test", query.id)) for query in queries],
    }


class Answerer:
    """The base model, as it is: how likely a reply is to it, and what it replies itself."""

    def __init__(self, base: str) -> None:
        folder = resolve_base(base)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def prompt(self, query: Query, strategy: str | None) -> list[int]:
        """The ids of what it is asked."""
        asked = PLAIN if strategy is None else GUIDED.format(strategy=strategy)
        message = [{"role": "user", "content": TASK.format(dialogue=query.text) + asked}]
        text = self.tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def log_likelihood(self, prompts: Sequence[list[int]], reply: str) -> list[float]:
        """Nats per token of one reply behind each prompt, ``(n,)``."""
        ids = list(self.tokenizer(reply, add_special_tokens=False)["input_ids"])
        inputs = self._padded([prompt + ids for prompt in prompts])
        logits = self.model(**inputs, logits_to_keep=len(ids) + 1).logits[:, :-1].float()
        right = torch.tensor(ids).expand(len(prompts), -1)
        return logits.log_softmax(-1).gather(2, right[..., None])[..., 0].mean(1).tolist()

    @torch.inference_mode()
    def answers(self, prompts: Sequence[list[int]], tokens: int) -> list[str]:
        """Its own greedy reply to each prompt."""
        inputs = self._padded(prompts)
        pad = self.tokenizer.pad_token_id
        out = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=pad)
        texts = self.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip().removeprefix(SUPPORTER).strip() for text in texts]

    def _padded(self, rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        return dict(self.tokenizer.pad({"input_ids": list(rows)}, padding_side="left", return_tensors="pt"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the student, trained on ESConv")
    parser.add_argument("dataset")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset, begin = Dataset.load(options.dataset), time.perf_counter()
    replies = references(dataset, "test")
    queries = sample([query for query in dataset.split("test") if query.id in replies], options.queries, options.seed)
    chosen = strategies(options.model, dataset, queries, options.seed)
    described = _described(Path(options.dataset))
    answerer = Answerer(options.base)
    found: dict[str, dict[str, dict[str, Any]]] = {
        name: {"strategy": {}, "log_likelihood": {}, "chrf": {}} for name in CONDITIONS
    }
    with on_stderr().task("answering", total=len(queries), unit="dialogues") as task:
        for place, query in enumerate(queries):
            ids = [chosen[name][place] for name in CONDITIONS]
            prompts = [answerer.prompt(query, None if id_ is None else described[id_]) for id_ in ids]
            likelihood = answerer.log_likelihood(prompts, replies[query.id])
            answers = answerer.answers(prompts, options.tokens)
            for row, name in enumerate(CONDITIONS):
                found[name]["strategy"][query.id] = ids[row]
                found[name]["log_likelihood"][query.id] = round(likelihood[row], 5)
                score = 100 * sentence_chrf(replies[query.id], answers[row])
                found[name]["chrf"][query.id] = round(score, 3)
            task.advance(1)
    about = {"dataset": dataset.name, "data": dataset.fingerprint, "base": options.base, "seed": options.seed}
    write_json(options.output, {**about, "seconds": round(time.perf_counter() - begin, 1), "per_query": found})


def _described(folder: Path) -> dict[str, str]:
    """Each strategy's name and, where the dataset has a file of them, its definition."""
    file = folder / "corpus.described.jsonl"
    lines = (file if file.exists() else folder / "corpus.jsonl").read_text().splitlines()
    documents = [json.loads(line) for line in lines if line.strip()]
    return {d["_id"]: ": ".join(part for part in (d.get("title", ""), d["text"]) if part) for d in documents}


if __name__ == "__main__":
    main()
