"""The bundle file: reading it whole, and judging it, before anything is changed."""

from collections.abc import Iterator
from pathlib import Path

from server.protocol import bundles
from server.protocol.bundles import FilePart, Header, Part
from server.services.sealed_tar import Kind, Member, SealedFileError, SealedReader, SealedWriter


class BundleFileError(SealedFileError):
    """The file is not a whole bundle that this version can read; the message says why."""


_KIND = Kind(
    noun="bundle",
    header_name=bundles.HEADER,
    header_type=Header,
    newest_format=bundles.FORMAT,
    error=BundleFileError,
)


class BundleWriter(SealedWriter):
    """Makes the bytes of a bundle."""

    def __init__(self, header: Header) -> None:
        super().__init__(bundles.HEADER, header)


class BundleReader(SealedReader[Header]):
    """Reads a bundle once, from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _KIND)

    def contents(self) -> Iterator[tuple[int, list[Part], Member | None]]:
        """The numbered lists of parts, each with the file that belongs to it.

        Raises:
            BundleFileError: the file is cut off or damaged, or holds what no bundle does.
        """
        members = self.members()
        for expected, member in enumerate(members):
            if bundles.number_of_parts(member.name) != expected:
                raise self.broken(f"{member.name!r} is not what comes next")
            if member.size_bytes > bundles.LARGEST_PARTS_BYTES:
                raise self.broken(f"{member.name!r} is too large")
            with self.explaining():
                parts = bundles.decode_parts(b"".join(member.pieces()))
            last = parts[-1] if parts else None
            yield (
                expected,
                parts,
                self._file_of(expected, last, members) if isinstance(last, FilePart) else None,
            )

    def _file_of(self, number: int, part: FilePart, members: Iterator[Member]) -> Member:
        file = next(members, None)
        if file is None or bundles.number_of_file(file.name) != number:
            raise self.broken(f"the file {part.path!r} is missing")
        if file.size_bytes != part.size_bytes:
            raise self.broken(f"the file {part.path!r} has another size than it should")
        return file


def check_bundle(path: Path) -> Header:
    """Read the whole file; its header, if every byte is as it should be.

    Raises:
        BundleFileError: it is damaged, no bundle, or a newer version's.
    """
    reader = BundleReader(path)
    header = reader.header()
    for _ in reader.contents():
        pass
    reader.manifest()
    return header
