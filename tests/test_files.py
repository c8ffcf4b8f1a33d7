"""Files and folders are written whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import save_file

from rabtriever.errors import DataError, InputError
from rabtriever.files import atomic_folder, human_bytes, read_json, write_json, write_text

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
any_text = st.text(st.characters(codec=None))  # lone surrogates included
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


def save(path: Path, content: str = "new", **options: object) -> None:
    with atomic_folder(path, **options) as folder:  # type: ignore[arg-type]
        write_json(folder / "config.json", {"format_version": 1, "content": content})


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def content(path: Path) -> str:
    return str(read_json(path / "config.json")["content"])


@given(any_json)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_numpy_numbers_become_plain_ones(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"score": np.float32(0.5), "all": np.arange(3), "path": Path("x")})
    assert read_json(tmp_path / "a.json") == {"score": 0.5, "all": [0, 1, 2], "path": "x"}


def test_what_json_cannot_say_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    with pytest.raises(TypeError, match="a set has no JSON form"):
        write_json(path, {1, 2})
    assert read_json(path) == 1
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1,\n "b": }', r"bad\.json, line 2, column 7: not JSON"),
        (b'{"a": "\xff"}', r"bad\.json: byte 7 is not UTF-8"),
        (b"", r"bad\.json, line 1, column 1"),
    ],
)
def test_malformed_json_names_the_place(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "bad.json").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_json(tmp_path / "bad.json")


def test_unreadable_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(tmp_path / "a.json") == {}


def test_a_folder_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with atomic_folder(target) as folder:
        assert not target.exists()
        write_text(folder / "inner" / "a.txt", "a")
    assert (target / "inner" / "a.txt").read_text() == "a"
    assert names(target.parent) == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    save(tmp_path / "model", "old")
    with pytest.raises(error), atomic_folder(tmp_path / "model") as folder:
        write_text(folder / "config.json", "half")
        raise error
    assert content(tmp_path / "model") == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_process_leaves_the_old_folder(tmp_path: Path) -> None:
    save(tmp_path / "model", "old")
    code = (
        "import os, signal, sys; from rabtriever.files import atomic_folder, write_text\n"
        "with atomic_folder(sys.argv[1]) as folder:\n"
        "    write_text(folder / 'config.json', 'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "model")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert content(tmp_path / "model") == "old"


def test_a_former_version_is_replaced_whole(tmp_path: Path) -> None:
    save(tmp_path / "model", "old")
    (tmp_path / "model" / "stale.txt").touch()
    save(tmp_path / "model", "new")
    assert content(tmp_path / "model") == "new"
    assert names(tmp_path / "model") == ["config.json"]
    assert names(tmp_path) == ["model"]


def test_named_entries_are_kept_unless_written_anew(tmp_path: Path) -> None:
    save(tmp_path / "model", "old")
    save(tmp_path / "model" / "teacher", "teacher")
    save(tmp_path / "model", "new", keep=["teacher", "config.json", "absent"])
    assert content(tmp_path / "model") == "new"
    assert content(tmp_path / "model" / "teacher") == "teacher"


def test_a_folder_with_only_kept_entries_is_replaced(tmp_path: Path) -> None:
    save(tmp_path / "model" / "teacher", "teacher")
    save(tmp_path / "model", "new", keep=["teacher"])
    assert content(tmp_path / "model" / "teacher") == "teacher"


@pytest.mark.parametrize("config", [None, "{}", "not json", '["format_version"]'])
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, config: str | None) -> None:
    (tmp_path / "thesis.txt").touch()
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(InputError, match="holds other files, which would be lost"):
        save(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_without_a_marker_nothing_is_replaced(tmp_path: Path) -> None:
    save(tmp_path / "model", "old")
    with pytest.raises(InputError, match="never replaced"):
        save(tmp_path / "model", marker=None)
    (tmp_path / "empty").mkdir()
    save(tmp_path / "empty", marker=None)
    assert content(tmp_path / "empty") == "new"


def test_a_file_in_the_way_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with pytest.raises(InputError, match="is a file"):
        save(tmp_path / "model")
    with pytest.raises(InputError, match="cannot be written"):
        save(tmp_path / "model" / "inside")
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "model" / "a.txt", "a")


def test_a_symbolic_link_stays_and_leads_to_the_new_folder(tmp_path: Path) -> None:
    save(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "real") == "new"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as folder:
        save_file({"a": np.zeros(2)}, folder / "a.safetensors")
    (tmp_path / "ordinary").touch()
    ordinary = (tmp_path / "ordinary").stat().st_mode & 0o777
    assert (tmp_path / "model" / "a.safetensors").stat().st_mode & 0o777 == ordinary


def _fill_the_disk(folder: Path) -> None:
    (folder / "weights").symlink_to("/dev/full")
    (folder / "weights").write_bytes(b"x")


def _fail_as_safetensors_does(folder: Path) -> None:
    # Recorded on a full disk: its own exception type, the error's number in the text alone.
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("fill", [pytest.param(_fill_the_disk, marks=needs_dev_full), _fail_as_safetensors_does])
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    save(tmp_path / "model", "old")
    message = "the disk is full: .*model needs more than .* has .* left"
    with pytest.raises(InputError, match=message) as caught, atomic_folder(tmp_path / "model") as folder:
        fill(folder)
    assert caught.value.code == "disk_full"
    assert "untouched" in caught.value.hint
    assert content(tmp_path / "model") == "old"
    assert names(tmp_path) == ["model"]


def test_sizes_for_people() -> None:
    assert [human_bytes(n) for n in (0, 999, 1000, 5e6, 2.5e9, 7e15)] == [
        "0 bytes", "999 bytes", "1.0 kB", "5.0 MB", "2.5 GB", "7000.0 TB"
    ]  # fmt: skip
