"""Settings: merged in order, refused with the place, the value and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rabtriever.cli.settings import Setting, build, from_assignment, from_file, known_keys
from rabtriever.errors import InputError


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rank: int = Field(4, ge=1)
    width: int | None = None

    @model_validator(mode="after")
    def _both(self) -> Part:
        if self.rank == 13 and self.width is not None:
            raise ValueError("rank 13 has no width")
        return self


class Stage(BaseModel):
    model_config = ConfigDict(extra="forbid")

    learning_rate: float = Field(1e-3, gt=0)
    template: str = "Document: {text}"
    part: Part | None = Part()


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seed: int = 0
    first: Stage = Stage()
    second: Stage = Stage()


def read(tmp_path: Path, text: str) -> list[Setting]:
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return from_file(file, Whole)


def test_keys_are_listed_with_dots_through_optional_sections() -> None:
    assert list(known_keys(Stage, "first.")) == [
        "first.learning_rate",
        "first.template",
        "first.part",
        "first.part.rank",
        "first.part.width",
    ]


def test_later_settings_win_and_sections_merge(tmp_path: Path) -> None:
    settings = read(tmp_path, "seed: 1\nfirst:\n  learning_rate: 0.1\n  part: {rank: 8}\nsecond.template: a\n")
    settings += from_assignment("first.part.width=3", Whole)
    settings += from_assignment("seed=2", Whole)
    built = build(Whole, settings)
    assert (built.seed, built.first.learning_rate, built.second.template) == (2, 0.1, "a")
    assert built.first.part == Part(rank=8, width=3)


def test_a_section_can_be_switched_off_and_on_again() -> None:
    off = from_assignment("first.part=null", Whole)
    assert build(Whole, off).first.part is None
    assert build(Whole, off + from_assignment("first.part.rank=2", Whole)).first.part == Part(rank=2)


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("first.learning_rate=1e-4", "first.learning_rate", 1e-4),  # a string in YAML 1.1
        ("first.template=Document: {text}", "first.template", "Document: {text}"),  # a mapping in YAML
        ("first.template=12", "first.template", "12"),
        ("first.template='a'", "first.template", "a"),
        (r'first.template="a\n{text}"', "first.template", "a\n{text}"),
        ("first.template=[", "first.template", "["),
        ("first.template=a=b", "first.template", "a=b"),
        ("first.part={rank: 2}", "first.part.rank", 2),
        ("second.part.width=", "second.part.width", None),
    ],
)
def test_values_are_yaml_and_texts_stay_texts(assignment: str, key: str, value: object) -> None:
    (setting,) = from_assignment(assignment, Whole)
    assert (setting.key, setting.value) == (key, value)
    build(Whole, [setting])


@pytest.mark.parametrize(
    ("assignment", "suggestion"),
    [
        ("first.learning_rat=1", "did you mean first.learning_rate?"),
        ("learning_rate=1", "did you mean first.learning_rate or second.learning_rate?"),
        ("first.part.rnk=1", "valid keys under first.part: rank, width"),
        ("nonsense=1", "valid keys: seed, first, second"),
        ("seed.x=1", "seed has no keys below it"),
    ],
)
def test_an_unknown_key_is_refused_with_what_there_is(assignment: str, suggestion: str) -> None:
    with pytest.raises(InputError, match="unknown setting") as caught:
        from_assignment(assignment, Whole)
    assert suggestion in caught.value.hint
    assert assignment.partition("=")[0] in caught.value.message


@pytest.mark.parametrize("text", ["seed", "=1", ""])
def test_an_assignment_needs_both_sides(text: str) -> None:
    with pytest.raises(InputError, match="expected key=value"):
        from_assignment(text, Whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nfirst:\n  nope: 2\n", "run.yaml, line 3: unknown setting 'first.nope'"),
        ("seed: 1\nseed: 2\n", "run.yaml, line 2: seed stands in .*run.yaml, line 1 already"),
        ("seed: 1\nfirst: [\n", "run.yaml, line 3: not valid YAML"),
        ("- seed\n", "run.yaml: expected settings"),
        ("seed: 1\n---\nseed: 2\n", "run.yaml, line 2: not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []\n", "run.yaml, line 1: seed has a value that plain YAML cannot"),
        ("? [a]\n: 1\n", "run.yaml, line 1: unknown setting"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(b"seed: \xff")
    with pytest.raises(InputError, match="byte 6 is not UTF-8"):
        from_file(file, Whole)


@pytest.mark.parametrize("text", ["", "# nothing\n", "\ufeff"])
def test_an_empty_file_sets_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: many\n", "line 1: seed cannot be 'many': must be a valid integer"),
        ("\nfirst:\n  learning_rate: -1\n", "line 3: first.learning_rate cannot be -1: must be greater than 0"),
        ("first:\n", "line 1: first cannot be None: must be a section with keys of its own"),
        ("first: 3\n", "line 1: first cannot be 3: must be a section"),
        ("first:\n  part:\n    rank: 0\n", "line 3: first.part.rank cannot be 0: must be greater than or equal to 1"),
        ("first.part:\n  rank: 13\n  width: 1\n", "line 3: first.part.width cannot be 1: rank 13 has no width"),
    ],
)
def test_a_wrong_value_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(Whole, read(tmp_path, text))


def test_the_place_is_that_of_the_setting_that_won(tmp_path: Path) -> None:
    settings = read(tmp_path, "seed: 1\n") + from_assignment("seed=x", Whole)
    with pytest.raises(InputError, match="^--set: seed cannot be 'x'"):
        build(Whole, settings)
