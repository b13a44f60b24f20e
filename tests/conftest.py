"""What holds for every test: patience with the machine, databases, and the longest files first."""

import inspect
import os
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.support.databases import Databases, MakeDatabase
from tests.support.slow_files import longest_first

CLIENT_PATIENCE_SECONDS = 60.0


def _make_clients_patient() -> None:
    """Requests that name no timeout wait longer than httpx' five seconds: a test is not about the machine."""
    shared = inspect.signature(httpx.get).parameters["timeout"].default
    shared.connect = shared.read = shared.write = shared.pool = CLIENT_PATIENCE_SECONDS


def _make_hypothesis_patient() -> None:
    """No example is too slow: that too is about the machine. In CI the examples are the same each time."""
    usual = settings.get_profile("ci" if os.environ.get("CI") else "default")
    patient = settings(usual, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("patient", patient)
    settings.load_profile("patient")


def pytest_configure() -> None:
    """Before any test is collected."""
    _make_clients_patient()
    _make_hypothesis_patient()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers share the tests, the longest files must not be the last to begin."""
    if hasattr(config, "workerinput"):
        items[:] = longest_first(items, file_of=lambda item: item.nodeid.partition("::")[0])


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Where databases come from."""
    with Databases(tmp_path_factory.mktemp("databases")) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def _no_database_outlives_its_module(databases: Databases) -> Iterator[None]:
    """Hundreds of them would fill the disk."""
    yield
    databases.drop_all()


@pytest.fixture(scope="session")
def make_database(databases: Databases) -> MakeDatabase:
    """Makes an empty database of a kind, `sqlite` or `postgres`, for the module, and gives its URL."""
    return databases.make


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """An empty database."""
    url = databases.make(request.param)
    yield url
    databases.drop(url)
