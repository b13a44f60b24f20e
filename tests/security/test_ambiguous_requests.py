"""Nothing is said twice: a field under two spellings, a key that repeats, a header that repeats."""

import json

import httpx
import pytest

from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

JSON = {"Content-Type": "application/json"}
GET_RUN = "/api/2.0/mlflow/runs/get"
SET_TAG = "/api/2.0/mlflow/runs/set-tag"

BODIES = {
    "a key twice": '{"run_id":"RUN","run_id":"other","key":"k","value":"v"}',
    "a key twice, other way": '{"run_id":"other","run_id":"RUN","key":"k","value":"v"}',
    "the same value twice": '{"run_id":"RUN","run_id":"RUN","key":"k","value":"v"}',
    "escaped spelling": '{"run_id":"RUN","run\\u005fid":"other","key":"k","value":"v"}',
    "fully escaped": '{"key":"k","run_id":"RUN","\\u0072\\u0075\\u006e\\u005f\\u0069\\u0064":"x","value":""}',
    "null, then a value": '{"run_id":null,"run_id":"RUN","key":"k","value":"v"}',
    "old name beside new": '{"run_id":"RUN","run_uuid":"other","key":"k","value":"v"}',
    "three times": '{"key":"k","key":"l","run_id":"RUN","key":"m","value":"v"}',
    "in a string": json.dumps('{"run_id":"RUN","run_id":"other","key":"k","value":"v"}'),
    "with a byte order mark": '\ufeff{"run_id":"RUN","key":"k","value":"v"}',
    "two documents": '{"run_id":"RUN","key":"k","value":"v"}{"run_id":"other"}',
    "comment": '{"run_id":"RUN",/*"run_id":"other",*/"key":"k","value":"v"}',
    "comma at the end": '{"run_id":"RUN","key":"k","value":"v",}',
    "single quotes": "{'run_id':'RUN','key':'k','value':'v'}",
    "not a number": '{"run_id":"RUN","key":"k","value":NaN}',
    "a list around": '[{"run_id":"RUN","key":"k","value":"v"}]',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_says_one_thing(writer: httpx.Client, run_id: str, body: str) -> None:
    """Two readers could take two things from it, so nobody takes any."""
    answer = writer.post(SET_TAG, content=body.replace("RUN", run_id).encode(), headers=JSON)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"


OTHER_SPELLINGS = ["runId", "RUN_ID", "run-id", "runID", "run_id ", " run_id", "run_id\u200b", "run.id"]


@pytest.mark.parametrize("name", OTHER_SPELLINGS)
def test_another_spelling_is_another_field(writer: httpx.Client, run_id: str, name: str) -> None:
    """It names no run: protobuf's camel case does not replace what was judged."""
    answer = writer.post(SET_TAG, json={name: run_id, "key": "k", "value": "v"})
    assert (answer.status_code, "run_id" in answer.json()["message"]) == (400, True)
    both = writer.post(SET_TAG, json={"run_id": "0" * 32, name: run_id, "key": "k", "value": "v"})
    assert both.status_code == 404, both.text


@pytest.mark.parametrize(
    "query",
    [
        "run_id=RUN&run_id=other",
        "run_id=other&run_id=RUN",
        "run_id=RUN&run_uuid=other",
        "run_id=RUN&run%5Fid=x",
    ],
)
def test_a_query_says_one_thing(writer: httpx.Client, run_id: str, query: str) -> None:
    """A parameter that repeats names two runs, not the first and not the last."""
    answer = writer.get(f"{GET_RUN}?{query.replace('RUN', run_id)}")
    assert answer.status_code == 400, answer.text


def test_a_reads_body_is_not_looked_at(writer: httpx.Client, run_id: str) -> None:
    """What a GET asks for stands in its address only."""
    other = writer.request("GET", f"{GET_RUN}?run_id={'0' * 32}", json={"run_id": run_id})
    assert other.status_code == 404
    none = writer.request("GET", GET_RUN, json={"run_id": run_id})
    assert none.status_code == 400


def test_a_writes_query_is_not_looked_at(writer: httpx.Client, run_id: str) -> None:
    """What a POST says stands in its body only."""
    answer = writer.post(f"{SET_TAG}?run_id={run_id}&key=k&value=v", json={"key": "k", "value": "v"})
    assert answer.status_code == 400


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("Host", "localhost", "evil.example"),
        ("Authorization", "Bearer KEY", "Bearer other"),
        ("Origin", "http://localhost", "https://evil.example"),
        ("Content-Type", "application/json", "text/plain"),
        ("Sec-Fetch-Site", "same-origin", "cross-site"),
    ],
)
def test_a_header_says_one_thing(
    server: ServerProcess, keys: dict[str, str], name: str, good: str, bad: str, order: int
) -> None:
    """Whichever of the two somebody else believes."""
    lines = {
        "Authorization": f"Bearer {keys['write']}",
        "Content-Type": "application/json",
        "Host": "localhost",
    }
    lines.pop(name, None)
    pair = [f"{name}: {value.replace('KEY', keys['write'])}" for value in (good, bad)]
    sent = request_bytes(
        "/api/2.0/mlflow/experiments/create",
        *[f"{key}: {value}" for key, value in lines.items()],
        *(pair if order else pair[::-1]),
        method="POST",
        host=None,
        body=b'{"name":"two headers"}',
    )
    assert send_raw(server.port, sent).status == 400


def test_a_cookie_that_is_sent_twice_is_nobodys(server: ServerProcess, keys: dict[str, str]) -> None:
    """A sibling site can plant a second one of our name."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        client.post("/login", json={"key": keys["read"]})
        good = client.cookies["mlproxy_session"]
    path = "/api/2.0/mlflow/experiments/search?max_results=1"
    for pair in (
        f"{good}; mlproxy_session=x",
        f"x; mlproxy_session={good}",
        f"{good}; mlproxy_session={good}",
    ):
        assert send_raw(server.port, request_bytes(path, f"Cookie: mlproxy_session={pair}")).status == 401
    assert send_raw(server.port, request_bytes(path, f"Cookie: mlproxy_session={good}")).status == 200
