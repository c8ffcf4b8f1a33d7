"""An exported graph stands for its student wherever one is asked for, and needs neither torch nor transformers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from closeness import assert_same
from rabtriever import CompiledRetriever, Index, Retriever
from rabtriever.cli import main
from rabtriever.compiled import load_student
from rabtriever.errors import DataError, InputError, MismatchError
from rabtriever.export import export_graph
from rabtriever.graph_folder import MARKER, PIPELINE, START
from toy_data import NEEDS, TOOLS

pytest.importorskip("openvino")

QUERIES = [*NEEDS, "", "what now? " * 60, "<|im_end|></s> \u05e9\u05dc\u05d5\u05dd \U0001f680", "lone \ud800 surrogate"]
DOCUMENTS = [*TOOLS, "", "x" * 3, "a long document " * 80]

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers"):
    sys.modules[name] = None  # importing it fails
from rabtriever import CompiledRetriever, Index
with Index.open("index", CompiledRetriever("out", dtype="float32")) as index:
    print([hit.id for hit in index.search(sys.argv[1], k=3)])
"""


@pytest.fixture(scope="session")
def pair(student_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student's folder, and what it was exported to; neither is to be changed."""
    source, out = student_folder("llama"), tmp_path_factory.mktemp("compiled") / "out"
    export_graph(source, out, "openvino")
    return source, out


def copied(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    return shutil.copytree(pair[1], tmp_path / "out")


def test_it_gives_the_students_vectors(pair: tuple[Path, Path]) -> None:
    student, compiled = Retriever.from_pretrained(pair[0], dtype="float32"), load_student(pair[1], dtype="float32")
    assert isinstance(compiled, CompiledRetriever)
    assert (compiled.dimension, compiled.bias) == (student.dimension, student.bias)
    assert (compiled.fingerprint, compiled.path) == (student.fingerprint, str(pair[1]))
    assert compiled.document_fingerprint == student.document_fingerprint
    queries, documents = student.encode_query(QUERIES), student.encode_document(DOCUMENTS)
    assert_same(compiled.encode_query(QUERIES), queries)
    assert_same(compiled.encode_document(DOCUMENTS), documents)
    assert_same(np.concatenate([compiled.encode_query([text]) for text in QUERIES]), queries)
    assert_same(compiled.similarity(queries, documents), student.similarity(queries, documents))
    assert_same(compiled.score(NEEDS[0], TOOLS), student.score(NEEDS[0], TOOLS))
    assert compiled.encode_query([]).shape == (0, student.dimension)
    prompts = compiled.reranker.prompt, student.reranker.prompt
    assert [prompts[0].query_ids(text) for text in QUERIES] == [prompts[1].query_ids(text) for text in QUERIES]
    assert [prompts[0].document_ids(text) for text in DOCUMENTS] == [prompts[1].document_ids(t) for t in DOCUMENTS]


def test_what_all_documents_begin_with_is_read_once(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    student, compiled = Retriever.from_pretrained(pair[0], dtype="float32"), load_student(pair[1], dtype="float32")
    begun = len(student.reranker.prompt.parts.document_head)
    assert begun > 0
    run, seen = compiled._run, []

    def counted(route: str, ids: Any, mask: Any, start: Any) -> Any:
        seen.append((route, int(mask.sum()), start.shape[2]))
        return run(route, ids, mask, start)

    monkeypatch.setattr(compiled, "_run", counted)
    tokens = sum(len(student.reranker.prompt.document_ids(tool)) for tool in TOOLS)
    assert_same(compiled.encode_document(TOOLS), student.encode_document(TOOLS))
    compiled.encode_query([NEEDS[0]])
    documents, query = seen
    assert documents == ("document", tokens - begun * len(TOOLS), begun)
    assert query[2] == 0


def test_a_damaged_start_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    out = copied(pair, tmp_path)
    (out / START).write_bytes(b"no tensors")
    with pytest.raises(DataError, match=f"{START} does not load"):
        CompiledRetriever(out)
    (out / START).unlink()
    with pytest.raises(DataError, match=f"{START} does not load"):
        CompiledRetriever(out)


def test_by_default_it_computes_in_what_the_processor_multiplies(pair: tuple[Path, Path]) -> None:
    exact = Retriever.from_pretrained(pair[0], dtype="float32").encode_document(TOOLS)
    found = CompiledRetriever(pair[1]).encode_document(TOOLS)
    cosines = np.sum(exact * found, 1) / (np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1))
    assert cosines.min() > 0.99  # as far as bfloat16 itself is from float32 in so small a model


def test_many_threads_get_their_own_answers(pair: tuple[Path, Path]) -> None:
    compiled = CompiledRetriever(pair[1], dtype="float32")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: compiled.encode_query([text])[0], QUERIES * 4))
    assert_same(np.stack(found), np.tile(compiled.encode_query(QUERIES), (4, 1)))


def test_an_index_takes_either_for_the_other(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = Retriever.from_pretrained(pair[0], dtype="float32")
    with Index.create(tmp_path / "index", student) as index:
        index.add(list(enumerate_ids(TOOLS)))
        expected = index.search(NEEDS[0], k=3)
        reranked = index.search(NEEDS[0], k=3, rerank=3)
    compiled = CompiledRetriever(pair[1], dtype="float32")
    with Index.open(tmp_path / "index", compiled) as index:
        found = index.search(NEEDS[0], k=3)
        assert [hit.id for hit in found] == [hit.id for hit in expected]
        assert_same([hit.score for hit in found], [hit.score for hit in expected])
        again = index.search(NEEDS[0], k=3, rerank=3)
        assert [hit.id for hit in again] == [hit.id for hit in reranked]
        assert index.add(list(enumerate_ids(TOOLS))).unchanged == len(TOOLS)
    verb = ["search", str(tmp_path / "index"), NEEDS[0], "-k", "3", "--json"]
    assert main([*verb, "--model", str(pair[1])]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["id"] == expected[0].id
    assert main(["info", str(pair[1]), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["runtime"], said["source"]) == ("export", "openvino", str(pair[0]))
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TOOLS))
    assert main(["index", str(pair[1]), str(corpus), "-o", str(tmp_path / "second")]) == 0
    capsys.readouterr()
    assert main(["search", str(tmp_path / "second"), NEEDS[0], "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["text"] == expected[0].text
    shutil.copytree(pair[1], tmp_path / "out")
    code = [sys.executable, "-c", WITHOUT_TORCH, NEEDS[0]]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([hit.id for hit in expected]), done.stderr


def test_it_is_evaluated_like_its_student(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for model in pair:
        arguments = ["evaluate", str(model), "example", "--systems", "student,hybrid", "--limit", "20"]
        assert main([*arguments, "-o", str(tmp_path / "report.json")]) == 0
        found.append(json.loads((tmp_path / "report.json").read_text())["per_query"])
    for system in ("student", "hybrid"):  # both compute in float32 or both in bfloat16, which rounds in its own way
        values = [np.array(list(report[system]["MRR@10"].values())) for report in found]
        assert np.mean(values[0] != values[1]) <= 0.2
    capsys.readouterr()
    assert main(["evaluate", str(pair[1]), "example", "--systems", "student,teacher"]) == 2
    assert "answers as the student alone" in capsys.readouterr().err


def enumerate_ids(texts: list[str] | tuple[str, ...]) -> list[tuple[str, str]]:
    return [(f"d{number}", text) for number, text in enumerate(texts)]


def test_what_is_wrong_with_a_folder_is_said(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = copied(pair, tmp_path)
    with pytest.raises(InputError, match="expected a list of texts"):
        CompiledRetriever(folder).encode_query("one text")
    marker = json.loads((folder / MARKER).read_text())

    def changed(**values: object) -> None:
        (folder / MARKER).write_text(json.dumps({**marker, **values}))

    changed(kind="sentence-transformers")
    with pytest.raises(InputError, match="is an export for sentence-transformers"):
        load_student(folder)
    changed(format_version=1)
    with pytest.raises(InputError, match="format_version is 1"):
        load_student(folder)
    changed(bias="much")
    with pytest.raises(DataError, match="bias is wrong"):
        load_student(folder)
    changed()
    (folder / "openvino_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"openvino_model\.xml does not load"):
        load_student(folder)
    (folder / PIPELINE).write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json does not load"):
        load_student(folder)


def test_a_runtime_that_is_not_installed_is_named(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="openvino, which is not installed") as caught:
        CompiledRetriever(pair[1])
    assert caught.value.code == "missing_package"
    assert "rabtriever[openvino]" in caught.value.hint


def test_the_teacher_must_be_the_one_it_was_exported_with(
    pair: tuple[Path, Path], student_folder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = copied(pair, tmp_path)
    marker = json.loads((folder / MARKER).read_text())
    marker.update(relative_source=None, source=str(tmp_path / "gone"))
    (folder / MARKER).write_text(json.dumps(marker))
    with pytest.raises(InputError, match="reranks by the teacher of the model it was exported from"):
        CompiledRetriever(folder).reranker.score("a", ["b"])
    marker["source"] = str(student_folder("gpt2"))
    (folder / MARKER).write_text(json.dumps(marker))
    with pytest.raises(MismatchError, match="another model"):
        CompiledRetriever(folder).reranker.score("a", ["b"])
