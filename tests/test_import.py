"""Importing the package is quick and light, and every public name arrives from its own module."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import rabtriever

HEAVY = ["torch", "transformers", "numpy", "lancedb", "pyarrow", "pydantic", "typer", "rich", "huggingface_hub"]


def test_import_is_quick_and_light() -> None:
    code = (
        "import json, sys, time; start = time.perf_counter(); import rabtriever; seconds = time.perf_counter() - start;"
        f"print(json.dumps([seconds, [m for m in {HEAVY} if m in sys.modules]]))"
    )
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    assert all(heavy == [] for _, heavy in runs)
    assert min(seconds for seconds, _ in runs) < 0.3  # the best of three: a busy machine is not the package's doing


def test_lazy_names_are_public_and_shadow_no_submodule() -> None:
    assert set(rabtriever._LAZY) <= set(rabtriever.__all__) <= set(dir(rabtriever))
    modules = {module.removeprefix("rabtriever.").split(".")[0] for module in rabtriever._LAZY.values()}
    assert not modules & set(rabtriever.__all__)


@pytest.mark.parametrize("name", rabtriever.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(rabtriever, name) is getattr(rabtriever, name)


def test_functions_stay_functions_after_their_modules_are_imported() -> None:
    import rabtriever.evaluation
    import rabtriever.training.distill

    assert callable(rabtriever.distill)
    assert callable(rabtriever.evaluate)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Retreiver'"):
        _ = rabtriever.Retreiver
