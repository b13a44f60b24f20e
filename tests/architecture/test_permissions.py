"""Every route of the live table says who may call it, and the door keeps to it."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.routing import BaseRoute, Route

from server.api.door import mounted_routes, permission_of
from server.bootstrap import Server, build
from server.domain.access import Permission
from server.settings import AuthKind, Settings

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
# What may be asked without a key; a new public route has to be written down here.
_PUBLIC = {"/health", "/health/live", "/health/ready", "/version"}
# How a browser comes to be known; without an identity provider two of them lead nowhere.
_LOGIN = {"/login": 200, "/login/ways": 200, "/login/oidc": 404, "/login/callback": 404}
_PAGE_FILES = {"/pages/{name}"}
# The last part of POST routes that only read: a new one has to be written down here.
_READING_POSTS = {
    "search",
    "search-datasets",
    "get-latest-versions",
    "graphql",
    "metrics",
    "batchGet",
    "batchGetInfos",
    "calculate-filter-correlation",
    "gateway-proxy",
    "presigned-download-url",
    "ui-telemetry",
    "login",
    "logout",
}


@dataclass(frozen=True, slots=True)
class _Guarded:
    server: Server
    runner: asyncio.Runner

    @property
    def routes(self) -> list[BaseRoute]:
        """Every route the door can call, those inside mounts included."""
        return mounted_routes(list(self.server.door._app.routes))  # type: ignore[attr-defined]

    def ask(self, method: str, path: str) -> httpx.Response:
        """The answer to a request without a key."""
        return self.runner.run(self._ask(method, path))

    async def _ask(self, method: str, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.server.door)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.request(method, path)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Guarded]:
    """A whole server that wants keys."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    with asyncio.Runner() as runner:
        server = runner.run(build(Settings(data_dir=folder, auth=AuthKind.KEYS)))
        try:
            yield _Guarded(server, runner)
        finally:
            runner.run(server.stop())


def _path(route: Route) -> str:
    path = route.path
    for name in route.param_convertors:
        path = path.replace(f"{{{name}:path}}", "x/y").replace(f"{{{name}}}", "x")
    return path


def test_the_table_is_not_empty(guarded: _Guarded) -> None:
    """The walk sees the routes that clients call."""
    paths = {getattr(route, "path", "") for route in guarded.routes}
    assert {"/api/2.0/mlflow/runs/log-batch", "/api/2.0/mlproxy/status", "/health"} <= paths
    assert len(paths) > 100


def test_every_route_declares_a_permission(guarded: _Guarded) -> None:
    """A route without one would be closed; that is a mistake, found here and not by a user."""
    assert [route for route in guarded.routes if permission_of(route) is None] == []


def test_only_the_routes_listed_here_are_public(guarded: _Guarded) -> None:
    """What needs no key is decided in one visible place."""
    public = {
        route.path
        for route in guarded.routes
        if permission_of(route) is Permission.PUBLIC and isinstance(route, Route)
    }
    assert public == _PUBLIC | set(_LOGIN) | _PAGE_FILES


def test_no_route_that_is_not_public_answers_without_a_key(guarded: _Guarded) -> None:
    """Each path, asked with every method there is, is 401 with MLflow's error body."""
    let_in = []
    public = {
        (route.path, method)
        for route in guarded.routes
        if isinstance(route, Route) and permission_of(route) is Permission.PUBLIC
        for method in route.methods or ()
    }
    for route in guarded.routes:
        if not isinstance(route, Route):
            continue
        for method in _METHODS:
            if (route.path, method) in public:
                continue
            answer = guarded.ask(method, _path(route))
            if answer.status_code != 401 or (
                method != "HEAD" and answer.json()["error_code"] != "UNAUTHENTICATED"
            ):
                let_in.append((method, route.path, answer.status_code))
    assert let_in == []


def test_public_routes_answer_without_a_key(guarded: _Guarded) -> None:
    """What is declared public is."""
    expected = {**dict.fromkeys(_PUBLIC, 200), **_LOGIN, "/pages/sync.css": 200, "/pages/nothing.js": 404}
    assert {path: guarded.ask("GET", path).status_code for path in expected} == expected


def test_reads_and_writes_are_told_apart(guarded: _Guarded) -> None:
    """No route that changes something is open to a key that may only read, except searches and logins."""
    for route in guarded.routes:
        assert isinstance(route, Route)
        changing = (route.methods or set()) & {"POST", "PUT", "PATCH", "DELETE"}
        if changing and permission_of(route) in (Permission.READ, Permission.PUBLIC):
            last = route.path.rstrip("/").rsplit("/", 1)[-1]
            assert last in _READING_POSTS, f"{changing} {route.path}"


def test_the_two_prefixes_of_a_call_have_the_same_permission(guarded: _Guarded) -> None:
    """`/ajax-api/…`, which the UI calls, and `/api/…` are guarded alike."""
    table = {
        (method, route.path): permission_of(route)
        for route in guarded.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    different = []
    for (method, path), permission in table.items():
        if path.startswith("/ajax-api/"):
            twin = (method, path.replace("/ajax-api/", "/api/", 1))
            if twin in table and table[twin] is not permission:
                different.append((method, path))
        if path.startswith("/api/2.0/preview/mlflow/"):
            twin = (method, path.replace("/preview/", "/", 1))
            if table[twin] is not permission:
                different.append((method, path))
    assert different == []


def test_every_mlflow_call_is_there_under_both_prefixes(guarded: _Guarded) -> None:
    """What clients can call the UI can call too."""
    paths = {route.path for route in guarded.routes if isinstance(route, Route)}
    missing = [
        path
        for path in paths
        if path.startswith("/api/2.0/mlflow/") and path.replace("/api/", "/ajax-api/", 1) not in paths
    ]
    assert missing == []


def test_the_openapi_document_lists_every_route(guarded: _Guarded) -> None:
    """The document is made from the table itself, permissions included."""
    document = guarded.server.door._app.openapi()  # type: ignore[attr-defined]
    for route in guarded.routes:
        assert isinstance(route, Route)
        operations = document["paths"][route.path.replace(":path}", "}")]
        for method in (route.methods or set()) - {"HEAD"}:
            assert operations[method.lower()]["x-permission"] == str(permission_of(route))
