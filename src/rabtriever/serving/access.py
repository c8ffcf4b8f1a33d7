"""API keys: who may read, who may write, and how often."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rabtriever.errors import InputError
from rabtriever.serving.failures import ServingError, busy

__all__ = ["Caller", "Keys", "RateLimit", "Scope"]

Scope = Literal["read", "write"]

_SHORTEST = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, as the log and the rate limit know them.

    Attributes:
        name: The key's name, or an address.
        scope: What they may do; ``write`` includes ``read``.
    """

    name: str
    scope: Scope


class Keys:
    """The keys that open the server; only their hashes are kept.

    Args:
        entries: Name, scope and key of each.

    Raises:
        InputError: There are none, one is too short, or two are the same.

    Example:
        >>> keys = Keys([("page", "read", "0123456789abcdef")])
        >>> keys.find("0123456789abcdef").name
        'page'
        >>> keys.find("0123456789abcdeg") is None
        True
    """

    def __init__(self, entries: Iterable[tuple[str, Scope, str]]) -> None:
        self._known: list[tuple[bytes, Caller]] = []
        for name, scope, key in entries:
            if len(key) < _SHORTEST:
                raise InputError(
                    f"the API key of {name} has {len(key)} characters, fewer than {_SHORTEST}",
                    hint="python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one",
                )
            if self.find(key) is not None:
                raise InputError(f"the API key of {name} is there twice", hint="give each name a key of its own")
            self._known.append((_hash(key), Caller(name, scope)))
        if not self._known:
            raise InputError("there is no API key in the file", hint="write lines such as: read NAME KEY")

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read a file with a scope (``read`` or ``write``), a name and a key on each line; ``#`` begins a comment.

        Raises:
            InputError: A line is malformed; the message names it, and never shows a key.
        """
        entries: list[tuple[str, Scope, str]] = []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 3 or words[0] not in ("read", "write"):
                raise InputError(f"{path}:{number}: expected read or write, a name and a key", "read NAME KEY")
            entries.append((words[1], "write" if words[0] == "write" else "read", words[2]))
        return cls(entries)

    def find(self, key: str) -> Caller | None:
        """Whose key this is. Every key is compared, and none for longer than another."""
        given, found = _hash(key), None
        for known, caller in self._known:
            if hmac.compare_digest(known, given):
                found = caller
        return found

    def admit(self, authorization: str | None, scope: Scope) -> Caller:
        """Let a request in by its ``Authorization`` header.

        Raises:
            ServingError: The key is missing or unknown (401), or does not allow this (403).
        """
        kind, _, key = (authorization or "").partition(" ")
        caller = self.find(key.strip()) if kind.lower() == "bearer" else None
        if caller is None:
            raise ServingError(
                401,
                "no_key" if authorization is None else "unknown_key",
                "an API key is needed" if authorization is None else "this API key is not known",
                "send the header Authorization: Bearer KEY",
                {"WWW-Authenticate": "Bearer"},
            )
        if scope == "write" and caller.scope != "write":
            raise ServingError(403, "read_only", "this API key may only read", "use one with the scope write")
        return caller


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


@dataclass
class RateLimit:
    """So many requests a minute from each caller, in bursts of as many at most (a token bucket).

    Attributes:
        per_minute: The rate; 0 lets everything pass.
        remembered: Callers kept in mind; those not seen for longest are forgotten first.

    Example:
        >>> limit = RateLimit(per_minute=2)
        >>> limit.spend("a"), limit.spend("a"), limit.spend("b")
        (None, None, None)
    """

    per_minute: int
    remembered: int = 10_000
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def spend(self, name: str) -> None:
        """Count a request.

        Raises:
            ServingError: The caller must wait (429, code ``rate_limited``).
        """
        if not self.per_minute:
            return
        now, rate = time.monotonic(), self.per_minute / 60
        left, before = self._buckets.pop(name, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - before) * rate)
        spent = left >= 1
        self._buckets[name] = (left - 1 if spent else left, now)
        if len(self._buckets) > self.remembered:
            self._buckets.popitem(last=False)
        if not spent:
            raise busy("too many requests", (1 - left) / rate, code="rate_limited")
