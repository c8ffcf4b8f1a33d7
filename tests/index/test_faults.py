"""Faults of the machine itself: a disk that is really full, no permission, files cut short, a clock that goes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.doubles import HashingStudent, numbered
from rabtriever.errors import InputError, RabtrieverError
from rabtriever.index import Counts, Index

_PRELUDE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from index.doubles import HashingStudent, numbered
from rabtriever.errors import InputError
from rabtriever.index import Index
index = Index.open(sys.argv[1], HashingStudent())
"""
_SHIFTED_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    const char *shift = getenv("SHIFTED_SECONDS");
    if (!failed && shift && id == CLOCK_REALTIME) now->tv_sec += atol(shift);
    return failed;
}
"""
_DAY = 86_400


def _run(program: str, path: Path, **options: object) -> str:
    command = [sys.executable, "-c", _PRELUDE + program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_is_really_full_loses_nothing(small_disk: Path) -> None:
    index = Index.create(small_disk / "index", HashingStudent())
    index.add(numbered(0, 50))
    with pytest.raises(InputError) as caught:
        index.add(numbered(0, 100_000), batch_size=2000)
    assert (caught.value.code, "\n" in str(caught.value)) == ("disk_full", False)
    stored = index.count
    assert stored >= 50
    assert (stored - 50) % 2000 in (0, 1950)  # whole batches
    assert len(index.search("q", k=stored + 1)) == stored
    with pytest.raises(InputError):
        index.accelerate()

    index.close()
    with Index.open(index.path, HashingStudent()) as again:
        assert again.count == stored
        assert again.check().clean
        subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
        assert again.add(numbered(0, stored + 10)) == Counts(added=10, unchanged=stored)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to work as somebody else")
def test_a_folder_of_somebody_else_is_read_and_not_written(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and len(folder.parts) > 2:
            folder.chmod(0o755)
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 20))
    program = """
import os
index.search("q", k=30), index.accelerate()  # all that is imported is imported now, while it may be
os.setgid(65_534), os.setuid(65_534)
index = Index.open(sys.argv[1], HashingStudent())
print(len(index.search("q", k=30)))
for write in (lambda: index.add([("a", "b")]), lambda: index.delete("d1"), index.compact, index.accelerate):
    try:
        write()
    except InputError as error:
        print("refused" if "\\n" not in str(error) else str(error))
"""
    assert _run(program, index.path).split() == ["20", "refused", "refused", "refused", "refused"]
    assert index.refresh() == index.version
    assert index.count == 20


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_data_files_cut_short_are_named_and_never_give_wrong_hits(tmp_path: Path, keep: float) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 60), batch_size=20)
    hits = {hit.id: hit for hit in index.search("q", k=60)}
    path = index.path
    index.close()
    for file in sorted(path.glob("documents.lance/data/*.lance")):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(keep * len(whole))])
        try:
            with Index.open(path, HashingStudent()) as opened:
                found = opened.search("q", k=60)
            assert all(hits[hit.id] == hit for hit in found)
            assert len(found) == 60, "documents went missing without a word"
        except RabtrieverError as error:
            assert "\n" not in error.message
            assert str(path) in error.message
        file.write_bytes(whole)
    with Index.open(path, HashingStudent()) as opened:
        assert opened.check().clean
        assert {hit.id: hit for hit in opened.search("q", k=60)} == hits


@pytest.fixture
def shifted(tmp_path: Path) -> dict[str, str]:
    """An environment in which a process's clock can be shifted."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(_SHIFTED_CLOCK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return os.environ | {"LD_PRELOAD": str(library)}


def test_a_clock_that_goes_back_loses_nothing(tmp_path: Path, shifted: dict[str, str]) -> None:
    index = Index.create(tmp_path / "index", HashingStudent())
    index.add(numbered(0, 30))
    reader = Index.open(index.path, HashingStudent())
    hits = index.search("q", k=30)
    index.upsert([("d0", "changed")])
    yesterday, tomorrow = (shifted | {"SHIFTED_SECONDS": str(days * _DAY)} for days in (-1, 1))
    clock = "import time; print(time.time())"
    then, now, later = (
        float(subprocess.check_output([sys.executable, "-c", clock], env=place))
        for place in (yesterday, shifted, tomorrow)
    )
    assert then < now - _DAY / 2
    assert now < later - _DAY / 2
    _run('index.upsert([("d1", "written yesterday")]); index.delete("d2"); index.compact()', index.path, env=yesterday)
    assert reader.search("q", k=30) == hits  # its version is kept, though newer ones look older
    _run('index.upsert([("d3", "written tomorrow")]); index.compact()', index.path, env=tomorrow)
    _run("index.add(numbered(30, 40)); index.compact()", index.path, env=yesterday)
    assert reader.search("q", k=30) == hits
    index.refresh()
    changed = {"d0": "changed", "d1": "written yesterday", "d3": "written tomorrow"}
    expected = {document.id: document.text for document in numbered(0, 40)} | changed
    del expected["d2"]
    assert {document.id: document.text for document in index.documents()} == expected
    assert [version.number for version in index.versions()] == sorted(version.number for version in index.versions())
    assert index.check().clean
    reader.close()
    assert index.compact().versions > 1  # those that seem to be of tomorrow stay until then, which harms nobody
    after = shifted | {"SHIFTED_SECONDS": str(2 * _DAY)}
    assert _run("print(index.compact().versions)", index.path, env=after) == "1\n"
    index.refresh()
    assert {document.id: document.text for document in index.documents()} == expected
