"""Traces as unmodified stock clients make and read them, against a real server on either database.

What the clients' records must hold was taken from the same scripts' records of a stock server.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import MakeDatabase
from tests.support.interpreters import client_python, run_client
from tests.support.server import ServerProcess

Record = dict[str, Any]
ALL = ["again", "failed", "in-run", "plain", "session"]
ANSWERS = ["again", "plain", "session"]
IN_SESSION = ["again", "session"]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def tracking_uri(
    request: pytest.FixtureRequest, make_database: MakeDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A running server."""
    folder = tmp_path_factory.mktemp("traces")
    with ServerProcess.start(folder, MLPROXY_DATABASE_URL=make_database(request.param)) as server:
        yield server.url


def _record(client: str, script: str, uri: str, folder: Path) -> Record:
    path = folder / "record.json"
    run_client(client_python(client), script, str(path), folder=folder, MLFLOW_TRACKING_URI=uri)
    return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def mlflow3(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """What a client of version 3 saw."""
    return _record("mlflow3", "traces.py", tracking_uri, tmp_path_factory.mktemp("mlflow3"))


@pytest.fixture(scope="module")
def mlflow2(mlflow3: Record, tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """What a client of version 2 saw, after the other one had deleted all it had made."""
    return _record("mlflow2", "traces_v2.py", tracking_uri, tmp_path_factory.mktemp("mlflow2"))


# --- version 3 ------------------------------------------------------------------------------


def test_nested_spans_come_back(mlflow3: Record) -> None:
    """A trace comes back with its spans in their order, under their parents, with all they hold."""
    spans = mlflow3["whole"]["plain"]["spans"]
    assert [[span["name"], span["parent"], span["type"], span["status"]] for span in spans] == [
        ["answer", None, "CHAIN", "SpanStatusCode.OK"],
        ["model", 0, "LLM", "SpanStatusCode.OK"],
        ["retrieve", 0, "RETRIEVER", "SpanStatusCode.OK"],
    ]
    assert spans[0]["inputs"] == {"question": "what colour", "session": None}
    assert spans[2]["outputs"] == ["what colour deep"]
    assert spans[2]["events"] == [["looked", {"n": 1}]]


def test_a_trace_tells_of_itself(mlflow3: Record) -> None:
    """State, previews, tags, session, user and token usage are the client's."""
    trace = mlflow3["whole"]["session"]
    assert trace["state"] == "OK"
    assert trace["previews"][1] == '"what colour deep"'
    assert trace["tags"]["team"] == "red"
    assert trace["tags"]["mlflow.traceName"] == "answer"
    assert trace["tags"]["mlflow.trace.spansLocation"] == "TRACKING_STORE"
    assert trace["metadata"]["mlflow.trace.session"] == "session-1"
    assert trace["metadata"]["mlflow.trace.user"] == "ann"
    assert trace["usage"] == {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def test_a_failure_is_kept(mlflow3: Record) -> None:
    """A trace whose function raised is an error, with the exception as an event."""
    trace = mlflow3["whole"]["failed"]
    assert trace["state"] == "ERROR"
    assert trace["spans"][0]["status"] == "SpanStatusCode.ERROR"
    assert trace["spans"][0]["events"][0][1]["exception.message"] == "broken"


def test_a_trace_made_in_a_run_is_found_by_it(mlflow3: Record) -> None:
    """`search_traces(run_id=…)` finds what was traced while the run was active."""
    assert mlflow3["run"] == ["in-run"]


def test_assessments(mlflow3: Record) -> None:
    """Feedback and expectations come back in their order, the overridden one marked, the deleted one gone."""
    held = {
        (item[0], item[1] if not isinstance(item[1], list | dict) else "…"): item
        for item in mlflow3["assessments"]
    }
    assert [item[0] for item in mlflow3["assessments"]] == [
        "helpful",
        "score",
        "score",
        "grade",
        "broken",
        "list",
        "expected",
        "facts",
    ]
    assert held["helpful", True][2:5] == [True, "HUMAN", "it is"]
    assert held["score", 0.25][2] is False
    assert held["score", 0.5][2] is True
    assert held["score", 0.5][6] is True
    assert held["grade", "good"][5] == {"why": "so"}
    assert held["broken", None][7] == "no judge"
    assert held["expected", "blue"][5] == {"m": "1"}
    assert mlflow3["one"] == "blue"
    assert mlflow3["unknown"] == "RESOURCE_DOES_NOT_EXIST"


def test_tags_are_set_and_deleted(mlflow3: Record) -> None:
    """Tags change and go; one cannot go twice, and its key must be a proper name."""
    assert mlflow3["tags"]["team"] == "blue"
    assert "gone" not in mlflow3["tags"]
    assert mlflow3["refused_tags"] == ["RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("trace.status = 'OK'", ["again", "in-run", "plain", "session"]),
        ("trace.status != 'OK'", ["failed"]),
        ("trace.status IN ('OK', 'ERROR')", ALL),
        ("name ILIKE 'ANS%'", ANSWERS),
        ("name RLIKE '^(answer|fail)$'", ["again", "failed", "plain", "session"]),
        ("trace.end_time_ms > 5", ALL),
        ("tag.team != 'red'", ["plain"]),
        ("tags.team IS NULL", ["failed", "in-run"]),
        ("metadata.`mlflow.trace.session` = 'session-1'", IN_SESSION),
        ("span.name LIKE 'retr%' AND span.type = 'RETRIEVER'", ANSWERS),
        ("span.name = 'answer' AND span.type = 'RETRIEVER'", []),
        ("span.status = 'ERROR'", ["failed"]),
        ("span.attributes.k LIKE '%five%'", ANSWERS),
        ("span.attributes.k RLIKE '^five'", ANSWERS),
        ("trace.text LIKE '%deep%'", ANSWERS),
        ("feedback.helpful = 'true'", ["session"]),
        ("feedback.score > 0.4", ["session"]),
        ("feedback.score < 0.4", []),
        ("feedback.missing IS NULL", ALL),
        ("expectation.expected = 'blue'", ["session"]),
        ("client_request_id = 'request-1'", IN_SESSION),
        ("prompt = 'p/1'", ["again"]),
        ("run_id = '{run_id}'", ["failed", "plain"]),
        ("trace.status = 'OK' AND tags.team = 'red' AND span.name = 'retrieve'", IN_SESSION),
    ],
)
def test_filters(mlflow3: Record, text: str, names: list[str]) -> None:
    """A filter finds what it finds on a stock server."""
    assert mlflow3["filters"][text] == names


def test_orders_and_pages(mlflow3: Record) -> None:
    """The latest come first unless the client sorts; traces without the sort key come last; pages go on."""
    orders = mlflow3["orders"]
    assert orders["None"] == ["in-run", "failed", "again", "session", "plain"]
    assert orders["['timestamp_ms ASC']"] == ["plain", "session", "again", "failed", "in-run"]
    assert orders["['tags.team ASC']"] == ["plain", "again", "session", "in-run", "failed"]
    assert orders["['name DESC', 'timestamp ASC']"] == ["in-run", "failed", "plain", "session", "again"]
    assert mlflow3["pages"] == [["in-run", "failed"], ["again", "session", "plain"], None]


def test_what_cannot_be_searched_is_refused(mlflow3: Record) -> None:
    """What is not in the grammar is an error of the client."""
    assert [text for text, is_refused in mlflow3["refused"].items() if not is_refused] == []


def test_searches_bring_spans(mlflow3: Record) -> None:
    """A search with spans brings every trace with all of its spans."""
    assert mlflow3["with_spans"] == {"again": 3, "failed": 1, "in-run": 1, "plain": 3, "session": 3}


def test_deletion(mlflow3: Record) -> None:
    """Traces go by id and, the oldest first, by time; then they are gone."""
    assert mlflow3["deleted"] == [1, 1, 3, 0]
    assert mlflow3["left"] == 0
    assert mlflow3["gone"] is True


# --- version 2 ------------------------------------------------------------------------------


def test_a_version_2_client_reads_back_what_it_traced(mlflow2: Record) -> None:
    """Its traces come back with the spans, which it keeps in a file beside them."""
    whole = mlflow2["whole"]
    assert whole["status"] == "TraceStatus.OK"
    assert whole["tags"] == {"mlflow.traceName": "answer", "team": "red"}
    assert [span[:3] for span in whole["spans"]] == [
        ["answer", True, "UNKNOWN"],
        ["retrieve", False, "RETRIEVER"],
    ]
    assert mlflow2["by_hand"]["status"] == "TraceStatus.ERROR"
    assert mlflow2["by_hand"]["data"] == ['{"q": 1}', '{"a": 2}']


def test_a_version_2_client_searches_and_deletes(mlflow2: Record) -> None:
    """It finds its traces by attribute, tag and name, and deletes them."""
    assert mlflow2["found"] == {
        "attributes.status = 'OK'": ["answer"],
        "attributes.status = 'ERROR'": ["by hand"],
        "tags.team = 'red'": ["answer"],
        "tags.extra = '1'": ["by hand"],
        "attributes.name = 'by hand'": ["by hand"],
        "attributes.timestamp_ms > 0": ["answer", "by hand"],
    }
    assert mlflow2["order"] == ["answer", "by hand"]
    assert mlflow2["refused"] == "INVALID_PARAMETER_VALUE"
    assert mlflow2["deleted"] == [1, 1]
    assert mlflow2["left"] == []
