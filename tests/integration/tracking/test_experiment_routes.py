"""experiments/*: create, find, search, rename, delete, restore, tag."""

from uuid import uuid4

import pytest

from tests.support.tracking import Tracking

pytestmark = pytest.mark.asyncio(loop_scope="session")

_DOES_NOT_EXIST = (404, "RESOURCE_DOES_NOT_EXIST")
_INVALID = (400, "INVALID_PARAMETER_VALUE")


async def test_a_new_experiment_is_active_and_keeps_its_tags(tracking: Tracking) -> None:
    """An experiment is found by its id as it was created."""
    name = f"exp {uuid4().hex}"
    experiment_id = await tracking.experiment(name=name, tags=[{"key": "team", "value": "blå"}])
    experiment = (await tracking.get("experiments/get", experiment_id=experiment_id))["experiment"]
    assert experiment["name"] == name
    assert experiment["lifecycle_stage"] == "active"
    assert experiment["artifact_location"] == f"mlflow-artifacts:/{experiment_id}"
    assert experiment["tags"] == [{"key": "team", "value": "blå"}]
    assert experiment["creation_time"] == experiment["last_update_time"] > 0


async def test_the_default_experiment_is_there_from_the_start(tracking: Tracking) -> None:
    """Experiment 0 is named Default."""
    found = await tracking.get("experiments/get-by-name", experiment_name="Default")
    assert found["experiment"]["experiment_id"] == "0"


async def test_a_name_is_taken_even_by_a_deleted_experiment(tracking: Tracking) -> None:
    """Creating an experiment under the name of a deleted one is refused as on a stock server."""
    name = f"exp {uuid4().hex}"
    experiment_id = await tracking.experiment(name=name)
    await tracking.post("experiments/delete", experiment_id=experiment_id)
    status, code, message = await tracking.refusal("POST", "experiments/create", {"name": name})
    assert (status, code) == (400, "RESOURCE_ALREADY_EXISTS")
    assert name in message


async def test_get_by_name_shows_deleted_experiments(tracking: Tracking) -> None:
    """A client learns from get-by-name that its experiment is deleted (`set_experiment` relies on it)."""
    name = f"exp {uuid4().hex}"
    await tracking.post("experiments/delete", experiment_id=await tracking.experiment(name=name))
    found = await tracking.get("experiments/get-by-name", experiment_name=name)
    assert found["experiment"]["lifecycle_stage"] == "deleted"


async def test_renaming_frees_the_old_name(tracking: Tracking) -> None:
    """After a rename the experiment answers to its new name only, and the old one can be used again."""
    old, new = f"old {uuid4().hex}", f"new {uuid4().hex}"
    experiment_id = await tracking.experiment(name=old)
    await tracking.post("experiments/update", experiment_id=experiment_id, new_name=new)
    assert (await tracking.get("experiments/get-by-name", experiment_name=new))["experiment"][
        "experiment_id"
    ] == experiment_id
    assert await tracking.experiment(name=old) != experiment_id


async def test_an_experiment_created_under_a_freed_name_has_another_name_in_the_workspace(
    tracking: Tracking,
) -> None:
    """Two experiments never share an upstream name, whatever they were renamed from and to."""
    name = f"exp-{uuid4().hex}"
    first = await tracking.experiment(name=name)
    await tracking.post("experiments/update", experiment_id=first, new_name=f"{name}-old")
    second = await tracking.experiment(name=name)
    rows = await tracking.journal.database.read(
        lambda transaction: transaction.rows(
            "SELECT upstream_name FROM experiments WHERE experiment_id IN (?, ?) ORDER BY experiment_id",
            (int(first), int(second)),
        )
    )
    assert [row[0] for row in rows] == [name, f"{name}-2"]


async def test_deleting_an_experiment_deletes_its_active_runs_and_restoring_brings_those_back(
    tracking: Tracking,
) -> None:
    """Only the runs that went with the experiment come back with it."""
    experiment_id = await tracking.experiment()
    kept, gone = [await tracking.run(experiment_id=experiment_id) for _ in range(2)]
    await tracking.post("runs/delete", run_id=gone)

    async def stages() -> list[str]:
        answers = [await tracking.get("runs/get", run_id=run_id) for run_id in (kept, gone)]
        return [answer["run"]["info"]["lifecycle_stage"] for answer in answers]

    await tracking.post("experiments/delete", experiment_id=experiment_id)
    assert await stages() == ["deleted", "deleted"]
    await tracking.post("experiments/restore", experiment_id=experiment_id)
    assert await stages() == ["active", "deleted"]


async def test_tags_of_an_experiment_are_overwritten_and_deleted(tracking: Tracking) -> None:
    """Setting a tag twice keeps the later value; deleting it leaves nothing."""
    experiment_id = await tracking.experiment()
    for value in ("1", "2"):
        await tracking.post(
            "experiments/set-experiment-tag", experiment_id=experiment_id, key="k", value=value
        )
    before = (await tracking.get("experiments/get", experiment_id=experiment_id))["experiment"]
    await tracking.post("experiments/delete-experiment-tag", experiment_id=experiment_id, key="k")
    after = (await tracking.get("experiments/get", experiment_id=experiment_id))["experiment"]
    assert before["tags"] == [{"key": "k", "value": "2"}]
    assert "tags" not in after


async def test_search_filters_orders_and_pages(tracking: Tracking) -> None:
    """The pages of a filtered, ordered search hold every experiment once, in order."""
    mark = uuid4().hex
    names = [f"{mark}-{number}" for number in range(5)]
    for name in names:
        await tracking.experiment(name=name)
    found: list[str] = []
    token = None
    pages = 0
    while token is not None or not pages:
        page = await tracking.post(
            "experiments/search",
            filter=f"name LIKE '{mark}%'",
            order_by=["name DESC"],
            max_results=2,
            page_token=token,
        )
        found += [experiment["name"] for experiment in page["experiments"]]
        token = page.get("next_page_token")
        pages += 1
    assert found == sorted(names, reverse=True)
    assert pages == 3


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (None, ["active"]),
        ("ACTIVE_ONLY", ["active"]),
        ("DELETED_ONLY", ["deleted"]),
        ("ALL", ["active", "deleted"]),
        (2, ["deleted"]),
        (3, ["active", "deleted"]),
    ],
)
async def test_search_shows_the_lifecycle_stages_asked_for(
    tracking: Tracking, view: str | int | None, expected: list[str]
) -> None:
    """A view type works by its name and by its protobuf number."""
    mark = uuid4().hex
    await tracking.experiment(name=f"{mark}-a")
    deleted = await tracking.experiment(name=f"{mark}-b")
    await tracking.post("experiments/delete", experiment_id=deleted)
    fields = {"filter": f"name LIKE '{mark}%'", "order_by": ["name"], "max_results": 10, "view_type": view}
    for answer in (
        await tracking.post("experiments/search", **fields),
        await tracking.get("experiments/search", **{k: v for k, v in fields.items() if v is not None}),
    ):
        assert [item["lifecycle_stage"] for item in answer["experiments"]] == expected


async def test_clients_of_1x_list_experiments(tracking: Tracking) -> None:
    """experiments/list answers like a search."""
    assert "0" in [item["experiment_id"] for item in (await tracking.get("experiments/list"))["experiments"]]


@pytest.mark.parametrize(
    ("method", "route", "fields", "expected"),
    [
        ("POST", "create", {}, (*_INVALID, "Missing value for required parameter 'name'.")),
        ("POST", "create", {"name": ""}, (*_INVALID, "Missing value for required parameter 'name'.")),
        ("POST", "create", {"name": "n" * 501}, (*_INVALID, "'name' exceeds the maximum length of 500")),
        ("POST", "create", {"name": 5}, (*_INVALID, "Invalid value 5 for parameter 'name' supplied:")),
        ("POST", "create", {"name": "x", "artifact_location": "/tmp"}, (*_INVALID, "Invalid artifact_loc")),
        ("GET", "get", {}, (*_INVALID, "Missing value for required parameter 'experiment_id'.")),
        ("GET", "get", {"experiment_id": "abc"}, (*_INVALID, "Invalid experiment ID 'abc'.")),
        ("GET", "get", {"experiment_id": "9" * 12}, (*_DOES_NOT_EXIST, f"No Experiment with id={'9' * 12}")),
        ("GET", "get", {"experiment_id": "9" * 30}, (*_INVALID, "Invalid experiment ID")),
        ("GET", "get-by-name", {"experiment_name": "no"}, (*_DOES_NOT_EXIST, "Could not find experiment")),
        ("POST", "update", {"new_name": "x"}, (*_INVALID, "Missing value for required parameter 'experim")),
        ("POST", "update", {"experiment_id": "0"}, (*_INVALID, "Missing value for required parameter 'new")),
        ("POST", "delete", {"experiment_id": "9" * 12}, (*_DOES_NOT_EXIST, "No Experiment with id=")),
        ("POST", "restore", {"experiment_id": "9" * 12}, (*_DOES_NOT_EXIST, "No Experiment with id=")),
        ("POST", "restore", {"experiment_id": "0"}, (*_DOES_NOT_EXIST, "")),
        (
            "POST",
            "set-experiment-tag",
            {"experiment_id": "0", "key": "k" * 251, "value": "v"},
            (*_INVALID, "'key' exceeds the maximum length of 250 characters"),
        ),
        (
            "POST",
            "set-experiment-tag",
            {"experiment_id": "0", "key": "k", "value": "v" * 20_001},
            (*_INVALID, "'value' exceeds the maximum length of 20000 characters"),
        ),
        (
            "POST",
            "delete-experiment-tag",
            {"experiment_id": "0", "key": "never set"},
            (*_DOES_NOT_EXIST, "No tag with name: never set"),
        ),
        ("POST", "search", {"max_results": 0}, (*_INVALID, "Invalid value 0 for parameter 'max_results'")),
        ("POST", "search", {"max_results": 50_001}, (*_INVALID, "Invalid value")),
        ("POST", "search", {"page_token": "%%"}, (*_INVALID, "Invalid page token")),
        ("POST", "search", {"filter": "nope = 1"}, (*_INVALID, "Invalid attribute key 'nope' specified.")),
        ("POST", "search", {"order_by": ["nope"]}, (*_INVALID, "Invalid attribute key 'nope' specified.")),
    ],
)
async def test_refusals_are_those_of_a_stock_server(
    tracking: Tracking,
    method: str,
    route: str,
    fields: dict[str, object],
    expected: tuple[int, str, str],
) -> None:
    """Status, error code and the beginning of the message are MLflow's (observed on 3.17.2)."""
    status, code, message = await tracking.refusal(method, f"experiments/{route}", fields)
    assert (status, code) == expected[:2]
    assert message.startswith(expected[2])


@pytest.mark.parametrize(
    ("route", "fields"),
    [
        ("experiments/set-experiment-tag", {"key": "k", "value": "v"}),
        ("experiments/delete-experiment-tag", {"key": "k"}),
        ("runs/create", {}),
    ],
)
async def test_a_deleted_experiment_refuses_changes(
    tracking: Tracking, route: str, fields: dict[str, object]
) -> None:
    """What is inside a deleted experiment stays as it is."""
    experiment_id = await tracking.experiment()
    await tracking.post("experiments/delete", experiment_id=experiment_id)
    refusal = await tracking.refusal("POST", route, {"experiment_id": experiment_id, **fields})
    assert refusal == (
        *_INVALID,
        f"The experiment {experiment_id} must be in the 'active' state. Current state is deleted.",
    )
