"""A key that may only read cannot change anything, whatever route it takes."""

import pytest

from server.api.door import mounted_routes, permission_of
from server.api.endpoints import Endpoint
from server.domain.access import Permission
from tests.integration.access.asks import ASKS, Ask, filled
from tests.integration.access.team import Team, make_key

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
WRITES = [ask for ask in ASKS if ask.method in ("PUT", "PATCH", "DELETE") or ask.path.endswith("create")]


@pytest.fixture(scope="module")
def reader(team: Team) -> str:
    """A key that may read everything."""
    return make_key(team.server, team.runner, "reader", role="read")


def test_every_route_that_writes_refuses_a_reader(team: Team, reader: str) -> None:
    """The whole live table, with an empty body: refused before anything is read."""
    let_in, tried = [], 0
    for route in mounted_routes(list(team.server.door._app.routes)):  # type: ignore[attr-defined]
        assert isinstance(route, Endpoint)
        if permission_of(route) not in (Permission.WRITE, Permission.ADMIN):
            continue
        for method in (route.methods or set()) & set(_METHODS):
            answer = team.ask(method, _some_path(route), key=reader)
            tried += 1
            said = "PERMISSION_DENIED" if method == "HEAD" else answer.json()["error_code"]
            if (answer.status_code, said) != (403, "PERMISSION_DENIED"):
                let_in.append((method, route.path, answer.status_code))
    assert let_in == []
    assert tried > 100


def _some_path(route: Endpoint) -> str:
    path = route.path
    for name in route.param_convertors:
        path = path.replace(f"{{{name}:path}}", "x/y").replace(f"{{{name}}}", "x")
    return path


@pytest.mark.parametrize("ask", WRITES, ids=lambda ask: f"{ask.method} {ask.path}")
def test_requests_that_would_change_something_are_refused(team: Team, reader: str, ask: Ask) -> None:
    """The same requests that a writer is served."""
    answer = team.ask(ask.method, filled(ask.path, team.mine), key=reader, **ask.to(team.mine))
    assert answer.status_code == 403
    assert "Your role here is 'read'" in answer.json()["message"]


def test_what_a_reader_may_post_changes_nothing(team: Team, reader: str) -> None:
    """Searches are POSTs too: after all of them the journal is as long as before."""
    before = team.admin("GET", "/api/2.0/mlproxy/status")["pending"]
    for ask in ASKS:
        team.ask(ask.method, filled(ask.path, team.mine), key=reader, **ask.to(team.mine))
    assert team.admin("GET", "/api/2.0/mlproxy/status")["pending"] == before
