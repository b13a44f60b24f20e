"""Random messages to every JSON route: never a server error, always MLflow's error body."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from server.api.endpoints import Endpoint
from tests.support.tracking import Tracking, tracking_server

# More, and other ones each time, when this is set: for a long search by hand.
_EXAMPLES = os.environ.get("MLPROXY_TEST_EXAMPLES")
# A drain waits for as long as it is told to; nothing here is ever delivered.
_LEFT_OUT = ("/api/2.0/mlproxy/drain",)
_TEXTS = [
    "", "0", "1", "-1", "RUN", "none", "NaN", "-Infinity", "a/b", "../x", "\0", "\ud800", "日本", "1e999",
    "name = 'x'", "metrics.a > 1", "metrics.a DESC", "eyJvZmZzZXQiOiAxfQ==", "9" * 25, "k" * 300, "[]",
    "tags.`a b` LIKE '%'", "m-" + "0" * 32, "FINISHED", "ACTIVE_ONLY", "champion", "models:/m/1", "²", "true",
    "runs:/RUN/m",
]  # fmt: skip
_numbers = st.sampled_from([0, 1, -1, 2, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 0.5, 1e308, -0.0])
_texts = st.sampled_from(_TEXTS) | st.text(max_size=12)
_scalars = st.none() | st.booleans() | _numbers | _texts
_keys = st.sampled_from(
    ["key", "value", "timestamp", "step", "name", "dataset", "tags", "model_id", "digest"]
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys | _texts, inner, max_size=4),
    max_leaves=8,
)


def _of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that nearly fit: mostly of the field's own type, sometimes of any other."""
    shape = (
        msgspec.inspect.type_info(annotation)
        if not isinstance(annotation, msgspec.inspect.Type)
        else annotation
    )
    match shape:
        case msgspec.inspect.StrType():
            fitting = _texts
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            fitting = _numbers | st.integers(-3, 10)
        case msgspec.inspect.BoolType():
            fitting = st.booleans()
        case msgspec.inspect.ListType(item_type=item):
            fitting = st.lists(_of_type(item), max_size=3)
        case msgspec.inspect.StructType(fields=fields):
            fitting = st.fixed_dictionaries(
                {}, optional={field.encode_name: _of_type(field.type) for field in fields}
            )
        case msgspec.inspect.UnionType(types=types):
            fitting = st.one_of(*map(_of_type, types))
        case _:
            fitting = _values
    return st.integers(0, 9).flatmap(lambda dice: _values if dice == 0 else fitting)


_STRATEGIES = lru_cache(maxsize=None)(_of_type)


@dataclass(frozen=True, slots=True)
class _Target:
    tracking: Tracking
    runner: asyncio.Runner
    routes: list[Endpoint]
    run_id: str


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def target(
    request: pytest.FixtureRequest,
    make_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[_Target]:
    """A server with one run, in an event loop of its own (hypothesis calls from plain functions)."""
    url, folder = make_database(request.param), tmp_path_factory.mktemp("fuzz")
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        tracking = runner.run(stack.enter_async_context(tracking_server(url, folder)))
        routes = [
            route
            for route in tracking.routes
            if route.message is not None and route.path.startswith("/api/") and route.path not in _LEFT_OUT
        ]
        try:
            yield _Target(tracking, runner, routes, runner.run(tracking.run()))
        finally:
            runner.run(stack.aclose())


def _check(answer: httpx.Response, route: Endpoint) -> None:
    where = f"{answer.request.method} {route.path}: {answer.text[:500]}"
    assert answer.status_code < 500 or answer.json()["error_code"] == "NOT_IMPLEMENTED", where
    if answer.status_code >= 400:
        assert set(answer.json()) == {"error_code", "message"}, where
        assert answer.json()["message"], where


async def _ask(target: _Target, route: Endpoint, method: str, path: str, fields: Any) -> httpx.Response:
    text = json.dumps(fields).replace('"RUN"', json.dumps(target.run_id))
    if method == "GET":
        pairs = json.loads(text).items() if isinstance(fields, dict) else []
        params = [
            (str(key), str(item))
            for key, value in pairs
            for item in (value if isinstance(value, list) else [value])
        ]
        encoded = [tuple(part.encode("utf-8", "surrogatepass") for part in pair) for pair in params]
        query = "&".join("=".join(_percent(part) for part in pair) for pair in encoded)
        return await target.tracking.http.get(f"{path}?{query}")
    return await target.tracking.http.request(
        method, path, content=text.encode(), headers={"content-type": "application/json"}
    )


def _percent(part: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in part)


@settings(
    max_examples=int(_EXAMPLES or 600),
    deadline=None,
    derandomize=_EXAMPLES is None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
@pytest.mark.fault("19")
def test_no_message_makes_the_server_fail(target: _Target, data: st.DataObject) -> None:
    """Every route answers every message with 2xx, or with a 4xx and MLflow's error body."""
    route = data.draw(st.sampled_from(target.routes))
    method = next(iter((route.methods or set()) - {"HEAD"}))
    fields = data.draw(_STRATEGIES(route.message))
    path = route.path
    for name in route.param_convertors:
        path = path.replace(f"{{{name}}}", data.draw(st.sampled_from(["x", "m-1", target.run_id, "1"])))
    _check(target.runner.run(_ask(target, route, method, path, fields)), route)
