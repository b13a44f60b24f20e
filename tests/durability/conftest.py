"""A real server process that delivers to a real emulator process, one pair per module."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.durability.tracking import Tracking
from tests.support.emulator import EmulatorProcess
from tests.support.nursery import Nursery
from tests.support.server import ServerProcess

StartServer = Callable[..., ServerProcess]
DRAIN_SECONDS = 180.0
"""For how long all may be on its way: only to end a test that would wait for ever."""


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where servers that are killed often are forked from."""
    with Nursery() as running:
        yield running


@pytest.fixture(scope="module")
def module_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """The module's workspace."""
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


def deliver_to(
    emulator: EmulatorProcess, folder: Path, nursery: Nursery | None = None, **settings: object
) -> ServerProcess:
    """A server that delivers to this emulator, soon sure of what it does not see."""
    return ServerProcess.start(
        folder,
        nursery=nursery,
        **{
            "MLPROXY_WORKSPACE": emulator.tracking_uri,
            "MLPROXY_CREDENTIAL": "managed-identity",
            "MLPROXY_SETTLE_SECONDS": 0.5,
            "MLPROXY_MARKER_SETTLE_SECONDS": 0.6,
            **emulator.environment(),
            **settings,
        },
    )


@pytest.fixture(scope="module")
def module_server(
    module_emulator: EmulatorProcess, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """The module's proxy, which delivers to its workspace."""
    with deliver_to(module_emulator, tmp_path_factory.mktemp("server"), nursery) as running:
        yield running


@pytest.fixture
def server(module_server: ServerProcess) -> ServerProcess:
    """The module's server, running."""
    if not module_server.is_running:
        module_server.launch()
    return module_server


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Tracking]:
    """A connection to the module's proxy."""
    connection = Tracking(server.url)
    yield connection
    connection.close()


@pytest.fixture
def experiment(client: Tracking, request: pytest.FixtureRequest) -> str:
    """A new experiment, named after the test."""
    return client.create_experiment(request.node.name.replace("[", " ").replace("]", "").replace("/", " "))


def drain(server: ServerProcess, *, timeout: float = DRAIN_SECONDS) -> int:
    """Wait until nothing is pending or uncertain, as `mlproxy drain` does; how many entries are parked.

    It asks again and again: each time, delivery looks at once at what it would look at within two seconds.
    """
    deadline = time.monotonic() + timeout
    left = ask_to_drain(server)
    while (left["pending"], left["uncertain"]) != (0, 0):
        assert time.monotonic() < deadline, f"{left}\n{server.log_file.read_text()[-3000:]}"
        left = ask_to_drain(server)
    return int(left["parked"])


def ask_to_drain(server: ServerProcess) -> dict[str, int]:
    """What is left after half a second of delivery without waiting for company."""
    answer = httpx.post(
        f"{server.url}/api/2.0/mlproxy/drain", json={"timeout_seconds": 0.4}, timeout=60, trust_env=False
    )
    assert answer.is_success, answer.text
    return dict(answer.json())


def drain_all(server: ServerProcess, *, timeout: float = DRAIN_SECONDS) -> None:
    """Wait until all is delivered; nothing may be parked."""
    assert drain(server, timeout=timeout) == 0
