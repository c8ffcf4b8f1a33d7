"""Progress: plain lines with rate and time left, never in the way of the work."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest

from rabtriever import progress
from rabtriever.progress import PlainProgress, RichProgress, SilentProgress, format_duration, format_rate


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_plain_lines_are_rare_and_carry_rate_time_left_and_note(clock: list[float]) -> None:
    stream = io.StringIO()
    with PlainProgress(stream, interval=5).task("train", total=100, unit="steps") as task:
        for _ in range(100):
            clock[0] += 0.5
            task.note("loss 0.31")
            task.advance()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10  # one every 5 of 50 seconds, the last one being the end
    assert lines[1] == "train: 20/100 steps, 2.0 steps/s, 40s left (loss 0.31)"
    assert lines[-1] == "train: 100 steps in 50s (loss 0.31)"


def test_what_a_resumed_run_had_done_does_not_count_in_the_rate(clock: list[float]) -> None:
    stream = io.StringIO()
    with PlainProgress(stream, interval=5).task("train", total=1000, unit="steps") as task:
        task.advance(900)
        for _ in range(5):
            clock[0] += 1
            task.advance()
    assert stream.getvalue().splitlines()[0] == "train: 905/1,000 steps, 1.0 steps/s, 1m35s left"


def test_a_closed_stream_does_not_stop_the_work() -> None:
    stream = io.StringIO()
    stream.close()
    with PlainProgress(stream, interval=0).task("train") as task:
        task.advance()


def test_an_error_inside_a_task_writes_no_end_line() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyError), PlainProgress(stream).task("train"):
        raise KeyError
    assert stream.getvalue() == ""


def test_a_short_task_leaves_no_line(clock: list[float]) -> None:
    stream = io.StringIO()
    for seconds in (0.5, 1.0):
        with PlainProgress(stream).task("read", unit="files") as task:
            task.advance()
            clock[0] += seconds
    assert stream.getvalue() == "read: 1 files in 1s\n"


def test_rich_tasks_nest_and_end_with_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_WORTH_A_LINE", 0.0)
    bars = RichProgress()
    with bars.task("outer [bold]", total=2, unit="epochs") as outer:
        with bars.task("inner", unit="pairs") as inner:
            inner.advance(7)
            bars.say("a [word] aside")
        outer.advance(2)
        outer.note("MRR 0.5")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "a [word] aside" in captured.err
    assert captured.err.splitlines()[-1].startswith("outer [bold]: 2 epochs in ")


def test_the_library_is_silent_by_default() -> None:
    assert isinstance(progress.default(), SilentProgress)


def test_on_stderr_writes_plain_lines_when_it_is_no_terminal() -> None:
    assert isinstance(progress.on_stderr(), PlainProgress)


def test_importing_progress_does_not_import_rich() -> None:
    code = "import sys, rabtriever.progress; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("seconds", "text"), [(0, "0.0s"), (59.6, "1m00s"), (3599.9, "1h00m"), (90, "1m30s")])
def test_durations_round_into_the_next_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_rate_of_nothing_is_not_shown() -> None:
    assert format_rate(0, "steps") == ""
