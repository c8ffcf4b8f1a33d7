"""The two ways in which an exported student reads a text, as a query and as a document, and what it must give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from rabtriever.export.report import PROBES, Probe
from rabtriever.export.tokenizer import TowerTokenizer, document_tokenizer, query_tokenizer

if TYPE_CHECKING:
    from rabtriever.prompt import Prompt
    from rabtriever.retriever import Retriever

__all__ = ["Towers", "read_probes"]


@dataclass(frozen=True, slots=True)
class Towers:
    """A tokenizer for queries and one for documents, each with its part of the prompt inside.

    Attributes:
        prompt: What they stand for.
        query: Reads a text as a query.
        document: Reads a text as a document.

    Example:
        >>> Towers.of(student.reranker.prompt).notes()     # doctest: +SKIP
        []
    """

    prompt: Prompt
    query: TowerTokenizer
    document: TowerTokenizer

    @classmethod
    def of(cls, prompt: Prompt) -> Self:
        """Both tokenizers of a prompt.

        Raises:
            InputError: If the tokenizer has no pipeline of the tokenizers library.
        """
        return cls(prompt, query_tokenizer(prompt), document_tokenizer(prompt))

    def notes(self) -> list[str]:
        """What is not read as the student itself reads it, one sentence each."""
        config, notes = self.prompt.config, []
        if config.query_start not in (0, 1):
            end = "start" if self.query.config["truncation_side"] == "right" else "end"
            notes.append(
                f"A query of more than {config.max_query_tokens} tokens keeps its {end} only, where Rabtriever keeps "
                "both ends and leaves out the middle."
            )
        prompts = {name for name, tower in (("query", self.query), ("document", self.document)) if tower.prompt}
        if prompts:
            notes.append(
                f"The prompts that stand in its settings ({', '.join(sorted(prompts))}) write the space that the "
                "template has before a text: do not replace them."
            )
        if self.query.empty_is_space or self.document.empty_is_space:
            notes.append("An empty text is read as one space.")
        elif prompts:
            notes.append("A text that begins with one of the tokenizer's control tokens loses the space before it.")
        return notes


def read_probes(student: Retriever, towers: Towers) -> dict[str, Probe]:
    """What the student itself makes of the probes, text by text: of ``query`` and of ``document``.

    Example:
        >>> read_probes(student, towers)["query"].vectors.shape[1] == student.dimension      # doctest: +SKIP
        True
    """
    prompt = towers.prompt
    limit = len(prompt.parts.query_head) + prompt.config.max_query_tokens + len(prompt.parts.query_tail)
    one_end = prompt.config.query_start in (0, 1)
    queries = [text for text in PROBES if one_end or len(prompt.query_ids(text)) < limit]
    out = {}
    for route, texts, tower, read, encode in (
        ("query", queries, towers.query, prompt.query_ids, student.encode_query),
        ("document", list(PROBES), towers.document, prompt.document_ids, student.encode_document),
    ):
        kept = [text for text in texts if text or not tower.empty_is_space]
        vectors = np.concatenate([encode([text]) for text in kept])
        out[route] = Probe(kept, [read(text) for text in kept], vectors)
    return out
