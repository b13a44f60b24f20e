"""What holds for every test: patience with the machine, and the longest files first."""

import inspect
import os

import httpx
import pytest
from hypothesis import HealthCheck, settings

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
