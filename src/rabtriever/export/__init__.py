"""Ways out: a model or an index as files that other libraries read without this package.

``sentence_transformers`` and ``graph`` (ONNX, OpenVINO) write the student, ``cross_encoder`` the teacher, ``parquet``
an index; ``tokenizer``, ``towers`` and ``modules`` are what the first three are made of.
"""

from __future__ import annotations

from rabtriever.export.cross_encoder import export_cross_encoder
from rabtriever.export.graph import export_graph
from rabtriever.export.parquet import export_parquet
from rabtriever.export.report import ExportReport
from rabtriever.export.sentence_transformers import export_sentence_transformers

__all__ = ["ExportReport", "export_cross_encoder", "export_graph", "export_parquet", "export_sentence_transformers"]
