"""Statements that take many rows in one go.

SQLite runs a prepared statement for each row inside this process, which costs next to nothing. Postgres is
asked over a wire: there the rows travel as one array for each column, in one statement whose text, and
therefore whose plan, is the same for any number of rows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Together:
    """One statement for many rows.

    `each` is SQLite's, with a `?` for every value of a row; `at_once` is Postgres', which finds the rows in
    the table `{given}`. `types` are the values' types in the order of the row, and that table's columns are
    `column1`, `column2`, ….
    """

    each: str
    at_once: str
    types: tuple[str, ...]


Change = tuple[Together, Sequence[Row]]
"""A statement and its rows. Several may share one list of rows."""


def insert(table: str, columns: Mapping[str, str], rest: str = "") -> Together:
    """Insert rows; `columns` gives each one's type, `rest` is what follows (`ON CONFLICT …`)."""
    names = ", ".join(columns)
    into = f"INSERT INTO {table} ({names})"
    marks = ", ".join("?" * len(columns))
    # Without a WHERE, SQL takes the ON of ON CONFLICT for that of a join.
    at_once = f"{into} SELECT * FROM {{given}} WHERE true {rest}"
    return Together(f"{into} VALUES ({marks}) {rest}", at_once, tuple(columns.values()))


def at_once(changes: Sequence[Change]) -> tuple[str, list[str]]:
    """Several changes as one statement of Postgres', and its parameters. Rows that several share go once.

    All see what there was before any of them, so none may depend on what another one changes.
    """
    given: dict[int, int] = {}
    columns: list[str] = []
    for statement, rows in changes:
        if id(rows) not in given:
            given[id(rows)] = len(given)
            columns += columns_of(statement.types, rows)
    shape = tuple((statement, given[id(rows)]) for statement, rows in changes)
    return _joined(shape), columns


@lru_cache(maxsize=256)
def _joined(shape: tuple[tuple[Together, int], ...]) -> str:
    """The statements, each with the number of the table that has its rows, as one."""
    given = {number: statement.types for statement, number in reversed(shape)}
    tables = [f"given{number} AS {arrays(given[number])}" for number in range(len(given))]
    *before, last = [statement.at_once.format(given=f"given{number}") for statement, number in shape]
    done = [f"done{number} AS ({sql})" for number, sql in enumerate(before)]
    return f"WITH {', '.join(tables + done)} {last}"


@lru_cache(maxsize=256)
def arrays(types: tuple[str, ...]) -> str:
    """A table expression with a column for each array that is given."""
    given = ", ".join(f"CAST(? AS {type_}[])" for type_ in types)
    names = ", ".join(f"column{number}" for number in range(1, len(types) + 1))
    return f"(SELECT * FROM unnest({given}) AS arrays ({names}))"


def columns_of(types: tuple[str, ...], rows: Iterable[Row]) -> list[str]:
    """The rows as one array literal for each column."""
    columns = zip(*rows, strict=True)
    return [array_literal(type_, column) for type_, column in zip(types, columns, strict=True)]


def array_literal(type_: str, values: Sequence[Any]) -> str:
    """Postgres' text form of an array, which is several times faster to make than the driver's own."""
    as_text = _AS_TEXT[type_]
    if None in values:
        return "{" + ",".join("NULL" if value is None else as_text(value) for value in values) + "}"
    return "{" + ",".join(map(as_text, values)) + "}"


def text_array(texts: Iterable[str]) -> str:
    """Texts as Postgres' array."""
    return array_literal("TEXT", list(texts))


def type_of(value: object) -> str:
    """The array element type for a key that is looked up."""
    return next(name for type_, name in _TYPES.items() if isinstance(value, type_))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _hexadecimal(value: bytes) -> str:
    return f'"\\\\x{value.hex()}"'


_AS_TEXT: Mapping[str, Callable[[Any], str]] = {
    "BIGINT": int.__repr__,
    "SMALLINT": int.__repr__,
    "DOUBLE PRECISION": repr,
    "TEXT": _quoted,
    "BYTEA": _hexadecimal,
}
_TYPES: Mapping[type, str] = {int: "BIGINT", str: "TEXT", bytes: "BYTEA"}
