"""Long documents cut into passages that overlap; a document scores as its best passage does."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Passages", "cut", "texts_of"]


class Passages(BaseModel):
    """How an index cuts long documents.

    Lengths are in characters, which mean the same for every model and language. An English token has about four.

    Args:
        characters: Length of a passage; a document of no more is one passage.
        overlap: Characters that a passage shares with the one before it.

    Example:
        >>> Passages(characters=400, overlap=50).overlap
        50
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    characters: int = Field(default=2000, ge=20)
    overlap: int = Field(default=200, ge=0)


def cut(content: str, how: Passages | None) -> list[tuple[int, int]]:
    """Start and end of each passage; passages end between words where there is a space in their last quarter.

    Args:
        content: What the model would read of the document.
        how: Lengths; None leaves every document whole.

    Returns:
        One span for each passage, together covering all of ``content``; none where it is a single passage.

    Example:
        >>> cut("one two three four five six seven", Passages(characters=20, overlap=5))
        [(0, 19), (14, 33)]
        >>> cut("short", Passages())
        []
    """
    if how is None or len(content) <= how.characters:
        return []
    spans, start = [], 0
    while True:
        end = start + how.characters
        if end >= len(content):
            spans.append((start, len(content)))
            return spans
        earliest = start + how.characters * 3 // 4
        space = max((content.rfind(sign, earliest, end) for sign in " \n\t"), default=-1)
        end = space + 1 if space >= 0 else end
        spans.append((start, end))
        start = max(start + 1, end - min(how.overlap, how.characters // 2))


def texts_of(content: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """The passages' texts; the whole where there are no spans.

    Example:
        >>> texts_of("one two", [(0, 4), (4, 7)]), texts_of("one", [])
        (['one ', 'two'], ['one'])
    """
    return [content[start:end] for start, end in spans] or [content]
