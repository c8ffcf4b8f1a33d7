"""What a command writes: strict JSON, text that cannot harm a terminal, and errors in one sentence."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest

from rabtriever.cli.failures import describe
from rabtriever.cli.output import Interrupted, one_line, session, table, to_json, write
from rabtriever.errors import DataError, RabtrieverError


def test_json_holds_no_numpy_and_no_nan() -> None:
    payload = {
        "f": np.float32(0.5),
        "i": np.int64(3),
        "a": np.array([1.0, np.nan, np.inf]),
        "t": (1, {2}),
        "p": Path("a/b"),
        1: True,
        "none": None,
    }
    assert json.loads(to_json(payload)) == {
        "f": 0.5,
        "i": 3,
        "a": [1.0, None, None],
        "t": [1, [2]],
        "p": "a/b",
        "1": True,
        "none": None,
    }


def test_json_carries_lone_surrogates_through_any_encoding() -> None:
    line = to_json({"text": "a\ud800 é"})
    line.encode("ascii")
    assert json.loads(line) == {"text": "a\ud800 é"}


def test_text_that_the_terminal_cannot_show_is_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write("é \ud800", stream)
    assert raw.getvalue() == b"\\xe9 \\ud800\n"


def test_a_closed_stdout_is_no_error() -> None:
    write("text", None)


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert one_line("a\x1b[2J\nb\u202ec\ud800") == "a [2J b c"
    assert one_line("x" * 500, 10) == "x" * 9 + "…"
    assert len(one_line("a " * 10**6, 100)) <= 100


def test_a_table_takes_text_as_it_is() -> None:
    text = table(["system", "R@1"], [["[bold]dense:x[/bold]", "0.5"]])
    assert "[bold]dense:x[/bold]" in text
    assert "\x1b" not in text


def test_what_a_library_prints_does_not_reach_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with session(as_json=True) as out:
        print("chatter")
        out.emit({"a": 1}, "text")
    captured = capsys.readouterr()
    assert captured.out == '{"a": 1}\n'
    assert captured.err == "chatter\n"


def test_ctrl_c_becomes_the_sentence_of_the_command() -> None:
    with pytest.raises(Interrupted, match="half of it is kept"), session(False, interrupted="half of it is kept"):
        raise KeyboardInterrupt
    failure = describe(Interrupted("half of it is kept"))
    assert (failure.code, failure.exit_code) == ("interrupted", 130)


@pytest.mark.parametrize(
    ("error", "code", "exit_code", "message"),
    [
        (DataError("corpus.jsonl:3: no id"), "bad_data", 2, "corpus.jsonl:3: no id"),
        (RabtrieverError("the index is locked"), "internal", 1, "the index is locked"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "os_error", 2, "a/b: no space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "os_error", 2, "a: permission denied"),
        (OSError("Can't load\nthe tokenizer"), "os_error", 2, "Can't load the tokenizer"),
        (ModuleNotFoundError("no", name="scipy.stats"), "missing_package", 2, "this needs the package scipy"),
        (MemoryError(), "out_of_memory", 1, "the memory does not suffice"),
        (KeyboardInterrupt(), "interrupted", 130, "stopped"),
        (ValueError("a\n  b"), "internal", 1, "ValueError: a b"),
        (ModuleNotFoundError("no", name="lost"), "internal", 1, "ModuleNotFoundError: no"),
    ],
)
def test_every_exception_has_a_code_and_a_sentence(
    error: BaseException, code: str, exit_code: int, message: str
) -> None:
    failure = describe(error)
    assert (failure.code, failure.exit_code) == (code, exit_code)
    assert failure.message.startswith(message)
    assert "\n" not in failure.message
    assert failure.hint or isinstance(error, (RabtrieverError, OSError))
