"""Whole databases as bytes, and back: SQLite page by page, Postgres table by table.

Both copy what one snapshot shows, while others write. The caller's transaction is the snapshot.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from sqlalchemy import Table

from server.database.engine import Transaction
from server.database.schema import metadata
from server.domain import failpoints

_PAGES_AT_ONCE = 1024
_PART_BYTES = 8 * 1024 * 1024


class CopyAbandonedError(Exception):
    """Whoever wanted the copy does not want it any more."""


def skip_keys(transaction: Transaction, count: int) -> None:
    """Leave a gap in the numbers of what is never numbered twice (experiments, registered models, …)."""
    for table in metadata.sorted_tables:
        column = _numbered_key(table)
        if column is None or not table.dialect_options["sqlite"]["autoincrement"]:
            continue
        if transaction.is_postgres:
            sequence = _sequence_of(transaction, table.name, column)
            transaction.rows(f"SELECT setval('{sequence}', (SELECT last_value FROM {sequence}) + {count})")
        else:
            _skip_in_sqlite(transaction, table.name, column, count)


def _skip_in_sqlite(transaction: Transaction, table: str, column: str, count: int) -> None:
    last = transaction.rows(
        f"SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = ?), 0),"
        f" coalesce((SELECT max({column}) FROM {_quoted(table)}), 0))",
        (table,),
    )[0][0]
    transaction.run("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
    transaction.run("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last + count))


# --- SQLite ---------------------------------------------------------------------------------


def sqlite_bytes(transaction: Transaction) -> int:
    """How large a copy of the database will be."""
    pages = transaction.rows("PRAGMA page_count")[0][0]
    return int(pages) * int(transaction.rows("PRAGMA page_size")[0][0])


def copy_sqlite(transaction: Transaction, target: Path, is_wanted: Callable[[], bool]) -> None:
    """Write the database, as the transaction sees it, to a new file. Nobody has to wait for it.

    The transaction must have read something: only then does it hold its snapshot. The copy goes to the disk
    piece by piece, so that a flush of the database itself never has to wait for much of it.

    Raises:
        CopyAbandonedError: `is_wanted` has become false.
    """
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def after_some_pages(_status: int, _remaining: int, _total: int) -> None:
        if not is_wanted():
            raise CopyAbandonedError
        failpoints.reach("backup.pages")
        os.fdatasync(descriptor)

    try:
        with closing(sqlite3.connect(target)) as copy:
            copy.execute("PRAGMA synchronous=OFF")
            transaction.driver_connection.backup(copy, pages=_PAGES_AT_ONCE, progress=after_some_pages)
    finally:
        os.close(descriptor)


# --- Postgres -------------------------------------------------------------------------------


def table_bytes(transaction: Transaction) -> int:
    """About how large a copy of all tables will be."""
    names = ",".join(f"'{table.name}'::regclass" for table in metadata.sorted_tables)
    return int(
        transaction.rows(f"SELECT coalesce(sum(pg_table_size(t)), 0) FROM unnest(ARRAY[{names}]) t")[0][0]
    )


def list_tables() -> dict[str, list[str]]:
    """Every table of this version, those that others refer to first, with its columns."""
    return {
        str(table.name): [str(column.name) for column in table.columns] for table in metadata.sorted_tables
    }


def export_table(transaction: Transaction, table: str, columns: Iterable[str]) -> Iterator[bytes]:
    """All rows of a table, in Postgres' text format, in parts of some megabytes that end between rows."""
    part: list[bytes] = []
    size = 0
    with (
        transaction.driver_connection.cursor() as cursor,
        cursor.copy(f"COPY {_quoted(table)} ({_listed(columns)}) TO STDOUT") as rows,
    ):
        for row in rows:
            part.append(bytes(row))
            size += len(row)
            if size >= _PART_BYTES:
                yield b"".join(part)
                part, size = [], 0
    if part:
        yield b"".join(part)


def import_rows(
    transaction: Transaction, table: str, columns: Iterable[str], pieces: Iterable[bytes]
) -> None:
    """Add rows that `export_table` gave; the table must have these columns."""
    with (
        transaction.driver_connection.cursor() as cursor,
        cursor.copy(f"COPY {_quoted(table)} ({_listed(columns)}) FROM STDIN") as rows,
    ):
        for piece in pieces:
            rows.write(piece)


def read_sequences(transaction: Transaction) -> dict[str, int]:
    """Table → the last number that its key was given out for."""
    last: dict[str, int] = {}
    for table, _, sequence in _sequences(transaction):
        value, is_called = transaction.rows(f"SELECT last_value, is_called FROM {sequence}")[0]
        last[table.name] = int(value) if is_called else 0
    return last


def set_sequences(transaction: Transaction, last: Mapping[str, int]) -> None:
    """From now on keys are given out above what was given out, and above what is there."""
    for table, column, sequence in _sequences(transaction):
        highest = transaction.rows(f"SELECT coalesce(max({column}), 0) FROM {_quoted(table.name)}")[0][0]
        if reached := max(int(highest), last.get(table.name, 0)):
            transaction.rows(f"SELECT setval('{sequence}', {reached})")


def _sequences(transaction: Transaction) -> Iterator[tuple[Table, str, str]]:
    """(table, key, sequence) of every table whose key the database numbers."""
    for table in metadata.sorted_tables:
        column = _numbered_key(table)
        sequence = None if column is None else _sequence_of(transaction, table.name, column)
        if column is not None and sequence is not None:
            yield table, column, sequence


def _sequence_of(transaction: Transaction, table: str, column: str) -> str | None:
    name = transaction.rows("SELECT pg_get_serial_sequence(?, ?)", (_quoted(table), column))[0][0]
    return None if name is None else str(name)


def _numbered_key(table: Table) -> str | None:
    column = table.autoincrement_column
    return None if column is None else column.name


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(_quoted(column) for column in columns)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
