"""What happens when processes are killed, disks fill up and two write at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.errors import DataError, InputError
from rabtriever.index import Counts, Index

_TESTS = Path(__file__).parents[1]
_PRELUDE = f"""
import os, sys
from contextlib import contextmanager
sys.path.insert(0, {str(_TESTS)!r})
from index.doubles import HashingStudent, numbered
from rabtriever.index import Index
from rabtriever.progress import SilentProgress
"""


def _start(program: str, *arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _PRELUDE + program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_was_acknowledged_survives_sigkill_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """Killed at several moments of adding; progress counts a document only once it is stored."""
    path, student = tmp_path / "index", HashingStudent()
    Index.create(path, student)
    program = """
class Acknowledged(SilentProgress):
    done = 0
    @contextmanager
    def task(self, description, total=None, unit=""):
        yield self
    def advance(self, n=1):
        self.done += n
        print(self.done, flush=True)
index = Index.open(sys.argv[1], HashingStudent())
index.add(numbered(0, 5000), batch_size=10, progress=Acknowledged())
"""
    acknowledged = 0
    for wait in (0.0, 0.017):
        process = _start(program, path)
        assert process.stdout is not None
        seen = next(int(line) for line in process.stdout if int(line) >= acknowledged + 50)
        time.sleep(wait)
        process.kill()
        whole_lines = process.communicate()[0].split("\n")[:-1]
        acknowledged = max(seen, *map(int, whole_lines), 0)
        index = Index.open(path, student)
        assert acknowledged <= len(index) <= acknowledged + 20
        assert len(index) % 10 == 0  # no batch is half there
        assert {hit.id for hit in index.search("q", k=len(index))} == {f"d{i}" for i in range(len(index))}
    stored = len(index)
    assert index.add(numbered(0, stored + 25)) == Counts(added=25, unchanged=stored)
    assert len(student.encoded) == 25


def test_two_processes_that_add_the_same_ids_make_no_duplicates(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    other = _start(
        """
index = Index.open(sys.argv[1], HashingStudent())
print("ready", flush=True)
index.add(numbered(0, 100), batch_size=10)
""",
        index.path,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    index.add(numbered(0, 100), batch_size=10)
    _, problems = other.communicate(timeout=60)
    assert other.returncode == 0, problems
    assert index.refresh() >= 12
    assert len(index) == 100
    assert {hit.id for hit in index.search("q", k=1000)} == {f"d{i}" for i in range(100)}


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the write fails in the same place."""
    resource = pytest.importorskip("resource")
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 50))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match="cannot write to the index") as caught:
            index.add(numbered(0, 5000), batch_size=5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "disk_full"
    assert "\n" not in str(caught.value)
    assert ".rs" not in str(caught.value)
    assert len(index) == 50
    assert index.add(numbered(0, 60)) == Counts(added=10, unchanged=50)


def test_every_commit_is_flushed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    flushed: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (flushed.append(str(Path(f"/proc/self/fd/{fd}").readlink())), real(fd))[1]
    )
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see what is flushed")
    index.add(numbered(0, 5))
    files = {str(path) for path in (index.path / "documents.lance").rglob("*") if path.is_file()}
    assert files <= set(flushed)
    assert {str(Path(name).parent) for name in files} <= set(flushed)
    flushed.clear()
    index.add(numbered(0, 5))
    assert flushed == []  # nothing was written
    index.delete("d1")
    new = {str(path) for path in (index.path / "documents.lance").rglob("*") if path.is_file()} - files
    assert {name for name in flushed if Path(name).is_file()} == new


def test_damaged_files_are_named(tmp_path: Path) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 50))
    for manifest in (index.path / "documents.lance" / "_versions").iterdir():
        manifest.write_bytes(b"no manifest")
    with pytest.raises(DataError, match="index") as caught:
        Index.open(index.path, HashingStudent())
    assert "\n" not in caught.value.message


def test_ctrl_c_keeps_the_batches_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = HashingStudent()
    index = Index.create(tmp_path / "index", student)
    encode = student.encode_document

    def interrupted(texts: list[str]) -> object:
        if len(student.encoded) >= 20:
            raise KeyboardInterrupt
        return encode(texts)

    monkeypatch.setattr(student, "encode_document", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.add(numbered(0, 100), batch_size=10)
    assert len(index) == len(index.search("q", k=100)) == 20
    monkeypatch.undo()
    assert index.add(numbered(0, 100)) == Counts(added=80, unchanged=20)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_long_add_keeps_no_memory(tmp_path: Path) -> None:
    """Memory grows with the window and not with what was stored: nine kilobytes a document stayed once."""
    program = """
import psutil
import numpy as np
class Wide(HashingStudent):
    def encode_document(self, texts):
        return np.ones((len(texts), 384), np.float32)
def documents():
    for number in range(24_000):
        if number in (4_096, 20_480):
            print(psutil.Process().memory_info().rss, flush=True)
        yield (f"t{number}", f"text {number}")
with Index.create(sys.argv[1], Wide(dimension=384)) as index:
    index.add(documents(), batch_size=256, window=8)
"""
    pytest.importorskip("psutil")
    out, problems = _start(program, tmp_path / "index").communicate(timeout=300)
    first, later = map(int, out.split())
    assert later - first < 64e6, problems
