"""Routes: each declares its method, path, permission and message, in one place.

An `Endpoint` is a Starlette route, so it stands in the application's route table like any other;
it decodes with msgspec and calls its handler without dependency injection or response models,
which cost a bare route 40 % of its speed.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from server.api.errors import send_json
from server.domain.access import Permission, Principal, Role
from server.domain.errors import ErrorCode, MlflowError
from server.domain.origins import Connection, Origin
from server.protocol.wire import Decoder, encode

MLFLOW_2 = ("/api/2.0/mlflow", "/ajax-api/2.0/mlflow")
# clients of 1.x
MLFLOW_AND_PREVIEW = (*MLFLOW_2, "/api/2.0/preview/mlflow")
MLFLOW_3 = ("/api/3.0/mlflow", "/ajax-api/3.0/mlflow")
OWN = ("/api/2.0/mlproxy",)
_EMPTY = b"{}"
_MAX_BODY_BYTES = 32 * 1024 * 1024
_NOBODY = Principal(None, Role.READ)
CONNECTION = "mlproxy.connection"
"""Where the server's transport is found in the state of a request."""
OPERATOR = "mlproxy.operator"
"""Where the state of a request that came from this machine itself has the user who made it."""
ROUTE = "mlproxy.route"
"""Where the door leaves the path of the route that it chose, as it is declared."""
REACH = "mlproxy.reach"
"""Where the door leaves what a request must pass whose key is limited to some experiments."""
_FORWARDED = (b"x-forwarded-for", b"forwarded", b"via")


class ClientDisconnectedError(Exception):
    """The client went away before its request was complete."""


@dataclass(slots=True)
class Call:
    """One request, as a handler sees it."""

    scope: Scope
    receive: Receive
    send: Send
    size_bytes: int = 0
    body: bytes = b""
    told: list[Callable[[], None]] | None = None

    @property
    def principal(self) -> Principal:
        """Who asks; the door has found out."""
        principal: Principal = self.scope.get("mlproxy.principal", _NOBODY)
        return principal

    @property
    def user(self) -> str | None:
        """The name to record with a write."""
        return self.principal.name

    @property
    def operator(self) -> str:
        """Who makes an operator's decision: the key's name, or the user of this machine."""
        local: str | None = self.scope.get("state", {}).get(OPERATOR)
        return local or self.user or "anonymous"

    @property
    def origin(self) -> Origin:
        """Where this request comes from. The address is the client's own, past trusted reverse proxies."""
        client = self.scope.get("client")
        self.told = self.told or []
        key = self.header(b"idempotency-key")
        return Origin(
            principal=self.user,
            address=client[0] if client else None,
            body_hash=hashlib.sha256(self.body).digest(),
            idempotency_key=None if key is None else key.decode("latin-1").strip(),
            connection=None if self._is_forwarded() else self._connection(),
            when_told=self.told.append,
        )

    def can_be_told(self) -> bool:
        """Whether the connection still stands, as far as is known."""
        connection = self._connection()
        return connection is None or not connection.is_closing()

    def _connection(self) -> Connection | None:
        connection: Connection | None = self.scope.get("state", {}).get(CONNECTION)
        return connection

    def _is_forwarded(self) -> bool:
        """Whether something says that a reverse proxy, not the client, is at the connection's other end."""
        return any(self.header(name) is not None for name in _FORWARDED)

    async def check_reach(self, message: Any) -> None:
        """Refuse a request that reaches beyond the experiments that its key is limited to.

        Every route is asked before its handler; a handler that reads the request itself asks again.

        Raises:
            MlflowError: PERMISSION_DENIED.
        """
        check: ReachCheck | None = self.scope.get(REACH)
        if check is not None:
            await check(self, message)

    @property
    def path_params(self) -> Mapping[str, str]:
        """What the route's pattern matched."""
        params: Mapping[str, str] = self.scope.get("path_params", {})
        return params

    @property
    def query(self) -> str:
        """The raw query string."""
        query: bytes = self.scope["query_string"]
        return query.decode("latin-1")

    def header(self, name: bytes) -> bytes | None:
        """A request header (lower case), or None."""
        for key, value in self.scope["headers"]:
            if key == name:
                found: bytes = value
                return found
        return None


ReachCheck = Callable[[Call, Any], Awaitable[None]]
Handler = Callable[[Call, Any], Awaitable[Any]]
StreamHandler = Callable[[Call], Awaitable[None]]


async def read_body(call: Call, limit: int = _MAX_BODY_BYTES) -> bytes:
    """The whole body, counted while it streams in.

    Raises:
        MlflowError: it is larger than `limit`.
    """
    message: Message = await call.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnectedError
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        _check_size(len(body), limit)
        return body
    parts = [body]
    size = len(body)
    _check_size(size, limit)
    while message.get("more_body", False):
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        part: bytes = message.get("body", b"")
        size += len(part)
        _check_size(size, limit)
        parts.append(part)
    return b"".join(parts)


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise MlflowError(
            ErrorCode.INVALID_PARAMETER_VALUE, f"The request body is larger than {limit} bytes.", status=413
        )


class _JsonApp:
    """Decodes a message, calls the handler, encodes what it returns; bytes are an answer already encoded."""

    def __init__(self, handler: Handler, decoder: Decoder | None, *, from_query: bool) -> None:
        self._handler = handler
        self._decoder = decoder
        self._from_query = from_query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        message: Any = None
        if self._decoder is not None:
            if self._from_query:
                message = self._decoder.from_query(call.query)
            else:
                body = await read_body(call)
                call.body, call.size_bytes = body, len(body)
                _check_content_type(call, body)
                message = self._decoder.from_body(body)
        await call.check_reach(message)
        answer = await self._handler(call, message)
        told = call.told if call.told and call.can_be_told() else ()
        await send_json(send, _body_of(answer))
        for tell in told:
            tell()


def _body_of(answer: Any) -> bytes | bytearray:
    if answer is None:
        return _EMPTY
    return answer if isinstance(answer, bytes | bytearray) else encode(answer)


def _check_content_type(call: Call, body: bytes) -> None:
    """A browser cannot send JSON to another site's server without being asked first."""
    content_type = call.header(b"content-type")
    if content_type == b"application/json":
        return
    if content_type is None:
        if body:
            raise MlflowError(
                ErrorCode.INVALID_PARAMETER_VALUE,
                "Bad Request. Content-Type header is missing. Content-Type must be application/json.",
            )
        return
    kind = content_type.split(b";", 1)[0].strip().lower()
    if kind != b"application/json" and not kind.endswith(b"+json"):
        raise MlflowError(
            ErrorCode.INVALID_PARAMETER_VALUE, "Bad Request. Content-Type must be application/json."
        )


class _StreamApp:
    """Hands the whole exchange to the handler."""

    def __init__(self, handler: StreamHandler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        await call.check_reach(None)
        await self._handler(call)


class Endpoint(Route):
    """A route with a declared permission."""

    def __init__(
        self,
        method: str,
        path: str,
        app: Any,
        *,
        permission: Permission,
        message: type[Any] | None,
        is_page: bool = False,
    ) -> None:
        super().__init__(path, endpoint=app, methods=[method])
        self.permission = permission
        self.is_page = is_page
        self.message = message
        self.asgi_app = app


def json_routes(
    method: str,
    path: str,
    handler: Handler,
    *,
    permission: Permission,
    message: type[Any] | None = None,
    prefixes: Sequence[str] = MLFLOW_2,
) -> list[Endpoint]:
    """The routes of one MLflow call, under each prefix. GET takes its message from the query string."""
    decoder = Decoder(message) if message is not None else None
    app = _JsonApp(handler, decoder, from_query=method == "GET")
    return [
        Endpoint(method, f"{prefix}{path}", app, permission=permission, message=message)
        for prefix in prefixes
    ]


def stream_routes(
    method: str,
    paths: Sequence[str],
    handler: StreamHandler,
    *,
    permission: Permission,
    is_page: bool = False,
) -> list[Endpoint]:
    """Routes whose handler reads and answers by itself. A page asks people who are not known to log in."""
    app = _StreamApp(handler)
    return [
        Endpoint(method, path, app, permission=permission, message=None, is_page=is_page) for path in paths
    ]
