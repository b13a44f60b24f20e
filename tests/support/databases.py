"""Empty databases of both kinds, gone again when the tests that asked for them are over.

`MLPROXY_TEST_DATABASE_URL` names a Postgres server to use instead of the one started here; its user
must be allowed to create databases.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import URL, create_engine, make_url, text

from tests.support.postgres import PostgresProcess

MakeDatabase = Callable[[str], str]

# Its databases outlive neither their tests nor a crash of the machine, and what they write stays small.
_SERVER_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "max_connections": "200",
}


class Databases:
    """Makes and drops databases. Postgres is started by the first who asks for it; a `with` block ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._passing: list[str] = []
        self._server: URL | None = None
        self._running = ExitStack()

    def make(self, kind: str, *, stays: bool = False) -> str:
        """An empty database of a kind, `sqlite` or `postgres`; its URL.

        Unless it `stays`, the next `drop_all` drops it.
        """
        url = self._make_sqlite() if kind == "sqlite" else self._make_postgres()
        if not stays:
            self._passing.append(url)
        return url

    def drop(self, url: str) -> None:
        """Drop one of them, whoever still has it open."""
        self._passing.remove(url)
        made = make_url(url)
        if made.drivername.startswith("sqlite"):
            assert made.database is not None
            shutil.rmtree(Path(made.database).parent)
        else:
            self._tell_postgres(f"DROP DATABASE {made.database} WITH (FORCE)")

    def drop_all(self) -> None:
        """Drop all that do not stay."""
        for url in tuple(self._passing):
            self.drop(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()

    def _make_sqlite(self) -> str:
        folder = self._folder / f"database-{next(self._numbers)}"
        folder.mkdir()
        return f"sqlite:///{folder}/proxy.db"

    def _make_postgres(self) -> str:
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._tell_postgres(f"CREATE DATABASE {name}")
        return self._postgres().set(database=name).render_as_string(hide_password=False)

    def _tell_postgres(self, statement: str) -> None:
        admin = create_engine(self._postgres(), isolation_level="AUTOCOMMIT")
        try:
            with admin.connect() as connection:
                connection.execute(text(statement))
        finally:
            admin.dispose()

    def _postgres(self) -> URL:
        if self._server is None:
            self._server = make_url(os.environ.get("MLPROXY_TEST_DATABASE_URL") or self._start_postgres())
        return self._server

    def _start_postgres(self) -> str:
        # Not under pytest's own folder: as root, Postgres runs under a user who may not enter there.
        folder = self._running.enter_context(tempfile.TemporaryDirectory(prefix="mlproxy-postgres-"))
        server = self._running.enter_context(PostgresProcess.start(Path(folder), **_SERVER_SETTINGS))
        return server.url("postgres").replace("postgresql://", "postgresql+psycopg://", 1)
