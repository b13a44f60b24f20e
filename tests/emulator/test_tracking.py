"""The MLflow facade: what it stores, what it refuses, and in which words."""

import time
import uuid

import pytest
from api import Api, message_of, point

from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess


def test_duplicates_are_kept(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """The same point twice is two rows, in order of arrival."""
    for _ in range(2):
        api.post("runs/log-batch", run_id=run_id, metrics=[point("m", 1.0)]).raise_for_status()
    rows = emulator.run(run_id)["metrics"]
    assert [(row["key"], row["value"]) for row in rows] == [("m", 1.0), ("m", 1.0)]
    assert rows[0]["seq"] < rows[1]["seq"]
    history = api.get("metrics/get-history", run_id=run_id, metric_key="m").json()["metrics"]
    assert len(history) == 2


def test_a_second_create_is_a_second_run(api: Api, experiment_id: str, emulator: EmulatorProcess) -> None:
    """`runs/create` has no id to be recognised by: sent twice, it makes two runs."""
    first, second = api.run(experiment_id), api.run(experiment_id)
    assert first != second
    assert uuid.UUID(first)
    assert sum(run["experiment_id"] == experiment_id for run in emulator.runs()) == 2


def test_the_latest_value_has_the_highest_step(api: Api, run_id: str) -> None:
    """Step decides, then timestamp, whatever arrived last."""
    points = [point("m", 5, 10, 2), point("m", 9, 99, 1), point("m", 7, 9, 2), point("m", 6, 10, 2)]
    api.post("runs/log-batch", run_id=run_id, metrics=points)
    (latest,) = api.get("runs/get", run_id=run_id).json()["run"]["data"]["metrics"]
    assert (latest["value"], latest["step"]) == (6, 2)


def test_a_refused_batch_leaves_nothing(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """A changed param refuses the whole batch, its metrics too."""
    api.post("runs/log-parameter", run_id=run_id, key="p", value="1")
    api.post("runs/log-parameter", run_id=run_id, key="p", value="1").raise_for_status()
    batch = {"params": [{"key": "p", "value": "2"}], "metrics": [point("m")]}
    answer = api.post("runs/log-batch", run_id=run_id, **batch)
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert emulator.run(run_id)["metrics"] == []


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"metrics": [point("m", step=n) for n in range(251)]}, "Value/Count, Limit=250, Size=251"),
        ({"metrics": [point(f"m{n % 5}", step=n) for n in range(1001)]}, "1000 metrics. Got 1001 metrics"),
        ({"params": [{"key": f"p{n}", "value": "1"} for n in range(101)]}, "100 params. Got 101 params"),
        ({"tags": [{"key": f"t{n}", "value": "1"} for n in range(101)]}, "at most 100 tags. Got 101 tags"),
        ({"tags": [{"key": "t", "value": "x" * 1001}]}, "FieldName=TagValue, Limit=1000, Size=1001"),
        ({"tags": [{"key": f"t{n}", "value": "1"} for n in range(51)]}, "FieldName=Tags, Limit=50, Size=51"),
        ({"metrics": [point(f"m{n}") for n in range(51)]}, "FieldName=MetricNames, Limit=50, Size=51"),
    ],
)  # fmt: skip
def test_limits(api: Api, run_id: str, batch: dict[str, object], words: str) -> None:
    """One more than the limit is refused with the field, the limit and the size."""
    answer = api.post("runs/log-batch", run_id=run_id, **batch)
    assert answer.status_code == 400
    assert words in message_of(answer)


def test_params_per_run(api: Api, run_id: str) -> None:
    """The 201st param is refused, in a later batch too; those that are there may be sent again."""
    for start in (0, 100):
        params = [{"key": f"p{n}", "value": "1"} for n in range(start, start + 100)]
        api.post("runs/log-batch", run_id=run_id, params=params).raise_for_status()
    refused = api.post("runs/log-parameter", run_id=run_id, key="one more", value="1")
    assert "FieldName=Parameters, Limit=200, Size=201" in message_of(refused)
    assert refused.json()["Error"]["Code"] == "ValidationError"
    assert api.post("runs/log-parameter", run_id=run_id, key="p0", value="1").status_code == 200


def test_a_limit_can_be_changed(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """Limits are data."""
    emulator.settings(limits={"batch_rows_per_metric": 1})
    metrics = [point("m", step=0), point("m", step=1)]
    assert "Limit=1, Size=2" in message_of(api.post("runs/log-batch", run_id=run_id, metrics=metrics))


def test_history_pages(api: Api, run_id: str) -> None:
    """Pages of less than 1000 rows join to the whole; 1000 are refused in the service's words."""
    for start in range(0, 500, 250):
        metrics = [point("m", float(step), step=step) for step in range(start, start + 250)]
        api.post("runs/log-batch", run_id=run_id, metrics=metrics).raise_for_status()
    refused = api.get("metrics/get-history", run_id=run_id, metric_key="m", max_results=1000)
    assert message_of(refused) == "MaxResults = 1000 is invalid: MaxResults must be less than 1000"
    values, token = [], ""
    while token is not None:
        page = {"max_results": 180, "page_token": token}
        answer = api.get("metrics/get-history", run_id=run_id, metric_key="m", **page).json()
        values += [found["value"] for found in answer["metrics"]]
        token = answer.get("next_page_token")
    assert values == [float(step) for step in range(500)]


@pytest.mark.parametrize(
    "filter_string",
    [
        "params.a = '1' OR params.b = '2'",
        "tags.t != 'v'",
        "metrics.`odd name` > 1",
        "attributes.start_time > 5",
        "params.a > '1'",
        "nonsense",
        "params.a = '1' params.b = '2'",
    ],
)
def test_refused_filters(api: Api, experiment_id: str, filter_string: str) -> None:
    """What the service's search does not take is refused, not ignored."""
    answer = api.post("runs/search", experiment_ids=[experiment_id], filter=filter_string)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("filter_string", "count"),
    [
        ("", 2),
        ("params.a = '1'", 1),
        ("params.a LIKE '%' and metrics.m >= 2", 1),
        ("tags.t = 'it''s AND OR'", 1),
        ("tags.`mlflow.runName` = 'two'", 1),
        ("attributes.status = 'RUNNING' AND attributes.run_name != 'two'", 1),
        ("attributes.start_time >= '200'", 1),
        ("attributes.run_id IN ('{one}', '{two}')", 2),
    ],
)
def test_filters(api: Api, experiment_id: str, filter_string: str, count: int) -> None:
    """Conditions joined with AND on attributes, params, metrics and tags."""
    one = api.run(experiment_id, start_time=100, tags=[{"key": "t", "value": "it's AND OR"}])
    two = api.run(experiment_id, start_time=200, run_name="two")
    api.post("runs/log-batch", run_id=one, params=[{"key": "a", "value": "1"}], metrics=[point("m", 1)])
    api.post("runs/log-batch", run_id=two, params=[{"key": "a", "value": "2"}], metrics=[point("m", 2)])
    text = filter_string.format(one=one, two=two)
    answer = api.post("runs/search", experiment_ids=[experiment_id], filter=text)
    assert len(answer.json()["runs"]) == count, answer.text


def test_search_pages_newest_first(api: Api, experiment_id: str) -> None:
    """Without an order the newest start comes first; tokens lead through all pages."""
    made = [api.run(experiment_id, start_time=start) for start in (100, 300, 200)]
    found, token = [], None
    while True:
        body = {"experiment_ids": [experiment_id], "max_results": 2}
        answer = api.post("runs/search", **body, **({"page_token": token} if token else {})).json()
        found += [run["info"]["run_id"] for run in answer["runs"]]
        token = answer.get("next_page_token")
        if token is None:
            break
    assert found == [made[1], made[2], made[0]]


def test_a_name_with_a_slash_is_lost(api: Api) -> None:
    """Create takes it; no name lookup and no search finds it again."""
    name = f"/Users/me/{uuid.uuid4()}"
    experiment_id = api.experiment(name)
    lookup = api.get("experiments/get-by-name", experiment_name=name)
    assert (lookup.status_code, lookup.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    found = api.post("experiments/search", max_results=1000, view_type="ALL").json()["experiments"]
    assert experiment_id not in [experiment["experiment_id"] for experiment in found]
    assert api.get("experiments/get", experiment_id=experiment_id).json()["experiment"]["name"] == name


def test_an_experiment_name_is_unique(api: Api) -> None:
    """A second create is refused as existing, also after a delete."""
    name = f"experiment-{uuid.uuid4()}"
    experiment_id = api.experiment(name)
    api.post("experiments/delete", experiment_id=experiment_id)
    refused = api.post("experiments/create", name=name)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")
    assert api.post("runs/create", experiment_id=experiment_id).status_code == 400
    api.post("experiments/restore", experiment_id=experiment_id)
    assert api.post("runs/create", experiment_id=experiment_id).status_code == 200


def test_a_deleted_run_takes_no_writes(api: Api, run_id: str) -> None:
    """Until it is restored."""
    api.post("runs/delete", run_id=run_id)
    refused = api.post("runs/log-metric", run_id=run_id, **point("m"))
    assert "must be in the 'active' state" in message_of(refused)
    api.post("runs/restore", run_id=run_id)
    assert api.post("runs/log-metric", run_id=run_id, **point("m")).status_code == 200


def test_a_finished_run_takes_writes_and_shows_their_order(
    api: Api, run_id: str, emulator: EmulatorProcess
) -> None:
    """`seq` tells whether a write came before or after the terminal status."""
    api.post("runs/log-metric", run_id=run_id, **point("before"))
    api.post("runs/update", run_id=run_id, status="FINISHED", end_time=9)
    api.post("runs/log-metric", run_id=run_id, **point("after"))
    run = emulator.run(run_id)
    before, after = (row["seq"] for row in run["metrics"])
    assert before < run["seq_of_terminal"] < after
    assert run["end_time"] == 9


def test_missing_things(api: Api) -> None:
    """Unknown ids are 404 RESOURCE_DOES_NOT_EXIST."""
    for answer in (
        api.get("runs/get", run_id="nothing"),
        api.get("experiments/get", experiment_id="nothing"),
        api.get("registered-models/get", name="nothing"),
        api.get("model-versions/get", name="nothing", version="1"),
        api.post("runs/log-metric", run_id="nothing", **point("m")),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize(
    "path",
    [
        "2.0/mlflow/logged-models",
        "2.0/mlflow/logged-models/search",
        "3.0/mlflow/traces",
        "2.0/mlflow/nothing",
    ],
)
def test_what_the_service_does_not_have(api: Api, path: str) -> None:
    """Logged models, traces and unknown routes: 404 with an empty body."""
    answer = api.http.post(f"/mlflow/v2.0{WORKSPACE_PATH}/api/{path}", json={})
    assert (answer.status_code, answer.content) == (404, b"")


def test_aliases_can_be_switched_on(api: Api, emulator: EmulatorProcess) -> None:
    """Off by default with an empty 404; on, they point at a version."""
    name = f"model-{uuid.uuid4()}"
    api.post("registered-models/create", name=name)
    api.post("model-versions/create", name=name, source="azureml://artifacts/x/y/z")
    alias = {"name": name, "alias": "champ"}
    off = api.post("registered-models/alias", **alias, version="1")
    assert (off.status_code, off.content) == (404, b"")
    emulator.settings(accepts_aliases=True)
    api.post("registered-models/alias", **alias, version="1").raise_for_status()
    found = api.get("registered-models/alias", **alias).json()["model_version"]
    assert found["version"] == "1"


def test_inputs_can_be_switched_on(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """Off by default; on, datasets come back with the run."""
    dataset = {"dataset": {"name": "d", "digest": "1", "source_type": "local", "source": "{}"}, "tags": []}
    off = api.post("runs/log-inputs", run_id=run_id, datasets=[dataset])
    assert (off.status_code, off.content) == (404, b"")
    emulator.settings(accepts_log_inputs=True)
    api.post("runs/log-inputs", run_id=run_id, datasets=[dataset]).raise_for_status()
    assert api.get("runs/get", run_id=run_id).json()["run"]["inputs"]["dataset_inputs"] == [dataset]
    assert emulator.run(run_id)["inputs"] == [dataset]


def test_search_lags_when_told(api: Api, experiment_id: str, emulator: EmulatorProcess) -> None:
    """A new run is there at once by id and only later in a search."""
    emulator.settings(search_lag_seconds=600)
    run_id = api.run(experiment_id)
    assert api.get("runs/get", run_id=run_id).status_code == 200
    assert api.post("runs/search", experiment_ids=[experiment_id]).json()["runs"] == []
    emulator.settings(search_lag_seconds=0.01)
    time.sleep(0.02)
    assert len(api.post("runs/search", experiment_ids=[experiment_id]).json()["runs"]) == 1


def test_points_lag_when_told(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """A new point is stored at once and only later in the history of its metric."""
    emulator.settings(metric_lag_seconds=600)
    api.post("runs/log-batch", run_id=run_id, metrics=[point("m")]).raise_for_status()
    assert api.get("metrics/get-history", run_id=run_id, metric_key="m").json()["metrics"] == []
    assert len(emulator.run(run_id)["metrics"]) == 1
    emulator.settings(metric_lag_seconds=0.01)
    time.sleep(0.02)
    assert len(api.get("metrics/get-history", run_id=run_id, metric_key="m").json()["metrics"]) == 1


def test_an_asynchronous_batch_ends_when_told(api: Api, run_id: str, emulator: EmulatorProcess) -> None:
    """The tracking id says whether the batch is done; params alone get none."""
    prefix = f"/mlflow/v2.0{WORKSPACE_PATH}/api/2.0/preview/mlflow/runs"
    emulator.settings(async_lag_seconds=60.0)
    answer = api.http.post(f"{prefix}/log-batch-async", json={"run_id": run_id, "metrics": [point("m")]})
    query = {"run_id": run_id, **answer.json()}
    assert api.http.get(f"{prefix}/get-run-data-status", params=query).json() == {"is_complete": False}
    emulator.settings(async_lag_seconds=0.0)
    assert api.http.get(f"{prefix}/get-run-data-status", params=query).json() == {"is_complete": True}
    params = {"run_id": run_id, "params": [{"key": "p", "value": "1"}]}
    assert api.http.post(f"{prefix}/log-batch-async", json=params).json() == {}


def test_version_1_of_the_facade(api: Api, run_id: str) -> None:
    """`/mlflow/v1.0` serves the same workspace."""
    path = f"/mlflow/v1.0{WORKSPACE_PATH}/api/2.0/mlflow/runs/get"
    assert api.http.get(path, params={"run_id": run_id}).json()["run"]["info"]["run_id"] == run_id
