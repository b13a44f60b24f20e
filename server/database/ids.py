"""Numbers for rows that are not there yet.

Who knows a row's number before it is written can write it together with all that refers to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from server.database.transaction import Transaction


@dataclass(frozen=True, slots=True)
class NumberedKey:
    """A column that the database numbers; not one that SQLite never numbers twice (`AUTOINCREMENT`)."""

    table: str
    column: str


def take_ids(transaction: Transaction, wanted: Sequence[tuple[NumberedKey, int]]) -> list[list[int]]:
    """So many new ids of each key, rising; in one exchange.

    On SQLite the transaction must write the rows before anybody takes ids again: only rows hold their place.
    """
    if not transaction.is_postgres:
        return [_above_highest(transaction, key, count) for key, count in wanted]
    statement = _from_sequences(tuple(key for key, _ in wanted))
    [ids] = transaction.rows(statement, [count for _, count in wanted])
    return list(ids)


def _above_highest(transaction: Transaction, key: NumberedKey, count: int) -> list[int]:
    """As SQLite numbers rows by itself."""
    highest = transaction.rows(f"SELECT coalesce(max({key.column}), 0) FROM {key.table}")[0][0]
    return list(range(highest + 1, highest + 1 + count))


@lru_cache(maxsize=16)
def _from_sequences(keys: tuple[NumberedKey, ...]) -> str:
    return "SELECT " + ", ".join(
        f"ARRAY(SELECT nextval((SELECT pg_get_serial_sequence('{key.table}', '{key.column}')::regclass))"
        " FROM generate_series(1, CAST(? AS integer)))"
        for key in keys
    )
