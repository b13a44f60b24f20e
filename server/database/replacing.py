"""Postgres: setting a whole database aside, in a schema of its own."""

from collections.abc import Iterable

from server.database.engine import Transaction
from server.database.migration import VERSION_TABLE
from server.database.schema import metadata

_LONGEST_WAIT = "10s"


def list_own_tables(transaction: Transaction) -> list[str]:
    """Those of our tables that are there."""
    rows = transaction.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        " AND table_type = 'BASE TABLE'"
    )
    own = {VERSION_TABLE, *metadata.tables}
    return sorted(row[0] for row in rows if row[0] in own)


def move_tables_aside(transaction: Transaction, tables: Iterable[str], schema: str) -> None:
    """Move tables, with their rows, indexes and sequences, into a new schema."""
    transaction.run(f"SET LOCAL lock_timeout = '{_LONGEST_WAIT}'")
    transaction.run(f'CREATE SCHEMA "{schema}"')
    for table in tables:
        transaction.run(f'ALTER TABLE "{table}" SET SCHEMA "{schema}"')
