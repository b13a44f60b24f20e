"""No spelling of a path, no method and no forgotten prefix gets past the permission of a route."""

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

KEYS = "/api/2.0/mlproxy/keys"
SEARCH = "/api/2.0/mlflow/experiments/search"
OPEN = {"/health", "/health/live", "/health/ready", "/version", "/login", "/login/ways", "/pages/{name}"}

SPELLINGS = [
    "//api/2.0/mlproxy/keys", "/api//2.0/mlproxy/keys", "/api/2.0/mlproxy//keys", "/./api/2.0/mlproxy/keys",
    "/api/2.0/./mlproxy/keys", "/health/../api/2.0/mlproxy/keys", "/health/%2e%2e/api/2.0/mlproxy/keys",
    "/health/..%2fapi/2.0/mlproxy/keys", "/health%2f..%2fapi%2f2.0%2fmlproxy%2fkeys",
    "/%61pi/2.0/mlproxy/keys",
    "/api%2f2.0%2fmlproxy%2fkeys", "/api/2.0/mlproxy/keys/", "/api/2.0/mlproxy/keys/.",
    "/api/2.0/mlproxy/keys%2f",
    "/api/2.0/mlproxy/keys;", "/api/2.0/mlproxy/keys;a=b", "/health;/../api/2.0/mlproxy/keys",
    "/API/2.0/mlproxy/keys",
    "/api/2.0/MLPROXY/keys", "/api/2.0/mlproxy/KEYS", "/api/2.0/mlproxy/keys%20", "/api/2.0/mlproxy/keys%00",
    "/api/2.0/mlproxy/keys%0a", "/api/2.0/mlproxy/keys.json", "/api/2.0/mlproxy/keys?x=/health",
    "/api\\2.0\\mlproxy\\keys",
    "/ajax-api/2.0/mlproxy/keys", "/api/3.0/mlproxy/keys", "/static-files/../api/2.0/mlproxy/keys",
    "/pages/../api/2.0/mlproxy/keys", "/pages/%2e%2e/api/2.0/mlproxy/keys", "/login/../api/2.0/mlproxy/keys",
    "/login%2f..%2fapi%2f2.0%2fmlproxy%2fkeys", "/health?/../../api/2.0/mlproxy/keys",
    "/.%2e/api/2.0/mlproxy/keys",
    "/%2e/api/2.0/mlproxy/keys", "/api/2.0/mlproxy/k%65ys", "/api/%322.0/mlproxy/keys",
    "/api/2%2e0/mlproxy/keys",
    "/mlflow/api/2.0/mlproxy/keys", "/static-prefix/api/2.0/mlproxy/keys", "/api/2.0/mlproxy/keys%c0%af",
    "/api/2.0/preview/mlproxy/keys", "/graphql/../api/2.0/mlproxy/keys",
    "/api/2.0/mlproxy/%2e%2e/mlproxy/keys",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_lets_a_stranger_in(server: ServerProcess, spelling: str) -> None:
    """Nor tells them more than that they are not known; `/health?…` is health, whatever follows."""
    answer = send_raw(server.port, request_bytes(spelling))
    assert b'"keys"' not in answer.body
    assert answer.status in (400, 401) or answer.body == b"OK", answer


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_lets_a_reader_administer(
    server: ServerProcess, keys: dict[str, str], spelling: str
) -> None:
    """A credential that is good for something is not good for more under another name."""
    answer = send_raw(server.port, request_bytes(spelling, f"Authorization: Bearer {keys['read']}"))
    assert b'"keys"' not in answer.body
    assert answer.status in (400, 403, 404) or answer.body == b"OK", answer


METHODS = ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "PROPFIND", "SEARCH", "get"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", [KEYS, SEARCH, "/metrics", "/sync", "/api/2.0/mlflow-artifacts/artifacts/a"])
def test_no_method_lets_a_stranger_in(server: ServerProcess, method: str, path: str) -> None:
    """HEAD and OPTIONS are requests as well."""
    for line in ("X-A: b", "X-HTTP-Method-Override: GET", "X-Method-Override: GET", "X-HTTP-Method: GET"):
        assert send_raw(server.port, request_bytes(path, line, method=method), patience=5).status in (
            400,
            401,
        )


@pytest.fixture(scope="module")
def operations(writer: httpx.Client) -> list[tuple[str, str, str]]:
    """Every (method, path, permission) that the server publishes."""
    paths: dict[str, dict[str, Any]] = writer.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path, operation["x-permission"])
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


def _filled(path: str) -> str:
    for name in ("artifact_path", "name", "run_id", "trace_id", "model_id", "assessment_id"):
        path = path.replace(f"{{{name}}}", "x")
    return "/".join("x" if part.startswith("{") else part for part in path.split("/"))


def test_every_route_is_closed_to_strangers(
    stranger: httpx.Client,
    operations: list[tuple[str, str, str]],
    record_property: Callable[[str, object], None],
) -> None:
    """All but those that are open by their nature, each asked for real."""
    closed = [(method, path) for method, path, permission in operations if permission != "public"]
    assert {path for _, path, permission in operations if permission == "public"} - {
        "/login/oidc",
        "/login/callback",
    } <= OPEN
    for method, path in closed:
        for verb in {method, "HEAD"} if method == "GET" else {method}:
            answer = stranger.request(verb, _filled(path))
            assert answer.status_code == 401, (verb, path, answer.status_code)
    record_property("attacks", len(closed))


@pytest.mark.parametrize("role", ["read", "write"])
def test_every_route_is_closed_to_lesser_roles(
    server: ServerProcess,
    keys: dict[str, str],
    operations: list[tuple[str, str, str]],
    role: str,
    record_property: Callable[[str, object], None],
) -> None:
    """A reader writes nowhere, and a writer administers nowhere."""
    beyond = {"read": ("write", "admin"), "write": ("admin",)}[role]
    wanted = [(method, path) for method, path, permission in operations if permission in beyond]
    assert len(wanted) > 5
    headers = {"Authorization": f"Bearer {keys[role]}", "Content-Type": "application/json"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        for method, path in wanted:
            answer = client.request(method, _filled(path), content=None if method == "GET" else b"{}")
            assert answer.status_code == 403, (method, path, answer.text)
            assert answer.json()["error_code"] == "PERMISSION_DENIED"
    record_property("attacks", len(wanted))


CREDENTIALS = {
    "empty": "", "no scheme": "{key}", "wrong scheme": "Digest {key}", "scheme only": "Bearer",
    "spaces": "Bearer    ",
    "unknown key": "Bearer mlp_000000000000_" + "x" * 43, "prefix only": "Bearer {prefix}_",
    "cut key": "Bearer {cut}",
    "longer key": "Bearer {key}x", "other case": "Bearer {upper}", "two keys": "Bearer {key}, Bearer {key}",
    "quoted": 'Bearer "{key}"', "NUL inside": "Bearer {prefix}_\\0", "wildcard": "Bearer mlp_%_%",
    "SQL": "Bearer mlp_' OR '1'='1_x", "not base64": "Basic ???", "no colon": "Basic {nocolon}",
    "key as user": "Basic {user}",
    "default password": "Basic {admin}", "empty password": "Basic {nopassword}",
    "unsigned token": "Bearer {unsigned}",
    "not ASCII": "Bearer mlp_\xe9\xe9\xe9_\xff",
}  # fmt: skip


@pytest.mark.parametrize("template", CREDENTIALS.values(), ids=CREDENTIALS)
def test_no_other_credential_is_a_key(server: ServerProcess, keys: dict[str, str], template: str) -> None:
    """Only the whole key is, in one of the two forms that stock clients send."""
    key = keys["write"]
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    claims = (
        base64.urlsafe_b64encode(json.dumps({"sub": "admin", "roles": ["admin"]}).encode())
        .decode()
        .rstrip("=")
    )
    value = template.format(
        key=key, prefix="_".join(key.split("_", 2)[:2]), cut=key[:-1],
        upper=key.swapcase(), nocolon=_basic(key), user=_basic(f"{key}:"), admin=_basic("admin:password1234"),
        nopassword=_basic("admin:"), unsigned=f"{unsigned}.{claims}.",
    )  # fmt: skip
    answer = send_raw(server.port, request_bytes(f"{SEARCH}?max_results=1", f"Authorization: {value}"))
    assert answer.status in (400, 401), answer
    assert key not in answer.head + answer.body.decode()


def _basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_control_both_forms_of_the_key_are_let_in(server: ServerProcess, keys: dict[str, str]) -> None:
    """Bearer, and Basic with any name."""
    for value in (f"Bearer {keys['read']}", f"Basic {_basic('anyone:' + keys['read'])}"):
        answer = send_raw(server.port, request_bytes(f"{SEARCH}?max_results=1", f"Authorization: {value}"))
        assert answer.status == 200


def test_who_wrote_it_is_not_for_the_client_to_say(
    server: ServerProcess, writer: httpx.Client, run_id: str
) -> None:
    """The tags that name the writer cannot be set, and the one that is there stays."""
    for call in ("set-tag", "delete-tag"):
        body = {"run_id": run_id, "key": "mlproxy.user", "value": "somebody else"}
        if call == "delete-tag":
            del body["value"]
        assert writer.post(f"/api/2.0/mlflow/runs/{call}", json=body).status_code == 400
    run = writer.get("/api/2.0/mlflow/runs/get", params={"run_id": run_id}).json()["run"]
    tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
    assert tags["mlproxy.user"] not in ("", "somebody else")
