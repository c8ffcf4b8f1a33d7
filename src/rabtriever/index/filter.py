"""A small language that says which documents take part in a search, by their metadata.

``room = 'kitchen' and (year >= 2020 or not kind in ('draft', 'note'))``: comparisons ``= != < <= > >=``, ``in (...)``
and ``not in (...)``, joined by ``and``, ``or``, ``not`` and parentheses. Values are text in single or double quotes
(a quote inside is doubled), numbers, ``true`` and ``false``; a field whose name is not a plain word stands in quotes.

Values compare with values of their own type only, and a comparison with a field that a document lacks (or holds
as ``null``, or as another type) is not met. Of a list, any element may meet a comparison (all of them, for ``!=`` and
``not in``).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from rabtriever.data.lines import show
from rabtriever.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Comparison", "Filter", "value_types"]

_SPACE = re.compile(r"\s*")
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)"""
    r"""|(?P<word>[^\W\d][\w.-]*)|(?P<sign><=|>=|!=|==|[=<>(),])"""
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "true", "false"})
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_DEPTH = 50
_TYPES = {str: "text", int: "numbers", float: "numbers", bool: "true or false", dict: "objects"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a field with values."""

    field: str
    sign: str  # of _COMPARE, or "in", "not in"
    values: tuple[str | float | bool, ...]
    column: int
    value_column: int

    def meets(self, found: object) -> bool:
        """Whether a document meets it that holds ``found`` in this field."""
        # With its type beside it, since to Python 1 == True.
        wanted = [(_type(value), value) for value in self.values]
        types = {kind for kind, _ in wanted}
        there = [(kind, value) for value in _values(found) if (kind := _type(value)) in types]
        if not there:
            return False
        if self.sign in ("!=", "not in"):
            return all(value not in wanted for value in there)
        if self.sign == "in":
            return any(value in wanted for value in there)
        return any(_COMPARE[self.sign](value, wanted[0]) for value in there)


@dataclass(frozen=True, slots=True)
class _Joined:
    word: str  # "and", "or", "not"
    parts: tuple[Comparison | _Joined, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class Filter:
    """A parsed filter expression.

    Args:
        source: The expression.

    Raises:
        InputError: The expression is malformed; the message names the column.

    Example:
        >>> Filter("room = 'kitchen' and floor < 2").matches({"room": "kitchen", "floor": 1})
        True
        >>> Filter("floor < 2").matches({"room": "kitchen"})
        False
    """

    def __init__(self, source: str) -> None:
        self.source = source
        parser = _Parser(source)
        self._root = parser.any_of(0)
        parser.expect_end()

    def check(self, types: Mapping[str, Collection[str]]) -> None:
        """Refuse fields that no document has, and values of a type that no document has there.

        Args:
            types: What :func:`value_types` found.

        Raises:
            InputError: The message names the column.
        """
        for part in _comparisons(self._root):
            if part.field not in types:
                known = ", ".join(sorted(types)) or "there are none"
                _refuse(self.source, part.column, f"no document has the field {part.field!r}", f"fields: {known}")
            for value in part.values:
                if (wanted := _type(value)) not in types[part.field]:
                    there = " and ".join(sorted(types[part.field])) or "null"
                    _refuse(self.source, part.value_column, f"the field {part.field!r} holds {there}, not {wanted}")

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata takes part."""
        return _matches(self._root, metadata)

    def evaluate(self, compare: Callable[[Comparison], NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """Which of many documents take part, ``(n,)``, given which of them meet each comparison."""
        return _evaluate(self._root, compare)


def value_types(metadata: Mapping[str, Any]) -> dict[str, set[str]]:
    """The types of the values that comparisons would see in each field.

    Example:
        >>> value_types({"room": "kitchen", "floors": [1, 2.5], "owner": None})
        {'room': {'text'}, 'floors': {'numbers'}, 'owner': set()}
    """
    return {name: {_type(value) for value in _values(found)} for name, found in metadata.items()}


def _values(found: object) -> list[Any]:
    return [value for value in (found if isinstance(found, list) else [found]) if value is not None]


def _type(value: object) -> str:
    return _TYPES.get(type(value), "lists")


def _comparisons(node: Comparison | _Joined) -> list[Comparison]:
    return [node] if isinstance(node, Comparison) else [leaf for part in node.parts for leaf in _comparisons(part)]


def _matches(node: Comparison | _Joined, metadata: Mapping[str, Any]) -> bool:
    if isinstance(node, _Joined):
        if node.word == "not":
            return not _matches(node.parts[0], metadata)
        return (all if node.word == "and" else any)(_matches(part, metadata) for part in node.parts)
    return node.meets(metadata.get(node.field))


def _evaluate(node: Comparison | _Joined, compare: Callable[[Comparison], NDArray[np.bool_]]) -> NDArray[np.bool_]:
    if isinstance(node, Comparison):
        return compare(node)
    masks = [_evaluate(part, compare) for part in node.parts]
    if node.word == "not":
        return np.logical_not(masks[0])
    joined: NDArray[np.bool_] = (np.logical_and if node.word == "and" else np.logical_or).reduce(masks)
    return joined


def _refuse(source: str, column: int, problem: str, hint: str = "") -> NoReturn:
    start = max(0, column - 31)
    shown = ("..." if start else "") + source[start : column - 1] + " >>> " + source[column - 1 : column + 29]
    raise InputError(
        f"filter, column {column}: {problem}: {shown.strip()!r}",
        hint=hint or "write for instance: room = 'kitchen' and year >= 2020",
        code="bad_filter",
    )


class _Parser:
    """Recursive descent over the tokens: or < and < not < parentheses and comparisons."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = _tokens(source)
        self.next = 0

    def any_of(self, depth: int) -> Comparison | _Joined:
        parts = [self.all_of(depth)]
        while self.take("or"):
            parts.append(self.all_of(depth))
        return parts[0] if len(parts) == 1 else _Joined("or", tuple(parts))

    def all_of(self, depth: int) -> Comparison | _Joined:
        parts = [self.factor(depth)]
        while self.take("and"):
            parts.append(self.factor(depth))
        return parts[0] if len(parts) == 1 else _Joined("and", tuple(parts))

    def factor(self, depth: int) -> Comparison | _Joined:
        if depth > _DEPTH:
            _refuse(self.source, self.tokens[self.next].column, f"more than {_DEPTH} levels of nesting")
        if self.take("not"):
            return _Joined("not", (self.factor(depth + 1),))
        if self.take("("):
            inner = self.any_of(depth + 1)
            self.expect(")")
            return inner
        return self.comparison()

    def comparison(self) -> Comparison:
        column = self.tokens[self.next].column
        name = self.field()
        negated = self.take("not")
        if negated:
            self.expect("in")
        if negated or self.take("in"):
            self.expect("(")
            value_column = self.tokens[self.next].column
            values = [self.value()]
            while self.take(","):
                values.append(self.value())
            self.expect(")")
            return Comparison(name, "not in" if negated else "in", tuple(values), column, value_column)
        token = self.tokens[self.next]
        sign = "=" if token.text == "==" else token.text
        if token.kind != "sign" or sign not in _COMPARE:
            self.fail("one of = != < <= > >= in", token)
        self.next += 1
        value_column = self.tokens[self.next].column
        value = self.value()
        if isinstance(value, bool) and sign not in ("=", "!="):
            _refuse(self.source, value_column, f"true and false have no order for {sign!r}")
        return Comparison(name, sign, (value,), column, value_column)

    def field(self) -> str:
        token = self.tokens[self.next]
        if token.kind not in ("word", "text") or (token.kind == "word" and token.text.lower() in _KEYWORDS):
            self.fail("the name of a field", token)
        self.next += 1
        return _unquoted(token.text) if token.kind == "text" else token.text

    def value(self) -> str | float | bool:
        token = self.tokens[self.next]
        self.next += 1
        if token.kind == "text":
            return _unquoted(token.text)
        if token.kind == "word" and token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        if token.kind != "number":
            self.fail("a value: text in quotes, a number, true or false", token)
        if token.text.lstrip("+-").isdigit() and len(token.text) < 300:
            return int(token.text)
        if not math.isfinite(float(token.text)):
            self.fail("a finite number", token)
        return float(token.text)

    def take(self, text: str) -> bool:
        token = self.tokens[self.next]
        found = token.kind in ("word", "sign") and token.text.lower() == text
        self.next += found
        return found

    def expect(self, text: str) -> None:
        if not self.take(text):
            self.fail(repr(text), self.tokens[self.next])

    def expect_end(self) -> None:
        if self.tokens[self.next].kind != "end":
            self.fail("and, or, or the end", self.tokens[self.next])

    def fail(self, wanted: str, found: _Token) -> NoReturn:
        text = show(found.text) if found.text else "the end"
        _refuse(self.source, found.column, f"expected {wanted}, found {text}")


def _tokens(source: str) -> list[_Token]:
    tokens: list[_Token] = []
    end = 0
    while (start := _SPACE.match(source, end).end()) < len(source):  # type: ignore[union-attr]  # matches anywhere
        match = _TOKEN.match(source, start)
        if match is None:
            problem = "the quote is not closed" if source[start] in "'\"" else "unexpected character"
            _refuse(source, start + 1, problem)
        tokens.append(_Token(match.lastgroup or "", match[0], start + 1))
        end = match.end()
    return [*tokens, _Token("end", "", len(source) + 1)]


def _unquoted(text: str) -> str:
    return text[1:-1].replace(text[0] * 2, text[0])
