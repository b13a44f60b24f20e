"""Orders of events that trainings really have: resumed runs, early children, late files, deleted backlogs."""

import time

import pytest

from tests.durability.conftest import drain_all
from tests.durability.tracking import BASE_MS, LoggedRun, Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess
from tests.support.workspace import run_of, runs_of, wait_until

LOG_BATCH = "POST .*/runs/log-batch$"
PAUSES = ["not at all", "between the parts"]


@pytest.mark.parametrize("drained", PAUSES)
def test_finished_logged_to_resumed_and_finished_again(
    drained: str, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Each status is applied where it was acknowledged, and what was logged after the first end is there."""

    def pause() -> None:
        if drained == "between the parts":
            drain_all(server)

    run = client.create_run(experiment, "resumed")
    client.log_metric(run, "loss", 0.5, 0)
    client.end(run)
    pause()
    client.log_metric(run, "loss", 0.25, 1)
    client.upload(run, "late.txt", b"after the end")
    pause()
    client.post("runs/update", {"run_id": run.run_id, "status": "RUNNING"})
    run.status = "RUNNING"
    client.log_metric(run, "loss", 0.125, 2)
    client.set_tag(run, "resumed", "yes")
    pause()
    client.end(run, "FAILED")
    drain_all(server)
    assert_delivered(emulator, run)
    held = run_of(emulator, run.run_id)
    statuses = [change["status"] for change in held.document["status_changes"]]
    assert statuses[-3:] == ["FINISHED", "RUNNING", "FAILED"]
    changes = {change["status"]: change["seq"] for change in held.document["status_changes"]}
    seqs = {row["step"]: row["seq"] for row in held.document["metrics"]}
    assert seqs[0] < changes["FINISHED"] < seqs[1] < seqs[2] < changes["FAILED"]


def test_a_child_acknowledged_before_its_parent_is_delivered(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A child waits for its parent, however long that takes, and then hangs below it; a grandchild too."""
    parent = client.create_run(experiment, "parent")
    # Only the parent's own creation fails: a child that did not wait would be there first.
    emulator.add_fault(match=f"PATCH .*/runs/{parent.run_id}$", effect="status", status=503, times=3)
    child = client.create_child(experiment, "child", parent)
    grandchild = client.create_child(experiment, "grandchild", child)
    for run in (grandchild, child, parent):
        client.log_metric(run, "loss", 0.5, 0)
        client.end(run)
    drain_all(server)
    for run, above in ((parent, None), (child, parent), (grandchild, child)):
        assert_delivered(emulator, run)
        held = run_of(emulator, run.run_id).document
        assert held["parent_run_id"] == (above.run_id if above else None)
    made = [run_of(emulator, run.run_id).document["seq"] for run in (parent, child, grandchild)]
    assert made == sorted(made)


def test_a_model_version_whose_files_are_still_on_their_way(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A version is made when the files under its source are all there, and not before."""
    emulator.add_fault(match="PUT .*weights.bin", effect="delay", delay_seconds=300)
    run = client.create_run(experiment, "version and files")
    client.upload(run, "model/MLmodel", b"flavors: {}")
    client.upload(run, "model/weights.bin", bytes(range(256)) * 40_000)
    client.post("registered-models/create", {"name": "still-uploading"})
    source = f"mlflow-artifacts:/{run.artifact_root}/model"
    client.post("model-versions/create", {"name": "still-uploading", "source": source, "run_id": run.run_id})
    wait_until(lambda: emulator.faults()[0]["hits"], within=120, what="the upload under way")
    # Long enough for a version that waits for nothing.
    wait_until(
        lambda: [model for model in emulator.registered_models() if model["name"] == "still-uploading"],
        within=120,
        what="the registered model",
    )
    time.sleep(1)
    assert versions_of(emulator, "still-uploading") == []
    emulator.clear_faults()
    drain_all(server)
    assert_delivered(emulator, run)
    (version,) = versions_of(emulator, "still-uploading")
    files = [artifact for artifact in emulator.run(run.run_id)["artifacts"] if artifact["sha256"]]
    assert len(files) == 2
    calls = [call for call in emulator.calls() if call["path"].endswith("/model-versions/create")]
    assert max(file["content_seq"] for file in files) < calls[-1]["seq"]
    assert version == f"azureml://artifacts/ExperimentRun/dcid.{run.run_id}/model"


def test_an_experiment_deleted_with_a_backlog(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """All that was acknowledged before the deletion arrives, then the experiment is deleted; others go on."""
    emulator.add_fault(match=LOG_BATCH, effect="status", status=503, times=2)
    runs = [client.create_run(experiment, f"backlog {number}") for number in range(5)]
    for step in range(20):
        for run in runs:
            client.log_metric(run, "loss", step / 7, step)
    client.upload(runs[0], "notes.txt", b"still to be delivered")
    client.post("experiments/delete", {"experiment_id": experiment})
    other = train(client, client.create_experiment("stays"), "stays", steps=2)
    drain_all(server)
    assert_delivered(emulator, other)
    for run in runs:
        assert_delivered(emulator, run)
    held = run_of(emulator, runs[0].run_id).document
    (archived,) = (one for one in emulator.experiments() if one["experiment_id"] == held["experiment_id"])
    assert archived["lifecycle_stage"] == "deleted"
    assert len(runs_of(emulator, archived["name"])) == len(runs)


def test_an_experiment_restored_with_a_backlog(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Deleted and restored before any of it was delivered: everything is there, and the experiment lives."""
    emulator.add_fault(match="/mlflow/|/history/", effect="status", status=503, times=4)
    run = client.create_run(experiment, "restored")
    client.log_metric(run, "loss", 0.5, 0)
    client.post("experiments/delete", {"experiment_id": experiment})
    client.post("experiments/restore", {"experiment_id": experiment})
    client.log_metric(run, "loss", 0.25, 1)
    client.end(run)
    drain_all(server)
    assert_delivered(emulator, run)
    held = run_of(emulator, run.run_id).document
    (alive,) = (one for one in emulator.experiments() if one["experiment_id"] == held["experiment_id"])
    assert alive["lifecycle_stage"] == "active"


def test_a_run_deleted_and_restored_with_a_backlog(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Deleting a run waits for its files; restoring it lets what comes after arrive."""
    emulator.add_fault(match="PUT .*notes.txt", effect="delay", delay_seconds=0.5)
    run: LoggedRun = client.create_run(experiment, "deleted and restored")
    client.upload(run, "notes.txt", b"on its way")
    client.log_metric(run, "loss", 0.5, 0)
    client.post("runs/delete", {"run_id": run.run_id})
    client.post("runs/restore", {"run_id": run.run_id})
    client.log_metric(run, "loss", 0.25, BASE_MS % 7 + 1)
    client.end(run)
    drain_all(server)
    assert_delivered(emulator, run)


def versions_of(emulator: EmulatorProcess, name: str) -> list[str]:
    """The sources of a model's versions."""
    models = [model for model in emulator.registered_models() if model["name"] == name]
    return [version["source"] for model in models for version in model["versions"]]
