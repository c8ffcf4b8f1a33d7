"""Settings from a YAML file, ``--set`` and other options, merged in that order and checked with their place in mind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from rabtriever.errors import InputError

__all__ = ["Setting", "build", "from_assignment", "from_file", "known_keys"]

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where the user wrote it.

    Attributes:
        key: The key with dots, ``teacher.learning_rate``.
        value: The value as YAML reads it.
        place: For messages: ``train.yaml, line 3`` or ``--set``.
    """

    key: str
    value: Any
    place: str


class _Loader(yaml.SafeLoader):
    """YAML without its oldest trap: ``1e-4`` is a number here and not a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), [*"-+0123456789"]
)


def known_keys(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every key with dots, and the type of its value.

    Example:
        >>> from rabtriever.prompt import PromptConfig
        >>> known_keys(PromptConfig, "prompt.")["prompt.max_query_tokens"]
        <class 'int'>
    """
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        keys[prefix + name] = field.annotation
        nested = _nested(field.annotation)
        if nested is not None:
            keys.update(known_keys(nested, f"{prefix}{name}."))
    return keys


def from_file(path: Path, model: type[BaseModel]) -> list[Setting]:
    """Read a YAML file of settings for ``model``; keys may be nested or joined with dots.

    Raises:
        InputError: If the file is not YAML, or a key is unknown or stands there twice; the message names the line.
        OSError: If it cannot be read.
    """
    try:
        node = _compose(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8", hint="save the file as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        raise InputError(f"{place}: not valid YAML ({getattr(error, 'problem', None) or error})") from error
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise InputError(f"{path}: expected settings such as 'seed: 1'", hint="write one 'key: value' on each line")
    settings = list(_walk(node, "", known_keys(model), str(path)))
    places: dict[str, str] = {}
    for setting in settings:
        if setting.key in places:
            raise InputError(f"{setting.place}: {setting.key} stands in {places[setting.key]} already")
        places[setting.key] = setting.place
    return settings


def from_assignment(text: str, model: type[BaseModel]) -> list[Setting]:
    """Read ``key=value`` as given to ``--set``; the value is YAML, and plain text where the setting is a text.

    Raises:
        InputError: If there is no ``=``, the key is unknown, or the value is not YAML.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise InputError(f"--set {text!r}: expected key=value", hint="for example --set teacher.epochs=2")
    keys, place = known_keys(model), "--set"
    _check_known(key, keys, place)
    try:
        node = _compose(value)
        if isinstance(node, yaml.MappingNode) and _nested(keys[key]) is not None:
            return list(_walk(node, f"{key}.", keys, place))
        read = _construct(node)
    except yaml.YAMLError as error:
        if keys[key] is not str:
            problem = f"{place}: the value of {key} is not valid YAML: {value!r}"
            raise InputError(problem, hint="quote it for the shell and for YAML") from error
        read = None
    if keys[key] is str and not isinstance(read, str):  # "Document: {text}" would be a mapping, "12" a number
        read = value
    return [Setting(key, read, place)]


def build(model: type[Model], settings: Iterable[Setting]) -> Model:
    """Apply the settings one after the other, later ones over earlier ones, and check the whole.

    Raises:
        InputError: If a value does not fit; the message names place, key, value and what was expected.

    Example:
        >>> from rabtriever.prompt import PromptConfig
        >>> build(PromptConfig, [Setting("max_query_tokens", 64, "--set")]).max_query_tokens
        64
    """
    applied = list(settings)
    tree: dict[str, Any] = {}
    for setting in applied:
        *sections, last = setting.key.split(".")
        level = tree
        for section in sections:
            if not isinstance(level.get(section), dict):
                level[section] = {}
            level = level[section]
        level[last] = setting.value
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _refusal(error, applied) from error


def _nested(annotation: Any) -> type[BaseModel] | None:
    """The model behind ``Model`` or ``Model | None``, if there is one."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return next((choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel)), None)


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _construct(node: yaml.Node | None) -> Any:
    return None if node is None else _Loader("").construct_object(node, deep=True)


def _walk(node: yaml.MappingNode, prefix: str, keys: dict[str, Any], source: str) -> Iterator[Setting]:
    """Flatten a mapping into settings; only sections of the model are entered."""
    for key_node, value_node in node.value:
        place = source if source == "--set" else f"{source}, line {key_node.start_mark.line + 1}"
        key = f"{prefix}{key_node.value if isinstance(key_node, yaml.ScalarNode) else '?'}"
        _check_known(key, keys, place)
        if isinstance(value_node, yaml.MappingNode) and _nested(keys[key]) is not None:
            yield from _walk(value_node, f"{key}.", keys, source)
            continue
        try:
            value = _construct(value_node)
        except yaml.YAMLError as error:
            raise InputError(f"{place}: {key} has a value that plain YAML cannot express") from error
        yield Setting(key, value, place)


def _check_known(key: str, keys: dict[str, Any], place: str) -> None:
    if key in keys:
        return
    close = get_close_matches(key, keys, n=3, cutoff=0.75)
    close += [known for known in keys if known not in close and known.rpartition(".")[2] == key]
    section = key
    while section and section not in keys:
        section = section.rpartition(".")[0]
    prefix = f"{section}." if section else ""
    below = [known[len(prefix) :] for known in keys if known.startswith(prefix)]
    valid = [name for name in below if "." not in name]
    guess = f"did you mean {' or '.join(close)}? " if close else ""
    where = f" under {section}" if section else ""
    listing = f"valid keys{where}: {', '.join(valid)}" if valid else f"{section} has no keys below it"
    raise InputError(f"{place}: unknown setting {key!r}", hint=guess + listing, code="unknown_setting")


def _refusal(error: ValidationError, applied: list[Setting]) -> InputError:
    """The first problem in one sentence, with the place that the value came from."""
    problem = error.errors()[0]
    location = ".".join(str(part) for part in problem["loc"])
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("model_type", "dict_type"):
        reason = "must be a section with keys of its own"
    elif said.startswith("Input should be "):
        reason = f"must be {said.removeprefix('Input should be ')}"
    else:
        reason = said[:1].lower() + said[1:]
    # pydantic adds the branch of a union to the location, so the setting is the longest one that leads there. A check
    # of several keys at once is located at their section: then it is any setting below.
    leading = [s for s in applied if f"{location}.".startswith(f"{s.key}.")]
    below = [s for s in applied if s.key.startswith(f"{location}.") or not location]
    found = max(leading, key=lambda s: (len(s.key), applied.index(s)), default=below[-1] if below else None)
    if found is None:
        return InputError(f"{location}: {reason}", code="bad_setting")
    return InputError(f"{found.place}: {found.key} cannot be {found.value!r}: {reason}", code="bad_setting")
