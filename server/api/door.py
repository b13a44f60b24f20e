"""The door: the one outermost layer that every request passes.

It finds the route, finds out who asks, and lets through only what the route declares. A path that
is not in the table, or a route that declares no permission, is closed. The route that was judged
is the route that is called: there is no second match that could differ.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import quote, unquote

import structlog
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.cookies import SESSION_COOKIE, read_cookie
from server.api.endpoints import REACH, ROUTE, ClientDisconnectedError, Endpoint
from server.api.errors import as_mlflow_error, send_error, send_json
from server.api.reach import ExperimentLimits
from server.api.request_ids import HEADER, begin_request
from server.domain.access import Permission, Principal
from server.domain.errors import ErrorCode, MlflowError
from server.protocol.workspaces import HEADER as WORKSPACE_HEADER
from server.services.workspaces import check_header
from server.telemetry.audit import Refusals

log = structlog.get_logger(__name__)

Head = Mapping[bytes, bytes]
"""A request's headers by their (lower case) names, read once for all that is judged by them."""
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="mlproxy", charset="UTF-8", Bearer realm="mlproxy"'}
# A browser would ask for a name and a password in a window of its own, over the page that asked.
_CHALLENGE_OF_A_PAGE = {"WWW-Authenticate": 'Bearer realm="mlproxy"'}
_NO_CREDENTIAL = (
    "This server wants an API key: set MLFLOW_TRACKING_TOKEN to it"
    " (or MLFLOW_TRACKING_PASSWORD, with any MLFLOW_TRACKING_USERNAME)."
)
_BAD_CREDENTIAL = (
    "The credential is not known here, has expired, or was revoked: this server wants an API key, or a token"
    " of its identity provider, in MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_PASSWORD."
)
_FORBIDDEN_IN_RAW_PATH = (b"%2f", b"%5c", b"%00", b"\\", b";")
# Artifact names may hold what other paths may not; their own rules judge the decoded name.
_ARTIFACT_PATHS = ("/api/2.0/mlflow-artifacts/", "/ajax-api/2.0/mlflow-artifacts/")
_REFUSALS = (ErrorCode.UNAUTHENTICATED, ErrorCode.PERMISSION_DENIED)
_LONGEST_LOGGED_PATH = 300
_MOST_REMEMBERED_HOSTS = 100
"""Spellings of a host that was let in; an honest client always sends the same."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Told twice, one of the two would be judged and the other one believed.
_TOLD_ONCE = frozenset({b"host", b"origin", b"authorization", b"content-type", b"sec-fetch-site"})


class Authenticator(Protocol):
    """Tells who a request is from."""

    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        """The principal, or None where the credential is absent, unknown, expired or revoked."""
        ...


class SessionFinder(Protocol):
    """Tells whose login a cookie stands for."""

    async def principal_of(self, token: str) -> Principal | None:
        """The principal, or None where the login has ended or never was."""
        ...


class RouteTable:
    """The application's routes, with the many fixed paths found in one step."""

    def __init__(self, routes: list[BaseRoute]) -> None:
        self._fixed: dict[tuple[str, str], Endpoint] = {}
        self._patterns: list[BaseRoute] = []
        for route in routes:
            if isinstance(route, Endpoint) and "{" not in route.path:
                for method in route.methods or ():
                    self._fixed.setdefault((method, route.path), route)
            else:
                self._patterns.append(route)
        self._plain = {path.encode(): path for _, path in self._fixed if _is_clear(path, path.encode())}

    def is_plain(self, scope: Scope) -> bool:
        """Whether the path is, byte for byte, a fixed one: that was judged when this table was made."""
        raw: bytes = scope.get("raw_path") or b""
        path: str = scope["path"]
        return self._plain.get(raw) == path

    def find(self, scope: Scope) -> tuple[BaseRoute | None, dict[str, Any]]:
        """The route for a request, and what to add to its scope."""
        fixed = self._fixed.get((scope["method"], scope["path"]))
        if fixed is not None:
            return fixed, {"path_params": {}}
        for route in self._patterns:
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                return route, dict(child_scope)
        return None, {}


def permission_of(route: BaseRoute) -> Permission | None:
    """What a route declares; None means closed."""
    permission = getattr(route, "permission", None)
    return permission if isinstance(permission, Permission) else None


class Door:
    """Outermost ASGI layer: route, credential, permission, then the route's own application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: list[BaseRoute],
        authenticator: Authenticator,
        allowed_hosts: frozenset[str],
        path_prefix: str = "",
        observe: Any = None,
        sessions: SessionFinder | None = None,
        limits: ExperimentLimits | None = None,
        absence: str | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._app = app
        self._is_stopping = is_stopping
        self._absence = absence
        self._table = RouteTable(routes)
        self._authenticator = authenticator
        self._allowed_hosts = allowed_hosts
        self._prefix = path_prefix.rstrip("/")
        self._sessions = sessions
        self._limits = limits
        self._good_hosts: set[bytes] = set()
        self._refusals = Refusals()
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        head = dict(reversed(scope["headers"]))  # of a repeated one, the first
        watch = _Watch(send, begin_request(head), is_last=self._is_stopping())
        started = time.monotonic()
        try:
            await self._serve(scope, head, receive, watch)
        except ClientDisconnectedError:
            return
        except Exception as error:
            await self._fail(error, scope, watch)
        finally:
            if self._observe is not None:
                self._observe(scope, watch.status, time.monotonic() - started)

    async def _serve(self, scope: Scope, head: Head, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        if len(head) < len(headers):
            _check_repeated(headers)
        self._check_host(head.get(b"host", b""))
        self._strip_prefix(scope)
        if not self._table.is_plain(scope):
            _check_path(scope)
        _check_origin(scope, head)
        route, child_scope = self._table.find(scope)
        permission = permission_of(route) if route is not None else None
        if permission is not Permission.PUBLIC:
            try:
                await self._admit(scope, head, permission)
            except MlflowError as error:
                if error.code is not ErrorCode.UNAUTHENTICATED or not _wants_page(route, head):
                    raise
                await self._send_to_login(scope, send)
                return
            if WORKSPACE_HEADER in head:
                _check_workspace(scope, headers)
        if route is None or permission is None:
            raise self._absent(scope)
        scope.update(child_scope)
        scope[ROUTE] = getattr(route, "path", None)
        if permission is not Permission.PUBLIC:
            self._limit(scope, route)
        if isinstance(route, Endpoint):
            await route.asgi_app(scope, receive, send)
        else:
            await route.handle(scope, receive, send)

    async def _admit(self, scope: Scope, head: Head, permission: Permission | None) -> None:
        principal = await self._authenticator.principal_of(head.get(b"authorization"))
        if principal is None:
            principal = await self._find_session(scope, head)
        if principal is None:
            raise MlflowError(
                ErrorCode.UNAUTHENTICATED,
                _NO_CREDENTIAL if b"authorization" not in head else _BAD_CREDENTIAL,
                headers=_CHALLENGE_OF_A_PAGE if head.get(b"sec-fetch-mode") else _CHALLENGE,
            )
        scope["mlproxy.principal"] = principal
        if permission is not None and not principal.may(permission):
            raise MlflowError(
                ErrorCode.PERMISSION_DENIED,
                f"Your role here is '{principal.role.value}'; the call needs '{permission.value}'.",
            )

    def _limit(self, scope: Scope, route: BaseRoute) -> None:
        """Let a limited key in only where it can be told what its request is about."""
        principal: Principal = scope["mlproxy.principal"]
        if principal.experiments is None:
            return
        if self._limits is None or not isinstance(route, Endpoint):
            raise MlflowError(ErrorCode.PERMISSION_DENIED, "This call is not for keys that are limited.")
        scope[REACH] = self._limits.check_of(scope["method"], route.path, principal.experiments)

    def _absent(self, scope: Scope) -> MlflowError:
        """The refusal of a path that this server does not have, or (`absence`) not in its role."""
        if self._absence is not None:
            return MlflowError(ErrorCode.FEATURE_DISABLED, self._absence)
        return MlflowError(
            ErrorCode.ENDPOINT_NOT_FOUND, f"The server has no endpoint {scope['method']} {scope['path']}."
        )

    async def _find_session(self, scope: Scope, head: Head) -> Principal | None:
        """Whose login the request's cookie stands for; a credential in the header is never passed over."""
        if b"authorization" in head or self._sessions is None:
            return None
        token = read_cookie(scope["headers"], SESSION_COOKIE)
        principal = None if token is None else await self._sessions.principal_of(token)
        if principal is not None:
            _check_own_page(scope, head)
        return principal

    def _check_host(self, host: bytes) -> None:
        """A page of another site cannot reach us under a name it made point here."""
        if host in self._good_hosts or "*" in self._allowed_hosts:
            return
        name = host.decode("latin-1").lower()
        if name not in self._allowed_hosts and _without_port(name) not in self._allowed_hosts:
            raise MlflowError(
                ErrorCode.PERMISSION_DENIED,
                "This server is not to be reached under that host name; MLPROXY_ALLOWED_HOSTS lists"
                " those it answers to.",
            )
        if len(self._good_hosts) < _MOST_REMEMBERED_HOSTS:
            self._good_hosts.add(host)

    def _strip_prefix(self, scope: Scope) -> None:
        if not self._prefix:
            return
        path: str = scope["path"]
        if path == self._prefix or path.startswith(self._prefix + "/"):
            scope["path"] = path[len(self._prefix) :] or "/"
            scope["root_path"] = ""

    def _note_refusal(self, error: MlflowError, scope: Scope) -> None:
        client, principal = scope.get("client"), scope.get("mlproxy.principal")
        self._refusals.note(
            reason=error.code.value,
            method=scope["method"],
            path=scope["path"][:_LONGEST_LOGGED_PATH],
            address=client[0] if client else None,
            principal=None if principal is None else principal.name,
        )

    async def _send_to_login(self, scope: Scope, send: Send) -> None:
        target = quote(f"{self._prefix}{scope['path']}", safe="")
        headers = {"Location": f"{self._prefix}/login?next={target}", "Cache-Control": "no-store"}
        await send_json(send, b"", status=303, headers=headers)

    async def _fail(self, error: Exception, scope: Scope, send: "_Watch") -> None:
        answer = as_mlflow_error(error, path=scope["path"], request_id=send.request_id)
        if answer.code in _REFUSALS:
            self._note_refusal(answer, scope)
        if send.status is None:
            await send_error(send, answer, with_body=scope["method"] != "HEAD")
        else:
            raise ConnectionAbortedError("The answer was cut off by an error.") from error


class _Watch:
    """Names the request in its answer, and remembers whether that has begun.

    After the last one of a connection it is closed.
    """

    def __init__(self, send: Send, request_id: str, *, is_last: bool = False) -> None:
        self._send = send
        self.request_id = request_id
        self._is_last = is_last
        self.status: int | None = None

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (HEADER, self.request_id.encode())]
            if self._is_last:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)


def _check_path(scope: Scope) -> None:
    """Refuse spellings that a router and a guard could read differently."""
    path: str = scope["path"]
    raw: bytes = scope.get("raw_path") or path.encode()
    if not _is_clear(path, raw.split(b"?", 1)[0]):
        raise MlflowError(ErrorCode.INVALID_PARAMETER_VALUE, "Invalid path")


def _is_clear(path: str, raw: bytes) -> bool:
    lower = raw.lower()
    if any(part in lower for part in _FORBIDDEN_IN_RAW_PATH) and not path.startswith(_ARTIFACT_PATHS):
        return False
    if "//" in path or any(unquote(segment) in (".", "..") for segment in path.split("/")):
        return False
    return not any(character < " " or character == "\x7f" for character in path)


def _check_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a second answer to who asks, from where, for which host and in which form."""
    told = [name for name, _ in headers if name in _TOLD_ONCE]
    if len(told) > len(set(told)):
        raise MlflowError(ErrorCode.INVALID_PARAMETER_VALUE, "A header is repeated that may be there once.")


def _check_origin(scope: Scope, head: Head) -> None:
    """A state-changing request from a page must come from our own page."""
    origin = head.get(b"origin")
    if not origin or scope["method"] in _SAFE_METHODS:
        return
    if origin.split(b"://", 1)[-1].lower() != head.get(b"host", b"").lower():
        raise MlflowError(ErrorCode.PERMISSION_DENIED, "Cross-origin request blocked")


def _check_own_page(scope: Scope, head: Head) -> None:
    """A cookie comes along with whatever page made the browser ask: what changes something must be ours.

    `_check_origin` has refused a foreign Origin already; here one of the two must be there.
    """
    if scope["method"] in _SAFE_METHODS or head.get(b"origin"):
        return
    if head.get(b"sec-fetch-site") != b"same-origin":
        raise MlflowError(ErrorCode.PERMISSION_DENIED, "Cross-origin request blocked")


def _check_workspace(scope: Scope, headers: list[tuple[bytes, bytes]]) -> None:
    """What asks for another MLflow workspace must not be served from this one."""
    for name, value in headers:
        # Whether there are workspaces may always be asked.
        if name == WORKSPACE_HEADER and not scope["path"].endswith("/server-info"):
            check_header(value)


def _wants_page(route: BaseRoute | None, head: Head) -> bool:
    """Whether a person looks at a page: only then an answer may send them somewhere else."""
    is_page = isinstance(route, Endpoint) and route.is_page
    return is_page and b"text/html" in head.get(b"accept", b"")


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if port.isdecimal() else host


def mounted_routes(routes: list[BaseRoute]) -> list[BaseRoute]:
    """Every route of a table, those inside mounts included."""
    found: list[BaseRoute] = []
    for route in routes:
        found.append(route)
        if isinstance(route, Mount):
            found.extend(mounted_routes(list(route.routes)))
    return found
