"""One database: SQLite in the data folder, or Postgres.

`Database` hands out *transactions* (for the writer) and *reads* (anywhere, in worker threads).
Statements that run thousands of times a second are plain SQL at the driver's level, written once
with `?` for both databases; the rest is SQLAlchemy Core on `Transaction.connection`.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from server.domain.errors import OperatorError

T = TypeVar("T")

_SQLITE_FULL = 2
_BUSY_TIMEOUT_MS = 30_000
_READERS = 4
_VALUES_PER_STATEMENT = 500


class DatabaseUrlError(OperatorError):
    """The setting does not name a database that can be used."""


class DurabilityError(OperatorError):
    """The database cannot keep the promise that a commit is flushed."""


class Transaction:
    """One open transaction. `touched_lanes` collects the lanes that got new entries."""

    def __init__(self, connection: Connection, *, now_ms: int = 0) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self.touched_lanes: set[int] = set()
        self.is_postgres = connection.dialect.name == "postgresql"
        self._driver = cast(Any, connection.connection.dbapi_connection)
        self.driver_error: type[Exception] = connection.dialect.loaded_dbapi.Error

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query written with `?`."""
        cursor = self._driver.cursor()
        try:
            cursor.execute(self._dialect_sql(sql), parameters)
            return cast(list[tuple[Any, ...]], cursor.fetchall())
        finally:
            cursor.close()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows it changed."""
        cursor = self._driver.cursor()
        try:
            cursor.execute(self._dialect_sql(sql), parameters)
            return cast(int, cursor.rowcount)
        finally:
            cursor.close()

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Run one statement for every row of parameters."""
        if not parameters:
            return
        cursor = self._driver.cursor()
        try:
            cursor.executemany(self._dialect_sql(sql), parameters)
        finally:
            cursor.close()

    def rows_in(self, sql: str, values: Iterable[Any], *, suffix: str = "") -> list[tuple[Any, ...]]:
        """Rows of `sql` + ` IN (…values…)` + suffix, asked in slices the database can take."""
        found: list[tuple[Any, ...]] = []
        wanted = list(values)
        for start in range(0, len(wanted), _VALUES_PER_STATEMENT):
            part = wanted[start : start + _VALUES_PER_STATEMENT]
            found.extend(self.rows(f"{sql} IN ({_marks(len(part))}){suffix}", part))
        return found

    def rows_joined(
        self, select: str, types: tuple[str, ...], keys: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Rows of `select`, which joins the table `wanted` with columns `column1`, `column2`, ….

        Every key is looked up through the index of the joined table, not by a scan.
        """
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(keys), _VALUES_PER_STATEMENT):
            part = keys[start : start + _VALUES_PER_STATEMENT]
            flat = [value for key in part for value in key]
            found.extend(self.rows(_wanted(types, len(part)) + select, flat))
        return found

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What happens inside is undone if it raises; the rest of the transaction stands."""
        with self.connection.begin_nested():
            yield

    def _dialect_sql(self, sql: str) -> str:
        return _for_psycopg(sql) if self.is_postgres else sql


@lru_cache(maxsize=2048)
def _for_psycopg(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


@lru_cache(maxsize=1024)
def _marks(count: int) -> str:
    return ",".join("?" * count)


@lru_cache(maxsize=2048)
def _wanted(types: tuple[str, ...], count: int) -> str:
    first = ",".join(f"CAST(? AS {type_})" for type_ in types)
    other = "(" + ",".join("?" * len(types)) + ")"
    values = ",".join([f"({first})", *[other] * (count - 1)])
    return f"WITH wanted AS (VALUES {values}) "


class Database:
    """The engine, and the threads that read from it.

    Raises:
        DurabilityError: SQLite does not run in WAL with `synchronous=FULL`.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse_url(url)
        self.is_postgres = self.url.get_backend_name() == "postgresql"
        self.engine = self._make_engine()
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")

    def _make_engine(self) -> Engine:
        if self.is_postgres:
            return create_engine(self.url, pool_size=_READERS + 2, pool_pre_ping=True)
        engine = create_engine(
            self.url,
            pool_size=_READERS + 2,
            connect_args={"check_same_thread": False, "cached_statements": 512},
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_deferred)
        return engine

    @property
    def sqlite_path(self) -> Path | None:
        """Where the database file is, for SQLite."""
        return None if self.is_postgres or not self.url.database else Path(self.url.database)

    @contextmanager
    def writing(self, now_ms: int) -> Iterator[Transaction]:
        """One transaction that takes the write lock at once and commits, flushed, at the end."""
        with self.engine.connect() as connection:
            if not self.is_postgres:
                connection = connection.execution_options(writes=True)
            with connection.begin():
                yield Transaction(connection, now_ms=now_ms)

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """One consistent snapshot."""
        with self.engine.connect() as connection, connection.begin():
            yield Transaction(connection)

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """The result of `query` on a snapshot, computed in a worker thread."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_now, query)

    def _read_now(self, query: Callable[[Transaction], T]) -> T:
        with self.reading() as transaction:
            return query(transaction)

    def check_durability(self) -> None:
        """Prove that a commit is flushed to disk before it is acknowledged.

        Raises:
            DurabilityError: it is not.
        """
        with self.reading() as transaction:
            if self.is_postgres:
                setting = transaction.rows("SHOW synchronous_commit")[0][0]
                if setting == "off":
                    raise DurabilityError("Postgres runs with synchronous_commit=off; set it to on.")
                return
            journal_mode = transaction.rows("PRAGMA journal_mode")[0][0]
            synchronous = transaction.rows("PRAGMA synchronous")[0][0]
        if journal_mode != "wal" or synchronous != _SQLITE_FULL:
            raise DurabilityError(
                f"SQLite must run with journal_mode=wal and synchronous=2, but has {journal_mode}"
                f" and {synchronous}."
            )

    def close(self) -> None:
        """Close every connection and end the reading threads."""
        self._readers.shutdown(wait=True)
        self.engine.dispose()


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(_with_driver(url))
    except ArgumentError as error:
        raise DatabaseUrlError(
            "MLPROXY_DATABASE_URL is not a URL. Wanted: postgresql://user@host/name"
        ) from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise DatabaseUrlError(
            "MLPROXY_DATABASE_URL must begin with postgresql:// (or be unset, for SQLite)."
        )
    return parsed


def _with_driver(url: str) -> str:
    """Postgres always means psycopg 3, whatever this SQLAlchemy's default is."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            return "postgresql+psycopg://" + url.removeprefix(scheme)
    return url


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: it would begin them deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA cache_size=-16000")
    cursor.close()


def _begin_deferred(connection: Connection) -> None:
    # A writer that first reads and then upgrades its lock could be refused half-way.
    statement = "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
    connection.exec_driver_sql(statement)
