"""What every test runs under: no network beyond what a test asks for, fixed seeds, a fixed number of threads."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from rabtriever.backbone import Backbone

# Set before torch or huggingface_hub is imported; they read these once. One thread: sums come out the same on every
# machine, and tiny models run faster so.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "CUDA_VISIBLE_DEVICES": "",
}.items():
    os.environ.setdefault(name, value)

# A shell ignores Ctrl-C on behalf of what it runs in the background; the tests of Ctrl-C work there as well.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("rabtriever", deadline=None, max_examples=40, derandomize=True, print_blob=True)
settings.load_profile("rabtriever")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed whichever libraries are loaded; tests that need no torch do not pay for importing it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2-135M. Tests that use it carry ``@pytest.mark.slow``."""
    from rabtriever.base_models import resolve_base
    from rabtriever.errors import InputError

    try:
        return resolve_base("smollm2-135m")
    except InputError as error:
        if error.code != "fetch_failed":
            raise
        pytest.skip(f"SmolLM2-135M is neither in the cache nor to be fetched: {error}")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a folder with a random model of a family, once a session; tests that change one copy it first."""
    import peft  # noqa: F401

    from rabtriever.training import trainer  # noqa: F401
    from tiny_models import tiny_model_folder

    gc.freeze()  # every training ends with a garbage collection, half a second over all that these libraries hold

    @cache
    def folder(family: str = "llama", **options: Any) -> Path:
        return tiny_model_folder(tmp_path_factory.mktemp(family) / family, family, **options)

    return folder


@pytest.fixture(scope="session")
def tiny_backbone(tiny_folder: Callable[..., Path]) -> Callable[..., Backbone]:
    """Loads a random model of a family in float32, once a session, to be used and not to be changed."""
    from rabtriever.backbone import Backbone

    @cache
    def load(family: str = "llama", **options: Any) -> Backbone:
        return Backbone.load(tiny_folder(family, **options), "float32")

    return load
