"""What one command line did, as the tests ask for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout, which must be one object of strict JSON and nothing else."""
        found = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert self.out.count("\n") == 1
        assert isinstance(found, dict)
        return found

    @property
    def error(self) -> dict[str, str]:
        """The error object, complete."""
        error = self.json["error"]
        assert set(self.json) == {"error"}
        assert set(error) == {"code", "message", "hint"}
        return error


Cli = Callable[..., Ran]
