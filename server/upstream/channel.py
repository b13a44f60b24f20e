"""Authorised calls to one host.

The token goes to that host and nowhere else, redirects are not followed, and a refused token is renewed
once per call. Bodies and tokens are never logged.
"""

import asyncio
import json
import logging
import os
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import perf_counter
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import httpx
import structlog

from server import __version__
from server.domain.clock import Clock, SystemClock
from server.upstream.credentials import TokenSource
from server.upstream.failures import (
    UpstreamFailure,
    classify_response,
    classify_transport,
    refused_here,
    unreadable_answer,
)

log = structlog.get_logger(__name__)

USER_AGENT = f"mlflow-azureml-proxy/{__version__}"
_READ_METHODS = frozenset({"GET", "HEAD"})
_NO_ANSWER = 0
_FAULTS = (
    _NO_ANSWER,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS,
)
_REQUEST_ID = "x-ms-client-request-id"
# Each piece of an answer has a time limit of its own in httpx; a trickle of pieces would have none. Less
# than a lease lasts, so that a call ends while its lane is still ours.
LONGEST_CALL_SECONDS = 90.0
_TALKATIVE = ("httpx", "httpcore", "urllib3", "azure", "msal")

Observe = Callable[[str, str, int, float], None]
"""Told about each call: method, route name, status (0 without an answer), seconds."""


class Admission(Protocol):
    """Decides when a call may go."""

    async def admit(self) -> float:
        """Wait until a call may go; a moment to name the call by."""
        ...

    def throttled(self, admitted_at: float) -> None:
        """The call let through at that moment was refused as one too many (429)."""
        ...


class Unhindered:
    """Every call may go at once."""

    async def admit(self) -> float:
        """Do not wait."""
        return 0.0

    def throttled(self, admitted_at: float) -> None:
        """Change nothing."""


class CallTrace(Protocol):
    """What traces calls."""

    def headers(self) -> dict[str, str]:
        """What tells the other end which span its call belongs to."""
        ...

    def note_call(self, method: str, path: str, request_id: str) -> None:
        """A call goes out, under this `x-ms-client-request-id`."""
        ...


def create_http_client(trace: CallTrace | None = None) -> httpx.AsyncClient:
    """The one client that all of this package shares; the caller closes it.

    Loopback hosts are reached directly, everything else through the usual proxy variables.
    """
    _quiet_loggers()
    return httpx.AsyncClient(
        http1=True,
        http2=False,
        follow_redirects=False,
        timeout=httpx.Timeout(60.0, connect=10.0, pool=10.0),
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=16, keepalive_expiry=30.0),
        verify=_trust(),
        trust_env=True,
        event_hooks={} if trace is None else {"request": [_telling(trace)]},
        mounts={"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None},
    )


def trusted_ca_file() -> str | None:
    """The file or folder of certificate authorities that the environment names."""
    return os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")


class Channel:
    """Calls to one host with a bearer token."""

    def __init__(
        self,
        *,
        origin: str,
        tokens: TokenSource,
        http: httpx.AsyncClient,
        clock: Clock | None = None,
        observe: Observe | None = None,
        patience_seconds: float = LONGEST_CALL_SECONDS,
        admission: Admission | None = None,
    ) -> None:
        self._patience_seconds = patience_seconds
        self._admission = admission or Unhindered()
        self._origin = _origin_of(httpx.URL(origin))
        self._tokens = tokens
        self._http = http
        self._clock = clock or SystemClock()
        self._observe = observe

    async def request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Any = None,
        content_type: str | None = None,
        route: str = "",
        is_repeatable: bool | None = None,
        expects_answer: bool = True,
    ) -> Any:
        """The decoded JSON answer, or `UpstreamFailure`.

        Args:
            method: HTTP method.
            url: Whole URL, on this channel's host, its parts already encoded.
            params: Query parameters, encoded here.
            json: Body.
            content_type: Of the body, when it is not `application/json`.
            route: Stable name of the call for metrics.
            is_repeatable: Doing it again does no harm (default: true for GET and HEAD).
            expects_answer: An empty success is a cut answer. When not, it is `None`.
        """
        repeatable = method in _READ_METHODS if is_repeatable is None else is_repeatable
        target = self._checked(url, params)
        content = None if json is None else _encode(json)
        headers = {
            "accept": "application/json",
            "user-agent": USER_AGENT,
            _REQUEST_ID: str(uuid.uuid4()),
        }
        if content is not None:
            headers["content-type"] = content_type or "application/json"
        token = await self._tokens.token()
        for is_renewed in (False, True):
            headers["authorization"] = f"Bearer {token}"
            response = await self._send(
                method, target, headers, content, route=route, is_repeatable=repeatable
            )
            if response.status_code != HTTPStatus.UNAUTHORIZED or is_renewed:
                break
            token = await self._tokens.renew(token)
        return self._decoded(response, is_repeatable=repeatable, expects_answer=expects_answer)

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: dict[str, str],
        content: bytes | None,
        *,
        route: str,
        is_repeatable: bool,
    ) -> httpx.Response:
        admitted_at = await self._admission.admit()
        started = perf_counter()
        status = _NO_ANSWER
        try:
            async with asyncio.timeout(self._patience_seconds):
                response = await self._http.request(method, url, headers=headers, content=content)
            status = response.status_code
        except TimeoutError as error:
            late = httpx.ReadTimeout(f"no whole answer within {self._patience_seconds:g} s")
            raise classify_transport(late, is_repeatable=is_repeatable) from error
        except httpx.HTTPError as error:
            raise classify_transport(error, is_repeatable=is_repeatable) from error
        finally:
            seconds = perf_counter() - started
            _log_call(method, route, status, seconds, headers[_REQUEST_ID])
            if self._observe is not None:
                self._observe(method, route, status, seconds)
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self._admission.throttled(admitted_at)
        return response

    def _decoded(self, response: httpx.Response, *, is_repeatable: bool, expects_answer: bool) -> Any:
        if not response.is_success:
            raise classify_response(
                response.status_code,
                response.headers,
                response.content,
                now_ms=self._clock.now_ms(),
                is_repeatable=is_repeatable,
            )
        if not response.content.strip():
            if expects_answer and response.status_code != HTTPStatus.NO_CONTENT:
                raise self._unreadable(response, "an empty answer", is_repeatable=is_repeatable)
            return None
        try:
            return json.loads(response.content)
        except ValueError as error:
            if not expects_answer:
                return None
            raise self._unreadable(
                response, "an answer that is not JSON", is_repeatable=is_repeatable
            ) from error

    def _unreadable(self, response: httpx.Response, what: str, *, is_repeatable: bool) -> UpstreamFailure:
        start = response.content[:200].decode(errors="replace")
        return unreadable_answer(
            f"{what}: {start!r}", is_repeatable=is_repeatable, status=response.status_code
        )

    def _checked(self, url: str, params: Mapping[str, str | int] | None) -> httpx.URL:
        try:
            target = httpx.URL(f"{url}?{urlencode(params, quote_via=quote)}" if params else url)
        except httpx.InvalidURL as error:
            raise refused_here(f"not a URL: {error}") from error
        if _origin_of(target) != self._origin or target.userinfo:
            raise refused_here(f"the token is not sent to {target.host!r}", "FOREIGN_HOST")
        return target


def _log_call(method: str, route: str, status: int, seconds: float, call_id: str) -> None:
    """One line for each call, under the id that the workspace knows it by.

    Seen without asking where the workspace, or our standing there, is at fault: refusals of a single write
    are told by who sent it, and that something is absent is often just what was to be found out.
    """
    is_fault = status in _FAULTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    level = logging.INFO if is_fault else logging.DEBUG
    log.log(
        level,
        "upstream_call",
        method=method,
        route=route,
        status=status or None,
        seconds=round(seconds, 3),
        call_id=call_id,
    )


def _telling(trace: CallTrace) -> Callable[[httpx.Request], Awaitable[None]]:
    async def tell(request: httpx.Request) -> None:
        request.headers.update(trace.headers())
        trace.note_call(request.method, request.url.path, request.headers.get(_REQUEST_ID, ""))

    return tell


def _quiet_loggers() -> None:
    """The libraries below us log whole addresses, signatures included, and at worst headers."""
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _encode(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def _trust() -> ssl.SSLContext | bool:
    ca = trusted_ca_file()
    if ca is None:
        return True
    return (
        ssl.create_default_context(capath=ca) if os.path.isdir(ca) else ssl.create_default_context(cafile=ca)
    )
