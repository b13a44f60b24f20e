"""The main job: a stock client trains through the proxy, the proxy delivers, both sides are compared."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.emulator import EmulatorProcess
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess

DRAIN_SECONDS = 240
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MainJob:
    """One training that has been delivered: what the client logged, with which key, and both servers."""

    record: Record
    runs: list[Record]
    server: ServerProcess
    emulator: EmulatorProcess
    key_name: str


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatorProcess]:
    """The workspace."""
    with EmulatorProcess.start(tmp_path_factory.mktemp("emulator")) as running:
        yield running


@pytest.fixture(scope="module")
def server(emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The proxy, which lets in clients with a key only."""
    with ServerProcess.start(
        tmp_path_factory.mktemp("server"),
        MLPROXY_WORKSPACE=emulator.tracking_uri,
        MLPROXY_CREDENTIAL="managed-identity",
        MLPROXY_AUTH="keys",
        **emulator.environment(),
    ) as running:
        yield running


@pytest.fixture(scope="module", params=["mlflow3-bearer", "mlflow2-basic"])
def main_job(
    request: pytest.FixtureRequest,
    server: ServerProcess,
    emulator: EmulatorProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> MainJob:
    """One training per client, delivered; the newer client shows its key as token, the older as password."""
    client, _, scheme = request.param.partition("-")
    python = client_python(client)
    folder: Path = tmp_path_factory.mktemp(client)
    created = server.cli("keys", "create", request.param)
    assert created.returncode == 0, created.stderr
    key = created.stdout.splitlines()[-1]
    credentials = {"MLFLOW_TRACKING_TOKEN": key}
    if scheme == "basic":
        credentials = {"MLFLOW_TRACKING_USERNAME": "anyone", "MLFLOW_TRACKING_PASSWORD": key}
    record_file = folder / "record.json"
    run_client(
        python,
        "training.py",
        str(record_file),
        folder=folder,
        MLFLOW_TRACKING_URI=server.url,
        **credentials,
    )
    drained = server.cli("drain", "--timeout", str(DRAIN_SECONDS))
    assert drained.returncode == 0, drained.stdout
    assert drained.stdout.strip() == "Everything is delivered."
    record = json.loads(record_file.read_text())
    runs = [run for top in record["runs"] for run in [top, *top["children"]]]
    return MainJob(record, runs, server, emulator, request.param)
