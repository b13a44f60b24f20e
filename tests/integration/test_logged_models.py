"""Logged models, from the request to the store."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from server.api.app import make_app, make_door
from server.api.experiments import ExperimentRoutes
from server.api.logged_models import LoggedModelRoutes
from server.api.runs import RunRoutes
from server.commit.writer import Work, Writer
from server.database.engine import Database
from server.database.schema import metadata
from server.domain.access import Principal, Role
from server.domain.clock import SystemClock
from server.services.experiments import Experiments, add_default_experiment
from server.services.logged_models import LoggedModels
from server.services.runs import Runs
from server.store import logged_models as store
from tests.support.tracking import FROM_NOWHERE, resends_over

pytestmark = pytest.mark.asyncio


class _Anyone:
    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        return Principal("ann", Role.WRITE)


class Bench:
    """A server without a socket."""

    def __init__(self, database: Database, http: httpx.AsyncClient) -> None:
        self.database = database
        self._http = http

    async def call(self, method: str, path: str, *, fails: str | None = None, **fields: Any) -> Any:
        """The answer to one request, which must succeed, or fail with that error code."""
        url = f"http://localhost/api/2.0/mlflow/{path}"
        sent = {"params": fields} if method == "GET" else {"content": json.dumps(fields)}
        headers = {"content-type": "application/json"}
        answer = await self._http.request(method, url, headers=headers, **sent)
        if fails is None:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code >= 400, answer.text
            assert answer.json()["error_code"] == fails, answer.text
        return answer.json()

    async def make(self, **fields: Any) -> dict[str, Any]:
        """A new logged model's info."""
        return (await self.call("POST", "logged-models", **{"experiment_id": "0", **fields}))["model"]["info"]

    async def get(self, model_id: str, **fields: Any) -> dict[str, Any]:
        """A logged model."""
        return (await self.call("GET", f"logged-models/{model_id}", **fields))["model"]

    async def make_run(self) -> str:
        """A new run's id."""
        return (await self.call("POST", "runs/create", start_time=1))["run"]["info"]["run_id"]

    async def folder(self, model_id: str) -> str | None:
        """Where the model's files go under its run in the workspace."""
        found = await self.database.read(lambda transaction: store.find(transaction, model_id))
        assert found is not None
        return found.upstream_folder

    async def search(self, **fields: Any) -> tuple[list[str], str | None]:
        """The names that a search finds, and the token of the next page."""
        answer = await self.call("POST", "logged-models/search", **{"experiment_ids": ["0"], **fields})
        return [model["info"]["name"] for model in answer.get("models", [])], answer.get("next_page_token")


@pytest_asyncio.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """A server on an empty database."""
    database = Database(database_url)
    metadata.create_all(database.engine)
    writer = Writer(database=database, clock=SystemClock())
    writer.start()
    await writer.commit(Work(add_default_experiment))
    parts = {"database": database, "writer": writer, "resends": resends_over(database, writer)}
    routes = [
        *ExperimentRoutes(Experiments(**parts)).routes(),
        *RunRoutes(Runs(**parts)).routes(),
        *LoggedModelRoutes(LoggedModels(**parts)).routes(),
    ]
    door = make_door(make_app(routes), authenticator=_Anyone(), allowed_hosts=frozenset({"localhost"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=door, client=FROM_NOWHERE)) as http:
        yield Bench(database, http)
    await writer.stop()
    database.close()


async def test_a_new_model(bench: Bench) -> None:
    """A new model is pending, has an id and a folder of its own, and holds what it was made with."""
    run_id = await bench.make_run()
    info = await bench.make(
        name="net",
        model_type="Classifier",
        source_run_id=run_id,
        params=[{"key": "lr", "value": "1"}],
        tags=[{"key": "k", "value": "v"}],
    )
    model_id = info["model_id"]
    assert model_id.startswith("m-")
    assert len(model_id) == len("m-") + 32
    assert info["creation_timestamp_ms"] == info["last_updated_timestamp_ms"] > 0
    assert {key: value for key, value in info.items() if not key.endswith("_ms")} == {
        "model_id": model_id,
        "experiment_id": "0",
        "name": "net",
        "artifact_uri": f"mlflow-artifacts:/0/models/{model_id}/artifacts",
        "status": "LOGGED_MODEL_PENDING",
        "model_type": "Classifier",
        "source_run_id": run_id,
        "tags": [{"key": "k", "value": "v"}],
    }
    assert await bench.get(model_id) == {"info": info, "data": {"params": [{"key": "lr", "value": "1"}]}}


async def test_a_model_without_a_name(bench: Bench) -> None:
    """A model that is given no name is given one."""
    assert (await bench.make())["name"]
    assert (await bench.make(name=""))["name"]


@pytest.mark.parametrize("name", ["a/b", "a:b", "a.b", "a%b", "a'b", 'a"b', " ", "x" * 501])
async def test_names_that_are_not_allowed(bench: Bench, name: str) -> None:
    """A name that could not be part of a path or of a filter is refused."""
    await bench.call("POST", "logged-models", experiment_id="0", name=name, fails="INVALID_PARAMETER_VALUE")


async def test_experiments_that_take_no_models(bench: Bench) -> None:
    """A model needs an experiment that is there and not deleted."""
    await bench.call("POST", "logged-models", fails="INVALID_PARAMETER_VALUE")
    await bench.call("POST", "logged-models", experiment_id="77", fails="RESOURCE_DOES_NOT_EXIST")
    made = await bench.call("POST", "experiments/create", name="e")
    await bench.call("POST", "experiments/delete", **made)
    await bench.call("POST", "logged-models", **made, fails="INVALID_PARAMETER_VALUE")


async def test_upstream_folders(bench: Bench) -> None:
    """Models of one run never share a folder in the workspace, not even with a deleted one."""
    one, other = await bench.make_run(), await bench.make_run()
    first = await bench.make(name="net", source_run_id=one)
    await bench.call("DELETE", f"logged-models/{first['model_id']}")
    second = await bench.make(name="net", source_run_id=one)
    elsewhere = await bench.make(name="net", source_run_id=other)
    assert await bench.folder(first["model_id"]) == "net"
    assert await bench.folder(second["model_id"]) == f"net-{second['model_id']}"
    assert await bench.folder(elsewhere["model_id"]) == "net"
    assert await bench.folder((await bench.make(name="net"))["model_id"]) is None
    assert await bench.folder((await bench.make(name="net", source_run_id="nobody"))["model_id"]) is None


@pytest.mark.parametrize(
    ("status", "kept"),
    [
        ("LOGGED_MODEL_READY", "LOGGED_MODEL_READY"),
        ("LOGGED_MODEL_UPLOAD_FAILED", "LOGGED_MODEL_UPLOAD_FAILED"),
        (2, "LOGGED_MODEL_READY"),
        ("3", "LOGGED_MODEL_UPLOAD_FAILED"),
    ],
)
async def test_finishing(bench: Bench, status: str | int, kept: str) -> None:
    """The status comes by name, as MLflow sends it, or as a number."""
    model_id = (await bench.make())["model_id"]
    answer = await bench.call("PATCH", f"logged-models/{model_id}", model_id=model_id, status=status)
    assert answer["model"]["info"]["status"] == kept
    assert (await bench.get(model_id))["info"]["status"] == kept


@pytest.mark.parametrize("status", [None, "", "READY?", 9, 0])
async def test_a_status_that_is_none(bench: Bench, status: Any) -> None:
    """What is not a status is refused."""
    model_id = (await bench.make())["model_id"]
    await bench.call("PATCH", f"logged-models/{model_id}", status=status, fails="INVALID_PARAMETER_VALUE")


async def test_deleting(bench: Bench) -> None:
    """A deleted model is not found, unless it is asked for as deleted."""
    model_id = (await bench.make(name="net"))["model_id"]
    await bench.call("DELETE", f"logged-models/{model_id}")
    await bench.call("GET", f"logged-models/{model_id}", fails="RESOURCE_DOES_NOT_EXIST")
    assert (await bench.get(model_id, allow_deleted="true"))["info"]["name"] == "net"
    assert await bench.search() == ([], None)
    await bench.call("DELETE", f"logged-models/{model_id}")


async def test_a_model_that_is_not_there(bench: Bench) -> None:
    """An unknown id is not found, by any call."""
    path = f"logged-models/m-{'0' * 32}"
    missing = await bench.call("GET", path, fails="RESOURCE_DOES_NOT_EXIST")
    assert missing["message"] == f"Logged model with ID 'm-{'0' * 32}' not found."
    await bench.call("DELETE", path, fails="RESOURCE_DOES_NOT_EXIST")
    await bench.call("PATCH", path, status="LOGGED_MODEL_READY", fails="RESOURCE_DOES_NOT_EXIST")
    await bench.call("PATCH", f"{path}/tags", tags=[], fails="RESOURCE_DOES_NOT_EXIST")
    await bench.call("DELETE", f"{path}/tags/k", fails="RESOURCE_DOES_NOT_EXIST")
    await bench.call("POST", f"{path}/params", params=[], fails="RESOURCE_DOES_NOT_EXIST")


async def test_tags(bench: Bench) -> None:
    """Tags are set over what they were, and deleted, also those with a slash in their key."""
    model_id = (await bench.make(tags=[{"key": "a", "value": "1"}]))["model_id"]
    tags = [{"key": "a", "value": "2"}, {"key": "b/c", "value": "x"}, {"key": "b/c", "value": "3"}]
    assert await bench.call("PATCH", f"logged-models/{model_id}/tags", model_id=model_id, tags=tags) == {}
    found = (await bench.get(model_id))["info"]["tags"]
    assert found == [{"key": "a", "value": "2"}, {"key": "b/c", "value": "3"}]
    await bench.call("DELETE", f"logged-models/{model_id}/tags/b/c")
    await bench.call("DELETE", f"logged-models/{model_id}/tags/b/c", fails="RESOURCE_DOES_NOT_EXIST")
    assert (await bench.get(model_id))["info"]["tags"] == [{"key": "a", "value": "2"}]


async def test_params(bench: Bench) -> None:
    """Params are added; one that is there keeps its value."""
    model_id = (await bench.make(params=[{"key": "a", "value": "1"}]))["model_id"]
    path = f"logged-models/{model_id}/params"
    await bench.call("POST", path, params=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    found = (await bench.get(model_id))["data"]["params"]
    assert found == [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]
    refused = await bench.call(
        "POST",
        path,
        params=[{"key": "c", "value": "3"}, {"key": "a", "value": "9"}],
        fails="INVALID_PARAMETER_VALUE",
    )
    assert refused["message"].startswith("Changing param values is not allowed.")
    assert (await bench.get(model_id))["data"]["params"] == found
    twice = [{"key": "d", "value": "3"}, {"key": "d", "value": "3"}]
    await bench.call("POST", path, params=twice, fails="INVALID_PARAMETER_VALUE")


async def test_metrics(bench: Bench) -> None:
    """A model shows the latest point of each metric, for each run and dataset."""
    one, other = await bench.make_run(), await bench.make_run()
    model_id = (await bench.make(source_run_id=one))["model_id"]

    async def log(run_id: str, value: float | str, step: int, **fields: Any) -> None:
        await bench.call(
            "POST",
            "runs/log-metric",
            run_id=run_id,
            key="loss",
            value=value,
            timestamp=step,
            step=step,
            model_id=model_id,
            **fields,
        )

    await log(one, 3.0, 1)
    await log(one, 2.0, 2)
    await log(one, 1.0, 5, dataset_name="test", dataset_digest="d")
    await log(other, "NaN", 7)
    metrics = (await bench.get(model_id))["data"]["metrics"]
    assert metrics == [
        {"key": "loss", "value": 2.0, "timestamp": 2, "step": 2, "model_id": model_id, "run_id": one},
        {
            "key": "loss",
            "value": 1.0,
            "timestamp": 5,
            "step": 5,
            "model_id": model_id,
            "dataset_name": "test",
            "dataset_digest": "d",
            "run_id": one,
        },
        {"key": "loss", "value": "NaN", "timestamp": 7, "step": 7, "model_id": model_id, "run_id": other},
    ]


async def test_search(bench: Bench) -> None:
    """Models are found by experiment and filter, in order, in pages."""
    run_id = await bench.make_run()
    for number, name in enumerate(("b", "a", "c")):
        model_id = (await bench.make(name=name, params=[{"key": "lr", "value": str(number)}]))["model_id"]
        await bench.call(
            "POST", "runs/log-metric", run_id=run_id, key="x", value=number, timestamp=1, model_id=model_id
        )
    by_name = [{"field_name": "name", "ascending": True}]
    assert await bench.search(order_by=by_name) == (["a", "b", "c"], None)
    first, token = await bench.search(order_by=by_name, max_results=2)
    assert first == ["a", "b"]
    assert await bench.search(order_by=by_name, max_results=2, page_token=token) == (["c"], None)
    assert await bench.search(filter="name = 'b'") == (["b"], None)
    assert await bench.search(filter="params.lr = '2'") == (["c"], None)
    assert await bench.search(order_by=[{"field_name": "metrics.x"}]) == (["b", "a", "c"], None)
    assert await bench.search(experiment_ids=["5"]) == ([], None)
    await bench.call("POST", "logged-models/search", fails="INVALID_PARAMETER_VALUE")
    await bench.call(
        "POST",
        "logged-models/search",
        experiment_ids=["0"],
        datasets=[{"dataset_digest": "d"}],
        fails="INVALID_PARAMETER_VALUE",
    )


async def test_nothing_of_it_is_delivered(bench: Bench) -> None:
    """The workspace knows no logged models: only their files go there."""

    async def count() -> int:
        return await bench.database.read(
            lambda transaction: transaction.rows("SELECT COUNT(*) FROM journal_entries")[0][0]
        )

    run_id = await bench.make_run()
    before = await count()
    model_id = (await bench.make(source_run_id=run_id))["model_id"]
    await bench.call("PATCH", f"logged-models/{model_id}", status="LOGGED_MODEL_READY")
    await bench.call("PATCH", f"logged-models/{model_id}/tags", tags=[{"key": "k", "value": "v"}])
    await bench.call("DELETE", f"logged-models/{model_id}")
    assert await count() == before
