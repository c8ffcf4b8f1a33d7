"""The prompt inside a tokenizer: a post-processor puts the template's ids around whatever a text becomes.

Template and text are tokenised apart in :mod:`rabtriever.prompt`; a post-processor does just that, and its ids are
reserved when a text is truncated. What is left is the space that many templates have before the text. It belongs to
the text, so something has to write it there:

- the normalizer, where all of the tokenizer's added tokens are special ones;
- else the prompt that sentence-transformers puts before every text, since a normalizer sees the pieces between added
  tokens, and rewrites normalized added tokens too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rabtriever.errors import InputError
from rabtriever.files import write_json, write_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rabtriever.prompt import Prompt

__all__ = ["TowerTokenizer", "document_tokenizer", "pair_tokenizer", "query_tokenizer", "text_pipeline"]

_Parts = Sequence[list[int] | str]
"""What a text becomes: constant ids, and a letter where a text stands."""
_MARK = "\ue000"
"""Stands before a prompt's space, so that a normalizer can tell an empty text from one that begins with a space."""
_OWN_LINE = "write the template with its text on a line of its own, as in 'Document:\\n{text}\\n', and train with that"


@dataclass(frozen=True, slots=True)
class TowerTokenizer:
    """A tokenizer that reads a text as one part of the prompt.

    Attributes:
        state: The pipeline, as ``tokenizer.json`` holds it.
        config: What ``tokenizer_config.json`` holds.
        prompt: What sentence-transformers must put before every text; often nothing.
        empty_is_space: Whether an empty text is read as one space.

    Example:
        >>> document_tokenizer(student.reranker.prompt).save(Path("tower"))    # doctest: +SKIP
    """

    state: dict[str, Any]
    config: dict[str, Any]
    prompt: str = ""
    empty_is_space: bool = False

    def with_truncation(self) -> TowerTokenizer:
        """The same, but its pipeline cuts long texts and pads short ones by itself, for those who load nothing else."""
        pad = self.config["pad_token"]
        known = [token["id"] for token in self.state["added_tokens"] if token["content"] == pad]
        truncation = {
            "direction": self.config["truncation_side"].capitalize(),
            "max_length": self.config["model_max_length"],
            "strategy": "LongestFirst",
            "stride": 0,
        }
        padding = {
            "strategy": "BatchLongest",
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": known[0] if known else 0,
            "pad_type_id": 0,
            "pad_token": pad,
        }
        return replace(self, state={**self.state, "truncation": truncation, "padding": padding})

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``; there is no chat template.

        Raises:
            InputError: If the disk is full.
        """
        write_text(folder / "tokenizer.json", json.dumps(self.state, ensure_ascii=False))
        write_json(folder / "tokenizer_config.json", self.config)


def text_pipeline(prompt: Prompt) -> dict[str, Any]:
    """The prompt's tokenizer alone, as ``tokenizer.json`` holds it.

    Raises:
        InputError: If the tokenizer has no pipeline of the tokenizers library.

    Example:
        >>> text_pipeline(prompt)["truncation"] is None              # doctest: +SKIP
        True
    """
    return _pipeline(prompt.tokenizer)


def document_tokenizer(prompt: Prompt) -> TowerTokenizer:
    """Reads a text as the document part, ``(L_D,)`` ids.

    Raises:
        InputError: If the tokenizer has no pipeline of the tokenizers library.

    Example:
        >>> document_tokenizer(prompt).config["truncation_side"]     # doctest: +SKIP
        'right'
    """
    single: _Parts = [prompt.parts.document_head, "A", prompt.parts.document_tail]
    return _single(prompt, single, prompt.parts.document_space, prompt.config.max_document_tokens, "right")


def query_tokenizer(prompt: Prompt) -> TowerTokenizer:
    """Reads a text as the query part, ``(L_Q,)`` ids.

    Of a text that is too long, the library keeps one end where :class:`rabtriever.prompt.Prompt` may keep both: the end
    from which the prompt keeps more.

    Raises:
        InputError: If the tokenizer has no pipeline of the tokenizers library.

    Example:
        >>> query_tokenizer(prompt).config["model_max_length"]       # doctest: +SKIP
        302
    """
    single: _Parts = [prompt.parts.query_head, "A", prompt.parts.query_tail]
    side: Literal["left", "right"] = "right" if prompt.config.query_start >= 0.5 else "left"
    return _single(prompt, single, prompt.parts.query_space, prompt.config.max_query_tokens, side)


def pair_tokenizer(prompt: Prompt) -> TowerTokenizer:
    """Reads a pair (query, document) as the whole prompt, the document first: ``(L_D + L_Q,)`` ids.

    Raises:
        InputError: If the tokenizer has no pipeline of the tokenizers library, or cannot write the space before both
            texts.

    Example:
        >>> pair_tokenizer(prompt).prompt                            # doctest: +SKIP
        ''
    """
    state = _pipeline(prompt.tokenizer)
    spaces = {prompt.parts.document_space, prompt.parts.query_space}
    blank = [
        token["content"] for token in _plain_tokens(state) if token["normalized"] or token["content"].strip() == ""
    ]
    if " " in spaces and (len(spaces) > 1 or blank):
        what = (
            f"its tokenizer has added tokens such as {blank[0]!r}"
            if blank
            else "the templates have a space before one of the two texts only"
        )
        raise InputError(f"this teacher cannot be read as a cross-encoder reads pairs: {what}", hint=_OWN_LINE)
    if " " in spaces:
        _prepend_space(state)
    middle = prompt.parts.document_tail + prompt.parts.query_head
    pair: _Parts = [prompt.parts.document_head, "B", middle, "A", prompt.parts.query_tail]
    state["post_processor"] = _template([prompt.parts.query_head, "A", prompt.parts.query_tail], pair)
    return TowerTokenizer(state, _config(prompt.tokenizer, prompt.longest, "right"))


def _single(prompt: Prompt, parts: _Parts, space: str, limit: int, side: Literal["left", "right"]) -> TowerTokenizer:
    state = _pipeline(prompt.tokenizer)
    state["post_processor"] = _template(parts)
    length = limit + sum(len(part) for part in parts if not isinstance(part, str))
    config = _config(prompt.tokenizer, length, side)
    plain = _plain_tokens(state)
    if not space:
        return TowerTokenizer(state, config)
    if not plain:
        _prepend_space(state)
        return TowerTokenizer(state, config)
    # An added token at a text's start is cut off before the normalizer runs, which then sees the prompt alone, as of an
    # empty text. Line breaks do stand there (Gemma has tokens for them), control tokens do not: see the README.
    if any(not token["normalized"] and token["content"][:1].isspace() for token in plain):
        return TowerTokenizer(state, config, prompt=" ", empty_is_space=True)
    _normalize_first(state, _replace(rf"\A{_MARK} \z", ""), _replace(rf"\A{_MARK} ", " "))
    return TowerTokenizer(state, config, prompt=f"{_MARK} ")


def _pipeline(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{type(tokenizer).__name__} is not built on the tokenizers library, so it cannot carry the prompt",
            hint="use a base model that has a tokenizer.json",
        )
    state: dict[str, Any] = json.loads(backend.to_str())
    state.update(truncation=None, padding=None)
    return state


def _plain_tokens(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The added tokens that are found in users' texts too: special ones are not, by ``split_special_tokens``."""
    return [token for token in state["added_tokens"] if not token["special"]]


def _prepend_space(state: dict[str, Any]) -> None:
    _normalize_first(state, {"type": "Prepend", "prepend": " "})  # leaves an empty text empty


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _normalize_first(state: dict[str, Any], *steps: dict[str, Any]) -> None:
    before = [] if state["normalizer"] is None else [state["normalizer"]]
    state["normalizer"] = {"type": "Sequence", "normalizers": [*steps, *before]}


def _template(single: _Parts, pair: _Parts | None = None) -> dict[str, Any]:
    """A ``TemplateProcessing``: ids stand for themselves, a letter for a text."""
    runs: dict[str, dict[str, Any]] = {}

    def pieces(parts: _Parts) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for part in parts:
            if isinstance(part, str):
                out.append({"Sequence": {"id": part, "type_id": 0}})
            elif part:
                name = f"ids-{len(runs)}"
                runs[name] = {"id": name, "ids": part, "tokens": [str(number) for number in part]}
                out.append({"SpecialToken": {"id": name, "type_id": 0}})
        return out

    # A pair's template is required, and must hold both texts, even where nobody gives pairs.
    both = pieces(["A", "B"] if pair is None else pair)
    return {"type": "TemplateProcessing", "single": pieces(single), "pair": both, "special_tokens": runs}


def _config(tokenizer: PreTrainedTokenizerBase, length: int, side: str) -> dict[str, Any]:
    names = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    # What pads is masked out, so any token will do where a model has none.
    names["pad_token"] = names["pad_token"] or names["eos_token"] or str(tokenizer.convert_ids_to_tokens(0))
    return {
        # Loads the pipeline as it is. A family's own class would rebuild it, and some families (Qwen 2, Phi 3) get that
        # class whatever is written here, unless the processor is named too.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "PreTrainedTokenizerFast",
        **{name: str(token) for name, token in names.items() if token is not None},
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # what users write is text, even where it spells a control token
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": length,
        "padding_side": "right",
        "truncation_side": side,
    }
