"""SQLite's write-ahead log does not grow for ever, not even under reads that never pause."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.database.engine import WAL_LOOK_SECONDS, Database
from server.database.migration import prepare_schema

MIB = 1024 * 1024
BOUND = 64 * MIB
COMMITS = 40
READERS = 3


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """An empty database."""
    made = Database(f"sqlite:///{tmp_path}/proxy.db")
    prepare_schema(made)
    yield made
    made.close()


@contextmanager
def unceasing_reads(database: Database) -> Iterator[None]:
    """Readers that overlap each other, so that at any moment some snapshot is in use."""
    done = threading.Event()

    def read(delay: float) -> None:
        time.sleep(delay)
        while not done.is_set():
            with database.reading() as transaction:
                transaction.rows("SELECT count(*) FROM facts")
                done.wait(0.06)

    threads = [threading.Thread(target=read, args=(number * 0.02,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    yield
    done.set()
    for thread in threads:
        thread.join()


def write_much(database: Database, *, restrained: bool) -> int:
    """Commit far more than the bound; how large the log is when it must have been looked at."""
    with unceasing_reads(database):
        time.sleep(0.1)
        for number in range(COMMITS):
            with database.writing(1) as transaction:
                transaction.run("INSERT INTO facts (name, value) VALUES (?, ?)", (str(number), "x" * 3 * MIB))
            if restrained:
                database.restrain_wal()
        if restrained:
            time.sleep(WAL_LOOK_SECONDS)
            database.restrain_wal()
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
