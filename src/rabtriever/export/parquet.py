"""An index as one Parquet file: documents, metadata and vectors for any other engine of inner-product search."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from rabtriever.errors import InputError
from rabtriever.export.report import ExportReport
from rabtriever.files import writing

if TYPE_CHECKING:
    import pyarrow as pa

    from rabtriever.index.description import Description
    from rabtriever.index.vectors import Vectors
    from rabtriever.progress import Progress

__all__ = ["export_parquet"]

_KEY = b"rabtriever"


def export_parquet(index: str | Path, output: str | Path, progress: Progress | None = None) -> ExportReport:
    """Write an index's documents and vectors; no model is loaded. A former export at ``output`` is replaced.

    One row for each vector, so a document of several passages has several, and its score is that of the best. Columns:
    ``id``, ``passage`` (int32, from 0), ``title``, ``text``, ``metadata`` (JSON) and ``vector`` (fixed-size list of
    ``k`` float32). The schema's metadata hold, under ``rabtriever``, JSON with the model's fingerprint and the ``bias``
    that turns an inner product with a query vector into log-odds.

    Args:
        index: The index's folder; others may write to it meanwhile.
        output: The file to write.
        progress: Where to report.

    Raises:
        InputError: If there is no index, or ``output`` is something else than a former export.
        DataError: If a row of the index is damaged.

    Example:
        >>> export_parquet("my-index", "my-index.parquet").bytes     # doctest: +SKIP
        172032
    """
    import pyarrow.parquet as pq

    from rabtriever.index import Index
    from rabtriever.progress import SilentProgress

    folder, output = Path(index).expanduser(), Path(output).expanduser()
    _check_replaceable(output)
    fresh = output.with_name(f"{output.name}.tmp-{secrets.token_hex(4)}")
    with Index.open(folder) as opened, writing(output, fresh):
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            task = (progress or SilentProgress()).task("writing documents", total=opened.count, unit="documents")
            with task as counter, pq.ParquetWriter(fresh, _schema(opened.description), compression="zstd") as writer:
                for batch in opened.vectors():
                    writer.write_table(_table(batch, writer.schema))
                    counter.advance(len(batch.documents))
            with fresh.open("r+b") as file:
                os.fsync(file.fileno())
            fresh.replace(output)
        finally:
            fresh.unlink(missing_ok=True)
    return ExportReport(output, "parquet", {}, output.stat().st_size, ())


def _schema(description: Description) -> pa.Schema:
    import pyarrow as pa

    facts = {
        "format_version": 1,
        "bias": description.bias,
        "fingerprint": description.model.fingerprint,
        "prompt_hash": description.model.prompt_hash,
    }
    columns: list[tuple[str, pa.DataType]] = [
        ("id", pa.string()),
        ("passage", pa.int32()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("metadata", pa.string()),
        ("vector", pa.list_(pa.float32(), description.dimension)),
    ]
    return pa.schema(columns, metadata={_KEY: json.dumps(facts).encode()})


def _table(batch: Vectors, schema: pa.Schema) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    from rabtriever.index.records import write_metadata

    documents = [batch.documents[row] for row in batch.owner]
    metadata = [write_metadata(document) for document in batch.documents]
    columns = {
        "id": [document.id for document in documents],
        "passage": batch.passages,
        "title": [document.title for document in documents],
        "text": [document.text for document in documents],
        "metadata": [metadata[row] for row in batch.owner],
        "vector": pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(batch.vectors).reshape(-1)), batch.vectors.shape[1]
        ),
    }
    return pa.table(columns, schema=schema)


def _check_replaceable(output: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not output.exists():
        return
    try:
        ours = output.is_file() and _KEY in (pq.read_schema(output).metadata or {})
    except (OSError, pa.ArrowException):
        ours = False
    if not ours:
        raise InputError(f"{output} exists and is no former export", hint="choose another name, or remove it yourself")
