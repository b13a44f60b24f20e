"""Migrations bring a database to exactly what the schema module says, on both databases."""

import re
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from server.database.engine import Database
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
_POSTGRES_INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2"
_POSTGRES_CONSTRAINTS = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2"
)
_SQLITE_OBJECTS = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"


def _shape(database: Database) -> list[Any]:
    """All that the database itself knows of its schema, `alembic_version` aside."""
    with database.reading() as transaction:
        if transaction.is_postgres:
            queries = (_POSTGRES_COLUMNS, _POSTGRES_INDEXES, _POSTGRES_CONSTRAINTS)
            rows = [row for query in queries for row in transaction.rows(query)]
            return [row for row in rows if row[0] != "alembic_version"]
        rows = transaction.rows(_SQLITE_OBJECTS)
    return [(kind, name, _statement(sql or "")) for kind, name, sql in rows if name != "alembic_version"]


def _statement(sql: str) -> list[str]:
    """The parts of a CREATE statement, in any order, without spelling differences."""
    text = re.sub(r'["\s]+', " ", sql).replace("( ", "(").replace(" )", ")")
    return sorted(re.split(r",\s*(?![^()]*\))", text.partition("(")[2])) + [text.partition("(")[0].strip()]


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
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
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
