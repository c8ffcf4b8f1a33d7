"""Online time of one query against the documents' length and their number: the paper's Figure 4, measured in one run.

    python experiments/complexity.py [--base smollm2-135m] [-o experiments/results/complexity.json]

Times do not depend on what the weights have learnt, so the base model and a predictor at its start stand for a trained
student. Four ways of answering the same query over the same documents:

- ``teacher``: document and query read together, nothing kept (Eq. 5);
- ``teacher, prefixes kept``: the documents' keys and values are in memory, only the query's tokens are computed;
- ``student, document by document``: the paper's student (Eq. 14), the predictor's product and the answer rows for each;
- ``student, folded``: one inner product for each document.

Rounds are interleaved and the median is taken. What lengths and numbers cost is given as the exponent of a straight
line through the logarithms; a teacher's pass over L tokens is a sum of parts linear and quadratic in L, so it lies
between the two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from rabtriever import Dataset, Reranker, Retriever
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.prompt import PromptConfig

QUERY = "The cat knocked over my juice, and guests arrive in ten minutes."
Ways = dict[str, Callable[[], object]]


def texts(student: Retriever, number: int, length: int) -> list[str]:
    """So many different texts of so many tokens each, cut from the example data's own words."""
    example = Dataset.example()
    words = " ".join([*(q.text for q in example.queries.values()), *(d.content for d in example.corpus.values())])
    tokenizer = student.reranker.backbone.tokenizer
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(ids) - length, number)
    return [f"{place} {tokenizer.decode(ids[start : start + length - 2])}" for place, start in enumerate(starts)]


def ways(student: Retriever, documents: list[str], number: int) -> Ways:
    """What is timed; all that a system has before the query comes is computed here.

    Beyond the documents given, the students' vectors are repeated, and the teacher is left out.
    """
    reranker, predictor = student.reranker, student.predictor
    e_d = reranker.document_states(documents)
    e_d = e_d.repeat(-(-number // len(e_d)), 1)[:number].contiguous()
    with torch.inference_mode():
        vectors = predictor.document(e_d).numpy()

    def plain() -> None:
        reranker.forget()
        reranker.score(QUERY, documents)

    @torch.inference_mode()
    def paper() -> torch.Tensor:
        predicted = predictor.predict(reranker.query_states([QUERY]))[0]
        logits = [reranker.rows.logits(predictor.combine(predicted, predictor.document(e[None]))) for e in e_d]
        return torch.cat(logits)

    def folded() -> np.ndarray:
        return vectors @ student.encode_query([QUERY])[0]

    out: Ways = {"student, document by document": paper, "student, folded": folded}
    if number == len(documents):
        # The second leaves behind what the first needs.
        out = {"teacher, prefixes kept": lambda: reranker.score(QUERY, documents), "teacher": plain, **out}
    return out


def milliseconds(chosen: Ways, rounds: int) -> dict[str, float]:
    """The median time of each way; each comes once a round, so that a busy moment meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(rounds + 1):
        for name, call in chosen.items():
            start = time.perf_counter()
            call()
            if number:  # the first round warms up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def exponents(sizes: list[int], rows: list[dict[str, float]]) -> dict[str, float]:
    """The slope of log time over log size, of each way that was measured at more than one size."""
    out = {}
    for name in rows[0]:
        measured = [(np.log(size), np.log(row[name])) for size, row in zip(sizes, rows, strict=True) if name in row]
        if len(measured) > 1:
            out[name] = round(float(np.polyfit(*zip(*measured, strict=True), 1)[0]), 3)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "complexity.json")
    parser.add_argument("--lengths", default="16,32,64,128,256,512,1024")
    parser.add_argument("--numbers", default="8,32,128,512,2048,8192")
    parser.add_argument("--documents", type=int, default=8, help="how many, where their length varies")
    parser.add_argument("--length", type=int, default=16, help="how long, where their number varies")
    parser.add_argument("--most", type=int, default=128, help="so many documents are read, and no more by the teacher")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lengths, numbers = ([int(part) for part in given.split(",")] for given in (options.lengths, options.numbers))
    prompt = PromptConfig(max_document_tokens=max(lengths) + 8)
    teacher = Reranker.from_pretrained(options.base, prompt=prompt)
    student = Retriever(teacher, Predictor(teacher.backbone.hidden_size, PredictorConfig(rank=None)))
    by_length, by_number = [], []
    for length in lengths:
        by_length.append(
            milliseconds(ways(student, texts(student, options.documents, length), options.documents), options.rounds)
        )
        print(f"{options.documents} documents of {length} tokens: {by_length[-1]}", flush=True)
    for number in numbers:
        chosen = ways(student, texts(student, min(number, options.most), options.length), number)
        by_number.append(milliseconds(chosen, options.rounds))
        print(f"{number} documents of {options.length} tokens: {by_number[-1]}", flush=True)
    report = {
        "base": options.base,
        "dtype": str(teacher.backbone.dtype).removeprefix("torch."),
        "query": QUERY,
        "lengths": {"documents": options.documents, "sizes": lengths, "ms": by_length},
        "numbers": {"length": options.length, "sizes": numbers, "ms": by_number},
        "exponents": {"length": exponents(lengths, by_length), "number": exponents(numbers, by_number)},
    }
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["exponents"], indent=1))


if __name__ == "__main__":
    main()
