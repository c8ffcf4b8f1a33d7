"""An index in the engine that you run already: Qdrant, Milvus or PostgreSQL with pgvector.

The student's score is an inner product (the fold, in :mod:`rabtriever.retriever`), so any engine that searches by it
exactly ranks as the index does. ``points`` is what is sent, ``engine`` what an engine must be able to do, ``qdrant``,
``milvus`` and ``pgvector`` do it, ``upload`` brings an engine up to date, ``pushed`` searches through it.
"""

from __future__ import annotations

from rabtriever.push.engine import Kind, checked_kind
from rabtriever.push.pushed import PushedIndex
from rabtriever.push.upload import Pushed, push

__all__ = ["Kind", "Pushed", "PushedIndex", "checked_kind", "push"]
