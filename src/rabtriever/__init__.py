"""Rationale-based retrieval: distil a generative LLM reranker into an exact inner-product retriever.

The names below are imported when first used (PEP 562), so that ``import rabtriever`` costs milliseconds and loads
neither torch nor transformers.

Example:
    >>> import rabtriever
    >>> "Retriever" in dir(rabtriever)
    True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rabtriever.errors import DataError, InputError, MismatchError, RabtrieverError

if TYPE_CHECKING:
    from rabtriever.compiled import CompiledRetriever
    from rabtriever.data import Dataset, Document, Query
    from rabtriever.evaluation import evaluate
    from rabtriever.index import Index
    from rabtriever.prompt import Prompt, PromptConfig
    from rabtriever.reranker import Reranker
    from rabtriever.retriever import Retriever
    from rabtriever.training.config import DistillConfig, TeacherConfig
    from rabtriever.training.distill import distill

__version__ = "0.1.0"

__all__ = [
    "CompiledRetriever",
    "DataError",
    "Dataset",
    "DistillConfig",
    "Document",
    "Index",
    "InputError",
    "MismatchError",
    "Prompt",
    "PromptConfig",
    "Query",
    "RabtrieverError",
    "Reranker",
    "Retriever",
    "TeacherConfig",
    "__version__",
    "distill",
    "evaluate",
]

# Public name -> the module that defines it. None of these names is also a submodule of this package, so importing a
# submodule can never replace a function with a module.
_LAZY = {
    "CompiledRetriever": "rabtriever.compiled",
    "Dataset": "rabtriever.data",
    "DistillConfig": "rabtriever.training.config",
    "Document": "rabtriever.data",
    "Index": "rabtriever.index",
    "Prompt": "rabtriever.prompt",
    "PromptConfig": "rabtriever.prompt",
    "Query": "rabtriever.data",
    "Reranker": "rabtriever.reranker",
    "Retriever": "rabtriever.retriever",
    "TeacherConfig": "rabtriever.training.config",
    "distill": "rabtriever.training.distill",
    "evaluate": "rabtriever.evaluation",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value  # the next access costs nothing
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
