"""Requests that are not what they should be: bodies, routes, keys, hosts. Never a server error."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio

from tests.support.tracking import Tracking, refusal_of, tracking_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

_INVALID = (400, "INVALID_PARAMETER_VALUE")
_JSON = {"content-type": "application/json"}
_LOG_METRIC = "/api/2.0/mlflow/runs/log-metric"


async def _send(tracking: Tracking, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return await tracking.http.post(_LOG_METRIC, content=body, headers=_JSON if headers is None else headers)


@pytest.mark.parametrize(
    "body",
    [
        b"{bad",
        b"[]",
        b"5",
        b"null",
        b'"x"',
        b'"',
        b"\xff\xfe",
        b'{"run_id": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"value": NaN}',
        b"",
        b"{}",
        b'"{}"',
    ],
)
async def test_a_body_that_is_no_message_is_refused(tracking: Tracking, body: bytes) -> None:
    """Whatever the bytes are, the answer is MLflow's error body with 400."""
    assert refusal_of(await _send(tracking, body))[:2] == _INVALID


async def test_a_body_may_be_json_inside_a_json_string(tracking: Tracking) -> None:
    """Clients of 1.x encode twice."""
    run_id = await tracking.run()
    inner = f'{{\\"run_id\\":\\"{run_id}\\",\\"key\\":\\"m\\",\\"value\\":1,\\"timestamp\\":1}}'
    answer = await _send(tracking, f'"{inner}"'.encode())
    assert answer.status_code == 200
    assert (await tracking.data(run_id))[0] == {"m": 1}


async def test_unknown_fields_are_ignored(tracking: Tracking) -> None:
    """A newer client's fields do not make its requests fail."""
    run_id = await tracking.run()
    await tracking.post(
        "runs/log-metric", run_id=run_id, key="m", value=1, timestamp=1, from_the_future={"a": [1]}
    )
    assert (await tracking.data(run_id))[0] == {"m": 1}


async def test_null_fields_are_absent(tracking: Tracking) -> None:
    """A field that is null is as if it had not been sent, lists included."""
    answer = await tracking.post("runs/create", run_name=None, tags=None, start_time=None)
    assert answer["run"]["info"]["status"] == "RUNNING"


async def test_a_query_parameter_with_two_values_is_refused(tracking: Tracking) -> None:
    """A stock server takes the first, others the last; the same value twice is one."""
    one, other = await tracking.run(), await tracking.run()
    status, code, _ = await tracking.refusal("GET", "runs/get", {"run_id": [one, other]})
    assert (status, code) == _INVALID
    answer = await tracking.get("runs/get", run_id=[one, one])
    assert answer["run"]["info"]["run_id"] == one


async def test_a_body_without_content_type_is_refused(tracking: Tracking) -> None:
    """A browser form cannot pass for JSON."""
    status, code, message = refusal_of(await _send(tracking, b'{"key": "a"}', {}))
    assert (status, code) == _INVALID
    assert message.startswith("Bad Request. Content-Type header is missing.")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_of_another_type_is_refused(tracking: Tracking, kind: str) -> None:
    """Only JSON is taken, so that another site's page has to ask first."""
    refusal = refusal_of(await _send(tracking, b"{}", {"content-type": kind}))
    assert refusal == (*_INVALID, "Bad Request. Content-Type must be application/json.")


async def test_a_body_that_is_too_large_is_refused(tracking: Tracking) -> None:
    """More than 32 MiB is answered with 413."""
    assert refusal_of(await _send(tracking, b" " * (32 * 1024 * 1024 + 1)))[0] == 413


async def test_a_page_of_another_site_cannot_write(tracking: Tracking) -> None:
    """A write with a foreign Origin is refused before it is read."""
    refusal = refusal_of(await _send(tracking, b"{}", {**_JSON, "origin": "https://evil.example"}))
    assert refusal == (403, "PERMISSION_DENIED", "Cross-origin request blocked")


async def test_a_foreign_host_name_is_refused(tracking: Tracking) -> None:
    """A name that was made to point here does not open the door."""
    answer = await tracking.http.get("/health", headers={"host": "evil.example"})
    assert refusal_of(answer)[:2] == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/2.0/mlflow/nope"),
        ("POST", "/api/2.0/mlflow/nope"),
        ("GET", "/api/9.9/mlflow/runs/get"),
        ("GET", "/api/2.0/mlflow/runs/create"),
        ("DELETE", "/api/2.0/mlflow/runs/create"),
        ("GET", "/api/2.0/mlflow/runs/get/"),
        ("PROPFIND", "/api/2.0/mlflow/runs/get"),
        ("GET", "/nope"),
    ],
)
async def test_what_is_no_endpoint_says_so_in_json(tracking: Tracking, method: str, path: str) -> None:
    """An unknown path or method is 404 ENDPOINT_NOT_FOUND, which clients understand."""
    answer = await tracking.http.request(method, path)
    assert refusal_of(answer)[:2] == (404, "ENDPOINT_NOT_FOUND")


async def test_health_and_version_answer_as_mlflow_does(tracking: Tracking) -> None:
    """/health says OK, and /version a version that clients can compare."""
    health, version = await tracking.http.get("/health"), await tracking.http.get("/version")
    assert (health.status_code, health.text) == (200, "OK")
    assert version.status_code == 200
    assert [part.isdigit() for part in version.text.split(".")] == [True, True, True]


@pytest.mark.parametrize("experiment_id", ["--1", "-", "9" * 5000, "²", "٣", "", " 0", "1e3", "\0"])
async def test_whatever_stands_for_an_experiment_id_gets_an_answer(
    tracking: Tracking, experiment_id: str
) -> None:
    """Text that only looks like a number is refused, not stumbled over."""
    for method, route, fields in (
        ("GET", "experiments/get", {"experiment_id": experiment_id}),
        ("POST", "experiments/delete", {"experiment_id": experiment_id}),
        ("POST", "runs/search", {"experiment_ids": [experiment_id]}),
        ("POST", "runs/update", {"run_id": "f" * 32, "status": experiment_id or "x"}),
    ):
        answer = await tracking.send(method, route, fields)
        assert refusal_of(answer)[0] == 400


# --- keys -----------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    make_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tracking]:
    """A server that wants keys, on SQLite."""
    folder = tmp_path_factory.mktemp("guarded")
    async with tracking_server(make_database("sqlite"), folder, auth="keys") as server:
        yield server


async def test_a_request_without_a_key_gets_a_json_401(guarded: Tracking) -> None:
    """The refusal is MLflow's error body with a challenge."""
    answer = await guarded.http.post(_LOG_METRIC, json={})
    assert refusal_of(answer)[:2] == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"].startswith("Basic ")


async def test_an_unknown_path_is_not_told_apart_without_a_key(guarded: Tracking) -> None:
    """Who has no key cannot learn which endpoints exist."""
    assert refusal_of(await guarded.http.get("/api/2.0/mlflow/nope"))[0] == 401


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer x", "Basic !!", "Basic eDp5", "Bearer mlp_000000000000_x", "Digest mlp_a_b"],
)
async def test_a_key_that_is_none_is_refused(guarded: Tracking, authorization: str) -> None:
    """Whatever stands in the header, only a key opens."""
    answer = await guarded.http.get("/api/2.0/mlproxy/status", headers={"authorization": authorization})
    assert refusal_of(answer)[:2] == (401, "UNAUTHENTICATED")


async def test_health_needs_no_key(guarded: Tracking) -> None:
    """A load balancer can ask."""
    assert (await guarded.http.get("/health")).text == "OK"
