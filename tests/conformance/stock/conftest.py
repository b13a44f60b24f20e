"""Every client version against both servers, two versions at a time, each only once per session."""

import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.stock.compare import Comparison
from tests.conformance.stock.normal import normalised
from tests.conformance.stock.sides import Record, run_both
from tests.support.interpreters import client_python

CLIENTS = ("mlflow3", "mlflow2", "mlflow29", "mlflow1")
# What 2.9 and 1.30 need has no wheels for later versions of Python.
_ONLY_ON_3_11 = ("mlflow29", "mlflow1")
_AT_ONCE = 2
_COMPARISONS = pytest.StashKey[dict[str, Comparison]]()


class Comparisons:
    """The comparison of each client version, made when it is first asked for."""

    def __init__(self, folder: Path, wanted: list[str], found: dict[str, Comparison]) -> None:
        self._folder = folder
        self._wanted = wanted
        self._found = found
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._started: dict[str, Future[tuple[Record, Record]]] = {}

    def of(self, client: str) -> Comparison:
        """The comparison of one client version; skips where its interpreter is absent and may be."""
        _require(client)
        if not self._started:
            available = [name for name in self._wanted if _is_available(name)]
            self._started = {name: self._start(name) for name in available}
        if client not in self._started:
            self._started[client] = self._start(client)
        if client not in self._found:
            self._found[client] = _compare(*self._started[client].result())
        return self._found[client]

    def close(self) -> None:
        """Wait for what still runs; start nothing more."""
        self._pool.shutdown(cancel_futures=True)

    def _start(self, client: str) -> "Future[tuple[Record, Record]]":
        return self._pool.submit(run_both, client, self._folder / client)


def _compare(proxy: Record, stock: Record) -> Comparison:
    comparison = Comparison(version=stock["mlflow"])
    proxy_flows, stock_flows = normalised(proxy), normalised(stock)
    for name, flow in stock_flows.items():
        comparison.add(name, proxy_flows[name], flow)
    return comparison


def _is_available(client: str) -> bool:
    try:
        client_python(client)
    except (pytest.skip.Exception, pytest.fail.Exception):
        return False
    return True


def _require(client: str) -> None:
    if client in _ONLY_ON_3_11 and sys.version_info[:2] != (3, 11) and not _is_available(client):
        pytest.skip(f"{client} can be installed on Python 3.11 only")
    client_python(client)


@pytest.fixture(scope="session")
def comparisons(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Comparisons]:
    """All comparisons of the session."""
    named = [
        item.callspec.params.get("comparison") for item in request.session.items if hasattr(item, "callspec")
    ]
    wanted = [client for client in CLIENTS if client in named]
    found = request.config.stash.setdefault(_COMPARISONS, {})
    made = Comparisons(tmp_path_factory.mktemp("stock"), wanted, found)
    yield made
    made.close()


@pytest.fixture(params=CLIENTS)
def comparison(request: pytest.FixtureRequest, comparisons: Comparisons) -> Comparison:
    """The comparison of one client version."""
    return comparisons.of(request.param)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how much was compared."""
    found = config.stash.get(_COMPARISONS, {})
    if found:
        terminalreporter.section("compared with a stock MLflow server")
    for comparison in found.values():
        terminalreporter.line(comparison.summary())
        for name, reason in comparison.skipped.items():
            terminalreporter.line(f"  without {name}: {reason}")
