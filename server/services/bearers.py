"""Telling API keys from tokens that an identity provider signed."""

import hashlib
from base64 import b64decode
from collections.abc import Awaitable, Callable

from server.domain.access import Principal
from server.domain.clock import Clock
from server.services.keys import KeyAuthenticator

_BELIEVED_SECONDS = 5.0
_LARGEST_CACHE = 10_000


class BearerAuthenticator:
    """Takes both, as Bearer token or Basic password. A judgement on a token is believed for five seconds."""

    def __init__(
        self,
        *,
        keys: KeyAuthenticator,
        judge: Callable[[str], Awaitable[Principal | None]],
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._judge = judge
        self._clock = clock
        self._believed: dict[bytes, tuple[float, Principal | None]] = {}

    async def principal_of(self, authorization: bytes | None) -> Principal | None:
        """Who the credential belongs to, or None."""
        token = None if authorization is None else _signed_token(authorization)
        if token is None:
            return await self._keys.principal_of(authorization)
        digest = hashlib.sha256(token.encode()).digest()
        believed = self._believed.get(digest)
        now = self._clock.monotonic()
        if believed is not None and now < believed[0]:
            return believed[1]
        principal = await self._judge(token)
        if len(self._believed) >= _LARGEST_CACHE:
            self._believed.clear()
        self._believed[digest] = (now + _BELIEVED_SECONDS, principal)
        return principal


def _signed_token(authorization: bytes) -> str | None:
    """The JSON Web Token in an Authorization header: three parts, where a key has none."""
    scheme, _, credential = authorization.decode("latin-1").partition(" ")
    token = credential.strip()
    if scheme.lower() == "basic":
        try:
            _, _, token = b64decode(token, validate=True).decode().partition(":")
        except ValueError:
            return None
    elif scheme.lower() != "bearer":
        return None
    return token if token.count(".") == 2 and token.isascii() else None
