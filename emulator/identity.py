"""Where clients get tokens: managed identity, IMDS, service principal, and the cloud's own description.

Shapes are those azure-identity and azureml-mlflow ask for [W]. `client_credentials` accepts any secret
but `wrong`, so that a test can see a refusal.
"""

import time
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from emulator.workspace import Workspace, origin_of

ARM_AUDIENCE = "https://management.azure.com"


def routes(workspace: Workspace) -> list[Route]:
    """All token endpoints."""
    identity = Identity(workspace)
    return [
        Route("/msi/token", identity.managed_identity),
        Route("/metadata/identity/oauth2/token", identity.instance_metadata),
        Route("/metadata/endpoints", identity.cloud),
        Route("/common/discovery/instance", identity.instance_discovery),
        Route("/{tenant}/.well-known/openid-configuration", identity.openid_adfs),
        Route("/{tenant}/v2.0/.well-known/openid-configuration", identity.openid),
        Route("/{tenant}/oauth2/token", identity.grant, methods=["POST"]),
        Route("/{tenant}/oauth2/token/", identity.grant, methods=["POST"]),
        Route("/{tenant}/oauth2/v2.0/token", identity.grant, methods=["POST"]),
    ]


class Identity:
    """The token endpoints."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def managed_identity(self, request: Request) -> Response:
        """App Service style, api-version 2019-08-01; the 2017 form sends the header as `secret` [C]."""
        if not (request.headers.get("x-identity-header") or request.headers.get("secret")):
            return JSONResponse({"statusCode": 401, "message": "X-IDENTITY-HEADER is missing."}, 401)
        return self._identity_token(request)

    async def instance_metadata(self, request: Request) -> Response:
        """IMDS; azure-identity probes it without the header and wants a 400 then [W]."""
        if request.headers.get("metadata", "").lower() != "true":
            return JSONResponse(
                {"error": "invalid_request", "error_description": "Required metadata header not specified"},
                400,
            )
        return self._identity_token(request)

    async def cloud(self, request: Request) -> Response:
        """ARM 2019-05-01 metadata: this emulator as the whole cloud."""
        origin = origin_of(request)
        return JSONResponse(
            [
                {
                    "name": "AzureCloud",
                    "portal": "https://portal.azure.com",
                    "resourceManager": f"{origin}/",
                    "graph": "https://graph.windows.net/",
                    "graphAudience": "https://graph.windows.net/",
                    "authentication": {
                        "loginEndpoint": f"{origin}/",
                        "audiences": ["https://management.core.windows.net/", f"{ARM_AUDIENCE}/"],
                        "tenant": "common",
                        "identityProvider": "AAD",
                    },
                    "media": "https://rest.media.azure.net",
                    "batch": "https://batch.core.windows.net/",
                    "gallery": "https://gallery.azure.com/",
                    "sqlManagement": "https://management.core.windows.net:8443/",
                    "vmImageAliasDoc": f"{origin}/images.json",
                    "activeDirectoryDataLake": "https://datalake.azure.net/",
                    "suffixes": {
                        "storage": "core.windows.net",
                        "keyVaultDns": "vault.azure.net",
                        "sqlServerHostname": "database.windows.net",
                        "acrLoginServer": "azurecr.io",
                        "azureDataLakeStoreFileSystem": "azuredatalakestore.net",
                        "azureDataLakeAnalyticsCatalogAndJob": "azuredatalakeanalytics.net",
                    },
                }
            ]
        )

    async def instance_discovery(self, request: Request) -> Response:
        """What MSAL asks about an authority it does not know."""
        tenant = request.query_params.get("authorization_endpoint", "").split("/")[3:4] or ["common"]
        return JSONResponse(
            {
                "tenant_discovery_endpoint": (
                    f"{origin_of(request)}/{tenant[0]}/v2.0/.well-known/openid-configuration"
                ),
                "api-version": "1.1",
                "metadata": [],
            }
        )

    async def openid_adfs(self, request: Request) -> Response:
        """The configuration of an ADFS authority, which MSAL does not check elsewhere [W]."""
        base = f"{origin_of(request)}/{request.path_params['tenant']}"
        return JSONResponse(_openid(base, f"{base}/oauth2/token/", f"{base}/oauth2/authorize/"))

    async def openid(self, request: Request) -> Response:
        """The configuration of an Entra ID tenant."""
        base = f"{origin_of(request)}/{request.path_params['tenant']}"
        return JSONResponse(_openid(base, f"{base}/oauth2/v2.0/token", f"{base}/oauth2/v2.0/authorize"))

    async def grant(self, request: Request) -> Response:
        """`client_credentials`, v1 (`resource`) and v2 (`scope`) [D][W]."""
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return _refused("unsupported_grant_type", "only client_credentials is spoken here")
        if form.get("client_secret") == "wrong":
            return _refused("invalid_client", "AADSTS7000215: Invalid client secret provided.")
        audience = form.get("resource") or form.get("scope") or ARM_AUDIENCE
        seconds = self._workspace.settings.token_seconds
        return JSONResponse(
            {
                "token_type": "Bearer",
                "expires_in": int(seconds),
                "ext_expires_in": int(seconds),
                "access_token": self._workspace.tokens.issue(audience=audience, seconds=seconds),
            }
        )

    def _identity_token(self, request: Request) -> Response:
        resource = request.query_params.get("resource", ARM_AUDIENCE)
        seconds = self._workspace.settings.token_seconds
        now = int(time.time())
        return JSONResponse(
            {
                "access_token": self._workspace.tokens.issue(audience=resource, seconds=seconds),
                "expires_on": str(int(now + seconds)),
                "expires_in": str(int(seconds)),
                "not_before": str(now),
                "resource": resource,
                "token_type": "Bearer",
                "client_id": "emulator",
            }
        )


def _openid(base: str, token_endpoint: str, authorization_endpoint: str) -> dict[str, str]:
    return {
        "issuer": base,
        "token_endpoint": token_endpoint,
        "authorization_endpoint": authorization_endpoint,
        "jwks_uri": f"{base}/discovery/keys",
    }


def _refused(error: str, description: str) -> Response:
    return JSONResponse({"error": error, "error_description": description}, 401)
