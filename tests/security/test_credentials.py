"""Keys and logins: compared in constant time, stored as hashes, ended when they end, planted by nobody."""

import ast
import inspect
import re
import sqlite3
from types import ModuleType

import httpx
import pytest

from server.oidc import login
from server.services import keys as key_service
from tests.support.raw_http import request_bytes, send_raw
from tests.support.server import ServerProcess

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
COOKIE = "mlproxy_session"


@pytest.mark.parametrize("module", [key_service, login])
def test_secrets_are_compared_in_constant_time(module: ModuleType) -> None:
    """By the one function that takes as long for a wrong first byte as for a wrong last one."""
    tree = ast.parse(inspect.getsource(module))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "compare_digest" in used
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    assert not [text for text in compared if re.search("hash|secret|signature|state|nonce|digest", text)]


def test_a_stolen_database_holds_no_key_and_no_cookie(server: ServerProcess, keys: dict[str, str]) -> None:
    """Only their hashes are there."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        client.post("/login", json={"key": keys["read"]})
        cookie = client.cookies[COOKIE]
    with sqlite3.connect(server.data_dir / "mlproxy.db") as database:
        dump = "\n".join(database.iterdump()).encode()
    for secret in (cookie, *(key.split("_", 2)[2] for key in keys.values())):
        assert secret.encode() not in dump
        assert secret.encode().hex().encode() not in dump


def test_keys_and_cookies_cannot_be_guessed(server: ServerProcess, keys: dict[str, str]) -> None:
    """Each holds 256 bits from the system, and no two are alike."""
    secrets = [key.split("_", 2)[2] for key in keys.values()]
    for _ in range(5):
        answer = httpx.post(f"{server.url}/login", json={"key": keys["read"]}, trust_env=False)
        secrets.append(answer.cookies[COOKIE])
    assert len(set(secrets)) == len(secrets)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43,}", secret) for secret in secrets)


@pytest.mark.parametrize(
    "planted", ["", "x", "0" * 43, "A" * 4097, "' OR 1=1 --", "..", "null", "%00", "admin", "\xff" * 43]
)
def test_a_planted_cookie_is_not_made_good(server: ServerProcess, keys: dict[str, str], planted: str) -> None:
    """Session fixation: a login answers with a new cookie, and the planted one stays nobody's."""
    line = f"Cookie: {COOKIE}={planted}"
    body = b'{"key":"%b"}' % keys["read"].encode()
    answer = send_raw(
        server.port, request_bytes("/login", line, "Content-Type: application/json", method="POST", body=body)
    )
    assert answer.status == 200
    given = answer.header("Set-Cookie")[0].partition("=")[2].partition(";")[0]
    assert given != planted
    assert send_raw(server.port, request_bytes(SEARCH, line)).status == 401


def test_a_new_login_does_not_prolong_an_old_one(server: ServerProcess, keys: dict[str, str]) -> None:
    """Logging out ends that login, and only that."""
    with httpx.Client(base_url=server.url, trust_env=False, headers={"Origin": server.url}) as client:
        client.post("/login", json={"key": keys["read"]})
        first = client.cookies[COOKIE]
        client.post("/login", json={"key": keys["read"]})
        second = client.cookies[COOKIE]
        assert first != second
        assert client.post("/logout").status_code == 200
    assert send_raw(server.port, request_bytes(SEARCH, f"Cookie: {COOKIE}={second}")).status == 401


def test_a_login_ends(server: ServerProcess, keys: dict[str, str]) -> None:
    """After its twelve hours it is nobody's, whatever the browser still sends."""
    server_answer = httpx.post(f"{server.url}/login", json={"key": keys["read"]}, trust_env=False)
    cookie = server_answer.cookies[COOKIE]
    assert "Max-Age=43200" in server_answer.headers["set-cookie"]
    with sqlite3.connect(server.data_dir / "mlproxy.db", timeout=30) as database:
        changed = database.execute("UPDATE sessions SET expires_at_ms = 1").rowcount
    assert changed > 0
    assert send_raw(server.port, request_bytes(SEARCH, f"Cookie: {COOKIE}={cookie}")).status == 401


def test_a_key_ends(server: ServerProcess) -> None:
    """When it expires and when it is revoked, also for what it has opened."""
    key = server.cli(
        "keys", "create", "short", "--role", "read", "--expires-in-days", "1"
    ).stdout.splitlines()[-1]
    with sqlite3.connect(server.data_dir / "mlproxy.db", timeout=30) as database:
        database.execute("UPDATE api_keys SET expires_at_ms = 1 WHERE name = 'short'")
    assert send_raw(server.port, request_bytes(SEARCH, f"Authorization: Bearer {key}")).status == 401
    assert httpx.post(f"{server.url}/login", json={"key": key}, trust_env=False).status_code == 401
    key = server.cli("keys", "create", "gone", "--role", "read").stdout.splitlines()[-1]
    assert send_raw(server.port, request_bytes(SEARCH, f"Authorization: Bearer {key}")).status == 200
    server.cli("keys", "revoke", "gone")
    assert send_raw(server.port, request_bytes(SEARCH, f"Authorization: Bearer {key}")).status == 401


@pytest.mark.parametrize("where", ["key={key}", "token={key}", "access_token={key}", "api_key={key}"])
def test_a_key_in_an_address_opens_nothing(server: ServerProcess, keys: dict[str, str], where: str) -> None:
    """Addresses end in logs and histories."""
    target = f"{SEARCH}&{where.format(key=keys['admin'])}"
    assert send_raw(server.port, request_bytes(target)).status == 401
    assert keys["admin"] not in server.log_file.read_text()


@pytest.mark.parametrize(
    "next_page", ["https://evil.example", "//evil.example", "/\\evil.example", "/%0d%0aX: y"]
)
def test_a_login_leads_nowhere_else(server: ServerProcess, keys: dict[str, str], next_page: str) -> None:
    """The address that somebody made up does not send the person elsewhere afterwards."""
    body = {"key": keys["read"], "next": next_page}
    target = httpx.post(f"{server.url}/login", json=body, trust_env=False).json()["next"]
    assert target.startswith("/")
    assert not target.startswith(("//", "/\\"))
    assert "evil" not in target


def test_the_same_answer_for_unknown_and_wrong(server: ServerProcess, keys: dict[str, str]) -> None:
    """Nobody learns which prefixes exist."""
    known = "_".join(keys["read"].split("_", 2)[:2])
    answers = [
        send_raw(server.port, request_bytes(SEARCH, f"Authorization: Bearer {key}"))
        for key in (f"{known}_{'x' * 43}", f"mlp_000000000000_{'x' * 43}", "nothing")
    ]
    assert len({(answer.status, answer.body) for answer in answers}) == 1
