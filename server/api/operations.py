"""The proxy's own routes: probes, version, metrics, status, keys, drain, verify."""

from collections.abc import Awaitable, Callable

from server.api.endpoints import OWN as _OWN
from server.api.endpoints import Call, Endpoint, json_routes, stream_routes
from server.api.errors import send_json
from server.domain.access import Permission, Role
from server.domain.errors import ErrorCode, MlflowError, invalid_parameter
from server.protocol import operations as messages
from server.protocol.wire import encode
from server.services.keys import Keys
from server.services.operations import Operations
from server.services.verification import Verification

MLFLOW_VERSION = "3.18.0"
"""The version whose API is spoken. Clients read it before they send spans (at least 3.4)."""

_TEXT = b"text/plain; charset=utf-8"


class OperationRoutes:
    """/health, /version, /metrics and /api/2.0/mlproxy/*."""

    def __init__(
        self,
        *,
        operations: Operations,
        keys: Keys,
        verification: Verification | None,
        forget_keys: Callable[[], None],
        readiness: Callable[[], Awaitable[dict[str, object]]],
        render_metrics: Callable[[], Awaitable[bytes]],
        describe: Callable[[], dict[str, object]],
    ) -> None:
        self._operations = operations
        self._keys = keys
        self._verification = verification
        self._forget_keys = forget_keys
        self._readiness = readiness
        self._render_metrics = render_metrics
        self._describe = describe

    def routes(self) -> list[Endpoint]:
        """The route table."""
        public, read, admin = Permission.PUBLIC, Permission.READ, Permission.ADMIN
        return [
            *stream_routes("GET", ["/health", "/health/live"], self._alive, permission=public),
            *stream_routes("GET", ["/health/ready"], self._ready, permission=public),
            *stream_routes("GET", ["/health/upstream"], self._upstream, permission=read),
            *stream_routes("GET", ["/version"], self._version, permission=public),
            *stream_routes("GET", ["/metrics"], self._metrics, permission=read),
            *stream_routes("GET", ["/openapi.json"], self._openapi, permission=read),
            *json_routes("GET", "/status", self._status, permission=read, prefixes=_OWN),
            *json_routes("GET", "/me", self._me, permission=read, prefixes=_OWN),
            *json_routes("GET", "/runs/{run_id}", self._run_status, permission=read, prefixes=_OWN),
            *json_routes("GET", "/models/{name}", self._model_status, permission=read, prefixes=_OWN),
            *json_routes("GET", "/verify/{run_id}", self._verify, permission=read, prefixes=_OWN),
            *json_routes(
                "POST", "/drain", self._drain, permission=admin, message=messages.DrainRequest, prefixes=_OWN
            ),
            *json_routes("GET", "/keys", self._list_keys, permission=admin, prefixes=_OWN),
            *json_routes(
                "POST",
                "/keys",
                self._create_key,
                permission=admin,
                message=messages.CreateKeyRequest,
                prefixes=_OWN,
            ),
            *json_routes(
                "POST",
                "/keys/revoke",
                self._revoke_key,
                permission=admin,
                message=messages.RevokeKeyRequest,
                prefixes=_OWN,
            ),
        ]

    # --- probes ---

    async def _alive(self, call: Call) -> None:
        await send_json(call.send, b"OK", content_type=_TEXT)

    async def _ready(self, call: Call) -> None:
        """Database writable and disk headroom; never Azure."""
        problems = await self._readiness()
        status = 503 if problems else 200
        await send_json(call.send, encode({"ready": not problems, "problems": problems}), status=status)

    async def _upstream(self, call: Call) -> None:
        status = await self._operations.status()
        await send_json(call.send, encode({"workspace": status.workspace, "token": status.token}))

    async def _version(self, call: Call) -> None:
        await send_json(call.send, MLFLOW_VERSION.encode(), content_type=_TEXT)

    async def _metrics(self, call: Call) -> None:
        body = await self._render_metrics()
        await send_json(call.send, body, content_type=b"text/plain; version=0.0.4; charset=utf-8")

    async def _openapi(self, call: Call) -> None:
        await send_json(call.send, encode(self._describe()))

    # --- status ---

    async def _status(self, call: Call, _: None) -> messages.StatusAnswer:
        return await self._operations.status()

    async def _me(self, call: Call, _: None) -> messages.MeAnswer:
        """Who asks. A browser that logged in can log out; one that sends a key, or needs none, cannot."""
        has_login = call.header(b"authorization") is None and call.principal.name is not None
        return messages.MeAnswer(call.principal.name, call.principal.role.value, has_login)

    async def _run_status(self, call: Call, _: None) -> messages.RunStatusAnswer:
        return await self._operations.run_status(call.path_params["run_id"])

    async def _model_status(self, call: Call, _: None) -> messages.ModelStatusAnswer:
        return await self._operations.model_status(call.path_params["name"])

    async def _verify(self, call: Call, _: None) -> messages.VerifyAnswer:
        if self._verification is None:
            raise MlflowError(ErrorCode.BAD_REQUEST, "No workspace is configured: set MLPROXY_WORKSPACE.")
        return await self._verification.verify(call.path_params["run_id"])

    async def _drain(self, call: Call, request: messages.DrainRequest) -> messages.DrainAnswer:
        return await self._operations.drain(request.timeout_seconds)

    # --- keys ---

    async def _list_keys(self, call: Call, _: None) -> messages.KeysAnswer:
        return messages.KeysAnswer(
            [
                messages.KeyMessage(
                    key.name,
                    key.prefix,
                    key.role.value,
                    key.created_at_ms,
                    key.expires_at_ms,
                    key.revoked_at_ms,
                    key.last_used_ms,
                    None if key.experiments is None else list(key.experiments.patterns),
                )
                for key in await self._keys.list()
            ]
        )

    async def _create_key(self, call: Call, request: messages.CreateKeyRequest) -> messages.CreateKeyAnswer:
        if request.role not in list(Role):
            raise invalid_parameter(f"Unknown role '{request.role}'. Roles: {', '.join(Role)}.")
        new = await self._keys.create(
            request.name, Role(request.role), request.expires_in_days, request.experiments
        )
        return messages.CreateKeyAnswer(new.name, new.role.value, new.key)

    async def _revoke_key(self, call: Call, request: messages.RevokeKeyRequest) -> None:
        await self._keys.revoke(request.name)
        self._forget_keys()
