"""A seal on the newest version: checksums and copies of the small files that say which rows it holds.

Rows carry their own checksums (:mod:`rabtriever.index.rows`). What says which rows there are does not: Lance reads the
version's manifest and the lists of deleted rows as they are. A flipped bit in such a list can bring a deleted document
back or stop the process, and a lost manifest silently leaves the version before it. So every commit that lasts is
followed by a seal, which is verified before Lance reads anything.
"""

from __future__ import annotations

import base64
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rabtriever.errors import DataError, RabtrieverError
from rabtriever.files import read_json, write_json

__all__ = ["Seals", "version_of"]

_LAST = 2**64 - 1
_KEPT = 1 << 20
"""A file of more bytes is sealed without a copy."""

_DELETED = re.compile(r"\d+-\d+-(\d+)\.(?:arrow|bin)")
_HINT = "`rabtriever repair INDEX` puts the file's copy in its place, or goes back to what can be read"


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    crc: int
    copy_: str | None = Field(alias="copy")

    @classmethod
    def of(cls, data: bytes) -> _File:
        text = base64.b64encode(zlib.compress(data)).decode("ascii") if len(data) <= _KEPT else None
        return cls(crc=zlib.crc32(data), copy=text)

    @property
    def content(self) -> bytes | None:
        """The copy, if there is one and it is whole."""
        try:
            data = zlib.decompress(base64.b64decode(self.copy_ or ""))
        except (ValueError, zlib.error):
            return None
        return data if zlib.crc32(data) == self.crc else None


class _Seal(BaseModel):
    """What is known of one version: the files that say which rows it holds, by their place in the table's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    files: dict[str, _File]
    crc: int

    @classmethod
    def of(cls, version: int, files: dict[str, _File]) -> _Seal:
        return cls(version=version, files=files, crc=_crc(version, files))

    @property
    def whole(self) -> bool:
        """Whether the seal itself is as it was written."""
        return self.crc == _crc(self.version, self.files)


@dataclass(frozen=True, slots=True)
class Seals:
    """The seal of one table's newest version.

    Args:
        folder: The index folder.
        table: The table's name.

    Example:
        >>> import tempfile
        >>> Seals(Path(tempfile.mkdtemp()), "documents").verify()  # a table without a seal is taken as it is
    """

    folder: Path
    table: str

    @property
    def path(self) -> Path:
        """Where the seal is."""
        return self.folder / "seals" / f"{self.table}.json"

    def write(self) -> None:
        """Seal the newest version; its writer holds the writers' lock.

        Raises:
            OSError: The disk refuses.
        """
        newest, manifest = self._newest()
        former = self._read()
        if manifest is None or (former is not None and former.version == newest):
            return
        data = manifest.read_bytes()
        fragments, known = _fragments(data), former.files if former is not None else {}
        files = {f"_versions/{manifest.name}": _File.of(data)}
        for path in (self._root / "_deletions").glob("*"):
            found = _DELETED.fullmatch(path.name)
            if found and _varint(int(found[1])) in fragments:
                name = f"_deletions/{path.name}"
                # What was sealed before keeps its seal: the file may have been damaged since.
                files[name] = known.get(name) or _File.of(path.read_bytes())
        write_json(self.path, _Seal.of(newest, files).model_dump(by_alias=True))

    def verify(self) -> None:
        """Compare the files of the newest version with its seal, if it has one.

        Raises:
            DataError: One of them is damaged or missing.
        """
        before, wrong = self._stamp(), self._wrong(self._read())
        while wrong and self._stamp() != before:  # another process has written meanwhile
            before, wrong = self._stamp(), self._wrong(self._read())
        if wrong:
            name = next(iter(wrong))
            state = "damaged" if (self._root / name).exists() else "missing"
            raise DataError(f"{self.folder}: {self.table}.lance/{name} is {state}", hint=_HINT)

    def mend(self) -> list[str]:
        """Put copies in the place of damaged or missing files; return which were mended."""
        seal = self._read()
        mended = []
        for name, file in self._wrong(seal).items():
            content = file.content
            if content is not None:
                place = self._root / name
                place.parent.mkdir(parents=True, exist_ok=True)
                fresh = place.with_name(f"{place.name}.mended")
                fresh.write_bytes(content)
                fresh.replace(place)
                mended.append(name)
        return mended

    def drop(self) -> None:
        """Forget the seal."""
        self.path.unlink(missing_ok=True)

    @property
    def _root(self) -> Path:
        return self.folder / f"{self.table}.lance"

    def _read(self) -> _Seal | None:
        """The seal; None where there is none, or it is damaged itself: it says nothing about the table then."""
        try:
            seal = _Seal.model_validate(read_json(self.path))
        except (RabtrieverError, ValidationError):
            return None
        return seal if seal.whole else None

    def _wrong(self, seal: _Seal | None) -> dict[str, _File]:
        """The sealed files that are damaged or missing; nothing without a seal."""
        if seal is None:
            return {}
        # Listed after the seal was read: what is sealed is there, unless something newer is.
        superseded = self._newest()[0] > seal.version
        return {name: file for name, file in seal.files.items() if not self._is_right(name, file, superseded)}

    def _is_right(self, name: str, file: _File, superseded: bool) -> bool:
        try:
            return zlib.crc32((self._root / name).read_bytes()) == file.crc
        except FileNotFoundError:
            return superseded  # a newer version may do without it

    def _newest(self) -> tuple[int, Path | None]:
        manifests = {version_of(path): path for path in (self._root / "_versions").glob("*.manifest")}
        newest = max(manifests, default=0)
        return newest, manifests.get(newest)

    def _stamp(self) -> object:
        """What changes whenever the seal does."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _crc(version: int, files: dict[str, _File]) -> int:
    known = [f"{name} {file.crc} {file.copy_}" for name, file in sorted(files.items())]
    return zlib.crc32("\n".join([str(version), *known]).encode("utf-8"))


def version_of(manifest: Path) -> int:
    """The version of a manifest: Lance names it by the number counted down from the largest, or (older) plainly.

    Example:
        >>> version_of(Path("18446744073709551609.manifest")), version_of(Path("12.manifest")), version_of(Path("a.b"))
        (6, 12, 0)
    """
    if not manifest.stem.isdigit():
        return 0
    number = int(manifest.stem)
    return _LAST - number if len(manifest.stem) == 20 else number


def _fragments(manifest: bytes) -> bytes:
    """What a manifest says of the version: not what precedes it, the transaction, which names files that are replaced.

    The file ends with where that begins (8 bytes), its format's number (4) and four letters.
    """
    if len(manifest) < 16 or manifest[-4:] != b"LANC":
        return b""  # another format, of which only the manifest itself is sealed
    return manifest[int.from_bytes(manifest[-16:-8], "little") :]


def _varint(number: int) -> bytes:
    """A number as it stands in a manifest (protocol buffers): seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
