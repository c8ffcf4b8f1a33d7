"""A student's queries learn on, from more labels: the adapter that they are read with goes on from where it is.

    python experiments/more_queries.py models/alfred-next DATA/alfred -o models/robot-skills --queries 20000 --seed 1

As ``distill.query_side`` trains it, another pass over other queries: documents' vectors, the teacher and every index
stay as they are. The settings are those that the student was made with. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rabtriever import Dataset, Retriever
from rabtriever.progress import on_stderr
from rabtriever.training.config import DistillConfig, QuerySideConfig
from rabtriever.training.distill import default_store
from rabtriever.training.pairs import DevSet
from rabtriever.training.query_loop import QueryLoop
from rabtriever.training.run_settings import check_settings
from rabtriever.training.teacher_outputs import TeacherOutputs


def settings(student: Retriever, queries: int | None) -> DistillConfig:
    """What the student was distilled with, but for the number of queries."""
    made = DistillConfig.model_validate(student.training["distill"]["config"])
    side = made.query_side or QuerySideConfig()
    return made.model_copy(update={"query_side": side.model_copy(update={"max_queries": queries})})


def learn_on(student: Retriever, dataset: Dataset, config: DistillConfig, seed: int, folder: Path) -> Retriever:
    """The student with the better of its adapter as it was and as it is after the pass."""
    assert config.query_side is not None
    teacher, progress = student.reranker, on_stderr()
    check_settings(
        folder,
        {
            "config": config.query_side.model_dump(mode="json"),
            "seed": seed,
            "data": dataset.fingerprint,
            "student": student.fingerprint,
        },
    )
    dev = DevSet.of(dataset, TeacherOutputs(teacher, default_store(), progress), config, 0)
    side, report = QueryLoop(student, dataset, dev, config.query_side, seed, folder, progress).run()
    before: dict[str, Any] = student.training["distill"]
    made = Retriever(teacher, student.predictor, side)
    report |= {"seed": seed, "before": before.get("query_side")}
    made.training["distill"] = {**before, "query_side": report}
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=None, help="of the training queries, so many")
    parser.add_argument("--seed", type=int, default=1, help="of the draw of queries: another than before")
    options = parser.parse_args()
    student = Retriever.from_pretrained(options.model)
    config = settings(student, options.queries)
    made = learn_on(student, Dataset.load(options.dataset), config, options.seed, options.output / "runs")
    made.save_pretrained(options.output)


if __name__ == "__main__":
    main()
