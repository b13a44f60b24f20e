"""What an error says about the disk.

A database error can come as the driver's own, wrapped by SQLAlchemy, or hidden behind a second one: SQLite
ends a transaction by itself when the disk is full, and the rollback that follows finds none.
"""

import errno
import sqlite3
from collections.abc import Iterator
from enum import StrEnum

_SQLITE_PRIMARY_CODE = 0xFF


class DiskFailure(StrEnum):
    """Why the disk did not take a write. Both may pass."""

    FULL = "full"
    BROKEN = "broken"


_BY_ERRNO = {
    errno.ENOSPC: DiskFailure.FULL,
    errno.EDQUOT: DiskFailure.FULL,
    errno.EFBIG: DiskFailure.BROKEN,
    errno.EIO: DiskFailure.BROKEN,
    errno.EROFS: DiskFailure.BROKEN,
}
_BY_SQLITE_CODE = {
    sqlite3.SQLITE_FULL: DiskFailure.FULL,
    sqlite3.SQLITE_IOERR: DiskFailure.BROKEN,
    sqlite3.SQLITE_CANTOPEN: DiskFailure.BROKEN,
    sqlite3.SQLITE_READONLY: DiskFailure.BROKEN,
}
_BY_SQLSTATE = {"53100": DiskFailure.FULL, "58030": DiskFailure.BROKEN}


def disk_failure(error: BaseException) -> DiskFailure | None:
    """What is wrong with the disk, if that is what is wrong."""
    return next((found for cause in _causes(error) if (found := _judge(cause)) is not None), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it, each once."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        cause = waiting.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        waiting += [cause.__context__, cause.__cause__, getattr(cause, "orig", None)]


def _judge(error: BaseException) -> DiskFailure | None:
    if isinstance(error, sqlite3.Error):
        return _BY_SQLITE_CODE.get(getattr(error, "sqlite_errorcode", 0) & _SQLITE_PRIMARY_CODE)
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0)
    return _BY_SQLSTATE.get(getattr(error, "sqlstate", None) or "")
