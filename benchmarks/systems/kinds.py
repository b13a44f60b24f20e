"""The systems: how each is started on a fresh database, durable, with its own defaults otherwise."""

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.environments import ROOT, set_up, version_of
from benchmarks.systems.api import TrackingApi
from benchmarks.systems.postgres import Postgres
from benchmarks.systems.process import ServerProcess, clean_environment, free_port

SQLITE = "sqlite"
POSTGRES = "postgres"
PROXY = "proxy"
MLFLOW = "mlflow"
FASTTRACKML = "fasttrackml"
LIMIT = "limit"

_KEY_SECONDS = 60.0


@dataclass(slots=True)
class Place:
    """Where a system runs: its folder and its database. `database` is a Postgres database's name."""

    kind: str
    folder: Path
    postgres: Postgres | None = None
    database: str | None = None

    @property
    def sqlite_file(self) -> Path:
        """The file, for a system that is told which to use."""
        return self.folder / "tracking.db"

    def tidy(self) -> None:
        """After a database was filled: let Postgres do at once what it does in its own time."""
        if self.postgres is not None and self.database is not None:
            self.postgres.vacuum(self.database)

    def postgres_url(self, scheme: str = "postgresql") -> str:
        """The address of its Postgres database."""
        assert self.postgres is not None
        assert self.database is not None
        return self.postgres.url(self.database, scheme)


@dataclass(slots=True)
class Running:
    """A system that answers."""

    system: str
    place: Place
    process: ServerProcess
    start_seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def api(self) -> TrackingApi:
        """For set-up."""
        return TrackingApi(self.process.url, self.headers)

    def cpu_seconds(self) -> float:
        """Processor time so far, with that of Postgres where the system uses it."""
        postgres = self.place.postgres
        shared = postgres.cpu_seconds() if postgres is not None else 0.0
        return self.process.cpu_seconds() + shared

    def stop(self) -> None:
        """End it and drop its Postgres database; the folder is its owner's to remove."""
        self.process.stop()
        if self.place.postgres is not None and self.place.database is not None:
            self.place.postgres.drop_database(self.place.database)


class System(ABC):
    """A kind of server. Constructing one sets up the environment that it needs."""

    name: str

    @abstractmethod
    def version(self) -> str:
        """What is measured."""

    @abstractmethod
    def process(self, place: Place, port: int) -> ServerProcess:
        """Its process, not yet started."""

    def start(self, place: Place) -> Running:
        """Start it and wait for its first good answer.

        Raises:
            StartError: it gave none.
        """
        process = self.process(place, free_port())
        seconds = process.start()
        return Running(self.name, place, process, seconds)


class Mlflow(System):
    """Stock `mlflow server` with one worker: its default of four is slower for one client."""

    name = MLFLOW

    def __init__(self) -> None:
        self._programs = set_up(MLFLOW)

    @property
    def python(self) -> Path:
        """The interpreter that has the stock client."""
        return self._programs / "python"

    def version(self) -> str:
        """What is measured."""
        return f"mlflow server {version_of(self._programs, 'mlflow')}, 1 worker"

    def process(self, place: Place, port: int) -> ServerProcess:
        """Its process, not yet started."""
        is_postgres = place.kind == POSTGRES
        # The driver is named: what `postgresql://` means has changed with SQLAlchemy 2.1.
        store = place.postgres_url("postgresql+psycopg2") if is_postgres else f"sqlite:///{place.sqlite_file}"
        command = [str(self._programs / "mlflow"), "server", "--backend-store-uri", store]
        command += ["--artifacts-destination", str(place.folder / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        path = f"{self._programs}:{clean_environment()['PATH']}"
        return ServerProcess(
            name=self.name, command=command, folder=place.folder, port=port, environment={"PATH": path}
        )


class FastTrackMl(System):
    """FastTrackML, with its defaults."""

    name = FASTTRACKML

    def __init__(self) -> None:
        self._programs = set_up(FASTTRACKML)

    def version(self) -> str:
        """What is measured."""
        return f"FastTrackML {version_of(self._programs, 'fasttrackml')}"

    def process(self, place: Place, port: int) -> ServerProcess:
        """Its process, not yet started."""
        store = (
            f"{place.postgres_url('postgres')}&sslmode=disable"
            if place.kind == POSTGRES
            else f"sqlite://{place.sqlite_file}"
        )
        command = [str(self._programs / "fml"), "server", "-d", store, "-a", f"127.0.0.1:{port}"]
        command += ["--default-artifact-root", str(place.folder / "artifacts")]
        return ServerProcess(name=self.name, command=command, folder=place.folder, port=port)


class Limit(System):
    """The limit program (`benchmarks/limit/program.py`)."""

    name = LIMIT

    def __init__(self) -> None:
        self._programs = set_up(LIMIT)

    def version(self) -> str:
        """What is measured."""
        return f"limit program on uvicorn {version_of(self._programs, 'uvicorn')}"

    def process(self, place: Place, port: int) -> ServerProcess:
        """Its process, not yet started."""
        database = place.postgres_url() if place.kind == POSTGRES else str(place.sqlite_file)
        program = ROOT / "benchmarks" / "limit" / "program.py"
        command = [str(self._programs / "python"), str(program), "--port", str(port), "--database", database]
        return ServerProcess(name=self.name, command=command, folder=place.folder, port=port)


class Proxy(System):
    """The proxy, with API keys on. `settings` are more of its `MLPROXY_*` variables, and azure-identity's."""

    name = PROXY

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._settings = dict(settings or {})

    def version(self) -> str:
        """What is measured."""
        from server import __version__

        return f"mlproxy {__version__}"

    def process(self, place: Place, port: int) -> ServerProcess:
        """Its process, not yet started."""
        return ServerProcess(
            name=self.name,
            command=[sys.executable, "-m", "server", "serve"],
            folder=place.folder,
            port=port,
            environment=self._environment(place, port),
        )

    def start(self, place: Place) -> Running:
        """Start it and make a key."""
        running = super().start(place)
        try:
            key = self._create_key(place, running.process.port)
        except BaseException:
            running.stop()
            raise
        running.headers = {"Authorization": f"Bearer {key}"}
        return running

    def start_again(self, running: Running) -> Running:
        """Start a stopped one on what it holds; its keys are still good."""
        process = self.process(running.place, running.process.port)
        seconds = process.start()
        return Running(self.name, running.place, process, seconds, running.headers)

    def _create_key(self, place: Place, port: int) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "server", "keys", "create", "bench", "--role", "admin"],
            cwd=place.folder,
            env=clean_environment() | self._environment(place, port),
            capture_output=True,
            text=True,
            timeout=_KEY_SECONDS,
            check=True,
        )
        return done.stdout.strip().splitlines()[-1].strip()

    def _environment(self, place: Place, port: int) -> dict[str, str]:
        environment = {
            "PYTHONPATH": str(ROOT),
            "MLPROXY_DATA_DIR": str(place.folder),
            "MLPROXY_PORT": str(port),
            "MLPROXY_AUTH": "keys",
        }
        if place.kind == POSTGRES:
            environment["MLPROXY_DATABASE_URL"] = place.postgres_url()
        return environment | self._settings


PEERS: dict[str, Callable[[], System]] = {MLFLOW: Mlflow, FASTTRACKML: FastTrackMl, LIMIT: Limit}
