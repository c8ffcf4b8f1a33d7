"""One experiment from training to its results file; what is there already is not made again.

    python experiments/run.py NAME --data DATA [--models models] [--dry-run]
    make experiments-NAME DATA=DATA

A teacher and a student by ``experiments/NAME.yaml``, further students on the same teacher by other seeds, a bi-encoder
on the same backbone and queries for each learning rate, of which dev chooses one, then one evaluation of them all
beside BM25 and the untrained teacher, and one of each further student. Every step is a command, printed before it
runs. A training or distillation that was interrupted goes on where it stopped; the other steps start again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """What a YAML file of settings does not say.

    Attributes:
        dataset: The folder below DATA; below the models' folder, where it is merged of several.
        merged: The folders below DATA that it is merged of.
        merged_queries: Training queries of each of those at most.
        swapped: So many labelled queries with other things in them are trained on as well.
        fold: This part of the queries is tested instead of the dataset's own test split, which is part 0.
        systems: What is measured beside the bi-encoder.
        unseen: Folders below DATA, each with a split, that the trained model is tested on without training.
        seeds: Of the further students; the first one has seed 0, as its teacher.
        teacher_limit: Of the test queries, so many are drawn for those who read every pair; None is all.
        candidates: The pairs that those read: BM25's best so many of each query; None is all documents.
        tokens: What each bi-encoder reads.
        max_tokens: Its longest text.
        rates: Its learning rates.
        bi_encoder: Further options of ``bi_encoder.py``.
    """

    dataset: str
    seeds: tuple[int, ...] = (1, 2)
    teacher_limit: int | None = None
    candidates: int | None = None
    merged: tuple[str, ...] = ()
    merged_queries: int | None = None
    swapped: int = 0
    fold: int = 0
    systems: str = "student,teacher,untrained,bm25"
    unseen: tuple[tuple[str, str], ...] = ()
    tokens: int = 300_000
    max_tokens: int = 128
    rates: tuple[float, ...] = (1e-4, 3e-4)
    bi_encoder: str = ""


PARTS = 4
"""Of a cross-validation, the dataset's own test split among them."""

_FACTS = (("cranfield", "test"), ("scifact", "test"), ("msmarco-small", "test"), ("msmarco-small", "dl19"))

EXPERIMENTS = {
    "saycan": Experiment("saycan", swapped=3000, tokens=600_000),
    "saycan-next": Experiment("saycan", swapped=3000, systems="student,teacher", rates=()),
    **{
        f"saycan-fold{part}": Experiment(
            "saycan", swapped=3000, fold=part, systems="student,teacher,bm25", seeds=(), rates=()
        )
        for part in range(1, PARTS)
    },
    "esconv": Experiment(
        "esconv", teacher_limit=500, tokens=600_000, max_tokens=64, bi_encoder="--whole-corpus --keep-end"
    ),
    "esconv-next": Experiment("esconv", seeds=(), systems="student,teacher", rates=()),
    "alfred": Experiment("alfred", seeds=(), teacher_limit=40),
    "alfred-next": Experiment("alfred", seeds=(), teacher_limit=40, systems="student,teacher", rates=()),
    "general": Experiment(
        "general-data",
        seeds=(),
        teacher_limit=100,
        candidates=50,
        merged=("e-care", "entailmentbank"),
        unseen=_FACTS,
        rates=(),
    ),
    "facts": Experiment(
        "facts-data",
        seeds=(),
        teacher_limit=40,
        candidates=100,
        merged=("msmarco-small", "e-care", "entailmentbank"),
        merged_queries=1200,
        unseen=_FACTS,
        tokens=700_000,
        max_tokens=136,
        rates=(3e-4,),
        # To read all 30,116 documents for dev would take ten minutes each time.
        bi_encoder="--prompted --batch 32 --evaluations 3 --dev-queries 200 --dev-documents 1500",
    ),
}


class Steps:
    """The commands of one experiment, each with the file that shows it is done."""

    def __init__(self, name: str, data: Path, models: Path, results: Path) -> None:
        self.name, self.plan = name, EXPERIMENTS[name]
        self.settings = HERE / f"{name.removesuffix(f'-fold{self.plan.fold}')}.yaml"
        self.sources = [str(data / name) for name in self.plan.merged]
        self.folders = data
        self.tested = str((models if self.sources else data) / self.plan.dataset)
        if self.plan.fold:
            self.tested = str(models / f"{name}-data")
        self.data = str(models / f"{Path(self.tested).name}-swapped") if self.plan.swapped else self.tested
        self.models, self.results = models, results
        self.model = models / name

    def __iter__(self) -> Iterator[tuple[Path, list[str]]]:
        if self.sources:
            merge = [sys.executable, str(HERE / "merge.py"), *self.sources, "-o", self.data]
            merge += [] if self.plan.merged_queries is None else ["--train", str(self.plan.merged_queries)]
            yield Path(self.data) / "corpus.jsonl", merge
        if self.plan.fold:
            deal = [sys.executable, str(HERE / "folds.py"), str(self.folders / self.plan.dataset), "-o", self.tested]
            deal += ["--parts", str(PARTS), "--part", str(self.plan.fold)]
            yield Path(self.tested) / "corpus.jsonl", deal
        if self.plan.swapped:
            swap = [sys.executable, str(HERE / "swap_words.py"), self.tested, "-o", self.data, "--labelled"]
            yield Path(self.data) / "corpus.jsonl", [*swap, "--queries", str(self.plan.swapped)]
        train = ["train", self.data, "-o", str(self.model), "--config", str(self.settings)]
        yield self.model / "config.json", _rabtriever(*train)
        for seed in self.plan.seeds:
            folder = self._seed(seed)
            distill = ["distill", str(self.model), self.data, "-o", str(folder), "--seed", str(seed)]
            yield folder / "config.json", _rabtriever(*distill, *self._distill_settings())
        for rate in self.plan.rates:
            yield self._bi_encoder(rate) / "training.json", self._train_bi_encoder(rate)
        yield self.result(), self._evaluate()
        for seed in self.plan.seeds:
            evaluate = ["evaluate", str(self._seed(seed)), self.tested, "--systems", "student"]
            yield self.result(f"-seed{seed}"), _rabtriever(*evaluate, "-o", str(self.result(f"-seed{seed}")))
        for folder, split in self.plan.unseen:
            target = self.results / f"zero-shot-{self.name}-{folder if split == 'test' else split}.json"
            evaluate = ["evaluate", str(self.model), str(self.folders / folder), "--split", split, *self._read_part()]
            systems = f"student,hybrid,bm25,teacher{self._best_bi_encoder()}"
            yield target, _rabtriever(*evaluate, "--systems", systems, "-o", str(target))

    def _seed(self, seed: int) -> Path:
        return self.models / f"{self.name}-seed{seed}"

    def _bi_encoder(self, rate: float) -> Path:
        return self.models / f"{self.name}-bi-encoder-{rate:g}"

    def result(self, suffix: str = "") -> Path:
        return self.results / f"{self.name}{suffix}.json"

    def _distill_settings(self) -> list[str]:
        """Stage III's settings alone: ``distill`` refuses those of stage I."""
        given: dict[str, Any] = yaml.safe_load(self.settings.read_text()).get("distill", {})
        return [part for key, value in _flat(given, "distill") for part in ("--set", f"{key}={json.dumps(value)}")]

    def _train_bi_encoder(self, rate: float) -> list[str]:
        settings = yaml.safe_load(self.settings.read_text())
        teacher: dict[str, Any] = settings.get("teacher", {})
        command = [sys.executable, str(HERE / "bi_encoder.py"), self.data, "-o", str(self._bi_encoder(rate))]
        command += ["--learning-rate", f"{rate:g}", "--tokens", str(self.plan.tokens)]
        command += ["--max-tokens", str(self.plan.max_tokens)]
        command += ["--freeze-layers", str(teacher.get("freeze_layers", 12))]
        # as many labelled queries as teacher and student see; of merged datasets all those that were drawn
        if "max_queries" in teacher and self.plan.merged_queries is None:
            student: dict[str, Any] = settings.get("distill", {})
            seen = student.get("max_queries", 0) + student.get("labelled_queries", 0)
            command += ["--queries", str(max(teacher["max_queries"], seen))]
        return [*command, *shlex.split(self.plan.bi_encoder)]

    def _evaluate(self) -> list[str]:
        systems = self.plan.systems + self._best_bi_encoder()
        command = ["evaluate", str(self.model), self.tested, "--systems", systems, *self._read_part()]
        return _rabtriever(*command, "-o", str(self.result()))

    def _best_bi_encoder(self) -> str:
        """The one that dev chooses, as a further system; nothing where none is trained."""
        return f",dense:{max(map(self._bi_encoder, self.plan.rates), key=_dev_mrr)}" if self.plan.rates else ""

    def _read_part(self) -> list[str]:
        """What the teacher is spared."""
        limits = (("--teacher-limit", self.plan.teacher_limit), ("--candidates", self.plan.candidates))
        return [part for option, value in limits if value is not None for part in (option, str(value))]


def _rabtriever(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rabtriever", *arguments]


def _flat(settings: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value


def _dev_mrr(folder: Path) -> float:
    """The best MRR that a bi-encoder reached on dev; below all others where it has not been trained."""
    report = folder / "training.json"
    return max(json.loads(report.read_text())["dev_mrr"]) if report.exists() else -1.0


def _note_training(model: Path, target: Path) -> None:
    """Keep beside the results what the model's folder says of its training."""
    training = json.loads((model / "config.json").read_text())["training"]
    stages = {stage: training[stage] for stage in ("teacher", "distill")}
    for said in stages.values():
        said.pop("history", None)
    target.write_text(json.dumps(stages, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, required=True, help="a folder of datasets in BEIR layout")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--dry-run", action="store_true", help="print the commands alone")
    options = parser.parse_args()
    steps = Steps(options.name, options.data, options.models, options.results)
    for made, command in steps:
        if made.exists():
            print(f"there already: {made}", flush=True)
            continue
        print(shlex.join(command), flush=True)
        if not options.dry_run:
            subprocess.run(command, check=True)
    if not options.dry_run:
        _note_training(steps.model, steps.result("-training"))


if __name__ == "__main__":
    main()
