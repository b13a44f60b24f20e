"""MLflow's workspaces: there is one."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from server.api.app import make_app, make_door
from server.api.ui_calls import UiCallRoutes
from server.api.workspaces import WorkspaceRoutes
from server.services.keys import OpenAuthenticator

pytestmark = pytest.mark.asyncio
BASE = "http://localhost/api/3.0/mlflow"
HEADER = "X-MLFLOW-WORKSPACE"


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A server without a socket."""
    door = make_door(
        make_app([*WorkspaceRoutes().routes(), *UiCallRoutes(has_direct_artifacts=False).routes()]),
        authenticator=OpenAuthenticator(),
        allowed_hosts=frozenset({"localhost"}),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=door)) as http:
        yield http


@pytest.mark.parametrize("prefix", ["api", "ajax-api"])
async def test_the_one_workspace(http: httpx.AsyncClient, prefix: str) -> None:
    """The default workspace is listed and can be read."""
    base = f"http://localhost/{prefix}/3.0/mlflow/workspaces"
    assert (await http.get(base)).json() == {"workspaces": [{"name": "default"}]}
    assert (await http.get(f"{base}/default")).json() == {"workspace": {"name": "default"}}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("other", "RESOURCE_DOES_NOT_EXIST"),
        ("Other", "INVALID_PARAMETER_VALUE"),
        ("x", "INVALID_PARAMETER_VALUE"),
        ("a" * 64, "INVALID_PARAMETER_VALUE"),
        ("-ab", "INVALID_PARAMETER_VALUE"),
    ],
)
async def test_no_other_workspace(http: httpx.AsyncClient, name: str, code: str) -> None:
    """Any other name is not there, or is no name."""
    answer = await http.get(f"{BASE}/workspaces/{name}")
    assert answer.json()["error_code"] == code


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("PATCH", "/default"), ("DELETE", "/other")])
async def test_workspaces_cannot_change(http: httpx.AsyncClient, method: str, path: str) -> None:
    """Making, changing and deleting workspaces is disabled, with a status no client repeats."""
    answer = await http.request(method, f"{BASE}/workspaces{path}", json={"name": "other"})
    assert answer.status_code == 501
    assert answer.json() == {
        "error_code": "FEATURE_DISABLED",
        "message": "Workspace APIs are not available: workspaces are not enabled on this server",
    }


@pytest.mark.parametrize("value", ["default", " default ", ""])
async def test_the_header_of_the_default(http: httpx.AsyncClient, value: str) -> None:
    """A request may name the default workspace, or none."""
    assert (await http.get(f"{BASE}/workspaces", headers={HEADER: value})).status_code == 200


async def test_the_header_of_another(http: httpx.AsyncClient) -> None:
    """A request that names another workspace is refused; what the server can do may still be asked."""
    answer = await http.get(f"{BASE}/workspaces", headers={HEADER: "other"})
    assert answer.json()["error_code"] == "FEATURE_DISABLED"
    answer = await http.get(f"{BASE}/server-info", headers={HEADER: "other"})
    assert answer.status_code == 200
    assert answer.json()["workspaces_enabled"] is False
