"""The teacher: a causal LM that reads document, then query, and answers ``<T>`` or ``<F>`` (Eq. 7 and 9)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rabtriever.backbone import Backbone
from rabtriever.base_models import at_revision
from rabtriever.errors import InputError
from rabtriever.head import AnswerRows
from rabtriever.hub import Pushable
from rabtriever.numerics import DType
from rabtriever.prefix import Prefix
from rabtriever.progress import Progress, SilentProgress
from rabtriever.prompt import Prompt, PromptConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rabtriever.artifacts import BaseIdentity
    from rabtriever.data import Dataset
    from rabtriever.training.budget import Budget
    from rabtriever.training.config import TeacherConfig

__all__ = ["Reranker"]

_PREFIX_BYTES = 1 << 30
"""Memory for the keys and values of documents that may be asked for again."""

_BLOCK_TOKENS = 16_384
"""Documents are read in blocks of so many tokens, whose keys and values wait in memory for their queries."""


class Reranker(Pushable):
    """Scores how well each document answers a query, one pass of the language model per pair.

    The score is the log-odds ``log P(<T>) - log P(<F>)``; Eq. 9's own quantity is
    :func:`rabtriever.losses.paper_relevance`.
    A document's keys and values are computed once and kept within a memory budget, so that a second query costs the
    query's tokens alone.

    Args:
        backbone: The language model.
        prompt: The instruction for its tokenizer.
        base: Which base model the weights come from, for the artefacts made from it.
        weights_hash: Identifies the weights; the base model's own when left out.
        prefix_bytes: Memory for documents read before.

    Example:
        >>> teacher = Reranker.from_pretrained("smollm2-135m")                                   # doctest: +SKIP
        >>> teacher.score("I spilled my coke", ["find a sponge", "close the drawer"]).shape      # doctest: +SKIP
        (2,)
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: Prompt,
        base: BaseIdentity | None = None,
        *,
        weights_hash: str | None = None,
        prefix_bytes: int = _PREFIX_BYTES,
    ) -> None:
        limit = backbone.positions
        if limit is not None and prompt.longest > limit:
            raise InputError(
                f"prompts of up to {prompt.longest} tokens do not fit the model's {limit} positions",
                hint="lower prompt.max_document_tokens or prompt.max_query_tokens",
            )
        self.backbone = backbone
        self.prompt = prompt
        self.base = base
        self.weights_hash = weights_hash or (base.fingerprint if base else "")
        self.rows: AnswerRows = backbone.answer_rows(prompt.true_id, prompt.false_id)
        self.prefix_bytes = prefix_bytes
        self.training: dict[str, Any] = {}
        self.adapter: dict[str, Tensor] | None = None
        self.adapter_config: Any = None
        self._kept: OrderedDict[str, Prefix] = OrderedDict()
        self._kept_bytes = 0

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        prompt: PromptConfig | None = None,
        dtype: DType = "auto",
        device: str = "auto",
        revision: str | None = None,
    ) -> Reranker:
        """Load a trained reranker, a trained retriever's teacher, or any causal LM as an untrained reranker.

        Args:
            name: A folder made by :meth:`save_pretrained`, a folder in Hugging Face layout, a hub id, or the name of
                an embedded base model (``smollm2-135m``).
            prompt: The instruction, for an untrained model; a trained one brings its own.
            dtype: What to compute in; ``auto`` asks the processor.
            device: A torch device; ``auto`` takes CUDA where there is one.
            revision: The hub's branch, tag or commit; a part of the name does it too, as ``org/name@revision``.

        Raises:
            InputError: If nothing loadable is there.
            MismatchError: If base model, tokenizer or prompt differ from those it was trained with.
        """
        from rabtriever.model_folder import load_reranker

        return load_reranker(at_revision(name, revision), prompt=prompt, dtype=dtype, device=device)

    def save_pretrained(self, path: str | Path) -> None:
        """Write the model to a folder, atomically: ``config.json``, ``backbone/`` and a model card."""
        from rabtriever.model_folder import save_reranker

        save_reranker(self, Path(path))

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds that each document answers the query, ``(n,)``."""
        if isinstance(documents, str):
            raise InputError("expected a list of documents, got one string", hint="write [document]")
        return self.score_pairs([(query, document) for document in documents])

    def predict_proba(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """The calibrated relevance ``P(T) / (P(T) + P(F))`` of each document, ``(n,)``."""
        probabilities: NDArray[np.float32] = torch.from_numpy(self.score(query, documents)).sigmoid().numpy()
        return probabilities

    def rank(self, query: str, documents: Sequence[str], k: int | None = None) -> list[tuple[int, float]]:
        """Positions of the ``k`` best documents with their log-odds, best first; ties keep the order given."""
        scores = self.score(query, documents)
        order = np.argsort(-scores, kind="stable")[:k]
        return [(int(position), float(scores[position])) for position in order]

    def score_pairs(self, pairs: Sequence[tuple[str, str]], progress: Progress | None = None) -> NDArray[np.float32]:
        """Log-odds of (query, document) pairs, ``(n,)``; pairs that share a document share its reading."""
        # In numpy, since an autocast around a training would round the log-odds.
        states = self.states(pairs, progress).numpy()
        return np.asarray(states @ self.rows.direction.numpy() + np.float32(self.rows.offset), dtype=np.float32)

    def states(self, pairs: Sequence[tuple[str, str]], progress: Progress | None = None) -> Tensor:
        """The teacher's hidden state at the answer position of each (query, document) pair, ``(n, d)`` float32."""
        out = torch.empty(len(pairs), self.backbone.hidden_size)
        for rows, prefixes, queries in self._readings(pairs, progress):
            out[rows] = self.backbone.last_states_after(prefixes, queries)
        return out

    def position_states(self, pairs: Sequence[tuple[str, str]]) -> list[Tensor]:
        """The teacher's hidden states at every position of the query part of each pair, ``(L_Q, d)`` float32."""
        found: dict[int, Tensor] = {}
        for rows, prefixes, queries in self._readings(pairs, None):
            found.update(zip(rows, self.backbone.states(queries, prefixes), strict=True))
        return [found[row] for row in range(len(pairs))]

    def document_states(self, documents: Sequence[str]) -> Tensor:
        """``e_D = M(D)[-1]`` of each document, ``(n, d)`` float32: the same in teacher and student (Eq. 8)."""
        return self.backbone.last_states([self.prompt.document_ids(text) for text in documents])

    def query_states(self, queries: Sequence[str]) -> Tensor:
        """``e_Q = M(Q)[-1]``, the query part read alone (Eq. 10), ``(m, d)`` float32."""
        return self.backbone.last_states([self.prompt.query_ids(text) for text in queries])

    def query_position_states(self, queries: Sequence[str]) -> list[Tensor]:
        """``M(Q)``, the query part read alone, at each of its positions: ``(L_Q, d)`` float32 each."""
        return self.backbone.states([self.prompt.query_ids(text) for text in queries])

    def read(self, documents: Sequence[str]) -> list[Prefix]:
        """Keys, values and ``e_D`` of each document, from memory where they are kept."""
        return self._read(documents, {text: self.prompt.document_ids(text) for text in set(documents)})

    def fit(
        self,
        dataset: Dataset,
        config: TeacherConfig | None = None,
        output: str | Path | None = None,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        progress: Progress | None = None,
    ) -> Reranker:
        """Stage I: fine-tune on a dataset's labelled pairs; see :func:`rabtriever.training.teacher.fit`.

        Example:
            >>> teacher.fit(Dataset.load("saycan"), output="teacher")     # doctest: +SKIP
        """
        from rabtriever.training.teacher import fit

        fit(
            self, dataset, config, None if output is None else Path(output), seed=seed, budget=budget, progress=progress
        )
        return self

    @property
    def fingerprint(self) -> str:
        """Identifies weights and prompt: what hidden states depend on, but for the number format."""
        return f"{self.weights_hash}-{self.prompt.hash}"

    def forget(self) -> None:
        """Drop the documents read so far; to be called when the weights change."""
        self._kept.clear()
        self._kept_bytes = 0
        with torch.inference_mode(False):  # losses that use the rows go backward, wherever this is called from
            self.rows = self.backbone.answer_rows(self.prompt.true_id, self.prompt.false_id)

    def _readings(
        self, pairs: Sequence[tuple[str, str]], progress: Progress | None
    ) -> Iterator[tuple[list[int], list[Prefix], list[list[int]]]]:
        """Pairs part by part, in an order that reads each document once: rows, documents as read, ids of queries."""
        documents = {text: self.prompt.document_ids(text) for text in {d for _, d in pairs}}
        queries = {text: self.prompt.query_ids(text) for text in {q for q, _ in pairs}}
        block = _blocks(documents)
        order = sorted(range(len(pairs)), key=lambda i: (block[pairs[i][1]], len(queries[pairs[i][0]])))
        with (progress or SilentProgress()).task("scoring pairs", total=len(pairs), unit="pairs") as task:
            for rows in self._chunks(order, pairs, documents, queries):
                prefixes = self._read([pairs[i][1] for i in rows], documents)
                yield rows, prefixes, [queries[pairs[i][0]] for i in rows]
                task.advance(len(rows))

    def _chunks(
        self,
        order: list[int],
        pairs: Sequence[tuple[str, str]],
        documents: dict[str, list[int]],
        queries: dict[str, list[int]],
    ) -> list[list[int]]:
        """Runs of pairs whose documents and queries together stay within two forward passes."""
        limit, size = 2 * self.backbone.batch_tokens, 0
        chunks: list[list[int]] = [[]]
        for row in order:
            cost = len(documents[pairs[row][1]]) + len(queries[pairs[row][0]])
            if chunks[-1] and size + cost > limit:
                chunks.append([])
                size = 0
            chunks[-1].append(row)
            size += cost
        return [chunk for chunk in chunks if chunk]

    def _read(self, texts: Sequence[str], ids: dict[str, list[int]]) -> list[Prefix]:
        """The prefix of each text, from memory where it is kept."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._kept]
        found = {text: self._kept[text] for text in dict.fromkeys(texts) if text in self._kept}
        found.update(zip(missing, self.backbone.prefixes([ids[text] for text in missing]), strict=True))
        for text, prefix in found.items():
            if text not in self._kept:
                self._kept_bytes += prefix.nbytes
            self._kept[text] = prefix
            self._kept.move_to_end(text)
        while self._kept and self._kept_bytes > self.prefix_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= dropped.nbytes
        return [found[text] for text in texts]


def _blocks(documents: dict[str, list[int]]) -> dict[str, int]:
    """Which block each document is read in.

    Pairs go through block by block, so that each document is read once however many there are; within a block they
    are sorted by the query's length, so that what is computed together needs little padding.
    """
    block, size = 0, 0
    out: dict[str, int] = {}
    for text, ids in sorted(documents.items(), key=lambda item: (len(item[1]), item[0])):
        if size and size + len(ids) > _BLOCK_TOKENS:
            block, size = block + 1, 0
        out[text] = block
        size += len(ids)
    return out
