"""Traces, their tags, links and assessments, from the request to either database and back."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.tracing import INVALID, MISSING, V2, V3, Tracer, new_id, span, tracing_server
from tests.support.tracking import Json

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def tracer(database_url: str, tmp_path: Path) -> AsyncIterator[Tracer]:
    """A client of a server on an empty database."""
    async with tracing_server(database_url, tmp_path) as tracer:
        yield tracer


# --- what a client says of a trace ----------------------------------------------------------


async def test_a_trace_comes_back_as_it_was_started(tracer: Tracer) -> None:
    """Everything a client says of a trace comes back, and the server's own tag and mark beside it."""
    trace_id = await tracer.start(
        client_request_id="c",
        request_preview="q",
        response_preview="a",
        execution_duration="1.500s",
        trace_metadata={"k": "v"},
        tags={"mlflow.traceName": "n"},
    )
    info = await tracer.get(trace_id)
    assert info == {
        **tracer.info(trace_id),
        "client_request_id": "c",
        "request_preview": "q",
        "response_preview": "a",
        "execution_duration": "1.500s",
        "trace_metadata": {"k": "v", "mlflow.trace.infoFinalized": "true"},
        "tags": {
            "mlflow.traceName": "n",
            "mlflow.artifactLocation": (
                f"mlflow-artifacts:/{tracer.experiment_id}/traces/{trace_id}/artifacts"
            ),
        },
    }


async def test_starting_a_trace_twice_adds_to_it(tracer: Tracer) -> None:
    """A second start changes what it names and leaves previews, tags and assessments that it does not."""
    trace_id = await tracer.start(request_preview="q", tags={"a": "1", "b": "1"}, state="IN_PROGRESS")
    await tracer.assess(trace_id, "kept", value=True)
    await tracer.start(trace_id=trace_id, tags={"b": "2"}, state="ERROR")
    info = await tracer.get(trace_id)
    assert info["state"] == "ERROR"
    assert info["request_preview"] == "q"
    assert {"a": "1", "b": "2"}.items() <= info["tags"].items()
    assert [item["assessment_name"] for item in info["assessments"]] == ["kept"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"trace_id": ""}, INVALID),
        ({"trace_id": "t" * 251}, INVALID),
        ({"trace_location": {"mlflow_experiment": {"experiment_id": "999"}}}, MISSING),
        ({"trace_location": {"mlflow_experiment": {"experiment_id": "abc"}}}, INVALID),
        ({"request_time": "yesterday"}, INVALID),
        ({"execution_duration": "1 s"}, INVALID),
        ({"trace_metadata": {"mlflow.trace.session": "s" * 251}}, INVALID),
        ({"tags": {"mlflow.traceName": "n" * 4097}}, INVALID),
        ({"tags": {"k": "\0"}}, INVALID),
        ({"tags": {"k": 1}}, INVALID),
        ({"assessments": [{"assessment_name": "f"}]}, INVALID),
    ],
)
async def test_a_trace_that_cannot_be_kept_is_refused(tracer: Tracer, change: Json, code: str) -> None:
    """What cannot be stored or read back is an error of the client, and nothing of it is kept."""
    info = {**tracer.info(new_id()), **change}
    assert (await tracer.server.refusal("POST", V3, {"trace": {"trace_info": info}}))[1] == code
    assert await tracer.search() == []


async def test_a_deleted_experiment_takes_no_traces(tracer: Tracer) -> None:
    """A trace cannot be started in a deleted experiment; those that are there are still found."""
    trace_id = await tracer.start()
    await tracer.server.post("experiments/delete", experiment_id=tracer.experiment_id)
    refused = await tracer.server.refusal("POST", V3, {"trace": {"trace_info": tracer.info(new_id())}})
    assert refused == (
        400,
        INVALID,
        f"The experiment {tracer.experiment_id} must be in the 'active' state. Current state is deleted.",
    )
    assert await tracer.search() == [trace_id]


async def test_long_values_are_shown_cut(tracer: Tracer) -> None:
    """Metadata is shown up to 250 characters and tags up to 4096, as every client expects."""
    trace_id = await tracer.start(trace_metadata={"m": "x" * 300}, tags={"t": "y" * 5000})
    info = await tracer.get(trace_id)
    assert len(info["trace_metadata"]["m"]) == 250
    assert len(info["tags"]["t"]) == 4096


# --- tags, links, deletion ------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.0", "3.0"])
async def test_tags(tracer: Tracer, version: str) -> None:
    """Both versions set and delete tags; the server's own tags are not to be touched."""
    trace_id = await tracer.start()
    path = f"/api/{version}/mlflow/traces/{trace_id}/tags"
    assert (await tracer.server.send("PATCH", path, {"key": "k", "value": "v" * 9000})).json() == {}
    assert len(await tracer.search(f"tags.k = '{'v' * 8000}'")) == 1
    assert (await tracer.server.send("DELETE", path, {"key": "k"})).json() == {}
    refused = await tracer.server.refusal("DELETE", path, {"key": "k"})
    assert refused == (404, MISSING, f"No trace tag with key 'k' for trace with ID '{trace_id}'")
    refused = await tracer.server.refusal("PATCH", path, {"key": "mlflow.trace.spansLocation", "value": "x"})
    assert refused[2] == "Tag 'mlflow.trace.spansLocation' is immutable and cannot be set on a trace."
    unknown = await tracer.server.refusal("PATCH", f"{V3}/tr-none/tags", {"key": "k", "value": "v"})
    assert unknown[:2] == (404, MISSING)


async def test_links_may_come_before_the_trace(tracer: Tracer) -> None:
    """A trace is found by a run it was linked to, whichever came first, and by the run it was made in."""
    trace_id = new_id()
    await tracer.server.post(f"{V2}/link-to-run", trace_ids=[trace_id], run_id="r1")
    await tracer.server.post(f"{V2}/link-to-run", trace_ids=[trace_id], run_id="r1")
    await tracer.spans(span(trace_id))
    other = await tracer.start(trace_metadata={"mlflow.sourceRun": "r1"})
    assert set(await tracer.search("run_id = 'r1'")) == {trace_id, other}
    assert await tracer.search("run_id = 'r2'") == []
    await tracer.spans(span(new_id()), x_mlflow_run_id="r2")
    assert len(await tracer.search("run_id = 'r2'")) == 1


async def test_prompts_are_linked(tracer: Tracer) -> None:
    """A trace is found by the version of a prompt it used."""
    trace_id = await tracer.start()
    prompts = [{"name": "p", "version": "1"}, {"name": "q", "version": "2"}]
    await tracer.server.post(f"{V2}/link-prompts", trace_id=trace_id, prompt_versions=prompts)
    assert await tracer.search("prompt = 'q/2'") == [trace_id]
    assert await tracer.search("prompt = 'q/1'") == []
    fields = {"trace_id": "tr-none", "prompt_versions": prompts}
    assert (await tracer.server.refusal("POST", f"{V2}/link-prompts", fields))[1] == MISSING


async def test_too_many_links_are_refused(tracer: Tracer) -> None:
    """A request links a hundred traces at most."""
    fields = {"trace_ids": [str(number) for number in range(101)], "run_id": "r"}
    refused = await tracer.server.refusal("POST", f"{V2}/link-to-run", fields)
    assert refused[2] == (
        "Cannot link more than 100 traces to a run in a single request. Provided 101 traces."
    )


async def test_deleting_leaves_nothing_behind(tracer: Tracer) -> None:
    """With a trace go its spans, tags, metadata, assessments and links; its id may come again."""
    trace_id = new_id()
    await tracer.spans(span(trace_id, attributes={"session.id": "s"}))
    await tracer.assess(trace_id, "f", value=1)
    await tracer.server.post(f"{V2}/link-to-run", trace_ids=[trace_id], run_id="r")
    fields = {"experiment_id": tracer.experiment_id, "request_ids": [trace_id, "tr-none"]}
    assert await tracer.server.post(f"{V3}/delete-traces", **fields) == {"traces_deleted": 1}
    tables = ("traces", "spans", "trace_tags", "trace_metadata", "assessments", "trace_links")
    for table in tables:
        rows = await tracer.server.journal.database.read(
            lambda transaction, table=table: transaction.rows(f"SELECT 1 FROM {table}")  # type: ignore[misc]
        )
        assert rows == [], table
    await tracer.start(trace_id=trace_id)
    assert "assessments" not in await tracer.get(trace_id)


async def test_deleting_by_time_goes_from_the_oldest(tracer: Tracer) -> None:
    """The oldest go first, up to the moment and the number given, in slices without end."""
    made = [await tracer.start(request_time=f"2024-01-01T00:00:0{number}Z") for number in range(5)]
    upto = 1_704_067_203_000
    for most, deleted in ((2, 2), (None, 2), (None, 0)):
        fields: Json = {"experiment_id": tracer.experiment_id, "max_timestamp_millis": upto}
        if most is not None:
            fields["max_traces"] = most
        assert (await tracer.server.post(f"{V3}/delete-traces", **fields))["traces_deleted"] == deleted
    assert await tracer.search() == [made[4]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "Either `max_timestamp_millis` or `trace_ids` must be specified."),
        (
            {"request_ids": ["t"], "max_timestamp_millis": 1},
            "Only one of `max_timestamp_millis` and `trace_ids` can be specified.",
        ),
        (
            {"request_ids": ["t"], "max_traces": 1},
            "`max_traces` can't be specified if `trace_ids` is specified.",
        ),
        (
            {"max_timestamp_millis": 1, "max_traces": 0},
            "`max_traces` must be a positive integer, received 0.",
        ),
    ],
)
async def test_deletions_that_are_refused(tracer: Tracer, fields: Json, message: str) -> None:
    """A deletion says clearly what it means."""
    fields = {"experiment_id": tracer.experiment_id, **fields}
    assert (await tracer.server.refusal("POST", f"{V2}/delete-traces", fields))[2] == message


# --- version 2 ------------------------------------------------------------------------------


async def test_a_trace_of_version_2(tracer: Tracer) -> None:
    """It is begun under an id of ours, ended, and read in the words of either version."""
    begun = await tracer.server.post(
        V2,
        experiment_id=tracer.experiment_id,
        timestamp_ms=1000,
        request_metadata=[{"key": "m", "value": "1"}],
        tags=[{"key": "mlflow.traceName", "value": "n"}],
    )
    info = begun["trace_info"]
    assert (info["status"], info["execution_time_ms"]) == ("IN_PROGRESS", 0)
    path = f"{V2}/{info['request_id']}"
    fields = {"timestamp_ms": 1500, "status": "OK", "request_metadata": [{"key": "m2", "value": "2"}]}
    assert (await tracer.server.send("PATCH", path, fields)).status_code == 200
    ended = (await tracer.server.get(f"{path}/info"))["trace_info"]
    assert (ended["timestamp_ms"], ended["execution_time_ms"], ended["status"]) == (1000, 500, "OK")
    assert {item["key"]: item["value"] for item in ended["request_metadata"]} == {"m": "1", "m2": "2"}
    found = await tracer.server.get(V2, experiment_ids=[tracer.experiment_id], filter="name = 'n'")
    assert [trace["request_id"] for trace in found["traces"]] == [info["request_id"]]
    newer = await tracer.get(info["request_id"])
    assert (newer["request_time"], newer["execution_duration"]) == ("1970-01-01T00:00:01Z", "0.500s")
    assert (await tracer.server.refusal("PATCH", f"{V2}/none", fields))[1] == MISSING


# --- assessments ----------------------------------------------------------------------------


async def test_overriding_and_back(tracer: Tracer) -> None:
    """An overridden assessment counts no longer, until the one that overrides it is deleted."""
    trace_id = await tracer.start()
    first = await tracer.assess(trace_id, "score", value=1)
    second = await tracer.assess(trace_id, "score", value=2, overrides=first)
    path = f"{V3}/{trace_id}/assessments"
    assert (await tracer.server.get(f"{path}/{first}"))["assessment"]["valid"] is False
    assert await tracer.search("feedback.score < 1.5") == []
    assert await tracer.metrics("ASSESSMENTS", "assessment_value", "AVG") == [({}, {"AVG": 2.0})]
    for _ in range(2):
        assert (await tracer.server.send("DELETE", f"{path}/{second}")).json() == {}
    assert (await tracer.server.get(f"{path}/{first}"))["assessment"]["valid"] is True
    assert await tracer.search("feedback.score < 1.5") == [trace_id]


async def test_updating_an_assessment(tracer: Tracer) -> None:
    """An update changes what its mask names and adds to the metadata."""
    trace_id = await tracer.start()
    assessment_id = await tracer.assess(trace_id, "a", value=1, metadata={"x": "1"}, rationale="old")
    fields = {
        "assessment": {"feedback": {"value": "yes"}, "metadata": {"y": "2"}, "assessment_name": "b"},
        "update_mask": "feedback,metadata,assessmentName",
    }
    answer = await tracer.server.send("PATCH", f"{V3}/{trace_id}/assessments/{assessment_id}", fields)
    changed = answer.json()["assessment"]
    assert (changed["assessment_name"], changed["feedback"], changed["rationale"]) == (
        "b",
        {"value": "yes"},
        "old",
    )
    assert changed["metadata"] == {"x": "1", "y": "2"}
    wrong = {"assessment": {"expectation": {"value": 1}}, "update_mask": "expectation"}
    refused = await tracer.server.refusal("PATCH", f"{V3}/{trace_id}/assessments/{assessment_id}", wrong)
    assert refused[2] == "Cannot update expectation value on a Feedback assessment."


@pytest.mark.parametrize(
    ("value", "shown"),
    [(5, 5.0), (True, True), (None, None), (["a"], ["a"]), ({"a": 1}, {"a": 1.0}), ("x", "x")],
)
async def test_feedback_of_any_kind(tracer: Tracer, value: Any, shown: Any) -> None:
    """Feedback is whatever JSON holds; numbers are doubles."""
    trace_id = await tracer.start()
    await tracer.assess(trace_id, "f", value=value)
    assert (await tracer.get(trace_id))["assessments"][0]["feedback"] == {"value": shown}


async def test_an_assessments_id_is_taken_once(tracer: Tracer) -> None:
    """An id that one trace's assessment has cannot be taken by another's."""
    one, other = await tracer.start(), await tracer.start()
    await tracer.assess(one, "f", value=1, assessment_id="a-1")
    assessment = {"assessment_id": "a-1", "assessment_name": "g", "feedback": {"value": 2}}
    path = f"{V3}/{other}/assessments"
    assert (await tracer.server.refusal("POST", path, {"assessment": assessment}))[1] == INVALID
    info = {**tracer.info(other), "assessments": [assessment]}
    assert (await tracer.server.refusal("POST", V3, {"trace": {"trace_info": info}}))[1] == INVALID
    assert (await tracer.get(one))["assessments"][0]["feedback"] == {"value": 1.0}


async def test_assessing_what_is_not_there(tracer: Tracer) -> None:
    """Unknown traces, assessments and kinds are refused in MLflow's words."""
    trace_id = await tracer.start()
    path = f"{V3}/{trace_id}/assessments"
    feedback = {"assessment_name": "f", "feedback": {"value": 1}}
    calls: list[tuple[str, str, Json, str]] = [
        ("POST", f"{V3}/none/assessments", {"assessment": feedback}, "Trace with ID 'none' not found."),
        ("GET", f"{V3}/none/assessments/a", {}, "Trace with request_id 'none' not found"),
        ("GET", f"{path}/a", {}, f"Assessment with ID 'a' not found for trace '{trace_id}'"),
        (
            "POST",
            path,
            {"assessment": {**feedback, "overrides": "a"}},
            f"Assessment with ID 'a' not found for trace '{trace_id}'",
        ),
        ("POST", path, {"assessment": {"assessment_name": "f"}}, "Unknown assessment type: None"),
        (
            "POST",
            path,
            {"assessment": {"assessment_name": "f", "expectation": {"value": None}}},
            "The `value` field must be specified.",
        ),
    ]
    for method, where, fields, message in calls:
        assert (await tracer.server.refusal(method, where, fields))[2] == message


async def test_a_sessions_assessment_counts_for_all_its_traces(tracer: Tracer) -> None:
    """What was said of a whole session is found on every trace of it, in this experiment."""
    session = {"mlflow.trace.session": "s"}
    one, other = await tracer.start(trace_metadata=session), await tracer.start(trace_metadata=session)
    apart = await tracer.start()
    await tracer.assess(one, "good", value="yes", metadata=session)
    await tracer.assess(one, "own", value="yes")
    assert set(await tracer.search("feedback.good = 'yes'")) == {one, other}
    assert await tracer.search("feedback.own = 'yes'") == [one]
    assert await tracer.search("feedback.good IS NULL") == [apart]
    assert set(await tracer.search("feedback.own IS NULL")) == {other, apart}
