from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabtriever.errors import InputError
from rabtriever.index.filter import Filter, value_types

_ROBOT = {
    "room": "kitchen",
    "floor": 2,
    "weight": 1.5,
    "done": True,
    "tags": ["wet", "red"],
    "note": 'it\'s "new"',
    "x y": 0,
}


@pytest.mark.parametrize(
    "expression",
    [
        "room = 'kitchen'",
        'room == "kitchen"',
        "room != 'hall'",
        "floor < 3 and floor <= 2 and floor > 1 and floor >= 2",
        "floor = 2.0",
        "weight >= -1e3",
        "done = true",
        "DONE = FALSE or Not done = False",
        "room in ('hall', 'kitchen')",
        "room not in ('hall')",
        "not room in ('hall')",
        "not (room = 'hall' or floor = 3)",
        "room = 'hall' and floor = 3 or done = true",  # and binds closer than or
        "done = true or room = 'hall' and floor = 3",
        "tags = 'wet' and tags in ('red', 'blue') and tags != 'dry'",
        "note = 'it''s \"new\"'",
        "'x y' = 0",
        "room < 'living room'",
        "not missing = 1",
        "((((floor=2))))",
    ],
)
def test_met(expression: str) -> None:
    assert Filter(expression).matches(_ROBOT)


@pytest.mark.parametrize(
    "expression",
    [
        "room = 'Kitchen'",
        "missing = 1",
        "missing != 1",
        "missing not in (1)",
        "floor = '2'",
        "floor != '2'",  # another type is never compared
        "done = 1",
        "floor in (3, 4)",
        "tags != 'wet'",
        "tags not in ('wet', 'green')",
        "not not room = 'hall'",
    ],
)
def test_not_met(expression: str) -> None:
    assert not Filter(expression).matches(_ROBOT)


def test_one_is_not_true() -> None:
    assert not Filter("n in (2, true)").matches({"n": 1})
    assert not Filter("n in (1, false)").matches({"n": True})


@pytest.mark.parametrize(
    ("expression", "column", "problem"),
    [
        ("", 1, "expected the name of a field"),
        ("room", 5, "expected one of"),
        ("room = ", 8, "expected a value"),
        ("room = kitchen", 8, "expected a value"),
        ("room = null", 8, "expected a value"),
        ("room = 'kitchen", 8, "quote is not closed"),
        ("room = 'a' floor = 2", 12, "expected and, or, or the end"),
        ("room = 'a' and", 15, "expected the name of a field"),
        ("(room = 'a'", 12, "expected ')'"),
        ("room in 'a'", 9, "expected '('"),
        ("room in ()", 10, "expected a value"),
        ("room not = 'a'", 10, "expected 'in'"),
        ("room = 'a' ; drop", 12, "unexpected character"),
        ("done < true", 8, "no order"),
        ("floor = 1e999", 9, "finite"),
        ("not", 4, "expected the name of a field"),
        ("(" * 60 + "a=1", 52, "levels of nesting"),
    ],
)
def test_malformed_expressions_are_refused_at_their_column(expression: str, column: int, problem: str) -> None:
    with pytest.raises(InputError, match=rf"column {column}: .*") as caught:
        Filter(expression)
    assert problem in caught.value.message


def test_unknown_fields_and_types_are_refused_at_their_column() -> None:
    types = value_types({**_ROBOT, "empty": None})
    Filter("room = 'x' and floor in (1, 2) and tags = 'wet'").check(types)
    for expression, problem in {
        "floor = 1 and rom = 'x'": "column 15: no document has the field 'rom'",
        "floor = 'two'": "column 9: the field 'floor' holds numbers, not text",
        "done in (true, 1)": "column 10: the field 'done' holds true or false, not numbers",
        "empty = 1": "column 9: the field 'empty' holds null, not numbers",
    }.items():
        with pytest.raises(InputError, match="filter") as caught:
            Filter(expression).check(types)
        assert problem in caught.value.message
    with pytest.raises(InputError, match="there are none"):
        Filter("a = 1").check({})


_PIECES = st.sampled_from(
    [
        "room",
        "floor",
        "'kitchen'",
        '"',
        "'",
        "=",
        "!=",
        "<",
        "(",
        ")",
        ",",
        "in",
        "not",
        "and",
        "or",
        "true",
        "1",
        "-2.5e3",
        " ",
        "é",
        "\x00",
        "\ud800",
    ]
)
_VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4)


@settings(max_examples=150)
@given(st.text() | st.lists(_PIECES).map("".join), st.dictionaries(st.sampled_from(["room", "floor", "é"]), _VALUES))
def test_whatever_is_written_nothing_but_input_errors_comes_out(expression: str, metadata: dict[str, Any]) -> None:
    try:
        condition = Filter(expression)
    except InputError as error:
        assert "column" in error.message
        return
    assert condition.matches(metadata) in (True, False)
    try:
        condition.check(value_types(metadata))
    except InputError as error:
        assert "column" in error.message


@given(st.text(), st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_any_text_and_number_can_be_written(field: str, text: str, whole: int, number: float) -> None:
    name, quoted = ('"' + field.replace('"', '""') + '"'), ("'" + text.replace("'", "''") + "'")
    assert Filter(f"{name} = {quoted}").matches({field: text})
    assert Filter(f"{name}={whole}").matches({field: whole})
    assert Filter(f"{name} in ({number!r})").matches({field: number})
