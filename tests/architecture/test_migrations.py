"""Migrations bring a database to exactly what the schema module says, on both databases."""

from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from server.database.engine import Database, Transaction
from server.database.migration import (
    HEAD,
    SchemaError,
    create_schema,
    current_revision,
    migrate,
    prepare_schema,
)
from server.database.schema import metadata

_MIGRATIONS = Path(__file__).parents[2] / "migrations"
_POSTGRES_COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name"
    " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2"
)
_POSTGRES_INDEXES = (
    "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2"
)
_POSTGRES_CONSTRAINTS = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
)
_POSTGRES_STORAGE = (
    "SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " AND reloptions IS NOT NULL ORDER BY 1"
)
_SQLITE_TABLES = (
    "SELECT t.name, t.wr, m.sql FROM pragma_table_list AS t JOIN sqlite_master AS m ON m.name = t.name"
    " WHERE t.schema = 'main' AND t.name NOT LIKE 'sqlite_%' AND t.name <> 'alembic_version' ORDER BY 1"
)


def _shape(database: Database) -> list[Any]:
    """All that the database itself knows of its schema, `alembic_version` aside."""
    with database.reading() as transaction:
        if transaction.is_postgres:
            queries = (_POSTGRES_COLUMNS, _POSTGRES_INDEXES, _POSTGRES_CONSTRAINTS, _POSTGRES_STORAGE)
            rows = [row for query in queries for row in transaction.rows(query)]
            return [row for row in rows if row[0] != "alembic_version"]
        return [_sqlite_table(transaction, *row) for row in transaction.rows(_SQLITE_TABLES)]


def _sqlite_table(transaction: Transaction, name: str, without_rowid: int, sql: str) -> tuple[Any, ...]:
    columns = transaction.rows(
        f'SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info({name!r})'
    )
    keys = transaction.rows(f'SELECT "table", "from", "to" FROM pragma_foreign_key_list({name!r})')
    indexes = transaction.rows(
        f'SELECT i.name, i."unique", i.origin, i.partial, x.seqno, x.name, x."desc", x.coll'
        f" FROM pragma_index_list({name!r}) AS i JOIN pragma_index_xinfo(i.name) AS x WHERE i.origin = 'c'"
    )
    unique = transaction.rows(
        f"SELECT i.origin, group_concat(x.name) FROM pragma_index_list({name!r}) AS i"
        " JOIN pragma_index_info(i.name) AS x WHERE i.origin <> 'c' GROUP BY i.name"
    )
    parts = (sorted(part, key=str) for part in (columns, keys, indexes, unique))
    return (name, without_rowid, "AUTOINCREMENT" in sql, *(list(map(str, part)) for part in parts))


@pytest.fixture
def migrated(database_url: str) -> Any:
    """A database that the migrations have set up."""
    database = Database(database_url)
    assert migrate(database) == HEAD
    yield database
    database.close()


def test_migrations_make_what_the_metadata_says(migrated: Database) -> None:
    """Alembic finds nothing to add, drop or change."""
    with migrated.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_a_fresh_database_and_a_migrated_one_are_the_same(migrated: Database, make_database: Any) -> None:
    """Down to what Alembic does not compare: WITHOUT ROWID, collations, partial indexes."""
    fresh = Database(make_database("postgres" if migrated.is_postgres else "sqlite"))
    create_schema(fresh)
    try:
        assert _shape(migrated) == _shape(fresh)
    finally:
        fresh.close()


def test_a_migrated_database_is_at_the_head_and_accepted(migrated: Database) -> None:
    """`serve` starts on it, and migrating again changes nothing."""
    assert current_revision(migrated) == HEAD
    prepare_schema(migrated)
    before = _shape(migrated)
    migrate(migrated)
    assert _shape(migrated) == before


def test_a_fresh_database_can_be_migrated(database_url: str) -> None:
    """What `serve` set up, `migrate` takes as up to date."""
    database = Database(database_url)
    create_schema(database)
    assert migrate(database) == HEAD
    database.close()


@pytest.mark.parametrize(("revision", "words"), [("0000", "mlproxy migrate"), ("9999", "newer version")])
def test_another_versions_database_is_refused(database_url: str, revision: str, words: str) -> None:
    """An older schema names the command, a newer one the upgrade."""
    database = Database(database_url)
    create_schema(database)
    with database.writing(0) as transaction:
        transaction.run("UPDATE alembic_version SET version_num = ?", (revision,))
    with pytest.raises(SchemaError, match=words):
        prepare_schema(database)
    database.close()


def test_the_code_knows_the_newest_revision() -> None:
    """The head in the code is the head of the one line of migrations."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
