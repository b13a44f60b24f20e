"""The workspace's state on disk.

One connection, used only from the event loop's thread: a transaction is never interleaved with
another. A committed row survives a killed process.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from emulator.schema import SCHEMA, TABLES_WITH_SEQ

Value = str | int | float | None


class Store:
    """SQL with the arrival counter beside it."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(SCHEMA)
        self._seq = max(self._last_seq(table) for table in TABLES_WITH_SEQ)

    def next_seq(self) -> int:
        """The next place in the order of arrival; a rolled back one is not given again."""
        self._seq += 1
        return self._seq

    def run(self, statement: str, *values: Value) -> int:
        """Execute; returns how many rows it changed."""
        return self._connection.execute(statement, values).rowcount

    def run_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        """Execute once per row."""
        self._connection.executemany(statement, rows)

    def find(self, statement: str, *values: Value) -> sqlite3.Row | None:
        """The first row, or nothing."""
        row: sqlite3.Row | None = self._connection.execute(statement, values).fetchone()
        return row

    def list(self, statement: str, *values: Value) -> list[sqlite3.Row]:
        """All rows."""
        return self._connection.execute(statement, values).fetchall()

    def count(self, statement: str, *values: Value) -> int:
        """The first column of the first row; 0 for nothing."""
        row = self.find(statement, *values)
        return 0 if row is None else int(row[0] or 0)

    def find_fact(self, name: str) -> str | None:
        """A kept fact, or nothing."""
        row = self.find("SELECT value FROM facts WHERE name = ?", name)
        return None if row is None else str(row["value"])

    def put_fact(self, name: str, value: str) -> None:
        """Keep a fact."""
        self.run("INSERT OR REPLACE INTO facts VALUES (?, ?)", name, value)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or, after an exception, none of it. Never hold one across an `await`."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file; nothing is lost without it."""
        self._connection.close()

    def _last_seq(self, table: str) -> int:
        return self.count(f"SELECT max(seq) FROM {table}")
