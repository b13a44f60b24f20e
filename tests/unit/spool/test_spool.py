"""The spool keeps whole uploads, counts them, and keeps nothing of anything else."""

import asyncio
import hashlib
import os
import shutil
import time
from collections import namedtuple
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from server.domain import failpoints
from server.domain.errors import ErrorCode, MlflowError
from server.spool.spool import INLINE_LIMIT, Spool

ROOM = 10 * 1024 * 1024
BIG = INLINE_LIMIT + 1

pytestmark = pytest.mark.asyncio

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """A spool with some room."""
    spool = Spool(tmp_path / "spool", ROOM)
    yield spool
    spool.close()


async def chunked(content: bytes, size: int = 60_000) -> AsyncIterator[bytes]:
    """The content as a web server would hand it over."""
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def breaking_off(content: bytes) -> AsyncIterator[bytes]:
    """An upload whose client goes away."""
    async for chunk in chunked(content):
        yield chunk
    raise ConnectionResetError


async def never_read() -> AsyncIterator[bytes]:
    """A body that must not be touched."""
    raise AssertionError("The body was read.")
    yield b""


def files_in(spool: Spool) -> list[Path]:
    """All files that lie in the spool."""
    return [path for path in spool.path_of("0" * 40).parents[1].rglob("*") if path.is_file()]


async def content_of(spool: Spool, name: str, offset: int = 0, length: int | None = None) -> bytes:
    """What the spool gives out."""
    return b"".join([piece async for piece in spool.open_range(name, offset, length)])


@pytest.mark.parametrize("size", [0, 1, INLINE_LIMIT])
@pytest.mark.parametrize("is_declared", [True, False])
async def test_small_uploads_stay_in_memory(spool: Spool, size: int, is_declared: bool) -> None:
    """Up to the limit nothing touches the disk."""
    content = os.urandom(size)
    received = await spool.receive(chunked(content), size if is_declared else None)
    assert received.content == content
    assert received.spool_name is None
    assert (received.size_bytes, received.md5) == (size, hashlib.md5(content).digest())
    assert spool.used_bytes == 0
    assert files_in(spool) == []


@pytest.mark.parametrize("size", [BIG, 1024 * 1024, 3 * 1024 * 1024 + 17])
@pytest.mark.parametrize("is_declared", [True, False])
async def test_large_uploads_go_to_a_file(spool: Spool, size: int, is_declared: bool) -> None:
    """What is larger lies on disk, with its size and its MD5 known."""
    content = os.urandom(size)
    received = await spool.receive(chunked(content), size if is_declared else None)
    assert received.content is None
    assert received.spool_name is not None
    assert (received.size_bytes, received.md5) == (size, hashlib.md5(content).digest())
    assert spool.path_of(received.spool_name).read_bytes() == content
    assert spool.used_bytes == size


async def test_files_are_private_and_their_names_differ(spool: Spool) -> None:
    """The same bytes twice are two files, for nobody else to read."""
    names = {(await spool.receive(chunked(b"x" * BIG), BIG)).spool_name for _ in range(2)}
    assert len(names) == 2
    assert {path.stat().st_mode & 0o777 for path in files_in(spool)} == {0o600}


async def test_file_and_folder_are_flushed_before_the_name_is_known(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is handed out when what it names would survive a loss of power."""
    flushed: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    received = await spool.receive(chunked(b"x" * BIG), BIG)
    assert received.spool_name is not None
    path = spool.path_of(received.spool_name)
    assert flushed == [str(path.parents[1]), str(path), str(path.parent)]


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (0, 0), (5, 1), (100_000, None), (1_000_000, 900_000), (1_999_999, None), (2_000_000, None)],
)
async def test_any_range_can_be_read(spool: Spool, offset: int, length: int | None) -> None:
    """Exactly the bytes that were asked for come out."""
    content = os.urandom(2_000_000)
    received = await spool.receive(chunked(content), len(content))
    assert received.spool_name is not None
    end = None if length is None else offset + length
    assert await content_of(spool, received.spool_name, offset, length) == content[offset:end]


async def test_a_file_is_read_to_its_end_though_it_is_removed(spool: Spool) -> None:
    """A delivery that ends during a download does not cut it off."""
    content = os.urandom(2_000_000)
    name = (await spool.receive(chunked(content), len(content))).spool_name or ""
    reading = spool.open_range(name)
    first = await anext(reading)
    await spool.remove(name)
    assert first + b"".join([piece async for piece in reading]) == content
    with pytest.raises(FileNotFoundError):
        await content_of(spool, name)


async def test_removing_gives_the_room_back(spool: Spool) -> None:
    """What is removed counts no more, and removing it again is fine."""
    name = (await spool.receive(chunked(b"x" * BIG), BIG)).spool_name or ""
    await spool.remove(name)
    await spool.remove(name)
    assert spool.used_bytes == 0
    assert files_in(spool) == []


async def test_an_upload_that_cannot_fit_is_not_even_read(spool: Spool) -> None:
    """With a declared size the refusal comes first, as HTTP 507."""
    with pytest.raises(MlflowError) as caught:
        await spool.receive(never_read(), ROOM + 1)
    assert caught.value.code is ErrorCode.RESOURCE_EXHAUSTED
    assert caught.value.status == 507
    assert spool.used_bytes == 0


async def test_an_upload_of_unknown_size_is_refused_when_the_room_ends(spool: Spool) -> None:
    """Nothing stays of what had arrived."""
    with pytest.raises(MlflowError) as caught:
        await spool.receive(chunked(b"x" * (ROOM + 1)), None)
    assert caught.value.status == 507
    assert spool.used_bytes == 0
    assert files_in(spool) == []


async def test_a_count_in_the_middle_of_a_write_forgets_nothing(spool: Spool) -> None:
    """What a write has yet to bring counts all the time."""
    claimed = asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        claimed.set()
        async for chunk in chunked(b"x" * ROOM):
            yield chunk

    failpoints.arm("spool.write=sleep:0.3")
    try:
        upload = asyncio.create_task(spool.receive(content(), ROOM))
        await claimed.wait()
        while not upload.done():
            await spool.recount()
            assert spool.used_bytes >= ROOM
            await asyncio.sleep(0.01)
        await upload
    finally:
        failpoints.arm("")
    await spool.recount()
    assert spool.used_bytes == ROOM


async def test_room_up_to_the_last_byte_is_used(spool: Spool) -> None:
    """The limit itself still fits."""
    await spool.receive(chunked(b"x" * ROOM), ROOM)
    assert spool.used_bytes == ROOM


async def test_uploads_under_way_count_with_all_they_will_be(spool: Spool) -> None:
    """Two that do not fit together are not both let in."""
    started, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        started.set()
        await may_go_on.wait()
        yield b"x" * (ROOM - BIG)

    first = asyncio.create_task(spool.receive(slow(), ROOM - BIG))
    await started.wait()
    with pytest.raises(MlflowError):
        await spool.receive(never_read(), BIG + 1)
    may_go_on.set()
    assert (await first).size_bytes == ROOM - BIG


async def test_room_that_another_process_freed_is_found(spool: Spool) -> None:
    """Before it refuses, the spool looks what is really there."""
    await spool.receive(chunked(b"x" * ROOM), ROOM)
    for path in files_in(spool):
        path.unlink()
    assert (await spool.receive(chunked(b"x" * BIG), BIG)).size_bytes == BIG
    assert spool.used_bytes == BIG


async def test_a_disk_that_is_nearly_full_takes_nothing(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of the disk is left to the database."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 60 * 1024 * 1024))
    with pytest.raises(MlflowError) as caught:
        await spool.receive(never_read(), BIG)
    assert caught.value.status == 507


async def test_a_disk_that_fills_up_leaves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC in the middle is a 507, too."""

    def full(descriptor: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(MlflowError) as caught:
        await spool.receive(chunked(b"x" * BIG), BIG)
    assert caught.value.status == 507
    assert spool.used_bytes == 0
    assert files_in(spool) == []


@pytest.mark.parametrize("declared", [BIG * 30, None])
async def test_a_client_that_goes_away_leaves_nothing(spool: Spool, declared: int | None) -> None:
    """Half an upload is none."""
    with pytest.raises(ConnectionResetError):
        await spool.receive(breaking_off(b"x" * (BIG * 20)), declared)
    assert spool.used_bytes == 0
    assert files_in(spool) == []


@pytest.mark.parametrize("declared", [10, BIG * 2])
async def test_fewer_bytes_than_declared_are_refused(spool: Spool, declared: int) -> None:
    """A body that ends early is not taken for a shorter file."""
    with pytest.raises(MlflowError) as caught:
        await spool.receive(chunked(b"x" * (declared - 1)), declared)
    assert caught.value.status == 400
    assert spool.used_bytes == 0
    assert files_in(spool) == []


async def test_a_cancelled_upload_leaves_nothing(spool: Spool) -> None:
    """Shutting down in the middle of an upload cleans up after it."""
    under_way = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b"x" * 60_000
            if files_in(spool):
                under_way.set()

    upload = asyncio.create_task(spool.receive(endless(), ROOM))
    await under_way.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert spool.used_bytes == 0
    assert files_in(spool) == []


async def test_the_sweep_removes_what_no_row_knows(tmp_path: Path) -> None:
    """Old files without a row go, known ones and those newer than the process stay."""
    before = Spool(tmp_path, ROOM)
    known, orphan = [(await before.receive(chunked(b"x" * BIG), BIG)).spool_name or "" for _ in range(2)]
    before.close()
    for name in (known, orphan):
        os.utime(before.path_of(name), (time.time() - 60, time.time() - 60))
    spool = Spool(tmp_path, ROOM)
    new = (await spool.receive(chunked(b"x" * BIG), BIG)).spool_name or ""
    assert await spool.sweep({known}) == 1
    assert {path.name for path in files_in(spool)} == {known, new}
    assert spool.used_bytes == 2 * BIG
    spool.close()


async def test_the_sweep_can_leave_other_processes_time(tmp_path: Path) -> None:
    """What another process may still be about to commit is left alone."""
    before = Spool(tmp_path, ROOM)
    name = (await before.receive(chunked(b"x" * BIG), BIG)).spool_name or ""
    before.close()
    os.utime(before.path_of(name), (time.time() - 60, time.time() - 60))
    spool = Spool(tmp_path, ROOM)
    assert await spool.sweep(set(), grace_seconds=120) == 0
    spool.close()


async def test_an_upload_whose_file_was_swept_away_fails(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name is never handed out for a file that another process removed while it was written."""

    async def swept() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        for path in files_in(spool):
            path.unlink()
        yield b"x" * 2_000_000

    with pytest.raises(MlflowError) as caught:
        await spool.receive(swept(), 4_000_000)
    assert caught.value.status == 503


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a" * 39, "A" * 40, "a" * 40 + "\n"])
async def test_only_names_of_the_spools_own_making_are_opened(spool: Spool, name: str) -> None:
    """A damaged row cannot point outside."""
    with pytest.raises(ValueError, match="not the name"):
        spool.path_of(name)
