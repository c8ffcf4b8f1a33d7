"""The experiments' own trainings: what they write down, and that nothing is made twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rabtriever import Dataset, Reranker, Retriever, distill
from rabtriever.data import Document, Query
from rabtriever.predictor import Predictor, PredictorConfig
from rabtriever.training.candidates import training_queries
from rabtriever.training.config import DistillConfig, LoraConfig, QuerySideConfig, TeacherConfig
from rabtriever.training.plan import Plan
from tiny_gguf import write_gguf
from toy_data import SHORT, toy_dataset

FOLDER = Path(__file__).parents[1] / "experiments"


def run(script: str, *arguments: object, cwd: Path, fails: bool = False) -> str:
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    found = {**os.environ, "PYTHONPATH": str(FOLDER)}  # a changed copy of a script finds its neighbours too
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=found)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr if fails else done.stdout


@pytest.fixture
def place(tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A teacher and a dataset, and a store of their own."""
    monkeypatch.setenv("RABTRIEVER_CACHE", str(tmp_path / "cache"))
    toy_dataset().save(tmp_path / "toy")
    Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32").save_pretrained(tmp_path / "teacher")
    (tmp_path / "settings.yaml").write_text(
        "distill: {candidates: 'random:2', epochs: 3, dev_queries: 6, max_queries: 18, labelled_queries: 4}\n"
    )
    return tmp_path


def ablate(place: Path, *more: str, fails: bool = False) -> str:
    fixed = ["teacher", "toy", "--config", "settings.yaml", "--seeds", "2", "-o", "results/ablations-toy.json"]
    return run("ablations.py", *fixed, *more, cwd=place, fails=fails)


def test_ablations_are_written_down_made_once_and_reported(place: Path) -> None:
    ablate(place, "--groups", "default", "--only", "no KL")
    file = place / "results" / "ablations-toy.json"
    first = json.loads(file.read_text())
    made = [(run["variant"], run["seed"]) for run in first["runs"]]
    assert made == [("reference", 0), ("reference", 1), ("no KL", 0), ("no KL", 1)]
    reference, _, without, _ = first["runs"]
    assert (reference["config"]["kl_weight"], without["config"]["kl_weight"]) == (1.0, 0.0)
    assert {**without["config"], "kl_weight": 1.0} == reference["config"]
    assert reference["config"]["epochs"] == 3
    assert reference["teacher_passes"] > 0 == without["teacher_passes"]  # the teacher is asked once
    assert all(1 <= int(rank) <= 6 for rank in reference["test"].split())
    assert len(reference["test"].split()) == first["queries"]["test"] == 6

    printed = ablate(place, "--groups", "default,paper", "--only", "no mult,no such")
    again = json.loads(file.read_text())
    assert again["runs"][:4] == first["runs"]  # to the second in which they were made
    assert [run["variant"] for run in again["runs"][4:]] == ["no multiplication"] * 2 + ["reference"] * 2 + [
        "no multiplication"
    ] * 2
    assert "the paper's loss" in printed
    flat = {run["test"] for run in again["runs"] if run["variant"] == "no multiplication"}
    assert flat == {"6 6 6 6 6 6"}  # every document alike, and ties count against the student

    run("report.py", "--results", place / "results", "-o", place / "results.md", cwd=place)
    report = (place / "results.md").read_text()
    together, row = [line for line in report.splitlines() if line.startswith("| no multiplication")][:2]
    assert together.startswith("| no multiplication | 9.6 for 67.3 | ")  # the paper's ablations side by side come first
    assert "| 0.167 ± 0.000 |" in row
    assert "worse (9.6 for 67.3)" in row

    labels = [run["config"]["labelled_queries"] for run in again["runs"]]
    assert labels == [4] * 6 + [0] * 4  # the paper's loss learns from no label

    refused = ablate(place, "--set", "epochs=4", fails=True)
    assert "is about another settings" in refused
    assert json.loads(file.read_text()) == again


def test_taps_read_other_layers_and_are_reported(place: Path) -> None:
    layers = place / "taps.py"  # a model of two layers has no twelfth
    text = (FOLDER / "taps.py").read_text().replace("LAYERS = (6, 12, 18, 24)", "LAYERS = (1,)")
    layers.write_text(text.replace("(12, 18, 24)", "(1,)").replace("18 mean", "1 mean"))
    output = place / "results" / "taps-toy.json"
    run(str(layers), "teacher", "toy", "-o", output, "--seeds", "2", "--epochs", "2", cwd=place)
    runs: list[dict[str, Any]] = json.loads(output.read_text())["runs"]
    variants = list(dict.fromkeys(run["variant"] for run in runs))
    assert variants[0] == "reference"
    assert len(runs) == 2 * len(variants)
    ranks = [[int(rank) for rank in run["dev"].split()] for run in runs]
    assert all(1 <= rank <= 6 for row in ranks for rank in row)
    assert len({run["dev"] for run in runs}) > 1  # what is read makes a difference
    run("report.py", "--results", place / "results", "-o", place / "results.md", cwd=place)
    assert "| query: layer 1, mean | 2 |" in (place / "results.md").read_text()


def test_the_classifier_learns_its_letters(tiny_folder: Callable[..., Path], place: Path) -> None:
    base = tiny_folder("llama")
    settings = ["--base", base, "--batch", "4", "--freeze-layers", "0", "--learning-rate", "1e-2", "--epochs", "12"]
    fixed = ["toy", "-o", "results/classifier.json", "--evaluations", "2"]
    run("classifier.py", *fixed, *settings, cwd=place)
    training = json.loads((place / "results" / "classifier-training.json").read_text())
    assert training["loss"][-1] < 1.0 < 1.79 < training["loss"][0] + 0.3  # ln 6 at the start
    learnt = json.loads((place / "results" / "classifier.json").read_text())["systems"]["classifier"]
    assert learnt["R@1"] > 0.5
    run("classifier.py", *fixed[:1], "-o", "both.json", *settings, "--queries", "0", "--join", fixed[2], cwd=place)
    both = json.loads((place / "both.json").read_text())["systems"]
    assert list(both) == ["classifier", "untrained-classifier"]
    assert both["classifier"] == learnt
    assert both["untrained-classifier"]["R@1"] < learnt["R@1"]


def test_a_cut_model_is_its_lower_layers(place: Path, tiny_folder: Callable[..., Path]) -> None:
    run("cut.py", tiny_folder("llama"), "cut", "--layers", "2", cwd=place)
    whole = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32").backbone
    smaller = Reranker.from_pretrained(place / "cut", prompt=SHORT, dtype="float32").backbone
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        del whole.layers[2:]
        expected = whole.blocks(input_ids=ids, use_cache=False).last_hidden_state
        found = smaller.blocks(input_ids=ids, use_cache=False).last_hidden_state
    assert torch.allclose(found, expected, atol=0.06)  # it is written in bfloat16
    assert len(smaller.layers) == 2
    assert "keep fewer" in run("cut.py", tiny_folder("llama"), "more", "--layers", "3", cwd=place, fails=True)


def test_a_model_of_a_gguf_file_becomes_a_base_model(place: Path) -> None:
    write_gguf(place / "tiny.gguf")
    run("gguf_base.py", "tiny.gguf", "base", cwd=place)
    found = Reranker.from_pretrained(place / "base", prompt=SHORT, dtype="float32").backbone
    expected = AutoModelForCausalLM.from_pretrained(place, gguf_file="tiny.gguf", dtype=torch.bfloat16)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor.float()), name
    ids = found.tokenizer("a b", add_special_tokens=False)["input_ids"]
    assert found.tokenizer.decode(ids) == "a b"


def test_a_linear_head_learns_to_rank(tiny_folder: Callable[..., Path], place: Path) -> None:
    pytest.importorskip("datasets")
    fixed = ["toy", "-o", "head", "--base", tiny_folder("llama"), "--freeze-layers", "0"]
    settings = ["--learning-rate", "5e-3", "--epochs", "16", "--dev-queries", "6", "--dev-wrong", "5"]
    run("linear_head.py", *fixed, *settings, "--report", "results/head.json", cwd=place)
    training = json.loads((place / "head" / "training.json").read_text())
    assert len(training["dev_mrr"]) == 3
    assert training["loss"][-1] < 1.0 < 1.79 < training["loss"][0] + 0.3  # ln 6 at the start
    report = json.loads((place / "results" / "head.json").read_text())
    assert report["systems"]["linear-head"]["R@1"] > 0.5


@pytest.mark.parametrize(
    "more", [(), ("--prompted", "--whole-corpus"), ("--words", "words.yaml", "--dev-documents", "2")]
)
def test_a_bi_encoder_learns_to_find(more: tuple[str, ...], tiny_folder: Callable[..., Path], place: Path) -> None:
    pytest.importorskip("datasets")
    (place / "words.yaml").write_text('prompt: {document: "{text} again:", query: "{text} next:", chat: false}')
    fixed = ["toy", "-o", "bi", "--base", tiny_folder("llama"), "--freeze-layers", "0", "--batch", "6"]
    run("bi_encoder.py", *fixed, "--learning-rate", "5e-3", "--tokens", "12000", "--evaluations", "2", *more, cwd=place)
    training = json.loads((place / "bi" / "training.json").read_text())
    assert len(training["dev_mrr"]) >= 2
    assert max(training["dev_mrr"]) > 0.6  # by chance 0.41
    assert (place / "bi" / "modules.json").exists()
    model = pytest.importorskip("sentence_transformers").SentenceTransformer(str(place / "bi"), device="cpu")
    read = {side: model.preprocess(["wet"], task=side)["input_ids"][0].tolist() for side in ("query", "document")}
    assert (read["query"] != read["document"]) == bool(more)  # each side its own ending, as saved
    if not more:
        fuse(place)


def fuse(place: Path) -> None:
    """BM25 beside the bi-encoder, where each query has the word of a wrong document."""
    toy = toy_dataset()
    ids = list(toy.corpus)
    wrong = dict(zip(ids, ids[1:] + ids[:1], strict=True))
    for query in toy.split("test"):
        (right,) = toy.relevant("test", query.id)
        toy.queries[query.id] = Query(query.id, f"{query.text} {wrong[right]}")
    toy.save(place / "misleading")
    run("fused.py", "bi", "misleading", "--weights", "0,1000", "--alone", "-o", "fused.json", cwd=place)
    alone, nothing, words = json.loads((place / "fused.json").read_text())["systems"].values()
    assert words["R@1"] == 0 < alone["R@1"]
    assert all(nothing[name] == alone[name] for name in ("R@1", "R@3", "MRR@10"))
    assert nothing["description"] == "bi-encoder and 0.0 of BM25 (bm25s, English stop words)"


def test_a_students_queries_learn_on(place: Path) -> None:
    teacher = Reranker.from_pretrained(place / "teacher", dtype="float32")
    side = QuerySideConfig(lora=LoraConfig(rank=4), freeze_layers=1, epochs=2, batch_queries=4, learning_rate=1e-2)
    config = DistillConfig(candidates="random:2", epochs=2, dev_queries=6, query_side=side)
    first = distill(teacher, toy_dataset(), config, store=place / "store")
    first.save_pretrained(place / "first")
    run("more_queries.py", "first", "toy", "-o", "second", "--queries", "16", cwd=place)
    second = Retriever.from_pretrained(place / "second", dtype="float32")
    said = second.training["distill"]["query_side"]
    assert (said["queries"], said["steps"], said["seed"]) == (16, 8, 1)
    assert said["before"] == first.training["distill"]["query_side"]
    assert said["history"][0]["dev_mrr"] == pytest.approx(said["before"]["dev_mrr"])
    assert said["dev_mrr"] >= said["before"]["dev_mrr"]
    assert (second.fingerprint == first.fingerprint) == (not said["kept"])
    assert second.document_fingerprint == first.document_fingerprint


def test_what_a_student_ranks_high_is_judged_wrong(place: Path) -> None:
    teacher = Reranker.from_pretrained(place / "teacher", dtype="float32")
    torch.manual_seed(0)
    Retriever(teacher, Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False))).save_pretrained(
        place / "student"
    )
    run("mine.py", "student", "toy", "-o", "mined", "--queries", "9", "--best", "2", cwd=place)
    student, before, after = Retriever.from_pretrained(place / "student"), toy_dataset(), Dataset.load(place / "mined")
    documents = student.encode_document([document.content for document in before.corpus.values()])
    mined = {query: row for query, row in after.judgements("train").items() if 0 in row.values()}
    assert len(mined) == 9
    for query, row in mined.items():
        right = before.relevant("train", query)
        assert after.relevant("train", query) == right
        scores = student.similarity(student.encode_query([before.queries[query].text]), documents)[0]
        assert len(set(scores)) == len(scores)
        wrong = [i for _, i in sorted(zip(-scores, before.corpus, strict=True)) if i not in right]
        assert {i for i, grade in row.items() if grade == 0} == set(wrong[:2])
    assert after.judgements("test") == before.judgements("test")
    plan = Plan(
        after,
        training_queries(after, "train", 9, 0),
        TeacherConfig(candidates="judged:2"),
        0,
        teacher.score_pairs,
        None,
    )
    taught = {pair.query for number in range(plan.steps_per_epoch) for pair in plan.step(number)}
    assert taught == {before.queries[query].text for query in mined}  # the same draw


def test_answers_are_compared_with_what_was_really_said(place: Path, tiny_folder: Callable[..., Path]) -> None:
    pytest.importorskip("nltk")
    teacher = Reranker.from_pretrained(place / "teacher", dtype="float32")
    Retriever(teacher, Predictor(teacher.backbone.hidden_size)).save_pretrained(place / "student")
    strategies = {name: Document(name, name) for name in ("question", "information")}
    lines = ["Situation: wet hair", "Seeker: my hair is wet", "Supporter: how did it get wet?", "Seeker: the rain"]
    queries = {f"test-0-{n}": Query(f"test-0-{n}", "\n".join(lines[:n])) for n in (2, 4)}
    queries["test-1-2"] = Query("test-1-2", lines[0])  # of another dialogue: what follows is no reply to test-0-4
    right = {"test-0-2": {"question": 1}, "test-0-4": {"information": 1}, "test-1-2": {"question": 1}}
    Dataset("talk", strategies, queries, {"test": right}).save(place / "talk")
    arguments = ["student", "talk", "--base", tiny_folder("llama"), "--tokens", "4"]
    run("generation.py", *arguments, "-o", place / "results" / "generation-talk.json", cwd=place)
    found = json.loads((place / "results" / "generation-talk.json").read_text())["per_query"]
    assert {name: list(found[name]["chrf"]) for name in found} == {name: ["test-0-2"] for name in found}
    assert found["none"]["strategy"] == {"test-0-2": None}
    assert found["labelled"]["strategy"] == {"test-0-2": "question"}
    assert all(-10 < found[name]["log_likelihood"]["test-0-2"] < 0 for name in found)
    run("report.py", "--results", place / "results", "-o", place / "results.md", cwd=place)
    assert "| the labelled strategy | " in (place / "results.md").read_text()
