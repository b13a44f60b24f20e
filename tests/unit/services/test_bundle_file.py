"""A bundle that is damaged, hostile or too new is refused before anything is read into a server."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from server.protocol import bundles
from server.protocol.bundles import ExperimentName, ExperimentPart, FilePart, Header, Part, PointsPart
from server.services.bundle_file import BundleFileError, BundleWriter, check_bundle

EXPERIMENT = ExperimentPart(1, "one", {}, 5)
CONTENT = b"bytes of a file"


def make_header(**changes: object) -> Header:
    """The header of a bundle."""
    made = Header(bundles.FORMAT, "1.0", "b1", 5, [ExperimentName(1, "one")])
    return msgspec.structs.replace(made, **changes)


def file_part(**changes: object) -> FilePart:
    """A file of a run."""
    return msgspec.structs.replace(FilePart("r1", False, "notes.txt", len(CONTENT), b"m" * 16), **changes)


def pack(header: Header, *members: tuple[str, bytes]) -> bytes:
    """A sealed tar of these members."""
    writer = BundleWriter(header)
    pieces = [*writer.begin()]
    for name, content in members:
        pieces += writer.member(name, len(content), [content])
    return b"".join([*pieces, *writer.end()])


def lists(*parts: Part) -> tuple[str, bytes]:
    """The first list of a bundle."""
    return bundles.parts_member(0), bundles.encode_parts(list(parts))


def whole() -> bytes:
    """A good bundle, with a file."""
    return pack(make_header(), lists(EXPERIMENT, file_part()), (bundles.file_member(0), CONTENT))


def test_a_whole_bundle_is_taken(tmp_path: Path) -> None:
    """What was written can be read, compressed too."""
    for name, content in (("a.tar", whole()), ("a.tar.gz", gzip.compress(whole()))):
        (tmp_path / name).write_bytes(content)
        assert check_bundle(tmp_path / name) == make_header()


def tar_of(info: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """A tar of one member that the writer would not make."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(kind: bytes) -> tarfile.TarInfo:
    """A link out of the folder."""
    info = tarfile.TarInfo(bundles.HEADER)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


HOSTILE: dict[str, Callable[[], bytes]] = {
    "cut off": lambda: whole()[:-2048],
    "empty": lambda: b"",
    "no tar": lambda: b"x" * 4096,
    "one bit": lambda: whole().replace(CONTENT, b"Bytes of a file"),
    "a newer version's": lambda: pack(make_header(format=bundles.FORMAT + 1), lists(EXPERIMENT)),
    "a symbolic link": lambda: tar_of(link(tarfile.SYMTYPE)),
    "a hard link": lambda: tar_of(link(tarfile.LNKTYPE)),
    "a device": lambda: tar_of(link(tarfile.CHRTYPE)),
    "a path out of the folder": lambda: pack(make_header(), ("../../etc/cron.d/x", b"x")),
    "an absolute path": lambda: pack(make_header(), ("/etc/cron.d/x", b"x")),
    "an unknown member": lambda: pack(make_header(), ("parts/1", b"x")),
    "lists out of order": lambda: pack(make_header(), (bundles.parts_member(1), lists(EXPERIMENT)[1])),
    "a list twice": lambda: pack(make_header(), lists(EXPERIMENT), lists(EXPERIMENT)),
    "no parts": lambda: pack(make_header(), (bundles.parts_member(0), b"\xc1")),
    "another type of part": lambda: pack(
        make_header(), (bundles.parts_member(0), msgspec.msgpack.encode([{"type": "shell"}]))
    ),
    "a field of another type": lambda: pack(
        make_header(),
        (
            bundles.parts_member(0),
            msgspec.msgpack.encode([{**msgspec.to_builtins(EXPERIMENT), "name": ["x"]}]),
        ),
    ),
    "text that is none": lambda: pack(
        make_header(),
        (
            bundles.parts_member(0),
            lists(EXPERIMENT)[1].replace(EXPERIMENT.name.encode(), b"\x80" * len(EXPERIMENT.name)),
        ),
    ),
    "depth": lambda: pack(make_header(), (bundles.parts_member(0), b"\x91" * 100_000 + b"\xc0")),
    "a list too large": lambda: pack(
        make_header(),
        lists(PointsPart("r1", "k" * (bundles.LARGEST_PARTS_BYTES + 1), [])),
    ),
    "a file that is missing": lambda: pack(make_header(), lists(file_part())),
    "a file nobody named": lambda: pack(make_header(), lists(EXPERIMENT), (bundles.file_member(0), CONTENT)),
    "a file of another size": lambda: pack(
        make_header(), lists(file_part(size_bytes=1)), (bundles.file_member(0), CONTENT)
    ),
    "a file in the middle of a list": lambda: pack(
        make_header(), lists(file_part(), EXPERIMENT), (bundles.file_member(0), CONTENT)
    ),
    "more behind the end": lambda: whole()[: -2 * tarfile.BLOCKSIZE] + whole(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_bundle_is_refused(name: str, tmp_path: Path) -> None:
    """Every way a bundle can be bad ends in one sentence."""
    file = tmp_path / "bad.tar"
    file.write_bytes(HOSTILE[name]())
    with pytest.raises(BundleFileError):
        check_bundle(file)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """A list that claims to be larger than any list may be is not read."""
    info = tarfile.TarInfo(bundles.parts_member(0))
    info.size = 2**40
    head = pack(make_header())[: 2 * tarfile.BLOCKSIZE]
    (tmp_path / "bomb.tar").write_bytes(head + info.tobuf(tarfile.GNU_FORMAT) + bytes(2**20))
    with pytest.raises(BundleFileError, match="too large"):
        check_bundle(tmp_path / "bomb.tar")
