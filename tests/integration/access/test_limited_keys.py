"""A key that is limited to experiments by their names holds to them on every route that there is."""

import pytest

from server.api import reach_rules
from server.api.door import mounted_routes, permission_of
from server.api.endpoints import Endpoint
from server.api.reach import find_reach, is_declared, route_key
from tests.integration.access.asks import ASKS, Ask, filled
from tests.integration.access.team import THEIRS, Json, Team

GRAPHQL = [
    ("MlflowGetExperimentQuery", {"input": {"experimentId": "{side.experiment}"}}),
    ("GetRun", {"data": {"runId": "{side.run}"}}),
    ("SearchRuns", {"data": {"experimentIds": ["{side.experiment}"]}}),
    ("GetMetricHistoryBulkInterval", {"data": {"runIds": ["{side.run}"], "metricKey": "loss"}}),
]


def _asked_elsewhere() -> set[str]:
    return {"POST /graphql", "POST /v1/traces"}


def _live_routes(team: Team) -> list[Endpoint]:
    routes = mounted_routes(list(team.server.door._app.routes))  # type: ignore[attr-defined]
    assert all(isinstance(route, Endpoint) for route in routes)
    return [route for route in routes if isinstance(route, Endpoint)]


def _methods(route: Endpoint) -> set[str]:
    return (route.methods or set()) - {"HEAD"}


def test_every_route_says_what_it_reaches(team: Team) -> None:
    """A route that was forgotten would be closed to limited keys; that is found here and not by a user."""
    missing = [
        (method, route.path)
        for route in _live_routes(team)
        for method in _methods(route)
        if not is_declared(method, route.path, permission_of(route))  # type: ignore[arg-type]
    ]
    assert missing == []


def test_every_route_that_names_something_is_asked_below(team: Team) -> None:
    """So that the two tests after this one go through the whole table."""
    wanted = {
        route_key(method, route.path)
        for route in _live_routes(team)
        for method in _methods(route)
        if find_reach(method, route.path) not in (None, reach_rules.nothing)
    }
    asked = {_key_of(team, ask) for ask in ASKS}
    assert wanted == asked | _asked_elsewhere()


def _key_of(team: Team, ask: Ask) -> str:
    path = filled(ask.path, team.mine)
    route, _ = team.server.door._table.find({"type": "http", "method": ask.method, "path": path})
    assert isinstance(route, Endpoint), path
    return route_key(ask.method, route.path)


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: f"{ask.method} {ask.path}")
def test_what_is_theirs_is_refused(team: Team, ask: Ask) -> None:
    """PERMISSION_DENIED, and not a word of what is there."""
    answer = team.ask(ask.method, filled(ask.path, team.theirs), **ask.to(team.theirs))
    assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED"), answer.text
    assert THEIRS not in answer.text


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: f"{ask.method} {ask.path}")
def test_what_is_its_own_is_served(team: Team, ask: Ask) -> None:
    """The same request about an experiment whose name matches is served, or refused for another reason."""
    answer = team.ask(ask.method, filled(ask.path, team.mine), **ask.to(team.mine))
    assert answer.status_code == ask.status, answer.text


@pytest.mark.parametrize(("operation", "variables"), GRAPHQL, ids=[name for name, _ in GRAPHQL])
def test_graphql_is_no_way_around(team: Team, operation: str, variables: Json) -> None:
    """Each query that the UI asks is judged by what its variables name."""
    answers = [
        team.ask(
            "POST",
            "/graphql",
            json={"operationName": operation, "variables": filled(variables, side)},
            headers={"Content-Type": "application/json"},
        ).status_code
        for side in (team.mine, team.theirs)
    ]
    assert answers == [200, 403]
