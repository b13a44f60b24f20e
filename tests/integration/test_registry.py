"""The model registry, from the request to the store and the journal."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
import pytest_asyncio

from server.api.app import make_app, make_door
from server.api.experiments import ExperimentRoutes
from server.api.logged_models import LoggedModelRoutes
from server.api.registry import RegistryRoutes
from server.api.runs import RunRoutes
from server.commit.writer import Work, Writer
from server.database.engine import Database, Transaction
from server.database.schema import metadata
from server.domain.access import Principal, Role
from server.domain.clock import SystemClock
from server.domain.operations import (
    CreateModelVersion,
    CreateRegisteredModel,
    DeleteModelVersion,
    DeleteModelVersionTag,
    DeleteRegisteredModelTag,
    SetModelVersionTag,
    SetRegisteredModelTag,
    TransitionModelVersion,
    UpdateModelVersion,
    UpdateRegisteredModel,
    UploadArtifact,
)
from server.journal.codec import decode_operation
from server.journal.entries import append_entry
from server.services.experiments import Experiments, add_default_experiment
from server.services.logged_models import LoggedModels
from server.services.registry import Registry
from server.services.runs import Runs
from server.store import artifacts
from server.store.artifacts import ArtifactFile
from tests.support.tracking import FROM_NOWHERE, resends_over

pytestmark = pytest.mark.asyncio
PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}


class _Anyone:
    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        return Principal("ann", Role.WRITE)


@dataclass
class Bench:
    """A server without a socket, and a look behind it."""

    database: Database
    writer: Writer
    http: httpx.AsyncClient

    async def call(self, method: str, path: str, *, fails: str | None = None, **fields: Any) -> Any:
        """The answer to one request, which must succeed, or fail with that error code."""
        fields = {key: value for key, value in fields.items() if value is not None}
        url = f"http://localhost/api/2.0/mlflow/{path}"
        sent = {"params": fields} if method == "GET" else {"json": fields}
        answer = await self.http.request(method, url, **sent)
        if fails is None:
            assert answer.status_code == 200, answer.text
        else:
            assert answer.status_code >= 400, answer.text
            assert answer.json()["error_code"] == fails, answer.text
        return answer.json()

    async def make_run(self) -> dict[str, Any]:
        """A new run's info."""
        return (await self.call("POST", "runs/create", start_time=1))["run"]["info"]

    async def make_version(self, name: str, source: str, **fields: Any) -> Any:
        """A new version, or the error."""
        answer = await self.call("POST", "model-versions/create", name=name, source=source, **fields)
        return answer.get("model_version", answer)

    async def entries(self, name: str) -> list[Any]:
        """The operations on a registered model's lane."""
        return [
            decode_operation(row[0], row[1])
            for row in await self.database.read(
                lambda transaction: transaction.rows(
                    "SELECT kind, payload FROM journal_entries JOIN registered_models"
                    " ON registered_models.lane_id = journal_entries.lane_id WHERE name = ?"
                    " ORDER BY position",
                    (name,),
                )
            )
        ]

    async def barriers(self, name: str) -> list[tuple[int, int, int]]:
        """What the entries on a registered model's lane wait for: (position, lane, position there)."""
        return await self.database.read(
            lambda transaction: [
                (row[0], row[1], row[2])
                for row in transaction.rows(
                    "SELECT position, awaited_lane_id, awaited_position FROM barriers JOIN registered_models"
                    " ON registered_models.lane_id = barriers.lane_id WHERE name = ? ORDER BY 1, 2",
                    (name,),
                )
            ]
        )

    async def lanes(self, run_id: str) -> tuple[int, int]:
        """The data lane and the artifact lane of a run."""
        return await self.database.read(
            lambda transaction: tuple(
                transaction.rows(
                    "SELECT data_lane_id, artifact_lane_id FROM runs WHERE run_id = ?", (run_id,)
                )[0]
            )
        )

    async def settle_all(self) -> None:
        """Take everything as delivered."""
        await self.writer.commit(
            Work(lambda transaction: transaction.run("UPDATE lanes SET settled_position = last_position"))
        )

    async def upload(self, run_id: str, path: str) -> int:
        """Put an upload on the run's artifact lane; its position."""
        _, lane = await self.lanes(run_id)
        operation = UploadArtifact(1, path, path, 1, b"", None)
        return await self.writer.commit(
            Work(lambda transaction: append_entry(transaction, lane, operation, principal=None))
        )


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
        *RegistryRoutes(Registry(**parts)).routes(),
        *LoggedModelRoutes(LoggedModels(**parts)).routes(),
    ]
    door = make_door(make_app(routes), authenticator=_Anyone(), allowed_hosts=frozenset({"localhost"}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=door, client=FROM_NOWHERE)) as http:
        yield Bench(database, writer, http)
    await writer.stop()
    database.close()


# --- registered models ----------------------------------------------------------------------


async def test_life_of_a_model(bench: Bench) -> None:
    """A model is made, read, described, tagged, renamed and deleted; all but the last two are delivered."""
    tags = [{"key": "team", "value": "a"}, {"key": "team", "value": "b"}]
    made = await bench.call("POST", "registered-models/create", name="churn", description="d", tags=tags)
    model = made["registered_model"]
    assert (model["name"], model["description"]) == ("churn", "d")
    assert model["tags"] == [{"key": "team", "value": "b"}]
    assert model["creation_timestamp"] == model["last_updated_timestamp"] > 0
    assert "latest_versions" not in model
    await bench.call("PATCH", "registered-models/update", name="churn", description="e")
    await bench.call("POST", "registered-models/set-tag", name="churn", key="x", value="1")
    await bench.call("DELETE", "registered-models/delete-tag", name="churn", key="x")
    await bench.call("DELETE", "registered-models/delete-tag", name="churn", key="never there")
    got = (await bench.call("GET", "registered-models/get", name="churn"))["registered_model"]
    assert (got["description"], got["tags"]) == ("e", [{"key": "team", "value": "b"}])
    renamed = await bench.call("POST", "registered-models/rename", name="churn", new_name="loss")
    assert renamed["registered_model"]["name"] == "loss"
    await bench.call("GET", "registered-models/get", name="churn", fails="RESOURCE_DOES_NOT_EXIST")
    assert await bench.entries("loss") == [
        CreateRegisteredModel("churn", "d", {"team": "b"}),
        UpdateRegisteredModel("churn", "e"),
        SetRegisteredModelTag("churn", "x", "1"),
        DeleteRegisteredModelTag("churn", "x"),
    ]
    await bench.call("DELETE", "registered-models/delete", name="loss")
    await bench.call("GET", "registered-models/get", name="loss", fails="RESOURCE_DOES_NOT_EXIST")
    await bench.call("DELETE", "registered-models/delete", name="loss", fails="RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "..", "n" * 257])
async def test_names_that_are_not_allowed(bench: Bench, name: str) -> None:
    """A name that MLflow refuses is refused, new or as another's."""
    await bench.call("POST", "registered-models/create", name=name, fails="INVALID_PARAMETER_VALUE")
    await bench.call("POST", "registered-models/create", name="fine")
    await bench.call(
        "POST", "registered-models/rename", name="fine", new_name=name, fails="INVALID_PARAMETER_VALUE"
    )


async def test_a_name_is_taken_once(bench: Bench) -> None:
    """A name that another model, or a prompt, has is refused, with MLflow's words."""
    await bench.call("POST", "registered-models/create", name="a")
    await bench.call("POST", "registered-models/create", name="b")
    taken = await bench.call("POST", "registered-models/create", name="a", fails="RESOURCE_ALREADY_EXISTS")
    assert taken["message"] == "Registered Model (name=a) already exists."
    taken = await bench.call(
        "POST", "registered-models/create", name="a", tags=[PROMPT], fails="RESOURCE_ALREADY_EXISTS"
    )
    assert taken["message"].startswith("Tried to create a prompt with name 'a'")
    taken = await bench.call(
        "POST", "registered-models/rename", name="b", new_name="a", fails="RESOURCE_ALREADY_EXISTS"
    )
    assert taken["message"].startswith("Registered Model (name=a) already exists.")
    await bench.call("POST", "registered-models/rename", name="b", new_name="b")


async def test_upstream_names(bench: Bench) -> None:
    """Models never share a name in the workspace, and one made again is created there again."""
    await bench.call("POST", "registered-models/create", name="a")
    await bench.call("POST", "registered-models/rename", name="a", new_name="b")
    await bench.call("POST", "registered-models/create", name="a")
    assert await bench.entries("a") == [CreateRegisteredModel("a-2", None, {})]
    await bench.call("DELETE", "registered-models/delete", name="b")
    await bench.call("POST", "registered-models/create", name="b")
    assert await bench.entries("b") == [CreateRegisteredModel("b", None, {})]
    await bench.call("POST", "registered-models/create", name="no good name")
    created = (await bench.entries("no good name"))[0]
    assert created.name.startswith("no-good-name-")


async def test_a_lane_does_not_pass_to_another_model(bench: Bench) -> None:
    """What is on its way for a deleted model is never taken for the next one's."""
    await bench.call("POST", "registered-models/create", name="a")
    await bench.call("DELETE", "registered-models/delete", name="a")
    await bench.call("POST", "registered-models/create", name="b")
    subjects = await bench.database.read(
        lambda transaction: transaction.rows(
            "SELECT model_pk FROM lanes LEFT JOIN registered_models ON model_pk = subject_id"
            " WHERE kind = 'registered_model' ORDER BY lanes.lane_id"
        )
    )
    assert [row[0] is None for row in subjects] == [True, False]


async def test_search_models(bench: Bench) -> None:
    """Models are found by filter, in order, in pages; prompts only when asked for."""
    for name in ("b", "a", "c"):
        await bench.call("POST", "registered-models/create", name=name)
    await bench.call("POST", "registered-models/create", name="p", tags=[PROMPT])

    async def names(**fields: Any) -> tuple[list[str], str | None]:
        answer = await bench.call("GET", "registered-models/search", **fields)
        return [model["name"] for model in answer.get("registered_models", [])], answer.get("next_page_token")

    assert await names() == (["a", "b", "c"], None)
    first, token = await names(max_results=2)
    assert first == ["a", "b"]
    assert await names(max_results=2, page_token=token) == (["c"], None)
    assert await names(filter="name LIKE 'b%'") == (["b"], None)
    assert await names(order_by=["name DESC"]) == (["c", "b", "a"], None)
    assert await names(filter="tags.`mlflow.prompt.is_prompt` = 'true'") == (["p"], None)
    await bench.call("GET", "registered-models/search", max_results=1001, fails="INVALID_PARAMETER_VALUE")
    listed = await bench.http.get("http://localhost/api/2.0/preview/mlflow/registered-models/list")
    assert [model["name"] for model in listed.json()["registered_models"]] == ["a", "b", "c"]


# --- versions -------------------------------------------------------------------------------


async def test_life_of_a_version(bench: Bench) -> None:
    """A version is made, read, described, tagged, moved and deleted, and all of it is delivered."""
    await bench.call("POST", "registered-models/create", name="m")
    made = await bench.make_version("m", "s3://b/x", tags=[{"key": "k", "value": "v"}], run_link="l")
    assert made["version"] == "1"
    assert (made["current_stage"], made["status"], made["user_id"]) == ("None", "READY", "ann")
    assert (made["source"], made["run_link"], made["tags"]) == (
        "s3://b/x",
        "l",
        [{"key": "k", "value": "v"}],
    )
    of = {"name": "m", "version": "1"}
    updated = await bench.call("PATCH", "model-versions/update", **of, description="d")
    assert updated["model_version"]["description"] == "d"
    await bench.call("POST", "model-versions/set-tag", **of, key="t", value="1")
    await bench.call("DELETE", "model-versions/delete-tag", **of, key="t")
    moved = await bench.call("POST", "model-versions/transition-stage", **of, stage="production")
    assert moved["model_version"]["current_stage"] == "Production"
    assert (await bench.call("GET", "model-versions/get-download-uri", **of))["artifact_uri"] == "s3://b/x"
    await bench.call("DELETE", "model-versions/delete", **of)
    await bench.call("GET", "model-versions/get", **of, fails="RESOURCE_DOES_NOT_EXIST")
    await bench.call("DELETE", "model-versions/delete", **of, fails="RESOURCE_DOES_NOT_EXIST")
    assert (await bench.entries("m"))[1:] == [
        CreateModelVersion(1, None, None, "s3://b/x", None, {"k": "v"}, uid=ANY),
        UpdateModelVersion(1, "d"),
        SetModelVersionTag(1, "t", "1"),
        DeleteModelVersionTag(1, "t"),
        TransitionModelVersion(1, "Production", False),
        DeleteModelVersion(1),
    ]


async def test_version_numbers_are_not_used_again(bench: Bench) -> None:
    """The number of a deleted version stays taken."""
    await bench.call("POST", "registered-models/create", name="m")
    for number in ("1", "2"):
        assert (await bench.make_version("m", "s3://b/x"))["version"] == number
    await bench.call("DELETE", "model-versions/delete", name="m", version="2")
    assert (await bench.make_version("m", "s3://b/x"))["version"] == "3"
    found = await bench.call("GET", "model-versions/search", filter="name = 'm'")
    assert [version["version"] for version in found["model_versions"]] == ["3", "1"]


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("9", "RESOURCE_DOES_NOT_EXIST"),
        ("99999999999999999999", "RESOURCE_DOES_NOT_EXIST"),
        ("-1", "RESOURCE_DOES_NOT_EXIST"),
        ("x", "INVALID_PARAMETER_VALUE"),
        ("", "INVALID_PARAMETER_VALUE"),
    ],
)
async def test_versions_that_do_not_exist(bench: Bench, version: str, code: str) -> None:
    """A version that cannot be is not found, or not a version."""
    await bench.call("POST", "registered-models/create", name="m")
    of = {"name": "m", "version": version}
    await bench.call("GET", "model-versions/get", **of, fails=code)
    await bench.call("PATCH", "model-versions/update", **of, description="d", fails=code)
    await bench.call("POST", "model-versions/transition-stage", **of, stage="Staging", fails=code)
    await bench.call("POST", "registered-models/alias", **of, alias="a", fails=code)


async def test_a_version_of_no_model(bench: Bench) -> None:
    """A version needs its registered model."""
    await bench.make_version("none", "s3://b/x", fails="RESOURCE_DOES_NOT_EXIST")


async def test_stages(bench: Bench) -> None:
    """A move may archive what was in the stage; the latest of each stage is shown with the model."""
    await bench.call("POST", "registered-models/create", name="m")
    for _ in range(3):
        await bench.make_version("m", "s3://b/x")
    path = "model-versions/transition-stage"
    await bench.call("POST", path, name="m", version="1", stage="Staging")
    await bench.call("POST", path, name="m", version="2", stage="Staging")
    await bench.call("POST", path, name="m", version="3", stage="STAGING", archive_existing_versions=True)
    model = (await bench.call("GET", "registered-models/get", name="m"))["registered_model"]
    shown = [(item["version"], item["current_stage"]) for item in model["latest_versions"]]
    assert shown == [("2", "Archived"), ("3", "Staging")]
    path_of_latest = "registered-models/get-latest-versions"
    latest = await bench.call("GET", path_of_latest, name="m", stages=["staging", "None"])
    assert [item["version"] for item in latest["model_versions"]] == ["3"]
    latest = await bench.call("POST", path_of_latest, name="m")
    assert [item["version"] for item in latest["model_versions"]] == ["2", "3"]
    assert (await bench.entries("m"))[-1] == TransitionModelVersion(3, "Staging", True)
    refused = await bench.call(
        "POST", path, name="m", version="3", stage="Live", fails="INVALID_PARAMETER_VALUE"
    )
    assert refused["message"].startswith("Invalid Model Version stage: Live. Value must be one of None, ")
    await bench.call(
        "POST",
        path,
        name="m",
        version="3",
        stage="Archived",
        archive_existing_versions=True,
        fails="INVALID_PARAMETER_VALUE",
    )


async def test_aliases(bench: Bench) -> None:
    """An alias names one version, moves, goes with it, and is never delivered."""
    await bench.call("POST", "registered-models/create", name="m")
    await bench.make_version("m", "s3://b/x")
    await bench.make_version("m", "s3://b/y")
    before = await bench.entries("m")
    path = "registered-models/alias"
    await bench.call("POST", path, name="m", alias="champion", version="1")
    await bench.call("POST", path, name="m", alias="champion", version="2")
    await bench.call("POST", path, name="m", alias="old", version="1")
    found = await bench.call("GET", path, name="m", alias="champion")
    assert (found["model_version"]["version"], found["model_version"]["aliases"]) == ("2", ["champion"])
    model = (await bench.call("GET", "registered-models/get", name="m"))["registered_model"]
    assert model["aliases"] == [{"alias": "champion", "version": "2"}, {"alias": "old", "version": "1"}]
    assert (await bench.call("GET", path, name="m", alias="latest"))["model_version"]["version"] == "2"
    for alias in ("latest", "v1", "V2", "a b", ""):
        await bench.call("POST", path, name="m", alias=alias, version="1", fails="INVALID_PARAMETER_VALUE")
    for method in ("GET", "DELETE"):
        await bench.call(method, path, name="m", alias="a b", fails="INVALID_PARAMETER_VALUE")
    await bench.call("DELETE", path, name="m", alias="v1")
    await bench.call("DELETE", path, name="m", alias="old")
    await bench.call("DELETE", path, name="m", alias="old")
    assert await bench.entries("m") == before
    await bench.call("DELETE", "model-versions/delete", name="m", version="2")
    missing = await bench.call("GET", path, name="m", alias="champion", fails="INVALID_PARAMETER_VALUE")
    assert missing["message"] == "Registered model alias champion not found."


async def test_search_versions(bench: Bench) -> None:
    """Versions are found by model, run and tag, the newest first, in pages."""
    run = await bench.make_run()
    await bench.call("POST", "registered-models/create", name="m")
    await bench.call("POST", "registered-models/create", name="n")
    await bench.make_version("m", "s3://b/x", run_id=run["run_id"])
    await bench.make_version("m", "s3://b/x", tags=[{"key": "k", "value": "v"}])
    await bench.make_version("n", "s3://b/x", run_id=run["run_id"])

    async def found(**fields: Any) -> list[tuple[str, str]]:
        answer = await bench.call("GET", "model-versions/search", **fields)
        return [(item["name"], item["version"]) for item in answer.get("model_versions", [])]

    assert await found(filter="name = 'm'", order_by=["version_number ASC"]) == [("m", "1"), ("m", "2")]
    assert sorted(await found(filter=f"run_id = '{run['run_id']}'")) == [("m", "1"), ("n", "1")]
    assert await found(filter="tags.k = 'v'") == [("m", "2")]
    first = await bench.call("GET", "model-versions/search", max_results=2)
    rest = await found(max_results=2, page_token=first["next_page_token"])
    assert len(first["model_versions"]) == 2
    assert len(rest) == 1
    await bench.call("DELETE", "registered-models/delete", name="m")
    assert await found() == [("n", "1")]


# --- prompts --------------------------------------------------------------------------------


async def test_prompts_stay_here(bench: Bench) -> None:
    """Nothing about a prompt is delivered."""
    await bench.call("POST", "registered-models/create", name="p", tags=[PROMPT])
    made = await bench.make_version(
        "p", "prompt-template", tags=[PROMPT, {"key": "mlflow.prompt.text", "value": "Hi"}]
    )
    await bench.call("POST", "registered-models/set-tag", name="p", key="k", value="v")
    await bench.call("DELETE", "registered-models/delete-tag", name="p", key=PROMPT["key"])
    await bench.call("POST", "model-versions/set-tag", name="p", version="1", key="k", value="v")
    await bench.call("PATCH", "registered-models/update", name="p", description="d")
    await bench.make_version("p", "s3://b/x")
    assert made["version"] == "1"
    assert await bench.entries("p") == []


async def test_a_prompt_version_of_a_model_stays_here(bench: Bench) -> None:
    """A version that says it is a prompt is not delivered, nor what is done to it."""
    await bench.call("POST", "registered-models/create", name="m")
    await bench.make_version("m", "dummy-source", tags=[PROMPT])
    await bench.call("POST", "model-versions/set-tag", name="m", version="1", key="k", value="v")
    await bench.call("DELETE", "model-versions/delete", name="m", version="1")
    assert await bench.entries("m") == [CreateRegisteredModel("m", None, {})]


async def test_a_prompt_tag_does_not_open_files(bench: Bench) -> None:
    """CVE-2026-2614: a version cannot get past the checks by calling itself a prompt."""
    await bench.call("POST", "registered-models/create", name="m")
    refused = await bench.make_version("m", "/etc", tags=[PROMPT], fails="INVALID_PARAMETER_VALUE")
    assert refused["message"].startswith("Invalid prompt source: '/etc'")
    await bench.call("POST", "registered-models/create", name="p", tags=[PROMPT])
    await bench.make_version("p", "prompt-template", tags=[PROMPT])
    await bench.make_version("m", "models:/p/1", fails="INVALID_PARAMETER_VALUE")


# --- sources --------------------------------------------------------------------------------


async def test_files_of_a_run(bench: Bench) -> None:
    """A place in a run's folder is delivered as a path of that run, after the run and its artifacts."""
    run = await bench.make_run()
    run_id, root = run["run_id"], run["artifact_uri"]
    position = await bench.upload(run_id, "model/MLmodel")
    await bench.call("POST", "registered-models/create", name="m")
    first = await bench.make_version("m", f"{root}/model", run_id=run_id)
    second = await bench.make_version("m", f"runs:/{run_id}/model", run_id=run_id)
    third = await bench.make_version("m", f"runs:/{run_id}/my%20model/sub")
    assert [item["run_id"] for item in (first, second, third)] == [run_id] * 3
    assert second["source"] == f"runs:/{run_id}/model"
    uri = await bench.call("GET", "model-versions/get-download-uri", name="m", version="2")
    assert uri["artifact_uri"] == f"{root}/model"
    entries = (await bench.entries("m"))[1:]
    assert [(item.run_id, item.upstream_path) for item in entries] == [
        (run_id, "model"),
        (run_id, "model"),
        (run_id, "my model/sub"),
    ]
    data_lane, artifact_lane = await bench.lanes(run_id)
    assert await bench.barriers("m") == sorted(
        (entry, *barrier) for entry in (2, 3, 4) for barrier in ((data_lane, 1), (artifact_lane, position))
    )


async def test_nothing_to_wait_for(bench: Bench) -> None:
    """A run that has been delivered holds nothing up; a later upload does."""
    run_id = (await bench.make_run())["run_id"]
    await bench.upload(run_id, "model/MLmodel")
    await bench.settle_all()
    await bench.call("POST", "registered-models/create", name="m")
    await bench.make_version("m", f"runs:/{run_id}/model")
    assert await bench.barriers("m") == []
    position = await bench.upload(run_id, "model/more")
    await bench.call("POST", "runs/set-tag", run_id=run_id, key="k", value="v")
    await bench.make_version("m", f"runs:/{run_id}/model")
    _, artifact_lane = await bench.lanes(run_id)
    assert await bench.barriers("m") == [(3, artifact_lane, position)]


async def test_a_foreign_source_waits_for_its_run_only(bench: Bench) -> None:
    """Files elsewhere are delivered as they are, once the run they are said to be of exists."""
    run_id = (await bench.make_run())["run_id"]
    await bench.upload(run_id, "model/MLmodel")
    await bench.call("POST", "registered-models/create", name="m")
    await bench.make_version("m", "s3://b/x", run_id=run_id)
    made = CreateModelVersion(1, run_id, None, "s3://b/x", None, {}, uid=ANY)
    assert (await bench.entries("m"))[-1] == made
    data_lane, _ = await bench.lanes(run_id)
    assert await bench.barriers("m") == [(2, data_lane, 1)]


async def test_sources_of_other_runs(bench: Bench) -> None:
    """A source must be of the run that the request names."""
    one, two = await bench.make_run(), await bench.make_run()
    await bench.call("POST", "registered-models/create", name="m")
    for source in (
        f"{one['artifact_uri']}/model",
        f"runs:/{one['run_id']}/model",
        "mlflow-artifacts:/0/nothing/artifacts/model",
        one["artifact_uri"] + "x/model",
    ):
        refused = await bench.make_version("m", source, run_id=two["run_id"], fails="INVALID_PARAMETER_VALUE")
        assert refused["message"].startswith(f"Invalid model version source: '{source}'.")
    await bench.make_version("m", f"{one['artifact_uri']}/../x", fails="INVALID_PARAMETER_VALUE")
    assert len(await bench.entries("m")) == 1
    assert (await bench.make_version("m", "s3://b/x"))["version"] == "1"


async def test_places_that_are_not_known(bench: Bench) -> None:
    """A place of ours that belongs to no run here, and an unknown run, are kept as they are."""
    await bench.call("POST", "registered-models/create", name="m")
    await bench.make_version("m", "mlflow-artifacts:/9//x")
    await bench.make_version("m", "runs:/nobody/model")
    entries = (await bench.entries("m"))[1:]
    assert [(item.run_id, item.upstream_path, item.source) for item in entries] == [
        (None, None, "mlflow-artifacts:/9/x"),
        ("nobody", None, "runs:/nobody/model"),
    ]


async def test_files_of_a_logged_model(bench: Bench) -> None:
    """A logged model's files are delivered as a path of the run that made it."""
    run_id = (await bench.make_run())["run_id"]
    made = await bench.call("POST", "logged-models", experiment_id="0", name="net", source_run_id=run_id)
    info = made["model"]["info"]
    model_id, root = info["model_id"], info["artifact_uri"]
    await bench.call("POST", "registered-models/create", name="m")
    for source, model in (
        (f"models:/{model_id}", model_id),
        (f"models:/{model_id}", None),
        (root, model_id),
        (root, None),
    ):
        version = await bench.make_version("m", source, model_id=model)
        assert (version["run_id"], version["model_id"]) == (run_id, model_id)
    inner = await bench.make_version("m", f"{root}/data", run_id=run_id)
    by_run = await bench.make_version("m", f"runs:/{run_id}/net", run_id=run_id)
    for version, location in (("1", root), (inner["version"], f"{root}/data"), (by_run["version"], root)):
        uri = await bench.call("GET", "model-versions/get-download-uri", name="m", version=version)
        assert uri["artifact_uri"] == location
    entries = (await bench.entries("m"))[1:]
    assert [(item.run_id, item.upstream_path) for item in entries] == [
        (run_id, path) for path in ("net", "net", "net", "net", "net/data", "net")
    ]


async def test_files_of_a_run_beside_a_logged_model(bench: Bench) -> None:
    """Files that a run has under the name of its logged model are the run's."""
    run = await bench.make_run()
    await bench.call("POST", "logged-models", experiment_id="0", name="net", source_run_id=run["run_id"])
    file = ArtifactFile("net/MLmodel", 1, b"", b"x", None, None)

    def add(transaction: Transaction) -> None:
        prefix = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        root_id = artifacts.find_or_add_root(transaction, prefix, run_pk=1)
        transaction.run_all([artifacts.put(transaction, root_id, file)])

    await bench.writer.commit(Work(add))
    await bench.call("POST", "registered-models/create", name="m")
    await bench.make_version("m", f"runs:/{run['run_id']}/net")
    uri = await bench.call("GET", "model-versions/get-download-uri", name="m", version="1")
    assert uri["artifact_uri"] == f"{run['artifact_uri']}/net"


async def test_sources_of_other_logged_models(bench: Bench) -> None:
    """A source must be of the logged model that the request names, and that must be there."""
    run = await bench.make_run()
    fields = {"experiment_id": "0", "source_run_id": run["run_id"]}
    made = [(await bench.call("POST", "logged-models", **fields))["model"] for _ in range(2)]
    one, two = (model["info"] for model in made)
    await bench.call("POST", "registered-models/create", name="m")
    refused = "INVALID_PARAMETER_VALUE"
    other = two["model_id"]
    await bench.make_version("m", f"models:/{one['model_id']}", model_id=other, fails=refused)
    await bench.make_version("m", one["artifact_uri"], model_id=other, fails=refused)
    await bench.make_version("m", f"{run['artifact_uri']}/x", model_id=other, fails=refused)
    await bench.make_version("m", f"runs:/{run['run_id']}/x", model_id=other, fails=refused)
    await bench.make_version("m", f"models:/m-{'0' * 32}", fails=refused)
    await bench.make_version("m", "s3://b/x", model_id=f"m-{'0' * 32}", fails=refused)
    await bench.call("DELETE", f"logged-models/{other}")
    await bench.make_version("m", f"models:/{other}", fails=refused)


async def test_copies_of_versions(bench: Bench) -> None:
    """A copy has the files and the run of the version it is of, however that is named."""
    run = await bench.make_run()
    await bench.call("POST", "registered-models/create", name="m")
    await bench.call("POST", "registered-models/create", name="copy")
    await bench.make_version("m", f"runs:/{run['run_id']}/model")
    await bench.make_version("m", "s3://b/x")
    await bench.call("POST", "registered-models/alias", name="m", alias="good", version="1")
    await bench.call("POST", "model-versions/transition-stage", name="m", version="1", stage="Production")
    for source in ("models:/m/1", "models:/m@good", "models:/m/production"):
        copy = await bench.make_version("copy", source)
        assert (copy["source"], copy["run_id"]) == ("models:/m/1", run["run_id"])
        of = {"name": "copy", "version": copy["version"]}
        uri = (await bench.call("GET", "model-versions/get-download-uri", **of))["artifact_uri"]
        assert uri == f"{run['artifact_uri']}/model"
    foreign = await bench.make_version("copy", "models:/m/latest")
    assert foreign["source"] == "models:/m/2"
    entries = (await bench.entries("copy"))[1:]
    assert [(item.run_id, item.upstream_path) for item in entries] == [
        *[(run["run_id"], "model")] * 3,
        (None, None),
    ]
    assert entries[-1].source == "s3://b/x"
    await bench.make_version("copy", "models:/m/1", run_id="other", fails="INVALID_PARAMETER_VALUE")
    await bench.make_version("copy", "models:/m/9", fails="RESOURCE_DOES_NOT_EXIST")
    await bench.make_version("copy", "models:/none/1", fails="RESOURCE_DOES_NOT_EXIST")
    await bench.make_version("copy", "models:/m/1/x", fails="INVALID_PARAMETER_VALUE")


async def test_a_run_from_the_workspace(bench: Bench) -> None:
    """A run that was born in the workspace has no create to wait for."""
    run_id = (await bench.make_run())["run_id"]
    await bench.writer.commit(
        Work(lambda transaction: transaction.run("UPDATE lanes SET last_position = 0 WHERE kind LIKE 'run%'"))
    )
    await bench.call("POST", "registered-models/create", name="m")
    await bench.make_version("m", f"runs:/{run_id}/model")
    assert await bench.barriers("m") == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "registered-models/create"),
        ("POST", "registered-models/rename"),
        ("PATCH", "registered-models/update"),
        ("DELETE", "registered-models/delete"),
        ("GET", "registered-models/get"),
        ("POST", "registered-models/get-latest-versions"),
        ("POST", "registered-models/set-tag"),
        ("DELETE", "registered-models/delete-tag"),
        ("POST", "registered-models/alias"),
        ("DELETE", "registered-models/alias"),
        ("GET", "registered-models/alias"),
        ("POST", "model-versions/create"),
        ("PATCH", "model-versions/update"),
        ("POST", "model-versions/transition-stage"),
        ("DELETE", "model-versions/delete"),
        ("GET", "model-versions/get"),
        ("GET", "model-versions/get-download-uri"),
        ("POST", "model-versions/set-tag"),
        ("DELETE", "model-versions/delete-tag"),
    ],
)
async def test_a_name_is_required(bench: Bench, method: str, path: str) -> None:
    """Every call that is about one model wants its name."""
    refused = await bench.call(method, path, fails="INVALID_PARAMETER_VALUE")
    assert refused["message"].startswith("Missing value for required parameter 'name'.")
