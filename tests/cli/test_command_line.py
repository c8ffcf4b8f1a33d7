"""The frame of the command line: help, versions, usage errors, exit codes, streams."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rabtriever
from cli.runner import Cli
from rabtriever.data import Dataset

VERBS = ["demo", "distill", "evaluate", "export", "index", "info", "rerank", "search", "serve", "train"]
PROGRAM = [sys.executable, "-m", "rabtriever"]
HEAVY = {"torch", "transformers", "numpy", "lancedb", "pyarrow", "yaml", "datasets", "fastapi", "uvicorn"}


def test_help_names_every_verb_and_answers_at_once() -> None:
    taken = []
    for _ in range(3):
        before = os.times()
        ran = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True)
        after = os.times()
        # Processor time: what the wall shows when no other program is running.
        taken.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert all(verb in ran.stdout for verb in VERBS)
    assert ran.stderr == ""
    assert min(taken) < 0.5


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from rabtriever.cli import main; "
        f"[main([verb, '--help']) for verb in {VERBS}]; main(['--help']); main(['--version']); "
        f"loaded = {HEAVY} & set(sys.modules); sys.exit(str(loaded) if loaded else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_takes_json(cli: Cli, verb: str) -> None:
    ran = cli(verb, "--help")
    assert ran.code == 0
    assert "--json" in ran.out
    assert ran.err == ""


def test_no_verb_shows_the_help(cli: Cli) -> None:
    ran = cli()
    assert (ran.code, ran.err) == (0, "")
    assert "Usage: rabtriever" in ran.out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"rabtriever {rabtriever.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serach"], "No such command 'serach'"),
        (["search"], "Missing argument"),
        (["search", "index", "query", "-k", "0"], "Invalid value for '-k'"),
        (["search", "index", "query", "-k", "many"], "Invalid value for '-k'"),
        (["search", "index", "query", "--frobnicate"], "No such option"),
        (["search", "index", "query", "extra"], "unexpected extra argument"),
        (["train", "data"], "Missing option"),
    ],
)
def test_bad_usage_is_one_sentence_and_exits_with_2(cli: Cli, arguments: list[str], message: str) -> None:
    ran = cli(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert message in ran.err
    assert "--help" in ran.err.splitlines()[-1]

    as_json = cli(*arguments, "--json")
    assert (as_json.code, as_json.err) == (2, "")
    assert as_json.error["code"] == "usage"
    assert message in as_json.error["message"]


def test_after_two_dashes_json_is_a_text(cli: Cli, tmp_path: Path) -> None:
    ran = cli("search", "--", tmp_path, "--json")
    assert (ran.code, ran.out) == (2, "")
    assert "is not an index" in ran.err


def test_a_fault_of_ours_exits_with_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr(Dataset, "example", broken)
    ran = cli("info", "example", "--json")
    assert ran.code == 1
    assert ran.error["code"] == "internal"
    assert ran.error["message"] == "ZeroDivisionError: a b"

    monkeypatch.setenv("RABTRIEVER_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli("info", "example")


def test_ctrl_c_exits_with_130_and_one_sentence() -> None:
    code = """
import os, signal, sys, time
from types import SimpleNamespace
from rabtriever.cli import main

def read():
    os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C while it waits for documents
    time.sleep(30)

sys.stdin = SimpleNamespace(buffer=SimpleNamespace(read=read))
sys.exit(main(["rerank", "model", "query", "-", "--json"]))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (130, "")
    assert ran.stdout.startswith('{"error": {"code": "interrupted", "message": "stopped; nothing was changed"')


@pytest.mark.parametrize("arguments", [["info", "example"], ["info", "example", "--json"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run([*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_full_disk_behind_stdout_is_told(option: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*PROGRAM, "info", "example", *option], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
    if not option:  # with --json the error belongs on stdout, which is what is full
        assert "standard output: no space left on device" in ran.stderr


def test_closed_streams_are_no_error() -> None:
    ran = subprocess.run(f"'{sys.executable}' -m rabtriever info example >&- 2>&-", shell=True, check=False)
    assert ran.returncode == 0
