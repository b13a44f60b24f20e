"""Files of the spool that stay readable while they are copied, whatever becomes of the spool's own.

A hold is a folder of hard links beside the files. It works across processes: a replica that removes a file
takes only its own name for it away. Where the file system knows no hard links, files are copied.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from errno import EMLINK, ENOTSUP, EPERM, EXDEV
from pathlib import Path

_PREFIX = ".hold-"
_LOCK_SUFFIX = ".lock"
_CANNOT_LINK = frozenset({EMLINK, ENOTSUP, EPERM, EXDEV})


class Hold:
    """A folder of held files, with room for more beside them. `release` removes it.

    While it is open its lock is held, so that `clear_abandoned` of another process leaves it alone.
    """

    def __init__(self, directory: Path, path_of: Callable[[str], Path]) -> None:
        self.folder = directory / f"{_PREFIX}{secrets.token_hex(8)}"
        self._path_of = path_of
        self._lock_path = self.folder.with_name(self.folder.name + _LOCK_SUFFIX)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._lock: int | None = os.open(self._lock_path, flags, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.folder.mkdir(mode=0o700)

    def add(self, names: Iterable[str]) -> list[str]:
        """Hold these files too; the names of those that are gone already."""
        return [name for name in names if not self._add_one(name)]

    def path_of(self, name: str) -> Path:
        """Where a held file can be read."""
        return self.folder / name

    def release(self) -> None:
        """Let go of all of them."""
        if self._lock is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = None

    def _add_one(self, name: str) -> bool:
        held = self.path_of(name)
        if held.exists():
            return True
        try:
            os.link(self._path_of(name), held)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
            return _copied(self._path_of(name), held)
        return True


def _copied(source: Path, target: Path) -> bool:
    try:
        with source.open("rb") as read, target.open("xb") as written:
            shutil.copyfileobj(read, written, 1024 * 1024)
    except FileNotFoundError:
        return False
    return True


def clear_abandoned(directory: Path) -> int:
    """Remove what holders left that died; how many holds that were."""
    cleared = 0
    for lock_path in directory.glob(f"{_PREFIX}*{_LOCK_SUFFIX}"):
        with suppress(FileNotFoundError):
            cleared += _clear(lock_path)
    return cleared


def _clear(lock_path: Path) -> bool:
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        shutil.rmtree(lock_path.with_name(lock_path.name.removesuffix(_LOCK_SUFFIX)), ignore_errors=True)
        lock_path.unlink(missing_ok=True)
        return True
    finally:
        os.close(descriptor)
