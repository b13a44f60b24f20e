"""Others change the workspace, or the service itself changes: what is hit is set aside, the rest goes on."""

from typing import Any

import httpx
import pytest

from tests.durability.conftest import drain
from tests.durability.tracking import LoggedRun, Tracking, assert_delivered, train
from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess, JsonObject
from tests.support.server import ServerProcess
from tests.support.workspace import run_of

LOG_BATCH = "POST .*/runs/log-batch$"


def change(emulator: EmulatorProcess, route: str, **body: object) -> None:
    """What somebody else does in the workspace."""
    httpx.post(
        f"{emulator.http_url}/mlflow/v1.0{WORKSPACE_PATH}/api/2.0/mlflow/{route}",
        json=body,
        headers={"Authorization": f"Bearer {emulator.token()}"},
        trust_env=False,
    ).raise_for_status()


def parked_of(server: ServerProcess, run: LoggedRun) -> list[JsonObject]:
    """What of a run is set aside, as the operator sees it."""
    answer = httpx.get(f"{server.url}/api/2.0/mlproxy/parked", trust_env=False).raise_for_status()
    return [item for item in answer.json()["parked"] if item["run_id"] == run.run_id]


@pytest.mark.fault("12")
def test_a_run_that_was_deleted_there(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """What is logged to a run that somebody deleted there is parked with the reason; others go on."""
    run = client.create_run(experiment, "deleted there")
    client.log_metric(run, "loss", 0.5, 0)
    drain(server)
    change(emulator, "runs/delete", run_id=run.run_id)
    emulator.clear_calls()
    for step in range(1, 4):
        client.log_metric(run, "loss", step / 7, step)
    client.end(run)
    other = train(client, experiment, "another", steps=2)
    drain(server)
    parked = parked_of(server, run)
    assert {item["reason"] for item in parked} == {"refused"}
    assert all("'active' state" in item["message"] for item in parked)
    assert len(parked) >= 3
    assert len(emulator.calls()) < 60
    assert len(run_of(emulator, run.run_id).points) == 1
    assert_delivered(emulator, other)
    data = client.get("runs/get", run_id=run.run_id)["run"]
    assert data["info"]["status"] == "FINISHED"
    assert data["data"]["metrics"][0]["step"] == 3


@pytest.mark.fault("12")
def test_an_experiment_that_was_archived_there(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A run in an experiment that somebody archived there is parked with its words; others go on."""
    first = client.create_run(experiment, "before")
    drain(server)
    upstream_id = run_of(emulator, first.run_id).document["experiment_id"]
    change(emulator, "experiments/delete", experiment_id=upstream_id)
    late = train(client, experiment, "after", steps=2)
    other = train(client, client.create_experiment("not archived"), "another", steps=2)
    drain(server)
    parked = parked_of(server, late)
    assert parked[0]["kind"] == "CreateRun"
    assert "active" in parked[0]["message"]
    assert {item["reason"] for item in parked} == {"refused"}
    assert_delivered(emulator, other)
    assert client.get("runs/get", run_id=late.run_id)["run"]["info"]["status"] == "FINISHED"


DRIFTS: dict[str, dict[str, Any]] = {
    "a new required field": {
        "status": 400,
        "body": {"error": {"code": "UserError", "message": "Missing value for required field 'region'."}},
    },
    "an unknown code": {
        "status": 422,
        "body": {"error": {"code": "BrandNewRefusal", "message": "The new validator says no."}},
    },
}


@pytest.mark.fault("20")
@pytest.mark.parametrize("drift", DRIFTS)
def test_a_call_that_the_service_does_not_take_any_more(
    drift: str, emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """A refusal nobody has seen before parks what it hits, in its words, after a bounded number of tries."""
    run = client.create_run(experiment, "drifted")
    drain(server)
    other = client.create_run(experiment, "another")
    emulator.clear_calls()
    fault = emulator.add_fault(match=LOG_BATCH, effect="status", **DRIFTS[drift])
    for step in range(4):
        client.log_metric(run, "loss", step / 7, step)
    drain(server)
    parked = parked_of(server, run)
    assert len(parked) == 4
    assert all(DRIFTS[drift]["body"]["error"]["message"] in item["message"] for item in parked)
    assert next(found["hits"] for found in emulator.faults() if found["fault_id"] == fault) < 16
    emulator.clear_faults()
    client.log_metric(other, "loss", 1.0, 0)
    drain(server)
    assert_delivered(emulator, other)


@pytest.mark.fault("20")
def test_answers_with_words_that_nobody_knows(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """Reading back a run whose status is unknown to us, with fields we never saw, finds what is there."""
    run = client.create_run(experiment, "hibernating")
    drain(server)
    client.log_params(run, {"p": "1"})
    emulator.add_fault(match=LOG_BATCH, effect="drop_answer", when="after", times=1)
    info = {"run_id": run.run_id, "status": "HIBERNATING", "tier": {"level": 3}, "lifecycle_stage": "active"}
    body = {"run": {"info": info, "data": {"params": [{"key": "p", "value": "1", "unit": "m"}]}, "x": []}}
    emulator.add_fault(match="GET .*/runs/get$", effect="status", status=200, body=body)
    drain(server)
    assert emulator.faults()[1]["hits"] > 0
    assert_delivered(emulator, run)


@pytest.mark.fault("20")
def test_histories_come_in_smaller_pages(
    emulator: EmulatorProcess, server: ServerProcess, client: Tracking, experiment: str
) -> None:
    """When a page holds fewer points than it used to, what cannot be read back is parked, and says why."""
    run = client.create_run(experiment, "small pages")
    drain(server)
    emulator.settings(limits={"history_max_results": 100})
    emulator.add_fault(match=LOG_BATCH, effect="drop_answer", when="after", times=1)
    client.log_metric(run, "loss", 0.5, 0)
    other = train(client, experiment, "another", steps=2)
    drain(server)
    assert_delivered(emulator, other)
    (item,) = parked_of(server, run) or [{"reason": "none", "message": ""}]
    assert item["reason"] in ("none", "uncertain_outcome")
    assert item["reason"] == "none" or "MaxResults" in item["message"]
    assert set(run_of(emulator, run.run_id).points.values()) == {1}
