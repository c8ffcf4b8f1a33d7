"""Models that come with the package: found by name wherever they are asked for, and a folder of that name wins."""

from __future__ import annotations

import json
import re
import shutil
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever import Index, Reranker, Retriever, shipped
from rabtriever.cli import main
from rabtriever.errors import InputError
from rabtriever.predictor import Predictor, PredictorConfig
from toy_data import NEEDS, SHORT, TOOLS


@pytest.fixture
def package(tiny_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder of models, with one in it; the working folder is empty."""
    root = tmp_path / "package" / "models"
    teacher = Reranker.from_pretrained(tiny_folder("llama"), prompt=SHORT, dtype="float32")
    torch.manual_seed(0)
    predictor = Predictor(teacher.backbone.hidden_size, PredictorConfig(zero_init=False))
    Retriever(teacher, predictor).save_pretrained(root / "tiny-skills")
    (root / "not-a-model").mkdir()
    monkeypatch.setattr(shipped, "_ROOT", root)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return root


def test_a_name_means_the_packages_model(package: Path) -> None:
    assert shipped.shipped_models() == ["tiny-skills"]
    student = Retriever.from_pretrained("tiny-skills")
    same = Retriever.from_pretrained(package / "tiny-skills")
    assert np.array_equal(student.encode_query(NEEDS), same.encode_query(NEEDS))
    assert Reranker.from_pretrained("tiny-skills").weights_hash == same.reranker.weights_hash
    with pytest.raises(InputError, match="not-a-model"):
        Retriever.from_pretrained("not-a-model")


def test_a_folder_of_that_name_wins(package: Path) -> None:
    Path("tiny-skills").mkdir()
    with pytest.raises(InputError, match="tiny-skills"):
        Retriever.from_pretrained("tiny-skills")
    assert shipped.shipped_folder("tiny-skills") is None


def test_an_index_finds_it_again_wherever_the_package_lies(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index.create("tools", Retriever.from_pretrained("tiny-skills")) as index:
        index.add(TOOLS)
        first = [hit.id for hit in index.search(NEEDS[0], k=3)]
    elsewhere = package.parent / "another" / "place"
    shutil.move(package, elsewhere)
    monkeypatch.setattr(shipped, "_ROOT", elsewhere)
    with Index.open("tools") as index:
        assert index.description.model.path == "tiny-skills"
        assert [hit.id for hit in index.search(NEEDS[0], k=3)] == first


def test_the_command_line_takes_the_name(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(*arguments: str) -> dict[str, Any]:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    Path("tools.jsonl").write_text("".join(json.dumps({"_id": tool, "text": tool}) + "\n" for tool in TOOLS))
    answer("index", "tiny-skills", "tools.jsonl", "-o", "tools")
    assert len(answer("search", "tools", NEEDS[0], "-k", "2")["hits"]) == 2
    assert len(answer("rerank", "tiny-skills", NEEDS[0], "tools.jsonl")["hits"]) == len(TOOLS)
    assert answer("info", "tiny-skills")["kind"] == "retriever"
    assert answer("info")["shipped_models"] == ["tiny-skills"]


SHIPPED = shipped.shipped_models()


def test_something_is_shipped() -> None:
    assert SHIPPED == ["general", "robot-skills"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_small_and_tells_of_no_machine(name: str) -> None:
    folder = shipped.shipped_folder(name)
    assert folder is not None
    for file in folder.rglob("*"):
        assert file.stat().st_size < 20_000_000
        assert file.is_dir() or file.suffix in (".json", ".md", ".safetensors")
        if file.suffix in (".json", ".md"):
            assert not re.search(r"(?<![\w.:/])/(?:root|home|work|tmp|data|usr)\b", file.read_text()), file
    card = (folder / "README.md").read_text()
    for heading in ("## Intended use", "## Results", "## How it was made", "## Training data", "## Limits"):
        assert heading in card


TASKS = {
    "Task: put a clean mug on the desk\nSteps so far: none": "go to the",
    "Task: put a clean mug on the desk\nSteps so far: 1. go to the coffee machine.": "pick up the mug",
    "Task: chill a slice of tomato\nSteps so far: 1. go to the counter top. 2. pick up the knife. 3. go to the tomato.":
        "slice the tomato",
    "Task: look at a book under the lamp\nSteps so far: 1. go to the bed. 2. pick up the book. 3. go to the desk lamp.":
        "turn on the desk lamp",
}  # fmt: skip
SKILLS = [
    *("go to the coffee machine", "go to the counter top", "go to the bed", "go to the sink basin", "go to the fridge"),
    *("pick up the mug", "pick up the apple", "pick up the knife", "pick up the book", "slice the tomato"),
    *("slice the bread", "turn on the desk lamp", "cool the apple in the fridge", "heat the mug in the microwave"),
    *("rinse the mug in the sink", "put the mug in or on the desk", "put the book in or on the bed"),
]
"""Tasks and skills of our own, in the training data's form; among the skills are some that it does not have."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_it_loads_without_a_warning_and_without_asking_any_host(
    smollm2: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """peft asks the hub for the base model's config, and says so, unless it is told what it wants to know."""
    asked = []

    def refuse(host: str, *rest: object, **more: object) -> list[Any]:
        asked.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Retriever.from_pretrained(name)
    assert asked == []


@pytest.mark.slow
def test_the_robots_skills_are_found(smollm2: Path, tmp_path: Path) -> None:
    """As a user would: by name, without any training, on documents of one's own."""
    with Index.create(tmp_path / "skills", Retriever.from_pretrained("robot-skills")) as index:
        index.add(SKILLS)
        for task, right in TASKS.items():
            first = index.search(task, k=1, rerank=5)[0].text
            assert first.startswith(right), (task, first)
            assert right in index.search(task, k=1)[0].text, task


FACTS = {
    "Milk left out in the sun turned sour.": "Warmth lets bacteria multiply, and bacteria spoil food.",
    "The wet towel on the line was dry by noon.": "Heat makes water evaporate.",
    "She could not see her friend in the dark room.": "Eyes need light to see objects.",
    "The plant by the window bent towards the glass.": "Plants grow in the direction of sunlight.",
    "He wore a helmet, and the fall did not hurt his head.": "Protective gear absorbs the force of a blow.",
    "The magnet pulled the nail out of the sawdust.": "Magnets attract objects made of iron.",
    "The ice cube in the glass got smaller and smaller.": "Solids melt when they take up heat.",
    "The old bridge collapsed under the truck.": "Structures fail when the load exceeds their strength.",
}
"""Situations and facts of our own; most share no word."""


@pytest.mark.slow
def test_facts_that_explain_are_found(smollm2: Path, tmp_path: Path) -> None:
    facts = [*FACTS.values(), *SKILLS]
    with Index.create(tmp_path / "facts", Retriever.from_pretrained("general")) as index:
        index.add(facts)
        ranks = [[hit.text for hit in index.search(query, k=len(facts))].index(right) for query, right in FACTS.items()]
        assert sum(rank < 3 for rank in ranks) >= 6, ranks
        reread = [index.search(query, k=1, rerank=5)[0].text == right for query, right in FACTS.items()]
        assert sum(reread) >= 5, reread
