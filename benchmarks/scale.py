"""A hundred thousand real texts: indexed with the real model, interrupted three times, searched end to end.

    rabtriever export general models/general-openvino --to openvino
    python benchmarks/scale.py models/general-openvino DATA/e-care DATA/entailmentbank DATA/msmarco-small --work scale \
        -o benchmarks/scale.json

The texts are those of the datasets' corpora; where they are fewer than asked for, they come again behind one of a few
openings ("On a cold morning: ..."), so that no two texts, and no two vectors, are the same. ``rabtriever index`` runs
as a process of its own and is killed (SIGKILL) when a quarter, a half and three quarters are stored; each time the same
command goes on. Then: what is stored is counted and verified, queries are answered one at a time, and the teacher
scores a sample of the documents, from which its time for all of them is extrapolated. The index stays in the work
folder.

``--quick`` is for the answers alone: each text of the datasets is encoded once, its repetitions get its vector with a
little noise, and nothing is killed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rabtriever import Dataset
from rabtriever.compiled import load_student
from rabtriever.index import Index
from rabtriever.index.corpus import Corpus

_OPENINGS = (
    "On a cold morning: ",
    "In a village by the sea: ",
    "As the teacher said, ",
    "According to an old book, ",
    "Before the storm came: ",
    "In the second chapter: ",
    "When asked again: ",
    "Late at night, in the kitchen: ",
    "As everybody here knows, ",
)
_POLL_SECONDS = 0.5


def texts(datasets: list[Dataset], count: int) -> Iterator[str]:
    """So many different texts."""
    found = list(dict.fromkeys(d.content for data in datasets for d in data.corpus.values() if d.content.strip()))
    for opening in ("", *_OPENINGS):
        for text in found[:count]:
            yield opening + text
        count -= min(count, len(found))


class Indexing:
    """One run of ``rabtriever index``, watched."""

    def __init__(self, model: str, corpus: Path, index: Path) -> None:
        command = [sys.executable, "-m", "rabtriever", "index", model, str(corpus), "-o", str(index), "--json"]
        self.index, self.peak, self._began = index, 0, time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def until(self, enough: Callable[[int], bool]) -> dict[str, Any]:
        """Wait for its end, or kill it once enough documents are stored."""
        watched = psutil.Process(self.process.pid)
        polls, stored = 0, 0
        while self.process.poll() is None:
            try:
                self.peak = max(self.peak, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            polls += 1
            if polls % 10 == 0 and (self.index / "index.json").exists():
                stored = count(self.index)
                if enough(stored):
                    self.process.kill()
            time.sleep(_POLL_SECONDS)
        out, _ = self.process.communicate()
        return {
            "seconds": time.perf_counter() - self._began,
            "stored": count(self.index),
            "peak_bytes": self.peak,
            "exit_code": self.process.returncode,
            **({"report": {k: v for k, v in json.loads(out).items() if k != "index"}} if out else {}),
        }


def count(index: Path) -> int:
    with Index.open(index) as opened:
        return opened.count


def build(model: str, corpus: Path, index: Path, documents: int) -> list[dict[str, Any]]:
    """Index, killed three times."""
    runs = []
    for share in (0.25, 0.5, 0.75, 2.0):
        runs.append(Indexing(model, corpus, index).until(lambda stored, least=share * documents: stored >= least))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    runs.append(Indexing(model, corpus, index).until(lambda _: False))  # nothing is left to do
    print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    return runs


class Repeating:
    """A student for whom a text behind an opening has nearly the vector that it has without."""

    def __init__(self, student: Any) -> None:
        self._student, self._known = student, dict[str, np.ndarray]()
        self._rng = np.random.default_rng(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._student, name)

    def encode_document(self, texts: list[str]) -> np.ndarray:
        plain = [self._without_opening(text) for text in texts]
        new = sorted({text for text in plain if text not in self._known}, key=len)
        if new:
            self._known.update(zip(new, self._student.encode_document(new), strict=True))
        vectors = np.stack([self._known[text] for text in plain])
        noise = self._rng.standard_normal(vectors.shape, dtype=np.float32)
        return vectors + 0.05 * vectors.std(axis=1, keepdims=True) * noise

    @staticmethod
    def _without_opening(text: str) -> str:
        return next((text.removeprefix(opening) for opening in _OPENINGS if text.startswith(opening)), text)


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{p}_ms": 1000 * float(np.percentile(seconds, p)) for p in (50, 95)}


def answer(index: Index, queries: list[str]) -> dict[str, Any]:
    """Query text in, ten documents out; and the part of it that is the language model's."""
    index.search(queries[0])
    whole, model = [], []
    for query in queries:
        began = time.perf_counter()
        index.search(query, k=10)
        whole.append(time.perf_counter() - began)
        began = time.perf_counter()
        index.student.encode_query([query])
        model.append(time.perf_counter() - began)
    tokens = [len(index.student.reranker.prompt.query_ids(query)) for query in queries]
    return {
        "queries": len(queries),
        "tokens_each": float(np.mean(tokens)),
        "search": percentiles(whole),
        "of which encoding": percentiles(model),
    }


def rerank(index: Index, query: str, sample: int) -> dict[str, Any]:
    """The teacher on some of the documents, and what that means for all of them."""
    step = max(1, index.count // sample)
    found = [text.content for place, text in enumerate(index.documents()) if place % step == 0][:sample]
    teacher = index.student.reranker
    teacher.score(query, found[:8])  # the model is loaded, and its kernels are made
    began = time.perf_counter()
    teacher.score(query, found)
    seconds = time.perf_counter() - began
    return {"documents": len(found), "seconds": seconds, "seconds_for_all": seconds * index.count / len(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a trained model, or what it was exported to")
    parser.add_argument("datasets", nargs="+", type=Path)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("scale"))
    parser.add_argument("--quick", action="store_true", help="encode each text once, and kill nothing")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    datasets = [Dataset.load(folder) for folder in options.datasets]
    options.work.mkdir(parents=True, exist_ok=True)
    corpus, place = options.work / "corpus.jsonl", options.work / "index"
    with corpus.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts(datasets, options.documents)):
            file.write(json.dumps({"id": f"t{number}", "text": text}) + "\n")
    report: dict[str, Any] = {"model": Path(options.model).name, "documents": options.documents}
    report["different_texts"] = len({d.content for data in datasets for d in data.corpus.values()})
    if options.quick:
        repeating = Repeating(load_student(options.model))
        with Index.create(place, repeating, exist_ok=True) as index:
            index.add(Corpus([corpus]), window=16)
            index.accelerate()
    else:
        report["runs"] = build(options.model, corpus, place, options.documents)
    with Index.open(place, load_student(options.model)) as index:
        checked = index.check()
        report["check"] = {"documents": index.count, "clean": checked.clean, "cache": checked.cache}
        asked = [query.text for data in datasets for query in data.split("test")]
        queries = [asked[place] for place in np.random.default_rng(0).permutation(len(asked))[: options.queries]]
        report["answers"] = answer(index, queries)
        report["teacher"] = rerank(index, queries[0], options.sample)
        whole = report["teacher"]["seconds_for_all"] * 1000
        report["teacher"]["times_the_search"] = whole / report["answers"]["search"]["p50_ms"]
    report["index_bytes"] = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    print(json.dumps(report, indent=1))
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
