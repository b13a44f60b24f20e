"""Azure Resource Manager: the workspace resource and service discovery [C][W]."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emulator.errors import JsonObject
from emulator.workspace import Workspace, origin_of, workspace_scope

WORKSPACE_ID = "00000000-0000-0000-0000-0000000000e0"
RESOURCE = (
    "/subscriptions/{subscription}/{_groups:str}/{group}"
    "/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
)
SERVICES = (
    "api",
    "catalog",
    "experimentation",
    "gallery",
    "history",
    "hyperdrive",
    "pipelines",
    "studio",
    "modelmanagement",
    "mlflow",
    "metric",
    "artifact",
)


def routes(workspace: Workspace) -> list[Route]:
    """Discovery, the subscription list and the workspace resource."""
    del workspace
    return [
        Route("/discovery", discovery),
        Route("/subscriptions", subscriptions),
        Route(RESOURCE, resource),
    ]


async def discovery(request: Request) -> Response:
    """Service name to base address; every service shares one host."""
    return JSONResponse(dict.fromkeys(SERVICES, origin_of(request)))


async def subscriptions(request: Request) -> Response:
    """azureml-core looks its subscription up before it reads the workspace [W]."""
    del request
    value = [
        {
            "id": "/subscriptions/00000000-0000-0000-0000-000000000000",
            "subscriptionId": "00000000-0000-0000-0000-000000000000",
            "displayName": "emulator",
            "state": "Enabled",
            "tenantId": "00000000-0000-0000-0000-0000000000e2",
        }
    ]
    return JSONResponse({"value": value})


async def resource(request: Request) -> Response:
    """The workspace, with the fields clients read."""
    path = {name: str(value) for name, value in request.path_params.items()}
    return JSONResponse(describe(origin_of(request), workspace_scope(path), path))


def describe(origin: str, scope: str, path: dict[str, str]) -> JsonObject:
    """The resource's document."""
    providers = f"/subscriptions/{path['subscription']}/resourceGroups/{path['group']}/providers"
    host = origin.partition("://")[2]
    return {
        "id": scope,
        "name": path["workspace"],
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": "westeurope",
        "tags": {},
        "etag": None,
        "sku": {"name": "Basic", "tier": "Basic"},
        "identity": {
            "type": "SystemAssigned",
            "principalId": "00000000-0000-0000-0000-0000000000e3",
            "tenantId": "00000000-0000-0000-0000-0000000000e2",
        },
        "properties": {
            "friendlyName": path["workspace"],
            "description": "",
            "workspaceId": WORKSPACE_ID,
            "creationTime": "2026-01-01T00:00:00.0000000Z",
            "discoveryUrl": f"{origin}/discovery",
            "mlFlowTrackingUri": f"azureml://{host}/mlflow/v1.0{scope}",
            "storageAccount": f"{providers}/Microsoft.Storage/storageAccounts/emustore",
            "keyVault": f"{providers}/Microsoft.Keyvault/vaults/emulator",
            "applicationInsights": f"{providers}/Microsoft.Insights/components/emulator",
            "containerRegistry": None,
            "hbiWorkspace": False,
            "provisioningState": "Succeeded",
            "publicNetworkAccess": "Enabled",
            "privateLinkCount": 0,
            "storageHnsEnabled": False,
            "v1LegacyMode": False,
            "tenantId": "00000000-0000-0000-0000-0000000000e2",
        },
    }
