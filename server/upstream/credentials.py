"""The one token that opens the workspace: fetched, kept, renewed ahead of its end.

Whatever the number of callers, one renewal is under way at a time. A token is renewed in the background
while it still serves; a refused one is renewed at once. After a failed renewal there is a pause that
doubles up to a minute, in which callers are told so at once instead of waiting.

azure-identity does the fetching. It is imported when the first token is asked for, it blocks, so it runs
in a thread, and it caches, so each renewal uses a credential object of its own. Nothing here asks a
person: a server has no browser to show.
"""

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

from server.domain.backoff import Backoff
from server.domain.clock import Clock, SystemClock
from server.domain.verdicts import Verdict
from server.upstream.failures import UpstreamFailure, redact

PUBLIC_SCOPE = "https://management.azure.com/.default"
RENEW_AHEAD_MS = 5 * 60_000
RENEW_AHEAD_OF_LIFE = 0.2
FETCH_TIMEOUT_SECONDS = 60.0
_PAUSE = Backoff(first=timedelta(seconds=1), ceiling=timedelta(seconds=60))


class CredentialKind(StrEnum):
    """Where the token comes from; the details are in azure-identity's own `AZURE_*` variables."""

    DEFAULT = "default"
    MANAGED_IDENTITY = "managed-identity"
    SERVICE_PRINCIPAL = "service-principal"
    WORKLOAD_IDENTITY = "workload-identity"
    AZURE_CLI = "azure-cli"


_ADVICE = {
    CredentialKind.DEFAULT: (
        "No Azure identity was found. Give the server a managed identity, or set AZURE_TENANT_ID, "
        "AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or sign in with `az login` where it runs."
    ),
    CredentialKind.MANAGED_IDENTITY: (
        "The managed identity gave no token. Check that the machine or container has one, and, for a "
        "user-assigned one, that AZURE_CLIENT_ID is its client id."
    ),
    CredentialKind.SERVICE_PRINCIPAL: (
        "The service principal gave no token. Check AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_CLIENT_SECRET (or AZURE_CLIENT_CERTIFICATE_PATH), and that the secret has not expired."
    ),
    CredentialKind.WORKLOAD_IDENTITY: (
        "The workload identity gave no token. Check AZURE_TENANT_ID, AZURE_CLIENT_ID and "
        "AZURE_FEDERATED_TOKEN_FILE, and the federated credential of the identity."
    ),
    CredentialKind.AZURE_CLI: "The Azure CLI gave no token. Run `az login` as the user that runs the server.",
}


class AccessToken(Protocol):
    """What azure-identity hands out; `expires_on` is in seconds since the Unix epoch."""

    @property
    def token(self) -> str:
        """The bearer token."""
        ...

    @property
    def expires_on(self) -> int:
        """When it ends."""
        ...


class Credential(Protocol):
    """The part of an azure-identity credential that is used here."""

    def get_token(self, *scopes: str) -> AccessToken:
        """A token for `scopes`; blocks."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class CredentialError(UpstreamFailure):
    """We have no token. Nothing is wrong with the write: hold all, and tell the operator."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(Verdict.WAIT, "CREDENTIAL_UNAVAILABLE", message, retry_after=retry_after)


@dataclass(frozen=True, slots=True)
class _Held:
    token: str = field(repr=False)
    expires_at_ms: int
    renew_at_ms: int


class TokenSource:
    """Bearer tokens for one scope."""

    def __init__(
        self,
        kind: CredentialKind | str = CredentialKind.DEFAULT,
        *,
        scope: str = PUBLIC_SCOPE,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
        open_credential: Callable[[], Credential] | None = None,
    ) -> None:
        self._kind = CredentialKind(kind)
        self._scope = scope
        self._clock = clock or SystemClock()
        self._jitter = jitter
        self._open_credential = open_credential or (lambda: open_azure_credential(self._kind))
        self._held: _Held | None = None
        self._refused: str | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._pause_until = 0.0
        self.failures = 0
        self.last_error: str | None = None

    @property
    def expires_at_ms(self) -> int | None:
        """When the token at hand ends; `None` when there is none."""
        return None if self._held is None else self._held.expires_at_ms

    async def token(self) -> str:
        """A token that has not ended. Waits only when there is none.

        Raises:
            CredentialError: There is none to be had now.
        """
        held = self._current()
        if held is None:
            return await self._renewed()
        if self._clock.now_ms() >= held.renew_at_ms and not self._is_pausing():
            self._start_renewal()
        return held.token

    async def renew(self, refused: str) -> str:
        """Another token than `refused`, which the workspace did not accept.

        When the token at hand is another one already, that one is given and nothing is fetched.

        Raises:
            CredentialError: There is none to be had now, or it is the refused one again.
        """
        held = self._current()
        if held is not None and held.token != refused:
            return await self.token()
        self._refused = refused
        self._held = None
        token = await self._renewed()
        if token == refused:
            raise CredentialError(
                f"The workspace refuses the token that {self._kind} gives, again and again. Check that the "
                "identity belongs to the workspace's tenant and that the server's clock is right.",
                retry_after=self._pause_left(),
            )
        return token

    async def aclose(self) -> None:
        """Give up a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    def _current(self) -> _Held | None:
        held = self._held
        if held is not None and self._clock.now_ms() < held.expires_at_ms:
            return held
        return None

    async def _renewed(self) -> str:
        if self._renewal is None and self._is_pausing():
            raise self._unavailable()
        await asyncio.shield(self._start_renewal())
        held = self._current()
        if held is None:
            raise self._unavailable()
        return held.token

    def _start_renewal(self) -> asyncio.Task[None]:
        if self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._renew_once(), name="token-renewal")
            self._renewal.add_done_callback(self._forget_renewal)
        return self._renewal

    def _forget_renewal(self, _: asyncio.Task[None]) -> None:
        self._renewal = None

    async def _renew_once(self) -> None:
        """One renewal. It never raises: the outcome is in `_held`, `failures` and `last_error`."""
        started_ms = self._clock.now_ms()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_SECONDS):
                fetched = await asyncio.to_thread(self._fetch)
        except TimeoutError:
            self._record_failure(f"no answer within {FETCH_TIMEOUT_SECONDS:.0f} s")
            return
        except Exception as error:  # azure-identity's chain raises whatever its members raise
            self._record_failure(_first_lines(error))
            return
        expires_at_ms = int(fetched.expires_on) * 1000
        ahead_ms = min(RENEW_AHEAD_MS, RENEW_AHEAD_OF_LIFE * (expires_at_ms - started_ms))
        self._held = _Held(fetched.token, expires_at_ms, int(expires_at_ms - ahead_ms))
        if fetched.token == self._refused:
            self._record_failure("the identity gave the refused token again")
            return
        self._refused = None
        self.failures = 0
        self.last_error = None

    def _fetch(self) -> AccessToken:
        credential = self._open_credential()
        try:
            return credential.get_token(self._scope)
        finally:
            credential.close()

    def _record_failure(self, words: str) -> None:
        self.failures += 1
        self.last_error = redact(words)
        pause = _PAUSE.delay(self.failures, self._jitter)
        self._pause_until = self._clock.monotonic() + pause.total_seconds()

    def _is_pausing(self) -> bool:
        return self.failures > 0 and self._clock.monotonic() < self._pause_until

    def _pause_left(self) -> timedelta:
        return timedelta(seconds=max(self._pause_until - self._clock.monotonic(), 0.0))

    def _unavailable(self) -> CredentialError:
        return CredentialError(
            f"{_ADVICE[self._kind]} ({self.last_error or 'no token yet'})", retry_after=self._pause_left()
        )


def open_azure_credential(kind: CredentialKind) -> Credential:
    """A new azure-identity credential, with nothing cached and nobody asked."""
    from azure import identity

    client_id = os.environ.get("AZURE_CLIENT_ID")
    trust: dict[str, Any] = {}
    if (ca := os.environ.get("SSL_CERT_FILE")) is not None:
        trust["connection_verify"] = ca
    match kind:
        case CredentialKind.DEFAULT:
            return identity.DefaultAzureCredential(
                exclude_interactive_browser_credential=True,
                exclude_visual_studio_code_credential=True,
                exclude_shared_token_cache_credential=True,
                exclude_broker_credential=True,
                **trust,
            )
        case CredentialKind.MANAGED_IDENTITY:
            return identity.ManagedIdentityCredential(client_id=client_id, **trust)
        case CredentialKind.SERVICE_PRINCIPAL:
            return identity.EnvironmentCredential(**trust)
        case CredentialKind.WORKLOAD_IDENTITY:
            return identity.WorkloadIdentityCredential(**trust)
        case CredentialKind.AZURE_CLI:
            return identity.AzureCliCredential()


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:600] or type(error).__name__
