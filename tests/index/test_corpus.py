from __future__ import annotations

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rabtriever.data import Document
from rabtriever.errors import DataError
from rabtriever.index.corpus import Corpus

_GOOD = {
    "a.jsonl": b'\xef\xbb\xbf{"id": "a", "text": "one", "room": "hall"}\r\n\n{"_id": "b", "text": "two"}\n',
    "b.csv": b'id,text,room\nc,"three\nlines, or ""so""",hall\n\nd,four,\n',
    "c.tsv": b'id\ttext\te\ne\tfive "quoted\t1\n',
    "d.txt": b"six\n\nseven\n",
}


def _write(folder: Path, files: dict[str, bytes]) -> list[str]:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return [str(folder / name) for name in files]


def test_every_kind_of_file(tmp_path: Path) -> None:
    names = _write(tmp_path, _GOOD)
    when = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    table = pa.table({"id": [7, 8], "text": ["eight", "nine"], "when": [when, None], "tags": [["x"], []]})
    pq.write_table(table, tmp_path / "e.parquet")
    _write(
        tmp_path,
        {"notes/b.md": b"eleven", "notes/a.txt": b"ten\nlines", "notes/deep/c.txt": b"", "notes/x.png": b"\xff"},
    )
    corpus = Corpus([*names, str(tmp_path / "e.parquet"), str(tmp_path / "notes")])
    documents = list(corpus)
    assert len(corpus) == len(documents) == 12
    assert documents == list(corpus)
    assert documents[0] == Document("a", "one", metadata={"room": "hall"})
    assert documents[2] == Document("c", 'three\nlines, or "so"', metadata={"room": "hall"})
    assert documents[4] == Document("e", 'five "quoted', metadata={"e": "1"})
    assert [(d.id, d.text) for d in documents[5:7]] == [("1", "six"), ("3", "seven")]
    assert documents[7] == Document("7", "eight", metadata={"when": when.isoformat(), "tags": ["x"]})
    assert documents[8] == Document("8", "nine", metadata={"tags": []})
    assert [(d.id, d.text) for d in documents[9:]] == [
        ("a.txt", "ten\nlines"),
        ("b.md", "eleven"),
        ("deep/c.txt", ""),
    ]  # in order


_BAD = {
    "a.jsonl": b'{"id": "a", "text": "one"}\n{oops\n{"id": "b"}\n{"id": "c", "text": "\xff"}\n'
    b'{"id": "a", "text": "x"}\n'
    b'{"id": "d", "text": "two"}\n{"id": "n", "text": "x", "v": NaN}\n[1]\n',
    "b.csv": b'id,text\ne,three\nf,too,many\ng,\xe9\nh,"qu"ote\ni,four\n,empty\n',
}


def test_bad_lines_are_skipped_counted_and_written_down(tmp_path: Path) -> None:
    corpus = Corpus(_write(tmp_path, _BAD), on_error="skip")
    assert [document.id for document in corpus] == ["a", "d", "e", "i"]
    assert len(corpus) == 4
    places = [(Path(one.file).name, one.line) for one in corpus.skipped]
    assert places == [("a.jsonl", n) for n in (2, 3, 4, 5, 7, 8)] + [("b.csv", n) for n in (3, 4, 5, 7)]
    assert "a.jsonl:2: not valid JSON" in corpus.skipped[0].problem
    assert "0xff, not UTF-8" in corpus.skipped[2].problem
    assert "the id 'a' is in" in corpus.skipped[3].problem
    corpus.write_skipped(tmp_path / "skipped.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert lines[0] == {"file": str(tmp_path / "a.jsonl"), "line": 2, "problem": corpus.skipped[0].problem}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jsonl": b'{"id": "a", "text": "x"}\nnot json\n'}, "a.jsonl:2: not valid JSON"),
        ({"a.jsonl": b'{"id": "a", "text": "\xff"}\n'}, "a.jsonl:1: byte 22 of the line is 0xff, not UTF-8"),
        ({"a.csv": b"name,text\n1,x\n"}, "a.csv:1: the header has no column _id or id"),
        ({"a.csv": b"id,text,text\n1,x,y\n"}, "a.csv:1: a column name occurs twice"),
        ({"a.csv": b"id,text\n1,x,y\n"}, "a.csv:2: expected 2 columns as in the header, found 3"),
        ({"a.txt": b"x\n", "b.txt": b"y\n"}, "b.txt:1: the id '1' is in "),
        ({"a.jsonl": b""}, "a.jsonl holds no documents"),
        ({"a.pdf": b"x"}, "has the ending '.pdf'"),
        ({"a.parquet": b"PAR1 no"}, "not a Parquet file"),
        ({"n/a.txt": b"\xff"}, "a.txt: byte 1 is not UTF-8"),
    ],
)
def test_the_first_bad_line_stops_by_default(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    names = _write(tmp_path, files)
    with pytest.raises(DataError) as caught:
        Corpus([str(tmp_path / "n")] if "n/a.txt" in files else names)
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_nothing_but_bad_lines_is_refused_even_when_skipping(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no line holds a document"):
        Corpus(_write(tmp_path, {"a.jsonl": b"oops\n"}), on_error="skip")
    with pytest.raises(DataError, match="does not exist"):
        Corpus([str(tmp_path / "nothing")], on_error="skip")
