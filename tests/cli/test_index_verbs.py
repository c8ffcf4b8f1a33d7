"""The verbs of an index, with a model that is none: the index never asks what makes its vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.runner import Cli
from index.doubles import HashingStudent


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("model", "other"):
        (tmp_path / name).mkdir()

    def from_pretrained(path: Path, **_: object) -> HashingStudent:
        return HashingStudent(path=str(path), fingerprint=f"student {Path(path).name}")

    retriever = SimpleNamespace(Retriever=SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "rabtriever.retriever", retriever)
    file = tmp_path / "skills.jsonl"
    lines = [f'{{"id": "d{i}", "text": "skill number {i}", "n": {i}}}' for i in range(30)]
    file.write_text("\n".join([*lines[:20], "oops", *lines[20:]]) + "\n")
    return file


@pytest.fixture
def index(cli: Cli, corpus: Path, tmp_path: Path) -> Path:
    ran = cli("index", tmp_path / "model", corpus, "-o", tmp_path / "index", "--on-error", "skip", "--json")
    assert (ran.code, ran.json["added"], ran.json["skipped"]) == (0, 30, 1)
    assert "skills.jsonl:21" in Path(ran.json["skipped_in"]).read_text()
    return tmp_path / "index"


def test_a_bad_line_stops_before_anything_is_written(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    ran = cli("index", tmp_path / "model", corpus, "-o", tmp_path / "index", "--json")
    assert (ran.code, ran.error["code"]) == (2, "bad_data")
    assert "skills.jsonl:21" in ran.error["message"]
    assert not (tmp_path / "index").exists()


def test_documents_are_listed_shown_and_deleted(cli: Cli, index: Path) -> None:
    listed = cli("list", index, "--filter", "n < 3", "--json").json
    assert (listed["total"], [found["id"] for found in listed["documents"]]) == (30, ["d0", "d1", "d2"])
    assert cli("list", index, "--start", "29").out == "d9  skill number 9\n"  # long ones were written first
    assert cli("list", index, "--limit", "0").out == "no documents\n"
    shown = cli("get", index, "d3", "d4", "--json").json["documents"]
    assert shown[0] == {"id": "d3", "title": "", "text": "skill number 3", "metadata": {"n": 3}}
    assert cli("get", index, "d3").out == "d3\nskill number 3\n"
    assert cli("delete", index, "d3", "nobody", "--json").json == {"deleted": 1, "documents": 29}
    missing = cli("get", index, "d3", "--json")
    assert (missing.code, "no document has the id 'd3'" in missing.error["message"]) == (2, True)


def test_search_takes_words_and_a_threshold(cli: Cli, index: Path) -> None:
    hits = cli("search", index, "17", "--hybrid", "--json").json["hits"]
    assert cli("search", index, "17", "--fusion", "1000", "--json").json["hits"][0]["id"] == "d17"
    assert cli("search", index, "17", "--fusion", "0.5", "--json").json["hits"] == hits
    assert cli("search", index, "17", "--fusion", "0", "--json").json == cli("search", index, "17", "--json").json
    assert "d17" in [hit["id"] for hit in cli("search", index, "17", "--fusion", "ranks", "--json").json["hits"]]
    assert "BM25's weight" in cli("search", index, "17", "--fusion", "rank", "--json").json["error"]["message"]
    assert all(
        hit["probability"] >= 0.5 for hit in cli("search", index, "q", "--threshold", "0.5", "--json").json["hits"]
    )
    assert cli("search", index, "q", "--threshold", "2", "--json").code == 2


def test_versions_come_back_and_compaction_forgets_them(cli: Cli, index: Path) -> None:
    before = cli("versions", index, "--json").json["versions"]
    cli("delete", index, "d1")
    restored = cli("restore", index, str(before[-1]["number"]), "--json").json
    assert restored["documents"] == 30
    assert len(cli("versions", index).out.splitlines()) == len(before) + 2
    compacted = cli("compact", index, "--json").json
    assert compacted["versions"] == 1
    assert "version(s) kept" in cli("compact", index).out
    gone = cli("restore", index, str(before[-1]["number"]), "--json")
    assert (gone.code, "has no version" in gone.error["message"]) == (2, True)


def test_damage_is_named_and_mended(cli: Cli, index: Path) -> None:
    assert cli("check", index, "--json").json == {"clean": True, "documents": 30, "version": 3, "cache": "none"}
    assert "nothing is wrong" in cli("check", index).out
    (file,) = (index / "documents.lance" / "data").iterdir()
    data = file.read_bytes()
    file.write_bytes(data.replace(b"skill number 7", b"skull number 7"))
    damaged = cli("check", index, "--json")
    assert (damaged.code, damaged.error["code"]) == (2, "damaged")
    assert "'d7' is damaged" in damaged.error["message"]
    repaired = cli("repair", index, "--json").json
    assert (repaired["removed"], repaired["encoded"], repaired["versions_left_behind"]) == (["d7"], [], 0)
    assert cli("check", index).code == 0
    assert "0 encoded again, 0 taken out" in cli("repair", index).out


def test_the_cache_and_another_model(cli: Cli, index: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    assert cli("accelerate", index, "--json").json["documents"] == 30
    assert "cached" in cli("accelerate", index).out
    assert cli("check", index, "--json").json["cache"] == "ready"
    moved = cli("reindex", index, tmp_path / "other", "--json")
    assert moved.json == {"index": str(index), "documents": 30}
    assert cli("search", index, "q", "-k", "30", "--json").json["hits"] != []
    refused = cli("reindex", index, tmp_path / "other", "--json")
    assert (refused.code, "already" in refused.error["message"]) == (2, True)


@pytest.mark.parametrize(("engine", "package"), [("qdrant", "qdrant_client"), ("milvus", "milvus_lite")])
def test_an_engine_answers_for_an_index_that_was_pushed(
    cli: Cli, index: Path, tmp_path: Path, engine: str, package: str
) -> None:
    pytest.importorskip(package)
    url = tmp_path / ("there.db" if engine == "milvus" else "there")
    assert cli("push", index, "--to", engine, url, "--name", "skills", "--json").json["written"] == 30
    through = ["search", index, "q", "--through", engine, url, "--name", "skills"]
    found, own = (cli(*words, "--json").json for words in (through, ["search", index, "q"]))
    assert [hit["id"] for hit in found["hits"]] == [hit["id"] for hit in own["hits"]]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit["score"] for hit in own["hits"]])
    likely, all_of_them = (
        cli(*through, "-k", "30", *more, "--json").json["hits"] for more in (["--threshold", "0.5"], [])
    )
    assert 0 < len(likely) < len(all_of_them) == 30
    assert all(hit["probability"] >= 0.5 for hit in likely)
    refused = cli(*through, "--rerank", "3", "--json")
    assert (refused.code, "--rerank is answered by the index itself" in refused.error["message"]) == (2, True)
    elsewhere = cli("search", index, "q", "--through", "elsewhere", url, "--json")
    assert (elsewhere.code, "unknown engine 'elsewhere'" in elsewhere.error["message"]) == (2, True)
    nothing = cli("search", index, "q", "--through", engine, url, "--json")
    assert "no such collection" in nothing.error["message"]


def test_the_numbers_of_vectors_are_settled_when_an_index_is_made(cli: Cli, tmp_path: Path, corpus: Path) -> None:
    arguments = ["index", tmp_path / "model", corpus, "-o", tmp_path / "half", "--on-error", "skip"]
    assert cli(*arguments, "--dtype", "float16").code == 0
    assert cli(*arguments).code == 0
    other = cli(*arguments, "--dtype", "float32", "--json")
    assert (other.code, "stores vectors as float16, not float32" in other.error["message"]) == (2, True)


def test_passages_are_settled_when_an_index_is_made(cli: Cli, tmp_path: Path, corpus: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("word " * 100)
    arguments = ["index", tmp_path / "model", long, "-o", tmp_path / "passages"]
    assert cli(*arguments, "--passages", "50").code == 0
    assert cli(*arguments).code == 0
    other = cli(*arguments, "--passages", "60", "--json")
    assert (other.code, "cuts documents into passages otherwise" in other.error["message"]) == (2, True)


def test_codes_of_single_bits_are_tried_for_queries_of_a_file(cli: Cli, index: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    file = tmp_path / "queries.txt"
    file.write_text("\n".join(f"question {i}" for i in range(40)))
    ran = cli("accelerate", index, "--fast", file, "--json")
    assert (ran.code, ran.json["codes"] in ("rabitq", "sq8")) == (0, True)
    assert 0 < ran.json["bits_recall"] <= 1
    file.write_text("one\ntwo")
    few = cli("accelerate", index, "--fast", file, "--json")
    assert (few.code, "found 2" in few.error["message"]) == (2, True)


def test_codes_stay_within_the_memory_given(cli: Cli, index: Path) -> None:
    pytest.importorskip("faiss")
    assert cli("accelerate", index, "--memory", "1 MB", "--json").json["codes"] == "sq8"
    assert cli("accelerate", index, "--memory", "20", "--json").json["codes"] is None
    assert "searched exactly" in cli("accelerate", index, "--memory", "20").out
    for value in ("much", "-5"):
        refused = cli("accelerate", index, f"--memory={value}", "--json")
        assert (refused.code, value in refused.error["message"]) == (2, True)
