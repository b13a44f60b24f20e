"""The spool: a folder of files with random names that are never used twice.

A file is complete and flushed, with its folder, before its name is handed out; which files exist is
decided by the database rows that name them. What a crash leaves in between, `sweep` removes. Disk work
happens in threads of the spool's own, a piece at a time, so an upload of any size takes little memory.
"""

import asyncio
import errno
import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from server.database.data_folder import flush_folder
from server.domain import failpoints
from server.domain.disk_failures import DiskFailure, disk_failure
from server.domain.errors import ErrorCode, MlflowError, invalid_parameter
from server.domain.fullness import Fullness, come_again, fullness_of, no_room
from server.spool.holds import Hold, clear_abandoned

T = TypeVar("T")
log = structlog.get_logger(__name__)

INLINE_LIMIT = 64 * 1024

_PIECE_BYTES = 1024 * 1024
_READ_BYTES = 512 * 1024
_KEPT_FREE_BYTES = 64 * 1024 * 1024
_NAME = re.compile(r"[0-9a-f]{40}")
_NAME_BYTES = 20
_SHARD = 2
_THREADS = 4
_RECOUNT_SECONDS = 5.0
_COME_AGAIN_SECONDS = 30.0
_NOTHING_KEPT = "nothing of this upload was kept"
_CLOCK_SLACK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Received:
    """Bytes that have arrived: in `content`, or flushed under `spool_name`."""

    size_bytes: int
    md5: bytes
    content: bytes | None
    spool_name: str | None


class Spool:
    """Bytes on disk, at most `max_bytes` of them.

    Several processes may share the folder. Each counts what it writes and removes itself; before it
    refuses anything it counts what is really there.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self.max_bytes = max_bytes
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="spool")
        self._started_at = time.time()
        self._stored_bytes = 0
        self._claimed_bytes = 0
        self._counted_at = float("-inf")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self._directory

    @property
    def used_bytes(self) -> int:
        """What lies here, and what uploads under way have been promised."""
        return self._stored_bytes + self._claimed_bytes

    @property
    def fullness(self) -> Fullness:
        """What is taken in now."""
        return fullness_of(self.used_bytes, self.max_bytes)

    # --- in ---

    async def receive(
        self, chunks: AsyncIterator[bytes], declared_size: int | None, inline_limit: int = INLINE_LIMIT
    ) -> Received:
        """Take in a whole upload. What is no larger than `inline_limit` stays in memory.

        Raises:
            MlflowError: it does not fit (429 when it may later, 507 when not; before anything is read when
                the size is known), the disk does not take it, or it is not as long as declared. Nothing is
                kept then, nor when `chunks` raises.
        """
        start = b""
        if declared_size is None or declared_size <= inline_limit:
            start = await _read_start(chunks, inline_limit)
            if len(start) <= inline_limit:
                _check_size(len(start), declared_size)
                return Received(len(start), _md5(start).digest(), start, None)
        return await self._receive_file(start, chunks, declared_size)

    async def _receive_file(
        self, start: bytes, chunks: AsyncIterator[bytes], declared_size: int | None
    ) -> Received:
        claimed = declared_size or 0
        await self._claim(claimed)
        file: _NewFile | None = None
        writing: asyncio.Future[int] | None = None
        written = 0
        try:
            file = await self._in_thread(lambda: _NewFile(self._directory))
            async for piece in _in_pieces(start, chunks):
                written += await self._landed(writing)
                if written + len(piece) > claimed:
                    await self._claim(len(piece), claimed)
                    claimed += len(piece)
                # It is hashed and written while the next piece comes in.
                writing = self._in_thread(file.write, piece)
            written += await self._landed(writing)
            _check_size(written, declared_size)
            md5 = await self._in_thread(file.finish)
        except BaseException as error:
            self._claimed_bytes -= claimed - written
            self._stored_bytes -= written
            if writing is not None:
                _give_up(writing)
            if file is not None:
                await asyncio.shield(self._in_thread(file.discard))
            failure = disk_failure(error) if isinstance(error, OSError) else None
            if failure is DiskFailure.FULL:
                raise _disk_full() from error
            if failure is DiskFailure.BROKEN:
                raise come_again(
                    f"The server's disk does not take what is written; {_NOTHING_KEPT}. Try again.",
                    seconds=_COME_AGAIN_SECONDS,
                ) from error
            raise
        self._claimed_bytes -= claimed - written
        return Received(written, md5, None, file.name)

    async def _landed(self, writing: "asyncio.Future[int] | None") -> int:
        """Wait for a write; its size, which counts as stored no sooner: a recount would not find it."""
        size = 0 if writing is None else await writing
        self._stored_bytes += size
        self._claimed_bytes -= size
        return size

    async def _claim(self, size: int, already: int = 0) -> None:
        """Set room aside, on top of what this upload has already, or refuse."""
        stale = time.monotonic() - self._counted_at > _RECOUNT_SECONDS
        if stale and self._refusal(size, already) is not None:
            await self.recount()
        free = await self._in_thread(lambda: shutil.disk_usage(self._directory).free)
        refusal = self._refusal(size, already)
        if refusal is None and free - self._claimed_bytes - size < _KEPT_FREE_BYTES:
            refusal = _disk_full()
        if refusal is not None:
            raise refusal
        self._claimed_bytes += size

    def _refusal(self, size: int, already: int) -> MlflowError | None:
        """Why there is no room, if there is none. An upload that has begun may fill what is left."""
        of_others = fullness_of(self.used_bytes - already, self.max_bytes)
        if self.used_bytes + size <= self.max_bytes and (already or of_others is Fullness.HAS_ROOM):
            return None
        held = (
            f"The artifact spool holds {self.used_bytes} of {self.max_bytes} bytes (MLPROXY_MAX_SPOOL_BYTES)"
        )
        if already + size > self.max_bytes or of_others is Fullness.HARD_FULL:
            return no_room(f"{held} and has no room for this upload; {_NOTHING_KEPT}.")
        return come_again(f"{held}; {_NOTHING_KEPT}. Try again.", seconds=_COME_AGAIN_SECONDS)

    # --- out ---

    async def open_range(
        self, spool_name: str, offset: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Bytes of a file, read a piece at a time; to its end without a `length`.

        Raises:
            FileNotFoundError: there is no such file (any more). One that is removed while it is read
                can be read to its end.
        """
        path = self.path_of(spool_name)
        file = await self._in_thread(lambda: path.open("rb", buffering=0))
        try:
            await self._in_thread(file.seek, offset)
            left = length
            while left is None or left > 0:
                size = _READ_BYTES if left is None else min(_READ_BYTES, left)
                piece = await self._in_thread(file.read, size)
                if not piece:
                    break
                if left is not None:
                    left -= len(piece)
                yield piece
        finally:
            file.close()

    def path_of(self, spool_name: str) -> Path:
        """Where a file lies."""
        return path_in(self._directory, spool_name)

    async def remove(self, spool_name: str) -> None:
        """Remove a file; one that is gone already is fine."""
        self._stored_bytes -= await self._in_thread(_remove, self.path_of(spool_name))
        self._stored_bytes = max(self._stored_bytes, 0)

    def hold(self) -> Hold:
        """An empty hold, to keep files readable that others may remove. To be released."""
        return Hold(self._directory, self.path_of)

    # --- upkeep ---

    async def sweep(self, known_names: Collection[str], *, grace_seconds: float = 0.0) -> int:
        """Remove files that no row knows and that are older than this process; how many they were.

        To be called once, at the start. Where other processes share the folder, `grace_seconds` must be
        more than the time between their last write to a file and their commit of its row.
        """
        newest = self._started_at - _CLOCK_SLACK_SECONDS - grace_seconds
        known = frozenset(known_names)
        removed = await self._in_thread(lambda: _sweep(self._directory, known, newest))
        await self._in_thread(clear_abandoned, self._directory)
        await self.recount()
        if removed:
            log.info("spool_swept", files=removed)
        return removed

    async def try_out(self) -> None:
        """Write, flush, read back and remove a file, as uploads are.

        Raises:
            OSError: the folder does not take it, or gives back something else.
        """
        await self._in_thread(_try_out, self._directory)

    async def recount(self) -> None:
        """Count what is really here."""
        self._counted_at = time.monotonic()
        before = self._stored_bytes
        found = await self._in_thread(lambda: sum(_size(path) for path in _files(self._directory)))
        self._stored_bytes = max(found + self._stored_bytes - before, 0)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=True)

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> "asyncio.Future[T]":
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


class _NewFile:
    """A file that is being written. A caller that gives up may discard it while a write is under way."""

    def __init__(self, directory: Path) -> None:
        self.name = secrets.token_hex(_NAME_BYTES)
        self._folder = directory / self.name[:_SHARD]
        self._path = self._folder / self.name
        self._hash = _md5()
        self._lock = threading.Lock()
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700, exist_ok=True)
            flush_folder(directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor: int | None = os.open(self._path, flags, 0o600)

    def write(self, piece: bytes) -> int:
        """Append a piece; its size."""
        with self._lock:
            if self._descriptor is None:
                return 0
            failpoints.reach("spool.write")
            self._hash.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(self._descriptor, view) :]
        return len(piece)

    def finish(self) -> bytes:
        """Flush file and folder; the MD5 of the whole."""
        with self._lock:
            if self._descriptor is None:
                raise ValueError("The file was discarded.")
            os.fsync(self._descriptor)
            flush_folder(self._folder)
            if os.fstat(self._descriptor).st_nlink == 0:
                raise MlflowError(ErrorCode.TEMPORARILY_UNAVAILABLE, "The upload took too long. Try again.")
            os.close(self._descriptor)
            self._descriptor = None
            failpoints.reach("spool.flushed")
            return self._hash.digest()

    def discard(self) -> None:
        """Leave nothing behind."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
            self._path.unlink(missing_ok=True)


async def _read_start(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    """All there is, or a little more than `limit` of it."""
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    return b"".join(parts)


async def _in_pieces(start: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are worth a trip to another thread."""
    parts = [start] if start else []
    size = len(start)
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size >= _PIECE_BYTES:
            piece, parts, size = b"".join(parts), [], 0
            yield piece
    if parts:
        yield b"".join(parts)


def _give_up(writing: "asyncio.Future[int]") -> None:
    """Nobody asks any more what became of it."""
    writing.cancel()
    writing.add_done_callback(lambda done: done.cancelled() or done.exception())


def _md5(content: bytes = b"") -> "hashlib._Hash":
    return hashlib.md5(content, usedforsecurity=False)


def _check_size(size: int, declared_size: int | None) -> None:
    if declared_size is not None and size != declared_size:
        raise invalid_parameter(f"The upload was cut off: {size} of {declared_size} bytes arrived.")


def _disk_full() -> MlflowError:
    return no_room(f"The disk is full; {_NOTHING_KEPT}.")


def path_in(directory: Path, spool_name: str) -> Path:
    """Where a file lies in a spool's folder."""
    if not _NAME.fullmatch(spool_name):
        raise ValueError(f"{spool_name!r} is not the name of a spooled file.")
    return directory / spool_name[:_SHARD] / spool_name


def _try_out(directory: Path) -> None:
    content = secrets.token_bytes(INLINE_LIMIT)
    file = _NewFile(directory)
    try:
        file.write(content)
        file.finish()
        if path_in(directory, file.name).read_bytes() != content:
            raise OSError(errno.EIO, "A file does not hold what was written", str(directory))
    finally:
        file.discard()


def has_files(directory: Path) -> bool:
    """Whether a folder is a spool that holds anything."""
    return directory.is_dir() and bool(_files(directory))


def list_shards(directory: Path) -> list[Path]:
    """The folders that a spool's files are spread over."""
    return [folder for folder in directory.iterdir() if len(folder.name) == _SHARD and folder.is_dir()]


def _files(directory: Path) -> list[Path]:
    return [path for folder in list_shards(directory) for path in folder.iterdir()]


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _remove(path: Path) -> int:
    """How many bytes that freed."""
    size = _size(path)
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def _sweep(directory: Path, known: frozenset[str], newest: float) -> int:
    removed = 0
    for path in _files(directory):
        if path.name in known:
            continue
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < newest:
                path.unlink()
                removed += 1
    return removed
