"""An index: a folder that keeps documents with their vectors and answers queries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from reprlib import repr as brief
from typing import get_args

from rabtriever.errors import InputError, RabtrieverError
from rabtriever.files import atomic_folder
from rabtriever.index import accelerator, cache, maintenance, repair, searching, writing
from rabtriever.index.description import Description
from rabtriever.index.passages import Passages
from rabtriever.index.protocol import Encoder
from rabtriever.index.reading import Reader
from rabtriever.index.records import Counts, DocumentLike, check_ids, whole_number
from rabtriever.index.reindex import reindex
from rabtriever.index.rows import Numbers
from rabtriever.index.store import Store
from rabtriever.progress import Progress

__all__ = ["Index"]

_QUERIES = 40
"""To make codes of single bits with one half and measure them, ten documents each, with the other."""


class Index(Reader):
    """Documents and their vectors in a folder; made by :meth:`create` and :meth:`open`.

    An open index reads one version of the folder until :meth:`refresh`, or until it writes itself; others may write
    meanwhile, and take turns. What a call has written when it returns (or, for ``add``, when it reports progress)
    survives a crash of the process and of the machine. Several threads may search at once. Do not fork a process that
    has an index open; spawn.

    Example:
        >>> from rabtriever import Index, Retriever                                      # doctest: +SKIP
        >>> index = Index.create("skills.index", Retriever.from_pretrained("model"))     # doctest: +SKIP
        >>> index.add([("sponge", "find a sponge"), ("drawer", "close the drawer")])     # doctest: +SKIP
        Counts(added=2, updated=0, unchanged=0)
        >>> index.search("I spilled my coke", k=1)[0].id                                 # doctest: +SKIP
        'sponge'
    """

    @classmethod
    def create(
        cls,
        path: str | Path,
        student: Encoder,
        *,
        exist_ok: bool = False,
        passages: Passages | None = None,
        dtype: Numbers | None = None,
    ) -> Index:
        """Make an empty index for a model's vectors; its folder appears whole or not at all.

        Args:
            path: The folder to make. Folders above it are made as well.
            student: The model.
            exist_ok: Open the index that is there already, if there is one.
            passages: Cut long documents into passages; a document scores as its best one. By default each is one.
            dtype: How vectors are stored: ``float32``, or ``float16``, which halves the table and rounds the scores
                (they are computed in float32 and exact for what is stored). By default float32.

        Raises:
            InputError: Something else is there, or an index and ``exist_ok`` is false, or it was made with other
                ``passages`` or another ``dtype``.
            MismatchError: The index that is there was made with another model.
        """
        folder = Path(path).expanduser()
        if (folder / "index.json").exists():
            if not exist_ok:
                raise InputError(f"the index {folder} exists already", hint="open it, or choose another folder")
            there = cls.open(folder, student)
            if passages is not None and passages != there.description.passages:
                there.close()
                raise InputError(
                    f"{folder} cuts documents into passages otherwise: {there.description.passages or 'not at all'}",
                    hint="leave the option out, or choose another folder",
                )
            if dtype not in (None, there._store.dtype):
                there.close()
                raise InputError(
                    f"{folder} stores vectors as {there._store.dtype}, not {dtype}",
                    hint="leave the option out, or choose another folder",
                )
            return there
        if dtype not in (None, *get_args(Numbers)):
            raise InputError(f"dtype must be one of {', '.join(get_args(Numbers))}, found {brief(dtype)}")
        # No file is a marker: what is there is never replaced.
        with atomic_folder(folder, marker="never") as fresh:
            description = Description.of(student, folder, passages)
            Store.create(fresh, description.table, student.dimension, dtype or "float32", pending=True)
            description.write(fresh)
        return cls.open(folder, student)

    def add(
        self,
        documents: Iterable[DocumentLike],
        *,
        batch_size: int = 256,
        window: int = 1,
        progress: Progress | None = None,
    ) -> Counts:
        """Add documents, replace those that changed, and leave the others as they are.

        A document is replaced when its id is there with another title, text or metadata; it is encoded again only when
        what the model reads of it changed. Documents that are not given stay: see :meth:`delete`.

        Each batch is one commit. Whatever ends the call early, the batches before it are stored, and the same call
        again takes up where it stopped.

        Args:
            documents: Documents, mappings with ``id``, ``text`` and perhaps ``title`` and ``metadata``, pairs
                (id, text), or texts, whose ids are hashes of theirs. Read as needed: any iterator will do.
            batch_size: Documents encoded and committed together.
            window: Batches read ahead and sorted by length, so that little padding is computed.
            progress: Where to report; documents count once they are stored.

        Raises:
            DataError: A document is malformed, two have the same id, or a vector is not finite.
            InputError: The disk is full, or another process keeps writing.
        """
        size, ahead = whole_number("batch_size", batch_size), whole_number("window", window)
        with self._refreshing():
            return writing.add(self._store, self._encoding, documents, batch_size=size, window=ahead, progress=progress)

    def upsert(self, documents: Iterable[DocumentLike]) -> Counts:
        """Do what :meth:`add` does in a single commit: all of the documents are stored, or none.

        Raises:
            DataError: A document is malformed, two have the same id, or a vector is not finite.
            InputError: The disk is full, or another process keeps writing.
        """
        with self._refreshing():
            return writing.upsert(self._store, self._encoding, documents)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete documents (an id, or several) in one commit, and return how many there were; others are passed over.

        Raises:
            InputError: An id is no string, or another process keeps writing.
        """
        deleted = self._store.delete(check_ids([ids] if isinstance(ids, str) else ids))
        self.refresh()
        return deleted

    def restore(self, version: int) -> int:
        """Make an earlier version the newest one, and return its new number; the versions between are kept.

        Raises:
            InputError: There is no such version (any more).
        """
        self._store.restore(whole_number("version", version))
        return self.refresh()

    def compact(self) -> maintenance.Cleaned:
        """Merge small files, and remove versions and files that no open reader needs; earlier versions are gone then.

        Raises:
            InputError: Another process keeps writing, or the disk is full.
        """
        before = self._store.size()
        maintenance.merge_files(self._store)
        self.refresh()  # lets go of the version before
        return maintenance.clean_up(self._store, before)

    def accelerate(
        self, queries: Sequence[str] | None = None, *, fast: bool = False, memory: int | None = None
    ) -> cache.Header:
        """Build the cache for this version: vectors mapped from a file, and a quantised scan if it is faithful.

        The scan needs faiss (``pip install 'rabtriever[fast]'``) and is used only if it finds 99 % of what an exact
        search finds; scores are always computed exactly. Later changes do not touch the cache: what it does not hold is
        searched beside it. Other threads may search and write meanwhile; :class:`rabtriever.index.CacheKeeper` calls
        this from a thread of its own.

        Args:
            queries: Queries to measure with; beginnings of stored texts when left out.
            fast: Try codes of a single bit, made for queries like these: the quickest scan over millions of vectors,
                used where it is as faithful. It needs queries as they will come, 40 or better a few hundred.
            memory: The most bytes that the codes may take, which a quick scan keeps in memory: of a vector of ``k``
                numbers, codes of 8 bits take ``k`` and codes of single bits ``k / 8 + 8``. Where none fits, documents
                are searched exactly, from the file. All else of the cache is mapped: the system may drop it at will.

        Raises:
            InputError: The disk is full, ``memory`` is negative, or ``fast`` is asked for without enough queries or
                without faiss.
        """
        most = None if memory is None else whole_number("memory", memory, least=0)
        if fast and len(set(queries or ())) < _QUERIES:
            raise InputError(
                f"codes of single bits are made for queries: give {_QUERIES} different ones or more, found"
                f" {len(set(queries or ()))}",
                hint="real ones, as users ask them",
            )
        if fast and accelerator.version() is None:
            raise InputError(
                "codes of single bits need the package faiss, which is not installed",
                hint="pip install 'rabtriever[fast]'",
                code="missing_package",
            )
        self.refresh()
        encoded = searching.sample_queries(self._snapshot, lambda: self.student, queries)
        header = cache.build(self.path, self.description, self._snapshot, encoded, fast, most)
        self.adopt_cache()
        return header

    @classmethod
    def repair(cls, path: str | Path, student: Encoder | None = None) -> repair.Repaired:
        """Mend what :meth:`check` finds: restore from copies, encode again, take out what cannot be mended.

        Where the newest version cannot be read, and no copy helps, it goes back to the newest that can.

        Args:
            path: The folder of an index, which need not be possible to open.
            student: The model; when left out, it is loaded if something must be encoded.

        Raises:
            DataError: No version can be read.
        """
        folder = Path(path).expanduser()
        description = Description.read(folder)
        restored = repair.restore_copies(folder, description)
        rolled_back = repair.roll_back(folder, description)
        index = cls.open(folder, student)
        return repair.repair(index._store, index._encoding, rolled_back, restored)

    def reindex(self, student: Encoder, progress: Progress | None = None) -> None:
        """Move to another model without downtime: encode all documents beside the index, then swap.

        Others read and write the index meanwhile; those who have it open go on with the former model's vectors until
        they refresh. An interrupted move goes on where it stopped. To a model that reads documents as the former one
        does (trained anew on the same teacher by the paper's predictor, say, or only in how queries are read) it moves
        at once: the vectors stay, and those who have it open go on with the former model until they open it again.

        Raises:
            InputError: The index is of this model already.
        """
        description = reindex(self.path, student, progress)
        self._student = student
        self._adopt(description)

    @property
    def _encoding(self) -> writing.Encoding:
        return writing.Encoding(
            lambda: self.student, self.description.dimension, self._store.dtype, self.description.passages
        )

    @contextmanager
    def _refreshing(self) -> Iterator[None]:
        """Read the newest version after a write, also after one that ended early."""
        try:
            yield
        except BaseException:
            with suppress(RabtrieverError):  # the first error is the one to tell
                self.refresh()
            raise
        self.refresh()
