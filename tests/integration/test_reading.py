"""Reads keep their connections: each is answered from one snapshot, also after the database was away."""

import asyncio
from collections.abc import Iterator

import pytest

from server.database.engine import Database, Transaction
from server.database.schema import metadata
from server.domain.errors import MlflowError, does_not_exist

pytestmark = pytest.mark.asyncio

_ADD = "INSERT INTO params (run_pk, key, value) VALUES (?, ?, 'v')"
_COUNT = "SELECT count(*) FROM params"
_AT_ONCE = 8


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with all the tables and no rows."""
    database = Database(database_url)
    metadata.create_all(database.engine)
    yield database
    database.close()


def _add(database: Database, key: str) -> None:
    with database.writing(1) as transaction:
        transaction.run(_ADD, (1, key))


def _count(transaction: Transaction) -> int:
    return int(transaction.rows(_COUNT)[0][0])


async def test_a_read_sees_one_snapshot_and_an_ask_what_is_there_now(database: Database) -> None:
    """What another commits between the statements of a read stays out of it, on a used connection too."""
    seen = []

    def twice(transaction: Transaction) -> None:
        seen.append(_count(transaction))
        _add(database, f"k{len(seen)}")
        seen.append(_count(transaction))

    assert await database.ask(_count) == 0
    await database.read(twice)
    assert seen == [0, 0]
    assert await database.ask(_count) == 1
    await database.read(twice)
    assert seen == [0, 0, 1, 1]


async def test_what_a_query_raises_spoils_nothing(database: Database) -> None:
    """Neither a refusal nor a statement that fails leaves a transaction behind."""
    _add(database, "k")

    def refuse(transaction: Transaction) -> None:
        raise does_not_exist(f"There is none among {_count(transaction)}.")

    for each in (database.ask, database.read):
        with pytest.raises(MlflowError, match="none among 1"):
            await each(refuse)
        with pytest.raises(Exception, match="nowhere"):
            await each(lambda transaction: transaction.rows("SELECT 1 FROM nowhere"))
    assert await database.ask(_count) == 1
    assert await database.read(_count) == 1


async def test_many_ask_at_once(database: Database) -> None:
    """Each gets an answer of its own, with reads and writes between."""
    _add(database, "k")
    asked = [
        (database.ask if number % 2 else database.read)(
            lambda transaction, number=number: (number, _count(transaction))  # type: ignore[misc]
        )
        for number in range(_AT_ONCE)
    ]
    assert await asyncio.gather(*asked) == [(number, 1) for number in range(_AT_ONCE)]


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_sessions_that_postgres_ended_are_replaced(database: Database) -> None:
    """Whoever asks next does not notice."""
    for each in (database.ask, database.read):
        await asyncio.gather(*(database.read(_count) for _ in range(_AT_ONCE)))
        with database.writing(1) as transaction:
            transaction.rows(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        assert await each(_count) == 0
