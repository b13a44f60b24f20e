"""The door's own rules: spellings of paths, hosts, origins, the prefix."""

import asyncio
from typing import Any

import pytest

from server.api.door import Door
from server.api.endpoints import json_routes, stream_routes
from server.api.errors import send_json
from server.domain.access import Permission, Principal, Role


class _Anyone:
    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        return Principal("ann", Role.READ) if authorization else None


async def _echo(call: Any, _: Any = None) -> dict[str, str]:
    return {"path": call.scope["path"], **call.path_params}


async def _echo_stream(call: Any) -> None:
    await send_json(call.send, b'{"stream": true}')


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("only routes are called")


def _ask(
    path: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    raw_path: bytes | None = None,
    prefix: str = "",
) -> int:
    routes = [
        *json_routes("GET", "/read", _echo, permission=Permission.READ, prefixes=("",)),
        *json_routes("GET", "/open", _echo, permission=Permission.PUBLIC, prefixes=("",)),
        *json_routes("POST", "/write", _echo, permission=Permission.WRITE, prefixes=("",)),
        *json_routes("GET", "/items/{name}", _echo, permission=Permission.READ, prefixes=("",)),
        *stream_routes(
            "GET", ["/api/2.0/mlflow-artifacts/{p:path}"], _echo_stream, permission=Permission.READ
        ),
    ]
    door = Door(
        _nothing,
        routes=list(routes),
        authenticator=_Anyone(),
        allowed_hosts=frozenset({"proxy", "[::1]"}),
        path_prefix=prefix,
    )
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    all_headers = {"host": "proxy", "authorization": "yes", **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in all_headers.items()],
    }
    asyncio.run(door(scope, receive, send))
    return int(sent[0]["status"])


def test_a_route_that_is_declared_is_served() -> None:
    """A known path with a credential that suffices gets its answer."""
    assert _ask("/read") == 200
    assert _ask("/items/x") == 200


@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/items//x", None),
        ("//read", None),
        ("/./read", None),
        ("/items/../read", None),
        ("/items/a/b", b"/items/a%2fb"),
        ("/items/a/b", b"/items/a%2Fb"),
        ("/items/a\\b", b"/items/a%5cb"),
        ("/items/a\0b", b"/items/a%00b"),
        ("/items/a\nb", b"/items/a%0ab"),
        ("/items/%2e%2e", b"/items/%252e%252e"),
        ("/items/a;b", b"/items/a;b"),
        ("/open;/../read", b"/open;/../read"),
        ("/read", b"/read;x"),
        ("/read", b"/open%2f../read"),
    ],
)
def test_spellings_that_could_be_read_two_ways_are_refused(path: str, raw_path: bytes | None) -> None:
    """A path that a router and a guard could understand differently reaches no route."""
    assert _ask(path, raw_path=raw_path) == 400


def test_artifact_names_may_hold_what_other_paths_may_not() -> None:
    """An encoded slash or semicolon is part of a file's name; climbing is not."""
    assert _ask("/api/2.0/mlflow-artifacts/a;b", raw_path=b"/api/2.0/mlflow-artifacts/a;b") == 200
    assert _ask("/api/2.0/mlflow-artifacts/../../read") == 400


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nope", "GET", 404), ("/read", "DELETE", 404), ("/read/", "GET", 404), ("/READ", "GET", 404)],
)
def test_what_is_not_in_the_table_is_closed(path: str, method: str, status: int) -> None:
    """Nothing but the exact path and method leads anywhere."""
    assert _ask(path, method=method) == status
    assert _ask(path, method=method, headers={"authorization": ""}) == 401


def test_a_public_route_needs_no_credential_and_others_do() -> None:
    """Only what is declared public is open."""
    assert _ask("/open", headers={"authorization": ""}) == 200
    assert _ask("/read", headers={"authorization": ""}) == 401


def test_a_credential_that_may_only_read_does_not_write() -> None:
    """The route's permission decides."""
    assert _ask("/write", method="POST") == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("proxy", 200),
        ("PROXY:5000", 200),
        ("[::1]:5000", 200),
        ("evil", 403),
        ("proxy.evil", 403),
        ("", 403),
        ("evil:5000", 403),
    ],
)
def test_only_names_we_answer_to_are_let_in(host: str, status: int) -> None:
    """With or without a port, in any case."""
    assert _ask("/open", headers={"host": host}) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://proxy", 403), ("https://evil", 403), ("null", 403), ("http://proxy:5000", 403)],
)
def test_writes_from_a_page_pass_the_origin_rule_before_the_permission(origin: str, status: int) -> None:
    """A foreign page is refused; our own is refused only for its role."""
    assert _ask("/write", method="POST", headers={"origin": origin}) == status
    assert _ask("/read", headers={"origin": origin}) == 200


def test_the_prefix_is_taken_off() -> None:
    """Below a path prefix every route is found, and only there or without any."""
    assert _ask("/mlflow/read", prefix="/mlflow") == 200
    assert _ask("/mlflow/read", prefix="/mlflow/") == 200
    assert _ask("/mlflowread", prefix="/mlflow") == 404
    assert _ask("/mlflow//read", prefix="/mlflow") == 400
