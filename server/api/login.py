"""Logging a browser in and out: `/login`, `/logout`, and the way over the identity provider."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from server.api.cookies import LOGIN_COOKIE, SESSION_COOKIE, make_cookie, read_cookie
from server.api.door import Authenticator
from server.api.endpoints import Call, Endpoint, stream_routes
from server.api.endpoints import read_body as read_whole_body
from server.api.errors import send_json
from server.api.pages import send_page
from server.domain.access import Permission, Principal
from server.domain.attempts import Attempts
from server.domain.errors import ErrorCode, MlflowError, invalid_parameter
from server.domain.logins import LOGIN_LASTS_SECONDS, LoginFailedError, ProviderLogin, local_path
from server.protocol.wire import encode
from server.services.sessions import LIFETIME, Sessions
from server.telemetry.audit import audit

_LARGEST_BODY = 8192
# Anybody may begin one, and nobody may keep one open.
_BODY_SECONDS = 10.0
_TROUBLES = {
    "unavailable": "The identity provider cannot be reached. Try again later.",
    "refused": "The identity provider did not let you in, or you have no role on this server.",
}


class _LoginRequest(msgspec.Struct):
    key: str
    next: str = "/"


class LoginRoutes:
    """Browsers trade a key, or an identity provider's word, for a session cookie."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        sessions: Sessions,
        attempts: Attempts,
        oidc: ProviderLogin | None,
        public_url: str | None,
        path_prefix: str = "",
    ) -> None:
        self._authenticator = authenticator
        self._sessions = sessions
        self._attempts = attempts
        self._oidc = oidc
        self._is_https = (public_url or "").startswith("https://")
        self._prefix = path_prefix.rstrip("/")

    def routes(self) -> list[Endpoint]:
        """The route table."""
        public, read = Permission.PUBLIC, Permission.READ
        return [
            *stream_routes("GET", ["/login"], self._page, permission=public),
            *stream_routes("POST", ["/login"], self._log_in, permission=public),
            *stream_routes("GET", ["/login/ways"], self._ways, permission=public),
            *stream_routes("GET", ["/login/oidc"], self._depart, permission=public),
            *stream_routes("GET", ["/login/callback"], self._arrive, permission=public),
            *stream_routes("POST", ["/logout"], self._log_out, permission=read),
        ]

    async def _page(self, call: Call) -> None:
        await send_page(call, "login.html")

    async def _ways(self, call: Call) -> None:
        await send_json(call.send, encode({"oidc": self._oidc is not None, "troubles": _TROUBLES}))

    async def _log_in(self, call: Call) -> None:
        """With a key in a JSON body: a form of another site cannot send one unasked."""
        if not (call.header(b"content-type") or b"").startswith(b"application/json"):
            raise invalid_parameter("Content-Type must be application/json.")
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await read_whole_body(call, _LARGEST_BODY)
            request = msgspec.json.decode(body, type=_LoginRequest)
        except TimeoutError as error:
            raise invalid_parameter("The login did not come whole in time.") from error
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise invalid_parameter("Wanted: a JSON object with 'key'.") from error
        address = _address(call)
        self._attempts.require_some_left(address)
        principal = await self._authenticator.principal_of(
            b"Bearer " + request.key.encode("latin-1", "replace")
        )
        if principal is None:
            self._attempts.note_failure(address)
            audit("login_refused", address=address)
            raise MlflowError(ErrorCode.UNAUTHENTICATED, "This key is not known, or not any more.")
        cookie = await self._open(call, principal, "key")
        answer = encode({"next": self._within(local_path(request.next))})
        await send_json(call.send, answer, headers={"Set-Cookie": cookie, "Cache-Control": "no-store"})

    async def _depart(self, call: Call) -> None:
        if self._oidc is None:
            raise MlflowError(ErrorCode.ENDPOINT_NOT_FOUND, "No identity provider is configured.")
        target = _query(call).get("next", "/")
        try:
            departure = await self._oidc.depart(target)
        except LoginFailedError:
            await self._redirect(call, self._trouble("unavailable"))
            return
        cookie = self._cookie(call, LOGIN_COOKIE, departure.cookie, LOGIN_LASTS_SECONDS)
        await self._redirect(call, departure.url, cookie)

    async def _arrive(self, call: Call) -> None:
        if self._oidc is None:
            raise MlflowError(ErrorCode.ENDPOINT_NOT_FOUND, "No identity provider is configured.")
        query = _query(call)
        brought = read_cookie(call.scope["headers"], LOGIN_COOKIE)
        try:
            principal, target = await self._oidc.arrive(
                brought, query.get("state", ""), query.get("code", "")
            )
        except LoginFailedError as error:
            audit("login_refused", address=_address(call), reason=str(error))
            await self._redirect(call, self._trouble("refused"))
            return
        await self._redirect(call, self._within(target), await self._open(call, principal, "oidc"))

    async def _log_out(self, call: Call) -> None:
        token = read_cookie(call.scope["headers"], SESSION_COOKIE)
        if token is not None:
            await self._sessions.close(token)
            audit("logout", principal=call.user)
        gone = self._cookie(call, SESSION_COOKIE, "", 0)
        await send_json(call.send, b"{}", headers={"Set-Cookie": gone, "Cache-Control": "no-store"})

    # --- helpers ---

    async def _open(self, call: Call, principal: Principal, way: str) -> str:
        token = await self._sessions.open(principal)
        audit("login", principal=principal.name, role=principal.role.value, way=way, address=_address(call))
        return self._cookie(call, SESSION_COOKIE, token, int(LIFETIME.total_seconds()))

    def _cookie(self, call: Call, name: str, value: str, seconds: int) -> str:
        is_secure = self._is_https or call.scope.get("scheme") == "https"
        return make_cookie(name, value, path=self._prefix or "/", is_secure=is_secure, seconds=seconds)

    async def _redirect(self, call: Call, url: str, cookie: str | None = None) -> None:
        headers = {"Location": url, "Cache-Control": "no-store"}
        if cookie is not None:
            headers["Set-Cookie"] = cookie
        await send_json(call.send, b"", status=303, headers=headers)

    def _trouble(self, name: str) -> str:
        return f"{self._prefix}/login?{urlencode({'trouble': name})}"

    def _within(self, path: str) -> str:
        """A path as the browser has it: below the prefix."""
        return path if path.startswith(f"{self._prefix}/") else f"{self._prefix}{path}"


def _address(call: Call) -> str:
    client: Any = call.scope.get("client")
    return str(client[0]) if client else ""


def _query(call: Call) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(f"?{call.query}").query).items()}
