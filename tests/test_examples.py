"""The examples in the docstrings run and show what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import rabtriever

MODULES = ["rabtriever", *(m.name for m in pkgutil.walk_packages(rabtriever.__path__, "rabtriever."))]


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__main__")])
def test_docstring_examples(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        optional = name.startswith(("rabtriever.integrations.", "rabtriever.push."))
        if not optional or (error.name or "").startswith("rabtriever"):
            raise
        pytest.skip(str(error))
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0
