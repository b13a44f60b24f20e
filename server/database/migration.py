"""Bringing a database to the schema of this version.

An empty database is set up at once. An older one is refused by `serve` and brought up to date by
`mlproxy migrate`; one written by a newer version is refused by everything.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, inspect

from server.database import postgres
from server.database.engine import Database, Transaction
from server.database.schema import metadata
from server.domain import failpoints
from server.domain.errors import OperatorError

HEAD = "0006"
VERSION_TABLE = "alembic_version"


class SchemaError(OperatorError):
    """The database's schema does not fit this version; the message says what to do."""


def current_revision(database: Database) -> str | None:
    """The revision the database is at; None for an empty one."""
    with database.engine.connect() as connection, connection.begin():
        if VERSION_TABLE not in inspect(connection).get_table_names():
            return None
        rows = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").all()
    return str(rows[0][0]) if rows else None


def prepare_schema(database: Database) -> None:
    """Set up an empty database; accept one that is up to date.

    Raises:
        SchemaError: it is older or newer.
    """
    revision = current_revision(database)
    if revision is None:
        create_schema(database)
    elif revision < HEAD:
        raise SchemaError(
            f"The database is at schema {revision}, this version needs {HEAD}: run `mlproxy migrate`."
        )
    elif revision > HEAD:
        raise SchemaError(
            f"The database was written by a newer version (schema {revision}; this one knows"
            f" {HEAD}). Upgrade mlproxy."
        )


def create_schema(database: Database) -> None:
    """All tables at once, as the migrations would leave them (a test holds the two equal)."""
    with database.writing(0) as transaction:
        postgres.set_up_alone(transaction)
        if VERSION_TABLE not in inspect(transaction.connection).get_table_names():
            create_tables(transaction)


def create_tables(transaction: Transaction) -> None:
    """All tables of this version, within the transaction."""
    _watch(transaction.connection)
    metadata.create_all(transaction.connection)
    transaction.run(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    transaction.run(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES (?)", (HEAD,))


def migrate(database: Database) -> str:
    """Bring the database up to date, an empty one included; the revision it is at afterwards.

    Raises:
        SchemaError: it was written by a newer version.
    """
    revision = current_revision(database)
    if revision is not None and revision > HEAD:
        prepare_schema(database)
    with database.writing(0) as transaction:
        postgres.set_up_alone(transaction)
        upgrade(transaction)
    return HEAD


def upgrade(transaction: Transaction, revision: str = "head") -> None:
    """Bring an older schema to a revision, within the transaction."""
    from alembic import command  # imported when used: start-up does not need it

    _watch(transaction.connection)
    command.upgrade(_alembic_config(transaction.connection), revision)


def _watch(connection: Connection) -> None:
    """Make every statement a place where a test can end the process: all of a migration holds, or none."""
    event.listen(connection, "after_cursor_execute", lambda *_: failpoints.reach("migration.statement"))


def _alembic_config(connection: object) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[2] / "migrations"))
    config.attributes["connection"] = connection
    return config
