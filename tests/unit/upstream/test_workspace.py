"""Addresses of workspaces."""

import httpx
import pytest

from server.upstream.credentials import TokenSource
from server.upstream.failures import UpstreamFailure
from server.upstream.workspace import ArmWorkspaceId, WorkspaceAddress, parse_workspace, resolve

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
PATH = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/my-group"
    "/providers/Microsoft.MachineLearningServices/workspaces/my_ws"
)
HOST = "westeurope.api.azureml.ms"
CANONICAL = f"azureml://{HOST}/mlflow/v1.0{PATH}"


@pytest.mark.parametrize(
    "text",
    [
        CANONICAL,
        f"azureml://{HOST}/mlflow/v2.0{PATH}",
        f"azureml://{HOST}/mlflow/v1.0{PATH}?",
        f"azureml://{HOST}/mlflow/v1.0{PATH}?auth-type=x&is-remote=True",
        f"azureml://{HOST}/mlflow/v1.0{PATH}/",
        f"https://{HOST}/mlflow/v2.0{PATH}",
        f"https://{HOST}{PATH}",
        f"  https://{HOST.upper()}/mlflow/v1.0{PATH.replace('resourceGroups', 'resourcegroups')}\n",
    ],
)
def test_every_way_of_writing_a_workspace_is_one_address(text: str) -> None:
    """Scheme, version, query and case of fixed words do not change which workspace is meant."""
    address = parse_workspace(text)
    assert isinstance(address, WorkspaceAddress)
    assert address.canonical == CANONICAL
    assert address.host_url == f"https://{HOST}"


def test_services_of_a_workspace_share_its_host() -> None:
    """Each service has its base under the host of the tracking URI."""
    address = parse_workspace(CANONICAL)
    assert isinstance(address, WorkspaceAddress)
    assert address.mlflow_url == f"https://{HOST}/mlflow/v2.0{PATH}/api/2.0/mlflow"
    assert address.preview_url == f"https://{HOST}/mlflow/v2.0{PATH}/api/2.0/preview/mlflow"
    assert address.history_url == f"https://{HOST}/history/v1.0{PATH}"
    assert address.artifact_url == f"https://{HOST}/artifact/v2.0{PATH}"


@pytest.mark.parametrize(
    ("text", "host_url"),
    [
        (f"azureml://127.0.0.1:9080/mlflow/v1.0{PATH}", "http://127.0.0.1:9080"),
        (f"azureml://localhost:9080/mlflow/v1.0{PATH}", "http://localhost:9080"),
        (f"http://[::1]:9080/mlflow/v1.0{PATH}", "http://[::1]:9080"),
        (f"https://localhost:9443/mlflow/v1.0{PATH}", "https://localhost:9443"),
    ],
)
def test_an_emulator_on_this_machine_is_plain_http_unless_https_is_written(text: str, host_url: str) -> None:
    """Loopback hosts are reached without TLS, except where the address says https."""
    address = parse_workspace(text)
    assert isinstance(address, WorkspaceAddress)
    assert address.host_url == host_url
    assert address.is_loopback


def test_an_arm_id_is_kept_as_one() -> None:
    """An ARM id names the workspace and leaves its host open."""
    assert parse_workspace(PATH) == ArmWorkspaceId(SUBSCRIPTION, "my-group", "my_ws")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mlruns",
        f"http://{HOST}/mlflow/v1.0{PATH}",
        f"http://127.0.0.1.evil.example/mlflow/v1.0{PATH}",
        f"ftp://{HOST}{PATH}",
        f"azureml://{HOST}/mlflow/v1.0/subscriptions/x",
        f"azureml://{HOST}/mlflow/v1.0{PATH}/extra",
        f"azureml:///mlflow/v1.0{PATH}",
        f"azureml://user@{HOST}/mlflow/v1.0{PATH}",
        f"azureml://{HOST}:port/mlflow/v1.0{PATH}",
        f"azureml://{HOST}/mlflow/v1.0{PATH.replace('my_ws', 'a%2Fb')}",
        f"azureml://{HOST}/mlflow/v1.0{PATH.replace('workspaces', 'registries')}",
    ],
)
def test_a_wrong_address_is_refused_with_the_form_that_is_wanted(text: str) -> None:
    """What is no workspace is a `ValueError` that shows what one looks like."""
    with pytest.raises(ValueError, match=r"azureml://<region>\.api\.azureml\.ms"):
        parse_workspace(text)


@pytest.mark.parametrize(
    ("host", "scope", "studio"),
    [
        (HOST, "https://management.azure.com/.default", "https://ml.azure.com"),
        (
            "chinaeast2.api.ml.azure.cn",
            "https://management.chinacloudapi.cn/.default",
            "https://studio.ml.azure.cn",
        ),
        ("x.api.ml.azure.us", "https://management.usgovcloudapi.net/.default", "https://ml.azure.us"),
    ],
)
def test_a_sovereign_cloud_has_its_own_scope_and_studio(host: str, scope: str, studio: str) -> None:
    """The cloud follows from the host."""
    address = WorkspaceAddress(f"https://{host}", SUBSCRIPTION, "my-group", "my_ws")
    assert address.token_scope == scope
    assert address.studio_url("run-1") == f"{studio}/runs/run-1?wsid={PATH}"


@pytest.mark.asyncio
async def test_an_arm_id_is_resolved_to_the_tracking_uri_that_azure_tells(
    http: httpx.AsyncClient, wire, tokens: TokenSource
) -> None:
    """One authorised GET to Azure Resource Manager gives the address."""
    wire.replies(httpx.Response(200, json={"properties": {"mlFlowTrackingUri": CANONICAL}}))
    address = await resolve(ArmWorkspaceId(SUBSCRIPTION, "my-group", "my_ws"), tokens, http)
    assert address.canonical == CANONICAL
    assert wire.last.url == f"https://management.azure.com{PATH}?api-version=2024-04-01"
    assert wire.last.headers["authorization"] == "Bearer token-1"


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [{}, {"properties": {}}, {"properties": {"mlFlowTrackingUri": "x"}}, []])
async def test_a_workspace_without_tracking_uri_is_a_failure(
    http: httpx.AsyncClient, wire, tokens: TokenSource, body: object
) -> None:
    """An answer of Azure Resource Manager that names no tracking URI is not taken for an address."""
    wire.replies(httpx.Response(200, json=body))
    with pytest.raises(UpstreamFailure):
        await resolve(
            ArmWorkspaceId(SUBSCRIPTION, "g", "w"), tokens, http, management_url="https://arm.example"
        )
