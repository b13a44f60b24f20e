"""Errors of the disk are known as such, however deep they are wrapped."""

import errno
import sqlite3
from pathlib import Path

import psycopg.errors
import pytest
from sqlalchemy.exc import DBAPIError

from server.domain.disk_failures import DiskFailure, disk_failure


def _full_database() -> sqlite3.OperationalError:
    """The driver's own error of a database that may not grow."""
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count=2")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("CREATE TABLE t AS SELECT zeroblob(100000)")
    connection.close()
    return caught.value


def _unopenable_database(folder: Path) -> sqlite3.OperationalError:
    with pytest.raises(sqlite3.OperationalError) as caught:
        sqlite3.connect(folder / "missing" / "database")
    return caught.value


def test_sqlite_says_what_the_disk_does(tmp_path: Path) -> None:
    """Its result code tells, not its words."""
    assert disk_failure(_full_database()) is DiskFailure.FULL
    assert disk_failure(_unopenable_database(tmp_path)) is DiskFailure.BROKEN
    with pytest.raises(sqlite3.IntegrityError) as caught:
        sqlite3.connect(":memory:").executescript(
            "CREATE TABLE t (x UNIQUE); INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)"
        )
    assert disk_failure(caught.value) is None


@pytest.mark.parametrize(
    ("number", "failure"),
    [
        (errno.ENOSPC, DiskFailure.FULL),
        (errno.EDQUOT, DiskFailure.FULL),
        (errno.EIO, DiskFailure.BROKEN),
        (errno.EROFS, DiskFailure.BROKEN),
        (errno.ECONNRESET, None),
    ],
)
def test_the_systems_own_errors_are_told_by_number(number: int, failure: DiskFailure | None) -> None:
    """Those of a connection are none of the disk."""
    assert disk_failure(OSError(number, "words")) is failure


def test_postgres_is_told_by_its_state() -> None:
    """A full disk and a broken one have states of their own."""
    assert disk_failure(psycopg.errors.DiskFull()) is DiskFailure.FULL
    assert disk_failure(psycopg.errors.IoError()) is DiskFailure.BROKEN
    assert disk_failure(psycopg.errors.UniqueViolation()) is None


def test_what_lies_behind_another_error_is_found() -> None:
    """Wrapped by SQLAlchemy, as a cause, or as what happened before a rollback that failed too."""
    wrapped = DBAPIError("COMMIT", None, _full_database())
    assert disk_failure(wrapped) is DiskFailure.FULL
    with pytest.raises(ValueError) as caught:
        _fail_to_roll_back(OSError(errno.EIO, "words"))
    assert disk_failure(caught.value) is DiskFailure.BROKEN


def _fail_to_roll_back(error: OSError) -> None:
    try:
        raise error
    except OSError:
        raise ValueError("no such savepoint")  # noqa: B904 - the driver says no cause either
