"""The teacher store keeps what was committed, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rabtriever
from rabtriever.errors import DataError, InputError, MismatchError
from rabtriever.training import table
from rabtriever.training.store import TeacherStore, text_key

D = 6
FILES = ["queries.keys", "queries.states", "documents.keys", "documents.states"]
PAIR_FILES = ["pairs.keys", "pairs.states", "pairs.logits"]


def keys(*numbers: int) -> list[bytes]:
    return [text_key(f"text {n}") for n in numbers]


def states(*numbers: int) -> np.ndarray:
    return np.array([[n + 0.25] * D for n in numbers], np.float32).reshape(-1, D)


def pairs(*numbers: int) -> list[tuple[bytes, bytes]]:
    return [(text_key(f"query {n % 3}"), text_key(f"document {n}")) for n in numbers]


def logits(*numbers: int) -> np.ndarray:
    return np.array([[n, -n] for n in numbers], np.float32).reshape(-1, 2)


def add_pairs(store: TeacherStore, *numbers: int) -> None:
    store.add_pairs(pairs(*numbers), states(*numbers), logits(*numbers))


def check_pairs(store: TeacherStore, *numbers: int) -> None:
    assert store.missing_pairs(pairs(*numbers)) == []
    rows = store.pair_rows(pairs(*numbers))
    np.testing.assert_array_equal(store.pair_states[rows], states(*numbers).astype(np.float16))
    np.testing.assert_array_equal(store.pair_logits[rows], logits(*numbers))


@pytest.fixture
def store(tmp_path: Path) -> TeacherStore:
    return TeacherStore.open(tmp_path, "ab12", D)


def test_text_key() -> None:
    texts = ["", "a", "a ", "a\0", "\ud800", "ä", "a\u0308"]
    assert len({text_key(text) for text in texts}) == len(texts)
    assert text_key("a") == text_key("a") and len(text_key("x" * 10**6)) == 16


def test_states_come_back_in_the_order_asked_for(store: TeacherStore) -> None:
    assert store.missing_queries(keys(1, 2, 1)) == [0, 1]  # a repeated text is computed once
    store.add_queries(keys(1, 2), states(1, 2))
    assert store.missing_queries(keys(2, 3, 1)) == [1]
    np.testing.assert_array_equal(store.query_states(keys(2, 1, 2)), states(2, 1, 2))
    assert store.missing_documents(keys(1)) == [0]  # the tables are apart
    store.add_documents(keys(5), states(5))
    np.testing.assert_array_equal(store.document_states(keys(5)), states(5))
    assert store.query_states([]).shape == (0, D)


def test_pairs_are_read_by_row(store: TeacherStore) -> None:
    assert store.pair_states.shape == (0, D) and store.pair_logits.shape == (0, 2)
    add_pairs(store, 1, 2, 3)
    add_pairs(store, 3, 4)
    check_pairs(store, 4, 1, 3)
    assert isinstance(store.pair_states, np.memmap) and store.pair_states.shape == (4, D)
    assert not store.pair_states.flags.writeable
    assert store.missing_pairs([pairs(1)[0][::-1], pairs(9)[0], pairs(1)[0]]) == [0, 1]  # (document, query) is another


def test_what_is_stored_stays_as_it_is(store: TeacherStore) -> None:
    store.add_queries(keys(1, 1), states(1, 7))
    store.add_queries(keys(1, 2), states(9, 2))
    np.testing.assert_array_equal(store.query_states(keys(1, 2)), states(1, 2))
    store.add_queries([], states())


def test_a_missing_key_is_an_error(store: TeacherStore) -> None:
    with pytest.raises(KeyError, match="not in the store"):
        store.query_states(keys(1))


def test_reopened_and_shared_between_instances(store: TeacherStore, tmp_path: Path) -> None:
    other = TeacherStore.open(tmp_path, "ab12", D)
    add_pairs(store, 1, 2)
    assert other.missing_pairs(pairs(1, 3)) == [1]
    add_pairs(other, 2, 3)  # 2 is stored already
    old = store.pair_states
    store.refresh()
    check_pairs(store, 1, 2, 3)
    assert len(old) == 2 and len(store.pair_states) == 3
    check_pairs(TeacherStore.open(tmp_path, "ab12", D), 3, 2, 1)
    assert TeacherStore.open(tmp_path, "cd34", D).missing_pairs(pairs(1)) == [0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 70_000.0])
def test_what_does_not_fit_is_refused(store: TeacherStore, bad: float) -> None:
    values = states(1, 2)
    values[1, 3] = bad
    with pytest.raises(InputError, match=r"row 1 of pairs\.states is not a finite float16"):
        store.add_pairs(pairs(1, 2), values, logits(1, 2))
    assert store.missing_pairs(pairs(1, 2)) == [0, 1]
    with pytest.raises(ValueError, match="shape"):
        store.add_queries(keys(1, 2), states(1))
    with pytest.raises(ValueError, match="16 bytes"):
        store.add_queries([b"short"], states(1))


@pytest.mark.parametrize(("part", "size"), [("keys", 1), ("keys", 40), ("states", 5), ("states", 100), ("logits", 3)])
def test_uncommitted_rows_are_ignored_and_then_overwritten(
    store: TeacherStore, tmp_path: Path, part: str, size: int
) -> None:
    """As after a crash: rows without a key, half a row, half a key."""
    add_pairs(store, 1, 2)
    with (store.folder / f"pairs.{part}").open("ab") as file:
        file.write(b"\xff" * size)
    reopened = TeacherStore.open(tmp_path, "ab12", D)
    assert len(reopened.pair_states) == 2
    add_pairs(reopened, 3)
    check_pairs(TeacherStore.open(tmp_path, "ab12", D), 1, 2, 3)
    assert (store.folder / "pairs.keys").stat().st_size == 3 * 32
    assert (store.folder / "pairs.states").stat().st_size == 3 * 2 * D


@pytest.mark.parametrize("name", PAIR_FILES)
def test_a_file_cut_short_loses_only_its_tail(store: TeacherStore, tmp_path: Path, name: str) -> None:
    add_pairs(store, 1, 2, 3)
    os.truncate(store.folder / name, (store.folder / name).stat().st_size - 1)
    reopened = TeacherStore.open(tmp_path, "ab12", D)
    assert reopened.missing_pairs(pairs(1, 2, 3)) == [2]
    add_pairs(reopened, 4, 3)
    check_pairs(reopened, 1, 2, 3, 4)
    check_pairs(TeacherStore.open(tmp_path, "ab12", D), 1, 2, 3, 4)


@pytest.mark.parametrize("name", PAIR_FILES)
def test_a_file_that_is_gone_empties_the_table(store: TeacherStore, name: str) -> None:
    add_pairs(store, 1, 2)
    (store.folder / name).unlink()
    assert store.missing_pairs(pairs(1, 2)) == [0, 1]
    add_pairs(store, 2, 1)
    check_pairs(store, 1, 2)


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_full_disk_keeps_what_was_stored(
    store: TeacherStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    add_pairs(store, 1, 2)
    real, calls = table._append, []

    def full(path: Path, size: int, data: bytes) -> None:
        calls.append(path)
        if len(calls) <= fails_at:
            return real(path, size, data)
        real(path, size, bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(table, "_append", full)
    with pytest.raises(InputError, match="No space left") as caught:
        add_pairs(store, 3, 4)
    assert "free the disk" in caught.value.hint
    monkeypatch.undo()
    for survivor in (store, TeacherStore.open(tmp_path, "ab12", D)):
        check_pairs(survivor, 1, 2)
    add_pairs(store, 3, 4, 5)
    check_pairs(TeacherStore.open(tmp_path, "ab12", D), 1, 2, 3, 4, 5)
    assert len(store.pair_states) == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device_is_one_sentence(store: TeacherStore) -> None:
    (store.folder / "queries.states").symlink_to("/dev/full")
    with pytest.raises(InputError, match="cannot write to the teacher store"):
        store.add_queries(keys(1), states(1))
    assert store.missing_queries(keys(1)) == [0]


APPENDER = """
import sys
from pathlib import Path
import numpy as np
from rabtriever.training.store import TeacherStore, text_key
store = TeacherStore.open(Path(sys.argv[1]), "ab12", 6)
assert "torch" not in sys.modules
print("ready", flush=True)
for start in range(0, int(sys.argv[2]), 5):
    n = range(start, start + 5)
    pairs = [(text_key(f"query {i % 3}"), text_key(f"document {i}")) for i in n]
    store.add_pairs(pairs, np.array([[i + 0.25] * 6 for i in n]), np.array([[i, -i] for i in n]))
"""


def appender(root: Path, count: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(rabtriever.__file__).parents[1])}
    command = [sys.executable, "-c", APPENDER, str(root), str(count)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.25])
def test_a_killed_writer_leaves_a_valid_store(tmp_path: Path, seconds: float) -> None:
    process = appender(tmp_path, 10**6)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = TeacherStore.open(tmp_path, "ab12", D)
    stored = len(store.pair_states)
    check_pairs(store, *range(stored))
    add_pairs(store, stored + 1, stored)  # the lock died with its holder
    check_pairs(TeacherStore.open(tmp_path, "ab12", D), *range(stored + 2))


def test_two_processes_store_every_pair_once(tmp_path: Path) -> None:
    processes = [appender(tmp_path, 100) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    store = TeacherStore.open(tmp_path, "ab12", D)
    assert len(store.pair_states) == 100
    check_pairs(store, *range(100))


def test_another_store_is_refused(store: TeacherStore, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="hidden_size is 6, expected 7"):
        TeacherStore.open(tmp_path, "ab12", 7)
    header = store.folder / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"version": 99}))
    with pytest.raises(MismatchError, match="version is 99"):
        TeacherStore.open(tmp_path, "ab12", D)
    header.write_text("[]")
    with pytest.raises(MismatchError, match="format"):
        TeacherStore.open(tmp_path, "ab12", D)
    header.write_bytes(b'{"format": \xff')
    with pytest.raises(DataError, match="header"):
        TeacherStore.open(tmp_path, "ab12", D)


def test_a_store_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hexadecimal"):
        TeacherStore.open(tmp_path, "../up", D)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot use"):
        TeacherStore.open(tmp_path / "file", "ab12", D)


def test_a_held_lock_is_named(store: TeacherStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_LOCK_SECONDS", 0.05)
    with store._pairs.lock(), pytest.raises(InputError, match="locked by another process"):
        add_pairs(store, 1)


def test_what_is_on_disk(store: TeacherStore) -> None:
    store.add_queries(keys(1), states(1))
    store.add_documents(keys(1), states(1))
    add_pairs(store, 1)
    assert {path.name for path in store.folder.iterdir()} >= {"header.json", *FILES, *PAIR_FILES}
    assert (store.folder / "queries.states").read_bytes() == states(1).astype("<f4").tobytes()
