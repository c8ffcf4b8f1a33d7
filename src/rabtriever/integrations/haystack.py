"""Haystack: a student as embedders of texts and documents, a teacher as a ranker.

Components take a model's name, as pipelines written to YAML need, or a loaded model, so that several of them share one
language model in memory.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.compiled import CompiledRetriever, load_student
from rabtriever.dual_encoder import DualEncoder
from rabtriever.errors import InputError
from rabtriever.index.records import whole_number
from rabtriever.integrations import missing_package

try:
    from haystack import Document, component, default_to_dict
except ModuleNotFoundError as error:
    raise missing_package("haystack-ai", "haystack", "haystack") from error

if TYPE_CHECKING:
    from rabtriever.retriever import Retriever

__all__ = ["RabtrieverDocumentEmbedder", "RabtrieverRanker", "RabtrieverTextEmbedder"]


class _Component:
    """What the components share: a model's name, and the model once it is needed."""

    def __init__(self, model: str | Path | Retriever | CompiledRetriever) -> None:
        self._student = model if isinstance(model, DualEncoder) else None
        self.model = model.path if isinstance(model, DualEncoder) else str(model)

    def to_dict(self) -> dict[str, Any]:
        """The component as a dictionary, as pipelines are written to YAML; the model by its name.

        Raises:
            InputError: If the model was never saved.
        """
        if self.model is None:
            raise InputError("the model was never saved, so a pipeline cannot name it", hint="save_pretrained it first")
        return default_to_dict(self, model=self.model)

    def warm_up(self) -> None:
        """Load the model, unless it is loaded; Haystack calls this before a pipeline runs."""
        self._loaded()

    def _loaded(self) -> Retriever | CompiledRetriever:
        if self._student is None:
            self._student = load_student(str(self.model))
        return self._student


@component
class RabtrieverTextEmbedder(_Component):
    """The folded vector of a query, for document stores that rank by **inner product** (``dot_product``).

    Args:
        model: A trained model or its export, by folder, name or hub id, or loaded.

    Raises:
        InputError: When the model is first needed, if nothing loadable is there.

    Example:
        >>> embedder = RabtrieverTextEmbedder("my-model")                        # doctest: +SKIP
        >>> len(embedder.run(text="I spilled my coke")["embedding"])             # doctest: +SKIP
        576
    """

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Encode a query."""
        return {"embedding": self._loaded().encode_query([text])[0].tolist()}


@component
class RabtrieverDocumentEmbedder(_Component):
    """Vectors of documents; a document's content is what the model reads.

    Args:
        model: A trained model or its export, by folder, name or hub id, or loaded.

    Raises:
        InputError: When the model is first needed, if nothing loadable is there.

    Example:
        >>> embedder = RabtrieverDocumentEmbedder("my-model")                    # doctest: +SKIP
        >>> embedder.run(documents=[Document(content="bring a sponge")])         # doctest: +SKIP
    """

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents, with their vectors."""
        vectors = self._loaded().encode_document([document.content or "" for document in documents])
        pairs = zip(documents, vectors.tolist(), strict=True)
        return {"documents": [replace(document, embedding=vector) for document, vector in pairs]}


@component
class RabtrieverRanker(_Component):
    """Orders documents anew: a student's teacher reads each one together with the query.

    Args:
        model: A trained model or its export, by folder, name or hub id, or loaded.
        top_k: How many documents to keep; all when left out.

    Raises:
        InputError: If ``top_k`` is below 1, or when the model is first needed, if nothing loadable is there.

    Example:
        >>> ranker = RabtrieverRanker("my-model", top_k=3)                              # doctest: +SKIP
        >>> ranker.run(query="I spilled my coke", documents=documents)["documents"]     # doctest: +SKIP
    """

    def __init__(self, model: str | Path | Retriever | CompiledRetriever, top_k: int | None = None) -> None:
        _Component.__init__(self, model)  # the decorator makes a new class, which super() does not know
        self.top_k = None if top_k is None else whole_number("top_k", top_k)

    def to_dict(self) -> dict[str, Any]:
        """The component as a dictionary, as pipelines are written to YAML; the model by its name.

        Raises:
            InputError: If the model was never saved.
        """
        found = _Component.to_dict(self)
        found["init_parameters"]["top_k"] = self.top_k
        return found

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """Copies of the best documents, best first, with log-odds as scores."""
        kept = self.top_k if top_k is None else whole_number("top_k", top_k)
        ranked = self._loaded().reranker.rank(query, [document.content or "" for document in documents], kept)
        return {"documents": [replace(documents[place], score=score) for place, score in ranked]}
