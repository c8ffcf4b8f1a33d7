from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabtriever.data import Dataset, Document, Query, sample
from rabtriever.errors import DataError, InputError

CORPUS = '{"_id": "d1", "title": "", "text": "find a sponge"}\n{"_id": "d2", "title": "Door", "text": "open it"}\n'
QUERIES = '{"_id": "q1", "text": "I spilled my coke"}\n{"_id": "q2", "text": "let the cat out"}\n'
TEST = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t2\n"


def write(folder: Path, corpus: Any = CORPUS, queries: Any = QUERIES, **qrels: Any) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    for name, content in {
        "corpus.jsonl": corpus,
        "queries.jsonl": queries,
        **{f"qrels/{split}.tsv": text for split, text in (qrels or {"test": TEST}).items()},
    }.items():
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def refusal(folder: Path, **names: Any) -> str:
    with pytest.raises(DataError) as caught:
        Dataset.load(folder, **names)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(folder), "DIR")


def test_load(tmp_path: Path) -> None:
    dataset = Dataset.load(write(tmp_path / "toy"))
    assert dataset.name == "toy"
    assert dataset.corpus["d2"] == Document("d2", "open it", title="Door")
    assert dataset.corpus["d2"].content == "Door\nopen it"
    assert [query.id for query in dataset.split("test")] == ["q1", "q2"]
    assert dataset.relevant("test", "q1") == {"d1"}
    assert dataset.judgements("test")["q1"] == {"d1": 1, "d2": 0}


def test_queries_without_a_relevant_document_are_not_in_the_split(tmp_path: Path) -> None:
    dataset = Dataset.load(write(tmp_path, test="q2\td1\t1\nq1\td1\t0\n"))
    assert [query.id for query in dataset.split("test")] == ["q2"]


@pytest.mark.parametrize("convert", [lambda s: s.replace("\n", "\r\n"), lambda s: "\ufeff" + s, lambda s: "\n \n" + s])
def test_line_ends_byte_order_marks_and_blank_lines_change_nothing(tmp_path: Path, convert: Any) -> None:
    plain = Dataset.load(write(tmp_path / "plain"))
    other = Dataset.load(write(tmp_path / "other", convert(CORPUS), convert(QUERIES), test=convert(TEST)))
    assert (other.corpus, other.queries, other.qrels) == (plain.corpus, plain.queries, plain.qrels)
    assert other.fingerprint == plain.fingerprint


def test_header_of_qrels_may_be_missing(tmp_path: Path) -> None:
    assert Dataset.load(write(tmp_path, test="q1\td1\t1\n")).qrels == {"test": {"q1": {"d1": 1}}}


def test_texts_may_hold_nul_lone_surrogates_and_line_separators(tmp_path: Path) -> None:
    text = "a\0b\ud800c\u2028d"
    dataset = Dataset.load(write(tmp_path, json.dumps({"_id": "d1", "text": text}), test="q1\td1\t1"))
    assert dataset.corpus["d1"].text == text
    dataset.save(tmp_path / "copy")
    assert Dataset.load(tmp_path / "copy").corpus == dataset.corpus


def test_fields_of_other_names_become_metadata(tmp_path: Path) -> None:
    corpus = '{"_id": "d1", "text": "t", "url": "u", "metadata": {"room": "kitchen"}}'
    dataset = Dataset.load(write(tmp_path, corpus, test="q1\td1\t1"))
    assert dataset.corpus["d1"].metadata == {"url": "u", "room": "kitchen"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"_id": "d1", "text": ', "not valid JSON at column"),
        ("[1, 2]", "expected a JSON object, found an array"),
        ('{"_id": "d1", "text": "t", "x": NaN}', "NaN is not a JSON value"),
        ('{"_id": "d1", "text": "t", "x": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"text": "t"}', '"_id" is missing'),
        ('{"_id": "", "text": "t"}', '"_id" is empty'),
        ('{"_id": 17, "text": "t"}', "\"_id\" must be a string, found a number: '17'"),
        ('{"_id": "a\\tb", "text": "t"}', "holds a control character"),
        ('{"_id": "d1"}', '"text" is missing'),
        ('{"_id": "d1", "text": null}', '"text" must be a string, found null'),
        ('{"_id": "d1", "text": "t", "title": ["x"]}', '"title" must be a string, found an array'),
        ('{"_id": "d1", "text": "t", "metadata": "m"}', '"metadata" must be an object, found a string'),
        (b'{"_id": "d1", "text": "\xff"}', "byte 24 of the line is 0xff, not UTF-8"),
        ('{"_id": "d0", "text": "t"}', "the id 'd0' was used in line 1 already"),
    ],
)
def test_malformed_corpus(tmp_path: Path, line: str | bytes, message: str) -> None:
    raw = line if isinstance(line, bytes) else line.encode()
    error = refusal(write(tmp_path, b'{"_id": "d0", "text": "first"}\n\n' + raw))
    assert error.startswith("DIR/corpus.jsonl:3: ")
    assert message in error


def test_an_empty_query_is_refused_and_an_empty_document_is_not(tmp_path: Path) -> None:
    dataset = Dataset.load(write(tmp_path, '{"_id": "d1", "text": ""}', test="q1\td1\t1"))
    assert dataset.corpus["d1"].content == ""
    error = refusal(write(tmp_path, queries='{"_id": "q1", "text": " "}'))
    assert error.startswith('DIR/queries.jsonl:1: the "text" of the query is empty')


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("q1\td1", "expected 3 columns, found 2: 'q1\\td1'"),
        ("q1 d1 1", "expected 3 columns, found 1"),
        ("q1\td1\tyes", "the grade must be an integer, found 'yes'"),
        ("q1\td1\t0.5", "the grade must be an integer, found '0.5'"),
        ("q9\td1\t1", "the query file holds no query 'q9'"),
        ("q1\td9\t1", "the corpus holds no document 'd9'"),
        ("q2\td2\t0", "have grade 0 here but 2 in line 2"),
    ],
)
def test_malformed_qrels(tmp_path: Path, row: str, message: str) -> None:
    error = refusal(write(tmp_path, test=f"query-id\tcorpus-id\tscore\nq2\td2\t2\n{row}\n"))
    assert error.startswith("DIR/qrels/test.tsv:3: ")
    assert message in error


def test_a_pair_judged_twice_alike_is_accepted(tmp_path: Path) -> None:
    assert Dataset.load(write(tmp_path, test="q1\td1\t1\nq1\td1\t1\n")).relevant("test", "q1") == {"d1"}


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_missing_files(tmp_path: Path, missing: str) -> None:
    folder = write(tmp_path / "toy")
    (folder / missing).unlink()
    error = refusal(folder)
    assert error.startswith("DIR holds no ")
    assert missing.replace("test", "*") in error


def test_missing_and_empty(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith("DIR does not exist; a dataset is a folder with")
    file = tmp_path / "file"
    file.touch()
    assert refusal(file).startswith("DIR is not a folder")
    assert refusal(write(tmp_path / "a", corpus="\n\n")).startswith("DIR/corpus.jsonl holds no documents")
    assert refusal(write(tmp_path / "b", queries="")).startswith("DIR/queries.jsonl holds no queries")


def test_a_split_that_does_not_exist(tmp_path: Path) -> None:
    dataset = Dataset.load(write(tmp_path / "toy", zebra=TEST, test=TEST, train=TEST))
    with pytest.raises(DataError, match=r"'toy' has no split 'dev'; choose one of: train, test, zebra"):
        dataset.split("dev")


def test_a_split_without_judgements(tmp_path: Path) -> None:
    dataset = Dataset.load(write(tmp_path, dev="query-id\tcorpus-id\tscore\n", test=TEST))
    assert dataset.splits == ["test"]
    with pytest.raises(DataError, match=r"dev\.tsv holds no judgements"):
        dataset.split("dev")


def test_an_extra_split_of_other_files_is_refused_only_when_asked_for(tmp_path: Path) -> None:
    dataset = Dataset.load(write(tmp_path, test=TEST, failed="other\td1\t1\n"))
    assert dataset.splits == ["test"]
    with pytest.raises(DataError, match=r"failed\.tsv:1: the query file holds no query 'other'"):
        dataset.split("failed")
    with pytest.raises(DataError, match=r"failed\.tsv:1"):  # it may judge queries that would pass for unjudged ones
        _ = dataset.unjudged


def test_queries_in_no_split_are_unjudged() -> None:
    queries = {key: Query(key, key) for key in ("judged", "free", "refused", "free too")}
    qrels = {"train": {"judged": {"d": 1}}, "test": {"refused": {"d": 0}}}  # a grade of 0 is a judgement
    dataset = Dataset("toy", {"d": Document("d", "text")}, queries, qrels)
    assert [query.id for query in dataset.unjudged] == ["free", "free too"]


def test_other_files_of_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "queries.last.jsonl").write_text('{"_id": "q2", "text": "out"}\n')
    assert "holds no query 'q1'" in refusal(folder, queries="queries.last.jsonl")
    dataset = Dataset.load(folder, queries="queries.last.jsonl", skip_unknown_queries=True)
    assert [query.text for query in dataset.split("test")] == ["out"]


def test_built_by_hand_with_unknown_ids() -> None:
    with pytest.raises(DataError, match="unknown document id 'd9'"):
        Dataset("toy", {}, {"q1": Query("q1", "text")}, {"test": {"q1": {"d9": 1}}})


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = Dataset.load(write(tmp_path / "a"))
    turned = "\n".join(reversed(CORPUS.splitlines()))
    assert Dataset.load(write(tmp_path / "b", corpus=turned)).fingerprint == first.fingerprint
    for change in ({"corpus": CORPUS.replace("sponge", "mop")}, {"queries": QUERIES.replace("coke", "tea")}):
        assert Dataset.load(write(tmp_path / "c", **change)).fingerprint != first.fingerprint
    assert Dataset.load(write(tmp_path / "d", test=TEST, dev=TEST)).fingerprint != first.fingerprint


def test_save_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    dataset = Dataset.load(write(tmp_path / "a"))
    (tmp_path / "empty").mkdir()
    dataset.save(tmp_path / "empty")
    with pytest.raises(InputError, match="exists already"):
        dataset.save(tmp_path / "a")


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    dataset = Dataset("toy", {"d1": Document("d1", "t", metadata={"x": {1, 2}})}, {}, {})
    with pytest.raises(DataError, match="metadata of 'd1' cannot be written as JSON"):
        dataset.save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(lambda s: bool(s.strip()))
# JSON reads an escaped high surrogate followed by a low one as one character, so texts must not split a pair.
texts = st.text(st.characters(), max_size=20).map(
    lambda s: s.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
)
surrogates = st.builds(lambda a, b: a + "\ud83d" + b, texts, texts)
metadata = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | texts | surrogates, max_size=2)


@given(st.data())
def test_what_is_saved_is_what_is_loaded(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    documents = {i: Document(i, data.draw(texts | surrogates), data.draw(texts), data.draw(metadata))
                 for i in data.draw(st.sets(ids, min_size=1, max_size=4))}  # fmt: skip
    queries = {i: Query(i, "?" + data.draw(texts | surrogates), data.draw(metadata))
               for i in data.draw(st.sets(ids, min_size=1, max_size=4))}  # fmt: skip
    qrels = {"test": {q: {d: data.draw(st.integers(-1, 3)) for d in documents} for q in queries}}
    dataset = Dataset("toy", documents, queries, qrels)
    folder = tmp_path_factory.mktemp("save") / "toy"
    dataset.save(folder)
    loaded = Dataset.load(folder)
    assert loaded == dataset
    assert list(loaded.corpus) == list(dataset.corpus)
    assert loaded.fingerprint == dataset.fingerprint


json_like = st.sampled_from(
    ['{"_id": "d1", "text": "t"}', '{"_id": ', "NaN", "{", '"', "\\", "\t", "\n", "\x00", "q1", "1"]
)
garbage = st.binary(max_size=40) | st.lists(json_like).map(lambda parts: "".join(parts).encode())


@given(corpus=st.just(CORPUS.encode()) | garbage, queries=st.just(QUERIES.encode()) | garbage, test=garbage)
def test_garbage_is_refused_with_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, corpus: bytes, queries: bytes, test: bytes
) -> None:
    folder = write(tmp_path_factory.mktemp("garbage"), corpus, queries, test=test)
    try:
        Dataset.load(folder)
    except DataError as error:
        assert str(folder) in str(error)
        assert "\n" not in str(error)


def test_sample() -> None:
    queries = [Query(str(i), "text") for i in range(50)]
    assert sample(queries, None) == sample(queries, 50) == sample(queries, 99) == queries
    ten, twenty = sample(queries, 10, seed=3), sample(queries, 20, seed=3)
    assert len(ten) == 10
    assert [q for q in twenty if q in ten] == ten == sorted(ten, key=lambda q: int(q.id))
    assert sample(queries, 10, seed=4) != ten
    with pytest.raises(InputError, match="at least 1, found 0"):
        sample(queries, 0)


def test_example() -> None:
    dataset = Dataset.example()
    assert dataset.splits == ["train", "dev", "test"]
    assert all(dataset.relevant("test", query.id) for query in dataset.split("test"))


@pytest.mark.skipif("RABTRIEVER_DATA" not in os.environ, reason="RABTRIEVER_DATA names no folder of datasets")
def test_real_datasets() -> None:
    folders = sorted(p.parent for p in Path(os.environ["RABTRIEVER_DATA"]).glob("*/corpus.jsonl"))
    assert folders
    for folder in folders:
        dataset = Dataset.load(folder)
        assert all(dataset.split(split) for split in dataset.splits)
