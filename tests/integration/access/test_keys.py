"""Keys in a running server: the mounted one, what the list shows, and how soon a revoked one is closed."""

import secrets
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.integration.access.team import MLFLOW, Team, make_key
from tests.support.server import ServerProcess

USER_TAG = "mlproxy.user"
KEYS = "/api/2.0/mlproxy/keys"
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
_REPLICA_SECONDS = 60.0


def status(server: ServerProcess, key: str, path: str = KEYS, *, basic: bool = False) -> int:
    """The status of a read with a key."""
    auth = httpx.BasicAuth("anyone", key) if basic else None
    headers = {} if basic else {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}{path}", headers=headers, auth=auth, trust_env=False).status_code


def test_a_mounted_key_is_an_admins_and_changes_with_its_file(tmp_path: Path) -> None:
    """At the next start the new one opens, the old one and its logins do not; neither is ever told."""
    file = tmp_path / "admin-key"
    first, second = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    file.write_text(f"{first}\n")
    settings = {"MLPROXY_AUTH": "keys", "MLPROXY_ADMIN_KEY_FILE": file}
    with ServerProcess.start(tmp_path / "proxy", **settings) as server:
        assert [status(server, first), status(server, first, basic=True), status(server, second)] == [
            200,
            200,
            401,
        ]
        login = httpx.post(f"{server.url}/login", json={"key": first}, trust_env=False)
        cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0]}
        assert httpx.get(f"{server.url}{KEYS}", headers=cookie, trust_env=False).status_code == 200
        assert "mounted-admin-key" in server.cli("keys", "list").stdout
        server.restart()
        assert status(server, first) == 200
        file.write_text(second)
        server.restart()
        assert [status(server, first), status(server, second)] == [401, 200]
        assert httpx.get(f"{server.url}{KEYS}", headers=cookie, trust_env=False).status_code == 401
        assert server.cli("keys", "revoke", "mounted-admin-key").returncode == 0
        assert status(server, second) == 401
        server.restart()
        assert status(server, second) == 401
        said = server.log_file.read_text()
    held = b"".join(path.read_bytes() for path in (tmp_path / "proxy").iterdir() if path.is_file())
    assert [secret for secret in (first, second) if secret in said or secret.encode() in held] == []


def test_a_weak_mounted_key_keeps_the_server_from_starting(tmp_path: Path) -> None:
    """With a sentence for the operator, which does not hold the key."""
    file = tmp_path / "admin-key"
    file.write_text("correct-horse")
    server = ServerProcess.prepare(tmp_path / "proxy", MLPROXY_AUTH="keys", MLPROXY_ADMIN_KEY_FILE=file)
    tried = server.cli("serve")
    assert tried.returncode == 1
    assert "is shorter than 43 characters. Make one with: openssl rand -base64 32" in tried.stderr
    assert "correct-horse" not in tried.stdout + tried.stderr
    assert "Traceback" not in tried.stderr


def test_a_mounted_key_must_be_one_of_its_own(tmp_path: Path) -> None:
    """A key that has a name already is not made an admin's by mounting it."""
    with ServerProcess.start(tmp_path / "proxy", MLPROXY_AUTH="keys") as server:
        reader = server.cli("keys", "create", "reader", "--role", "read").stdout.splitlines()[-1]
        assert server.cli("keys", "create", "mounted-admin-key").returncode == 1
        server.stop()
        file = tmp_path / "admin-key"
        file.write_text(reader)
        tried = server.cli("serve", MLPROXY_ADMIN_KEY_FILE=file)
    assert (tried.returncode, "holds the key named 'reader'" in tried.stderr) == (1, True)


def test_the_list_shows_what_each_key_may_and_when_it_was_used(tmp_path: Path) -> None:
    """Role, end, last use, state and experiments; and a revoked key is closed at once."""
    with ServerProcess.start(tmp_path / "proxy", MLPROXY_AUTH="keys") as server:
        made = server.cli(
            "keys", "create", "vision", "--role", "read", "--expires-in-days", "30",
            "--experiments", "team-a/*", "--experiments", "shared",
        )  # fmt: skip
        key = made.stdout.splitlines()[-1]
        server.cli("keys", "create", "unused")
        assert status(server, key, SEARCH) == 200
        lines = {line.split()[0]: line for line in _listed(server)}
        assert lines["vision"].split()[2] == "read"
        assert lines["vision"].endswith("team-a/*, shared")
        assert lines["unused"].endswith("all")
        shown_times = [lines[name].count(" - ") for name in ("vision", "unused")]
        assert shown_times == [0, 2]  # the other never ends, and was never used
        assert key.split("_", 2)[2] not in "".join(lines.values())
        assert server.cli("keys", "revoke", "vision").returncode == 0
        assert status(server, key, SEARCH) == 401
        assert "revoked" in {line.split()[0]: line for line in _listed(server)}["vision"]


def _listed(server: ServerProcess) -> list[str]:
    return [line.rstrip() for line in server.cli("keys", "list").stdout.splitlines()[1:]]


def test_a_revoked_key_is_closed_on_other_replicas_within_seconds(
    make_database: Callable[[str], str], tmp_path: Path
) -> None:
    """One that is in use there, so that the replica believes in it; at once where it is revoked."""
    settings = {
        "MLPROXY_AUTH": "keys",
        "MLPROXY_DATABASE_URL": make_database("postgres"),
        "MLPROXY_SPOOL_DIR": tmp_path / "spool",
    }
    with (
        ServerProcess.start(tmp_path / "one", **settings) as one,
        ServerProcess.start(tmp_path / "two", **settings) as two,
    ):
        key = one.cli("keys", "create", "leaver").stdout.splitlines()[-1]
        assert [status(one, key, SEARCH), status(two, key, SEARCH)] == [200, 200]
        admin = one.cli("keys", "create", "admin", "--role", "admin").stdout.splitlines()[-1]
        headers = {"Authorization": f"Bearer {admin}"}
        body = {"name": "leaver"}
        httpx.post(f"{one.url}{KEYS}/revoke", headers=headers, json=body, trust_env=False).raise_for_status()
        assert status(one, key, SEARCH) == 401
        deadline = time.monotonic() + _REPLICA_SECONDS
        while status(two, key, SEARCH) == 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert status(two, key, SEARCH) == 401


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("set-tag", {"key": USER_TAG, "value": "somebody"}),
        ("delete-tag", {"key": USER_TAG}),
        ("log-batch", {"tags": [{"key": "a", "value": "1"}, {"key": USER_TAG, "value": "somebody"}]}),
        ("create", {"start_time": 1, "tags": [{"key": USER_TAG, "value": "somebody"}]}),
    ],
)
def test_who_made_a_run_cannot_be_said_by_clients(team: Team, path: str, fields: dict[str, object]) -> None:
    """Neither at its creation nor later, not even by an admin; others who write do not change it."""
    body = {"experiment_id": team.mine.experiment, "start_time": 1}
    run_id = team.ask("POST", f"{MLFLOW}/runs/create", json=body).json()["run"]["info"]["run_id"]
    admin = make_key(team.server, team.runner, f"admin of {path}", role="admin")
    named = {"experiment_id": team.mine.experiment} if path == "create" else {"run_id": run_id}
    for key in (team.key, admin):
        answer = team.ask("POST", f"{MLFLOW}/runs/{path}", key=key, json={**named, **fields})
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    other = {"run_id": run_id, "key": "a", "value": "1"}
    assert team.ask("POST", f"{MLFLOW}/runs/set-tag", key=admin, json=other).status_code == 200
    found = team.ask("GET", f"{MLFLOW}/runs/get", params={"run_id": run_id}).json()["run"]["data"]["tags"]
    assert {tag["key"]: tag["value"] for tag in found}[USER_TAG] == "limited"
    assert "a" in {tag["key"] for tag in found}
