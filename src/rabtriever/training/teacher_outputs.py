"""What the frozen language model computes for stage III, asked of the store first and of the model for the rest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rabtriever.progress import Progress, SilentProgress
from rabtriever.training.store import TeacherStore, text_key

if TYPE_CHECKING:
    from rabtriever.reranker import Reranker

__all__ = ["TeacherOutputs"]

_CHUNK_PAIRS = 1024
"""Pairs between two writes: what an interruption can lose."""
_CHUNK_TEXTS = 256


class TeacherOutputs:
    """``e_Q``, ``e_D`` and, per pair, the teacher's hidden state and logits; each is computed once, ever.

    Args:
        teacher: The frozen teacher.
        root: The folder of all stores; one folder below it belongs to this teacher, prompt and number format.
        progress: Where to report.

    Attributes:
        computed: Pairs that cost a teacher pass, that is, were not in the store.
    """

    def __init__(self, teacher: Reranker, root: Path, progress: Progress | None = None) -> None:
        identity = f"{teacher.fingerprint} {teacher.backbone.dtype}"
        key = hashlib.sha256(identity.encode()).hexdigest()[:32]
        self.teacher = teacher
        self.progress = progress or SilentProgress()
        self.store = TeacherStore.open(root, key, teacher.backbone.hidden_size)
        self.computed = 0

    def queries(self, texts: Sequence[str]) -> Tensor:
        """``e_Q`` of each text, ``(m, d)`` float32."""
        keys = [text_key(text) for text in texts]
        missing = _longest_first(self.store.missing_queries(keys), texts)
        with self.progress.task("reading queries", total=len(missing), unit="queries") as task:
            for start in range(0, len(missing), _CHUNK_TEXTS):
                rows = missing[start : start + _CHUNK_TEXTS]
                self.store.add_queries([keys[r] for r in rows], self.teacher.query_states([texts[r] for r in rows]))
                task.advance(len(rows))
        return torch.tensor(self.store.query_states(keys))

    def documents(self, texts: Sequence[str]) -> Tensor:
        """``e_D`` of each text, ``(n, d)`` float32."""
        keys = [text_key(text) for text in texts]
        missing = _longest_first(self.store.missing_documents(keys), texts)
        with self.progress.task("reading documents", total=len(missing), unit="documents") as task:
            for start in range(0, len(missing), _CHUNK_TEXTS):
                rows = missing[start : start + _CHUNK_TEXTS]
                self.store.add_documents(
                    [keys[r] for r in rows], self.teacher.document_states([texts[r] for r in rows])
                )
                task.advance(len(rows))
        return torch.tensor(self.store.document_states(keys))

    def judge(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Let the teacher read the (query, document) pairs it has not read yet; rows of the store, ``(n,)`` int64."""
        keys = [(text_key(query), text_key(document)) for query, document in pairs]
        missing = sorted(self.store.missing_pairs(keys), key=lambda row: (pairs[row][1], len(pairs[row][0])))
        with self.progress.task("teacher judging pairs", total=len(missing), unit="pairs") as task:
            for start in range(0, len(missing), _CHUNK_PAIRS):
                rows = missing[start : start + _CHUNK_PAIRS]
                # What is read together rounds together: a chunk must not depend on what happens to be kept from before,
                # or a resumed run would differ from an uninterrupted one in the last digit.
                self.teacher.forget()
                states = self.teacher.states([pairs[r] for r in rows])
                self.store.add_pairs([keys[r] for r in rows], states, self.teacher.rows.logits(states))
                task.advance(len(rows))
        self.computed += len(missing)
        return torch.from_numpy(self.store.pair_rows(keys))

    def states(self, rows: Tensor) -> Tensor:
        """``e_teacher`` of the store's rows, ``(n, d)`` float32."""
        return torch.from_numpy(self.store.pair_states[rows.numpy()]).float()

    def logits(self, rows: Tensor) -> Tensor:
        """``(z_T, z_F)`` of the store's rows, ``(n, 2)``."""
        return torch.tensor(self.store.pair_logits[rows.numpy()])


def _longest_first(rows: Sequence[int], texts: Sequence[str]) -> list[int]:
    return sorted(rows, key=lambda row: -len(texts[row]))
