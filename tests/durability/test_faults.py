"""Answers that get lost, lie or refuse for a while: everything is in the workspace once at the end."""

import pytest

from tests.durability.conftest import deliver_to, drain_all
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered, train
from tests.support.emulator import EmulatorProcess
from tests.support.server import ServerProcess

ROUTES = {
    "log-batch": "POST .*/runs/log-batch$",
    "run create": "PATCH .*/runs/[^/]+$",
    "run start": "POST .*/runs/[^/]+/events$",
    "run end": "POST .*/runs/update$",
    "tag deleted": "POST .*/runs/delete-tag$",
    "read back": "GET .*/(runs/get|get-history)$",
    "artifact metadata": "POST .*/artifacts/batch/metadata$",
    "blob": "PUT .*(notes.txt|weights.bin)",
    "model version": "POST .*/model-versions/create$",
    "experiment": "POST .*/experiments/create$",
}
FAULTS: dict[str, dict[str, object]] = {
    "answer lost": {"effect": "drop_answer", "when": "after"},
    **{
        f"{status} {when}": {"effect": "status", "status": status, "when": when}
        for status in (500, 502, 503, 504)
        for when in ("before", "after")
    },
    "html": {"effect": "html", "status": 200, "when": "after"},
    "body cut": {"effect": "cut_body"},
}
CASES = [
    ("log-batch", "answer lost"),
    *[("log-batch", f"{status} {when}") for status in (500, 502, 503, 504) for when in ("before", "after")],
    ("log-batch", "html"),
    ("log-batch", "body cut"),
    ("run create", "answer lost"),
    ("run create", "500 before"),
    ("run create", "503 after"),
    ("run create", "html"),
    ("run create", "body cut"),
    ("run start", "answer lost"),
    ("run end", "answer lost"),
    ("run end", "502 before"),
    ("run end", "504 after"),
    ("tag deleted", "answer lost"),
    ("tag deleted", "500 before"),
    ("read back", "answer lost"),
    ("read back", "html"),
    ("artifact metadata", "answer lost"),
    ("artifact metadata", "500 after"),
    ("artifact metadata", "html"),
    ("blob", "answer lost"),
    ("blob", "500 before"),
    ("blob", "500 after"),
    ("model version", "answer lost"),
    ("model version", "500 before"),
    ("model version", "500 after"),
    ("experiment", "answer lost"),
    ("experiment", "500 after"),
]


@pytest.mark.parametrize(("route", "fault"), CASES, ids=[f"{route}: {fault}" for route, fault in CASES])
@pytest.mark.fault("5", "6", "7")
def test_a_fault_leaves_no_trace(
    route: str,
    fault: str,
    emulator: EmulatorProcess,
    server: ServerProcess,
    client: Tracking,
    experiment: str,
) -> None:
    """After such an answer, the run and its model version are in the workspace once, as they were logged."""
    emulator.add_fault(match=ROUTES[route], times=1, **FAULTS[fault])
    if route == "read back":
        emulator.add_fault(match=ROUTES["log-batch"], times=1, **FAULTS["answer lost"])
    run = train(client, experiment, f"{route} {fault}")
    model = register(client, run, f"model {route} {fault}".replace(" ", "-"))
    drain_all(server)
    assert {found["hits"] for found in emulator.faults()} == {1}
    assert_delivered(emulator, run)
    assert_one_version(emulator, run, model)


@pytest.mark.fault("5")
def test_several_faults_in_a_row_leave_no_trace(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Three lost answers to the same batch, of which the first two took no effect, end in one batch."""
    emulator.add_fault(match=ROUTES["log-batch"], times=2, effect="drop_answer", when="before")
    emulator.add_fault(match=ROUTES["log-batch"], times=1, effect="drop_answer", when="after")
    run = train(client, experiment, "unlucky")
    drain_all(server)
    assert [found["hits"] for found in emulator.faults()] == [2, 1]
    assert_delivered(emulator, run)


@pytest.mark.fault("8")
def test_retry_after_is_obeyed(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """After a 429 the workspace is left alone for as long as `Retry-After` says; then all arrives once."""
    run = client.create_run(experiment, "throttled")
    drain_all(server)
    emulator.add_fault(
        match=ROUTES["log-batch"], effect="status", status=429, headers={"Retry-After": "3"}, times=1
    )
    seen = emulator.calls()[-1]["seq"] if emulator.calls() else 0
    client.log_metric(run, "loss", 0.5, 0)
    client.end(run)
    drain_all(server)
    assert_delivered(emulator, run)
    refused, *later = emulator.calls(since=seen)
    assert refused["status"] == 429
    assert min(call["time"] for call in later) - refused["time"] >= 2.9


@pytest.mark.fault("5")
def test_a_lost_create_is_not_held_up_by_the_marker_settle_time(
    emulator: EmulatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A create under our own id is repeatable: when its answer is lost, it is sent again at once."""
    with deliver_to(
        emulator, tmp_path_factory.mktemp("patient"), MLPROXY_MARKER_SETTLE_SECONDS=600
    ) as server:
        client = Tracking(server.url)
        emulator.add_fault(match=ROUTES["run create"], effect="drop_answer", when="after", times=2)
        run = train(client, client.create_experiment("lost create"), "lost create")
        drain_all(server)
        assert_delivered(emulator, run)


def register(client: Tracking, run: LoggedRun, name: str) -> str:
    """Register the run's model folder."""
    client.post("registered-models/create", {"name": name})
    source = f"mlflow-artifacts:/{run.artifact_root}/model"
    client.post("model-versions/create", {"name": name, "source": source, "run_id": run.run_id})
    return name


def assert_one_version(emulator: EmulatorProcess, run: LoggedRun, name: str) -> None:
    """The model has one version, made from the run's folder."""
    models = [model for model in emulator.registered_models() if model["name"] == name]
    sources = [version["source"] for model in models for version in model["versions"]]
    assert sources == [f"azureml://artifacts/ExperimentRun/dcid.{run.run_id}/model"]
