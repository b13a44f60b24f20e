"""A browser logs in once, with a key, and what it then sends along cannot be used by other sites' pages."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server import ServerProcess

PAGE = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate"}
SEARCH = "/api/2.0/mlflow/experiments/search"
CREATE = "/api/2.0/mlflow/experiments/create"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A proxy that wants keys."""
    with ServerProcess.start(tmp_path_factory.mktemp("proxy"), MLPROXY_AUTH="keys") as running:
        yield running


@pytest.fixture(scope="module")
def keys(server: ServerProcess) -> dict[str, str]:
    """A key of each role."""
    return {
        role: server.cli("keys", "create", role, "--role", role).stdout.splitlines()[-1]
        for role in ("read", "write", "admin")
    }


@pytest.fixture
def browser(server: ServerProcess) -> Iterator[httpx.Client]:
    """What a browser does, without the browser: it keeps cookies, and says where its requests come from."""
    with httpx.Client(base_url=server.url, trust_env=False, headers={"Origin": server.url}) as client:
        yield client


def log_in(browser: httpx.Client, key: str) -> httpx.Response:
    """The answer to a login."""
    return browser.post("/login", json={"key": key, "next": "/sync"})


@pytest.mark.parametrize("path", ["/", "/sync"])
def test_a_page_sends_who_is_not_known_to_the_login(server: ServerProcess, path: str) -> None:
    """And back to where they were going."""
    answer = httpx.get(f"{server.url}{path}", headers=PAGE, trust_env=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/login?next={path.replace('/', '%2F')}"
    page = httpx.get(f"{server.url}/login", headers=PAGE, trust_env=False)
    assert (page.status_code, "API key" in page.text) == (200, True)
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]


def test_an_api_caller_gets_json_and_never_a_page(server: ServerProcess) -> None:
    """401 with both challenges; a page's own script gets one that makes no browser ask for a password."""
    for path in ("/", SEARCH, "/nothing-here"):
        answer = httpx.get(f"{server.url}{path}", trust_env=False)
        assert answer.status_code == 401
        assert answer.json()["error_code"] == "UNAUTHENTICATED"
        assert "Basic" in answer.headers["www-authenticate"]
        assert "Bearer" in answer.headers["www-authenticate"]
    asked = httpx.get(f"{server.url}{SEARCH}", headers={"Sec-Fetch-Mode": "cors"}, trust_env=False)
    assert (asked.status_code, "Basic" in asked.headers["www-authenticate"]) == (401, False)


def test_a_login_gives_a_cookie_that_opens_what_the_key_opens(
    browser: httpx.Client, keys: dict[str, str]
) -> None:
    """Scripts cannot read it, and the key itself is not in it."""
    answer = log_in(browser, keys["write"])
    assert (answer.status_code, answer.json()["next"]) == (200, "/sync")
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=Lax", "Path=/"))
    assert keys["write"].split("_", 2)[2] not in cookie
    assert browser.get(SEARCH, params={"max_results": 1}).status_code == 200
    assert browser.post(CREATE, json={"name": "from a browser"}).status_code == 200
    assert browser.post("/api/2.0/mlproxy/keys", json={"name": "mine"}).status_code == 403


def test_a_readers_login_cannot_write(browser: httpx.Client, keys: dict[str, str]) -> None:
    """The role goes with the login."""
    log_in(browser, keys["read"])
    assert browser.get(SEARCH, params={"max_results": 1}).status_code == 200
    assert browser.post(CREATE, json={"name": "not by a reader"}).status_code == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
    ids=["foreign origin", "no origin", "cross-site", "same-site", "same-origin"],
)
def test_another_sites_page_cannot_use_the_cookie(
    server: ServerProcess, keys: dict[str, str], headers: dict[str, str], status: int
) -> None:
    """Nothing changes on a request that does not prove that our own page made it."""
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        assert client.post("/login", json={"key": keys["write"]}).status_code == 200
        name = f"asked with {sorted(headers.items())}"
        assert client.post(CREATE, json={"name": name}, headers=headers).status_code == status


def test_a_login_cannot_be_posted_by_a_form(server: ServerProcess, keys: dict[str, str]) -> None:
    """Else another site could log its victim in as somebody else."""
    answer = httpx.post(f"{server.url}/login", data={"key": keys["read"]}, trust_env=False)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "body", [b"", b"{", b'"key"', b'{"key": 1}', b'{"key": "\x80"}', b'{"key": "\\ud800"}']
)
def test_a_login_that_is_none_is_refused(browser: httpx.Client, body: bytes) -> None:
    """With a sentence, whatever came."""
    answer = browser.post("/login", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "Wanted: a JSON object" in answer.json()["message"]


def test_logging_out_ends_it(browser: httpx.Client, keys: dict[str, str]) -> None:
    """Also for who kept a copy of the cookie."""
    log_in(browser, keys["write"])
    copied = browser.cookies["mlproxy_session"]
    assert browser.post("/logout").status_code == 200
    assert "mlproxy_session" not in browser.cookies
    again = browser.get(SEARCH, params={"max_results": 1}, headers={"Cookie": f"mlproxy_session={copied}"})
    assert again.status_code == 401


def test_a_revoked_key_ends_its_logins(server: ServerProcess, browser: httpx.Client) -> None:
    """At once on the server that revokes it."""
    key = server.cli("keys", "create", "leaver", "--role", "write").stdout.splitlines()[-1]
    log_in(browser, key)
    assert browser.get(SEARCH, params={"max_results": 1}).status_code == 200
    assert server.cli("keys", "revoke", "leaver").returncode == 0
    assert browser.get(SEARCH, params={"max_results": 1}).status_code == 401


def test_a_login_outlives_a_restart(tmp_path: Path) -> None:
    """Only its hash is stored."""
    with ServerProcess.start(tmp_path, MLPROXY_AUTH="keys") as server:
        key = server.cli("keys", "create", "ada").stdout.splitlines()[-1]
        with httpx.Client(base_url=server.url, trust_env=False, headers={"Origin": server.url}) as client:
            log_in(client, key)
            server.restart()
            assert client.get(SEARCH, params={"max_results": 1}).status_code == 200
            cookie = client.cookies["mlproxy_session"]
    assert cookie.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("mlproxy.db*"))


@pytest.mark.parametrize(
    "target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\nb"]
)
def test_nobody_is_sent_elsewhere_after_a_login(
    browser: httpx.Client, keys: dict[str, str], target: str
) -> None:
    """Whatever the address that they came by says."""
    answer = browser.post("/login", json={"key": keys["read"], "next": target})
    assert answer.json()["next"] == "/"


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    """After twenty wrong keys in a minute an address is told to wait."""
    with (
        ServerProcess.start(tmp_path, MLPROXY_AUTH="keys") as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        wrong = {"key": "mlp_000000000000_" + "x" * 43}
        answers = [client.post("/login", json=wrong) for _ in range(25)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 5
    assert int(answers[-1].headers["retry-after"]) > 0


def test_below_a_path_prefix_everything_stays_below_it(tmp_path: Path) -> None:
    """The redirect, the cookie's path, and the way back."""
    with ServerProcess.start(tmp_path, MLPROXY_AUTH="keys", MLPROXY_PATH_PREFIX="/mlflow") as server:
        key = server.cli("keys", "create", "ada").stdout.splitlines()[-1]
        sent = httpx.get(f"{server.url}/mlflow/sync", headers=PAGE, trust_env=False)
        assert sent.headers["location"] == "/mlflow/login?next=%2Fmlflow%2Fsync"
        answer = httpx.post(
            f"{server.url}/mlflow/login", json={"key": key, "next": "/mlflow/sync"}, trust_env=False
        )
    assert answer.json()["next"] == "/mlflow/sync"
    assert "Path=/mlflow" in answer.headers["set-cookie"]


def test_refusals_and_logins_are_in_the_audit_log(
    server: ServerProcess, browser: httpx.Client, keys: dict[str, str]
) -> None:
    """With who, from where and what; without the credential."""
    log_in(browser, keys["read"])
    browser.post(CREATE, json={"name": "refused"})
    wrong = {"Authorization": "Bearer mlp_000000000000_not-a-key-of-ours"}
    httpx.get(f"{server.url}{SEARCH}", headers=wrong, trust_env=False)
    lines = [line for line in server.log_file.read_text().splitlines() if "audit=True" in line]
    assert any("login " in line and "principal=read" in line for line in lines)
    refused = [line for line in lines if "access_refused" in line]
    assert any("PERMISSION_DENIED" in line and "principal=read" in line for line in refused)
    assert any("UNAUTHENTICATED" in line and "address=127.0.0.1" in line for line in refused)
    assert "not-a-key-of-ours" not in server.log_file.read_text()
    assert all(key.split("_", 2)[2] not in server.log_file.read_text() for key in keys.values())
