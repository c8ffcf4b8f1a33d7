"""An exported graph gives the same vectors by its runtime and the tokenizers library alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from closeness import assert_same
from export.test_sentence_transformers import VARIANTS
from rabtriever import CompiledRetriever, Retriever
from rabtriever.cli import main
from rabtriever.errors import InputError, RabtrieverError
from rabtriever.export import export_graph, graph, report
from rabtriever.graph_folder import MARKER, Run, Runtime, query_graph

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

Students = Callable[..., Path]
QUERIES = ["I spilled my coke", "", "what now? " * 3, "<|im_end|></s> \u05e9\u05dc\u05d5\u05dd \U0001f680"]
DOCUMENTS = ["find a sponge", "close the drawer", "", "x" * 200]

ALONE = """
import sys, json, re
for name in ("torch", "transformers", "rabtriever", "sentence_transformers"):
    sys.modules[name] = None  # importing it fails
code = re.search(r"```python\\n(.*?)```", open("out/README.md").read(), re.S)[1]
exec(code)
texts = json.load(open("texts.json"))
np.savez("found.npz", queries=encode("query", texts[0]), documents=encode("document", texts[1]), scores=scores)
"""


def run_alone(folder: Path) -> dict[str, np.ndarray]:
    """Run the README's code in a process that has neither torch nor this package."""
    (folder / "texts.json").write_text(json.dumps([QUERIES, DOCUMENTS]))
    done = subprocess.run([sys.executable, "-c", ALONE], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "found.npz"))


@pytest.mark.parametrize(
    ("family", "runtime", "variant", "query_side"),
    [
        ("llama", "onnx", "low-rank", False),
        ("gpt2", "openvino", "three-layers", False),
        ("llama", "onnx", "three-layers", True),
        ("llama", "openvino", "low-rank", True),
    ],
)
def test_a_graph_gives_the_same_vectors(
    family: str,
    runtime: Runtime,
    variant: str,
    query_side: bool,
    student_folder: Students,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = student_folder(family, VARIANTS[variant], query_side=query_side)
    assert main(["export", str(folder), str(tmp_path / "out"), "--to", runtime, "--json"]) == 0
    assert (tmp_path / "out" / query_graph(runtime)).exists() == query_side
    captured = capfd.readouterr()  # exporters write to stdout and stderr, from Python and from C++
    assert "torch.onnx" not in captured.err
    found = json.loads(captured.out)
    assert found["to"] == json.loads((tmp_path / "out" / MARKER).read_text())["kind"] == runtime
    assert set(found["differences"]) == {"queries", "documents"}
    assert max(found["differences"].values()) < 1e-5
    assert min(found["milliseconds"].values()) > 0
    student = Retriever.from_pretrained(folder, dtype="float32")
    compiled = CompiledRetriever(tmp_path / "out", dtype="float32")
    assert_same(compiled.encode_query(QUERIES), student.encode_query(QUERIES))
    assert_same(compiled.score(QUERIES[0], DOCUMENTS), student.score(QUERIES[0], DOCUMENTS))
    alone = run_alone(tmp_path)
    assert_same(alone["queries"], student.encode_query(QUERIES))
    assert_same(alone["documents"], student.encode_document(DOCUMENTS))
    expected = student.similarity(student.encode_query(QUERIES[:1]), student.encode_document(DOCUMENTS[:2]))
    assert_same(alone["scores"], expected)  # with the head's bias, where there is one


def test_a_graph_that_disagrees_is_not_kept(
    student_folder: Students, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = Retriever.from_pretrained(student_folder("llama"), dtype="float32")
    width = student.dimension

    def wrong(folder: Path, runtime: Runtime, own_query: bool) -> Run:
        return lambda route, ids, mask, start: np.full((len(ids), width), 0.5, np.float32)

    monkeypatch.setattr(graph, "_trace", lambda *_: None)
    monkeypatch.setattr(graph, "open_graph", wrong)
    with pytest.raises(RabtrieverError, match="query vectors differ"):
        export_graph(student_folder("llama"), tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(InputError, match="needs the package onnx,") as caught:
        export_graph("nowhere", tmp_path / "out", "onnx")
    assert "rabtriever[onnx]" in caught.value.hint
