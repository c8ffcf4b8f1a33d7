"""Rabtriever inside other frameworks: one thin module each, imported by name, and only where its package is installed.

``langchain``, ``llama_index``, ``haystack`` and ``rerankers`` bring a framework's own kinds of component; ``mteb`` lets
its tasks evaluate a student; ``mcp`` serves an index to language-model applications.

Example:
    >>> from rabtriever.integrations.langchain import RabtrieverEmbeddings     # doctest: +SKIP
"""

from __future__ import annotations

__all__ = ["missing_package"]


def missing_package(package: str, module: str, extra: str) -> ModuleNotFoundError:
    """The error to raise where a framework is not installed.

    Args:
        package: What pip calls it.
        module: What Python calls it.
        extra: The extra of this package that brings it.

    Example:
        >>> missing_package("langchain-core", "langchain_core", "langchain")
        ModuleNotFoundError("this needs the package langchain-core: pip install 'rabtriever[langchain]'")
    """
    message = f"this needs the package {package}: pip install 'rabtriever[{extra}]'"
    return ModuleNotFoundError(message, name=module)
