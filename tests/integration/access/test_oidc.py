"""An identity provider's word is taken beside keys: from browsers, and as a bearer token."""

import base64
import hashlib
import hmac
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from tests.support.issuer import LocalIssuer
from tests.support.ports import free_port
from tests.support.server import ServerProcess

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
CREATE = "/api/2.0/mlflow/experiments/create"


@pytest.fixture(scope="module")
def module_issuer() -> Iterator[LocalIssuer]:
    """The identity provider."""
    with LocalIssuer() as running:
        yield running


@pytest.fixture
def issuer(module_issuer: LocalIssuer) -> Iterator[LocalIssuer]:
    """The identity provider, before and after the test as it should be."""
    claims = dict(module_issuer.claims)
    yield module_issuer
    module_issuer.claims, module_issuer.is_down = claims, False


def settings(issuer: LocalIssuer, port: int) -> dict[str, Any]:
    """Those of a proxy that trusts it."""
    return {
        "MLPROXY_AUTH": "keys",
        "MLPROXY_OIDC_ISSUER": issuer.url,
        "MLPROXY_OIDC_CLIENT_ID": issuer.client_id,
        "MLPROXY_OIDC_CLIENT_SECRET": issuer.client_secret,
        "MLPROXY_PUBLIC_URL": f"http://127.0.0.1:{port}",
    }


@pytest.fixture(scope="module")
def server(module_issuer: LocalIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A proxy that trusts it."""
    port = free_port()
    folder = tmp_path_factory.mktemp("proxy")
    with ServerProcess.start(folder, port=port, **settings(module_issuer, port)) as running:
        yield running


def asked(server: ServerProcess, token: str) -> int:
    """The status of a read with this bearer token."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{server.url}{SEARCH}", headers=headers, trust_env=False).status_code


def test_a_good_token_opens_what_its_role_opens(server: ServerProcess, issuer: LocalIssuer) -> None:
    """As Bearer, and as the password of Basic, as stock clients send it."""
    assert asked(server, issuer.token()) == 200
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        basic = httpx.BasicAuth("anyone", issuer.token(roles=["read"]))
        assert client.get(SEARCH, auth=basic).status_code == 200
        assert client.post(CREATE, json={"name": "by a reader"}, auth=basic).status_code == 403
        admin = {"Authorization": f"Bearer {issuer.token(roles=['read', 'admin'])}"}
        assert client.get("/api/2.0/mlproxy/keys", headers=admin).status_code == 200


def test_who_wrote_is_recorded_from_the_token(server: ServerProcess, issuer: LocalIssuer) -> None:
    """The name that the issuer vouches for, not one that the client chose."""
    headers = {"Authorization": f"Bearer {issuer.token(preferred_username='grace@example.org')}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        made = client.post(CREATE, json={"name": "grace's"})
        experiment = made.json()["experiment_id"]
        run = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": experiment, "start_time": 1})
        assert run.status_code == 200
    with sqlite3.connect(server.data_dir / "mlproxy.db") as database:
        rows = database.execute("SELECT principal FROM runs").fetchall()
    assert rows == [("grace@example.org",)]


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"lasts": -120},
        {"exp": None},
        {"roles": []},
        {"roles": None},
        {"roles": ["owner"]},
    ],
    ids=["audience", "no audience", "issuer", "expired", "no end", "no roles", "no claim", "unknown role"],
)
def test_a_token_that_is_not_good_enough_is_refused(
    server: ServerProcess, issuer: LocalIssuer, changes: dict[str, Any]
) -> None:
    """Each for its own reason, and all with the same answer."""
    assert asked(server, issuer.token(**changes)) == 401


def test_a_signature_that_is_not_the_issuers_is_refused(server: ServerProcess, issuer: LocalIssuer) -> None:
    """Another key, none at all, a shared secret made of the public key, a changed claim."""
    foreign = issuer.token(key=RSAKey.generate_key(2048))
    good = issuer.token()
    header, body, signature = good.split(".")
    other_body = issuer.token(roles=["admin"]).split(".")[1]
    confused = _signed_with_the_public_key(issuer, body)
    unsigned = "eyJhbGciOiJub25lIn0." + body + "."
    for token in (foreign, f"{header}.{other_body}.{signature}", confused, unsigned, "a.b.c", good[:-4]):
        assert asked(server, token) == 401, token
    assert asked(server, good) == 200


def _signed_with_the_public_key(issuer: LocalIssuer, body: str) -> str:
    """What takes in a server that lets the token choose how it is checked."""
    header = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=").decode()
    public = issuer.public_key_pem()
    signature = hmac.new(public, f"{header}.{body}".encode(), hashlib.sha256).digest()
    return f"{header}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_keys_go_on_working_beside_it(server: ServerProcess, issuer: LocalIssuer) -> None:
    """Also while the issuer is down."""
    issuer.is_down = True
    key = server.cli("keys", "create", "robot").stdout.splitlines()[-1]
    assert asked(server, key) == 200


def test_known_keys_are_used_while_the_issuer_is_down(server: ServerProcess, issuer: LocalIssuer) -> None:
    """Who has a token is not locked out by it."""
    assert asked(server, issuer.token()) == 200
    issuer.is_down = True
    assert asked(server, issuer.token(sub="another")) == 200


def test_a_browser_logs_in_over_the_issuer(server: ServerProcess, issuer: LocalIssuer) -> None:
    """There and back with state, nonce and PKCE; then the cookie is enough."""
    with httpx.Client(base_url=server.url, trust_env=False) as browser:
        assert browser.get("/login/ways").json()["oidc"] is True
        departed = browser.get("/login/oidc", params={"next": "/sync"})
        there = httpx.get(departed.headers["location"], trust_env=False)
        arrived = browser.get(there.headers["location"])
        assert (arrived.status_code, arrived.headers["location"]) == (303, "/sync")
        assert browser.get(SEARCH).status_code == 200
        again = browser.get(there.headers["location"])
    assert "trouble=refused" in again.headers["location"]


def test_a_login_that_another_browser_began_is_refused(server: ServerProcess, issuer: LocalIssuer) -> None:
    """Else one could log a victim in as oneself."""
    with httpx.Client(base_url=server.url, trust_env=False) as mine:
        departed = mine.get("/login/oidc")
        there = httpx.get(departed.headers["location"], trust_env=False)
    with httpx.Client(base_url=server.url, trust_env=False) as victim:
        arrived = victim.get(there.headers["location"])
        assert "trouble=refused" in arrived.headers["location"]
        victim.get("/login/oidc")
        query = parse_qs(urlsplit(there.headers["location"]).query)
        mixed = victim.get("/login/callback", params={"state": query["state"][0], "code": query["code"][0]})
        assert "trouble=refused" in mixed.headers["location"]
        assert victim.get(SEARCH).status_code == 401


def test_somebody_without_a_role_is_told_so(server: ServerProcess, issuer: LocalIssuer) -> None:
    """The login page says what to do, and no session is opened."""
    issuer.claims["roles"] = []
    with httpx.Client(base_url=server.url, trust_env=False) as browser:
        there = httpx.get(browser.get("/login/oidc").headers["location"], trust_env=False)
        arrived = browser.get(there.headers["location"])
        assert "trouble=refused" in arrived.headers["location"]
        assert browser.get(SEARCH).status_code == 401


def test_roles_can_be_named_as_the_organisation_names_them(issuer: LocalIssuer, tmp_path: Path) -> None:
    """Another claim, mapped values, and a role for everybody else."""
    port = free_port()
    more = {
        "MLPROXY_OIDC_ROLE_CLAIM": "groups",
        "MLPROXY_OIDC_ROLES": "ml-platform=admin, data-science=write",
        "MLPROXY_OIDC_DEFAULT_ROLE": "read",
    }
    with ServerProcess.start(tmp_path, port=port, **settings(issuer, port), **more) as server:
        statuses = {}
        for group in ("ml-platform", "data-science", "sales"):
            headers = {"Authorization": f"Bearer {issuer.token(groups=[group], roles=None)}"}
            with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
                written = client.post(CREATE, json={"name": group}).status_code
                statuses[group] = (written, client.get("/api/2.0/mlproxy/keys").status_code)
    assert statuses == {"ml-platform": (200, 200), "data-science": (200, 403), "sales": (403, 403)}


def test_no_secret_reaches_the_log(server: ServerProcess, issuer: LocalIssuer) -> None:
    """Neither tokens nor the client's secret nor cookies."""
    token = issuer.token()
    asked(server, token)
    text = server.log_file.read_text()
    assert issuer.client_secret not in text
    assert token.split(".")[2] not in text


def test_a_new_signing_key_is_fetched_when_it_is_first_seen(tmp_path: Path) -> None:
    """Without a restart; the old one opens nothing any more."""
    with LocalIssuer() as issuer:
        port = free_port()
        with ServerProcess.start(tmp_path, port=port, **settings(issuer, port)) as server:
            old = issuer.token(lasts=3600)
            issuer.new_key()
            assert asked(server, issuer.token()) == 200
            assert asked(server, old) == 401


def test_contradicting_settings_are_refused(tmp_path: Path) -> None:
    """With the name of what is missing or wrong."""
    cases = [
        ({"MLPROXY_OIDC_ISSUER": "https://example.org"}, "MLPROXY_OIDC_CLIENT_ID"),
        (
            {
                "MLPROXY_OIDC_ISSUER": "https://example.org",
                "MLPROXY_OIDC_CLIENT_ID": "x",
                "MLPROXY_OIDC_ROLES": "team=owner",
            },
            "MLPROXY_OIDC_ROLES",
        ),
    ]
    for given, words in cases:
        done = ServerProcess.prepare(tmp_path, **given).cli("serve")
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr
