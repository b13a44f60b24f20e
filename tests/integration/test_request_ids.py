"""A request has a name, from the client's header to the log, and so has each call to the workspace."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import wait_until


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """A workspace."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="module")
def server(emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that wants keys, delivers, and logs JSON."""
    settings: dict[str, object] = {
        "MLPROXY_WORKSPACE": emulator.tracking_uri,
        "MLPROXY_CREDENTIAL": "managed-identity",
        "MLPROXY_AUTH": "keys",
        "MLPROXY_LOG_FORMAT": "json",
        **emulator.environment(),
    }
    with ServerProcess.start(tmp_path_factory.mktemp("server"), **settings) as running:
        yield running


def lines_of(server: ServerProcess, **fields: object) -> list[dict[str, Any]]:
    """The log lines that have all these fields."""
    lines = [json.loads(line) for line in server.log_file.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if fields.items() <= line.items()]


def ask(server: ServerProcess, path: str = "/health", **headers: str) -> httpx.Response:
    """One request."""
    return httpx.get(f"{server.url}{path}", headers=headers, trust_env=False)


def test_a_clients_own_id_is_kept(server: ServerProcess) -> None:
    """Whatever comes of the request, its answer has the id that it came with."""
    for path in ("/health", "/nowhere", "/api/2.0/mlflow/experiments/get?experiment_id=0"):
        assert ask(server, path, **{"X-Request-Id": "job-7:step.3"}).headers["x-request-id"] == "job-7:step.3"


@pytest.mark.parametrize("given", ["", "two words", "a" * 129, "-", "a;b", "<b>"])
def test_what_is_no_id_is_replaced(server: ServerProcess, given: str) -> None:
    """By one of our own: nothing odd is repeated, in an answer or in the log."""
    answer = ask(server, **{"X-Request-Id": given})
    assert answer.headers.get_list("x-request-id") not in ([given], [])
    assert len(answer.headers.get_list("x-request-id")) == 1


def test_our_own_ids_differ(server: ServerProcess) -> None:
    """On one connection and on several."""
    with httpx.Client(trust_env=False) as client:
        ids = [client.get(f"{server.url}/health").headers["x-request-id"] for _ in range(5)]
    ids += [ask(server).headers["x-request-id"] for _ in range(5)]
    assert len(set(ids)) == 10


def test_log_lines_name_the_request(server: ServerProcess) -> None:
    """A refusal in the audit log is found by the id that the client was answered with."""
    answer = ask(server, "/api/2.0/mlflow/experiments/get?experiment_id=0")
    assert answer.status_code == 401
    assert lines_of(server, audit=True, request_id=answer.headers["x-request-id"])


def test_failed_calls_to_the_workspace_name_lane_and_call(
    server: ServerProcess, emulator: EmulatorProcess
) -> None:
    """The id that the workspace's own logs have, beside the lane that was being delivered."""
    key = server.cli("keys", "create", "writer", "--role", "write").stdout.split()[-1]
    emulator.add_fault(match="/history/|/mlflow/", effect="status", status=503, times=1)
    made = httpx.post(
        f"{server.url}/api/2.0/mlflow/experiments/create",
        json={"name": "named"},
        headers={"Authorization": f"Bearer {key}"},
        trust_env=False,
    )
    assert made.status_code == 200, made.text
    wait_until(lambda: lines_of(server, event="attempt_failed"), within=120, what="a failed attempt")
    [call] = lines_of(server, event="upstream_call", status=503)
    [attempt] = lines_of(server, event="attempt_failed")
    assert call["lane_id"] == attempt["lane_id"]
    assert len(call["call_id"]) == 36
