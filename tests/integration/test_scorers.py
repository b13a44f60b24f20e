"""Scorers, from the request to the store."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from server.api.app import make_app, make_door
from server.api.experiments import ExperimentRoutes
from server.api.scorers import ScorerRoutes
from server.commit.writer import Work, Writer
from server.database.engine import Database
from server.database.schema import metadata
from server.domain.clock import SystemClock
from server.services.experiments import Experiments, add_default_experiment
from server.services.keys import OpenAuthenticator
from server.services.scorers import Scorers
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess
from tests.support.tracking import resends_over

JUDGE = {"name": "polite", "instructions_judge_pydantic_data": {"model": "openai:/gpt-4o"}}


class Bench:
    """A server without a socket."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, method: str, path: str, *, fails: str | None = None, **fields: Any) -> Any:
        """The answer to one request, which must succeed, or fail with that error code."""
        version = "2.0" if path.startswith("experiments") else "3.0"
        url = f"http://localhost/api/{version}/mlflow/{path}"
        sent = {"params": fields} if method == "GET" else {"json": fields}
        answer = await self._http.request(method, url, **sent)
        if fails is None:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code >= 400, answer.text
            assert answer.json()["error_code"] == fails, answer.text
        return answer.json()

    async def register(
        self, name: str, experiment_id: str = "0", *, fails: str | None = None, **scorer: Any
    ) -> Any:
        """A new version of a scorer."""
        text = json.dumps(scorer or JUDGE)
        fields = {"experiment_id": experiment_id, "name": name, "serialized_scorer": text}
        return await self.call("POST", "scorers/register", fails=fails, **fields)

    async def list_names(self, **fields: Any) -> list[tuple[int, str, int]]:
        """(experiment, name, version) of the scorers that are listed."""
        answer = await self.call("GET", "scorers/list", **fields)
        return [
            (item["experiment_id"], item["scorer_name"], item["scorer_version"])
            for item in answer.get("scorers", [])
        ]


@pytest_asyncio.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """A server on an empty database."""
    database = Database(database_url)
    metadata.create_all(database.engine)
    writer = Writer(database=database, clock=SystemClock())
    writer.start()
    await writer.commit(Work(add_default_experiment))
    experiments = Experiments(database=database, writer=writer, resends=resends_over(database, writer))
    routes = [
        *ExperimentRoutes(experiments).routes(),
        *ScorerRoutes(Scorers(database=database, writer=writer)).routes(),
    ]
    door = make_door(
        make_app(routes), authenticator=OpenAuthenticator(), allowed_hosts=frozenset({"localhost"})
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=door)) as http:
        yield Bench(http)
    await writer.stop()
    database.close()


@pytest.mark.asyncio
async def test_life_of_a_scorer(bench: Bench) -> None:
    """Versions count up, are listed and read, and go one by one or all at once."""
    made = await bench.register("polite")
    assert (made["version"], made["experiment_id"], made["name"]) == (1, "0", "polite")
    assert json.loads(made["serialized_scorer"]) == JUDGE
    again = await bench.register("polite", other=1)
    assert (again["version"], again["scorer_id"]) == (2, made["scorer_id"])
    named = {"experiment_id": "0", "name": "polite"}
    versions = (await bench.call("GET", "scorers/versions", **named))["scorers"]
    assert [item["scorer_version"] for item in versions] == [1, 2]
    assert (await bench.call("GET", "scorers/get", **named))["scorer"] == versions[1]
    assert (await bench.call("GET", "scorers/get", **named, version=1))["scorer"] == versions[0]
    assert await bench.call("DELETE", "scorers/delete", **named, version=2) == {}
    assert (await bench.call("GET", "scorers/get", **named))["scorer"] == versions[0]
    for version in (2, 0, -1, 2**40):
        await bench.call("GET", "scorers/get", **named, version=version, fails="RESOURCE_DOES_NOT_EXIST")
        await bench.call(
            "DELETE", "scorers/delete", **named, version=version, fails="RESOURCE_DOES_NOT_EXIST"
        )
    await bench.call("DELETE", "scorers/delete", **named)
    for method, path in (("GET", "get"), ("GET", "versions"), ("DELETE", "delete")):
        await bench.call(method, f"scorers/{path}", **named, fails="RESOURCE_DOES_NOT_EXIST")
    assert (await bench.register("polite"))["version"] == 1


@pytest.mark.asyncio
async def test_listing(bench: Bench) -> None:
    """Scorers are listed for one experiment, for several, or for all that are not deleted."""
    other = (await bench.call("POST", "experiments/create", name="other"))["experiment_id"]
    gone = (await bench.call("POST", "experiments/create", name="gone"))["experiment_id"]
    for name, experiment_id in (("b", "0"), ("a", "0"), ("a", "0"), ("c", other), ("d", gone)):
        await bench.register(name, experiment_id)
    await bench.call("POST", "experiments/delete", experiment_id=gone)
    mine, others = [(0, "a", 2), (0, "b", 1)], [(int(other), "c", 1)]
    assert await bench.list_names(experiment_id="0") == mine
    assert await bench.list_names() == mine + others
    assert await bench.list_names(experiment_ids=[other, gone, "77"]) == others
    fields = {"experiment_id": "0", "experiment_ids": ["0"]}
    await bench.call("GET", "scorers/list", **fields, fails="INVALID_PARAMETER_VALUE")
    await bench.call("GET", "scorers/list", experiment_ids="x", fails="INVALID_PARAMETER_VALUE")
    await bench.call("GET", "scorers/list", experiment_id=gone, fails="INVALID_PARAMETER_VALUE")
    await bench.call("GET", "scorers/list", experiment_id="77", fails="RESOURCE_DOES_NOT_EXIST")
    await bench.register("e", gone, fails="INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    ("scorer", "code"),
    [
        ({"call_source": "import os"}, "INVALID_PARAMETER_VALUE"),
        ({"ensemble_scorer_data": {"scorers": [{"call_source": "x"}]}}, "INVALID_PARAMETER_VALUE"),
        (
            {"third_party_scorer_data": {"kwargs": {"a": [{"api_base": "http://x"}]}}},
            "INVALID_PARAMETER_VALUE",
        ),
        ({"third_party_scorer_data": {"kwargs": {"o": [["base_url", "x"]]}}}, "INVALID_PARAMETER_VALUE"),
        ({"third_party_scorer_data": {"kwargs": "text"}}, "INVALID_PARAMETER_VALUE"),
        ({"builtin_scorer_pydantic_data": {"model": " "}}, "INVALID_PARAMETER_VALUE"),
        ({"builtin_scorer_pydantic_data": {"model": 5}}, "INVALID_PARAMETER_VALUE"),
        ({"builtin_scorer_pydantic_data": {"model": "gateway:/mine"}}, "RESOURCE_DOES_NOT_EXIST"),
        (
            {"memory_augmented_judge_data": {"base_judge": {"builtin_scorer_pydantic_data": {"model": ""}}}},
            "INVALID_PARAMETER_VALUE",
        ),
    ],
)
@pytest.mark.asyncio
async def test_scorers_that_are_refused(bench: Bench, scorer: dict[str, Any], code: str) -> None:
    """Code, a steered destination, an impossible model or a gateway that is not there is refused."""
    await bench.register("x", fails=code, **scorer)
    assert await bench.list_names() == []


@pytest.mark.asyncio
async def test_requests_that_are_refused(bench: Bench) -> None:
    """What is missing or is no JSON object is refused."""
    good = {"experiment_id": "0", "name": "x", "serialized_scorer": "{}"}
    deep = "[" * 100_000
    for fields in ({"experiment_id": ""}, {"name": ""}, {"name": " "}, {"serialized_scorer": ""}):
        await bench.call("POST", "scorers/register", **{**good, **fields}, fails="INVALID_PARAMETER_VALUE")
    for text in ("{", "[]", "5", deep, f'{{"a": {deep}'):
        fields = {**good, "serialized_scorer": text}
        await bench.call("POST", "scorers/register", **fields, fails="INVALID_PARAMETER_VALUE")
    await bench.call("POST", "scorers/register", **{**good, "name": "a\0"}, fails="INVALID_PARAMETER_VALUE")
    await bench.call("GET", "scorers/get", experiment_id="0", fails="INVALID_PARAMETER_VALUE")


@pytest.mark.asyncio
async def test_online_scoring(bench: Bench) -> None:
    """No scorer is run on traces here: there are no configurations, and none can be made."""
    made = await bench.register("polite")
    answer = await bench.call("GET", "scorers/online-configs", scorer_ids=[made["scorer_id"]])
    assert answer == {"configs": []}
    await bench.call("PUT", "scorers/online-config", name="polite", fails="NOT_IMPLEMENTED")


def test_stock_client(database_url: str, tmp_path: Path) -> None:
    """MLflow's own client works with evaluation datasets, scorers and workspaces."""
    python = client_python("mlflow3")
    url = database_url if database_url.startswith("postgres") else None
    with ServerProcess.start(tmp_path / "data", MLPROXY_DATABASE_URL=url) as server:
        run_client(python, "evaluation_assets.py", server.url, folder=tmp_path / "client")
