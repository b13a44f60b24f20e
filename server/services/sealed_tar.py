"""A sealed tar: a header, members, and a manifest that gives the size and the SHA-256 of each of them.

The header comes first, so that a reader can refuse early. The manifest comes last: a file without one is cut
off. Members are plain files, read in their order; nothing is unpacked under a name that the tar gives.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Generic, Protocol, TypeVar

import msgspec

from server.domain.errors import OperatorError

MANIFEST = "manifest.json"
_READ_BYTES = 1024 * 1024
_LARGEST_JSON = 256 * 1024 * 1024
_PLAIN_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)


class SealedFileError(OperatorError):
    """The file is not whole, or not one that this version can read; the message says why."""


class SealedHeader(Protocol):
    """What every header says."""

    @property
    def format(self) -> int:
        """The format of the file."""
        ...

    @property
    def product_version(self) -> str:
        """The version that made it."""
        ...


H = TypeVar("H", bound=SealedHeader)


class MemberRecord(msgspec.Struct, frozen=True):
    """One member, as it must be."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, Generic[H], frozen=True):
    """All of a file."""

    header: H
    members: list[MemberRecord]


@dataclass(frozen=True, slots=True)
class Kind(Generic[H]):
    """What a file is: its noun in messages, its header, the newest format known, the error it raises."""

    noun: str
    header_name: str
    header_type: type[H]
    newest_format: int
    error: type[SealedFileError]


# --- writing --------------------------------------------------------------------------------


class SealedWriter:
    """Makes the bytes of a file, one member after the other."""

    def __init__(self, header_name: str, header: object) -> None:
        self._header_name = header_name
        self._header = header
        self._members: list[MemberRecord] = []

    def begin(self) -> Iterator[bytes]:
        """The header; to be called first."""
        content = msgspec.json.encode(self._header)
        return self.member(self._header_name, len(content), [content])

    def member(self, name: str, size_bytes: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """One member, of exactly that size."""
        part = OpenMember(name, size_bytes)
        yield part.begin()
        for piece in pieces:
            yield part.add(piece)
        yield self.close(part)

    def close(self, part: "OpenMember") -> bytes:
        """The end of a member that was written in pieces.

        Raises:
            ValueError: it is not as long as it was to be.
        """
        self._members.append(part.record())
        return _padding(part.size_bytes)

    def end(self) -> Iterator[bytes]:
        """The manifest and the end of the file; to be called last."""
        content = msgspec.json.encode({"header": self._header, "members": self._members})
        yield _tar_header(MANIFEST, len(content))
        yield content
        yield _padding(len(content))
        yield bytes(2 * tarfile.BLOCKSIZE)


class OpenMember:
    """A member that is being written."""

    def __init__(self, name: str, size_bytes: int) -> None:
        self.name = name
        self.size_bytes = size_bytes
        self._written = 0
        self._digest = hashlib.sha256()

    def begin(self) -> bytes:
        """What stands before its bytes."""
        return _tar_header(self.name, self.size_bytes)

    def add(self, piece: bytes) -> bytes:
        """Its next bytes."""
        self._digest.update(piece)
        self._written += len(piece)
        return piece

    def record(self) -> MemberRecord:
        """What was written."""
        if self._written != self.size_bytes:
            raise ValueError(f"{self.name} has {self._written} bytes, not {self.size_bytes}.")
        return MemberRecord(self.name, self.size_bytes, self._digest.hexdigest())


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

    def __init__(self, reader: "SealedReader[H]", info: tarfile.TarInfo, file: IO[bytes]) -> None:
        self.name = info.name
        self.size_bytes = info.size
        self._explaining = reader.explaining
        self._file = file
        self._digest = hashlib.sha256()

    def pieces(self) -> Iterator[bytes]:
        """Its bytes.

        Raises:
            SealedFileError: the file is cut off or damaged.
        """
        with self._explaining():
            while piece := self._file.read(_READ_BYTES):
                self._digest.update(piece)
                yield piece

    def record(self) -> MemberRecord:
        """What was read, to its end."""
        for _ in self.pieces():
            pass
        return MemberRecord(self.name, self.size_bytes, self._digest.hexdigest())


class SealedReader(Generic[H]):
    """Reads a file once, from its beginning to its end."""

    def __init__(self, path: Path, kind: Kind[H]) -> None:
        self._path = path
        self._kind = kind
        self._members = self._open_members()
        self._read: list[MemberRecord] = []
        self._manifest: Manifest[H] | None = None

    def header(self) -> H:
        """Where the file comes from; to be asked first.

        Raises:
            SealedFileError: this is another kind of file, or a newer version's.
        """
        member = next(self._members, None)
        if member is None or member.name != self._kind.header_name or member.size_bytes > _LARGEST_JSON:
            raise self._kind.error(f"{self._path} is not a {self._kind.noun} of mlproxy.")
        with self.explaining():
            header = msgspec.json.decode(b"".join(member.pieces()), type=self._kind.header_type)
        if header.format > self._kind.newest_format:
            raise self._kind.error(
                f"{self._path} was made by a newer version ({header.product_version}). Upgrade mlproxy."
            )
        return header

    def members(self) -> Iterator[Member]:
        """The members between header and manifest.

        Raises:
            SealedFileError: the file is cut off, changed or damaged.
        """
        return self._members

    def manifest(self) -> Manifest[H]:
        """What the file holds, after every byte of it was found to be as it says.

        Raises:
            SealedFileError: the file is cut off, changed or damaged.
        """
        for _ in self._members:
            pass
        if self._manifest is None:
            raise self.broken("it has no manifest, so it was cut off")
        return self._manifest

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Tell whatever goes wrong with the file's bytes as a sentence.

        Raises:
            SealedFileError: something did.
        """
        try:
            yield
        except (tarfile.TarError, zlib.error, EOFError, OSError, UnicodeError, msgspec.MsgspecError) as error:
            raise self.broken(f"it cannot be read ({error})") from error

    def broken(self, why: str) -> SealedFileError:
        """What to raise for a file that is not whole."""
        return self._kind.error(f"{self._path} is not a whole {self._kind.noun}: {why}.")

    def _open_members(self) -> Iterator[Member]:
        with self.explaining(), tarfile.open(self._path, "r|*", bufsize=_READ_BYTES) as tar:
            for info in tar:
                if self._manifest is not None:
                    raise self.broken("something follows its manifest")
                file = tar.extractfile(info) if info.type in _PLAIN_FILES else None
                if file is None:
                    raise self.broken(f"{info.name!r} is not a file")
                member = Member(self, info, file)
                if info.name == MANIFEST:
                    self._check(member)
                    continue
                yield member
                self._read.append(member.record())

    def _check(self, member: Member) -> None:
        if member.size_bytes > _LARGEST_JSON:
            raise self.broken("its manifest is too large")
        manifest = msgspec.json.decode(
            b"".join(member.pieces()),
            type=Manifest[self._kind.header_type],  # type: ignore[name-defined]
        )
        if manifest.members != self._read:
            raise self.broken("its members are not those of its manifest: it was changed or damaged")
        self._manifest = manifest
