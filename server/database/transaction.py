"""One open transaction: how everything above asks and changes the database."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

from sqlalchemy import Connection

from server.database.together import (
    Change,
    Row,
    Together,
    array_literal,
    arrays,
    at_once,
    columns_of,
    type_of,
)

_VALUES_PER_STATEMENT = 500
_SAVEPOINT = "job"


class Transaction:
    """One open transaction.

    `touched_lanes` collects the lanes that got new entries, `backlog_bytes` how many bytes the backlog grows
    by (less than none where entries are settled), `named` the runs, logged models and model versions that
    the request called by their ids.
    """

    def __init__(self, connection: Connection, *, now_ms: int = 0) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self.touched_lanes: set[int] = set()
        self.backlog_bytes = 0
        self.named: set[str] = set()
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

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> int:
        """Run one statement for every row of parameters; the number of rows it changed."""
        if not parameters:
            return 0
        cursor = self._driver.cursor()
        try:
            cursor.executemany(self._dialect_sql(sql), parameters)
            return cast(int, cursor.rowcount)
        finally:
            cursor.close()

    def run_all(self, changes: Iterable[Change]) -> None:
        """Make changes, each of many rows, that do not depend on each other: on Postgres in one exchange."""
        due = [(statement, rows) for statement, rows in changes if rows]
        if not self.is_postgres:
            for statement, rows in due:
                self.run_many(statement.each, rows)
        elif due:
            self.run(*at_once(due))

    def run_together(self, statement: Together, rows: Sequence[Row]) -> int:
        """Make one change of many rows, on Postgres in one exchange; the number of rows it changed."""
        if not self.is_postgres:
            return self.run_many(statement.each, rows)
        return self.run(*at_once([(statement, rows)])) if rows else 0

    def rows_in(self, sql: str, values: Iterable[Any], *, suffix: str = "") -> list[tuple[Any, ...]]:
        """Rows of `sql` + ` IN (…values…)` + suffix, asked in slices the database can take."""
        found: list[tuple[Any, ...]] = []
        wanted = list(values)
        if self.is_postgres and wanted:
            return self.rows(*_any_of(sql, wanted, suffix))
        for start in range(0, len(wanted), _VALUES_PER_STATEMENT):
            part = wanted[start : start + _VALUES_PER_STATEMENT]
            found.extend(self.rows(f"{sql} IN ({_marks(len(part))}){suffix}", part))
        return found

    def run_in(self, sql: str, values: Iterable[Any]) -> None:
        """Run `sql` + ` IN (…values…)`, in slices the database can take."""
        wanted = list(values)
        if self.is_postgres and wanted:
            self.run(*_any_of(sql, wanted))
            return
        for start in range(0, len(wanted), _VALUES_PER_STATEMENT):
            part = wanted[start : start + _VALUES_PER_STATEMENT]
            self.run(f"{sql} IN ({_marks(len(part))})", part)

    def rows_joined(
        self, select: str, types: tuple[str, ...], keys: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Rows of `select`, which joins the table `wanted` with columns `column1`, `column2`, ….

        Every key is looked up through the index of the joined table, not by a scan.
        """
        if self.is_postgres and keys:
            return self.rows(_wanted_arrays(types) + select, columns_of(types, keys))
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(keys), _VALUES_PER_STATEMENT):
            part = keys[start : start + _VALUES_PER_STATEMENT]
            flat = [value for key in part for value in key]
            found.extend(self.rows(_wanted(types, len(part)) + select, flat))
        return found

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What happens inside is undone if it raises; the rest of the transaction stands.

        What was `named` stays named: whoever was refused knew the id nevertheless. Plain SQL: a savepoint of
        SQLAlchemy's costs more than the work of most jobs.
        """
        touched_lanes, backlog_bytes = set(self.touched_lanes), self.backlog_bytes
        self.run(f"SAVEPOINT {_SAVEPOINT}")
        try:
            yield
        except BaseException:
            self.touched_lanes, self.backlog_bytes = touched_lanes, backlog_bytes
            self.run(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
            self.run(f"RELEASE SAVEPOINT {_SAVEPOINT}")
            raise
        self.run(f"RELEASE SAVEPOINT {_SAVEPOINT}")

    @property
    def driver_connection(self) -> Any:
        """The driver's own connection."""
        return self._driver

    def _dialect_sql(self, sql: str) -> str:
        return _for_psycopg(sql) if self.is_postgres else sql


@lru_cache(maxsize=2048)
def _for_psycopg(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def _any_of(sql: str, values: Sequence[Any], suffix: str = "") -> tuple[str, list[str]]:
    """`sql` asked for any of the values, as one array: Postgres prepares it once for any number of them."""
    type_ = type_of(values[0])
    return f"{sql} = ANY (CAST(? AS {type_}[])){suffix}", [array_literal(type_, values)]


def _wanted_arrays(types: tuple[str, ...]) -> str:
    return f"WITH wanted AS {arrays(types)} "


@lru_cache(maxsize=1024)
def _marks(count: int) -> str:
    return ",".join("?" * count)


@lru_cache(maxsize=2048)
def _wanted(types: tuple[str, ...], count: int) -> str:
    first = ",".join(f"CAST(? AS {type_})" for type_ in types)
    other = "(" + ",".join("?" * len(types)) + ")"
    values = ",".join([f"({first})", *[other] * (count - 1)])
    return f"WITH wanted AS (VALUES {values}) "
