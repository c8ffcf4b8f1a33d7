"""Metadata laid out by field, so that a filter costs one test per distinct value and not one per document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rabtriever.index.filter import Comparison, Filter, value_types

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Columns"]

_KEPT = 16
"""Filters whose rows are remembered."""


@dataclass(frozen=True, slots=True)
class _Field:
    rows: NDArray[np.intp]
    codes: NDArray[np.intp]
    values: list[Any]


class Columns:
    """The metadata of some rows.

    Args:
        records: One JSON object for each row.

    Example:
        >>> Columns(['{"room": "hall"}', '{}', '{"room": "attic"}']).mask(Filter("room = 'attic'")).tolist()
        [False, False, True]
    """

    def __init__(self, records: Iterable[str]) -> None:
        fields: dict[str, tuple[list[int], list[int], dict[Any, int], list[Any]]] = {}
        row = -1
        for row, text in enumerate(records):
            if text == "{}":
                continue
            for name, value in json.loads(text).items():
                rows, codes, known, values = fields.setdefault(name, ([], [], {}, []))
                # With its type beside it, since to Python 1 == True == 1.0.
                key = (type(value), value) if not isinstance(value, list | dict) else json.dumps(value)
                code = known.setdefault(key, len(values))
                if code == len(values):
                    values.append(value)
                rows.append(row)
                codes.append(code)
        self._count = row + 1
        self._fields = {
            name: _Field(np.array(rows, np.intp), np.array(codes, np.intp), values)
            for name, (rows, codes, _, values) in fields.items()
        }
        self._masks: dict[str, NDArray[np.bool_]] = {}

    @cached_property
    def types(self) -> dict[str, set[str]]:
        """Each field, and the types of its values as :func:`rabtriever.index.filter.value_types` names them."""
        found: dict[str, set[str]] = {}
        for name, field in self._fields.items():
            lists = [value for value in field.values if isinstance(value, list)]
            others = {type(value): value for value in field.values}  # one of each type speaks for all of it
            found[name] = set().union(*(value_types({name: value})[name] for value in (*others.values(), *lists)))
        return found

    def mask(self, condition: Filter) -> NDArray[np.bool_]:
        """Which rows meet a condition, ``(n,)``; the same as asking :meth:`Filter.matches` for each."""
        known = self._masks.get(condition.source)
        if known is None:
            known = condition.evaluate(self._compare)
            if len(self._masks) >= _KEPT:
                self._masks.clear()
            self._masks[condition.source] = known
        return known

    def _compare(self, comparison: Comparison) -> NDArray[np.bool_]:
        met = np.zeros(self._count, np.bool_)
        field = self._fields.get(comparison.field)
        if field is not None:
            values = np.array([comparison.meets(value) for value in field.values], np.bool_)
            met[field.rows[values[field.codes]]] = True
        return met
