"""The texts of a request: Unicode, as a model and a disk can take it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

__all__ = ["Text"]


def _unicode(text: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"a lone surrogate at character {error.start}, which is no text") from None
    return text


Text = Annotated[str, AfterValidator(_unicode)]
r"""A string without lone surrogates, which JSON can carry (``"\ud800"``) and UTF-8 cannot.

Example:
    >>> from pydantic import TypeAdapter
    >>> TypeAdapter(Text).validate_python("find a sponge")
    'find a sponge'
"""
