"""Writes the journals that later versions have to deliver: run it in a checkout of the version to be kept.

Its imports are that version's own test support; what it logs comes in over REST.
"""

import json
import socket
import sqlite3
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx

from server.database.migration import HEAD
from tests.durability.conftest import deliver_to
from tests.durability.tracking import API, ARTIFACTS, BASE_MS, LoggedRun, Tracking
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import point, wait_until

SPOOLED = bytes(range(256)) * 300
JsonObject = dict[str, Any]


def main(folder: Path) -> None:
    """Write all of them."""
    with tempfile.TemporaryDirectory() as scratch:
        write_undelivered(Path(scratch) / "undelivered", folder / f"{HEAD}-undelivered")
        write_uncertain(Path(scratch) / "uncertain", folder / f"{HEAD}-uncertain")


def write_undelivered(scratch: Path, folder: Path) -> None:
    """Every kind of operation, none of it delivered: the workspace was away all the time."""
    with EmulatorProcess.start(scratch / "emulator") as emulator:
        emulator.stop()
        server = deliver_to(emulator, scratch / "server")
        client = Tracking(server.url)
        http = httpx.Client(base_url=server.url, trust_env=False)
        parent = log_everything(client, http)
        child = client.create_child(parent["experiment_id"], "child", parent["run"])
        client.log_points(child, [("odd", value, step) for step, value in enumerate((0.1, -1e300, 1e-300))])
        log_strange_values(client, child)
        client.end(child, "FAILED")
        models = register_models(client, http, parent["run"])
        experiments = make_experiments(client)
        server.kill()
        save(
            folder,
            server,
            emulator,
            acknowledged={
                "runs": [describe(parent["run"]), describe(child) | {"parent": parent["run"].run_id}],
                "experiments": {"everything": "active", **experiments},
                "models": models,
            },
            workspace=None,
        )


def write_uncertain(scratch: Path, folder: Path) -> None:
    """Killed while a batch was on its way: its points are in the workspace, and nobody here knows it."""
    with EmulatorProcess.start(scratch / "emulator") as emulator:
        server = deliver_to(emulator, scratch / "server")
        client = Tracking(server.url)
        emulator.settings(limits={"tag_value_chars": 100})
        run = client.create_run(client.create_experiment("uncertain"), "uncertain", at_start="yes")
        client.log_points(run, [("loss", step / 7, step) for step in range(5)])
        client.set_tag(run, "parked", "x" * 101)
        del run.tags["parked"]
        drained = httpx.post(
            f"{server.url}/api/2.0/mlproxy/drain", json={"timeout_seconds": 30}, timeout=60, trust_env=False
        )
        assert (drained.json()["pending"], drained.json()["parked"]) == (0, 1), drained.text
        log_batch = "POST .*/runs/log-batch$"
        emulator.add_fault(match=log_batch, effect="delay", when="after", delay_seconds=30)
        client.log_points(run, [("loss", step / 7, step) for step in range(5, 12)])
        client.log_params(run, {"rate": "0.1"})
        wait_until(
            lambda: len(emulator.run(run.run_id)["metrics"]) == 12,
            within=20,
            what="the batch in the workspace",
        )
        client.log_metric(run, "loss", 9.5, 12)
        client.upload(run, "notes.txt", b"acknowledged, and never sent")
        client.end(run)
        server.kill()
        held = emulator.run(run.run_id)
        save(
            folder,
            server,
            emulator,
            acknowledged={
                "runs": [describe(run)],
                "experiments": {"uncertain": "active"},
                "models": {},
                "parked": 1,
            },
            workspace={
                "experiment": {"name": held["experiment_name"], "id": held["experiment_id"]},
                "run": {
                    name: held[name] for name in ("run_id", "name", "start_time", "params", "tags", "metrics")
                },
            },
        )


def log_everything(client: Tracking, http: httpx.Client) -> JsonObject:
    """A run with a bit of all there is."""
    experiment_id = client.create_experiment("everything")
    client.post("experiments/set-experiment-tag", {"experiment_id": experiment_id, "key": "k", "value": "v"})
    run = client.create_run(experiment_id, "parent", at_start="yes")
    client.log_params(run, {"rate": "0.1", "depth": "3", "long": "x" * 500})
    for step in range(12):
        client.log_metric(run, "loss", 1.0 / (step + 1), step)
        client.set_tag(run, "progress", str(step))
    client.set_tag(run, "short-lived", "x")
    client.delete_tag(run, "short-lived")
    client.upload(run, "notes.txt", b"all well")
    client.upload(run, "model/MLmodel", b"flavors: {}")
    client.upload(run, "model/weights.bin", SPOOLED)
    client.upload(run, "gone.txt", b"to be deleted")
    http.delete(f"{ARTIFACTS}/{run.artifact_root}/gone.txt").raise_for_status()
    del run.files["gone.txt"]
    client.post("runs/delete", {"run_id": run.run_id})
    client.post("runs/restore", {"run_id": run.run_id})
    client.end(run)
    return {"experiment_id": experiment_id, "run": run}


def log_strange_values(client: Tracking, run: LoggedRun) -> None:
    """NaN, infinities and a negative step."""
    for step, value in ((-1, "NaN"), (10, "Infinity"), (11, "-Infinity")):
        row = {"key": "odd", "value": value, "timestamp": BASE_MS + step, "step": step}
        client.post("runs/log-batch", {"run_id": run.run_id, "metrics": [row]})
        run.points.append(point("odd", step, BASE_MS + step, value))


def register_models(client: Tracking, http: httpx.Client, run: LoggedRun) -> JsonObject:
    """A model with two versions, of which one is deleted again."""
    name = "kept-model"
    client.post("registered-models/create", {"name": name, "tags": [{"key": "team", "value": "a"}]})
    send(http, "PATCH", "registered-models/update", name=name, description="about it")
    client.post("registered-models/set-tag", {"name": name, "key": "gone", "value": "x"})
    send(http, "DELETE", "registered-models/delete-tag", name=name, key="gone")
    source = f"mlflow-artifacts:/{run.artifact_root}/model"
    for _ in range(2):
        client.post("model-versions/create", {"name": name, "source": source, "run_id": run.run_id})
    send(http, "PATCH", "model-versions/update", name=name, version="1", description="the first")
    body = {"name": name, "version": "1", "stage": "Production", "archive_existing_versions": False}
    client.post("model-versions/transition-stage", body)
    client.post("model-versions/set-tag", {"name": name, "version": "1", "key": "checked", "value": "yes"})
    client.post("model-versions/set-tag", {"name": name, "version": "1", "key": "gone", "value": "yes"})
    send(http, "DELETE", "model-versions/delete-tag", name=name, version="1", key="gone")
    send(http, "DELETE", "model-versions/delete", name=name, version="2")
    versions = {"1": {"stage": "Production", "description": "the first", "tags": {"checked": "yes"}}}
    return {name: {"description": "about it", "tags": {"team": "a"}, "versions": versions}}


def make_experiments(client: Tracking) -> dict[str, str]:
    """One that was deleted and restored, and one that was deleted with its runs undelivered."""
    restored = client.create_experiment("restored")
    client.post("experiments/delete", {"experiment_id": restored})
    client.post("experiments/restore", {"experiment_id": restored})
    deleted = client.create_experiment("deleted")
    client.log_metric(client.create_run(deleted, "deleted with its experiment"), "loss", 1.0, 0)
    client.post("experiments/delete", {"experiment_id": deleted})
    return {"restored": "active", "deleted": "deleted"}


def send(http: httpx.Client, method: str, path: str, **body: object) -> None:
    """A call that is not a POST."""
    http.request(method, f"{API}/{path}", json=body).raise_for_status()


def describe(run: LoggedRun) -> JsonObject:
    """What was acknowledged of a run."""
    return asdict(run)


def save(
    folder: Path,
    server: ServerProcess,
    emulator: EmulatorProcess,
    *,
    acknowledged: JsonObject,
    workspace: JsonObject | None,
) -> None:
    """The database as SQL, free of the addresses of this moment, and what goes with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(server.data_dir / "mlproxy.db") as database:
        dump = "\n".join(database.iterdump()) + "\n"
    dump = dump.replace(f"127.0.0.1:{emulator.port}", "@HOST@")
    dump = dump.replace(f"'{socket.gethostname()}:", "'host:")
    for experiment in emulator.experiments() if workspace else []:
        dump = dump.replace(experiment["experiment_id"], f"@EXPERIMENT:{experiment['name']}@")
    (folder / "journal.sql").write_text(dump)
    for name, document in (("acknowledged", acknowledged), ("workspace", workspace)):
        if document is not None:
            (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
