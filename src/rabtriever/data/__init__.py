r"""Datasets in BEIR layout and document files: read strictly, with errors that name the file and the line.

Example:
    >>> from rabtriever.data import Document, Query
    >>> Document("d1", "find a sponge", title="Skill").content
    'Skill\nfind a sponge'
    >>> Query("q1", "I spilled my coke").text
    'I spilled my coke'
"""

from __future__ import annotations

from rabtriever.data.dataset import Dataset, sample
from rabtriever.data.documents import read_documents
from rabtriever.data.records import Document, Query

__all__ = ["Dataset", "Document", "Query", "read_documents", "sample"]
