"""Running the command line in this process, with what it wrote and its exit code."""

from __future__ import annotations

import pytest

from cli.runner import Cli, Ran
from rabtriever.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Ran:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, captured.err)

    return run
