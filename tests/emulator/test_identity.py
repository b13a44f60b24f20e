"""Tokens and the workspace's address."""

import time

import httpx
import pytest
from api import Api

from tests.support.emulator import WORKSPACE_PATH, EmulatorProcess


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """What a refusal says."""
    error = answer.json()["error"]
    return answer.status_code, error["message"], error["innerError"]["code"]


def test_no_token(api: Api) -> None:
    """The quoted body of the service."""
    del api.http.headers["Authorization"]
    answer = api.get("experiments/search")
    assert refusal(answer) == (401, "Bearer token not provided.", "AuthorizationError")


def test_an_expired_token(api: Api, emulator: EmulatorProcess) -> None:
    """A token is good until its expiry and no longer, on every service."""
    emulator.settings(token_seconds=1.0)
    api.sign_in()
    time.sleep(2.1)
    for answer in (
        api.get("experiments/search"),
        api.history("GET", "/runs/x"),
        api.artifact("GET", "/LocalUpload/x"),
    ):
        assert refusal(answer) == (401, "Bearer token is expired.", "AuthorizationError")
    assert api.http.get(WORKSPACE_PATH).status_code == 401


def test_revoked_tokens(api: Api, emulator: EmulatorProcess) -> None:
    """Revoking ends what was issued; the next token works."""
    emulator.revoke_tokens()
    assert api.get("experiments/search").status_code == 401
    api.sign_in()
    assert api.get("experiments/search").status_code == 200


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9."])
def test_a_token_of_someone_else(api: Api, token: str) -> None:
    """What the emulator did not issue is refused."""
    api.http.headers["Authorization"] = f"Bearer {token}"
    assert api.get("experiments/search").status_code == 401


def test_a_token_for_another_service(api: Api, emulator: EmulatorProcess) -> None:
    """A storage token does not open the workspace."""
    api.http.headers["Authorization"] = f"Bearer {emulator.token('https://storage.azure.com')}"
    assert api.get("experiments/search").status_code == 401


def test_client_credentials(emulator: EmulatorProcess) -> None:
    """The v1 and v2 grants issue tokens; a wrong secret is refused."""
    form = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "b"}
    v1 = httpx.post(
        f"{emulator.http_url}/tenant/oauth2/token", data=form | {"resource": "https://management.azure.com"}
    )
    v2 = httpx.post(
        f"{emulator.http_url}/tenant/oauth2/v2.0/token",
        data=form | {"scope": "https://management.azure.com/.default"},
    )
    for answer in (v1, v2):
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert httpx.get(f"{emulator.http_url}{WORKSPACE_PATH}", headers=headers).status_code == 200
    wrong = httpx.post(
        f"{emulator.http_url}/tenant/oauth2/v2.0/token", data=form | {"client_secret": "wrong"}
    )
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")


def test_another_workspace_is_not_found(api: Api) -> None:
    """Subscription and resource group are free, the workspace's name is not."""
    free = WORKSPACE_PATH.replace("resourceGroups/emulator", "resourceGroups/any")
    assert api.http.get(free).status_code == 200
    other = WORKSPACE_PATH.replace("workspaces/emulator", "workspaces/other")
    answer = api.http.get(other)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "ResourceNotFound")
    path = f"/mlflow/v2.0{other}/api/2.0/mlflow/experiments/search"
    assert api.http.get(path).status_code == 404


def test_the_workspace_names_its_tracking_uri(api: Api, emulator: EmulatorProcess) -> None:
    """In the v1.0 form, on the host that was asked, whichever it is."""
    properties = api.http.get(WORKSPACE_PATH).json()["properties"]
    assert properties["mlFlowTrackingUri"] == emulator.tracking_uri
    with httpx.Client(verify=str(emulator.ca_file), headers=dict(api.http.headers)) as secure:
        properties = secure.get(f"{emulator.https_url}{WORKSPACE_PATH}").json()["properties"]
        assert properties["mlFlowTrackingUri"] == emulator.tls_tracking_uri
        services = secure.get(properties["discoveryUrl"]).json()
    assert services["history"] == emulator.https_url
