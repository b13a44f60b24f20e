"""A real server process that delivers to a real emulator process, one pair per module."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.durability.tracking import Tracking
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess

StartServer = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def module_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture
def emulator(module_emulator: EmulatorProcess) -> Iterator[EmulatorProcess]:
    """The module's emulator, behaving well before and after the test."""
    defaults = module_emulator.settings()
    yield module_emulator
    if module_emulator.is_running:
        module_emulator.clear_faults()
        module_emulator.settings(**defaults)


def deliver_to(emulator: EmulatorProcess, folder: Path, **settings: object) -> ServerProcess:
    """A server that delivers to this emulator, soon sure of what it does not see."""
    return ServerProcess.start(
        folder,
        **{
            "MLPROXY_WORKSPACE": emulator.tracking_uri,
            "MLPROXY_CREDENTIAL": "managed-identity",
            "MLPROXY_SETTLE_SECONDS": 1,
            "MLPROXY_MARKER_SETTLE_SECONDS": 2,
            **emulator.environment(),
            **settings,
        },
    )


@pytest.fixture(scope="module")
def module_server(
    module_emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    with deliver_to(module_emulator, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def server(module_server: ServerProcess) -> Iterator[ServerProcess]:
    """The module's server, running."""
    if not module_server.is_running:
        module_server.launch()
    yield module_server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Tracking]:
    connection = Tracking(server.url)
    yield connection
    connection.close()


@pytest.fixture
def experiment(client: Tracking, request: pytest.FixtureRequest) -> str:
    """A new experiment, named after the test."""
    return client.create_experiment(request.node.name.replace("[", " ").replace("]", "").replace("/", " "))


def drain(server: ServerProcess, *, timeout: float = 60.0) -> str:
    """Wait until all is delivered; what `drain` says."""
    drained = server.cli("drain", "--timeout", f"{timeout:g}", timeout=timeout + 30)
    assert drained.returncode == 0, drained.stdout + drained.stderr + server.log_file.read_text()[-3000:]
    return drained.stdout


def drain_all(server: ServerProcess, *, timeout: float = 60.0) -> None:
    """Wait until all is delivered; nothing may be parked."""
    assert drain(server, timeout=timeout).strip() == "Everything is delivered."
