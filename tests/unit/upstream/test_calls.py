"""What is put on the wire, and what is made of unexpected answers."""

import json
import math
from urllib.parse import unquote

import httpx
import pytest

from server.domain.entities import RunStatus
from server.domain.verdicts import Verdict
from server.upstream.connection import Connection
from server.upstream.experiments import UpstreamExperiments
from server.upstream.failures import UpstreamFailure
from server.upstream.metrics import UpstreamMetrics
from server.upstream.models import UpstreamModels
from server.upstream.runs import NewRun, UpstreamMetric, UpstreamRuns

pytestmark = pytest.mark.asyncio
RUN_ID = "74dcf196-82bc-4674-8e97-90fd57eab2b7"


async def test_a_run_is_created_as_azureml_core_does_it(connection: Connection, wire, address) -> None:
    """A PATCH under our id on the experiment's name, then the start event."""
    name = "exp #1 50% +é"
    run = NewRun(RUN_ID, name, "id", "run name", 1_700_000_000_123, "parent-1", {"a": "b"}, "me")
    await UpstreamRuns(connection).create_or_modify(run)
    patch, event = wire.requests
    encoded = "exp%20%231%2050%25%20%2B%C3%A9"
    path = f"/history/v1.0{address.path}/experiments/{encoded}/runs/{RUN_ID}"
    assert (patch.method, patch.url.raw_path.decode()) == ("PATCH", path)
    assert patch.headers["content-type"] == "application/json-patch+json; charset=utf-8"
    assert json.loads(patch.content) == {
        "runId": RUN_ID,
        "displayName": "run name",
        "parentRunId": "parent-1",
        "startTimeUtc": "2023-11-14T22:13:20.123Z",
        "target": "local",
        "tags": {"mlflow.user": "me", "a": "b"},
        "runTypeV2": {"orchestrator": "External", "traits": ["unspecified"]},
    }
    assert (event.method, event.url.raw_path.decode()) == ("POST", f"{path}/events")
    assert json.loads(event.content) == {
        "timestamp": "2023-11-14T22:13:20.123Z",
        "name": "Microsoft.MachineLearning.Run.Start",
        "data": {"RunId": RUN_ID, "StartTime": "2023-11-14T22:13:20.123Z"},
    }


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "x" * 2_000])
async def test_an_experiment_name_that_would_be_another_path_is_never_sent(
    connection: Connection, wire, name: str
) -> None:
    """A name that an address cannot hold is refused here, for good."""
    with pytest.raises(UpstreamFailure) as caught:
        await UpstreamRuns(connection).create_or_modify(NewRun(RUN_ID, name, "id", "n", 1))
    assert caught.value.verdict is Verdict.PARK
    assert wire.requests == []


async def test_a_slash_stays_inside_its_name(connection: Connection, wire) -> None:
    """A slash in a name does not begin another part of the path."""
    await UpstreamRuns(connection).create_or_modify(NewRun(RUN_ID, "a/../b", "id", "n", 1))
    assert b"/experiments/a%2F..%2Fb/runs/" in wire.requests[0].url.raw_path


async def test_numbers_that_json_cannot_hold_are_strings(connection: Connection, wire) -> None:
    """NaN and infinities are sent as MLflow's client sends them."""
    values = [math.nan, math.inf, -math.inf, 0.5]
    await UpstreamRuns(connection).log_batch(RUN_ID, [UpstreamMetric("m", value, 1, 2) for value in values])
    sent = json.loads(wire.last.content)
    assert [metric["value"] for metric in sent["metrics"]] == ["NaN", "Infinity", "-Infinity", 0.5]
    assert sent.keys() == {"run_id", "metrics"}


async def test_only_what_changes_is_updated(connection: Connection, wire) -> None:
    """An update names the run in both ways and nothing that was not given."""
    await UpstreamRuns(connection).update(RUN_ID, RunStatus.KILLED)
    assert json.loads(wire.last.content) == {"run_id": RUN_ID, "run_uuid": RUN_ID, "status": "KILLED"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("FINISHED", RunStatus.FINISHED),
        ("Completed", RunStatus.FINISHED),
        ("Canceled", RunStatus.KILLED),
        ("Preparing", RunStatus.SCHEDULED),
        ("Finalizing", RunStatus.RUNNING),
        (None, RunStatus.RUNNING),
    ],
)
async def test_every_status_of_the_workspace_is_one_of_mlflows(
    connection: Connection, wire, status: str | None, expected: RunStatus
) -> None:
    """Run History's words and MLflow's lead to the same states."""
    info = {"run_id": RUN_ID, "status": status, "start_time": "1700000000123", "end_time": 0}
    wire.answer = lambda _: httpx.Response(200, json={"run": {"info": info}})
    found = await UpstreamRuns(connection).find(RUN_ID)
    assert found is not None
    assert (found.status, found.start_time_ms, found.end_time_ms) == (expected, 1_700_000_000_123, None)


async def test_a_history_is_asked_for_in_pages_the_workspace_allows(connection: Connection, wire) -> None:
    """Pages stay under the workspace's thousand, and strings are numbers again."""
    point = {"key": "m", "value": "NaN", "timestamp": "5", "step": "6"}
    wire.replies(
        httpx.Response(200, json={"metrics": [point], "next_page_token": "p 2"}),
        httpx.Response(200, json={"metrics": [{"key": "m", "value": "-Infinity"}], "next_page_token": ""}),
    )
    held = [one async for one in UpstreamMetrics(connection).history(RUN_ID, "m", 25_000)]
    assert repr(held) == repr([UpstreamMetric("m", math.nan, 5, 6), UpstreamMetric("m", -math.inf, 0, 0)])
    assert [request.url.params.get("max_results") for request in wire.requests] == ["900", "900"]
    assert wire.last.url.params["page_token"] == "p 2"


async def test_a_marker_is_checked_on_what_comes_back(connection: Connection, wire) -> None:
    """A search that finds too much does not make other runs ours; the oldest comes first."""

    def run(run_id: str, start: int, marker: str) -> dict[str, object]:
        info = {"run_id": run_id, "start_time": start}
        return {"info": info, "data": {"tags": [{"key": "mlproxy.run_uid", "value": marker}]}}

    wire.replies(
        httpx.Response(200, json={"runs": [run("b", 2, "u"), run("x", 1, "other")], "next_page_token": "t"}),
        httpx.Response(200, json={"runs": [run("a", 1, "u")]}),
    )
    assert await UpstreamRuns(connection).find_by_marker("e", "u") == ["a", "b"]
    assert json.loads(wire.requests[0].content)["filter"] == "tags.mlproxy.run_uid = 'u'"


@pytest.mark.parametrize("marker", ["", "a'b", "a b", "x" * 300])
async def test_what_is_no_marker_is_never_sent(connection: Connection, wire, marker: str) -> None:
    """A marker cannot change the search."""
    with pytest.raises(UpstreamFailure):
        await UpstreamRuns(connection).find_by_marker("e", marker)
    assert wire.requests == []


async def test_versions_are_filtered_here(connection: Connection, wire) -> None:
    """The workspace filters by name only; tags and look-alike names are sorted out here."""

    def version(name: str, number: str, value: str) -> dict[str, object]:
        return {"name": name, "version": number, "tags": [{"key": "k", "value": value}]}

    found = [version("m", "10", "v"), version("m", "9", "v"), version("M", "1", "v"), version("m", "2", "w")]
    wire.answer = lambda _: httpx.Response(
        200, json={"model_versions": [*found, {"name": "m", "version": "3"}]}
    )
    assert await UpstreamModels(connection).find_versions_by_tag("m", "k", "v") == ["9", "10"]
    assert unquote(wire.last.url.params["filter"]) == "name='m'"


@pytest.mark.parametrize(("name", "literal"), [("it's", 'name="it\'s"'), ('a"b', "name='a\"b'")])
async def test_a_quote_does_not_end_a_name(connection: Connection, wire, name: str, literal: str) -> None:
    """The filter is quoted with what the name does not contain."""
    await UpstreamModels(connection).find_versions_by_tag(name, "k", "v")
    assert wire.last.url.params["filter"] == literal
    with pytest.raises(UpstreamFailure):
        await UpstreamModels(connection).find_versions_by_tag("'\"", "k", "v")


@pytest.mark.parametrize(
    "body", [{}, [], "x", None, 3, {"experiment_id": None}, {"run": 1}, {"model_version": []}]
)
async def test_a_write_with_an_unexpected_answer_is_uncertain(
    connection: Connection, wire, body: object
) -> None:
    """An answer that is not the one we know never looks like success, nor like a crash."""
    wire.answer = lambda _: httpx.Response(200, json=body)
    run = NewRun(RUN_ID, "e", "id", "n", 1)
    for call in (
        UpstreamExperiments(connection).create("x"),
        UpstreamRuns(connection).create_with_marker(run, "m"),
        UpstreamModels(connection).create_version("m", "s"),
    ):
        with pytest.raises(UpstreamFailure) as caught:
            await call
        assert caught.value.verdict is Verdict.UNCERTAIN


async def test_an_empty_404_does_not_mean_that_the_run_is_gone(connection: Connection, wire) -> None:
    """A missing route is never read as a missing run."""
    wire.answer = lambda _: httpx.Response(404)
    with pytest.raises(UpstreamFailure) as caught:
        await UpstreamRuns(connection).find(RUN_ID)
    assert caught.value.is_unsupported_route
