"""Bearer tokens: issued, expired, revoked.

Tokens are signed JWTs (HMAC) because Microsoft's client decodes them for `exp` [C]. Revoking raises a
generation number, so everything issued before is refused whatever its `exp` says.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import Any
from urllib.parse import urlsplit

from emulator.errors import ServiceError
from emulator.store import Store

AUDIENCES = {
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://management.usgovcloudapi.net",
    "https://management.chinacloudapi.cn",
    "https://ml.azure.com",
}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
RUN_AUDIENCE = "run"


class Tokens:
    """Issues and checks; key and generation live in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        key = store.find_fact("token_key") or secrets.token_hex(32)
        store.put_fact("token_key", key)
        self._key = bytes.fromhex(key)
        self._generation = int(store.find_fact("token_generation") or "0")

    def issue(self, *, audience: str, seconds: float, run_id: str | None = None) -> str:
        """A token for an audience, good for so long."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "aud": audience.removesuffix("/.default").rstrip("/"),
            "iss": "https://sts.windows.net/emulator/",
            "iat": now,
            "nbf": now,
            "exp": int(now + seconds),
            "oid": "00000000-0000-0000-0000-0000000000e1",
            "tid": "00000000-0000-0000-0000-0000000000e2",
            "appid": "emulator",
            "generation": self._generation,
            "jti": secrets.token_hex(8),
        }
        if run_id is not None:
            claims["runid"] = run_id
        body = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
        return f"{body}.{self._signature(body)}"

    def revoke_all(self) -> None:
        """Refuse everything issued so far."""
        self._generation += 1
        self._store.put_fact("token_generation", str(self._generation))

    def check(self, authorization: str | None, *, for_arm: bool) -> None:
        """Raises the service's 401 unless the header carries a token that is good now."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _unauthorized("Bearer token not provided.")
        claims = self._claims(token)
        if claims is None:
            raise _unauthorized("Bearer token is not valid.")
        if claims["exp"] <= time.time():
            raise _unauthorized("Bearer token is expired.")
        if claims["generation"] != self._generation:
            raise _unauthorized("Bearer token was revoked.")
        if not _is_accepted(str(claims["aud"]), for_arm=for_arm):
            raise _unauthorized(f"Bearer token has the wrong audience '{claims['aud']}'.")

    def _claims(self, token: str) -> dict[str, Any] | None:
        body, _, signature = token.rpartition(".")
        if not hmac.compare_digest(signature, self._signature(body)):
            return None
        claims: dict[str, Any] = json.loads(_decode(body.partition(".")[2]))
        return claims

    def _signature(self, body: str) -> str:
        return _base64(hmac.new(self._key, body.encode(), hashlib.sha256).digest())


def _is_accepted(audience: str, *, for_arm: bool) -> bool:
    """The ARM audience opens everything, a run token everything but ARM [C][W].

    A loopback audience is ours: clients that were pointed at the emulator as their whole cloud use its
    address as the scope.
    """
    if audience == RUN_AUDIENCE:
        return not for_arm
    return audience in AUDIENCES or urlsplit(audience).hostname in LOOPBACK


def _unauthorized(message: str) -> ServiceError:
    return ServiceError(401, message, inner_code="AuthorizationError")


def _encode(document: dict[str, Any]) -> str:
    return _base64(json.dumps(document).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
