"""A create that is sent again because its answer was lost: what is taken for one, and what never is."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from server.commit.writer import Work
from server.database.engine import Database
from server.domain.operations import SetTag
from server.services.namings import Namings
from server.services.resends import DEDUPED_TAG
from server.store import accepted_creates
from server.store.accepted_creates import AcceptedCreate
from tests.support.tracking import (
    DEADLINE_SECONDS,
    Api,
    Bench,
    Json,
    Tracking,
    client_at,
    tracking_server,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

_addresses = (f"10.0.{high}.{low}" for high, low in itertools.product(range(256), range(1, 255)))


@dataclass(slots=True)
class Site:
    """A whole server whose clock the test turns."""

    server: Tracking
    clock: Path
    data_dir: Path
    passed_seconds: float = 0.0

    def client(self, address: str | None = None, **headers: str) -> AbstractAsyncContextManager[Api]:
        """A client, at an address of its own unless one is named."""
        return client_at(self.server.door, address or next(_addresses), **headers)

    def let_pass(self, seconds: float) -> None:
        """That much later."""
        self.passed_seconds += seconds
        self.clock.write_text(str(self.passed_seconds))


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["sqlite", "postgres"])
async def site(
    request: pytest.FixtureRequest,
    make_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    """One server per kind of database; every test has an address, and an experiment, of its own."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPROXY_TEST_CLOCK", str(folder / "clock"))
        async with tracking_server(make_database(request.param), folder / "data") as server:
            yield Site(server, folder / "clock", folder / "data")


async def _create(client: Api, experiment_id: str, **fields: Any) -> Json:
    """Ask for a run as a stock client does; its answer."""
    body = {"experiment_id": experiment_id, "start_time": 1_700_000_000_000, "user_id": "ann", **fields}
    return dict((await client.post("runs/create", **body))["run"])


async def _create_id(client: Api, experiment_id: str, **fields: Any) -> str:
    return str((await _create(client, experiment_id, **fields))["info"]["run_id"])


async def _runs_in(client: Api, experiment_id: str) -> set[str]:
    """All runs of an experiment, found without naming any."""
    found = await client.post("runs/search", experiment_ids=[experiment_id])
    return {run["info"]["run_id"] for run in found.get("runs", [])}


def _tags(run: Json) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


async def _counted(client: Api, kind: str) -> float:
    """How many hits Prometheus is told of."""
    text = (await client.send("GET", "/metrics")).text
    name = f'mlproxy_resends_total{{kind="{kind}"}} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


# --- runs: what is taken for a resend ---------------------------------------------------------


async def test_a_run_that_is_asked_for_again_is_made_once(site: Site) -> None:
    """However often the same create comes, there is one run; it is tagged once, and every hit is counted."""
    async with site.client() as client:
        experiment_id = await client.experiment()
        counted = await _counted(client, "run")
        first = await _create(client, experiment_id)
        again = [await _create(client, experiment_id) for _ in range(3)]
        run_id = first["info"]["run_id"]
        assert DEDUPED_TAG not in _tags(first)
        assert [run["info"] for run in again] == [first["info"]] * 3
        assert [_tags(run)[DEDUPED_TAG] for run in again] == ["true"] * 3
        assert await _runs_in(client, experiment_id) == {run_id}
        assert await _counted(client, "run") == counted + 3
    lane = await site.server.journal.data_lane(run_id)
    assert [entry for entry in lane.entries.values() if entry == SetTag(DEDUPED_TAG, "true")] == [
        SetTag(DEDUPED_TAG, "true")
    ]


@pytest.mark.parametrize(("seconds", "runs"), [(299, 1), (302, 2)])
async def test_five_minutes_is_how_long_a_run_is_asked_for_again(
    site: Site, seconds: float, runs: int
) -> None:
    """A create as old as that is another one."""
    async with site.client() as client:
        experiment_id = await client.experiment()
        await _create(client, experiment_id)
        site.let_pass(seconds)
        await _create(client, experiment_id)
        assert len(await _runs_in(client, experiment_id)) == runs


async def test_two_that_only_look_alike_are_two(site: Site) -> None:
    """Another address, another byte in the body, or no start time: another run."""
    async with site.client() as client, site.client() as elsewhere:
        experiment_id = await client.experiment()
        ids = [
            await _create_id(client, experiment_id),
            await _create_id(elsewhere, experiment_id),
            await _create_id(client, experiment_id, start_time=1_700_000_000_001),
            await _create_id(client, experiment_id, run_name="other"),
            await _create_id(client, experiment_id, start_time=None),
            await _create_id(client, experiment_id, start_time=None),
        ]
        assert len(set(ids)) == len(ids)


async def test_a_create_that_was_refused_is_not_remembered(site: Site) -> None:
    """What made nothing is tried anew when it comes again."""
    async with site.client() as client:
        experiment_id = await client.experiment()
        await client.post("experiments/delete", experiment_id=experiment_id)
        body = {"experiment_id": experiment_id, "start_time": 5}
        await client.refusal("POST", "runs/create", body)
        await client.post("experiments/restore", experiment_id=experiment_id)
        await client.post("runs/create", **body)
        assert len(await _runs_in(client, experiment_id)) == 1


# --- naming -----------------------------------------------------------------------------------

Name = Callable[[Api, str, str], Awaitable[Any]]
"""Does something with (client, run id, artifact root)."""


def _get(path: str, /, **fields: Any) -> Name:
    return lambda api, run_id, _: api.send("GET", path, {"run_id": run_id, **fields})


def _post(path: str, /, **fields: Any) -> Name:
    return lambda api, run_id, _: api.send("POST", path, {"run_id": run_id, **fields})


_TRACE = {
    "trace": {
        "trace_info": {
            "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
            "request_time": "2026-01-01T00:00:00Z",
            "state": "OK",
        }
    }
}


def _start_trace(api: Api, run_id: str, _: str) -> Awaitable[Any]:
    info = {**_TRACE["trace"]["trace_info"], "trace_id": f"tr-{run_id}"}
    info["trace_metadata"] = {"mlflow.sourceRun": run_id}
    return api.send("POST", "/api/3.0/mlflow/traces", {"trace": {"trace_info": info}})


NAMINGS: dict[str, Name] = {
    "get": _get("runs/get"),
    "get by the old name": lambda api, run_id, _: api.send("GET", "runs/get", {"run_uuid": run_id}),
    "log-metric": _post("runs/log-metric", key="m", value=1, timestamp=1),
    "log-parameter": _post("runs/log-parameter", key="p", value="1"),
    "log-batch": _post("runs/log-batch", tags=[{"key": "t", "value": "1"}]),
    "an empty log-batch": _post("runs/log-batch"),
    "set-tag": _post("runs/set-tag", key="t", value="1"),
    "delete-tag, refused": _post("runs/delete-tag", key="never there"),
    "update": _post("runs/update", status="FINISHED"),
    "delete": _post("runs/delete"),
    "restore": _post("runs/restore"),
    "log-inputs": _post("runs/log-inputs"),
    "outputs": _post("runs/outputs"),
    "history": _get("metrics/get-history", metric_key="m"),
    "bulk history": lambda api, run_id, _: api.send(
        "GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?run_id={run_id}&metric_key=m"
    ),
    "bulk interval": lambda api, run_id, _: api.send(
        "GET", f"/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval?run_ids={run_id}&metric_key=m"
    ),
    "list artifacts": _get("artifacts/list"),
    "list a folder": lambda api, _, root: api.send(
        "GET", "/api/2.0/mlflow-artifacts/artifacts", {"path": root}
    ),
    "upload": lambda api, _, root: api.http.put(
        f"/api/2.0/mlflow-artifacts/artifacts/{root}/a.txt", content=b"a"
    ),
    "download": lambda api, _, root: api.http.get(f"/api/2.0/mlflow-artifacts/artifacts/{root}/a.txt"),
    "get-artifact": _get("/get-artifact", path="a.txt"),
    "a child": lambda api, run_id, _: api.post(
        "runs/create", tags=[{"key": "mlflow.parentRunId", "value": run_id}]
    ),
    "a logged model": lambda api, run_id, _: api.post(
        "logged-models", experiment_id="0", source_run_id=run_id
    ),
    "a trace": _start_trace,
    "a link to a trace": lambda api, run_id, _: api.send(
        "POST", "traces/link-to-run", {"run_id": run_id, "trace_ids": ["tr-1"]}
    ),
    "its state here": lambda api, run_id, _: api.send("GET", f"/api/2.0/mlproxy/runs/{run_id}"),
    "graphql": lambda api, run_id, _: api.send(
        "POST",
        "/graphql",
        {
            "operationName": "GetRun",
            "query": "query GetRun($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { info"
            " { runName } } } }",
            "variables": {"data": {"runId": run_id}},
        },
    ),
}


@pytest.mark.parametrize("name", NAMINGS)
async def test_whoever_names_the_run_has_had_the_answer(site: Site, name: str) -> None:
    """Once a request has named the run, by whatever route, the same create makes another run."""
    async with site.client() as client, site.client() as other:
        experiment_id = await client.experiment()
        run = await _create(client, experiment_id)
        run_id, root = run["info"]["run_id"], run["info"]["artifact_uri"].partition(":")[2].strip("/")
        answer = await NAMINGS[name](other, run_id, root)
        assert isinstance(answer, dict) or answer.status_code in (200, 404), answer.text
        assert await _create_id(client, experiment_id) != run_id


async def test_to_find_a_run_is_not_to_name_it(site: Site) -> None:
    """Searches and listings, which anyone can make without the id, change nothing."""
    async with site.client() as client, site.client() as other:
        experiment_id = await client.experiment()
        run_id = await _create_id(client, experiment_id)
        await other.post("runs/search", experiment_ids=[experiment_id])
        await other.get("experiments/get", experiment_id=experiment_id)
        await other.get("/api/2.0/mlproxy/status")
        assert await _create_id(client, experiment_id) == run_id


async def test_the_run_made_after_a_naming_is_recognised_in_its_turn(site: Site) -> None:
    """The second run of a body is protected like the first."""
    async with site.client() as client:
        experiment_id = await client.experiment()
        first = await _create_id(client, experiment_id)
        await client.get("runs/get", run_id=first)
        second = await _create_id(client, experiment_id)
        assert await _create_id(client, experiment_id) == second != first


# --- in one group -----------------------------------------------------------------------------


async def test_a_resend_that_meets_the_first_in_the_writer_makes_one_run(bench: Bench) -> None:
    """The client gave up while its create still waited: both are committed together, as one run."""
    experiment_id = await bench.experiment()
    async with client_at(bench.door, "10.9.9.9") as client:
        async with bench.held():
            asked = [asyncio.create_task(_create_id(client, experiment_id)) for _ in range(3)]
            await bench.until_waiting(3)
        ids = await asyncio.gather(*asked)
        assert bench.groups[-1] == 3
        assert {*ids} == await _runs_in(client, experiment_id)
        assert len({*ids}) == 1


async def test_a_write_before_it_in_the_group_counts(bench: Bench) -> None:
    """A create that is committed together with a write to the run is decided as if it came after it."""
    experiment_id = await bench.experiment()
    async with client_at(bench.door, "10.9.9.8") as client:
        run_id = await _create_id(client, experiment_id)
        async with bench.held():
            tagged = asyncio.create_task(client.post("runs/set-tag", run_id=run_id, key="t", value="1"))
            await bench.until_waiting(1)
            again = asyncio.create_task(_create_id(client, experiment_id))
            await bench.until_waiting(2)
        await tagged
        assert bench.groups[-1] == 2
        assert await again != run_id


# --- logged models and model versions ---------------------------------------------------------


async def _make_model(client: Api, **fields: Any) -> str:
    answer = await client.post("logged-models", experiment_id="0", name="net", **fields)
    return str(answer["model"]["info"]["model_id"])


async def _make_version(client: Api, name: str) -> Json:
    answer = await client.post("model-versions/create", name=name, source="s3://bucket/model")
    return dict(answer["model_version"])


async def _registered(client: Api) -> str:
    name = f"model {next(_addresses)}"
    await client.post("registered-models/create", name=name)
    return name


@pytest.mark.parametrize(("seconds", "are_same"), [(29, True), (31, False)])
async def test_a_logged_model_is_asked_for_again_for_half_a_minute(
    site: Site, seconds: float, are_same: bool
) -> None:
    """A logged model that is asked for twice is made once; hits are counted and tagged."""
    async with site.client() as client:
        counted = await _counted(client, "logged_model")
        first = await _make_model(client)
        site.let_pass(seconds)
        second = await _make_model(client)
        assert (second == first) == are_same
        tags = (await client.get(f"logged-models/{second}"))["model"]["info"].get("tags", [])
        assert tags == ([{"key": DEDUPED_TAG, "value": "true"}] if are_same else [])
        assert await _counted(client, "logged_model") == counted + are_same


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("GET", "logged-models/{}", {}),
        ("PATCH", "logged-models/{}", {"status": "LOGGED_MODEL_READY"}),
        ("PATCH", "logged-models/{}/tags", {"tags": [{"key": "t", "value": "1"}]}),
        ("POST", "logged-models/{}/params", {"params": [{"key": "p", "value": "1"}]}),
        ("DELETE", "logged-models/{}", {}),
        ("GET", "/ajax-api/2.0/mlflow/logged-models/{}/artifacts/directories", {}),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/models/{}/artifacts/MLmodel", {}),
        ("POST", "runs/log-metric", {"key": "m", "value": 1, "timestamp": 1, "model_id": "{}"}),
        ("POST", "runs/outputs", {"models": [{"model_id": "{}", "step": 0}]}),
        ("POST", "model-versions/create", {"source": "models:/{}"}),
    ],
)
async def test_whoever_names_the_logged_model_has_had_the_answer(
    site: Site, method: str, path: str, fields: Json
) -> None:
    """Once a request has named the logged model, the same create makes another one."""
    async with site.client() as client, site.client() as other:
        run_id = await other.run()
        name = await _registered(other)
        model_id = await _make_model(client)
        filled = {
            key: value.format(model_id) if isinstance(value, str) else value for key, value in fields.items()
        }
        if "models" in filled:
            filled["models"] = [{"model_id": model_id, "step": 0}]
        answer = await other.send(
            method,
            path.format(model_id),
            {**filled, "run_id": run_id} if "runs/" in path else {**filled, "name": name},
        )
        assert answer.status_code == 200, answer.text
        assert await _make_model(client) != model_id


@pytest.mark.parametrize(("seconds", "versions"), [(29, ["1"]), (31, ["1", "2"])])
async def test_a_version_is_asked_for_again_for_half_a_minute(
    site: Site, seconds: float, versions: list[str]
) -> None:
    """A model version that is asked for twice is made once; hits are counted, tagged and delivered."""
    async with site.client() as client:
        name = await _registered(client)
        counted = await _counted(client, "model_version")
        first = await _make_version(client, name)
        site.let_pass(seconds)
        second = await _make_version(client, name)
        found = await client.get("model-versions/search", filter=f"name = '{name}'")
        assert sorted(version["version"] for version in found["model_versions"]) == versions
        hits = 2 - len(versions)
        assert second["version"] == versions[-1]
        assert second.get("tags", []) == [{"key": DEDUPED_TAG, "value": "true"}] * hits
        assert first.get("tags", []) == []
        assert await _counted(client, "model_version") == counted + hits


@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("GET", "model-versions/get", {}),
        ("GET", "model-versions/get-download-uri", {}),
        ("PATCH", "model-versions/update", {"description": "d"}),
        ("POST", "model-versions/transition-stage", {"stage": "Staging"}),
        ("POST", "model-versions/set-tag", {"key": "t", "value": "1"}),
        ("DELETE", "model-versions/delete", {}),
        ("POST", "registered-models/alias", {"alias": "best"}),
        ("POST", "model-versions/create", {"source": "models:/{}/1"}),
    ],
)
async def test_whoever_names_the_version_has_had_the_answer(
    site: Site, method: str, path: str, fields: Json
) -> None:
    """Once a request has named the version, the same create makes another one."""
    async with site.client() as client, site.client() as other:
        name = await _registered(other)
        await _make_version(client, name)
        filled = {key: value.format(name) for key, value in fields.items()}
        answer = await other.send(method, path, {"name": name, "version": "1", **filled})
        assert answer.status_code == 200, answer.text
        assert (await _make_version(client, name))["version"] != "1"


@pytest.mark.parametrize("path", ["experiments/create", "registered-models/create"])
async def test_what_has_a_name_of_its_own_is_refused_the_second_time(site: Site, path: str) -> None:
    """A name cannot be given twice, so nothing is doubled or guessed: the answer is a stock server's."""
    async with site.client() as client:
        name = f"once {next(_addresses)}"
        await client.post(path, name=name)
        assert (await client.refusal("POST", path, {"name": name}))[:2] == (400, "RESOURCE_ALREADY_EXISTS")


# --- a client's own key -----------------------------------------------------------------------

KEYED: dict[str, Callable[[str], Json]] = {
    "runs/create": lambda name: {"run_name": name},
    "experiments/create": lambda name: {"name": name},
    "registered-models/create": lambda name: {"name": name},
    "logged-models": lambda name: {"experiment_id": "0", "name": name},
    "model-versions/create": lambda name: {"name": name, "source": "s3://bucket/model"},
}


async def _identity(client: Api, path: str, body: Json) -> str:
    """What names the thing that was made."""
    answer = await client.post(path, **body)
    match path:
        case "runs/create":
            return str(answer["run"]["info"]["run_id"])
        case "experiments/create":
            return str(answer["experiment_id"])
        case "registered-models/create":
            return str(answer["registered_model"]["creation_timestamp"])
        case "logged-models":
            return str(answer["model"]["info"]["model_id"])
    return str(answer["model_version"]["version"])


@pytest.mark.parametrize("path", KEYED)
async def test_a_key_stands_for_its_create_for_a_day(site: Site, path: str) -> None:
    """The same key and body, from wherever, for 24 hours, get what was made the first time."""
    name = f"keyed {next(_addresses)}".replace(".", "-")
    body = KEYED[path](name)
    key = {"Idempotency-Key": f"key of {name}"}
    async with site.client(**key) as client, site.client(**key) as elsewhere, site.client() as plain:
        if path == "model-versions/create":
            await plain.post("registered-models/create", name=name)
        first = await _identity(client, path, body)
        site.let_pass(23.9 * 3600)
        assert await _identity(elsewhere, path, body) == first


async def test_a_key_holds_though_the_run_was_named(site: Site) -> None:
    """A key is no guess: that the run is in use, or finished, does not matter."""
    async with site.client(**{"Idempotency-Key": "used"}) as client:
        experiment_id = await client.experiment()
        run_id = await _create_id(client, experiment_id)
        await client.post("runs/update", run_id=run_id, status="FINISHED")
        again = await _create(client, experiment_id)
        assert (again["info"]["run_id"], again["info"]["status"]) == (run_id, "FINISHED")


async def test_after_a_day_a_key_is_free_again(site: Site) -> None:
    """24 hours is how long an answer is kept for a key."""
    async with site.client(**{"Idempotency-Key": "daily"}) as client:
        experiment_id = await client.experiment()
        first = await _create_id(client, experiment_id)
        site.let_pass(24 * 3600 + 1)
        assert await _create_id(client, experiment_id) != first


async def test_a_key_with_another_body_is_refused(site: Site) -> None:
    """A key that stands for one request cannot stand for another."""
    async with site.client(**{"Idempotency-Key": "one"}) as client:
        experiment_id = await client.experiment()
        await _create(client, experiment_id)
        body = {"experiment_id": experiment_id, "run_name": "other"}
        status, code, words = await client.refusal("POST", "runs/create", body)
        assert (status, code) == (422, "INVALID_PARAMETER_VALUE")
        assert "another request body" in words
        assert len(await _runs_in(client, experiment_id)) == 1


async def test_keys_of_different_creates_do_not_meet(site: Site) -> None:
    """Two keys make two runs of one body; one key may be used for one create of each kind."""
    address = next(_addresses)
    async with (
        site.client(address, **{"Idempotency-Key": "a"}) as a,
        site.client(address, **{"Idempotency-Key": "b"}) as b,
    ):
        experiment_id = await a.experiment()
        assert await _create_id(a, experiment_id) != await _create_id(b, experiment_id)


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_that_cannot_be_one_is_refused(site: Site, key: str) -> None:
    """A key has between 1 and 255 characters."""
    async with site.client(**{"Idempotency-Key": key}) as client:
        refused = await client.refusal("POST", "runs/create", {"start_time": 1})
        assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")
        assert "Idempotency-Key" in refused[2]


async def test_a_key_of_what_is_gone_makes_nothing_new(site: Site) -> None:
    """When what a key made has been deleted, the client is told so."""
    async with site.client(**{"Idempotency-Key": "gone"}) as client:
        name = f"gone {next(_addresses)}"
        await client.post("registered-models/create", name=name)
        await client.send("DELETE", "registered-models/delete", {"name": name})
        refused = await client.refusal("POST", "registered-models/create", {"name": name})
        assert refused[:2] == (404, "RESOURCE_DOES_NOT_EXIST")


# --- replicas and restarts --------------------------------------------------------------------


async def test_a_restart_forgets_nothing_that_was_written(database_url: str, tmp_path: Path) -> None:
    """After a restart an unnamed run is still recognised; one that was written to, or read, is not."""
    async with (
        tracking_server(database_url, tmp_path) as server,
        client_at(server.door, "10.1.1.1") as client,
    ):
        unnamed = await _create_id(client, "0", run_name="unnamed")
        written = await _create_id(client, "0", run_name="written")
        await client.post("runs/set-tag", run_id=written, key="t", value="1")
        read = await _create_id(client, "0", run_name="read")
        await client.get("runs/get", run_id=read)
    async with (
        tracking_server(database_url, tmp_path) as server,
        client_at(server.door, "10.1.1.1") as client,
    ):
        assert await _create_id(client, "0", run_name="unnamed") == unnamed
        assert await _create_id(client, "0", run_name="written") != written
        assert await _create_id(client, "0", run_name="read") != read


async def test_what_another_replica_is_asked_counts(
    make_database: Callable[[str], str], tmp_path: Path
) -> None:
    """A resend may reach another replica, and so may the naming: a write counts at once, a read soon."""
    url = make_database("postgres")
    async with (
        tracking_server(url, tmp_path / "one") as one,
        tracking_server(url, tmp_path / "other") as other,
        client_at(one.door, "10.1.1.1") as here,
        client_at(other.door, "10.1.1.1") as there,
    ):
        run_id = await _create_id(here, "0", run_name="resent")
        assert await _create_id(there, "0", run_name="resent") == run_id
        run_id = await _create_id(here, "0", run_name="written")
        await there.post("runs/set-tag", run_id=run_id, key="t", value="1")
        assert await _create_id(here, "0", run_name="written") != run_id
        run_id = await _create_id(here, "0", run_name="read")
        await there.get("runs/get", run_id=run_id)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await _rows_about(one.journal.database, run_id):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
        assert await _create_id(here, "0", run_name="read") != run_id


async def _rows_about(database: Database, subject: str) -> int:
    sql = "SELECT COUNT(*) FROM accepted_creates WHERE subject = ?"
    return int((await database.read(lambda transaction: transaction.rows(sql, (subject,))))[0][0])


async def test_two_replicas_asked_at_once_make_one_run(
    make_database: Callable[[str], str], tmp_path: Path
) -> None:
    """The same create, sent to two replicas at the same time, over and over, makes one run each time."""
    url = make_database("postgres")
    async with (
        tracking_server(url, tmp_path / "one") as one,
        tracking_server(url, tmp_path / "other") as other,
        client_at(one.door, "10.1.1.1") as here,
        client_at(other.door, "10.1.1.1") as there,
    ):
        for number in range(20):
            ids = await asyncio.gather(
                _create_id(here, "0", run_name=f"r{number}"), _create_id(there, "0", run_name=f"r{number}")
            )
            assert ids[0] == ids[1]
        assert len(await _runs_in(here, "0")) == 20


# --- keeping house ----------------------------------------------------------------------------


async def test_expired_rows_are_removed_in_small_steps(bench: Bench) -> None:
    """However many have expired, no transaction removes more than a slice, and what holds stays."""

    def fill(transaction: Any) -> None:
        for number in range(450):
            fingerprint = number.to_bytes(32, "big")
            expires = transaction.now_ms + (60_000 if number < 30 else -1)
            accepted_creates.claim(transaction, fingerprint)
            accepted_creates.record(
                transaction, fingerprint, AcceptedCreate("run", str(number), None, expires)
            )

    await bench.writer.commit(Work(fill))
    before = len(bench.groups)
    await Namings(database=bench.database, writer=bench.writer).purge()
    assert len(bench.groups) - before == 3
    rows = await bench.database.read(
        lambda transaction: transaction.rows("SELECT subject FROM accepted_creates")
    )
    assert {row[0] for row in rows} == {str(number) for number in range(30)}


async def test_a_key_outlives_the_naming_that_ends_a_guess(bench: Bench) -> None:
    """To name a run takes away what would be guessed from, never what a client's own key stands for."""
    async with (
        client_at(bench.door, "10.9.9.7") as plain,
        client_at(bench.door, "10.9.9.7", **{"Idempotency-Key": "mine"}) as keyed,
    ):
        by_guess, by_key = await _create_id(plain, "0"), await _create_id(keyed, "0")
        for run_id in (by_guess, by_key):
            await plain.post("runs/set-tag", run_id=run_id, key="t", value="1")
        assert (await _rows_about(bench.database, by_guess), await _rows_about(bench.database, by_key)) == (
            0,
            1,
        )
