"""The documentation builds strictly, its code runs, and its commands are ones that there are."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import typer

from rabtriever import Index, Retriever
from rabtriever.cli import main
from rabtriever.cli.app import app
from rabtriever.data import Dataset
from rabtriever.embedded_models import EMBEDDED
from rabtriever.export import export_parquet, export_sentence_transformers
from tiny_models import tiny_model_folder
from toy_data import toy_dataset

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)```", re.DOTALL)
INDENTED = re.compile(r"^    (rabtriever .*)$", re.MULTILINE)
INLINE = re.compile(r"`(rabtriever [^`]+)`")
MADE_THERE = {"README.md": ("my-model", "my-index")}
"""What a page's own code makes."""


@pytest.fixture(scope="module")
def provided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the pages' code takes as given; a small random model stands for SmolLM2."""
    folder = tmp_path_factory.mktemp("docs")
    base = folder / "cache" / "base_models" / "smollm2-135m"
    tiny_model_folder(base, "llama", layers=14, hidden=16)
    (base / "provenance.json").write_text(json.dumps({"source": asdict(EMBEDDED["smollm2-135m"])}))
    data: Dataset = toy_dataset()
    data.save(folder / "place" / "my-dataset")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RABTRIEVER_CACHE", str(folder / "cache"))
        patch.chdir(folder / "place")
        assert main(["train", "my-dataset", "-o", "my-model", "--set", "teacher.epochs=0.2"]) == 0
        student = Retriever.from_pretrained("my-model")
        with Index.create("my-index", student) as index:
            index.add(
                [{"_id": d.id, "text": d.text, "metadata": {"category": "cleaning"}} for d in data.corpus.values()]
            )
        export_parquet("my-index", "my-index.parquet")
        export_sentence_transformers("my-model", "my-model-st")
        yield folder / "place"


@pytest.fixture
def place(provided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one page."""
    shutil.copytree(provided, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_code_of_a_page_runs(page: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in MADE_THERE.get(page.name, ()):
        shutil.rmtree(place / name)
    scope: dict[str, Any] = {"__name__": "docs"}
    if page.name == "indexes.md":
        scope["student"] = Retriever.from_pretrained("my-model")
    for block in BLOCK.finditer(page.read_text()):
        if block["reason"]:
            assert len(block["reason"]) > 10, "say why"
        elif block["language"] == "python":
            try:
                exec(compile(block["code"], page.name, "exec"), scope)
            except ModuleNotFoundError as error:
                if (error.name or "").startswith("rabtriever"):
                    raise
                pytest.skip(str(error))  # an extra's; `make install` brings all of them
        elif block["language"] == "sh":
            for line in block["code"].splitlines():
                assert main(shlex.split(line, comments=True)[1:]) == 0, line
        else:
            assert block["language"] in ("json", "yaml", ""), f"a block of {block['language']} says why it is not run"
    for name in ("index", "model"):
        if name in scope and hasattr(scope[name], "close"):
            scope[name].close()
    capsys.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_commands_of_a_page_are_known(page: Path) -> None:
    text = BLOCK.sub("", page.read_text())
    group: Any = typer.main.get_command(app)
    for line in [*INDENTED.findall(text), *INLINE.findall(text)]:
        verb, *arguments = [part for part in shlex.split(line.replace("\n", " "), comments=True)[1:] if part != "..."]
        if verb.startswith("-") or verb == verb.upper():
            continue
        command = group.commands[verb]
        wanted = [p for p in command.params if p.param_type_name == "argument"]
        if len(arguments) < len([p for p in wanted if p.required]):
            continue  # a verb that is only named
        options = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
        unknown = [part for part in arguments if part.startswith("-") and part.partition("=")[0] not in options]
        assert not unknown, f"{line}: {unknown}"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    if importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs mkdocs-material and mkdocstrings: pip install 'rabtriever[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    verbs = (tmp_path / "reference" / "command-line" / "index.html").read_text()
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f'id="{name}"' in verbs
    assert 'id="rabtriever.reranker.Reranker"' in (tmp_path / "reference" / "python" / "index.html").read_text()
    for html in tmp_path.rglob("*.html"):  # nothing is loaded from another host
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', html.read_text())
        assert not [url for url in loaded if "canonical" not in url], html.name
