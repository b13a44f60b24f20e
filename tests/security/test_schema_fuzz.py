"""Requests made from the published OpenAPI document: never a 500, always MLflow's error body."""

import os
from collections.abc import Callable
from itertools import count
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.openapi.loaders import from_dict

from tests.support.server import ServerProcess

# More, and other ones each time, when this is set: for a long search by hand.
_EXAMPLES = os.environ.get("MLPROXY_TEST_EXAMPLES")
# These work for as long as they are told to, or for seconds, or count wrong guesses.
_LEFT_OUT = "/(drain|doctor|backups?|login|logout)(/|$)"
_EXAMPLES_EACH = 2
_OTHER_BODIES = ("/v1/traces", "/health/ready", "/graphql")


_SETTINGS = settings(
    max_examples=int(_EXAMPLES or _EXAMPLES_EACH),
    deadline=None,
    derandomize=_EXAMPLES is None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(writer: httpx.Client) -> schemathesis.BaseSchema:
    """The document, as a client with a key gets it."""
    document = writer.get("/openapi.json").json()
    return from_dict(document).exclude(path_regex=_LEFT_OUT)


def test_every_published_call_holds(
    server: ServerProcess,
    keys: dict[str, str],
    schema: schemathesis.BaseSchema,
    record_property: Callable[[str, object], None],
) -> None:
    """2xx, a redirect, or a 4xx (or a feature that is not there: 501) with MLflow's error body."""
    headers = {"Authorization": f"Bearer {keys['admin']}"}
    asked = count()

    for found in schema.get_all_operations():
        operation = found.ok()

        @_SETTINGS
        @given(case=operation.as_strategy())
        def hold(case: schemathesis.Case) -> None:
            _check(case, case.call(base_url=server.url, headers=headers, timeout=120))
            next(asked)

        hold()
    made = next(asked)
    assert made > 250
    record_property("attacks", made)


def _check(case: schemathesis.Case, answer: Any) -> None:
    where = f"{case.method} {case.path}: {answer.status_code} {answer.text[:500]}"
    assert answer.status_code < 500 or answer.status_code in (501, 503), where
    if answer.status_code >= 400 and case.path not in _OTHER_BODIES:
        body = answer.json()
        assert set(body) == {"error_code", "message"}, where
        assert body["message"], where
