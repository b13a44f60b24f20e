"""runs/*: the life of a run, its inputs and outputs, and the search for runs."""

import json

import pytest

from tests.support.tracking import Json, Tracking

pytestmark = pytest.mark.asyncio(loop_scope="session")

_NOBODY = "f" * 32
_DOES_NOT_EXIST = (404, "RESOURCE_DOES_NOT_EXIST")
_INVALID = (400, "INVALID_PARAMETER_VALUE")
_MORE_THAN_A_SLICE = 260
_DATASET = {"name": "d", "digest": "abc", "source_type": "local", "source": "{}"}
_MODEL = json.dumps({"artifact_path": "m", "flavors": {}, "utc_time_created": "t", "run_id": "r"})


async def test_a_new_run_is_what_it_was_asked_to_be(tracking: Tracking) -> None:
    """A run's info and tags are there at once, under both names of its id."""
    experiment_id = await tracking.experiment()
    tags = [{"key": "a", "value": "1"}]
    made = await tracking.post(
        "runs/create",
        experiment_id=experiment_id,
        run_name="älg",
        user_id="ann",
        start_time=123,
        tags=tags,
    )
    run_id = made["run"]["info"]["run_id"]
    found = (await tracking.get("runs/get", run_id=run_id))["run"]
    assert found["info"] == {
        "run_id": run_id,
        "run_uuid": run_id,
        "run_name": "älg",
        "experiment_id": experiment_id,
        "user_id": "ann",
        "status": "RUNNING",
        "start_time": 123,
        "artifact_uri": f"mlflow-artifacts:/{experiment_id}/{run_id}/artifacts",
        "lifecycle_stage": "active",
    }
    assert sorted(found["data"]["tags"], key=lambda tag: tag["key"]) == [
        {"key": "a", "value": "1"},
        {"key": "mlflow.runName", "value": "älg"},
    ]
    assert made["run"]["info"] == found["info"]


async def test_a_run_without_a_name_gets_one(tracking: Tracking) -> None:
    """The name made up is the run's name and its runName tag."""
    run = (await tracking.post("runs/create", start_time=1))["run"]
    name = run["info"]["run_name"]
    assert name
    assert run["data"]["tags"] == [{"key": "mlflow.runName", "value": name}]


async def test_a_run_can_be_created_with_a_tag_of_any_characters(tracking: Tracking) -> None:
    """`runs/create` does not judge the characters of tag keys, as a stock server does not."""
    run_id = await tracking.run(tags=[{"key": "my@tag*", "value": "1"}])
    assert (await tracking.data(run_id))[2]["my@tag*"] == "1"


async def test_two_different_names_for_a_run_are_refused(tracking: Tracking) -> None:
    """A run_name that contradicts the runName tag is refused."""
    refusal = await tracking.refusal(
        "POST", "runs/create", {"run_name": "a", "tags": [{"key": "mlflow.runName", "value": "b"}]}
    )
    assert refusal[:2] == _INVALID
    assert refusal[2].startswith("Both 'run_name' argument and 'mlflow.runName' tag are specified")


@pytest.mark.parametrize("status", ["FINISHED", 3, "3"])
async def test_a_run_ends_with_status_and_time(tracking: Tracking, status: str | int) -> None:
    """A status works by its name and by its protobuf number."""
    run_id = await tracking.run()
    answer = await tracking.post("runs/update", run_id=run_id, status=status, end_time="456")
    assert answer["run_info"]["status"] == "FINISHED"
    assert answer["run_info"]["end_time"] == 456
    assert (await tracking.get("runs/get", run_id=run_id))["run"]["info"] == answer["run_info"]


async def test_an_update_changes_only_what_it_names(tracking: Tracking) -> None:
    """An empty update leaves a run as it is, and an empty name is no name."""
    run_id = await tracking.run(run_name="before")
    first = await tracking.post("runs/update", run_id=run_id, status="FAILED", end_time=9)
    second = await tracking.post("runs/update", run_id=run_id, run_name="")
    assert second == first


async def test_renaming_changes_the_tag_and_the_tag_changes_the_name(tracking: Tracking) -> None:
    """A run's name and its runName tag are one thing."""
    run_id = await tracking.run(run_name="a")
    await tracking.post("runs/update", run_id=run_id, run_name="b")
    tag = (await tracking.data(run_id))[2]["mlflow.runName"]
    await tracking.post("runs/set-tag", run_id=run_id, key="mlflow.runName", value="c")
    name = (await tracking.get("runs/get", run_id=run_id))["run"]["info"]["run_name"]
    assert (tag, name) == ("b", "c")


async def test_an_unknown_status_is_refused(tracking: Tracking) -> None:
    """A status that does not exist is not silently dropped."""
    run_id = await tracking.run()
    status, code, message = await tracking.refusal("POST", "runs/update", {"run_id": run_id, "status": "X"})
    assert (status, code) == _INVALID
    assert message.startswith("Invalid value \"X\" for parameter 'status' supplied")


async def test_a_run_is_deleted_and_restored_as_often_as_one_likes(tracking: Tracking) -> None:
    """Deleting what is deleted and restoring what is active change nothing."""
    run_id = await tracking.run()
    stages = []
    for route in ("delete", "delete", "restore", "restore"):
        await tracking.post(f"runs/{route}", run_id=run_id)
        stages.append((await tracking.get("runs/get", run_id=run_id))["run"]["info"]["lifecycle_stage"])
    assert stages == ["deleted", "deleted", "active", "active"]


@pytest.mark.parametrize(
    ("route", "fields"),
    [
        ("log-metric", {"key": "m", "value": 1, "timestamp": 1}),
        ("log-parameter", {"key": "p", "value": "1"}),
        ("set-tag", {"key": "t", "value": "1"}),
        ("delete-tag", {"key": "mlflow.runName"}),
        ("log-batch", {"params": [{"key": "p", "value": "1"}]}),
        ("log-inputs", {"datasets": [{"dataset": _DATASET}]}),
        ("log-model", {"model_json": _MODEL}),
        ("outputs", {"models": [{"model_id": "m-1", "step": 0}]}),
        ("update", {"status": "FINISHED"}),
    ],
)
async def test_a_deleted_run_refuses_changes_and_an_unknown_one_does_not_exist(
    tracking: Tracking, route: str, fields: dict[str, object]
) -> None:
    """Every write names the state of the run, or that there is none, in MLflow's words."""
    run_id = await tracking.run()
    await tracking.post("runs/delete", run_id=run_id)
    refused = await tracking.refusal("POST", f"runs/{route}", {"run_id": run_id, **fields})
    unknown = await tracking.refusal("POST", f"runs/{route}", {"run_id": _NOBODY, **fields})
    assert refused == (
        *_INVALID,
        f"The run {run_id} must be in the 'active' state. Current state is deleted.",
    )
    assert unknown == (*_DOES_NOT_EXIST, f"Run with id={_NOBODY} not found")


@pytest.mark.parametrize("route", ["delete", "restore"])
async def test_an_unknown_run_cannot_be_deleted_or_restored(tracking: Tracking, route: str) -> None:
    """Deleting and restoring name a run that exists."""
    refusal = await tracking.refusal("POST", f"runs/{route}", {"run_id": _NOBODY})
    assert refusal == (*_DOES_NOT_EXIST, f"Run with id={_NOBODY} not found")


@pytest.mark.parametrize(
    "route",
    [
        "log-metric",
        "log-parameter",
        "set-tag",
        "delete-tag",
        "log-batch",
        "log-inputs",
        "log-model",
        "outputs",
        "update",
        "delete",
        "restore",
    ],
)
async def test_a_write_without_a_run_says_so_first(tracking: Tracking, route: str) -> None:
    """The run's id is what MLflow asks for first."""
    status, code, message = await tracking.refusal("POST", f"runs/{route}", {})
    assert (status, code) == _INVALID
    assert message.startswith("Missing value for required parameter 'run_id'.")


async def test_two_names_for_different_runs_are_refused(tracking: Tracking) -> None:
    """A run_uuid that contradicts the run_id cannot smuggle a write into another run."""
    one, other = await tracking.run(), await tracking.run()
    fields = {"run_id": one, "run_uuid": other, "key": "t", "value": "1"}
    assert (await tracking.refusal("POST", "runs/set-tag", fields))[:2] == _INVALID


async def test_clients_of_1x_may_name_the_run_by_run_uuid(tracking: Tracking) -> None:
    """`run_uuid` alone names the run, under the preview prefix too."""
    run_id = await tracking.run()
    prefix = "/api/2.0/preview/mlflow"
    await tracking.post(f"{prefix}/runs/log-metric", run_uuid=run_id, key="m", value=2, timestamp=1)
    found = await tracking.get(f"{prefix}/runs/get", run_uuid=run_id)
    assert found["run"]["data"]["metrics"][0]["value"] == 2


async def test_inputs_and_outputs_of_a_run_are_shown_with_it(tracking: Tracking) -> None:
    """Datasets with the tags of their use, and models in both directions, come back with the run."""
    run_id = await tracking.run()
    tags = [{"key": "mlflow.data.context", "value": "train"}]
    dataset = {**_DATASET, "schema": "s", "profile": "p"}
    await tracking.post(
        "runs/log-inputs",
        run_id=run_id,
        datasets=[{"dataset": dataset, "tags": tags}],
        models=[{"model_id": "m-in"}],
    )
    await tracking.post("runs/outputs", run_id=run_id, models=[{"model_id": "m-out", "step": "3"}])
    run = (await tracking.get("runs/get", run_id=run_id))["run"]
    assert run["inputs"] == {
        "dataset_inputs": [{"tags": tags, "dataset": dataset}],
        "model_inputs": [{"model_id": "m-in"}],
    }
    assert run["outputs"] == {"model_outputs": [{"model_id": "m-out", "step": 3}]}


async def test_logging_a_dataset_twice_keeps_it_once(tracking: Tracking) -> None:
    """A dataset is the same by name and digest."""
    run_id = await tracking.run()
    for _ in range(2):
        await tracking.post("runs/log-inputs", run_id=run_id, datasets=[{"dataset": _DATASET}])
    inputs = (await tracking.get("runs/get", run_id=run_id))["run"]["inputs"]["dataset_inputs"]
    assert len(inputs) == 1


async def test_the_datasets_of_an_experiment_can_be_searched(tracking: Tracking) -> None:
    """search-datasets lists each dataset with the context it was used in."""
    experiment_id = await tracking.experiment()
    run_id = await tracking.run(experiment_id=experiment_id)
    tags = [{"key": "mlflow.data.context", "value": "train"}]
    await tracking.post("runs/log-inputs", run_id=run_id, datasets=[{"dataset": _DATASET, "tags": tags}])
    answer = await tracking.post(
        "/ajax-api/2.0/mlflow/experiments/search-datasets", experiment_ids=[experiment_id]
    )
    assert answer["dataset_summaries"] == [
        {"experiment_id": experiment_id, "name": "d", "digest": "abc", "context": "train"}
    ]


async def test_each_logged_model_is_added_to_the_history_tag(tracking: Tracking) -> None:
    """log-model appends, as clients before 3.0 expect."""
    run_id = await tracking.run()
    for model in (_MODEL, _MODEL.replace('"t"', '"later"')):
        await tracking.post("runs/log-model", run_id=run_id, model_json=model)
        # The same once more is a client that lost the answer.
        await tracking.post("runs/log-model", run_id=run_id, model_json=model)
    history = json.loads((await tracking.data(run_id))[2]["mlflow.log-model.history"])
    assert [model["artifact_path"] for model in history] == ["m", "m"]


@pytest.mark.parametrize("history", ["not json", "{}", "5"])
async def test_a_history_tag_that_a_client_spoilt_does_not_break_log_model(
    tracking: Tracking, history: str
) -> None:
    """A tag that is no list is started anew or refused, never a server error."""
    run_id = await tracking.run()
    await tracking.post("runs/set-tag", run_id=run_id, key="mlflow.log-model.history", value=history)
    answer = await tracking.send("POST", "runs/log-model", {"run_id": run_id, "model_json": _MODEL})
    assert answer.status_code in (200, 400)


@pytest.mark.parametrize(
    ("route", "fields", "message"),
    [
        ("log-model", {}, "Missing value for required parameter 'model_json'."),
        ("log-model", {"model_json": "x"}, "Malformed model info. \n x \n is not a valid JSON."),
        ("log-model", {"model_json": "[]"}, "Malformed model info."),
        ("log-model", {"model_json": "{}"}, "Model json is missing mandatory fields: "),
        ("log-inputs", {"datasets": "x"}, "Invalid value \"x\" for parameter 'datasets' supplied:  Hint:"),
        ("log-inputs", {"datasets": [{}]}, "Missing value for required parameter 'datasets[0].dataset'."),
        (
            "log-inputs",
            {"datasets": [{"dataset": {**_DATASET, "name": "n" * 501}}]},
            "'name' exceeds the maximum length of 500 characters",
        ),
        (
            "log-inputs",
            {"datasets": [{"dataset": {**_DATASET, "digest": "n" * 37}}]},
            "'digest' exceeds the maximum length of 36 characters",
        ),
        ("outputs", {"models": [{}]}, "Missing value for required parameter 'models[0].model_id'."),
    ],
)
async def test_what_cannot_be_an_input_or_a_model_is_refused(
    tracking: Tracking, route: str, fields: dict[str, object], message: str
) -> None:
    """The refusal names the field."""
    refusal = await tracking.refusal("POST", f"runs/{route}", {"run_id": await tracking.run(), **fields})
    assert refusal[:2] == _INVALID
    assert refusal[2].startswith(message)


async def test_search_filters_orders_and_pages_runs(tracking: Tracking) -> None:
    """The pages of a filtered, ordered search hold every run once, in order."""
    experiment_id = await tracking.experiment()
    wanted = []
    for number in range(6):
        run_id = await tracking.run(experiment_id=experiment_id)
        await tracking.post("runs/log-metric", run_id=run_id, key="m", value=number, timestamp=1)
        await tracking.post("runs/log-parameter", run_id=run_id, key="p", value=str(number % 2))
        if number % 2:
            wanted.append(run_id)
    found: list[str] = []
    token = None
    for _ in range(2):
        page = await tracking.post(
            "runs/search",
            experiment_ids=[experiment_id],
            filter="params.p = '1' AND metrics.m >= 0",
            order_by=["metrics.m DESC"],
            max_results=2,
            page_token=token,
        )
        found += [run["info"]["run_id"] for run in page["runs"]]
        token = page.get("next_page_token")
    assert found == wanted[::-1]
    assert token is None


async def test_a_large_page_holds_what_small_ones_hold(tracking: Tracking) -> None:
    """A page of more runs than are read at a time holds each with its data, in the order of small pages."""
    experiment_id = await tracking.experiment()
    run_ids = [
        await tracking.run(experiment_id=experiment_id, tags=[{"key": "number", "value": str(number)}])
        for number in range(_MORE_THAN_A_SLICE)
    ]
    for number, run_id in enumerate(run_ids[:40]):
        metrics = [
            {"key": f"m{k}", "value": number + k, "timestamp": 1, "step": 0} for k in range(number % 3)
        ]
        params = [{"key": "p", "value": f"of run {number}"}]
        await tracking.post("runs/log-batch", run_id=run_id, metrics=metrics, params=params)
    asked = {"experiment_ids": [experiment_id], "order_by": ["tags.number DESC"]}
    small: list[Json] = []
    token = None
    while len(small) < len(run_ids):
        page = await tracking.post("runs/search", **asked, max_results=20, page_token=token)
        small += page["runs"]
        token = page.get("next_page_token")
    assert token is None
    large = await tracking.post("runs/search", **asked, max_results=1000)
    assert large == {"runs": small}
    assert {run["info"]["run_id"] for run in small} == set(run_ids)
    shown = {run["info"]["run_id"]: run["data"] for run in small}
    assert shown[run_ids[5]]["params"] == [{"key": "p", "value": "of run 5"}]
    assert [metric["value"] for metric in shown[run_ids[5]]["metrics"]] == [5, 6]


@pytest.mark.parametrize(
    ("view", "expected"),
    [(None, {"a"}), ("ACTIVE_ONLY", {"a"}), ("DELETED_ONLY", {"d"}), ("ALL", {"a", "d"}), (2, {"d"})],
)
async def test_search_shows_runs_of_the_stages_asked_for(
    tracking: Tracking, view: str | int | None, expected: set[str]
) -> None:
    """A view type works by its name and by its protobuf number; active runs are the default."""
    experiment_id = await tracking.experiment()
    await tracking.run(experiment_id=experiment_id, run_name="a")
    deleted = await tracking.run(experiment_id=experiment_id, run_name="d")
    await tracking.post("runs/delete", run_id=deleted)
    answer = await tracking.post("runs/search", experiment_ids=[experiment_id], run_view_type=view)
    assert {run["info"]["run_name"] for run in answer["runs"]} == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_results": 0}, "Invalid value 0 for parameter 'max_results' supplied. It must be a positive"),
        ({"max_results": 50_001}, "Invalid value"),
        ({"max_results": "x"}, "Invalid value \"x\" for parameter 'max_results' supplied:  Hint: Value was"),
        ({"filter": "zzz = 1"}, "Invalid attribute key 'zzz' specified. Valid keys are"),
        ({"filter": "metrics.a ~ 1"}, "Invalid comparator '~' not one of"),
        ({"order_by": ["metrics.a sideways"]}, "Invalid"),
        ({"page_token": "!"}, "Invalid page token, "),
        ({"experiment_ids": ["abc"]}, "Invalid experiment ID 'abc'. Experiment ID must be a valid integer."),
        ({"experiment_ids": "0"}, "Invalid value \"0\" for parameter 'experiment_ids' supplied:  Hint:"),
    ],
)
async def test_a_search_that_makes_no_sense_is_refused(
    tracking: Tracking, fields: dict[str, object], message: str
) -> None:
    """The refusal begins as a stock server's (observed on 3.17.2)."""
    refusal = await tracking.refusal("POST", "runs/search", {"experiment_ids": ["0"], **fields})
    assert refusal[:2] == _INVALID
    assert refusal[2].startswith(message)


async def test_a_search_in_no_experiment_finds_nothing(tracking: Tracking) -> None:
    """An empty list of experiments is not a list of all."""
    await tracking.run()
    assert await tracking.post("runs/search", experiment_ids=[]) == {}
