"""The data folder: one server at a time, on a disk that keeps what it is told to keep."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server.domain.errors import OperatorError

ADMIN_SOCKET = "admin.sock"
_LOCK_NAME = "server.lock"
_UNFINISHED_NAME = "restore.unfinished"
_NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "lustre",
    }
)


class DataFolderError(OperatorError):
    """The data folder cannot be used; the message says why and what to do."""


class DataFolderUnwritableError(OperatorError):
    """Nothing can be kept in the data folder; the message says why and what to do."""


class RestoreUnfinishedError(OperatorError):
    """The data folder holds parts of two databases; the message says what to do."""


class FolderLock:
    """Held by the one process that may open the SQLite file of a data folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock, unless another process holds it. The system frees it when the holder dies."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class UnfinishedRestore:
    """A mark on a folder whose contents are being exchanged. Nothing else opens it until that is done."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / _UNFINISHED_NAME

    @property
    def is_set(self) -> bool:
        """Whether an exchange has begun and not ended."""
        return self._path.exists()

    def set(self) -> None:
        """Begin, durably."""
        self._path.touch(mode=0o600)
        flush_folder(self._folder)

    def clear(self) -> None:
        """All of it is done, and flushed."""
        self._path.unlink()
        flush_folder(self._folder)


def lock_data_folder(folder: Path, *, holds_database: bool, is_restoring: bool = False) -> FolderLock | None:
    """Hold the data folder, where it holds the database or is restored; None where that is elsewhere.

    Raises:
        DataFolderError: another server holds it, or it is on a network file system.
        DataFolderUnwritableError: it cannot be made, or nothing can be written in it.
        RestoreUnfinishedError: a restore was cut off in the middle, and this is not the next one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if UnfinishedRestore(folder).is_set and not is_restoring:
        raise RestoreUnfinishedError(
            f"A restore into {folder.absolute()} was cut off: run `mlproxy restore FILE --replace` again."
        )
    if not holds_database and not is_restoring:
        return None
    if holds_database:
        require_local_disk(folder)
    lock = FolderLock(folder)
    try:
        is_ours = lock.acquire()
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not is_ours:
        raise DataFolderError(f"Another server already uses {folder.absolute()}.")
    return lock


def _unwritable(folder: Path, error: OSError) -> DataFolderUnwritableError:
    return DataFolderUnwritableError(
        f"Nothing can be written in {folder.absolute()}: {error.strerror}. MLPROXY_DATA_DIR must be a folder"
        " with room in it that the server's user owns."
    )


def require_local_disk(folder: Path) -> None:
    """Refuse a folder on a network file system, where SQLite's locks and flushes cannot be trusted.

    Raises:
        DataFolderError: it is on one.
    """
    kind = file_system_of(folder)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise DataFolderError(
            f"{folder} is on a network file system ({kind}); SQLite cannot keep its promises there."
            " Use a local disk, or Postgres (MLPROXY_DATABASE_URL=postgresql://…)."
        )


def flush_folder(folder: Path) -> None:
    """Make durable which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_system_of(folder: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The type of the file system that holds a folder, where the system tells."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return None
    target = folder.absolute().resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        fields = line.split()
        if len(fields) < 3:
            continue
        mount_point = Path(fields[1].replace("\\040", " "))
        if target.is_relative_to(mount_point) and (best is None or len(mount_point.parts) >= best[0]):
            best = (len(mount_point.parts), fields[2])
    return None if best is None else best[1]


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A spelling of a socket's path that fits its address, however deep the folder is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o177)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}" if sys.platform == "linux" else str(path)
    finally:
        os.umask(mask)
        os.close(folder)
