from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabtriever.data import Document, read_documents
from rabtriever.errors import DataError


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_documents(path))
    return str(caught.value).replace(str(path.parent), "DIR")


def test_jsonl(tmp_path: Path) -> None:
    path = file(tmp_path, "d.jsonl", '{"id": "a", "text": "one", "room": 3}\n\n{"_id": "b", "text": "", "title": "T"}')
    assert list(read_documents(path)) == [
        Document("a", "one", metadata={"room": 3}),
        Document("b", "", title="T"),
    ]


def test_csv_with_line_breaks_commas_and_a_long_field(tmp_path: Path) -> None:
    long = "x" * 500_000
    content = f'\ufeffid,text,room\r\na,"one, ""two""\nthree",kitchen\r\n\r\nb,{long},\r\n'
    first, second = read_documents(file(tmp_path, "d.CSV", content))
    assert first == Document("a", 'one, "two"\nthree', metadata={"room": "kitchen"})
    assert second.text == long


def test_tsv_reads_quotes_as_text(tmp_path: Path) -> None:
    path = file(tmp_path, "d.tsv", '_id\ttext\ttitle\na\t"Hello" he said, "\tT\n')
    assert list(read_documents(path)) == [Document("a", '"Hello" he said, "', title="T")]


def test_text_takes_the_line_number_as_id(tmp_path: Path) -> None:
    assert list(read_documents(file(tmp_path, "d.txt", "one\n\nthree"))) == [
        Document("1", "one"),
        Document("3", "three"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", '{"id": "a", "text": "t"}\n{"id": "a", "text": "t"}', "d.jsonl:2: the id 'a' was used in line 1"),
        ("d.csv", "name,text\na,b\n", "d.csv:1: the header has no column _id or id: 'name,text'"),
        ("d.csv", "id,body\na,b\n", "d.csv:1: the header has no column text"),
        ("d.csv", "id,text,text\na,b,c\n", "d.csv:1: a column name occurs twice"),
        ("d.csv", 'id,text\na,"one\ntwo"\nb,x,y\n', "d.csv:4: expected 2 columns as in the header, found 3: 'b,x,y'"),
        ("d.csv", 'id,text\na,"never closed\n', "d.csv:2: not valid CSV"),
        ("d.csv", "id,text\n,b\n", 'd.csv:2: "id" is empty'),
        ("d.csv", "", "d.csv holds no documents"),
        ("d.txt", "\n \n", "d.txt holds no documents"),
        ("d.txt", b"one\n\xfe\n", "d.txt:2: byte 1 of the line is 0xfe, not UTF-8"),
        ("d.pdf", "x", "d.pdf has the ending '.pdf', which no reader knows; use one of: .jsonl, .csv, .tsv, .txt"),
    ],
)
def test_malformed(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    assert refusal(file(tmp_path, name, content)).startswith(f"DIR/{message}")


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):  # before anything is asked of the iterator
        read_documents(tmp_path / "d.txt")
    (tmp_path / "folder.csv").mkdir()
    assert "is not a file" in refusal(tmp_path / "folder.csv")


@given(name=st.sampled_from(["d.jsonl", "d.csv", "d.tsv", "d.txt"]), content=st.binary(max_size=40))
def test_garbage_is_refused_with_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, content: bytes
) -> None:
    header = b'id,text\na,"' if name == "d.csv" else b"id\ttext\n" if name == "d.tsv" else b""
    path = file(tmp_path_factory.mktemp("garbage"), name, header + content)
    try:
        list(read_documents(path))
    except DataError as error:
        assert str(path) in str(error)
