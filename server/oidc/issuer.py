"""What an issuer publishes of itself: its addresses and its keys (OpenID Connect Discovery 1.0)."""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from server.domain.clock import Clock

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 10.0
_KEYS_LAST_SECONDS = 3600.0
_LEAST_BETWEEN_FETCHES_SECONDS = 30.0
_LARGEST_DOCUMENT = 1024 * 1024


class IssuerUnavailableError(Exception):
    """The issuer could not be asked, or its answer makes no sense."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of an issuer's document that is used here."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


class Issuer:
    """One issuer. What it published is kept for an hour, and longer while it cannot be asked."""

    def __init__(self, url: str, *, http: httpx.AsyncClient, clock: Clock) -> None:
        self._url = url.rstrip("/")
        self._http = http
        self._clock = clock
        self._metadata: Metadata | None = None
        self._keys: KeySet | None = None
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def metadata(self) -> Metadata:
        """Where the issuer is asked for what.

        Raises:
            IssuerUnavailableError: it could not be asked, and never was.
        """
        await self._refresh(is_stale=self._metadata is None)
        assert self._metadata is not None
        return self._metadata

    async def keys(self, *, without: str | None = None) -> KeySet:
        """Its signing keys. `without` names a key that was looked for in vain: they are fetched anew.

        Raises:
            IssuerUnavailableError: it could not be asked, and never was.
        """
        age = self._clock.monotonic() - self._fetched_at
        await self._refresh(is_stale=without is not None or age > _KEYS_LAST_SECONDS)
        assert self._keys is not None
        return self._keys

    async def _refresh(self, *, is_stale: bool) -> None:
        async with self._fetching:
            is_known = self._keys is not None
            waited = self._clock.monotonic() - self._tried_at
            if is_known and (not is_stale or waited < _LEAST_BETWEEN_FETCHES_SECONDS):
                return
            if not is_known and waited < 1.0:
                raise IssuerUnavailableError("the issuer could not be asked a moment ago")
            self._tried_at = self._clock.monotonic()
            try:
                self._metadata, self._keys = await self._fetch()
            except IssuerUnavailableError as error:
                log.warning("oidc_issuer_unavailable", issuer=self._url, error=str(error))
                if not is_known:
                    raise
                return
            self._fetched_at = self._clock.monotonic()

    async def _fetch(self) -> tuple[Metadata, KeySet]:
        document = await self._get(f"{self._url}/.well-known/openid-configuration")
        try:
            metadata = Metadata(
                document["issuer"],
                document["authorization_endpoint"],
                document["token_endpoint"],
                document["jwks_uri"],
            )
            if metadata.issuer.rstrip("/") != self._url:
                raise IssuerUnavailableError(f"it calls itself {metadata.issuer!r}")
            _require_same_security(self._url, metadata)
            return metadata, KeySet.import_key_set(await self._get(metadata.jwks_uri))
        except (KeyError, TypeError, AttributeError, JoseError) as error:
            raise IssuerUnavailableError(f"its document makes no sense: {type(error).__name__}") from error

    async def _get(self, url: str) -> Any:
        try:
            answer = await self._http.get(url, timeout=_PATIENCE_SECONDS, follow_redirects=False)
            answer.raise_for_status()
            if len(answer.content) > _LARGEST_DOCUMENT:
                raise IssuerUnavailableError("its document is too large")
            return answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise IssuerUnavailableError(f"{type(error).__name__}: {error}") from error


def _require_same_security(url: str, metadata: Metadata) -> None:
    """An issuer behind TLS must not send us, or our users, outside of it."""
    if urlsplit(url).scheme != "https":
        return
    for other in (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri):
        if urlsplit(other).scheme != "https":
            raise IssuerUnavailableError("one of its addresses is not https")
