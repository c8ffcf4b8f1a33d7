"""The student as a compiled graph: the same vectors, in a fraction of the time, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rabtriever.artifacts import check_same
from rabtriever.batches import token_batches
from rabtriever.dual_encoder import DualEncoder, Route
from rabtriever.errors import DataError, InputError
from rabtriever.graph_folder import MARKER, PIPELINE, GraphConfig, open_graph, read_start
from rabtriever.progress import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

    from rabtriever.numerics import DType
    from rabtriever.prompt_parts import PromptParts
    from rabtriever.reranker import Reranker
    from rabtriever.retriever import Retriever

__all__ = ["CompiledRetriever", "is_compiled", "load_student"]

_BATCH_TOKENS = 2048
"""Padded tokens a call, as for the model itself."""


class CompiledRetriever(DualEncoder):
    """A student that was exported with ``rabtriever export MODEL OUT --to openvino`` (or ``onnx``).

    It stands for the student wherever one is asked for: an index of the model can be searched and extended with its
    export, and the other way round. It reads texts as the student does, to the last id; in float32 its vectors are
    equal to rounding. Where the processor has bfloat16, OpenVINO computes in it by default.

    Args:
        folder: The exported folder.
        dtype: What the graph computes in, and the teacher.

    Attributes:
        path: The folder, as it was given.
        fingerprint: That of the student.
        reranker: The student's teacher; its language model is loaded when it first scores something.

    Raises:
        InputError: The runtime is not installed, or the folder is no such export.
        DataError: A file of the folder is malformed.

    Example:
        >>> student = CompiledRetriever("robot-skills-openvino")                 # doctest: +SKIP
        >>> student.encode_query(["I spilled my coke"]).shape                    # doctest: +SKIP
        (1, 576)
    """

    def __init__(self, folder: str | Path, *, dtype: DType = "auto") -> None:
        self.path = str(folder)
        place = Path(folder).expanduser()
        config = GraphConfig.read(place)
        self.fingerprint, self.document_fingerprint = config.fingerprint, config.document_fingerprint
        self.reranker = SourceTeacher(config, place, dtype)
        self._config = config
        self._run = open_graph(place, config.kind, dtype, config.own_query_graph)
        self._start = read_start(place)
        self.encode_query(["?"])  # a runtime makes its kernels in the first pass: now, not while somebody waits

    @property
    def dimension(self) -> int:
        """``k``, the length of a vector."""
        return self._config.dimension

    @property
    def bias(self) -> float:
        """What :meth:`similarity` adds to every inner product: the head's constant ``b_T - b_F``."""
        return self._config.bias

    def _encode(self, texts: Sequence[str], route: Route, task: Task) -> NDArray[np.float32]:
        prompt = self.reranker.prompt
        read, begun = (prompt.query_ids, 0) if route == "query" else (prompt.document_ids, self._start.shape[2])
        ids = [read(text) for text in texts]
        if any(len(row) <= begun for row in ids):  # nothing would be left to read of an empty text
            begun = 0
        start = self._start[:, :, :begun]
        out = np.empty((len(ids), self.dimension), np.float32)
        order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
        for batch in token_batches([len(ids[row]) - begun for row in order], _BATCH_TOKENS):
            rows = [order[place] for place in batch]
            out[rows] = self._run(route, *_pad([ids[row][begun:] for row in rows]), start)
            task.advance(len(rows))
        return out


class CompiledPrompt:
    """A prompt by its ids and the tokenizers library alone.

    Args:
        parts: The ids.
        hash: The prompt's.
        tokenizer: Turns texts into ids.
    """

    def __init__(self, parts: PromptParts, hash: str, tokenizer: Tokenizer) -> None:
        self.hash, self.parts = hash, parts
        self._tokenizer = tokenizer

    def document_ids(self, text: str) -> list[int]:
        """Ids of the document part, ``(L_D,)``."""
        return self.parts.document_ids(text, self._text_ids)

    def query_ids(self, text: str) -> list[int]:
        """Ids of the query part, ``(L_Q,)``."""
        return self.parts.query_ids(text, self._text_ids)

    def _text_ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


class SourceTeacher:
    """The teacher of the model that a graph was made from, loaded when it first scores something.

    Args:
        config: Says where the model was, and which teacher it has.
        folder: The exported folder.
        dtype: What it computes in.
    """

    def __init__(self, config: GraphConfig, folder: Path, dtype: DType = "auto") -> None:
        self.prompt = CompiledPrompt(config.parts, config.prompt_hash, _tokenizer(folder / PIPELINE))
        self._config, self._folder, self._dtype = config, folder, dtype

    def score(self, query: str, documents: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds that each document answers the query, ``(n,)``."""
        return self._teacher.score(query, documents)

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Log-odds of (query, document) pairs, ``(n,)``."""
        return self._teacher.score_pairs(pairs)

    def rank(self, query: str, documents: Sequence[str], k: int | None = None) -> list[tuple[int, float]]:
        """Positions of the ``k`` best documents with their log-odds, best first; ties keep the order given."""
        return self._teacher.rank(query, documents, k)

    @cached_property
    def _teacher(self) -> Reranker:
        from rabtriever.reranker import Reranker

        source = self._config.source_folder(self._folder)
        try:
            teacher = Reranker.from_pretrained(source, dtype=self._dtype)
        except InputError as error:
            raise InputError(
                f"{self._folder} reranks by the teacher of the model it was exported from: {error.message}",
                hint="put that model where it was, or export it again from where it is now",
            ) from error
        check_same("model", teacher.fingerprint, self._config.teacher_fingerprint, self._folder)
        return teacher


def is_compiled(name: str | Path) -> bool:
    """Whether a name stands for an exported folder."""
    return (Path(name).expanduser() / MARKER).is_file()


def load_student(name: str | Path, *, dtype: DType = "auto", device: str = "auto") -> Retriever | CompiledRetriever:
    """Load a student: a trained model by its folder, name or hub id, or what it was exported to.

    Args:
        name: Which.
        dtype: What to compute in.
        device: A torch device; an export computes on the CPU.

    Raises:
        InputError: If nothing loadable is there.
        MismatchError: If its parts do not belong together.

    Example:
        >>> load_student("robot-skills").dimension               # doctest: +SKIP
        576
    """
    if is_compiled(name):
        return CompiledRetriever(name, dtype=dtype)
    from rabtriever.retriever import Retriever

    return Retriever.from_pretrained(name, dtype=dtype, device=device)


def _tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise DataError(f"{path} does not load: {error}", hint="export the model again") from None
    tokenizer.encode_special_tokens = True  # what users write is text, even where it spells a control token
    return tokenizer


def _pad(ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and attention mask ``(n, L)``, padded on the right."""
    shape = (len(ids), max(map(len, ids)))
    tokens, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, sequence in enumerate(ids):
        tokens[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return tokens, mask
