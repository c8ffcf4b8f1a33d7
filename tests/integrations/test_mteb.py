"""A real retrieval task of mteb, on the data that come along, measured as this package measures."""

from __future__ import annotations

import pytest

pytest.importorskip("mteb")

import datasets
import mteb
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from rabtriever import Dataset, InputError, Retriever
from rabtriever.evaluation.measures import measure
from rabtriever.integrations.mteb import RabtrieverEncoder

HOUSEHOLD = Dataset.example()


class Household(AbsTaskRetrieval):
    metadata = TaskMetadata(
        name="Household",
        description="Situations in a household, and the robot skills that answer them.",
        reference=None,
        dataset={"path": "household", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=None,
        domains=None,
        task_subtypes=None,
        license="cc0-1.0",
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )

    def load_data(self, **options: object) -> None:
        split = RetrievalSplitData(
            corpus=datasets.Dataset.from_list(
                [{"id": d.id, "text": d.text, "title": d.title} for d in HOUSEHOLD.corpus.values()]
            ),
            queries=datasets.Dataset.from_list([{"id": q.id, "text": q.text} for q in HOUSEHOLD.split("test")]),
            relevant_docs=HOUSEHOLD.qrels["test"],
            top_ranked=None,
        )
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def test_mteb_measures_what_this_package_measures(student: Retriever) -> None:
    result = mteb.evaluate(
        RabtrieverEncoder(student), Household(), cache=None, encode_kwargs={"batch_size": 64}, show_progress_bar=False
    )
    scores = result.task_results[0].scores["test"][0]
    queries, documents = HOUSEHOLD.split("test"), list(HOUSEHOLD.corpus)
    found = student.similarity(
        student.encode_query([query.text for query in queries]),
        student.encode_document([document.content for document in HOUSEHOLD.corpus.values()]),
    )
    order = (-found).argsort(axis=1, kind="stable")
    rankings = {query.id: [documents[place] for place in row] for query, row in zip(queries, order, strict=True)}
    values = measure(HOUSEHOLD.qrels["test"], rankings)
    for theirs, ours in {"recall_at_1": "R@1", "mrr_at_10": "MRR@10", "ndcg_at_10": "nDCG@10"}.items():
        assert scores[theirs] == pytest.approx(sum(values[ours].values()) / len(queries), abs=1e-4)
    assert scores["ndcg_at_10"] > 0


def test_texts_of_one_kind_are_refused(student: Retriever) -> None:
    with pytest.raises(InputError, match="texts of one kind"):
        RabtrieverEncoder(student).encode([], task_metadata=Household.metadata, hf_split="test", hf_subset="default")
