"""SQLite's write-ahead log does not grow for ever, not even under reads that never pause."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from server.database.engine import WAL_LOOK_SECONDS, Database
from server.database.migration import prepare_schema

MIB = 1024 * 1024
BOUND = 64 * MIB
COMMITS = 40
READ_SECONDS = 0.06
LOOKS = 5


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    made = Database(f"sqlite:///{tmp_path}/proxy.db")
    prepare_schema(made)
    yield made
    made.close()


@contextmanager
def unceasing_reads(database: Database) -> Iterator[None]:
    """Each read begins before the one before it has ended: at any moment some snapshot is in use."""
    begun, done = threading.Event(), threading.Event()

    def begin_read() -> ExitStack:
        read = ExitStack()
        read.enter_context(database.reading()).rows("SELECT count(*) FROM facts")
        return read

    def read_on() -> None:
        current = begin_read()
        begun.set()
        while not done.wait(READ_SECONDS):
            following = begin_read()
            current.close()
            current = following
        current.close()

    reader = threading.Thread(target=read_on)
    reader.start()
    assert begun.wait(60)
    try:
        yield
    finally:
        done.set()
        reader.join()


def write_much(database: Database, *, restrained: bool) -> int:
    """Commit far more than the bound; how large the log is when it must have been looked at."""
    with unceasing_reads(database):
        for number in range(COMMITS):
            with database.writing(1) as transaction:
                transaction.run("INSERT INTO facts (name, value) VALUES (?, ?)", (str(number), "x" * 3 * MIB))
            if restrained:
                database.restrain_wal()
        # Readers are waited for briefly, so that a machine that stands still may cost a look or two.
        for _ in range(LOOKS if restrained else 0):
            time.sleep(WAL_LOOK_SECONDS)
            database.restrain_wal()
            if database.wal_bytes < BOUND:
                break
        return database.wal_bytes


def test_reads_that_never_pause_let_the_log_grow(database: Database) -> None:
    """Left to itself, SQLite keeps all of it: what the next test guards against does happen."""
    assert write_much(database, restrained=False) > BOUND


def test_the_log_starts_over_when_it_has_outgrown_its_bound(database: Database) -> None:
    """The readers are waited for, the disk gets its room back, and everything is there."""
    assert write_much(database, restrained=True) < BOUND
    with database.reading() as transaction:
        assert transaction.rows("SELECT count(*), sum(length(value)) FROM facts WHERE name <> 'probe'") == [
            (COMMITS, COMMITS * 3 * MIB)
        ]


def test_an_idle_log_is_left_alone(database: Database) -> None:
    """Nothing is done below the bound."""
    with database.writing(1) as transaction:
        transaction.run("INSERT INTO facts (name, value) VALUES ('a', 'b')")
    before = database.wal_bytes
    database.restrain_wal()
    assert database.wal_bytes == before > 0
