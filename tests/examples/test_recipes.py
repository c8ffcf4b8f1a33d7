"""The recipes in ``examples/`` run, with a tiny random model in the place of a trained one."""

from __future__ import annotations

import io
import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever import Index, Retriever
from rabtriever.cli.settings import build, from_file
from rabtriever.export import export_parquet
from rabtriever.training.config import TrainConfig
from tiny_student import save_tiny_student
from toy_data import NEEDS, TOOLS, toy_dataset

ROOT = Path(__file__).parents[2]
Run = Callable[..., str]


@pytest.fixture(scope="module")
def model(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_student(tiny_folder("llama"), tmp_path_factory.mktemp("student") / "model")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def script(name: str, *arguments: object) -> str:
        runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["main"]([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return script


def test_every_recipe_is_in_the_readme_and_tested() -> None:
    scripts = {file.stem for file in (ROOT / "examples").glob("*.py")}
    readme = (ROOT / "examples" / "README.md").read_text()
    assert all(f"examples/{name}.py" in readme for name in scripts)
    tested = Path(__file__).read_text()
    assert all(f'run("{name}"' in tested for name in scripts)


def test_support_chatbot(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("I lost my job\nI cannot sleep\n\nnever read\n"))
    turns = [line for line in run("support_chatbot", model).splitlines() if line.startswith("-> ")]
    assert len(turns) == 2
    assert all("%): " in turn and "; else " in turn for turn in turns)


def test_robot_skills(run: Run, model: Path) -> None:
    sure = run("robot_skills", model, NEEDS[0], "--at-least", "0", "--category", "cleaning")
    assert sure.startswith("I will ")
    assert run("robot_skills", model, NEEDS[0], "--at-least", "1.1").startswith("I am not sure what to do. Shall I ")
    assert run("robot_skills", model, NEEDS[0], "--category", "flying").endswith("Shall I do something?\n")


def test_markdown_rag(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "tools.md").write_text("# Tools\n\n" + "\n\n".join(f"Take the {tool}. " * 20 for tool in TOOLS))
    (tmp_path / "more" / "tea.md").write_text("Put the kettle on.")
    prompt = run("markdown_rag", model, tmp_path, "How do I make tea?")
    assert "] tools.md\n" in prompt and f"] {Path('more') / 'tea.md'}\nPut the kettle on.\n" in prompt
    assert prompt.endswith("Question: How do I make tea?\n")
    assert len(prompt) < 2500  # passages, not whole files
    (tmp_path / "tools.md").unlink()
    assert "tools.md" not in run("markdown_rag", model, tmp_path, "How do I make tea?")


def test_reranker_to_index(run: Run, model: Path, tmp_path: Path) -> None:
    toy_dataset().save(tmp_path / "data")
    said = run("reranker_to_index", model, tmp_path / "data", tmp_path / "out")
    assert said.startswith(f"{len(TOOLS)} documents in ")
    student = Retriever.from_pretrained(tmp_path / "out" / "model", dtype="float32")
    assert student.reranker.fingerprint == Retriever.from_pretrained(model).reranker.fingerprint
    assert len(Index.open(tmp_path / "out" / "index").search(NEEDS[0], 6)) == 6


def test_keep_in_step(run: Run, model: Path, tmp_path: Path) -> None:
    corpus, index = tmp_path / "corpus.jsonl", tmp_path / "index"

    def step(texts: dict[str, str]) -> str:
        corpus.write_text("\n".join(json.dumps({"id": id, "text": text}) for id, text in texts.items()))
        return run("keep_in_step", model, index, corpus).strip()

    assert step({"a": "sponge", "b": "broom"}) == "2 added, 0 updated, 0 unchanged, 0 deleted"
    assert step({"a": "sponge", "b": "a broom"}) == "0 added, 1 updated, 1 unchanged, 0 deleted"
    assert step({"a": "sponge"}) == "0 added, 0 updated, 1 unchanged, 1 deleted"
    assert [document.id for document in Index.open(index).documents()] == ["a"]


def test_parquet_to_chroma(run: Run, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("chromadb")
    student = Retriever.from_pretrained(model)
    with Index.create(tmp_path / "index", student) as index:
        index.add([{"_id": f"{tool} {n}", "text": f"{tool} number {n}"} for tool in TOOLS for n in range(80)])
        hits = index.search(NEEDS[0], k=10)
    export_parquet(tmp_path / "index", tmp_path / "index.parquet")
    lines = run("parquet_to_chroma", model, tmp_path / "index.parquet", tmp_path / "chroma", NEEDS[0]).splitlines()
    assert [line.split("  ")[1:] for line in lines] == [[hit.id, hit.text] for hit in hits]
    assert [float(line.split()[0]) for line in lines] == pytest.approx([hit.score for hit in hits], abs=1e-3)


def test_the_settings_at_the_papers_size_are_valid() -> None:
    file = ROOT / "experiments" / "qwen2.5-7b.yaml"
    config = build(TrainConfig, from_file(file, TrainConfig))
    assert config.base == "Qwen/Qwen2.5-7B-Instruct"
    assert config.teacher.lora is not None
    assert "NOT RUN" in file.read_text()
