"""The backup file: a tar of a header, the database, the spooled files it names, and a manifest.

The header comes first, so that a restore can refuse early. The manifest comes last: a file without one is cut
off. It gives the size and the SHA-256 of every other member. Nothing is ever unpacked under a name that the
tar gives: only members of the few kinds below are known.
"""

import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO

import msgspec

from server.domain.errors import OperatorError

FORMAT = 1
HEADER = "backup.json"
MANIFEST = "manifest.json"
SQLITE_FILE = "database.sqlite"
_TABLE = re.compile(r"tables/([a-z_]+)/([0-9]{6})")
_SPOOLED = re.compile(r"spool/([0-9a-f]{40})")
_READ_BYTES = 1024 * 1024
_LARGEST_JSON = 256 * 1024 * 1024


class BackupFileError(OperatorError):
    """The file is not a whole backup that this version can read; the message says why."""


class DatabaseKind(StrEnum):
    """What a backup's database was."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Header(msgspec.Struct, frozen=True):
    """Where a backup comes from.

    `created_at_ms` is a moment just after the last commit that it holds. `lost_files` had been lost already
    when it was made: rows of it name them.
    """

    format: int
    product_version: str
    schema_revision: str
    database: DatabaseKind
    installation: str
    generation: int
    created_at_ms: int
    tables: dict[str, list[str]]
    sequences: dict[str, int]
    lost_files: list[str]


class MemberRecord(msgspec.Struct, frozen=True):
    """One member, as it must be."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """All of a backup."""

    header: Header
    members: list[MemberRecord]


def table_member(table: str, number: int) -> str:
    """The name of one part of a table's rows."""
    return f"tables/{table}/{number:06}"


def table_of(name: str) -> str | None:
    """The table that a member holds rows of."""
    match = _TABLE.fullmatch(name)
    return match[1] if match else None


def spool_member(spool_name: str) -> str:
    """The name of a spooled file's member."""
    return f"spool/{spool_name}"


def spool_name_of(name: str) -> str | None:
    """The spooled file that a member holds."""
    match = _SPOOLED.fullmatch(name)
    return match[1] if match else None


# --- writing --------------------------------------------------------------------------------


class BackupWriter:
    """Makes the bytes of a backup, one member after the other."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._members: list[MemberRecord] = []

    def begin(self) -> Iterator[bytes]:
        """The header; to be called first."""
        content = msgspec.json.encode(self._header)
        return self.member(HEADER, len(content), [content])

    def member(self, name: str, size_bytes: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """One member, of exactly that size."""
        yield _tar_header(name, size_bytes)
        digest = hashlib.sha256()
        written = 0
        for piece in pieces:
            digest.update(piece)
            written += len(piece)
            yield piece
        if written != size_bytes:
            raise ValueError(f"{name} has {written} bytes, not {size_bytes}.")
        yield _padding(size_bytes)
        self._members.append(MemberRecord(name, size_bytes, digest.hexdigest()))

    def end(self) -> Iterator[bytes]:
        """The manifest and the end of the file; to be called last."""
        content = msgspec.json.encode(Manifest(self._header, self._members))
        yield _tar_header(MANIFEST, len(content))
        yield content
        yield _padding(len(content))
        yield bytes(2 * tarfile.BLOCKSIZE)


def _tar_header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    info.mode = 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % tarfile.BLOCKSIZE)


# --- reading --------------------------------------------------------------------------------


class Member:
    """A member that is being read. Its bytes can be read once, before the next member."""

    def __init__(self, reader: "BackupReader", info: tarfile.TarInfo, file: IO[bytes]) -> None:
        self.name = info.name
        self.size_bytes = info.size
        self._reader = reader
        self._file = file
        self._digest = hashlib.sha256()

    def pieces(self) -> Iterator[bytes]:
        """Its bytes.

        Raises:
            BackupFileError: the file is cut off or damaged.
        """
        with self._reader.explaining():
            while piece := self._file.read(_READ_BYTES):
                self._digest.update(piece)
                yield piece

    def record(self) -> MemberRecord:
        """What was read, to its end."""
        for _ in self.pieces():
            pass
        return MemberRecord(self.name, self.size_bytes, self._digest.hexdigest())


class BackupReader:
    """Reads a backup once, from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members = self._open_members()
        self._read: list[MemberRecord] = []
        self._manifest: Manifest | None = None

    def header(self) -> Header:
        """Where the backup comes from; to be asked first.

        Raises:
            BackupFileError: this is not a backup, or a newer version's.
        """
        member = next(self._members, None)
        if member is None or member.name != HEADER or member.size_bytes > _LARGEST_JSON:
            raise BackupFileError(f"{self._path} is not a backup of mlproxy.")
        with self.explaining():
            header = msgspec.json.decode(b"".join(member.pieces()), type=Header)
        if header.format > FORMAT:
            raise BackupFileError(
                f"{self._path} was made by a newer version ({header.product_version}). Upgrade mlproxy."
            )
        return header

    def members(self) -> Iterator[Member]:
        """The members between header and manifest.

        Raises:
            BackupFileError: the file is cut off, changed or damaged.
        """
        return self._members

    def manifest(self) -> Manifest:
        """What the backup holds, after every byte of it was found to be as it says.

        Raises:
            BackupFileError: the file is cut off, changed or damaged.
        """
        for _ in self._members:
            pass
        if self._manifest is None:
            raise self._broken("it has no manifest, so it was cut off")
        return self._manifest

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Tell whatever goes wrong with the file's bytes as a sentence.

        Raises:
            BackupFileError: something did.
        """
        try:
            yield
        except (tarfile.TarError, zlib.error, EOFError, OSError, msgspec.MsgspecError) as error:
            raise self._broken(f"it cannot be read ({error})") from error

    def _open_members(self) -> Iterator[Member]:
        with self.explaining(), tarfile.open(self._path, "r|*", bufsize=_READ_BYTES) as tar:
            for info in tar:
                if self._manifest is not None:
                    raise self._broken("something follows its manifest")
                file = tar.extractfile(info) if info.isreg() else None
                if file is None:
                    raise self._broken(f"{info.name!r} is not a file")
                member = Member(self, info, file)
                if info.name == MANIFEST:
                    self._check(member)
                    continue
                yield member
                self._read.append(member.record())

    def _check(self, member: Member) -> None:
        if member.size_bytes > _LARGEST_JSON:
            raise self._broken("its manifest is too large")
        manifest = msgspec.json.decode(b"".join(member.pieces()), type=Manifest)
        if manifest.members != self._read:
            raise self._broken("its members are not those of its manifest: it was changed or damaged")
        self._manifest = manifest

    def _broken(self, why: str) -> BackupFileError:
        return BackupFileError(f"{self._path} is not a whole backup: {why}.")
