"""Evaluation datasets, from the request to the store."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from server.api.app import make_app, make_door
from server.api.evaluation import EvaluationRoutes
from server.api.experiments import ExperimentRoutes
from server.commit.writer import Work, Writer
from server.database.engine import Database
from server.database.schema import metadata
from server.domain.clock import SystemClock
from server.services.evaluation import EvaluationDatasets
from server.services.experiments import Experiments, add_default_experiment
from server.services.keys import OpenAuthenticator
from tests.support.tracking import resends_over

pytestmark = pytest.mark.asyncio


class Bench:
    """A server without a socket."""

    def __init__(self, database: Database, http: httpx.AsyncClient) -> None:
        self.database = database
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

    async def make(self, name: str = "questions", **fields: Any) -> dict[str, Any]:
        """A new dataset."""
        if "tags" in fields:
            fields["tags"] = json.dumps(fields["tags"])
        return (await self.call("POST", "datasets/create", name=name, **fields))["dataset"]

    async def get(self, dataset_id: str) -> dict[str, Any]:
        return (await self.call("GET", f"datasets/{dataset_id}"))["dataset"]

    async def upsert(self, dataset_id: str, *records: Any, fails: str | None = None) -> Any:
        """Add or merge records."""
        text = json.dumps(list(records))
        return await self.call("POST", f"datasets/{dataset_id}/records", records=text, fails=fails)

    async def records(self, dataset_id: str, **fields: Any) -> list[dict[str, Any]]:
        answer = await self.call("GET", f"datasets/{dataset_id}/records", **fields)
        return json.loads(answer["records"])

    async def search(self, **fields: Any) -> list[str]:
        """The names a search finds."""
        answer = await self.call("POST", "datasets/search", **fields)
        return [item["name"] for item in answer.get("datasets", [])]


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
        *EvaluationRoutes(EvaluationDatasets(database=database, writer=writer)).routes(),
    ]
    door = make_door(
        make_app(routes), authenticator=OpenAuthenticator(), allowed_hosts=frozenset({"localhost"})
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=door)) as http:
        yield Bench(database, http)
    await writer.stop()
    database.close()


async def test_life_of_a_dataset(bench: Bench) -> None:
    """A dataset is made with tags and experiments, read, and deleted with all it has."""
    made = await bench.make(experiment_ids=["0"], tags={"team": "a", "mlflow.user": "ann"})
    assert made["dataset_id"].startswith("d-")
    assert made["experiment_ids"] == ["0"]
    assert json.loads(made["tags"]) == {"team": "a", "mlflow.user": "ann"}
    assert made["created_by"] == made["last_updated_by"] == "ann"
    assert made["created_time"] == made["last_update_time"] > 0
    assert len(made["digest"]) == 8
    found = await bench.get(made["dataset_id"])
    assert found == {key: value for key, value in made.items() if key != "experiment_ids"}
    await bench.upsert(made["dataset_id"], {"inputs": {"q": 1}})
    path = f"datasets/{made['dataset_id']}"
    for _ in range(2):
        assert await bench.call("DELETE", path) == {}
    await bench.call("GET", path, fails="RESOURCE_DOES_NOT_EXIST")
    left = await bench.database.read(
        lambda transaction: [
            transaction.rows(f"SELECT COUNT(*) FROM {table}")[0][0]
            for table in ("evaluation_records", "evaluation_dataset_tags", "evaluation_dataset_experiments")
        ]
    )
    assert left == [0, 0, 0]


async def test_names_may_repeat(bench: Bench) -> None:
    """Two datasets may have one name; each has an id of its own."""
    one, two = await bench.make(), await bench.make()
    assert one["dataset_id"] != two["dataset_id"]
    assert json.loads(one["tags"]) == {}


async def test_new_records(bench: Bench) -> None:
    """A record holds what it was given; outputs may be anything, and absent ones are an empty object."""
    made = await bench.make()
    traced = {"source_type": "trace", "source_data": {"trace_id": "tr-1"}}
    given: list[dict[str, Any]] = [
        {
            "inputs": {"q": "1", "deep": {"x": [1, None]}},
            "expectations": {"a": 1},
            "tags": {"mlflow.user": "ann"},
        },
        {"inputs": {"q": "2"}, "outputs": "text", "source": traced},
        {"inputs": {"q": "3"}, "outputs": None, "source": {"source_type": "CODE"}},
    ]
    answer = await bench.upsert(made["dataset_id"], *given)
    assert answer == {"inserted_count": 3, "updated_count": 0}
    shown = {item["inputs"]["q"]: item for item in await bench.records(made["dataset_id"])}
    first, second, third = shown["1"], shown["2"], shown["3"]
    assert first["dataset_record_id"].startswith("dr-")
    assert first["dataset_id"] == made["dataset_id"]
    assert (first["inputs"], first["outputs"], first["expectations"]) == (given[0]["inputs"], {}, {"a": 1})
    assert first["created_by"] == first["last_updated_by"] == "ann"
    assert second["outputs"] == "text"
    assert (second["source_type"], second["source_id"]) == ("TRACE", "tr-1")
    assert second["tags"] == {}
    assert "outputs" not in third
    assert third["source"] == {"source_type": "CODE", "source_data": {}}
    found = await bench.get(made["dataset_id"])
    assert found["digest"] != made["digest"]
    assert found["last_updated_by"] == "ann"
    assert json.loads(found["profile"]) == {"num_records": 3}
    assert json.loads(found["schema"]) == {
        "inputs": {"q": "string", "deep": "object"},
        "outputs": "string",
        "expectations": {"a": "integer"},
        "version": "1.0",
    }


async def test_known_records(bench: Bench) -> None:
    """A record with known inputs is merged: outputs replaced, expectations and tags added, source kept."""
    dataset_id = (await bench.make())["dataset_id"]
    inputs = {"a": 1, "b": 2}
    source = {"source_type": "HUMAN", "source_data": {}}
    known = {"inputs": inputs, "outputs": {"o": 1}, "expectations": {"x": 1, "y": 1}, "source": source}
    await bench.upsert(dataset_id, {**known, "tags": {"k": "v"}})
    (before,) = await bench.records(dataset_id)
    answer = await bench.upsert(
        dataset_id,
        {"inputs": {"b": 2, "a": 1}, "expectations": {"y": 2}, "source": {"source_type": "CODE"}},
        {"inputs": {"new": True}, "tags": {"n": "1"}},
        {"inputs": {"new": True}, "outputs": [1], "tags": {"m": "2", "mlflow.user": "bob"}},
    )
    assert answer == {"inserted_count": 1, "updated_count": 2}
    known, new = sorted(await bench.records(dataset_id), key=lambda item: "new" in item["inputs"])
    assert known["dataset_record_id"] == before["dataset_record_id"]
    assert known["outputs"] == {"o": 1}
    assert known["expectations"] == {"x": 1, "y": 2}
    assert known["tags"] == {"k": "v"}
    assert known["source"] == source
    assert known["created_time"] == before["created_time"] <= known["last_update_time"]
    assert (new["outputs"], new["tags"]) == ([1], {"n": "1", "m": "2", "mlflow.user": "bob"})
    await bench.upsert(dataset_id, {"inputs": inputs, "outputs": None})
    assert "outputs" not in next(item for item in await bench.records(dataset_id) if item["inputs"] == inputs)
    assert json.loads((await bench.get(dataset_id))["profile"]) == {"num_records": 2}


async def test_pages_of_records(bench: Bench) -> None:
    """Pages hold every record once, whether by token or by offset."""
    dataset_id = (await bench.make())["dataset_id"]
    for start in (0, 5):
        await bench.upsert(dataset_id, *({"inputs": {"n": number}} for number in range(start, start + 5)))
    everything = [item["dataset_record_id"] for item in await bench.records(dataset_id)]
    assert len(set(everything)) == 10
    read: list[str] = []
    fields: dict[str, Any] = {"max_results": 4}
    while True:
        answer = await bench.call("GET", f"datasets/{dataset_id}/records", **fields)
        read += [item["dataset_record_id"] for item in json.loads(answer["records"])]
        if "next_page_token" not in answer:
            break
        fields["page_token"] = answer["next_page_token"]
    assert read == everything
    by_offset = await bench.records(dataset_id, page_token="8")
    assert [item["dataset_record_id"] for item in by_offset] == everything[8:]
    for token in ("x", "%%", "OTk5OTk5OTk5OTk5OTk5OTk5OTk6eA==", "9" * 30):
        path = f"datasets/{dataset_id}/records"
        await bench.call("GET", path, page_token=token, fails="INVALID_PARAMETER_VALUE")
    assert await bench.records("d-none") == []


async def test_deleting_records(bench: Bench) -> None:
    """Records are deleted by id, and the profile counts what is left."""
    dataset_id = (await bench.make())["dataset_id"]
    await bench.upsert(dataset_id, *({"inputs": {"n": number}} for number in range(3)))
    ids = [item["dataset_record_id"] for item in await bench.records(dataset_id)]
    path = f"datasets/{dataset_id}/records"
    answer = await bench.call("DELETE", path, dataset_record_ids=[ids[0], ids[0], "dr-none"])
    assert answer == {"deleted_count": 1}
    assert json.loads((await bench.get(dataset_id))["profile"]) == {"num_records": 2}
    assert await bench.call("DELETE", path, dataset_record_ids=ids) == {"deleted_count": 2}
    assert "profile" not in await bench.get(dataset_id)
    assert await bench.call("DELETE", path, dataset_record_ids=ids) == {"deleted_count": 0}
    answer = await bench.call("DELETE", "datasets/d-none/records", dataset_record_ids=ids)
    assert answer == {"deleted_count": 0}


async def test_tags(bench: Bench) -> None:
    """Tags are set over what they were, left where null, and deleted without complaint."""
    dataset_id = (await bench.make(tags={"a": "1", "b": "2"}))["dataset_id"]
    path = f"datasets/{dataset_id}/tags"
    await bench.call("PATCH", path, tags=json.dumps({"a": "new", "b": None, "c/d": 5}))
    for _ in range(2):
        await bench.call("DELETE", f"{path}/a")
    assert json.loads((await bench.get(dataset_id))["tags"]) == {"b": "2", "c/d": "5"}
    await bench.call("DELETE", f"{path}/c/d")
    assert json.loads((await bench.get(dataset_id))["tags"]) == {"b": "2"}
    await bench.call("DELETE", "datasets/d-none/tags/a")
    await bench.call("PATCH", "datasets/d-none/tags", tags="{}", fails="RESOURCE_DOES_NOT_EXIST")


async def test_experiments(bench: Bench) -> None:
    """A dataset is added to experiments that exist and taken out of any."""
    other = (await bench.call("POST", "experiments/create", name="other"))["experiment_id"]
    dataset_id = (await bench.make(experiment_ids=["0"]))["dataset_id"]
    path = f"datasets/{dataset_id}"
    await bench.call("POST", f"{path}/add-experiments", experiment_ids=["0", other])
    assert (await bench.call("GET", f"{path}/experiment-ids"))["experiment_ids"] == ["0", other]
    await bench.call(
        "POST", f"{path}/add-experiments", experiment_ids=["99"], fails="RESOURCE_DOES_NOT_EXIST"
    )
    answer = await bench.call("POST", f"{path}/remove-experiments", experiment_ids=["0", "99"])
    assert answer["dataset"]["dataset_id"] == dataset_id
    assert (await bench.call("GET", f"{path}/experiment-ids"))["experiment_ids"] == [other]
    assert await bench.call("GET", "datasets/d-none/experiment-ids") == {}
    for name in ("add-experiments", "remove-experiments"):
        await bench.call("POST", f"datasets/d-none/{name}", fails="RESOURCE_DOES_NOT_EXIST")


async def test_search(bench: Bench) -> None:
    """Datasets are found by experiment, attribute and tag, sorted, and in pages."""
    other = (await bench.call("POST", "experiments/create", name="other"))["experiment_id"]
    await bench.make("alpha", experiment_ids=["0"], tags={"n": "1", "mlflow.user": "ann"})
    await bench.make("beta", experiment_ids=["0", other], tags={"n": "2"})
    await bench.make("gamma", experiment_ids=[other])
    by_name = {"order_by": ["name"]}
    assert await bench.search(**by_name) == ["alpha", "beta", "gamma"]
    assert await bench.search(order_by=["name DESC"]) == ["gamma", "beta", "alpha"]
    assert await bench.search(experiment_ids=[other], **by_name) == ["beta", "gamma"]
    assert await bench.search(experiment_ids=["77"]) == []
    for text, names in [
        ("name = 'beta'", ["beta"]),
        ("name != 'beta'", ["alpha", "gamma"]),
        ("name LIKE '%a%' AND name ILIKE 'G%'", ["gamma"]),
        ("name IN ('alpha', 'gamma')", ["alpha", "gamma"]),
        ("tags.n = '1'", ["alpha"]),
        ("tags.n != '1'", ["beta"]),
        ("created_by = 'ann'", ["alpha"]),
        ("created_time > 0 AND last_update_time < 9000000000000", ["alpha", "beta", "gamma"]),
    ]:
        assert await bench.search(filter_string=text, **by_name) == names, text
    page = await bench.call("POST", "datasets/search", max_results=2, **by_name)
    token = page["next_page_token"]
    assert await bench.search(max_results=2, page_token=token, **by_name) == ["gamma"]
    page = await bench.call("GET", "datasets/search", experiment_ids=[other], order_by="name", max_results=1)
    assert [item["name"] for item in page["datasets"]] == ["beta"]


@pytest.mark.parametrize(
    "fields",
    [
        {"filter_string": "size > 1"},
        {"filter_string": "name NOT IN ('a')"},
        {"filter_string": "created_time = 'x'"},
        {"filter_string": "created_time = 1.5"},
        {"filter_string": "metrics.a = 1"},
        {"filter_string": "name = 'a' OR name = 'b'"},
        {"order_by": ["created_by"]},
        {"order_by": ["tags.n"]},
        {"order_by": ["name SIDEWAYS"]},
        {"max_results": 0},
        {"max_results": 50_001},
        {"page_token": "?"},
        {"experiment_ids": ["x"]},
    ],
)
async def test_searches_that_are_refused(bench: Bench, fields: dict[str, Any]) -> None:
    """What is not in the grammar, or no number of results, is refused."""
    await bench.call("POST", "datasets/search", fails="INVALID_PARAMETER_VALUE", **fields)


@pytest.mark.parametrize(
    "records",
    [
        "",
        "{",
        "{}",
        "[1]",
        '[{"inputs": 5}]',
        '[{"inputs": {}, "tags": []}]',
        '[{"inputs": {}, "source": {"source_type": "RUMOUR"}}]',
        '[{"inputs": {}, "source": {"source_type": "CODE", "source_data": "x"}}]',
        '[{"inputs": {}, "tags": {"mlflow.user": "a\\u0000"}}]',
        "[" * 100_000,
    ],
)
async def test_records_that_are_refused(bench: Bench, records: str) -> None:
    """Records are a list of objects whose parts are objects; none of a bad request is kept."""
    path = f"datasets/{(await bench.make())['dataset_id']}"
    await bench.call("POST", f"{path}/records", records=records, fails="INVALID_PARAMETER_VALUE")
    assert json.loads((await bench.call("GET", f"{path}/records"))["records"]) == []


async def test_requests_that_are_refused(bench: Bench) -> None:
    """Names and tags have limits, and records need a dataset."""
    long = {"name": "n" * 256}
    for fields in ({"name": ""}, long, {"name": "a\0"}, {"name": "a", "experiment_ids": ["x"]}):
        await bench.call("POST", "datasets/create", **fields, fails="INVALID_PARAMETER_VALUE")
    for tags in ("[]", "{", '{"k": "' + "v" * 5001 + '"}', '{"' + "k" * 256 + '": "v"}'):
        await bench.call("POST", "datasets/create", name="a", tags=tags, fails="INVALID_PARAMETER_VALUE")
    await bench.upsert("d-none", {"inputs": {}}, fails="RESOURCE_DOES_NOT_EXIST")


async def test_text_that_is_hard_to_store(bench: Bench) -> None:
    """NUL, surrogates and NaN inside of a record come back as they went in."""
    dataset_id = (await bench.make())["dataset_id"]
    hard = {"a": "\0", "b": "\ud800", "c": "ä☃"}
    await bench.upsert(dataset_id, {"inputs": hard, "outputs": {"x": float("inf")}})
    (record,) = await bench.records(dataset_id)
    assert record["inputs"] == hard
    assert record["outputs"] == {"x": float("inf")}
