"""Requests as spans: around the door, and only in a process that is traced."""

from typing import Any

from opentelemetry.trace import StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.cookies import header
from server.api.endpoints import ROUTE
from server.api.request_ids import HEADER
from server.telemetry.spans import Tracing

# Spans that we receive, and who looks whether we live: to trace them would answer each span with another.
_UNTRACED = ("/v1/traces", "/health", "/metrics", "/pages/")
_CARRIED = (b"traceparent", b"tracestate")


class TracedDoor:
    """The door, with a span for each request. Names of routes and statuses go in, never what was sent."""

    def __init__(self, door: ASGIApp, tracing: Tracing, *, path_prefix: str = "") -> None:
        self._door = door
        self._tracing = tracing
        self._untraced = tuple(f"{path_prefix.rstrip('/')}{path}" for path in _UNTRACED)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(self._untraced):
            await self._door(scope, receive, send)
            return
        method: str = scope["method"]
        headers = scope["headers"]
        carried = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CARRIED}
        with self._tracing.request(method, carried) as span:

            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    status: int = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    request_id = header(message.get("headers", ()), HEADER)
                    if request_id is not None:
                        span.set_attribute("mlproxy.request_id", request_id.decode())
                    if status >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            try:
                await self._door(scope, receive, told)
            finally:
                _name(span, scope, method)


def _name(span: Any, scope: Scope, method: str) -> None:
    """By the declared route: paths hold ids, and would make a name of each."""
    route: str | None = scope.get(ROUTE)
    if route is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    principal = scope.get("mlproxy.principal")
    if principal is not None and principal.name is not None:
        span.set_attribute("mlproxy.principal", principal.name)
