"""A copy of one version's vectors and documents that is mapped into memory, and the quantised scan over it.

It is a cache: built from the table, used only while it belongs to the same model, library and faiss, verified when it
is opened (each document when it is handed out), and deleted without loss. Rows of the table that it does not hold are
searched exactly beside it; rows that the table does not hold any more are masked.

Disk: four bytes for each number of a vector, and one (or two) for its code, and the documents. Memory while it is
built: the codes.
"""

from __future__ import annotations

import secrets
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

import rabtriever
from rabtriever.errors import InputError
from rabtriever.files import atomic_folder, read_json, write_json
from rabtriever.index import accelerator
from rabtriever.index.description import Description
from rabtriever.index.locks import exclusive
from rabtriever.index.segment import Segment
from rabtriever.index.snapshot import Snapshot
from rabtriever.index.texts import ENDS, LINES, Texts, texts_writer

__all__ = ["FOLDER", "Header", "build", "drop", "segments", "state"]

FOLDER = "cache"
_HEADER = "header.json"
_FORMAT: Literal[2] = 2
_CHUNK = 1 << 22
_RECORDS = pa.schema([("id", pa.string()), ("metadata", pa.large_string())])


class Header(BaseModel):
    """What a cache says about itself.

    Args:
        format_version: Of the cache's layout.
        library_version: The version of this package that built it.
        faiss_version: The version of faiss, where there was one.
        fingerprint: The model's.
        table: The table's name, and ``version``, which version of it was copied.
        documents: How many there are, and ``vectors``, how many vectors they have.
        dimension: Width of the vectors.
        codes: How the vectors are quantised for the scan; None where no way is good enough, or faiss is missing.
        recall: The measured recall at 10 of the codes chosen, or of the last ones refused.
        bits_recall: That of codes of single bits, where they were tried.
        sums: Checksums of the files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[2] = _FORMAT
    library_version: str = rabtriever.__version__
    faiss_version: str | None
    fingerprint: str
    table: str
    version: int
    documents: int
    vectors: int
    dimension: int
    codes: accelerator.Codes | None = None
    recall: float | None = None
    bits_recall: float | None = None
    sums: dict[str, int]


def build(
    folder: Path,
    description: Description,
    snapshot: Snapshot,
    queries: Callable[[], NDArray[np.float32]],
    fast: bool = False,
    memory: int | None = None,
) -> Header:
    """Copy a version's vectors, quantise them, and measure whether the codes may be used.

    Args:
        folder: The index folder.
        description: Of the index.
        snapshot: The version.
        queries: Gives query vectors ``(q, k)`` to measure with.
        fast: Try codes of single bits first, made for one half of the queries and measured on the other.
        memory: Try no codes of more bytes than these.

    Raises:
        DataError: A stored vector is damaged.
        InputError: The disk is full.
    """
    target = folder / FOLDER / f"{description.table}-{snapshot.version}"
    with exclusive(folder, "cache"), atomic_folder(target, marker=_HEADER) as fresh:
        for left in (*fresh.parent.glob("*.tmp-*"), *fresh.parent.glob("*.old-*")):
            if left != fresh:
                shutil.rmtree(left, ignore_errors=True)  # of a build that was killed
        _copy(snapshot, fresh)
        segment = _segment(fresh, description.dimension)
        codes, recall, bits = _quantise(fresh, segment, queries, fast, memory) if len(segment) else (None, None, None)
        header = Header(
            faiss_version=accelerator.version(),
            fingerprint=description.model.fingerprint,
            table=description.table,
            version=snapshot.version,
            documents=len(segment),
            vectors=len(segment.vectors),
            dimension=description.dimension,
            codes=codes,
            recall=recall,
            bits_recall=bits,
            sums={path.name: _sum(path) for path in fresh.iterdir()},
        )
        del segment
        write_json(fresh / _HEADER, header.model_dump(mode="json"))
    for other in _caches(folder):
        if other != target:
            _remove(other)
    return header


def segments(folder: Path, description: Description) -> list[Segment]:
    """The newest cache that is whole and belongs to the index, mapped into memory; empty where there is none."""
    for place in _caches(folder):
        with suppress(InputError, ValidationError, OSError, ValueError, RuntimeError, pa.ArrowException):
            header = _verified(place, description, but=(LINES,))
            segment = _segment(place, header.dimension)
            if header.codes is not None and header.faiss_version == accelerator.version() is not None:
                segment.accelerator = accelerator.open_scan(place, header.vectors, header.dimension)
            return [segment]
    return []


def state(folder: Path, description: Description) -> tuple[str, list[str]]:
    """``none``, ``ready``, ``exact`` or ``damaged``, and a sentence for each cache that cannot be used.

    One that belongs to another model or library is stale, which is no damage; it counts as none.
    """
    problems: list[str] = []
    found = "none"
    for place in _caches(folder):
        try:
            header = _verified(place, description)
        except _StaleError:
            continue
        except (InputError, ValidationError, OSError, ValueError) as error:
            problems.append(f"the cache {place} is damaged and not used: {str(error).splitlines()[0]}")
            continue
        if found == "none":
            found = "ready" if header.codes else "exact"
    return ("damaged" if problems and found == "none" else found), problems


def drop(folder: Path) -> None:
    """Delete all caches of an index."""
    for place in _caches(folder):
        _remove(place)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


class _StaleError(ValueError):
    pass


def _verified(place: Path, description: Description, but: Sequence[str] = ()) -> Header:
    """The header of a cache that is whole and belongs to the index; some files' contents are not looked at."""
    stored = read_json(place / _HEADER)
    if isinstance(stored, dict) and stored.get("format_version") != _FORMAT:
        raise _StaleError("it has another layout")
    header = Header.model_validate(stored)
    wanted = (rabtriever.__version__, description.model.fingerprint, description.table, description.dimension)
    if (header.library_version, header.fingerprint, header.table, header.dimension) != wanted:
        raise _StaleError("it belongs to another model or version")
    for name, expected in header.sums.items():
        if name not in but and _sum(place / name) != expected:
            raise ValueError(f"{name} is not as it was written")
    return header


def _copy(snapshot: Snapshot, fresh: Path) -> None:
    """Stream a version into files: firsts, then the vectors of further passages."""
    more, done = fresh / "more.tmp", 0
    with (
        (fresh / "vectors.f32").open("wb") as firsts,
        more.open("w+b") as further,
        (fresh / "stamps.u64").open("wb") as stamps,
        (fresh / "owner.i64").open("wb") as owner,
        pa.OSFile(str(fresh / "records.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, _RECORDS) as records,
        texts_writer(fresh) as write_texts,
    ):
        for batch, columns in snapshot.rows():
            write_texts(columns)
            firsts.write(batch.vectors.tobytes())
            further.write(batch.more.tobytes())
            stamps.write(batch.stamps.tobytes())
            owner.write((batch.owner + done).astype(np.int64).tobytes())
            records.write_batch(pa.record_batch([batch.ids, batch.metadata], schema=_RECORDS))
            done += len(batch.stamps)
        further.seek(0)
        shutil.copyfileobj(further, firsts, _CHUNK)
    more.unlink()


def _segment(place: Path, dimension: int) -> Segment:
    vectors: NDArray[np.float32] = _mapped(place / "vectors.f32", np.float32).reshape(-1, dimension)
    with pa.memory_map(str(place / "records.arrow")) as source:
        records = pa.ipc.open_file(source).read_all().combine_chunks()
    columns = [
        records[name].chunk(0) if records[name].num_chunks else pa.array([], records.schema.field(name).type)
        for name in ("id", "metadata")
    ]
    texts = Texts(_mapped(place / LINES, np.uint8), _mapped(place / ENDS, np.int64).reshape(-1, 2))
    segment = Segment(
        _mapped(place / "stamps.u64", np.uint64),
        columns[0],
        columns[1],
        vectors,
        _mapped(place / "owner.i64", np.int64),
        texts=texts,
    )
    whole = len(texts) == len(segment) and len(segment) + len(segment.owner) == len(vectors)
    if not whole or not np.isfinite(segment.norm):
        raise ValueError("its vectors are not those of its documents")
    return segment


def _mapped(path: Path, kind: type[np.generic]) -> NDArray[Any]:
    if path.stat().st_size == 0:  # nothing to map
        return np.empty(0, kind)
    return np.memmap(path, kind, "r").view(np.ndarray)


def _quantise(
    fresh: Path, segment: Segment, queries: Callable[[], NDArray[np.float32]], fast: bool, memory: int | None
) -> tuple[accelerator.Codes | None, float | None, float | None]:
    """Try the codes, smallest first, until one finds what an exact search finds.

    Returns:
        The codes, their recall (or that of the last ones refused), and the recall of single bits where they were tried.
    """
    if accelerator.version() is None:
        return None, None, None
    vectors = queries()
    recall = bits = None
    tried: tuple[accelerator.Codes, ...] = ("rabitq", "sq8", "fp16") if fast else ("sq8", "fp16")
    for codes in tried:
        if memory is not None and accelerator.size(codes, *segment.vectors.shape) > memory:
            continue
        accelerator.build(segment.vectors, codes, fresh, vectors[::2])
        scan = accelerator.open_scan(fresh, len(segment.vectors), segment.vectors.shape[1])
        recall = accelerator.measure(segment, scan, vectors[1::2] if codes == "rabitq" else vectors)
        bits = recall if codes == "rabitq" else bits
        if recall >= accelerator.LEAST_RECALL:
            return codes, recall, bits
    accelerator.discard(fresh)
    return None, recall, bits


def _caches(folder: Path) -> list[Path]:
    """The caches there are, the newest first; what an interrupted build left beside them is not among them."""
    places = [path for path in (folder / FOLDER).glob("*") if path.suffix == "" and "-" in path.name]
    return sorted(places, key=lambda path: -int(path.name.rpartition("-")[2]) if path.name[-1].isdigit() else 0)


def _remove(place: Path) -> None:
    """Delete a cache; readers that have it mapped keep its pages (not on Windows)."""
    aside = place.with_name(f"{place.name}.old-{secrets.token_hex(4)}")  # half deleted, it would look damaged
    with suppress(OSError):
        place = place.rename(aside)
    shutil.rmtree(place, ignore_errors=True)


def _sum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total = zlib.crc32(chunk, total)
    return total
