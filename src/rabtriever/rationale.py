"""A sentence that says why a document answers a query, or why not: written by a chat model, and to be read as such.

The teacher's own weights have learnt to give one answer token. So its base model writes, on the document as it has read
it (the prefix that causal attention lets every query share, Eq. 8). The sentence explains a verdict to a person; the
verdict itself is the teacher's, and is not changed by it.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING

from rabtriever.errors import InputError
from rabtriever.prompt import Prompt, PromptConfig

if TYPE_CHECKING:
    from rabtriever.numerics import DType
    from rabtriever.reranker import Reranker

__all__ = ["RationaleWriter"]

_QUESTION = "Query: {{text}}\nWhy can Query {be} appropriately responded with Document? Answer in one short sentence."
_VERDICTS = {True: "be", False: "not be"}
_MOST_TOKENS = 48
_ENDS = (". ", "! ", "? ", "\n")


class RationaleWriter:
    """Writes rationales with the base model of a teacher; it is loaded when the first one is asked for.

    Args:
        teacher: Says which base model, and how documents and queries are cut.
        dtype: What the base model computes in.

    Attributes:
        name: The base model's name, to be shown with what it wrote.

    Raises:
        InputError: The teacher's base model is not known, or is no chat model (code ``no_chat_model``).

    Example:
        >>> writer = RationaleWriter(Reranker.from_pretrained("my-model"))          # doctest: +SKIP
        >>> writer.write("I lost my job", "Reflection of feelings", fits=True)      # doctest: +SKIP
        'Losing a job hurts, and naming the feeling shows that it was heard.'
    """

    def __init__(self, teacher: Reranker, dtype: DType = "auto") -> None:
        if teacher.base is None or not teacher.backbone.tokenizer.chat_template:
            raise InputError(
                "rationales are written by the model that the teacher was trained from, and "
                + ("that is not known" if teacher.base is None else f"{teacher.base.name} is no chat model"),
                hint="use a model trained from a chat model",
                code="no_chat_model",
            )
        self._place, self._prompt, self._dtype = teacher.base.name, teacher.prompt.config, dtype
        # Of a folder the last part alone: its path is nobody's business whom the name is shown to.
        self.name = PurePath(self._place).name if PurePath(self._place).is_absolute() else self._place

    def write(self, query: str, document: str, *, fits: bool) -> str:
        """Say why a document answers a query, or why it does not.

        Args:
            query: The query.
            document: The document; what was read for one rationale is kept for the next.
            fits: The verdict that is to be explained.

        Returns:
            One sentence, or as much of it as fits into 48 tokens.
        """
        from rabtriever.generation import write_on

        (prefix,) = self._base.read([document])
        ids = write_on(self._base.backbone, prefix, self._prompts[fits].query_ids(query), _MOST_TOKENS)
        return _first_sentence(str(self._base.backbone.tokenizer.decode(ids, skip_special_tokens=True)))

    @cached_property
    def _base(self) -> Reranker:
        from rabtriever.reranker import Reranker

        return Reranker.from_pretrained(self._place, prompt=self._question(True), dtype=self._dtype)

    @cached_property
    def _prompts(self) -> dict[bool, Prompt]:
        return {fits: Prompt(self._base.backbone.tokenizer, self._question(fits)) for fits in _VERDICTS}

    def _question(self, fits: bool) -> PromptConfig:
        # A prompt ends before the first token by which its answers differ: these share none, so it ends with the
        # template's cue, and whatever the model likes comes next.
        query = _QUESTION.format(be=_VERDICTS[fits])
        return PromptConfig(**{**self._prompt.model_dump(), "query": query, "true": "Yes", "false": "No"})


def _first_sentence(text: str) -> str:
    """What stands before the first end of a sentence, with it.

    Example:
        >>> _first_sentence(" It dries up spills. Also, it is cheap.")
        'It dries up spills.'
    """
    text = text.strip()
    ends = [place + 1 for end in _ENDS if (place := text.find(end)) >= 0]
    return text[: min(ends)].strip() if ends else text
