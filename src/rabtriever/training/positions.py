"""The embedding error of Eq. 13 at every position of the query part, not only at the last: an ablation of the paper's.

The store knows texts, not positions, so that each position counts as a query of its own, which ends there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rabtriever.training.ragged import Ragged
from rabtriever.training.store import text_key

if TYPE_CHECKING:
    from rabtriever.training.teacher_outputs import TeacherOutputs

__all__ = ["Positions", "QueryPositions"]

_CHUNK_PAIRS = 256
"""Pairs between two writes, each with some hundred states."""


@dataclass(frozen=True, slots=True)
class Positions:
    """Every position of some pairs.

    Attributes:
        states: Positions of queries in ``QueryPositions.e_q``, each once, ``(p,)``.
        place: For each position of each pair, which of ``states`` the student has there, ``(n,)``.
        pair: The pair that it belongs to, ``(n,)``.
        rows: The store's row with the teacher's state there, ``(n,)``.
    """

    states: Tensor
    place: Tensor
    pair: Tensor
    rows: Tensor


class QueryPositions:
    """What student and teacher compute at every position of the query part.

    Args:
        outputs: The teacher's outputs.
        queries: The judged queries.
        others: So many queries without pairs come behind them, whose positions nothing asks for.

    Attributes:
        e_q: ``M(Q)`` of all queries, position after position, ``(sum of L_Q, d)``.
        rows: The store's rows of all positions of all pairs, ``(n,)``.
    """

    def __init__(self, outputs: TeacherOutputs, queries: Sequence[str], others: int = 0) -> None:
        self._outputs, self._queries = outputs, queries
        self._keys = [_position_keys(text, len(outputs.teacher.prompt.query_ids(text))) for text in queries]
        self.e_q = self._read()
        lengths = [len(keys) for keys in self._keys]
        starts = torch.tensor(lengths).cumsum(0) - torch.tensor(lengths)
        spans = [range(start, start + n) for start, n in zip(starts.tolist(), lengths, strict=True)]
        self._of_query = Ragged([*spans, *[[]] * others])
        self._of_pair = Ragged([])
        self.rows = self._of_pair.values

    def judge(self, pairs: Sequence[tuple[int, str]]) -> None:
        """Let the teacher read the pairs of a query's row and a document that it has not read position by position."""
        store, teacher = self._outputs.store, self._outputs.teacher
        keys = [[(key, text_key(document)) for key in self._keys[row]] for row, document in pairs]
        flat = [key for of_pair in keys for key in of_pair]
        owner = [i for i, of_pair in enumerate(keys) for _ in of_pair]
        absent = {owner[i] for i in store.missing_pairs(flat)}
        missing = sorted(absent, key=lambda i: (pairs[i][1], len(keys[i]), i))
        with self._outputs.progress.task("teacher judging positions", total=len(missing), unit="pairs") as task:
            for start in range(0, len(missing), _CHUNK_PAIRS):
                chunk = missing[start : start + _CHUNK_PAIRS]
                teacher.forget()  # as in TeacherOutputs.judge: what is kept from before must not change the rounding
                found = teacher.position_states([(self._queries[pairs[i][0]], pairs[i][1]) for i in chunk])
                states = torch.cat(found)
                store.add_pairs([key for i in chunk for key in keys[i]], states, teacher.rows.logits(states))
                task.advance(len(chunk))
        self._outputs.computed += len(missing)
        rows = iter(store.pair_rows(flat).tolist())
        self._of_pair = Ragged([[next(rows) for _ in of_pair] for of_pair in keys])
        self.rows = self._of_pair.values

    def of(self, queries: Tensor, pairs: Tensor, owner: Tensor) -> Positions:
        """Every position of pairs ``(n,)``, of which each belongs to one of ``queries`` ``(b,)``, as ``owner`` says."""
        states, query = self._of_query.take(queries)
        places, pair = self._of_pair.take(pairs)
        first = torch.searchsorted(query, torch.arange(len(queries)))  # where each query's states begin
        begin = torch.searchsorted(pair, torch.arange(len(pairs)))
        within = torch.arange(len(pair)) - begin[pair]
        return Positions(states, first[owner[pair]] + within, pair, self.rows[places])

    def _read(self) -> Tensor:
        store, teacher = self._outputs.store, self._outputs.teacher
        flat = [key for keys in self._keys for key in keys]
        owner = [row for row, keys in enumerate(self._keys) for _ in keys]
        absent = {owner[i] for i in store.missing_queries(flat)}
        missing = sorted(absent, key=lambda row: (len(self._keys[row]), row))
        with self._outputs.progress.task("reading positions", total=len(missing), unit="queries") as task:
            for start in range(0, len(missing), _CHUNK_PAIRS):
                chunk = missing[start : start + _CHUNK_PAIRS]
                found = teacher.query_position_states([self._queries[row] for row in chunk])
                store.add_queries([key for row in chunk for key in self._keys[row]], torch.cat(found))
                task.advance(len(chunk))
        return torch.tensor(store.query_states(flat))


def _position_keys(text: str, length: int) -> list[bytes]:
    """A key for each position of a query; the last one's is the text's own."""
    key = text_key(text)
    earlier = [hashlib.blake2b(key + b"position %d" % t, digest_size=len(key)).digest() for t in range(length - 1)]
    return [*earlier, key]
