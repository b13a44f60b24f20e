"""Run History: creating a run under a chosen id, and what follows from it."""

import uuid

import pytest
from api import Api, point

from tests.support.emulator import EmulatorProcess


@pytest.fixture
def address(experiment_id: str) -> str:
    """The address of a run that is not there yet."""
    return f"/experimentids/{experiment_id}/runs/{uuid.uuid4()}"


def id_of(address: str) -> str:
    """The run id in an address."""
    return address.rpartition("/")[2]


def test_a_patch_creates_once(api: Api, address: str, emulator: EmulatorProcess) -> None:
    """Sent twice, it is one run; the second modifies."""
    first = api.history("PATCH", address, {"displayName": "one", "tags": {"a": "1"}})
    second = api.history("PATCH", address, {"tags": {"b": "2"}})
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.json()["runNumber"] == first.json()["runNumber"]
    assert [run["run_id"] for run in emulator.runs()].count(id_of(address)) == 1
    assert emulator.run(id_of(address))["tags"] == {"a": "1", "b": "2"}
    assert second.json()["displayName"] == "one"
    assert second.json()["status"] == "NotStarted"


def test_times_and_status_of_the_past(api: Api, address: str) -> None:
    """A run can be told with the times it had; MLflow shows the same."""
    body = {
        "status": "Running",
        "startTimeUtc": "2026-01-02T03:04:05.678+00:00",
        "parentRunId": "parent",
        "properties": {"p": "1"},
    }
    api.history("PATCH", address, body)
    api.history("PATCH", address, {"status": "Completed", "endTimeUtc": "2026-01-02T03:05:05Z"})
    run = api.get("runs/get", run_id=id_of(address)).json()["run"]
    assert run["info"]["start_time"] == 1767323045678
    assert run["info"]["end_time"] == 1767323105000
    assert run["info"]["status"] == "FINISHED"
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert (tags["mlflow.parentRunId"], tags["mlflow.rootRunId"]) == ("parent", "parent")


def test_mlflow_writes_on_it(api: Api, address: str, emulator: EmulatorProcess) -> None:
    """Params, metrics, tags and status through MLflow land on the run that PATCH made."""
    api.history("PATCH", address, {"status": "Running"})
    run_id = id_of(address)
    batch = {"params": [{"key": "p", "value": "1"}], "metrics": [point("m", "NaN")]}
    api.post("runs/log-batch", run_id=run_id, **batch).raise_for_status()
    api.post("runs/update", run_id=run_id, status="FAILED", end_time=1).raise_for_status()
    run = emulator.run(run_id)
    assert (run["params"], run["metrics"][0]["value"], run["status"]) == ({"p": "1"}, "NaN", "FAILED")
    assert api.history("GET", f"/runs/{run_id}").json()["status"] == "Failed"


def test_the_experiment_must_exist(api: Api) -> None:
    """A PATCH under an unknown experiment is 404 and makes neither."""
    answer = api.history("PATCH", f"/experiments/nothing-{uuid.uuid4()}/runs/{uuid.uuid4()}", {})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "UserError"


def test_a_name_and_an_id_name_an_experiment(api: Api) -> None:
    """The place for the name takes the GUID too."""
    name = f"by-name-{uuid.uuid4()}"
    created = api.history("POST", f"/experiments/{name}").json()
    assert api.get("experiments/get-by-name", experiment_name=name).json()["experiment"]["experiment_id"]
    for place in (name, created["experimentId"]):
        answer = api.history("PATCH", f"/experiments/{place}/runs/{uuid.uuid4()}", {})
        assert answer.json()["experimentId"] == created["experimentId"]


def test_a_run_stays_in_its_experiment(api: Api, address: str) -> None:
    """The same id under another experiment is refused."""
    api.history("PATCH", address, {})
    other = api.experiment(f"other-{uuid.uuid4()}")
    answer = api.history("PATCH", f"/experimentids/{other}/runs/{id_of(address)}", {})
    assert answer.status_code == 409


@pytest.mark.parametrize("status", [404, 405])
def test_patch_can_be_refused(api: Api, address: str, emulator: EmulatorProcess, status: int) -> None:
    """A switch plays a service that does not let clients choose run ids."""
    emulator.settings(history_patch_status=status)
    assert api.history("PATCH", address, {}).status_code == status
    assert api.history("GET", f"/runs/{id_of(address)}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"status": "Nonsense"},
        {"runId": "another"},
        {"startTimeUtc": "yesterday"},
        {"tags": {"t": "x" * 1001}},
    ],
)
def test_a_refused_patch_makes_no_run(
    api: Api, address: str, emulator: EmulatorProcess, body: dict[str, object]
) -> None:
    """Nothing of a refused PATCH remains."""
    assert api.history("PATCH", address, body).status_code == 400
    assert id_of(address) not in [run["run_id"] for run in emulator.runs()]


def test_a_batch_of_runs(api: Api, experiment_id: str) -> None:
    """Each run for itself: the good one is made, the bad one is named."""
    good, bad = str(uuid.uuid4()), str(uuid.uuid4())
    runs = [{"runId": good}, {"runId": bad, "status": "Nonsense"}]
    answer = api.history("PATCH", f"/experimentids/{experiment_id}/batch/runs", {"runs": runs}).json()
    assert list(answer["runs"]) == [good]
    assert list(answer["errors"]) == [bad]


def test_events_move_the_run(api: Api, address: str, emulator: EmulatorProcess) -> None:
    """Start, heartbeat, completed: status and times follow, and every status is kept."""
    api.history("PATCH", address, {})
    for name, data in (
        ("Start", {"StartTime": "2026-01-01T00:00:00Z"}),
        ("Heartbeat", {"TimeToLiveSeconds": 5}),
        ("Completed", {"EndTime": "2026-01-01T00:00:01Z"}),
    ):
        event = {"name": f"Microsoft.MachineLearning.Run.{name}", "data": data}
        api.history("POST", f"{address}/events", event).raise_for_status()
    run = emulator.run(id_of(address))
    assert [change["history_status"] for change in run["status_changes"]] == [
        "NotStarted",
        "Running",
        "Completed",
    ]
    assert run["end_time"] - run["start_time"] == 1000
    assert len(run["events"]) == 3


def test_metric_tables(api: Api, address: str, emulator: EmulatorProcess) -> None:
    """A row of several columns is kept for Run History's readers and does not show in MLflow."""
    api.history("PATCH", address, {})
    value = {"metricId": "1", "createdUtc": "2026-01-01T00:00:00Z", "step": None, "data": {"x": 1, "y": "a"}}
    metric = {"name": "table", "columns": {"x": "Int", "y": "String"}, "value": [value]}
    for _ in range(2):
        api.history("POST", f"{address}/batch/metrics", {"values": [metric]}).raise_for_status()
    full = api.metric(f"/runs/{id_of(address)}/full", {"metricName": "table"}).json()
    assert [row["data"] for row in full["value"]] == [{"x": 1, "y": "a"}] * 2
    assert api.get("runs/get", run_id=id_of(address)).json()["run"]["data"]["metrics"] == []
    assert len(emulator.run(id_of(address))["metrics"]) == 2


def test_properties_are_written_once(api: Api, address: str) -> None:
    """The same value again is fine, another is refused."""
    api.history("PATCH", address, {"properties": {"p": "1"}})
    assert api.history("PATCH", address, {"properties": {"p": "1"}}).status_code == 200
    assert api.history("PATCH", address, {"properties": {"p": "2"}}).status_code == 400


def test_hidden_is_deleted(api: Api, address: str) -> None:
    """Archiving a run is what MLflow calls deleting it."""
    api.history("PATCH", address, {})
    api.history("PATCH", address, {"hidden": True})
    run = api.get("runs/get", run_id=id_of(address)).json()["run"]
    assert run["info"]["lifecycle_stage"] == "deleted"


def test_a_run_token_opens_the_data_plane_only(api: Api, run_id: str) -> None:
    """It is good for MLflow and Run History, not for ARM."""
    token = api.history("GET", f"/runs/{run_id}/token").json()["token"]
    api.http.headers["Authorization"] = f"Bearer {token}"
    assert api.get("runs/get", run_id=run_id).status_code == 200
    arm = api.http.get(api.emulator.tracking_uri.partition("/mlflow/v1.0")[2])
    assert arm.status_code == 401
