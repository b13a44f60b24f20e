"""Several real proxies on one real Postgres and one spool folder, which the test may stop, cut and kill."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from tests.durability.conftest import deliver_to
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.postgres import PostgresProcess
from tests.support.server import ServerProcess

StartReplica = Callable[..., ServerProcess]
_numbers = count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresProcess]:
    """The module's own Postgres. Its user could not get into the folders that pytest gives."""
    with (
        tempfile.TemporaryDirectory(prefix="mlproxy-postgres-") as folder,
        PostgresProcess.start(Path(folder)) as running,
    ):
        yield running


@pytest.fixture
def running_postgres(postgres: PostgresProcess) -> PostgresProcess:
    """The module's own Postgres, up whatever the test before did to it."""
    if not postgres.is_running:
        postgres.launch()
    return postgres


@pytest.fixture
def database_url(running_postgres: PostgresProcess) -> str:
    """An empty database."""
    return running_postgres.create_database(f"replicas_{next(_numbers)}")


@pytest.fixture
def start_replica(
    emulator: EmulatorProcess, nursery: Nursery, database_url: str, tmp_path: Path
) -> Iterator[StartReplica]:
    """Starts a proxy on the test's database: `start_replica("one", MLPROXY_ROLE="api")`."""
    with ExitStack() as running:

        def start(name: str, **settings: object) -> ServerProcess:
            return running.enter_context(
                deliver_to(
                    emulator,
                    tmp_path / name,
                    nursery,
                    **{
                        "MLPROXY_DATABASE_URL": database_url,
                        "MLPROXY_SPOOL_DIR": tmp_path / "spool",
                        **settings,
                    },
                )
            )

        yield start
