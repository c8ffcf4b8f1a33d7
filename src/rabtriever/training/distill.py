"""Stage III: train the predictor to say what the teacher would, from query and document read apart (Eq. 12 and 13).

The backbone is frozen, so ``e_Q``, ``e_D`` and the teacher's outputs are computed once into a store; then only a small
MLP trains, in minutes.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rabtriever.data.dataset import sample
from rabtriever.errors import InputError
from rabtriever.predictor import Predictor
from rabtriever.progress import Progress, SilentProgress
from rabtriever.retriever import Retriever
from rabtriever.training.candidates import training_queries
from rabtriever.training.config import DistillConfig
from rabtriever.training.pairs import DevSet, PairSet
from rabtriever.training.predictor_loop import PredictorLoop
from rabtriever.training.query_loop import QueryLoop
from rabtriever.training.run_settings import check_settings
from rabtriever.training.teacher_outputs import TeacherOutputs
from rabtriever.training.trained_weights import check_freeze

if TYPE_CHECKING:
    from rabtriever.data import Dataset, Query
    from rabtriever.reranker import Reranker

__all__ = ["default_store", "distill", "draw_labelled"]


def distill(
    teacher: Reranker,
    dataset: Dataset,
    config: DistillConfig | None = None,
    output: str | Path | None = None,
    *,
    seed: int = 0,
    store: str | Path | None = None,
    progress: Progress | None = None,
) -> Retriever:
    """Distil a teacher into a retriever that shares its language model.

    Args:
        teacher: Stays as it is.
        dataset: Its ``train`` split gives the queries, and those without judgements more, if asked for; the best
            state by the student's MRR on ``dev`` is kept where that split exists, else the last one.
        config: Hyper-parameters.
        output: A folder for the resumable state of this run; None keeps nothing.
        seed: Seeds every draw.
        store: The folder of teacher outputs, shared between runs; by default one in the user's cache.
        progress: Where to report.

    Returns:
        The student, not yet saved.

    Raises:
        InputError: If the dataset has no training queries, ``output`` holds a run with other settings, or the loss
            stops being a number.

    Example:
        >>> student = distill(teacher, Dataset.load("saycan"))       # doctest: +SKIP
        >>> student.save_pretrained("saycan-student")                # doctest: +SKIP
    """
    config = config or DistillConfig()
    progress = progress or SilentProgress()
    if not (config.mse_weight or config.kl_weight or config.ranking_weight or config.label_weight):
        raise InputError(
            "mse_weight, kl_weight, ranking_weight and label_weight are all 0: nothing to learn from",
            hint="set one of them above 0",
        )
    if config.query_side is not None:  # found out before the hours
        check_freeze(teacher.backbone, config.query_side.freeze_layers, "distill.query_side.freeze_layers")
    begin = time.perf_counter()
    if output is not None:
        settings = {
            "config": config.model_dump(mode="json"),
            "seed": seed,
            "data": dataset.fingerprint,
            "teacher": teacher.fingerprint,
        }
        check_settings(Path(output), settings)
    with TemporaryDirectory() as scratch:
        outputs = TeacherOutputs(teacher, Path(store) if store else default_store(), progress)
        queries = training_queries(dataset, "train", config.max_queries, seed)
        labelled = draw_labelled(dataset, queries, config, seed)
        judged = queries + _unjudged(dataset, config, seed)
        pairs = PairSet(dataset, judged, outputs, config.candidates, seed, labelled, config.every_position)
        dev = DevSet.of(dataset, outputs, config, seed)
        loop = PredictorLoop(teacher, pairs, dev, config, seed, Path(output or scratch), progress)
        report = loop.run()
        predictor: Predictor = loop.best_predictor()
        student = Retriever(teacher, predictor)
        if config.query_side is not None:
            folder = Path(output or scratch) / "query-side"
            queries_loop = QueryLoop(student, dataset, dev, config.query_side, seed, folder, progress)
            side, report["query_side"] = queries_loop.run()
            student = Retriever(teacher, predictor, side)
    student.training["distill"] = {
        **report,
        "teacher_pairs_computed": outputs.computed,
        "seconds": round(time.perf_counter() - begin, 1),
        "config": config.model_dump(),
        "seed": seed,
        "dataset": dataset.name,
        "data": dataset.fingerprint,
    }
    return student


def draw_labelled(dataset: Dataset, taken: list[Query], config: DistillConfig, seed: int) -> list[Query]:
    """The training queries that only their labels teach: ``labelled_queries`` of those that the teacher does not judge.

    Raises:
        InputError: If none is left, or ``label_weight`` is 0.
    """
    if not config.labelled_queries:
        return []
    ids = {query.id for query in taken}
    others = [query for query in dataset.split("train") if query.id not in ids]
    if not others or not config.label_weight:
        raise InputError(
            f"labelled_queries is {config.labelled_queries}, but "
            + ("label_weight is 0" if others else "the teacher judges every training query already"),
            hint="set distill.label_weight above 0"
            if others
            else "set distill.max_queries below the number of queries",
        )
    return sample(others, config.labelled_queries, seed)


def _unjudged(dataset: Dataset, config: DistillConfig, seed: int) -> list[Query]:
    if not config.unjudged_queries:
        return []
    queries = dataset.unjudged
    if not queries:
        raise InputError(
            f"dataset {dataset.name!r} has no query without judgements, but unjudged_queries is "
            f"{config.unjudged_queries}",
            hint="add lines to its queries.jsonl, or set distill.unjudged_queries=0",
        )
    return sample(queries, config.unjudged_queries, seed)


def default_store() -> Path:
    """The folder of teacher outputs in the user's cache."""
    from rabtriever.embedded_models import cache_dir

    return cache_dir() / "teacher-outputs"
