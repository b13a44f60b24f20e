"""Clients in other languages: what they send is taken, what they read they understand, and it arrives.

Java and R are replayed after their clients' sources; the npm package runs as it is. Each file in
`tests/clients/languages` says where its requests come from.
"""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.languages import r
from tests.conformance.conftest import DRAIN_SECONDS
from tests.support.emulator import REPOSITORY, EmulatorProcess
from tests.support.interpreters import CLIENTS, client_python, run_client
from tests.support.server import ServerProcess
from tests.support.workspace import WorkspaceRun, point, run_of, runs_of

BASE_MS = 1_700_000_000_000
CLIENT_TIMEOUT_SECONDS = 480
Record = dict[str, Any]


@pytest.fixture(scope="module")
def key(server: ServerProcess) -> str:
    """A key for everyone here."""
    created = server.cli("keys", "create", "languages")
    assert created.returncode == 0, created.stderr
    server.api_key = created.stdout.splitlines()[-1]
    return server.api_key


@pytest.fixture(scope="module")
def java(server: ServerProcess, key: str, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A training in Java, delivered. The Java client leaves artifacts to MLflow's command line."""
    python, folder = client_python("mlflow3"), tmp_path_factory.mktemp("java")
    basic = {"MLFLOW_TRACKING_USERNAME": "anyone", "MLFLOW_TRACKING_PASSWORD": key}
    record_file = folder / "record.json"
    run_client(
        python, "languages/java.py", str(record_file), folder=folder, MLFLOW_TRACKING_URI=server.url, **basic
    )
    record: Record = json.loads(record_file.read_text())
    local = folder / "notes ü.txt"
    local.write_text("from Java")
    command = ["-m", "mlflow.store.artifact.cli", "log-artifact", "--local-file", str(local)]
    _run([str(python), *command, "--run-id", record["run_id"]], server, **basic)
    _drain(server)
    return record


@pytest.fixture(scope="module", params=[r.API, r.OLDER_API], ids=["R", "older-R"])
def in_r(request: pytest.FixtureRequest, server: ServerProcess, key: str) -> Iterator[Record]:
    """A training in R, delivered; its experiment and model are renamed afterwards, for the next one."""
    client = r.Client(server.url, key, request.param)
    try:
        record = r.train(client)
        record["registered"] = r.register(client, record["run_id"])
        _drain(server)
        yield record
        renamed = {"experiment_id": record["experiment_id"], "new_name": f"R {request.param}"}
        client.rest("experiments", "update", verb="POST", data=renamed)
        data = {"name": "R.model", "new_name": f"R.model.{record['run_id']}"}
        client.rest("registered-models", "rename", verb="POST", data=data)
    finally:
        client.close()


@pytest.fixture(scope="module")
def javascript(server: ServerProcess, key: str, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A training with the npm package, delivered."""
    folder = Path(os.environ.get("MLPROXY_TEST_NODE") or REPOSITORY / ".venvs" / "node")
    node, modules = folder / "bin" / "node", folder / "node_modules"
    if not (node.exists() and (modules / "mlflow").exists()):
        reason = "no npm package `mlflow`: `make azurite` sets it up, or MLPROXY_TEST_NODE names its folder"
        if os.environ.get("MLPROXY_TEST_REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    record_file = tmp_path_factory.mktemp("javascript") / "record.json"
    script = CLIENTS / "languages" / "javascript.js"
    command = [str(node), str(script), str(modules), str(record_file)]
    _run(command, server, MLFLOW_TRACKING_TOKEN=key)
    _drain(server)
    return dict(json.loads(record_file.read_text()))


def _run(command: list[str], server: ServerProcess, **environment: str) -> None:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    ended = subprocess.run(
        command,
        env={**inherited, "MLFLOW_TRACKING_URI": server.url, **environment},
        capture_output=True,
        text=True,
        timeout=CLIENT_TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _drain(server: ServerProcess) -> None:
    drained = server.cli("drain", "--timeout", str(DRAIN_SECONDS))
    assert drained.returncode == 0, drained.stdout + drained.stderr
    assert server.status()["parked"] == 0


def _holds(run: WorkspaceRun) -> Record:
    """What every training here leaves in the workspace, whatever its language."""
    own_tags = {key: run.tags.get(key) for key in ("stage", "gone", "batched")}
    return {"params": run.params, "tags": own_tags, "status": run.status}


LEFT: Record = {
    "params": {"lr": "0.1", "depth": "3"},
    "tags": {"stage": "last", "gone": None, "batched": "ja ü"},
    "status": "FINISHED",
}


# --- Java ---


def test_java_reads_what_it_wrote(java: Record) -> None:
    """Protobuf's JSON parser finds every answer to be of the right type, with the values that were sent."""
    assert java["by name"] == [java["experiment_id"], {"language": "Java"}]
    assert (java["params"], java["status"]) == (LEFT["params"], "FINISHED")
    assert (java["started"], java["times"]) == (BASE_MS, [BASE_MS, BASE_MS + 60_000])
    assert java["found"] == [java["run_id"]]
    assert java["experiments"] == ["java"]
    assert java["latest"] == {"accuracy": "0.25", "loss": "1e-300"} | {"accuracy": repr((1 << 40) / 4)}


def test_java_reads_odd_numbers(java: Record) -> None:
    """NaN comes back as NaN, and infinity as the largest double, as MLflow stores it."""
    assert java["history"] == [
        [0, BASE_MS, "0.5"],
        [1, BASE_MS + 1, "nan"],
        [2, BASE_MS + 2, "1.7976931348623157e+308"],
        [3, BASE_MS + 3, "1e-300"],
    ]


def test_java_takes_a_missing_experiment_for_absent(java: Record) -> None:
    """It tells a missing experiment by status 404."""
    assert java["absent"] == 404


def test_java_reads_the_registry(java: Record) -> None:
    """A version made in Java has the stage and description that were given to it, by every way to it."""
    assert java["version"] == ["1", "Production", "from Java", java["run_id"]]
    assert java["latest versions"] == java["searched versions"] == ["1"]
    assert java["download uri"] == f"{java['artifact uri']}/model"
    assert java["created recently"]


def test_java_arrives(java: Record, emulator: EmulatorProcess) -> None:
    """The run, its points and file, and the version of its model are in the workspace."""
    run = run_of(emulator, java["run_id"])
    assert _holds(run) == LEFT
    losses = enumerate((0.5, float("nan"), float("inf"), 1e-300))
    assert run.points_in_order == [
        *(point("loss", step, BASE_MS + step, value) for step, value in losses),
        *(point("accuracy", step, BASE_MS, step / 4) for step in (-1, 0, 1 << 40)),
    ]
    assert run.files == {"notes ü.txt": hashlib.sha256(b"from Java").hexdigest()}
    [version] = _versions(emulator, "java-model")
    assert (version["current_stage"], version["description"]) == ("Production", "from Java")


# --- R ---


def test_r_understands_a_missing_experiment(in_r: Record) -> None:
    """`mlflow_set_experiment` looks for the error's name in the answer before it makes the experiment."""
    assert "RESOURCE_DOES_NOT_EXIST" in in_r["missing"]


def test_r_reads_what_it_wrote(in_r: Record) -> None:
    """The package finds the run by `run_uuid`, with the values that were sent as text."""
    info = in_r["info"]
    assert in_r["ended"] == info["run_uuid"] == info["run_id"] == in_r["run_id"]
    assert (info["status"], info["lifecycle_stage"]) == ("FINISHED", "active")
    assert [int(info[name]) for name in ("start_time", "end_time")] == [r.BASE_MS, r.BASE_MS + 60_000]
    assert in_r["params"] == LEFT["params"]
    assert in_r["found"] == [in_r["run_id"]]
    assert "R" in in_r["experiments"]
    assert [step for step, _ in in_r["history"]] == [0, 1, 2, 3]
    assert in_r["history"][1] == [1, "NaN"]
    assert in_r["artifacts"]["root_uri"] == info["artifact_uri"]


def test_r_reads_the_registry(in_r: Record) -> None:
    """Updates by PATCH and deletes by DELETE with a body do what they say."""
    registered = in_r["registered"]
    version = registered["version"]
    assert (version["current_stage"], version["description"]) == ("Production", "from R")
    assert version["tags"] == [{"key": "k", "value": "v"}]
    assert registered["latest"] == [version["version"]] == ["1"]
    assert registered["model"]["description"] == "of R"
    assert registered["found"] == ["R.model"]


def test_r_arrives(in_r: Record, emulator: EmulatorProcess) -> None:
    """The run, its points, and the one version that was not deleted are in the workspace."""
    run = run_of(emulator, in_r["run_id"])
    assert _holds(run) == LEFT
    losses = enumerate(("0.5", "nan", "inf", "-inf"))
    assert run.points_in_order == [
        *(point("loss", step, r.BASE_MS + step, value) for step, value in losses),
        *(point("accuracy", step, r.BASE_MS, step / 4) for step in r.STEPS),
    ]
    versions = [
        version
        for model in emulator.registered_models()
        for version in model["versions"]
        if version["run_id"] == in_r["run_id"]
    ]
    assert [version["current_stage"] for version in versions] == ["Production"]


# --- JavaScript ---


def test_javascript_reads_what_it_wrote(javascript: Record) -> None:
    """Every call of the npm package is answered as it expects."""
    assert (javascript["status"], javascript["experiment"]) == ("FINISHED", "renamed javascript")
    assert javascript["times"] == [BASE_MS, BASE_MS + 60_000]
    assert javascript["found"] == [javascript["run_id"]]
    assert "renamed javascript" in javascript["experiments"]
    assert javascript["history"] == [[step, BASE_MS + step, 1 / (step + 1)] for step in range(3)]
    assert javascript["root"].startswith("mlflow-artifacts:/")
    assert "RESOURCE_DOES_NOT_EXIST" in javascript["refused"]


def test_javascript_arrives(javascript: Record, emulator: EmulatorProcess) -> None:
    """Both runs are in the workspace under the experiment's first name, one of them deleted."""
    held = {run.run_id: run for run in runs_of(emulator, "javascript")}
    assert set(held) == {javascript["run_id"], javascript["deleted"]}
    run = held[javascript["run_id"]]
    assert _holds(run) == LEFT
    assert run.points_in_order == [
        *(point("loss", step, BASE_MS + step, 1 / (step + 1)) for step in range(3)),
        point("accuracy", 0, BASE_MS, 0.5),
    ]
    assert held[javascript["deleted"]].document["lifecycle_stage"] == "deleted"


def _versions(emulator: EmulatorProcess, name: str) -> list[Record]:
    [model] = [model for model in emulator.registered_models() if model["name"] == name]
    return list(model["versions"])
