"""What the workspace refuses for good is set aside, with its reason; everything else goes on."""

import json

import httpx
import pytest

from tests.durability.conftest import drain
from tests.durability.tracking import Tracking, assert_delivered, train
from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import MODEL_HISTORY_TAG, PARENT_TAG, RUN_MARKER_TAG, run_of, runs_of


def log_behind_the_back(emulator: EmulatorProcess, run_id: str, key: str, value: str) -> None:
    """Someone logs a param to the run in the workspace itself."""
    answer = httpx.post(
        f"{emulator.http_url}/mlflow/v2.0{WORKSPACE_PATH}/api/2.0/mlflow/runs/log-parameter",
        json={"run_id": run_id, "key": key, "value": value},
        headers={"Authorization": f"Bearer {emulator.token()}"},
        trust_env=False,
    )
    assert answer.is_success, answer.text


@pytest.mark.fault("10")
def test_only_what_is_refused_is_parked(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A param that has another value in the workspace, amid a batch, is all that is missing there."""
    before = server.status()["parked"]
    run = client.create_run(experiment, "a contested param")
    drain(server)
    log_behind_the_back(emulator, run.run_id, "contested", "theirs")
    client.log_params(run, {f"p{number}": str(number) for number in range(20)})
    for step in range(30):
        client.log_metric(run, "loss", step / 3, step)
        client.set_tag(run, f"t{step % 5}", str(step))
    client.log_params(run, {"contested": "ours"})
    client.log_metric(run, "loss", 10.0, 30)
    client.set_tag(run, "after", "yes")
    client.upload(run, "notes.txt", b"x")
    client.end(run)
    other = train(client, experiment, "another run")
    drained = server.cli("drain", "--timeout", "60")
    assert drained.returncode == 0, drained.stdout
    assert "1 parked" in drained.stdout
    assert run.run_id in drained.stdout
    run.params["contested"] = "theirs"
    assert_delivered(emulator, run)
    assert_delivered(emulator, other)
    assert server.status()["parked"] == before + 1
    status = client.run_status(run.run_id)
    assert (status["parked"], status["pending"], status["uncertain"]) == (1, 0, 0)
    assert client.run_status(other.run_id)["parked"] == 0


def test_runs_that_the_workspace_names_itself(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Where Run History refuses our run ids, all of a run lands on the run that the workspace made for it."""
    emulator.settings(history_patch_status=404)
    parent = train(client, experiment, "mapped parent")
    child = client.create_child(experiment, "mapped child", parent)
    model = {"run_id": child.run_id, "artifact_path": "m", "flavors": {}, "utc_time_created": "now"}
    client.post("runs/log-model", {"run_id": child.run_id, "model_json": json.dumps(model)})
    client.log_metric(child, "loss", 0.25, 0)
    client.upload(child, "child.txt", b"of the child")
    client.end(child)
    drain_all_of(server, client, parent.run_id, child.run_id)
    mapped = client.run_status(parent.run_id)["upstream_run_id"]
    mapped_child = client.run_status(child.run_id)["upstream_run_id"]
    assert mapped not in (None, parent.run_id)
    assert_delivered(emulator, parent, upstream_id=mapped)
    assert_delivered(emulator, child, upstream_id=mapped_child)
    held = run_of(emulator, mapped)
    assert held.tags[RUN_MARKER_TAG] == parent.run_id
    assert held.document["created_by"] == "mlflow"
    child_tags = run_of(emulator, mapped_child).tags
    assert child_tags[PARENT_TAG] == mapped
    assert json.loads(child_tags[MODEL_HISTORY_TAG]) == [model | {"run_id": mapped_child}]
    assert mapped in str(client.run_status(parent.run_id)["studio_url"])
    assert server.cli("verify", child.run_id).returncode == 0, server.cli("verify", child.run_id).stdout


@pytest.mark.fault("5")
def test_a_mapped_run_whose_answer_was_lost_is_made_once(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """When the answer to `runs/create` is lost, the run is found by its marker and not made again."""
    emulator.settings(history_patch_status=405)
    emulator.add_fault(match="POST .*/runs/create$", effect="drop_answer", when="after", times=1)
    run = train(client, experiment, "mapped and lost")
    drain_all_of(server, client, run.run_id)
    assert_delivered(emulator, run, upstream_id=client.run_status(run.run_id)["upstream_run_id"])
    made = [held for held in emulator.runs() if held["tags"].get(RUN_MARKER_TAG) == run.run_id]
    assert len(made) == 1


def test_experiment_names_that_the_workspace_cannot_find(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking
) -> None:
    """An experiment named as on Databricks is shown so, and delivered under a name the workspace can find."""
    name = "/Users/me@example.com/exp ünï"
    experiment_id = client.create_experiment(name)
    run = train(client, experiment_id, "in a folder")
    drain_all_of(server, client, run.run_id)
    shown = client.get("experiments/get-by-name", experiment_name=name)["experiment"]
    assert (shown["experiment_id"], shown["name"]) == (experiment_id, name)
    assert_delivered(emulator, run)
    upstream_name = run_of(emulator, run.run_id).document["experiment_name"]
    assert "/" not in upstream_name
    assert [held.run_id for held in runs_of(emulator, upstream_name)] == [run.run_id]


def drain_all_of(server: ServerProcess, client: Tracking, *run_ids: str) -> None:
    """Wait until all is delivered; nothing of these runs may be parked."""
    drain(server)
    assert [client.run_status(run_id)["parked"] for run_id in run_ids] == [0] * len(run_ids)


def test_an_idle_server_has_nothing_left(server: ServerProcess, client: Tracking, experiment: str) -> None:
    """After all that, a fresh run is delivered within seconds."""
    run = train(client, experiment, "fresh", steps=2)
    drain(server, timeout=30)
    assert client.run_status(run.run_id)["pending"] == 0
