"""Calls to the workspace: who gets the token, what an answer is."""

import json
import logging

import httpx
import pytest

from server.domain.verdicts import Verdict
from server.upstream.channel import create_http_client
from server.upstream.connection import Connection
from server.upstream.credentials import CredentialError
from server.upstream.failures import UpstreamFailure
from server.upstream.reachability import check

pytestmark = pytest.mark.asyncio


async def test_a_call_carries_token_agent_and_request_id(connection: Connection, wire) -> None:
    """Every call is authorised, tells who we are and can be found in the workspace's logs."""
    await connection.mlflow("POST", "runs/update", json={"run_id": "ü"})
    headers = wire.last.headers
    assert headers["authorization"] == "Bearer token-1"
    assert headers["user-agent"].startswith("mlflow-azureml-proxy/")
    assert len(headers["x-ms-client-request-id"]) == 36
    assert headers["content-type"] == "application/json"
    assert json.loads(wire.last.content) == {"run_id": "ü"}


async def test_a_refused_token_is_renewed_once(connection: Connection, wire, identity) -> None:
    """A 401 leads to one renewal and one more try."""
    wire.replies(httpx.Response(401), httpx.Response(200, json={"a": 1}))
    assert await connection.mlflow("GET", "runs/get") == {"a": 1}
    assert [request.headers["authorization"] for request in wire.requests] == [
        "Bearer token-1",
        "Bearer token-2",
    ]


async def test_a_second_refusal_waits(connection: Connection, wire, identity) -> None:
    """A renewed token that is refused too is not renewed again by this call."""
    wire.answer = lambda _: httpx.Response(401, json={"error": {"code": "UserError", "message": "no"}})
    with pytest.raises(UpstreamFailure) as caught:
        await connection.mlflow("POST", "runs/update", json={})
    assert (caught.value.verdict, caught.value.status) == (Verdict.WAIT, 401)
    assert (len(wire.requests), identity.opened) == (2, 2)


async def test_without_a_token_nothing_is_sent(connection: Connection, wire, identity) -> None:
    """No credential means WAIT, before any call."""
    identity.error = RuntimeError("none")
    with pytest.raises(CredentialError):
        await connection.mlflow("GET", "runs/get")
    assert wire.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/history/v1.0/x",
        "http://westeurope.api.azureml.ms/x",
        "https://westeurope.api.azureml.ms:444/x",
        "https://westeurope.api.azureml.ms.evil.example/x",
        "https://westeurope.api.azureml.ms@evil.example/x",
        "https://user@westeurope.api.azureml.ms/x",
        "//evil.example/x",
        "not a url",
    ],
)
async def test_the_token_goes_to_the_workspaces_host_only(connection: Connection, wire, url: str) -> None:
    """An address on any other host, scheme or port is refused before the token is even fetched."""
    with pytest.raises(UpstreamFailure) as caught:
        await connection.request("GET", url)
    assert caught.value.verdict is Verdict.PARK
    assert wire.requests == []


async def test_a_redirect_is_not_followed(connection: Connection, wire) -> None:
    """The token is not carried to wherever an answer points."""
    wire.answer = lambda _: httpx.Response(302, headers={"location": "https://evil.example/"})
    with pytest.raises(UpstreamFailure) as caught:
        await connection.mlflow("GET", "runs/get")
    assert (caught.value.verdict, len(wire.requests)) == (Verdict.RETRY, 1)


@pytest.mark.parametrize("body", [b"", b"   ", b"<html>", b'{"a": 1', b"\xff\xfe"])
@pytest.mark.parametrize(("method", "verdict"), [("POST", Verdict.UNCERTAIN), ("GET", Verdict.RETRY)])
async def test_a_success_that_cannot_be_read_is_no_success(
    connection: Connection, wire, method: str, verdict: Verdict, body: bytes
) -> None:
    """A cut or foreign answer leaves a write uncertain and a read to be repeated."""
    wire.answer = lambda _: httpx.Response(200, content=body)
    with pytest.raises(UpstreamFailure) as caught:
        await connection.mlflow(method, "x/y")
    assert (caught.value.verdict, caught.value.code) == (verdict, "UNREADABLE_ANSWER")


async def test_a_transport_error_becomes_a_failure(connection: Connection, wire) -> None:
    """No httpx error leaves the package."""
    wire.replies(httpx.ConnectError("refused"), httpx.ReadTimeout("slow"))
    for verdict in (Verdict.RETRY, Verdict.UNCERTAIN):
        with pytest.raises(UpstreamFailure) as caught:
            await connection.mlflow("POST", "x/y", json={})
        assert caught.value.verdict is verdict


async def test_parameters_are_encoded(connection: Connection, wire) -> None:
    """No name can end a parameter or begin another."""
    name = "a b+c&d=e%20#f?ü/é"
    await connection.mlflow("GET", "x", params={"name": name})
    assert dict(wire.last.url.params) == {"name": name}
    assert b"+" not in wire.last.url.raw_path


async def test_calls_are_observed(http, tokens, clock, address, wire) -> None:
    """The hook is told method, route and status of each call, 0 when there was no answer."""
    seen = []
    connection = Connection(address, tokens, http, clock=clock, observe=lambda *call: seen.append(call[:3]))
    wire.replies(httpx.Response(200, json={}), httpx.ConnectError("x"))
    await connection.mlflow("GET", "runs/get")
    with pytest.raises(UpstreamFailure):
        await connection.mlflow("POST", "runs/update")
    assert seen == [("GET", "runs/get", 200), ("POST", "runs/update", 0)]


@pytest.mark.parametrize(
    ("answer", "reachable", "accepted"),
    [
        (httpx.Response(200, json={}), True, True),
        (httpx.Response(403), True, False),
        (httpx.Response(429), True, True),
        (httpx.Response(503), False, False),
        (httpx.ConnectError("x"), False, False),
    ],
)
async def test_reachability_tells_network_and_token_apart(
    connection: Connection, wire, answer, reachable: bool, accepted: bool
) -> None:
    """One small read says whether the workspace answers and whether it takes our token."""
    wire.replies(answer)
    seen = await check(connection)
    assert (seen.reachable, seen.token_accepted) == (reachable, accepted)
    is_well = isinstance(answer, httpx.Response) and answer.is_success
    assert (seen.message == "") is is_well


async def test_nothing_below_us_logs_addresses(caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    """A signed address or a token is not in the logs, even at debug level."""
    caplog.set_level(logging.DEBUG)
    async with create_http_client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("http://127.0.0.1:9/x?sig=CANARY", headers={"authorization": "Bearer CANARY"})
    assert "CANARY" not in caplog.text


async def test_loopback_is_reached_without_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outbound proxy is for the world, not for this machine."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with create_http_client() as http:
        direct = http._transport_for_url(httpx.URL("http://localhost:1/"))
        proxied = http._transport_for_url(httpx.URL("http://example.com/"))
    assert direct is http._transport
    assert proxied is not http._transport
