"""Statements that take many rows at once do the same on both databases."""

import math
import sys
from collections.abc import Iterator

import pytest

from server.database.engine import Database, Transaction
from server.database.schema import metadata
from server.database.together import Together, insert

_INSERT_PARAM = insert("params", {"run_pk": "BIGINT", "key": "TEXT", "value": "TEXT"})
_ENTRY = {
    "lane_id": "BIGINT",
    "position": "BIGINT",
    "kind": "TEXT",
    "payload": "BYTEA",
    "accepted_at_ms": "BIGINT",
    "principal": "TEXT",
}
_POINT = {
    "series_id": "BIGINT",
    "step": "BIGINT",
    "timestamp_ms": "BIGINT",
    "value": "DOUBLE PRECISION",
    "is_nan": "SMALLINT",
}
_AWKWARD = [
    "",
    " ",
    "NULL",
    "null",
    '"',
    '""',
    "\\",
    '\\"',
    "{a,b}",
    "a,b",
    "it's",
    "%s ? %% :x",
    "\n\t\r",
    "é ä 漢 🙂",
    "\\x00",
    "x" * 8000,
]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with all the tables and no rows."""
    database = Database(database_url)
    metadata.create_all(database.engine)
    yield database
    database.close()


def test_texts_come_back_as_they_were(database: Database) -> None:
    """No text means anything to the form in which it travels: quotes, commas, braces, the word NULL."""
    rows = [(number, key, value) for number, key in enumerate(_AWKWARD) for value in [_AWKWARD[-1 - number]]]
    with database.writing(0) as transaction:
        transaction.run_all([(_INSERT_PARAM, rows)])
    with database.reading() as transaction:
        kept = transaction.rows("SELECT run_pk, key, value FROM params ORDER BY run_pk")
        asked = transaction.rows_in("SELECT key FROM params WHERE key", _AWKWARD)
        joined = transaction.rows_joined(
            "SELECT params.run_pk FROM wanted JOIN params"
            " ON params.run_pk = wanted.column1 AND params.key = wanted.column2",
            ("BIGINT", "TEXT"),
            [(row[0], row[1]) for row in rows],
        )
    assert kept == rows
    assert sorted(row[0] for row in asked) == sorted(_AWKWARD)
    assert sorted(row[0] for row in joined) == list(range(len(_AWKWARD)))


def test_bytes_and_what_is_absent_come_back_as_they_were(database: Database) -> None:
    """Every byte is kept, and what has no value has none afterwards."""
    rows = [
        (1, 1, "A", bytes(range(256)), 5, None),
        (1, 2, "A", b"", 5, "someone"),
        (1, 3, "A", b'\\"{},', 5, "NULL"),
    ]
    with database.writing(0) as transaction:
        transaction.run_all([(insert("journal_entries", _ENTRY), rows)])
    with database.reading() as transaction:
        kept = transaction.rows("SELECT position, payload, principal FROM journal_entries ORDER BY position")
    assert [(position, bytes(payload), name) for position, payload, name in kept] == [
        (row[1], row[3], row[5]) for row in rows
    ]


def test_numbers_come_back_as_they_were(database: Database) -> None:
    """The largest, the smallest and the most awkward numbers are kept to the last bit."""
    values = [0.1, 1 / 3, 1e22, 5e-324, -1e-7, math.pi, sys.float_info.max, -sys.float_info.max]
    rows = [(1, -(2**63) + number, 2**63 - 1 - number, value, 0) for number, value in enumerate(values)]
    with database.writing(0) as transaction:
        transaction.run_all([(insert("points", _POINT), rows)])
    with database.reading() as transaction:
        kept = transaction.rows(
            "SELECT series_id, step, timestamp_ms, value, is_nan FROM points ORDER BY step"
        )
    assert kept == rows


def test_several_changes_are_made_together(database: Database) -> None:
    """Changes of several tables, some with the same rows and one with none, all take effect."""
    rename = Together(
        "UPDATE tags SET value = ? WHERE key = ?",
        "UPDATE tags SET value = column1 FROM {given} WHERE key = column2",
        ("TEXT", "TEXT"),
    )
    columns = {"run_pk": "BIGINT", "key": "TEXT", "value": "TEXT"}
    rows = [(1, "a", "1"), (2, "b", "2")]
    with database.writing(0) as transaction:
        transaction.run_all([(insert("tags", columns), [(9, "old", "1"), (9, "kept", "2")])])
        transaction.run_all(
            [(_INSERT_PARAM, rows), (insert("tags", columns), rows), (rename, [("3", "old")]), (rename, [])]
        )
    with database.reading() as transaction:
        params = transaction.rows("SELECT run_pk, key, value FROM params ORDER BY key")
        tags = transaction.rows("SELECT run_pk, key, value FROM tags ORDER BY run_pk, key")
    assert params == rows
    assert tags == [*rows, (9, "kept", "2"), (9, "old", "3")]


def _fail_in_savepoint(transaction: Transaction) -> None:
    with transaction.savepoint():
        transaction.run_all([(_INSERT_PARAM, [(1, "inside", "")])])
        raise LookupError


def test_a_savepoint_that_is_undone_leaves_the_rest(database: Database) -> None:
    """What raises inside of a savepoint is undone; what stood before it and what follows is kept."""
    with database.writing(0) as transaction:
        transaction.run_all([(_INSERT_PARAM, [(1, "before", "")])])
        with pytest.raises(LookupError):
            _fail_in_savepoint(transaction)
        with transaction.savepoint():
            transaction.run_all([(_INSERT_PARAM, [(1, "after", "")])])
    with database.reading() as transaction:
        kept = transaction.rows("SELECT key FROM params ORDER BY key")
    assert [row[0] for row in kept] == ["after", "before"]


def test_a_writer_keeps_its_connection(database: Database) -> None:
    """One transaction after the other is made on one connection, also after one that failed."""
    seen = []
    for number in range(3):
        with database.writing(0) as transaction:
            seen.append(id(transaction.driver_connection))
            transaction.run_all([(_INSERT_PARAM, [(number, "a", "")])])
        with pytest.raises(transaction.driver_error), database.writing(0) as transaction:
            transaction.run("INSERT INTO params (run_pk, key, value) VALUES (?, 'a', '')", (number,))
    assert len(set(seen)) == 1
