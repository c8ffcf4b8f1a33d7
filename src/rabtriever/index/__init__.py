"""Documents, vectors and metadata in one folder, and exact search over them.

The vectors of a student are ordinary vectors and its score an inner product (the fold, in :mod:`rabtriever.retriever`),
so an index is a table and a scan: ``store`` keeps the table (Lance), ``scan`` finds the k largest inner products
exactly, ``filter`` decides which documents take part, ``index`` puts them together, ``keeper`` sees to its cache.
"""

from __future__ import annotations

from rabtriever.index.index import Index
from rabtriever.index.keeper import CacheKeeper, wants_cache
from rabtriever.index.passages import Passages
from rabtriever.index.protocol import Encoder, Teacher
from rabtriever.index.records import Counts, Hit, Version
from rabtriever.index.vectors import Vectors

__all__ = [
    "CacheKeeper",
    "Counts",
    "Encoder",
    "Hit",
    "Index",
    "Passages",
    "Teacher",
    "Vectors",
    "Version",
    "wants_cache",
]
