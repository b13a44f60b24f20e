"""What every table is declared with, whichever module declares it."""

from typing import Any

from sqlalchemy import BigInteger, Connection, Integer, MetaData, Table, event

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives out row ids only for a column that is exactly INTEGER PRIMARY KEY.
Id = BigInteger().with_variant(Integer, "sqlite")
# Rows live in the key's own tree: one write for each, and neighbours in key order lie together.
clustered: dict[str, Any] = {"sqlite_with_rowid": False}


def leave_room(table: Table, percent: int) -> None:
    """Let Postgres fill the table's pages up to so much only.

    A changed row finds room beside the old one then, and no index has to be told where it went.
    """

    def set_fill_factor(_table: Table, connection: Connection, **_: Any) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER TABLE {table.name} SET (fillfactor = {percent})")

    event.listen(table, "after_create", set_fill_factor)
