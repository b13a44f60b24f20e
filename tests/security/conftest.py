"""A real server under attack, and a count of the attacks by their class.

Each module is one class. Each of its cases is one attack, unless the case says how many it holds
(`record_property("attacks", n)`); `test_control_…` shows that what is attacked works at all, and is none.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server import ServerProcess

_FOLDER = "tests/security/test_"
_tally: dict[str, list[int]] = {}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A proxy that wants keys."""
    with ServerProcess.start(tmp_path_factory.mktemp("attacked"), MLPROXY_AUTH="keys") as running:
        yield running


@pytest.fixture(scope="session")
def keys(server: ServerProcess) -> dict[str, str]:
    """A key of each role."""
    return {
        role: server.cli("keys", "create", role, "--role", role).stdout.splitlines()[-1]
        for role in ("read", "write", "admin")
    }


@pytest.fixture(scope="session")
def writer(server: ServerProcess, keys: dict[str, str]) -> Iterator[httpx.Client]:
    """A client that may write."""
    headers = {"Authorization": f"Bearer {keys['write']}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def stranger(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client that nobody knows."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def run_id(writer: httpx.Client) -> str:
    """A run with a file `model/MLmodel` in it."""
    made = writer.post("/api/2.0/mlflow/runs/create", json={"experiment_id": "0", "start_time": 1})
    run_id = str(made.json()["run"]["info"]["run_id"])
    put = writer.put(f"/api/2.0/mlflow-artifacts/artifacts/0/{run_id}/artifacts/model/MLmodel", content=b"x")
    assert put.status_code == 200, put.text
    return run_id


@pytest.fixture(autouse=True)
def _no_server_error(server: ServerProcess) -> Iterator[None]:
    """No attack makes the server fail on a request, or end."""
    begin = server.log_file.stat().st_size
    yield
    said = server.log_file.read_bytes()[begin:]
    assert b"request_failed" not in said, said.decode(errors="replace")[-4000:]
    assert server.is_running


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the case under its class."""
    name = report.nodeid.rpartition("::")[2]
    if not report.nodeid.startswith(_FOLDER) or report.when != "call" or name.startswith("test_control_"):
        return
    attacks = int(dict(report.user_properties).get("attacks", 1))
    kind = Path(report.nodeid.partition("::")[0]).stem.removeprefix("test_").replace("_", " ")
    counted = _tally.setdefault(kind, [0, 0])
    counted[0] += attacks
    counted[1] += attacks if report.passed else 0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many attacks there were, and how many were refused."""
    if not _tally:
        return
    terminalreporter.section("attacks")
    for kind, (made, refused) in sorted(_tally.items()):
        terminalreporter.line(f"{kind}: {made} attacks, {refused} refused")
    terminalreporter.line(
        f"all: {sum(made for made, _ in _tally.values())} attacks,"
        f" {sum(refused for _, refused in _tally.values())} refused"
    )
