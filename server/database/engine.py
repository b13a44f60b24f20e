"""One database: SQLite in the data folder, or Postgres.

`Database` hands out *transactions* (for the writer) and *reads* (anywhere, in worker threads).
Statements that run thousands of times a second are plain SQL at the driver's level, written once
with `?` for both databases; the rest is SQLAlchemy Core on `Transaction.connection`.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from server.database import postgres
from server.database.held import HeldConnections
from server.database.postgres import DatabaseAwayError, OutcomeUnknownError
from server.database.transaction import Transaction as Transaction
from server.domain.disk_failures import disk_failure
from server.domain.errors import OperatorError

T = TypeVar("T")
Opened = Callable[[], AbstractContextManager[Transaction]]

_SQLITE_FULL = 2
_BUSY_TIMEOUT_MS = 30_000
_READERS = 4
_WRITER_CACHE_KIB = 16_000
# Each reader has its own; what it misses there, the system mostly has.
_READER_CACHE_KIB = 8_000
_LARGEST_WAL_BYTES = 64 * 1024 * 1024
WAL_LOOK_SECONDS = 2.0
_WAL_PATIENCE_MS = 500


class DatabaseUrlError(OperatorError):
    """The setting does not name a database that can be used."""


class DurabilityError(OperatorError):
    """The database cannot keep the promise that a commit is flushed."""


class NameListener(Protocol):
    """Hears which runs, logged models and model versions requests call by their ids."""

    def before_commit(self, transaction: Transaction) -> None:
        """A transaction that named some is about to be committed."""
        ...

    def after_commit(self, named: set[str]) -> None:
        """It was."""
        ...

    def after_read(self, named: set[str]) -> None:
        """A read named some, whether or not it was answered. Called in a reading thread."""
        ...


class Database:
    """The engine, and the threads that read from it.

    Raises:
        DurabilityError: SQLite does not run in WAL with `synchronous=FULL`.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse_url(url)
        self.is_postgres = self.url.get_backend_name() == "postgresql"
        self.engine = self._make_engine()
        # On SQLite those who read keep connections of their own: with the last connection the write-ahead log
        # goes, and on a disk that takes no write it could not be made again, not even to read.
        self._reading_engine = (
            self.engine.execution_options(isolation_level="REPEATABLE READ")
            if self.is_postgres
            else self._make_engine(page_cache_kib=_READER_CACHE_KIB)
        )
        self._writing = HeldConnections(self._connect_to_write)
        self._reading = HeldConnections(partial(self._connect, self._reading_engine))
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reader")
        self._names: NameListener | None = None
        self._wal_looked_at = float("-inf")

    def on_names(self, listener: NameListener) -> None:
        """Tell `listener` what the requests name."""
        self._names = listener

    def _make_engine(self, page_cache_kib: int = _WRITER_CACHE_KIB) -> Engine:
        if self.is_postgres:
            engine = create_engine(self.url, pool_size=_READERS + 2, connect_args=postgres.CONNECT_ARGUMENTS)
            event.listen(engine, "connect", postgres.limit_idle_transactions)
            return engine
        engine = create_engine(
            self.url,
            pool_size=_READERS + 2,
            connect_args={"check_same_thread": False, "cached_statements": 512},
        )
        event.listen(engine, "connect", partial(_prepare_sqlite, page_cache_kib))
        event.listen(engine, "begin", _begin_deferred)
        return engine

    @property
    def sqlite_path(self) -> Path | None:
        """Where the database file is, for SQLite."""
        return None if self.is_postgres or not self.url.database else Path(self.url.database)

    def require_reachable(self) -> None:
        """Prove that the database can be spoken to.

        Raises:
            DatabaseUrlError: it cannot.
        """
        try:
            with self._connected(self.engine):
                pass
        except DatabaseAwayError as error:
            shown = self.url.render_as_string(hide_password=True)
            raise DatabaseUrlError(
                f"The database {shown} cannot be reached: {str(error.__cause__).splitlines()[0].rstrip('.')}."
                " Check MLPROXY_DATABASE_URL, and that the database runs."
            ) from error

    @contextmanager
    def writing(self, now_ms: int) -> Iterator[Transaction]:
        """One transaction that takes the write lock at once and commits, flushed, at the end.

        Raises:
            DatabaseAwayError: Postgres went away; nothing was kept.
            OutcomeUnknownError: it went away during the commit (`commit_marks` finds out what became of it).
        """
        with self._writing.one() as connection:
            begun = connection.begin()
            transaction = Transaction(connection, now_ms=now_ms)
            with self._watched(connection):
                try:
                    yield transaction
                    if transaction.named and self._names is not None:
                        self._names.before_commit(transaction)
                except BaseException:
                    with suppress(DBAPIError):
                        begun.rollback()
                    raise
            self._commit(connection, begun)
        if transaction.named and self._names is not None:
            self._names.after_commit(transaction.named)

    def _connect_to_write(self) -> Connection:
        """A connection with settings of its own.

        Raises:
            DatabaseAwayError: Postgres gives none.
        """
        connection = self._connect(self.engine).execution_options(writes=True)
        if self.is_postgres:
            with self._watched(connection):
                postgres.plan_by_key(connection.connection.dbapi_connection)
        return connection

    def _commit(self, connection: Connection, begun: Any) -> None:
        try:
            with self._watched(connection):
                begun.commit()
        except DatabaseAwayError as error:
            raise OutcomeUnknownError from error

    @contextmanager
    def reading(self) -> Iterator[Transaction]:
        """One consistent snapshot.

        Raises:
            DatabaseAwayError: Postgres went away.
        """
        with self._reading.one() as connection, self._watched(connection), connection.begin():
            yield Transaction(connection)

    @contextmanager
    def _asking(self) -> Iterator[Transaction]:
        """No transaction: what one statement sees is a snapshot by itself.

        Raises:
            DatabaseAwayError: Postgres went away.
        """
        with self._reading.one() as connection, self._watched(connection):
            transaction = Transaction(connection)
            if not self.is_postgres:
                yield transaction
                return
            transaction.driver_connection.autocommit = True
            try:
                yield transaction
            finally:
                with suppress(transaction.driver_error):  # it may be lost
                    transaction.driver_connection.autocommit = False

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        """A connection of the pool.

        Raises:
            DatabaseAwayError: Postgres gives none.
        """
        with self._connect(engine) as connection:
            yield connection

    def _connect(self, engine: Engine) -> Connection:
        try:
            return engine.connect()
        except Exception as error:
            if self.is_postgres and postgres.is_away(error):
                raise DatabaseAwayError from error
            raise

    @contextmanager
    def _watched(self, connection: Connection) -> Iterator[None]:
        """Tell a database that went away from a statement that failed; let go of dead connections.

        Raises:
            DatabaseAwayError: it went away.
        """
        driver = connection.connection.dbapi_connection
        try:
            yield
        except Exception as error:
            writes = connection.get_execution_options().get("writes")
            if writes and disk_failure(error) is not None and not connection.invalidated:
                connection.invalidate()  # what it holds after a failed flush is anyone's guess
            if not self.is_postgres or not postgres.is_away(error, driver):
                raise
            if not connection.invalidated:
                connection.invalidate()
            self._let_go()
            raise DatabaseAwayError from error

    def _let_go(self) -> None:
        """Close the connections that nobody uses now."""
        for held in (self._writing, self._reading):
            held.close()
        for engine in (self._reading_engine, self.engine):
            engine.dispose()

    @property
    def wal_bytes(self) -> int:
        """The size of SQLite's write-ahead log; 0 on Postgres."""
        path = self.sqlite_path
        try:
            return 0 if path is None else path.with_name(f"{path.name}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def restrain_wal(self) -> None:
        """Start SQLite's write-ahead log over when it has outgrown its bound. For the writing thread.

        SQLite does so by itself, but only in a moment without readers: a stream of reads that never pauses
        would let the log grow for ever. Here readers are waited for, briefly.
        """
        now = time.monotonic()
        if now < self._wal_looked_at + WAL_LOOK_SECONDS:
            return
        self._wal_looked_at = now
        if self.wal_bytes <= _LARGEST_WAL_BYTES:
            return
        # A disk that does not take this will not take the next commit either, and that one is answered.
        with suppress(sqlite3.OperationalError, DBAPIError), self.engine.connect() as connection:
            try:
                cursor = cast(Any, connection.connection.dbapi_connection).cursor()
                cursor.execute(f"PRAGMA busy_timeout={_WAL_PATIENCE_MS}")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
            except sqlite3.OperationalError:
                connection.invalidate()
                raise

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """The result of `query` on a snapshot, computed in a worker thread.

        Raises:
            DatabaseAwayError: Postgres cannot be reached.
        """
        return await self._in_reader(self.reading, query)

    async def ask(self, query: Callable[[Transaction], T]) -> T:
        """As `read`, for a query of one statement: on Postgres one exchange instead of three.

        Raises:
            DatabaseAwayError: Postgres cannot be reached.
        """
        return await self._in_reader(self._asking, query)

    async def _in_reader(self, opened: Opened, query: Callable[[Transaction], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read_now, opened, query)

    def _read_now(self, opened: Opened, query: Callable[[Transaction], T]) -> T:
        try:
            return self._read_once(opened, query)
        except DatabaseAwayError:
            # Perhaps only this connection was old: the database may have been restarted since.
            return self._read_once(opened, query)

    def _read_once(self, opened: Opened, query: Callable[[Transaction], T]) -> T:
        with opened() as transaction:
            try:
                return query(transaction)
            finally:
                if transaction.named and self._names is not None:
                    self._names.after_read(transaction.named)

    def check_durability(self) -> None:
        """Prove that a commit is flushed to disk before it is acknowledged.

        Raises:
            DurabilityError: it is not.
        """
        with self.engine.connect() as connection, connection.begin():
            transaction = Transaction(connection)  # of the pool that writes: readers have one of their own
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
        self._let_go()


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


def _prepare_sqlite(page_cache_kib: int, connection: Any, _record: object) -> None:
    # The driver must not open transactions by itself: it would begin them deferred.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute(f"PRAGMA cache_size=-{page_cache_kib}")
    cursor.close()


def _begin_deferred(connection: Connection) -> None:
    # A writer that first reads and then upgrades its lock could be refused half-way.
    statement = "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
    connection.exec_driver_sql(statement)
