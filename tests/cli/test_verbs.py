"""Every verb from end to end, on a tiny random model and a handful of documents."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.runner import Cli
from rabtriever import Retriever
from rabtriever.cli import main
from rabtriever.data import Dataset, Document, Query
from rabtriever.evaluation import TeacherSystem
from rabtriever.training.lock import training_lock
from tiny_models import tiny_model_folder

SKILLS = ["find a sponge", "open the window", "bring a glass of water", "feed the cat", "close the drawer", "call help"]
SETTINGS = """
dtype: float32
teacher: {freeze_layers: 0, epochs: 1, evaluations: 1, candidates: "random:2", queries_per_step: 4}
distill: {epochs: 2, candidates: "random:3"}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a base model, a dataset and settings; and a cache of its own."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_model_folder(folder / "base", "llama", layers=2)
    small_dataset().save(folder / "skills")
    (folder / "settings.yaml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RABTRIEVER_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def model(place: Path) -> Path:
    arguments = ["train", place / "skills", "-o", place / "model", *options(place)]
    assert main([str(a) for a in arguments]) == 0
    return place / "model"


@pytest.fixture(scope="module")
def index(place: Path, model: Path) -> Path:
    assert main(["index", str(model), str(place / "skills"), "-o", str(place / "index")]) == 0
    return place / "index"


def small_dataset() -> Dataset:
    corpus = {
        f"d{i}": Document(f"d{i}", text, metadata={"room": "kitchen" if i % 2 == 0 else "hall", "n": i})
        for i, text in enumerate(SKILLS)
    }
    queries = {f"q{i}": Query(f"q{i}", f"situation number {i} that calls for it") for i in range(24)}
    judged = {f"q{i}": {f"d{i % len(SKILLS)}": 1} for i in range(24)}
    parts = {"train": range(12), "dev": range(12, 18), "test": range(18, 24)}
    return Dataset("skills", corpus, queries, {s: {f"q{i}": judged[f"q{i}"] for i in ids} for s, ids in parts.items()})


QUICK_STUDENT = ["--set", "distill.epochs=1", "--set", "distill.candidates=random:1"]
QUICK_STUDENT += ["--set", "distill.query_side={freeze_layers: 1, epochs: 0.5}"]


def options(place: Path) -> list[Any]:
    return ["--base", place / "base", "--config", place / "settings.yaml"]


def test_train_tells_what_it_reached_and_repeats_nothing(cli: Cli, place: Path, model: Path) -> None:
    assert (model / "predictor.safetensors").is_file()
    again = cli("train", place / "skills", "-o", model, *options(place), "--json")
    assert again.code == 0
    assert set(again.json) == {"model", "seconds", "teacher", "student"}
    assert again.json["teacher"]["steps"] == 3
    assert "already trained" in again.err
    text = cli("train", place / "skills", "-o", model, *options(place))
    assert text.out.splitlines()[-1] == f"next: rabtriever evaluate {model} {place / 'skills'}"


def test_another_corpus_of_the_folder_is_read_if_asked_for(cli: Cli, place: Path, model: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(place / "skills", tmp_path / "skills"))
    lines = (data / "corpus.jsonl").read_text()
    (data / "corpus.more.jsonl").write_text(lines + '{"_id": "d99", "title": "", "text": "whistle a tune"}\n')
    plain, more = (
        cli("evaluate", model, data, "--systems", "bm25", "--runs", tmp_path / name, *arguments, "--json").json
        for name, arguments in (("plain", []), ("more", ["--corpus", "corpus.more.jsonl"]))
    )
    assert plain["queries"] == more["queries"] == 6
    ranked = {n: (tmp_path / n / "bm25.trec").read_text() for n in ("plain", "more")}
    assert "d99" in ranked["more"] and "d99" not in ranked["plain"]
    trained = cli("distill", model, data, "-o", tmp_path / "new", "--corpus", "corpus.more.jsonl", *QUICK_STUDENT)
    lines = trained.out.splitlines()
    assert [line.partition(":")[0] for line in lines[:2]] == ["student", "queries"]
    assert "steps" in lines[1] and "dev MRR" in lines[1]
    side = Retriever.from_pretrained(tmp_path / "new").query_side
    assert (side is None) == lines[1].endswith("; no better than without an adapter, so there is none")
    assert trained.out.splitlines()[-1].endswith(f"evaluate {tmp_path / 'new'} {data} --corpus corpus.more.jsonl")
    absent = cli("evaluate", model, data, "--corpus", "corpus.none.jsonl", "--json")
    assert absent.code == 2 and "corpus.none.jsonl" in absent.error["message"]
    bundled = cli("evaluate", model, "example", "--corpus", "corpus.more.jsonl", "--json")
    assert bundled.code == 2 and "bundled example" in bundled.error["message"]


def test_train_refuses_to_go_on_with_other_settings(cli: Cli, place: Path, model: Path) -> None:
    ran = cli("train", place / "skills", "-o", model, *options(place), "--seed", "7", "--json")
    assert ran.code == 2
    assert "seed was 0 and is now 7" in ran.error["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "teacher.learning_rat=1"], "--set: unknown setting 'teacher.learning_rat'"),
        (["--set", "teacher.epochs=many"], "--set: teacher.epochs cannot be 'many'"),
        (["--set", "teacher.candidates=best:3"], "--set: teacher.candidates cannot be 'best:3'"),
        (["--seed", "-1"], "--seed: seed cannot be -1"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file or directory"),
        (["--config", "."], ".: is a directory"),
        (["--budget", "soon"], "'soon' is not a budget"),
        (["--base", "smolm2-135m"], "'smolm2-135m' is neither an embedded base model"),
    ],
)
def test_train_refuses_bad_options(cli: Cli, tmp_path: Path, place: Path, arguments: list[str], message: str) -> None:
    ran = cli("train", place / "skills", "-o", tmp_path / "out", *arguments, "--json")
    assert ran.code == 2
    assert ran.error["message"].startswith(message)


def test_train_refuses_a_file_as_output(cli: Cli, place: Path) -> None:
    ran = cli("train", place / "skills", "-o", place / "settings.yaml", *options(place), "--json")
    assert ran.code == 2
    assert "settings.yaml" in ran.error["message"]


def test_a_missing_or_malformed_dataset_is_told_with_its_line(cli: Cli, tmp_path: Path) -> None:
    missing = cli("train", tmp_path / "nowhere", "-o", tmp_path / "out", "--json")
    assert (missing.code, missing.error["code"]) == (2, "bad_data")
    assert "nowhere does not exist" in missing.error["message"]

    small_dataset().save(tmp_path / "data")
    with (tmp_path / "data" / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d9", "text": \n')
    broken = cli("train", tmp_path / "data", "-o", tmp_path / "out", "--json")
    assert (broken.code, broken.error["code"]) == (2, "bad_data")
    assert "corpus.jsonl:7" in broken.error["message"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["train", "distill", "index", "demo"])
def test_ctrl_c_says_what_is_kept(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Dataset, "load", interrupted)
    monkeypatch.setattr(Dataset, "example", interrupted)
    operands = {"train": ["x"], "distill": ["x", "x"], "index": ["x", "example"], "demo": []}[verb]
    ran = cli(verb, *operands, "-o", place / "out", "--json")
    assert ran.code == 130
    assert ran.error["code"] == "interrupted"
    assert f"kept in {place / 'out'}, and the same command again goes on" in ran.error["message"]


def test_an_evaluation_that_was_stopped_goes_on(
    cli: Cli, place: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    rank = TeacherSystem.rank

    def counted(self: TeacherSystem, queries: Sequence[Query], *rest: Any) -> Any:
        if len(calls) == 2:  # after the warm-up and one batch
            raise KeyboardInterrupt
        calls.append(len(queries))
        return rank(self, queries, *rest)

    monkeypatch.setattr("rabtriever.evaluation.runner._PAIRWISE_BATCH", 2)
    monkeypatch.setattr(TeacherSystem, "rank", counted)
    arguments = ["evaluate", model, place / "skills", "--systems", "teacher", "--json"]
    partial = tmp_path / "report.json.partial"
    stopped = cli(*arguments, "-o", tmp_path / "report.json")
    assert stopped.code == 130
    assert f"kept in {partial}" in stopped.error["message"]
    assert partial.exists()
    calls[:] = [0, 0, 0]
    resumed = cli(*arguments, "-o", tmp_path / "report.json")
    assert calls == [0, 0, 0, 1, 2, 2]  # four of the six queries, and one to warm up
    assert not partial.exists()
    figures, whole = (ran.json["systems"]["teacher"] for ran in (resumed, cli(*arguments)))
    assert {**figures, "ms_per_query": 0, "prepare_s": 0} == {**whole, "ms_per_query": 0, "prepare_s": 0}


def test_distill_makes_a_student_of_a_teacher(cli: Cli, place: Path, model: Path) -> None:
    arguments = ["distill", model, place / "skills", "-o", place / "student", "--set", "distill.epochs=1", "--json"]
    ran = cli(*arguments)
    assert ran.json["student"]["epochs"] == 1
    assert not (place / "student" / "runs").exists()
    again = cli(*arguments)
    assert again.code == 2
    assert "holds a model already" in again.error["message"]


def test_distill_touches_neither_a_folder_in_use_nor_one_of_something_else(cli: Cli, place: Path, model: Path) -> None:
    output = place / "occupied"
    arguments = ["distill", model, place / "skills", "-o", output, "--set", "distill.epochs=1", "--json"]
    with training_lock(output / "runs"):
        ran = cli(*arguments)
    assert ran.code == 2
    assert "another process is training" in ran.error["message"]
    (output / "thesis.txt").write_text("years of work")
    ran = cli(*arguments)
    assert ran.code == 2
    assert "other files" in ran.error["message"]
    assert {path.name for path in output.iterdir()} == {"runs", "thesis.txt"}


def test_distill_refuses_settings_that_it_does_not_use(cli: Cli, place: Path, model: Path) -> None:
    ran = cli("distill", model, place / "skills", "-o", place / "x", "--set", "teacher.epochs=1", "--json")
    assert ran.code == 2
    assert "teacher.epochs belongs to stage I" in ran.error["message"]


def test_index_is_brought_up_to_date(cli: Cli, tmp_path: Path, model: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "two"}\n')
    first = cli("index", model, file, "-o", tmp_path / "index", "--json")
    assert first.code == 0
    assert [first.json[key] for key in ("documents", "added", "updated", "unchanged")] == [2, 2, 0, 0]
    more = tmp_path / "b.csv"
    more.write_text("id,text\nc,three\n")
    file.write_text('{"id": "a", "text": "one"}\n{"id": "b", "text": "changed"}\n')
    second = cli("index", model, file, more, "-o", tmp_path / "index")
    assert second.out == f"{tmp_path / 'index'}: 3 documents (1 added, 1 updated, 1 unchanged)\n"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jsonl": '{"id": "a", "text": "x"}\nnot json\n'}, "a.jsonl:2"),
        ({"a.txt": "x\n", "b.txt": "y\n"}, "the id '1' is in "),
        ({"a.jsonl": ""}, "holds no documents"),
        ({"a.pdf": "x"}, "has the ending '.pdf'"),
    ],
)
def test_a_bad_corpus_is_found_before_anything_is_written(
    cli: Cli, tmp_path: Path, model: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    ran = cli("index", model, *(tmp_path / name for name in files), "-o", tmp_path / "index", "--json")
    assert (ran.code, ran.error["code"]) == (2, "bad_data")
    assert message in ran.error["message"]
    assert not (tmp_path / "index").exists()


def test_index_needs_a_model_and_a_corpus_that_exist(cli: Cli, tmp_path: Path, place: Path, model: Path) -> None:
    no_model = cli("index", tmp_path / "nothing", place / "skills", "-o", tmp_path / "index", "--json")
    assert (no_model.code, "nothing does not exist" in no_model.error["message"]) == (2, True)
    no_corpus = cli("index", model, tmp_path / "nothing", "-o", tmp_path / "index", "--json")
    assert (no_corpus.code, "nothing does not exist" in no_corpus.error["message"]) == (2, True)


def test_search_answers_with_hits(cli: Cli, index: Path) -> None:
    ran = cli("search", index, "I spilled my coke", "-k", "4", "--rerank", "2", "--json")
    assert set(ran.json) == {"query", "hits"}
    hits = ran.json["hits"]
    assert [hit["stage"] for hit in hits] == ["teacher", "teacher", "student", "student"]
    assert set(hits[0]) >= {"id", "score", "probability", "text", "metadata"}
    assert all(0 <= hit["probability"] <= 1 for hit in hits)
    text = cli("search", index, "I spilled my coke", "-k", "4")
    assert len(text.out.splitlines()) == 4
    assert text.out.startswith(" 1. ")


def test_search_filters(cli: Cli, index: Path) -> None:
    ran = cli("search", index, "coke", "--filter", "room = 'kitchen' and n > 0", "--json")
    assert sorted(hit["id"] for hit in ran.json["hits"]) == ["d2", "d4"]
    assert cli("search", index, "coke", "--filter", "n > 100").out == "no documents\n"


@pytest.mark.parametrize("arguments", [["  "], ["coke", "--filter", "room ="], ["coke", "--filter", "n > 'x' or"]])
def test_search_refuses_an_empty_query_and_a_bad_filter(cli: Cli, index: Path, arguments: list[str]) -> None:
    ran = cli("search", index, *arguments, "--json")
    assert ran.code == 2
    assert ran.error["message"]


def test_rerank_orders_a_file_and_stdin(cli: Cli, place: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cli("rerank", model, "I spilled my coke", place / "skills" / "corpus.jsonl", "--json")
    assert ran.code == 0
    scores = [hit["score"] for hit in ran.json["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == len(SKILLS)

    lines = io.BytesIO("\n".join(SKILLS[:3]).encode() + b"\n\n\xff\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines))
    piped = cli("rerank", place / "base", "I spilled my coke", "-", "-k", "2", "--json")
    assert [hit["stage"] for hit in piped.json["hits"]] == ["teacher"] * 2

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert cli("rerank", place / "base", "q", "-", "--json").error["message"] == "stdin holds no documents"
    assert cli("rerank", place / "base", " ", place / "skills", "--json").code == 2


def test_evaluate_reports_systems_side_by_side(cli: Cli, place: Path, model: Path, tmp_path: Path) -> None:
    saved = tmp_path / "report.json"
    ran = cli(
        "evaluate", model, place / "skills", "--limit", "4", "--teacher-limit", "2", "-o", saved, "--json",
        "--systems", f"student,hybrid,rerank,teacher,untrained,untrained:{place / 'base'},bm25",
    )  # fmt: skip
    assert ran.code == 0
    assert ran.json["queries"] == 4
    systems = ran.json["systems"]
    untrained = ["untrained", f"untrained:{place / 'base'}"]
    assert list(systems) == ["student", "hybrid", "rerank", "teacher", *untrained, "bm25"]
    assert systems["rerank"]["MRR@10"] == systems["teacher"]["MRR@10"]  # of fewer documents than it may read
    assert systems["rerank"]["description"] == "teacher on the student's best 20"
    assert set(systems["student"]) >= {"R@1", "R@3", "R@5", "MRR@10", "nDCG@10", "ms_per_query"}
    assert systems["teacher"]["queries"] == 2
    assert systems["untrained"]["MRR@10"] == systems[f"untrained:{place / 'base'}"]["MRR@10"]
    assert "per_query" in json.loads(saved.read_text())
    again = cli(
        "evaluate", model, place / "skills", "--limit", "4", "--systems", "student,bm25", "--join", saved, "--json",
        "--runs", tmp_path / "runs",
    )  # fmt: skip
    assert {file.name for file in (tmp_path / "runs").iterdir()} == {"student.trec", "bm25.trec"}
    assert list(again.json["systems"]) == ["student", "bm25", "hybrid", "rerank", "teacher", *untrained]
    assert again.json["systems"]["teacher"] == systems["teacher"]  # down to its milliseconds: it was not run again
    assert again.json["retention"] == ran.json["retention"]
    mine = Path(shutil.copytree(model, tmp_path / "my-model"))
    others = ["student", "teacher", f"student:{mine}", f"teacher:{mine}"]
    beside = cli("evaluate", model, place / "skills", "--limit", "4", "--systems", ",".join(others), "--json")
    assert list(beside.json["systems"]) == others
    for one, copy in zip(others[:2], others[2:], strict=True):
        assert beside.json["systems"][copy]["MRR@10"] == beside.json["systems"][one]["MRR@10"]
    with (mine / "README.md").open("a") as file:
        file.write("\n## Thanks\n\nTo all who labelled.\n")
    for split in ("dev", "test", "test"):
        arguments = ["--split", split, "--limit", "4", "--systems", "student,bm25"]
        assert cli("evaluate", mine, place / "skills", *arguments, "--card", "--json").code == 0
    card = (mine / "README.md").read_text()
    assert card.count("## Results") == card.count("split dev, 4 queries:") == card.count("split test, 4 queries:") == 1
    assert "To all who labelled." in card  # written by hand
    assert cli("evaluate", mine, place / "skills", "--limit", "2", "--json").code == 0  # loads as before
    refused = cli("evaluate", place / "base", place / "skills", "--card", "--json")
    assert "not the folder of a trained model" in refused.error["message"]
    other = cli("evaluate", model, place / "skills", "--split", "dev", "--join", saved, "--json")
    assert other.code == 2
    assert "about another split" in other.error["message"]

    text = cli("evaluate", model, place / "skills", "--split", "dev", "--candidates", "3")
    assert "skills, split dev, 6 queries" in text.out
    assert [name in text.out for name in ("student", "teacher", "bm25")] == [True] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "tset"], "has no split 'tset'"),
        (["--systems", "student,bm52"], "'bm52' is no system"),
        (["--systems", "dense"], "'dense' is no system"),
        (["--systems", "bm25:x"], "'bm25:x' is no system"),
        (["--systems", "student:no/such"], "no/such"),
        (["--systems", "bm25,bm25"], "each once"),
        (["--systems", ","], "each once"),
        (["-o", "."], ". is a folder"),
        (["--runs", __file__], "is a file"),
    ],
)
def test_evaluate_refuses_what_it_cannot_do(
    cli: Cli, place: Path, model: Path, arguments: list[str], message: str
) -> None:
    ran = cli("evaluate", model, place / "skills", *arguments, "--json")
    assert ran.code == 2
    assert message in ran.error["message"]


def test_info_knows_models_indexes_datasets_and_the_machine(cli: Cli, place: Path, model: Path, index: Path) -> None:
    assert cli("info", model, "--json").json["kind"] == "retriever"
    assert cli("info", index, "--json").json["documents"] == len(SKILLS)
    assert cli("info", place / "skills", "--json").json["splits"] == {"train": 12, "dev": 6, "test": 6}
    machine = cli("info", "--json").json
    assert machine["dtype"] in ("bfloat16", "float32")
    assert machine["cache"] == str(place / "cache")
    assert "smollm2-135m" in machine["embedded_models"]
    for path in ([], [model], [index], [place / "skills"]):
        assert all(": " in line or line.endswith(":") for line in cli("info", *path).out.splitlines())
    assert cli("info", place / "cache-nowhere", "--json").code == 2


def test_demo_runs_through(cli: Cli, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model_folder(tmp_path / "base", "llama", layers=14, hidden=16)  # more layers than are frozen by default
    monkeypatch.setattr(Dataset, "example", small_dataset)
    arguments = ["demo", "-o", tmp_path / "demo", "--base", tmp_path / "base", "--budget", "1k"]
    ran = cli(*arguments, "--json")
    assert ran.code == 0
    assert set(ran.json) == {"model", "index", "evaluation", "samples", "seconds"}
    assert list(ran.json["evaluation"]["systems"]) == ["student", "teacher", "untrained", "bm25"]
    assert len(ran.json["samples"]) == 3
    assert all(len(sample[name]) == 3 for sample in ran.json["samples"] for name in ("student", "teacher"))
    text = cli(*arguments)
    assert "rabtriever search" in text.out
    assert text.out.count("right:") == 3
