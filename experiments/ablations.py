"""What each part of stage III is worth: one setting changed at a time, three seeds, on stored teacher outputs.

    python experiments/ablations.py MODEL DATASET --config experiments/NAME.yaml -o FILE

Each variant trains the predictor anew (seconds to minutes) and ranks the whole corpus for the queries of dev and of
test. Choose by dev; test is there to report. Seeds change the start and the order; the pairs are drawn once, except
where the student draws its own. The teacher is asked only for pairs that no earlier training has had from it. Every run
is written down at once, and none that is in the file is made again.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from ablation_report import hit, mrr
from ablation_variants import GROUPS

from rabtriever import Dataset, DistillConfig, Reranker
from rabtriever.files import write_json
from rabtriever.predictor import Predictor
from rabtriever.progress import SilentProgress, on_stderr
from rabtriever.training.candidates import training_queries
from rabtriever.training.distill import default_store, draw_labelled
from rabtriever.training.pairs import DevSet, PairSet
from rabtriever.training.predictor_loop import PredictorLoop
from rabtriever.training.teacher_outputs import TeacherOutputs

SPLITS = ("dev", "test")


class Study:
    """One teacher and one dataset, and the runs that are written down already."""

    def __init__(self, teacher: Reranker, dataset: Dataset, base: dict[str, Any], output: Path) -> None:
        self.teacher, self.dataset, self.base, self.output = teacher, dataset, base, output
        self.outputs = TeacherOutputs(teacher, default_store(), on_stderr())
        self._pairs: dict[tuple[Any, ...], PairSet] = {}
        about = {"dataset": dataset.name, "data": dataset.fingerprint, "model": teacher.fingerprint, "settings": base}
        self.found: dict[str, Any] = {**about, "queries": {s: len(dataset.split(s)) for s in SPLITS}, "runs": []}
        if output.exists():
            earlier = json.loads(output.read_text())
            differs = [key for key in about if earlier[key] != about[key]]
            if differs:
                raise SystemExit(f"{output} is about another {differs[0]}; move it away, or name another file")
            self.found["runs"] = earlier["runs"]

    def run(self, group: str, variant: str, changes: dict[str, Any], seed: int) -> dict[str, Any] | None:
        """Train and measure one variant, unless the file has it; None where it is the reference once more."""
        reference = _merged(self.base, GROUPS[group].reference)
        config = DistillConfig.model_validate(_merged(reference, changes))
        if changes and config == DistillConfig.model_validate(reference):
            return None
        settings = config.model_dump(mode="json")
        for run in self.found["runs"]:
            if (run["group"], run["variant"], run["seed"]) != (group, variant, seed):
                continue
            if DistillConfig.model_validate(run["config"]) == config:  # an older run lacks settings that came later
                return dict(run)
        begin, asked = time.perf_counter(), self.outputs.computed
        pairs, dev = self._pairs_of(config, seed), DevSet.of(self.dataset, self.outputs, config, 0)
        with TemporaryDirectory() as folder:
            loop = PredictorLoop(self.teacher, pairs, dev, config, seed, Path(folder), SilentProgress())
            report, predictor = loop.run(), loop.best_predictor()
        run = {"group": group, "variant": variant, "seed": seed, "config": settings}
        run |= {split: self._ranks(predictor, split) for split in SPLITS}
        run |= {key: report[key] for key in ("correlation", "effective_rank", "kl", "mse", "best_epoch", "pairs")}
        run |= {"teacher_passes": self.outputs.computed - asked, "seconds": round(time.perf_counter() - begin, 1)}
        run["time"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.found["runs"].append(run)
        write_json(self.output, self.found)
        return run

    def _pairs_of(self, config: DistillConfig, seed: int) -> PairSet:
        own = config.candidates.startswith("on-policy")  # it adds to its pairs while it trains
        every = config.every_position
        key = (config.candidates, config.max_queries, config.labelled_queries, every, seed if own else 0)
        if own or key not in self._pairs:
            queries = training_queries(self.dataset, "train", config.max_queries, 0)
            labelled = draw_labelled(self.dataset, queries, config, 0)
            self._pairs[key] = PairSet(self.dataset, queries, self.outputs, config.candidates, key[-1], labelled, every)
        return self._pairs[key]

    def _ranks(self, predictor: Predictor, split: str) -> str:
        """The place of each query's best right document in the whole corpus, ties counted against it."""
        queries = self.dataset.split(split)
        e_q = self.outputs.queries([query.text for query in queries])
        e_d = self.outputs.documents([document.content for document in self.dataset.corpus.values()])
        place = {document_id: i for i, document_id in enumerate(self.dataset.corpus)}
        with torch.inference_mode():
            folded = predictor.fold(e_q, self.teacher.rows.direction)
            scores = (folded @ predictor.document(e_d).T).numpy()
        ranks = []
        for row, query in zip(scores, queries, strict=True):
            right = [place[i] for i in self.dataset.relevant(split, query.id)]
            ranks.append(1 + int((np.delete(row, right) >= row[right].max()).sum()))
        return " ".join(map(str, ranks))  # one line, of which JSON would make thousands


def _merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with some of them changed; those of the predictor one by one."""
    out = {**settings, **changes}
    if "predictor" in changes:
        out["predictor"] = {**settings.get("predictor", {}), **changes["predictor"]}
    if out.get("label_weight") == 0:
        out["labelled_queries"] = 0  # they would have nothing to teach
    return out


def _line(variant: str, runs: list[dict[str, Any]]) -> str:
    cells = []
    for split in SPLITS:
        means = ((name, np.mean([of(run, split) for run in runs])) for name, of in (("hit@1", hit), ("MRR", mrr)))
        cells += [split, *(f"{name} {mean:.3f}" for name, mean in means)]
    correlation, seconds = (np.mean([run[key] for run in runs]) for key in ("correlation", "seconds"))
    return f"{variant:50s} {' '.join(cells)}   correlation {correlation:.2f}   {seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset")
    parser.add_argument("--config", type=Path, help="the experiment's YAML, whose part `distill` is the reference")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the reference")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--groups", default="default,paper", help=", ".join(GROUPS))
    parser.add_argument("--only", default="", help="beside the reference, variants whose name holds one of these")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    base = yaml.safe_load(options.config.read_text()).get("distill", {}) if options.config else {}
    base |= {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in options.set)}
    base.pop("query_side", None)  # predictors alone are studied here
    dataset = Dataset.example() if options.dataset == "example" else Dataset.load(options.dataset)
    study = Study(Reranker.from_pretrained(options.model), dataset, base, options.output)
    for group in options.groups.split(","):
        print(f"-- {group}: {GROUPS[group].about}", flush=True)
        for variant, changes in {"reference": {}, **GROUPS[group].variants}.items():
            if variant != "reference" and not any(part in variant for part in options.only.split(",")):
                continue
            made = [study.run(group, variant, changes, seed) for seed in range(options.seeds)]
            if runs := [run for run in made if run is not None]:
                print(_line(variant, runs), flush=True)


if __name__ == "__main__":
    main()
